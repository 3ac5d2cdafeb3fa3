"""Losses of one's own, differentiated by JAX or DOLFINx; their parameters are trained with the network.

mpirun -n 2 python scripts/examples/own_losses.py
"""

from mpi4py import MPI

import numpy as np
import ufl
from jax import numpy as jnp

import eulerian as eu
from eulerian.jax import density_loss, point_loss, potential, sensor_loss  # eulerian.torch has the same four

space = eu.DensitySpace(eu.box_mesh([-2.0, -2.0], [2.0, 2.0], [12, 12]), degree=1)
rho0 = space.project(eu.Gaussian([-0.5, 0.0], std=0.4))
goal = space.project(eu.Gaussian([0.5, 0.0], std=0.4)).to_function()
sensors, measured = [[0.5, 0.0], [0.5, 0.4], [0.9, 0.0]], np.array([1.0, 0.6, 0.6])
losses = {
    "of points": point_loss(lambda p, x: jnp.sum((x - p) ** 2), np.array([0.5, 0.0])),  # p is trained, too
    "of the density": density_loss(lambda x, rho: (x[0] - 0.5) ** 2 * rho[0] + 0.1 * rho[0] ** 2),
    "at sensors": sensor_loss(lambda values: jnp.sum((values[:, 0] - measured) ** 2), sensors),
    "a form of UFL": eu.FormLoss(lambda rho: 0.5 * (rho - goal) ** 2 * ufl.dx),
}
costs = eu.Costs(kinetic=0.1, potential=potential(lambda x: 0.2 * x[1] ** 2))
for name, loss in losses.items():
    problem = eu.ControlProblem(space, eu.Mlp(2, [8]), rho0, loss, costs, eu.TimeGrid(horizon=1.0, layers=3))
    result = eu.minimise(problem, max_iterations=15)
    if MPI.COMM_WORLD.rank == 0:
        print(f"{name:15}{problem.n_params} parameters, J = {result.value:.4f}")
