"""``--theta RUN``: solve, verify and compare at the θ of a run, which must fit; and where nothing moves."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from configurations import small
from problems import LABELLINGS, NO_DENSITY_COSTS, problem_config
from run_folders import leave_run

from eulerian.analysis.verify import verify
from eulerian.app import tasks
from eulerian.app.build.network import build
from eulerian.app.config import Config, parse_config
from eulerian.app.runs.progress import Progress
from eulerian.app.tasks.theta_option import ThetaSource
from eulerian.base.errors import InputError
from eulerian.base.parallel import on_root
from eulerian.fields.piecewise import PiecewiseField

pytestmark = pytest.mark.two_ranks

MLP = {"kind": "mlp", "hidden": [4], "layers": 3, "horizon": 0.5}
ROWS = 0.3 * np.random.default_rng(0).standard_normal((3, 13))


def tables(**sections: Any) -> dict[str, Any]:
    clear = {"initial": [{"kind": "gaussian", "mean": [-0.2], "std": 0.3}]}  # of the walls
    quick = {
        "density": clear,
        "output": {"densities": 0},
        "particles": {"count": 200, "sampling": "sobol", "replicates": 2},
    }
    return small(**{"field": MLP, **quick, **sections})


def configured(path: Path, name: str = "new", **sections: Any) -> Config:
    return parse_config(tables(**sections), path, output=path / name)


COMMANDS: dict[str, Callable[..., Any]] = {
    "solve": tasks.run_solve,
    "verify": tasks.run_verify,
    "compare": tasks.run_compare,
    "particles": tasks.run_solve_particles,
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("file", [False, True])
def test_every_command_takes_it(
    comm: MPI.Comm, tmp_path: Path, command: str, file: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run folder or its file: J is that of its θ, and the new folder says where it came from and can be repeated."""
    run = leave_run(comm, tmp_path / "run", tables(), ROWS)
    source = run / "theta.npz" if file else run
    document = COMMANDS[command](configured(tmp_path), comm, theta=source, progress=Progress.of(comm))
    assert (document["status"], document["warnings"]) == ("done", [])
    assert document["theta"] == {"run": str(run), "file": str(run / "theta.npz")}
    assert f"at θ of {source}" in document["reason"]
    if comm.rank == 0:
        said = capsys.readouterr().out
        assert f"θ of {source}, a run of `train`" in said
        assert "θ₀" not in said
    given = configured(tmp_path, "given", field={**MLP, "theta": ROWS.tolist()})
    assert document["objective"] == COMMANDS[command](given, comm)["objective"]
    resolved = tomllib.loads((tmp_path / "new" / "config.resolved.toml").read_text())
    again = COMMANDS[command](parse_config(resolved, "/", output=tmp_path / "again"), comm)
    assert again["objective"] == document["objective"]
    assert again["theta"] == {"run": None, "file": str(run / "theta.npz")}
    with np.load(tmp_path / "new" / "theta.npz") as kept:
        assert np.array_equal(kept["theta"], ROWS)


def test_the_readout_comes_along(comm: MPI.Comm, tmp_path: Path) -> None:
    table = problem_config(
        2, 1, LABELLINGS[1], 12, field={"horizon": 0.3}, objective={**NO_DENSITY_COSTS, "terminal": TRAINED}
    )
    problem = build(parse_config(table, "."), comm)
    theta = problem.initial_theta + 0.05 * np.random.default_rng(0).standard_normal(problem.n_params)
    run = leave_run(comm, tmp_path / "run", table, *problem.split(theta))
    found = tasks.run_solve(parse_config(table, tmp_path, output=tmp_path / "new"), comm, theta=run)
    assert found["objective"]["total"] == pytest.approx(problem.value(theta), rel=1e-13)
    resolved = tomllib.loads((tmp_path / "new" / "config.resolved.toml").read_text())
    again = tasks.run_solve(parse_config(resolved, "/", output=tmp_path / "again"), comm)
    assert again["objective"] == found["objective"]
    fixed = {**table, "objective": {**table["objective"], "terminal": {"kind": "quadratic", "target": [0.0, 0.0]}}}
    refused(comm, parse_config(fixed, tmp_path, output=tmp_path / "no"), run, "trains none")
    without = leave_run(comm, tmp_path / "without", fixed, problem.split(theta)[0])
    refused(comm, parse_config(table, tmp_path, output=tmp_path / "no"), without, "holds 0 numbers of a readout")


TRAINED = {"kind": "cross_entropy", "trainable": True}


def refused(comm: MPI.Comm, config: Config, source: Path, *said: str) -> None:
    """The command does not even begin, and says why."""
    with pytest.raises(InputError) as caught:
        tasks.run_solve(config, comm, theta=source)
    assert caught.value.key == "--theta"
    assert caught.value.remedy
    for text in said:
        assert text in str(caught.value)
    assert not config.output.directory.exists() or config.output.directory.resolve() == source.resolve()


def with_field(**keys: Any) -> dict[str, Any]:
    return {"field": {**MLP, **keys}}


RBF = {"kind": "linear", "features": "rbf", "width": 13, "layers": 3}
OTHERS = {
    "narrower": (MLP, with_field(hidden=[3]), ["(3, 13)", "(3, 10)", "hidden"]),
    "fewer layers": (MLP, with_field(layers=2), ["(3, 13)", "(2, 13)", "layers"]),
    "more layers than one": ({**MLP, "layers": 1}, with_field(), ["field.layers"]),
    "another activation": (MLP, with_field(activation="relu"), ["activation", "'tanh'", "'relu'"]),
    "another field of as many numbers": (MLP, {"field": RBF}, ["field.kind"]),
    "of the label": (MLP, with_field(label_dependent=True), ["(3, 13)", "label_dependent"]),
    "tied": (MLP, with_field(tied=True), ["rows that differ"]),
    "other features": ({**RBF, "features": "random"}, {"field": {**RBF, "features": "random", "seed": 1}}, ["seed"]),
}


@pytest.mark.parametrize("case", OTHERS)
def test_of_another_configuration(comm: MPI.Comm, tmp_path: Path, case: str) -> None:
    theirs, ours, said = OTHERS[case]
    run = leave_run(comm, tmp_path / "run", tables(field=theirs), ROWS[: theirs["layers"]])
    refused(comm, configured(tmp_path, **ours), run, *said)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"theta": np.ones((2, 13))}, "(3, 13)"),
        ({"theta": np.ones((3, 12))}, "(3, 12)"),
        ({"theta": np.ones((3, 13)), "readout": np.ones(2)}, "2 numbers of a readout"),
        ({"theta": np.full((3, 13), np.nan)}, "not finite"),
        ({"rows": np.ones((3, 13))}, "no array called 'theta'"),
        (None, "there is no such run folder or file"),
    ],
)
def test_files_that_do_not_fit(comm: MPI.Comm, tmp_path: Path, arrays: dict[str, np.ndarray] | None, said: str) -> None:
    if arrays is not None:
        on_root(comm, lambda: np.savez(tmp_path / "theta.npz", **arrays))
    refused(comm, configured(tmp_path), tmp_path / "theta.npz", said)


def test_what_is_no_complete_run(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", tables(), ROWS)
    refused(comm, configured(tmp_path), tmp_path, "is no run folder")
    refused(comm, configured(tmp_path, "run"), run, "is the folder of the new run")
    refused(comm, configured(tmp_path), run / "result.json", "neither a run folder nor an .npz file")
    on_root(comm, lambda: (run / "theta.npz").rename(tmp_path / "theta.npz"))
    refused(comm, configured(tmp_path), run, "the run is not complete")
    on_root(comm, lambda: (tmp_path / "theta.npz").rename(run / "theta.npz"))
    on_root(comm, (run / "result.json").unlink)
    refused(comm, configured(tmp_path), run, "no complete run")


def test_rows_that_are_alike(comm: MPI.Comm, tmp_path: Path) -> None:
    """Those of tied layers fit tied layers and others; one row of a file serves any number of layers."""
    run = leave_run(comm, tmp_path / "run", tables(**with_field(tied=True)), ROWS[:1])
    on_root(comm, lambda: np.savez(tmp_path / "row.npz", **{**np.load(run / "theta.npz"), "theta": ROWS[:1]}))
    values = {
        tasks.run_solve(configured(tmp_path, f"{source.stem}{tied}", **with_field(tied=tied)), comm, theta=source)[
            "objective"
        ]["total"]
        for source in (run, tmp_path / "row.npz")
        for tied in (False, True)
    }
    assert max(values) == pytest.approx(min(values), rel=1e-12)


def test_what_is_worth_a_warning(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", tables(), ROWS)
    failed = {"command": "train", "status": "failed", "reason": "the line search found no lower value"}
    on_root(comm, lambda: (run / "result.json").write_text(json.dumps(failed)))
    document = tasks.run_solve(configured(tmp_path, **with_field(horizon=1.0)), comm, theta=run)
    longer, bad = document["warnings"]
    assert "field.horizon was 0.5" in longer
    assert "a run that failed" in bad
    assert "no lower value" in bad


def test_velocities_at_nodes(comm: MPI.Comm, tmp_path: Path) -> None:
    """Those of `ideal` and of free fields fit the mesh that they were found on, and no other one."""
    layers = {"field": {"kind": "mlp", "layers": 3, "horizon": 0.5}, "ideal": {"max_iterations": 30}}
    tasks.run_ideal(configured(tmp_path, "best", **layers), comm)
    free = {"field": {"kind": "free", "layers": 3, "horizon": 0.5}}
    document = tasks.run_solve(configured(tmp_path, **free), comm, theta=tmp_path / "best")
    assert document["objective"]["kinetic"] > 1e-3
    refused(comm, configured(tmp_path, "no"), tmp_path / "best", "field.kind = 'free'", 'field={ kind = "free", layers')
    moved = {"domain": {"box": {"lower": [-3.0], "upper": [1.0], "cells": [24]}}}
    refused(comm, configured(tmp_path, "no", **free, **moved), tmp_path / "best", "domain.box.lower")
    finer = {"domain": {"box": {"lower": [-2.0], "upper": [2.0], "cells": [48]}}}
    refused(comm, configured(tmp_path, "no", **free, **finer), tmp_path / "best", "25", "49")


def test_meshes_of_files_are_told_apart_by_their_sizes(comm: MPI.Comm, tmp_path: Path) -> None:
    free = {"field": {"kind": "free", "layers": 3}}
    problem = build(configured(tmp_path, **free), comm)
    rows = np.ones((3, problem.layer_shape[1]))
    run = leave_run(comm, tmp_path / "run", tables(**free), rows)
    other = {"command": "ideal", "status": "converged", "mesh": {"dimension": 1, "cells": 24, "h_max": 0.2}}
    on_root(comm, lambda: (run / "result.json").write_text(json.dumps(other)))
    refused(comm, configured(tmp_path, **free), run, "h_max was 0.2 there, and is 0.166667")


def test_going_on_with_a_solve_needs_the_same_theta(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", tables(), ROWS)
    other = leave_run(comm, tmp_path / "other", tables(), 2.0 * ROWS)
    first = tasks.run_solve(configured(tmp_path), comm, theta=run)
    again = tasks.run_solve(configured(tmp_path), comm, theta=run, resume=True)
    assert again["objective"] == pytest.approx(first["objective"], rel=1e-13)
    assert again["theta"] == first["theta"]
    restarted = tasks.run_solve(configured(tmp_path, "more"), comm, theta=run, restart=tmp_path / "new")
    assert restarted["objective"] == pytest.approx(first["objective"], rel=1e-13)
    for source in (other, None):
        with pytest.raises(InputError) as caught:
            tasks.run_solve(configured(tmp_path), comm, theta=source, resume=True)
        assert caught.value.key == "field.theta"


# -- nothing moves ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_moves(comm: MPI.Comm, tmp_path: Path, command: str) -> None:
    """It is a warning with a remedy; a flow that is merely slow is none, on however many ranks there is nothing."""
    (warning,) = COMMANDS[command](configured(tmp_path), comm)["warnings"]
    assert warning.startswith("nothing moves at this θ")
    assert "--theta RUN, or set field.zero_init = false" in warning
    slow = {"kind": "linear", "features": "translation", "layers": 2, "theta": [[1e-9], [0.0]]}
    assert COMMANDS[command](configured(tmp_path, "slow", field=slow), comm)["warnings"] == []
    still = leave_run(comm, tmp_path / "still", tables(), np.zeros((3, 13)))
    (warning,) = COMMANDS[command](configured(tmp_path, "again"), comm, theta=still)["warnings"]
    assert "zero_init" not in warning


def test_a_wrong_gradient_is_found_where_nothing_moves(
    comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Derivatives by hidden layers vanish where the last layer is zero, whatever is wrong with them."""
    right = PiecewiseField.value_and_vjp

    def wrong(self: PiecewiseField, *inputs: Any) -> Any:
        v, vjp = right(self, *inputs)
        return v, lambda w: vjp(w) * np.where(np.arange(13) < 8, 1.1, 1.0)

    config = configured(tmp_path)
    sound = tasks.run_verify(config, comm)
    assert sound["status"] == "done"
    assert min(sound["verify"]["nearby"]["taylor_rates"]) > 1.9
    assert 0.0 < sound["verify"]["nearby"]["speed"] <= 0.1 * 4.0 / 0.5
    monkeypatch.setattr(PiecewiseField, "value_and_vjp", wrong)
    document = tasks.run_verify(config, comm, overwrite=True)
    assert min(document["verify"]["taylor_rates"]) > 1.9
    assert document["status"] == "failed"
    assert "at a θ near it that moves something" in document["reason"]


FIELDS = {
    "mlp": with_field(activation="softplus"),
    "affine": {"field": {"kind": "linear", "features": "affine", "layers": 2}},
    "random": {"field": {"kind": "linear", "features": "random", "layers": 2, "tied": True}},
    "free": {"field": {"kind": "free", "layers": 2}},
}


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_the_laws_hold_near_rest(comm: MPI.Comm, tmp_path: Path, name: str, degree: int) -> None:
    config = configured(tmp_path, **FIELDS[name])
    config = config.model_copy(update={"density": config.density.model_copy(update={"degree": degree})})
    problem = build(config, comm)
    laws = verify(problem, problem.initial_theta, np.random.default_rng(0))
    assert laws.nearby is not None
    assert min(laws.nearby.taylor_rates) > 1.9
    assert laws.nearby.dot_error < 1e-13
    assert problem.at_rest  # the last evaluation is at θ again


def test_a_field_that_no_theta_moves(comm: MPI.Comm, tmp_path: Path) -> None:
    problem = build(configured(tmp_path), comm)
    rest = PiecewiseField.value_and_vjp

    def still(self: PiecewiseField, layer: int, row: Any, x: Any, label: int | None = None) -> Any:
        v, _ = rest(self, layer, row, x, label)
        return np.zeros_like(v), lambda _w: np.zeros(13)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PiecewiseField, "value_and_vjp", still)
        assert verify(problem, problem.initial_theta, np.random.default_rng(0)).nearby is None


def test_given_theta_of_nothing(comm: MPI.Comm, tmp_path: Path) -> None:
    given = ThetaSource.of(configured(tmp_path), None, comm)
    assert (given.name, given.document) == ("the initial θ", {"theta": {"run": None, "file": None}})
