"""Numbers that go wrong have a name on all ranks, and mass at the boundary is told."""

import dataclasses
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest

from eulerian import build
from eulerian.app import tasks
from eulerian.app.config import Config, parse_config
from eulerian.app.runs.boundary_mass import LIMIT, BoundaryMass, mass_at_boundary
from eulerian.app.runs.progress import Progress
from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError, RejectedEvaluation
from eulerian.control.control import ControlProblem

MODEL: dict[str, Any] = {
    "domain": {"box": {"lower": [-2.0], "upper": [2.0], "cells": [24]}},
    "density": {"degree": 1, "initial": [{"kind": "gaussian", "mean": [-0.2], "std": 0.2}]},
    "field": {"kind": "linear", "features": "affine", "layers": 3, "horizon": 1.0},
    "objective": {"kinetic": 0.5, "parameters": 0.1, "terminal": {"kind": "quadratic", "target": [0.5]}},
    "output": {"densities": 0},
}


@dataclasses.dataclass
class Affine:
    """v = a x + b, until a switch is turned; ``here`` only on some ranks."""

    here: bool
    velocity: float | None = None
    slope: float | None = None

    def n_params(self, _dim: int) -> int:
        return 2

    def init(self, _rng: np.random.Generator) -> Floats:
        return np.zeros(2)

    def value(self, theta: Floats, x: Floats) -> Floats:
        v = theta[0] * x + theta[1]
        if self.here and self.velocity is not None:
            v[-1] = self.velocity
        return v

    def vjp(self, _theta: Floats, x: Floats, w: Floats) -> Floats:
        slope = np.array([np.sum(w * x), np.sum(w)])
        if self.here and self.slope is not None:
            slope[1] = self.slope
        return slope


def with_field(comm: MPI.Comm, tied: bool = False) -> tuple[ControlProblem, Affine]:
    """A problem whose field goes wrong on the last rank only."""
    problem = build(parse_config({**MODEL, "field": {**MODEL["field"], "tied": tied}}), comm)
    field = Affine(comm.rank == comm.size - 1)
    problem.layered.field = field
    return problem, field


THETA = np.array([[0.1, 0.4], [0.0, 0.3], [0.2, 0.2]])


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_velocity_that_is_not_finite_is_rejected_by_name(comm: MPI.Comm, number: float) -> None:
    problem, field = with_field(comm)
    value = problem.value(THETA)
    field.velocity = number
    assert problem.value(THETA + 0.1) == np.inf
    assert problem.rejection is not None
    assert problem.rejection.startswith("the velocity is not finite in layer 0, at 1 of ")
    assert problem.rejected_evaluations == 1
    assert problem.velocity_change(THETA, THETA) == np.inf
    field.velocity = None
    assert problem.value(THETA) == value


@pytest.mark.parametrize("tied", [False, True])
def test_a_gradient_that_is_not_finite_is_no_gradient(comm: MPI.Comm, tied: bool) -> None:
    """J is finite; told with the parameter, on all ranks, and the next gradient is computed anew."""
    problem, field = with_field(comm, tied)
    theta = THETA[:1] if tied else THETA
    value, gradient = problem.value_and_gradient(theta)
    problem.forget()
    field.slope = np.nan
    for _ in range(2):
        with pytest.raises(ComputationError, match=f"first by parameter 1 of {'every layer' if tied else 'layer 0'}"):
            problem.value_and_gradient(theta)
    field.slope = None
    again = problem.value_and_gradient(theta)
    assert again[0] == value
    np.testing.assert_array_equal(again[1], gradient)


def test_a_norm_that_overflows_is_told(comm: MPI.Comm) -> None:
    problem, field = with_field(comm)
    field.slope = 1e200
    with pytest.raises(ComputationError, match="norm of the gradient overflows"):
        problem.value_and_gradient(THETA)


def test_parts_that_are_not_finite_are_named(comm: MPI.Comm) -> None:
    problem, _ = with_field(comm)
    problem._parameter_cost = dataclasses.replace(problem._parameter_cost, l2=1e308)
    assert problem.value(10.0 * THETA) == np.inf
    assert problem.rejection == "J is not finite: parameters is inf"
    with pytest.raises(RejectedEvaluation, match="parameters is inf"):
        _ = problem.statistics


# -- mass at the boundary ----------------------------------------------------------------------------------------------

AGAINST = {
    "domain": {"box": {"lower": [-1.0, -1.0], "upper": [1.0, 1.0], "cells": [10, 10]}},
    "density": {
        "degree": 1,
        "initial": [
            {"kind": "gaussian", "mean": [0.3, 0.2], "std": 0.12, "label": 0, "weight": 3.0},
            {"kind": "gaussian", "mean": [-0.4, 0.0], "std": 0.12, "label": 1},
        ],
    },
    "objective": {"kinetic": 0.5, "terminal": {"kind": "quadratic", "target": [0.0, 0.0]}},
}


def against(path: Path, speed: float) -> Config:
    """Two labels, of which the first one is moved against the right wall."""
    field = {**MODEL["field"], "features": "translation", "layers": 2, "theta": [[speed, 0.0]]}
    return parse_config({**MODEL, **AGAINST, "field": field}, path, output=path / "run")


@pytest.mark.two_ranks
@pytest.mark.figures
def test_mass_at_the_boundary_is_a_warning(comm: MPI.Comm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = against(tmp_path, 1.0)
    document = tasks.run_solve(config, comm, progress=Progress.of(comm))
    unresolved, warning = document["warnings"]  # what is pressed against a wall is too much for the mesh
    assert document["status"] == "done"
    assert "the mesh does not resolve this flow" in unresolved
    assert "of the mass of label 0" in warning
    assert warning.startswith("at t = 1, ")
    assert "Take a larger domain" in warning
    assert capsys.readouterr().out.count(warning) == (comm.rank == 0)
    comm.barrier()
    figures = tmp_path / "run" / "figures"
    assert (figures / "boundary.png").stat().st_size > 0
    contact = BoundaryMass.load(figures / "boundary.npz")
    assert contact.worst == (2, 0)
    assert contact.masses.sum(axis=0) == pytest.approx(contact.share[2], rel=1e-12)
    assert document["mass"]["boundary"] == pytest.approx(contact.share[2] @ document["mass"]["initial"], rel=1e-12)
    assert len(contact.facets) == 40
    assert np.all(np.abs(contact.facets).max(axis=2) == 1.0)
    assert contact.facets[contact.masses[:, 0].argmax(), :, 0] == pytest.approx(1.0)
    comm.barrier()
    again = tasks.run_solve(against(tmp_path, 0.01), comm, overwrite=True)
    assert not any("at t = " in text for text in again["warnings"])
    comm.barrier()
    assert not (figures / "boundary.npz").exists()
    assert not (figures / "boundary.png").exists()


def test_little_mass_at_the_boundary_is_none(comm: MPI.Comm) -> None:
    """The limit is a share of each label's own mass."""
    problem = build(against(Path(), 0.0), comm)
    problem.value(problem.initial_theta)
    statistics = problem.statistics
    initial = statistics.mass_initial
    for share, warned in ((0.99 * LIMIT, False), (1.01 * LIMIT, True)):
        masses = np.zeros((3, 2))
        masses[1, 1] = share * initial[1]
        contact = mass_at_boundary(problem, dataclasses.replace(statistics, boundary_masses=masses))
        assert (contact is not None) == warned
    assert contact is not None
    assert contact.worst == (1, 1)
    assert "since t = 0.5" in contact.statement
