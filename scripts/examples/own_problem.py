"""A control problem from objects of one's own: field, losses, potential, levels, particles.

    python scripts/examples/own_problem.py
    mpirun -n 2 python scripts/examples/own_problem.py
"""

import logging

from mpi4py import MPI

import numpy as np

import eulerian as eu

TARGET = np.array([1.0, -0.5])
logging.basicConfig(level=logging.WARNING)  # logging.INFO tells every iteration


def distance(x):
    """A loss of one's own: any function of points (n, dim) (and of the label, as a second argument)."""
    return 0.5 * ((x - TARGET) ** 2).sum(axis=1)


def problem_on(cells):
    """The problem on a mesh with so many boxes along every axis."""
    space = eu.DensitySpace(eu.box_mesh([-3.0, -3.0], [3.0, 3.0], [cells, cells]), degree=1)
    return eu.ControlProblem(
        space,
        eu.Mlp(2, [16]),
        space.project(eu.Gaussian([-0.5, 0.3], std=0.5)),
        distance,  # or eu.QuadraticLoss(TARGET), eu.FormulaLoss("(x**2 - 1)**2/4"), eu.FunctionLoss(distance, gradient)
        eu.Costs(kinetic=0.5, parameters=1e-6, potential="0.1*x**2"),
        eu.TimeGrid(horizon=1.0, layers=4),
    )


# One mesh, with somebody who looks at every iteration; or a few levels, coarse ones first.
problem = problem_on(24)
seen = []
result: eu.OptimiseResult = eu.minimise(problem, max_iterations=30, callback=lambda record: seen.append(record.total))
levels = eu.train([problem_on(12), problem_on(24)], max_iterations=30)
verified: eu.Verification = eu.verify(problem, result.theta)  # J of the network itself, whatever the mesh says

if MPI.COMM_WORLD.rank == 0:
    print(result)
    print(levels)
    print(f"J fell from {result.history['total'][0]:.5f} to {seen[-1]:.5f}; {verified.statement}")

# The same J on particles.
sample = problem.density_space.project(eu.Gaussian([-0.5, 0.3], std=0.5)).draw(4000, seed=0)
particles = eu.ParticleProblem(
    sample, problem.field, eu.QuadraticLoss(TARGET), eu.Costs(kinetic=0.5), eu.TimeGrid(horizon=1.0, layers=4)
)
value, gradient = particles.value_and_gradient(particles.initial_theta)
if MPI.COMM_WORLD.rank == 0:
    print(f"on particles J = {value:.4f} at the start, |∇J| = {np.linalg.norm(gradient):.3g}")

# Wrong input is an error that says what to do.
try:
    eu.ControlProblem(problem.density_space, eu.Mlp(3, [8]), problem.initial_density, distance)
except eu.InputError as error:
    if MPI.COMM_WORLD.rank == 0:
        print(f"InputError: {error}")
