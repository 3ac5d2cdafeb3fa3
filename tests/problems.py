"""Small problems that many tests share, built the way users build them."""

from collections.abc import Callable, Sequence
from typing import Any

from mpi4py import MPI

import dolfinx
import numpy as np

from eulerian.app.build.mesh import create_mesh
from eulerian.app.build.network import build
from eulerian.app.build.training import build_training
from eulerian.app.config import Box, Config, Domain, parse_config
from eulerian.base.arrays import Floats
from eulerian.control.control import ControlProblem
from eulerian.density.space import DensitySpace, Quadrature
from eulerian.optimise import OptimiseResult, Record

# Cells per side of a mesh that is small and still has interior cells.
TINY = {1: 12, 2: 5, 3: 3}
# What the compiled limiter writes where it left a cell alone, and where it emptied one.
UNLIMITED, EMPTIED = 255, 254

LABELLINGS = ("one label", "two labels", "a field per label")


def warped_mesh(comm: MPI.Comm, dim: int, cells: int | None = None) -> dolfinx.mesh.Mesh:
    """A mesh of [-1, 1]^dim in which no two cells are alike, the same on any number of ranks."""
    box = Box(lower=(-1.0,) * dim, upper=(1.0,) * dim, cells=(cells or TINY[dim],) * dim)
    mesh = create_mesh(comm, Domain(box=box))
    x = mesh.geometry.x
    shift = (
        0.13 / (cells or TINY[dim]) * np.sin(7.0 * x @ np.array([[1.0, 0.7, 0.3], [0.5, 1.3, 0.9], [0.2, 0.8, 1.1]]))
    )
    x[:, :dim] += shift[:, :dim]
    return mesh


def box_space(comm: MPI.Comm, dim: int, cells: int, degree: int, n_labels: int = 1, size: float = 3.0) -> DensitySpace:
    """Densities on [-size, size]^dim."""
    box = Box(lower=(-size,) * dim, upper=(size,) * dim, cells=(cells,) * dim)
    return DensitySpace(create_mesh(comm, Domain(box=box)), degree, n_labels)


def projected(space: DensitySpace, values: Floats, rule: Quadrature) -> Floats:
    """L² projection (n_cells, nd, K) of values (n_owned, nq, K) at the points of a rule."""
    rho = space.zeros()
    weighted = rule.reference_weights[:, None] * rule.basis
    rho[: space.n_owned] = np.einsum("qi,cqk->cik", weighted, values, optimize=True)
    space.update_ghosts(rho)
    return rho


def random_rows(space: DensitySpace, columns: int, seed: int) -> Floats:
    """Random modal coefficients (n_cells, nd, columns), the same on any number of ranks, ghosts included."""
    cells = space.mesh.topology.index_map(space.dim)
    total = np.random.default_rng(seed).standard_normal((cells.size_global, space.nd, columns))
    return np.ascontiguousarray(total[space.mesh.topology.original_cell_index[: space.n_cells]])


def random_density(space: DensitySpace, columns: int, seed: int) -> Floats:
    """Non-negative densities, many of them cut by the limiter, some cells empty."""
    rho = random_rows(space, columns, seed)
    rho[:, 0] = np.where(rho[:, 0] > -0.5, np.abs(rho[:, 0]), 0.0)
    space.limit(rho)
    return rho


def wave(x: Floats, seed: int = 0, speed: float = 1.0) -> Floats:
    """A smooth velocity (n, dim) with sign changes, divergence and a normal part at the boundary."""
    rng = np.random.default_rng(seed)
    dim = x.shape[1]
    frequencies, phases = rng.uniform(1.0, 3.0, (dim, dim)), rng.uniform(0.0, 6.0, dim)
    return np.ascontiguousarray(speed * np.sin(x @ frequencies + phases))


# Keys of `objective` that leave the costs of the density out.
NO_DENSITY_COSTS: dict[str, Any] = {"potential": None, "congestion": 0.0, "entropy": 0.0}


def control_problem(
    comm: MPI.Comm, dim: int, degree: int, labelling: str = LABELLINGS[0], cells: int | None = None, **tables: Any
) -> ControlProblem:
    """A problem with every term of J, compact densities (so that the limiter has work) and a random network.

    Args:
        comm: who shares the work.
        dim: 1, 2 or 3.
        degree: of the densities.
        labelling: one of LABELLINGS.
        cells: per side.
        tables: keys to set in the tables of the configuration, like ``solver={"limiter": False}``.
    """
    return build(parse_config(problem_config(dim, degree, labelling, cells, **tables)), comm)


def problem_config(
    dim: int, degree: int, labelling: str = LABELLINGS[0], cells: int | None = None, **tables: Any
) -> dict[str, Any]:
    """The configuration of ``control_problem`` as a dictionary."""
    n_labels = 1 if labelling == LABELLINGS[0] else 2
    # Not symmetric, so that no facet of the mesh sees v·n = 0 by symmetry.
    means = [(-0.22, 0.13, 0.07), (0.31, -0.17, 0.11)]
    config: dict[str, Any] = {
        "domain": {"box": {"lower": [-1.0] * dim, "upper": [1.0] * dim, "cells": [cells or TINY[dim]] * dim}},
        "density": {
            "degree": degree,
            "initial": [
                {"kind": "gaussian", "mean": list(means[y][:dim]), "std": 0.2, "label": y, "weight": 1.0 + y}
                for y in range(n_labels)
            ],
        },
        "field": {
            "kind": "mlp",
            "hidden": [5],
            "layers": 3,
            "horizon": 0.3 if dim == 3 else 0.6,
            "zero_init": False,
            "output_scale": 1.5,
            "seed": 1,
            "label_dependent": labelling == LABELLINGS[2],
        },
        "objective": {
            "kinetic": 0.5,
            "jacobian": 0.2,
            "parameters": 0.01,
            "parameters_h1": 0.02,
            "potential": "0.4*x**2 + 0.1",
            "congestion": 0.1,
            "entropy": 0.05,
            # Labels that part have no balance of their common entropy, which a warning says.
            "entropy_form": "density" if labelling == LABELLINGS[2] else "balance",
            "terminal": {
                "kind": "quadratic",
                "targets": [[(1 - 2 * y) * 0.4] + [0.2] * (dim - 1) for y in range(n_labels)],
            },
        },
    }
    for table, values in tables.items():
        config[table] = {**config.get(table, {}), **values}
    return config


def limited_cells(problem: ControlProblem) -> int:
    """How often the limiter scaled a cell (without emptying it) in the last evaluation, over all ranks. Collective."""
    count = 0
    for layer, steps in enumerate(problem.steps):
        problem.sweep.assemble(layer)
        for stepper, rho in zip(problem.trajectory.steppers, problem.sweep.start(layer), strict=True):
            records = [stepper.new_record() for _ in range(steps)]
            stepper.step_forward(stepper.layout.pack(rho, fill=1.0), problem.grid.layer_time / steps, steps, records)
            touched = [record.lowest_at[record.limited > 0] for record in records]
            count += sum(int(np.sum(points < EMPTIED)) for points in touched)
    return problem.comm.allreduce(count)


def theta_with_layers(problem: ControlProblem, seed: int = 3, size: float = 0.1) -> Floats:
    """The problem's initial θ with a different change in every layer."""
    theta = problem.initial_theta
    return np.asarray(theta + size * np.random.default_rng(seed).standard_normal(theta.shape))


def orders(errors: Sequence[float], ratio: float = 2.0) -> Floats:
    """Observed orders of convergence between successive errors."""
    e = np.asarray(errors)
    return np.asarray(np.log(e[:-1] / e[1:]) / np.log(ratio))


def train_as_configured(
    config: Config, comm: MPI.Comm | None = None, callback: Callable[[Record], object] | None = None
) -> tuple[ControlProblem, OptimiseResult]:
    """The training that a configuration describes, on all of its levels, and its finest problem. Collective."""
    problem = build(config, comm)
    return problem, build_training(config, problem).run(callback)
