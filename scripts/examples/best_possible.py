"""How good could any flow be? The idealised problem is convex: its value bounds every network's J from below.

python scripts/examples/best_possible.py
mpirun -n 2 python scripts/examples/best_possible.py
"""

from mpi4py import MPI

import eulerian as eu

space = eu.DensitySpace(eu.box_mesh([-3.0, -3.0], [3.0, 3.0], [24, 24]), degree=1)
rho0 = space.project(eu.Gaussian([-0.5, 0.3], std=0.5))
loss, kinetic, horizon = eu.QuadraticLoss([1.0, -0.5]), 0.5, 1.0

# In closed form where the domain is convex and the loss linear in the density; by a convex solver everywhere.
ideal = eu.IdealProblem(space, rho0, loss, kinetic, horizon, slabs=8)
bound, solution = eu.hopf_lax(ideal), eu.solve_convex(ideal)

# Densities that are to be reached exactly, optimal transport: the solver has a flow on this mesh, the bounds hold for
# the continuous problem.
ends = eu.FixedDensity(eu.Gaussian([1.0, -0.5], std=0.3))
transport = eu.IdealProblem(space, rho0, ends, kinetic, horizon, slabs=8)
flow, bounds = eu.solve_convex(transport), eu.continuous_bounds(transport)

# On a line flows keep the order of points: a field that does not see the label cannot do what others can.
line = eu.DensitySpace(eu.box_mesh([-4.0], [4.0], [100]), labels=2)
groups = line.project({0: eu.Gaussian([-0.5], std=0.5), 1: eu.Gaussian([0.5], std=0.5)})
crossing = eu.IdealProblem(line, groups, eu.QuadraticLoss([[1.0], [-1.0]]), kinetic=1.0)
together, apart = eu.monotone_bound(crossing), eu.hopf_lax(crossing)

# What a trained network leaves on the table.
time = eu.TimeGrid(horizon, layers=4)
problem = eu.ControlProblem(space, eu.Mlp(2, [16]), rho0, loss, eu.Costs(kinetic=kinetic), time)
result = eu.minimise(problem, max_iterations=40)
certificate = eu.certify(problem, result.theta)

if MPI.COMM_WORLD.rank == 0:
    print(
        f"no flow is better than {bound.value:.5f}; the convex solver says {solution.dual:.5f} to {solution.primal:.5f}"
    )
    print(f"optimal transport costs {flow.dual:.4f} to {flow.primal:.4f} on this mesh. {bounds.statement}")
    print(f"without seeing labels {together.value:.4f}, with {apart.value:.4f}")
    print(f"the network has {result.value:.5f}. {certificate.statement}")
