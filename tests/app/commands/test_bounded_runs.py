"""Runs with a limit of the speed and with bounds on θ, as their folders tell it."""

import csv
import json
import tomllib
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from test_resume import MODEL

from eulerian.app import tasks
from eulerian.app.config import Config, parse_config
from eulerian.app.tasks.loaded_run import load
from eulerian.base.errors import InputError
from eulerian.base.parallel import on_root
from eulerian.fields import SpeedLimit

pytestmark = pytest.mark.two_ranks

LIMIT, BOUNDS = 0.4, "optimiser.bounds=[-0.3, 0.35]"
LIMITED = f"field.max_speed={LIMIT}"


def configure(path: Path, *overrides: str, run: str = "run") -> Config:
    return parse_config(MODEL, path, overrides, output=path / run)


def theta_of(comm: MPI.Comm, config: Config) -> Any:
    def read() -> Any:
        with np.load(config.output.directory / "theta.npz") as file:
            return file["theta"]

    return on_root(comm, read)


def history_of(comm: MPI.Comm, config: Config) -> list[dict[str, str]]:
    def read() -> list[dict[str, str]]:
        with (config.output.directory / "history.csv").open(encoding="utf-8") as file:
            return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]

    return on_root(comm, read)


RUNS = {"densities": tasks.run_train, "particles": tasks.run_train_particles}


@pytest.mark.parametrize("method", RUNS)
def test_a_bounded_run_goes_on_bit_for_bit(comm: MPI.Comm, tmp_path: Path, method: str) -> None:
    train = RUNS[method]
    whole = configure(tmp_path, BOUNDS, LIMITED, run="whole")
    document = train(whole, comm)
    part = configure(tmp_path, BOUNDS, LIMITED, "optimiser.max_iterations=5", run="part")
    train(part, comm)
    resumed = configure(tmp_path, BOUNDS, LIMITED, run="part")
    again = train(resumed, comm, resume=True)
    assert again["objective"] == document["objective"]
    theta = theta_of(comm, whole)
    assert theta.tobytes() == theta_of(comm, resumed).tobytes()
    assert history_of(comm, whole) == history_of(comm, resumed)
    assert (np.min(theta), np.max(theta)) == (-0.3, 0.35)
    assert "numbers of θ are at a bound (bqnls)" in document["reason"]


def test_bounds_of_a_run_that_goes_on_stay(comm: MPI.Comm, tmp_path: Path) -> None:
    tasks.run_train(configure(tmp_path, BOUNDS, "optimiser.max_iterations=2"), comm)
    for override, key in (("optimiser.bounds=[-0.3, 0.4]", "optimiser.bounds"), ("field.max_speed=1.0", "field")):
        overrides = (BOUNDS, override) if key == "field" else (override,)
        with pytest.raises(InputError, match=f"{key}.*in the run that is to go on"):
            tasks.run_train(configure(tmp_path, *overrides), comm, resume=True)


def test_the_folder_says_which_method_and_is_read_back(comm: MPI.Comm, tmp_path: Path) -> None:
    config = configure(tmp_path, "optimiser.bounds=[-inf, 0.35]", LIMITED, "optimiser.max_iterations=2")
    document = tasks.run_train(config, comm)
    text = on_root(comm, lambda: (config.output.directory / "config.resolved.toml").read_text(encoding="utf-8"))
    assert tomllib.loads(text)["optimiser"]["bounds"] == [-np.inf, 0.35]
    assert tomllib.loads(text)["optimiser"]["method"] == "bqnls"
    assert parse_config(text).optimiser == config.optimiser
    assert on_root(comm, lambda: "NaN" not in json.dumps(document))
    run = load(config.output.directory, comm)
    assert isinstance(run.problem.field, SpeedLimit)
    assert run.problem.value(run.theta) == pytest.approx(document["objective"]["total"], rel=1e-12)
    assert run.problem.speed <= LIMIT
    x = np.linspace(-1.9, 1.9, 50)[:, None]
    assert np.max(np.abs(run.flow.velocity(0.1, x))) <= LIMIT
    moved = run.flow.push(x).x - x
    assert 0.0 < np.max(np.abs(moved)) <= LIMIT * 1.0 + 1e-12
    np.testing.assert_allclose(run.flow.pull(x + moved).x, x, atol=1e-6)


def test_theta_of_a_run_with_another_limit_is_refused(comm: MPI.Comm, tmp_path: Path) -> None:
    limited = configure(tmp_path, LIMITED, "optimiser.max_iterations=1", run="limited")
    free = configure(tmp_path, "optimiser.max_iterations=1", run="free")
    for config in (limited, free):
        tasks.run_train(config, comm)
    document = tasks.run_solve(configure(tmp_path, LIMITED, run="same"), comm, theta=limited.output.directory)
    assert document["status"] == "done"
    for override, source in (((LIMITED,), free), (("field.max_speed=0.5",), limited), ((), limited)):
        with pytest.raises(InputError, match=r"field.max_speed"):
            tasks.run_solve(configure(tmp_path, *override, run="other"), comm, theta=source.output.directory)


def test_adapted_meshes_and_bounds(comm: MPI.Comm, tmp_path: Path) -> None:
    """Its first meshes are those of the start inside of the bounds."""
    overrides = ("adapt={ density = 0.2, objective = 0.05, rounds = 2 }", "optimiser.max_iterations=14")
    config = configure(tmp_path, BOUNDS, LIMITED, *overrides)
    document = tasks.run_train(config, comm)
    assert document["status"] in ("converged", "max_iterations")
    theta = theta_of(comm, config)
    assert np.min(theta) >= -0.3
    assert np.max(theta) <= 0.35
    assert document["objective"]["total"] < float(history_of(comm, config)[0]["total"])


def test_a_limited_flow_is_told_to_be_held_against_flows_of_any_speed(comm: MPI.Comm, tmp_path: Path) -> None:
    quadratic = 'objective.terminal={ kind = "quadratic", target = [0.5] }'
    config = configure(tmp_path, LIMITED, quadratic, "ideal.certificate='auto'", "density.degree=2")
    document = tasks.run_train(config, comm)
    certificate = document["certificate"]
    assert certificate["gap"] > 0.0
    assert "flows of any speed, and those that keep to the limit of 0.4 may stay above" in certificate["statement"]
    assert document["verified"]["objective"]["total"] >= certificate["ideal"]


@pytest.mark.parametrize("method", ["solve", "verify", "compare"])
def test_other_commands_know_the_limit(comm: MPI.Comm, tmp_path: Path, method: str) -> None:
    run = getattr(tasks, f"run_{method}")
    far = ("field.zero_init=false", "field.output_scale=30", "field.layers=2")
    document = run(configure(tmp_path, LIMITED, *far, "particles.count=400"), comm)
    assert document["status"] == "done", document["reason"]
    if method == "verify":
        assert min(document["verify"]["taylor_rates"]) >= 1.9
    if method == "compare":
        assert document["compare"]["gradient_cosine"] > 0.97
    kinetic = document["objective"]["kinetic"]
    assert 0.5 * 0.25 * (0.5 * LIMIT) ** 2 < kinetic <= 0.5 * 0.5 * LIMIT**2  # λ/2 ∫∫|v|²ρ, T = 1
