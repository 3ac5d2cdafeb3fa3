"""Points that see one another: a crowd that keeps its distance on its way to data, on a mesh and as particles.

python scripts/examples/interactions.py
mpirun -n 2 python scripts/examples/interactions.py
"""

from mpi4py import MPI

import numpy as np

import eulerian as eu

space = eu.DensitySpace(eu.box_mesh([-3.0, -3.0], [3.0, 3.0], [16, 16]), degree=2)
field, time, rho0 = eu.Mlp(2, [16]), eu.TimeGrid(horizon=1.0, layers=4), eu.Gaussian([-1.0, 0.0], std=0.4)
data = eu.Samples(np.random.default_rng(0).normal([1.0, 0.0], [0.3, 0.6], (400, 2)))

# At the end the distance of two samples (MMD), all along the way repulsion; half-way all are to be close together.
close = eu.MaximumMeanDiscrepancy(data, width=0.5, weight=20.0)
costs = eu.Costs(kinetic=0.2, interaction=eu.GaussianInteraction(weight=1.0, width=0.4))
together = eu.CostAt(0.5, eu.InteractionEnergy(eu.QuadraticInteraction(weight=0.5)))

mesh = eu.ControlProblem(space, field, rho0, close, costs, time, at=[together])
points = space.project(rho0).draw(2000, seed=1)
particles = eu.ParticleProblem(points, field, close, costs, time, at=[together], box=space.bounding_box)
result = eu.minimise(mesh, max_iterations=15)
found = particles.value(result.theta), eu.verify(mesh, result.theta).objective["total"]
if MPI.COMM_WORLD.rank == 0:
    print(f"J = {result.value:.4f} on the mesh, {found[0]:.4f} for particles, {found[1]:.4f} for the flow itself")
