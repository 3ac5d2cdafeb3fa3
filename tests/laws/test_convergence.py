"""Transported normal densities converge at order p + 1, with the limiter at work: orders and final errors."""

from mpi4py import MPI

import numpy as np
import pytest
from problems import orders, projected

from eulerian.app.build.mesh import create_mesh
from eulerian.app.config import Box, Domain
from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.transport.operator import TransportOperator, flux_smoothing
from eulerian.transport.stepper import Stepper
from eulerian.transport.time_grid import TimeGrid
from eulerian.transport.trajectory import Trajectory
from eulerian.transport.velocity_space import VelocitySpace

VELOCITY, TURN = np.array([0.5, -0.2, 0.3]), np.pi / 2

# The box is [-1, 1]^dim; the density is so narrow that what lies outside of it, or reaches its boundary, is below the
# errors. Columns: dim, motion, degree, horizon, standard deviation, cells per side, bound of the last L¹ error (a
# quarter above what is reached; the density's integral is 1).
TABLE = [
    (1, "translation", 0, 0.8, 0.10, (80, 160, 320, 640), 1.1e-2),
    (1, "translation", 1, 0.8, 0.10, (40, 80, 160, 320), 5.2e-4),
    (1, "translation", 2, 0.8, 0.10, (20, 40, 80, 160), 1.7e-5),
    (2, "translation", 0, 0.5, 0.12, (24, 48, 96), 1.3e-1),
    (2, "translation", 1, 0.5, 0.12, (16, 32, 64), 6.4e-3),
    (2, "translation", 2, 0.5, 0.12, (12, 24, 48), 5.2e-4),
    (2, "rotation", 0, 0.5, 0.12, (24, 48, 96), 1.1e-1),
    (2, "rotation", 1, 0.5, 0.12, (16, 32, 64), 6.0e-3),
    (2, "rotation", 2, 0.5, 0.12, (10, 20, 40), 9.5e-4),
    (3, "translation", 0, 0.2, 0.20, (6, 12, 24), 1.7e-1),
    (3, "translation", 1, 0.2, 0.20, (6, 12), 7.5e-2),
    (3, "translation", 2, 0.2, 0.20, (5, 10), 2.0e-2),
]


@pytest.mark.parametrize(
    ("dim", "motion", "degree", "horizon", "std", "cells", "bound"),
    TABLE,
    ids=[f"{row[1]}-{row[0]}d-degree-{row[2]}" for row in TABLE],
)
def test_order_and_error(
    comm: MPI.Comm, dim: int, motion: str, degree: int, horizon: float, std: float, cells: tuple[int, ...], bound: float
) -> None:
    errors = [error(comm, dim, motion, degree, horizon, std, n) for n in cells]

    assert np.all(orders(errors) >= degree + 0.8), (errors, orders(errors))
    assert errors[-1] <= bound, (errors, orders(errors))


def error(comm: MPI.Comm, dim: int, motion: str, degree: int, horizon: float, std: float, cells: int) -> float:
    """L¹ error at the horizon of a density of mass 1."""
    box = Box(lower=(-1.0,) * dim, upper=(1.0,) * dim, cells=(cells,) * dim)
    space = DensitySpace(create_mesh(comm, Domain(box=box)), degree)
    velocity_space = VelocitySpace(space)
    operator = TransportOperator(space, velocity_space, 1, flux_smoothing(space, horizon, 1e-3))
    stepper = Stepper(operator)
    trajectory = Trajectory([stepper], TimeGrid(horizon, 1), 2.0**32)

    def exact(x: Floats, t: float) -> Floats:
        return normal(moved(x, motion, -t), std)

    rule = space.quadrature(2 * degree + 4)
    rho = projected(space, exact(rule.points, 0.0)[..., None], rule)
    space.limit(rho)
    sweep = trajectory.forward([rho], [[velocity(velocity_space.x, motion)]])
    (end,) = sweep.end

    record = stepper.new_record()
    stepper.step_forward(stepper.layout.pack(rho, fill=1.0), horizon / sweep.steps.counts[0], 1, [record])
    touched = comm.allreduce(int(np.sum(record.limited)))
    assert degree == 0 or touched > 0, "the limiter had nothing to do"

    values = np.einsum("qi,ci->cq", rule.basis, end[: space.n_owned, :, 0])
    difference = np.vdot(rule.weights, np.abs(values - exact(rule.points, horizon)))
    return float(parallel.sum_all(comm, np.array([difference]))[0])


def normal(x: Floats, std: float) -> Floats:
    """The normal density around a point off the centre."""
    dim = x.shape[-1]
    square = np.sum((x - np.array([-0.2, 0.1, 0.05])[:dim]) ** 2, axis=-1)
    return np.asarray(np.exp(-0.5 * square / std**2) / (2.0 * np.pi * std**2) ** (dim / 2))


def velocity(x: Floats, motion: str) -> Floats:
    if motion == "translation":
        return np.tile(VELOCITY[: x.shape[1]], (len(x), 1))
    return TURN * np.stack([-x[:, 1], x[:, 0]], axis=1)


def moved(x: Floats, motion: str, t: float) -> Floats:
    """Where the points x (..., dim) are after the time t."""
    if motion == "translation":
        return x + t * VELOCITY[: x.shape[-1]]
    cosine, sine = np.cos(TURN * t), np.sin(TURN * t)
    return np.stack([cosine * x[..., 0] - sine * x[..., 1], sine * x[..., 0] + cosine * x[..., 1]], axis=-1)
