"""From a configuration, as a dict or a TOML file, to problems; and a mesh that is adapted to a flow.

python scripts/examples/configurations.py [CONFIG.toml]
mpirun -n 2 python scripts/examples/configurations.py
"""

import sys
import tempfile
from pathlib import Path

from mpi4py import MPI

import eulerian as eu

config: eu.Config = eu.parse_config(
    {
        "domain": {"box": {"lower": [-4.0], "upper": [4.0], "cells": [100]}},
        "density": {"degree": 2, "initial": [{"kind": "gaussian", "mean": [-0.4], "std": 0.6}]},
        "field": {"kind": "mlp", "hidden": [16], "layers": 8},
        "objective": {"kinetic": 0.7, "terminal": {"kind": "quadratic", "target": [1.3]}},
    }
)
cheaper = config.replace({"objective.kinetic": 0.1})  # a checked copy with another value
if len(sys.argv) > 1:
    config = eu.read_config(sys.argv[1])

problem = eu.build(config)
result = eu.minimise(problem, max_iterations=20)
best = eu.solve_convex(eu.build_ideal(config))
headline = eu.build_particles(config).headline
if MPI.COMM_WORLD.rank == 0:
    print(f"J = {result.value:.5f} with λ = {config.objective.kinetic} (the copy has {cheaper.objective.kinetic})")
    print(f"no flow of the discrete problem costs less than {best.dual:.5f}; {headline}")

# A file holds θ with the box that the network is relative to: any configuration may begin there.
file = eu.save_theta(Path(tempfile.gettempdir()) / "eulerian_theta.npz", problem, result.theta)
again = eu.build(config.replace({"field.theta": str(file)}))
value = again.value(again.initial_theta)
if MPI.COMM_WORLD.rank == 0:
    print(f"J = {value:.5f} at the θ of {file.name}")

# Wrong values are told with their key and what to do, before anything is computed.
try:
    config.replace({"density.degree": 7})
except eu.InputError as error:
    if MPI.COMM_WORLD.rank == 0:
        print(f"InputError: {error}")

# J of a network's flow is not J of a mesh. A mesh that is adapted to the flow resolves it. It may begin with a box,
# with a file (eu.read_simplices), or with points and cells of your own (eu.Simplices).


def on_mesh(simplices: eu.Simplices) -> eu.ControlProblem:
    """The problem on a mesh that all ranks know."""
    space = eu.DensitySpace(eu.mesh_from_simplices(simplices), 1, simplices=simplices)
    rho0 = space.project(eu.Gaussian([-0.4], std=0.6))
    return eu.ControlProblem(space, eu.Mlp(1, [8]), rho0, eu.QuadraticLoss([1.3]), eu.Costs(kinetic=0.7))


coarse = eu.box_simplices([-4.0], [4.0], [16])
trained = eu.minimise(on_mesh(coarse), max_iterations=10)
adapted = eu.adapt(on_mesh, coarse, trained.theta, density=0.02, objective=1e-3)
if MPI.COMM_WORLD.rank == 0:
    cells = len(adapted.problem.density_space.simplices.cells)
    print(f"{len(coarse.cells)} cells became {cells}")
