"""The same problem in other units, and far from the origin, has the same J: every field, on meshes and particles."""

from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import train_as_configured
from thinning import thinned

from eulerian.app.build.network import build, build_particles
from eulerian.app.build.training import descent_settings
from eulerian.app.config import Config, parse_config
from eulerian.app.runs.folder import RunFolder
from eulerian.app.tasks.theta_option import ThetaSource
from eulerian.base.errors import EulerianWarning
from eulerian.base.parallel import on_root
from eulerian.fields import Frame, NormalisedField
from eulerian.optimise import minimise

# Where the origin is, the unit of length, and the horizon.
UNITS = {
    "UTM metres": ((5e5, 5.4e6), 1.0, 1.0),
    "far": ((1e7, -1e7), 1.0, 1.0),
    "micrometres": ((0.0, 0.0), 1e-6, 1.0),
    "kilometres and hours": ((3e6, 0.0), 1e3, 3600.0),
}
HERE = ((0.0, 0.0), 1.0, 1.0)
FIELDS: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp", "hidden": (5,)},
    "affine": {"kind": "linear", "features": "affine", "zero_init": False},
    "translation": {"kind": "linear", "features": "translation", "zero_init": False},
    "rbf": {"kind": "linear", "features": "rbf", "width": 5},
    "random": {"kind": "linear", "features": "random", "width": 5},
    "residual": {"kind": "linear", "features": "residual", "width": 5},
    "free": {"kind": "free", "zero_init": False},
    "tied": {"kind": "mlp", "hidden": (5,), "tied": True},
    "two labels": {"kind": "linear", "features": "affine", "label_dependent": True},
}
ITERATIONS = 5


def config(field: dict[str, Any], units: tuple[tuple[float, float], float, float] = HERE, **objective: Any) -> Config:
    (x, y), s, horizon = units
    labels = (0, 1) if field.get("label_dependent") else (0,)
    means = ([x - 0.4 * s, y], [x, y - s])
    initial = [{"kind": "gaussian", "mean": means[label], "std": 0.9 * s, "label": label} for label in labels]
    terminal = {"kind": "quadratic", "target": [x + s, y + 0.3 * s], "weight": s**-2.0}
    return parse_config(
        {
            "domain": {"box": {"lower": [x - 4 * s, y - 4 * s], "upper": [x + 4 * s, y + 4 * s], "cells": [10, 10]}},
            "density": {"degree": 1, "initial": initial},
            "field": {"layers": 2, "horizon": horizon, **field},
            "objective": {"kinetic": 0.7 * horizon * s**-2.0, "terminal": terminal, **objective},
            "particles": {"count": 64, "method": "dopri5"},
            "optimiser": {"max_iterations": ITERATIONS},
        }
    )


@pytest.mark.two_ranks
@pytest.mark.parametrize("where", thinned(UNITS, {"UTM metres", "kilometres and hours"}))
@pytest.mark.parametrize("field", FIELDS)
def test_a_training_does_not_depend_on_units(comm: MPI.Comm, field: str, where: str) -> None:
    here, there = (
        minimise(build(config(FIELDS[field], units), comm), max_iterations=ITERATIONS) for units in (HERE, UNITS[where])
    )
    assert there.value == pytest.approx(here.value, rel=1e-6)
    unit = UNITS[where][2] ** 0.5  # the norm is that of functions of time
    assert there.history[0].gradient_norm * unit == pytest.approx(here.history[0].gradient_norm, rel=1e-5)


@pytest.mark.parametrize("where", ["far", "micrometres"])
@pytest.mark.parametrize("field", ["mlp", "affine"])
def test_particles_do_not_depend_on_units(comm: MPI.Comm, field: str, where: str) -> None:
    here, there = (
        minimise(build_particles(config(FIELDS[field], units), comm), max_iterations=ITERATIONS)
        for units in (HERE, UNITS[where])
    )
    assert there.value == pytest.approx(here.value, rel=1e-6)


@pytest.mark.parametrize("field", ["affine", "free"])
def test_levels_do_not_depend_on_units(comm: MPI.Comm, field: str) -> None:
    found = []
    for units in (HERE, UNITS["UTM metres"]):
        several = config(FIELDS[field], units)
        several = several.model_copy(update={"optimiser": several.optimiser.model_copy(update={"levels": 2})})
        found.append(train_as_configured(several, comm)[1].value)
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_a_trained_readout_does_not_depend_on_units(comm: MPI.Comm) -> None:
    field, terminal = FIELDS["two labels"], {"kind": "cross_entropy", "trainable": True}
    here, there = (
        minimise(build(config(field, units, terminal=terminal), comm), max_iterations=ITERATIONS)
        for units in (HERE, UNITS["UTM metres"])
    )
    assert there.value == pytest.approx(here.value, rel=1e-6)


# -- θ and what it is relative to ------------------------------------------------------------------------------------


def shifted(theta: Path) -> Config:
    """A network of that file, on another domain and over another time."""
    return config({**FIELDS["mlp"], "theta": str(theta)}, ((1.0, 2.0), 1.5, 2.0))


def stored(comm: MPI.Comm, folder: Path, frame: Frame | None) -> Path:
    run = RunFolder.claim(comm, folder / "run")
    run.start("")
    theta = np.random.default_rng(0).standard_normal((2, 27))
    run.write_theta(theta, None, frame)
    return folder / "run" / "theta.npz"


def test_a_stored_network_is_the_same_function_elsewhere(comm: MPI.Comm, tmp_path: Path) -> None:
    problem = build(config(FIELDS["mlp"]), comm)
    assert isinstance(problem.field, NormalisedField)
    again = build(shifted(stored(comm, tmp_path, problem.field.frame)), comm)
    x, row = np.random.default_rng(1).uniform(-4.0, 4.0, (9, 2)), again.initial_theta[1]
    np.testing.assert_array_equal(again.field.value(row, x), problem.field.value(row, x))


def test_a_network_without_its_box_is_read_as_it_was_meant_then(comm: MPI.Comm, tmp_path: Path) -> None:
    file = stored(comm, tmp_path, None)
    if comm.rank == 0:
        with pytest.warns(EulerianWarning, match="which box its parameters are relative to"):
            problem = build(shifted(file), comm)
    else:
        problem = build(shifted(file), comm)
    assert isinstance(problem.field, NormalisedField)
    x, row = np.random.default_rng(1).uniform(-1.0, 3.0, (9, 2)), problem.initial_theta[1]
    np.testing.assert_array_equal(problem.field.value(row, x), problem.field.wrapped.value(row, x))


def test_a_command_given_theta_takes_its_box_along(comm: MPI.Comm, tmp_path: Path) -> None:
    problem = build(config(FIELDS["mlp"]), comm)
    assert isinstance(problem.field, NormalisedField)
    file = on_root(comm, lambda: stored(MPI.COMM_SELF, tmp_path, problem.field.frame).rename(tmp_path / "some.npz"))
    elsewhere = config(FIELDS["mlp"], ((1.0, 2.0), 1.5, 2.0))
    given = ThetaSource.of(elsewhere, file, comm)
    again = given.build(build, given.config, comm)
    x, row = np.random.default_rng(1).uniform(-4.0, 4.0, (9, 2)), again.initial_theta[1]
    np.testing.assert_array_equal(again.field.value(row, x), problem.field.value(row, x))


# -- fields of the user's own ----------------------------------------------------------------------------------------

NETWORK = """
from eulerian.fields import Mlp
raw, seen, meant = Mlp(2, (5,)), Mlp(2, (5,)), Mlp(2, (5,))
object.__setattr__(seen, "normalised", True)
object.__setattr__(meant, "normalised", False)
"""


@pytest.mark.parametrize(
    ("name", "far", "told"), [("raw", True, True), ("raw", False, False), ("meant", True, False), ("seen", True, False)]
)
def test_raw_coordinates_far_away_are_warned_of(
    comm: MPI.Comm, tmp_path: Path, recwarn: pytest.WarningsRecorder, name: str, far: bool, told: bool
) -> None:
    if comm.rank == 0:
        (tmp_path / "nets_of_units.py").write_text(NETWORK, encoding="utf-8")
    comm.Barrier()
    field = {"kind": "python", "object": f"nets_of_units:{name}", "folder": str(tmp_path)}
    problem = build(config(field, UNITS["UTM metres"] if far else HERE), comm)
    found = [each for each in recwarn if "normalised" in str(each.message)]
    assert len(found) == int(told and comm.rank == 0)
    seen = isinstance(problem.field, NormalisedField) and problem.field.frame != Frame.raw(2)
    assert seen == (name == "seen")


def test_a_failing_line_search_of_a_users_field_names_its_vjp() -> None:
    """Derivatives of the package's own fields are tested: there it would mislead."""
    own = config({"kind": "python", "object": "eulerian.fields:Affine"})
    assert descent_settings(own).advice.endswith("check its vjp: `eulerian verify CONFIG`")
    assert not descent_settings(config(FIELDS["mlp"])).advice
