"""A limit of the speed, and bounds on θ.

python scripts/examples/bounds.py
mpirun -n 2 python scripts/examples/bounds.py
"""

import numpy as np

import eulerian as eu

space = eu.DensitySpace(eu.box_mesh([-3.0, -3.0], [3.0, 3.0], [16, 16]), degree=1)
rho0 = space.project(eu.Gaussian([-0.5, 0.3], std=0.5))


def trained(field, **options):
    """The field's way to a point, trained."""
    loss, costs = eu.QuadraticLoss([1.0, -0.5]), eu.Costs(kinetic=0.5)
    problem = eu.ControlProblem(space, field, rho0, loss, costs, eu.TimeGrid(horizon=1.0, layers=4))
    result = eu.minimise(problem, max_iterations=40, **options)
    problem.value(result.theta)  # the speed is that of the last evaluation; all ranks are asked for it
    speed, size = problem.speed, np.abs(result.theta).max()
    if space.comm.rank == 0:
        print(f"J = {result.value:.4f}, |v| ≤ {speed:.3f}, |θ| ≤ {size:.3f}: {result.reason}")


trained(eu.Mlp(2, [16]))
trained(eu.Mlp(2, [16], max_speed=0.8))  # |v| < 0.8 at every point, whatever θ is
trained(eu.SpeedLimit(eu.Linear(2, "rbf", width=16), 0.8))  # around any field, models of JAX and PyTorch too
trained(eu.Mlp(2, [16]), bounds=(-1.0, 1.0))  # every number of θ; (0.0, None) is one side, arrays are one by one
