"""Points drawn from the density at the end of a run."""

from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from run_folders import leave_run, numbers, read_csv, write_csv
from test_push import AFFINE, A, B, T, config, exact

from eulerian.app.build.network import build
from eulerian.app.config import parse_config, read_config
from eulerian.app.tasks import run_push, run_sample, run_train
from eulerian.base.errors import InputError
from eulerian.density.gathered import GatheredDensity

pytestmark = pytest.mark.two_ranks


def final_density(comm: MPI.Comm, run: Path) -> tuple[Any, GatheredDensity]:
    problem = build(read_config(run / "config.resolved.toml"), comm)
    problem.value(np.tile(AFFINE, (2, 1)))
    return problem, GatheredDensity.gather(problem.density_space, problem.final_density).non_negative()


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_draws_follow_the_final_density(comm: MPI.Comm, tmp_path: Path, method: Any) -> None:
    run = leave_run(comm, tmp_path / "run", config(2), [AFFINE])
    run_sample(run, 3000, comm, method=method, seed=4)
    table = read_csv(comm, run / "sampled.csv")
    assert list(table) == ["x", "y", "label", "log_density"]
    x = np.stack([numbers(table["x"]), numbers(table["y"])], axis=1)
    labels = np.array(table["label"])
    assert (np.sum(labels == "0"), np.sum(labels == "1")) == (1000, 2000)
    problem, whole = final_density(comm, run)
    np.testing.assert_allclose(numbers(table["log_density"]), np.log(whole.values(x).sum(axis=1)), atol=1e-8)
    statistics = problem.statistics
    for y in range(2):
        mine = x[labels == str(y)]
        error = np.sqrt(np.diag(statistics.covariance[y]) / len(mine)) * (4.5 if method == "random" else 1.0)
        assert np.all(np.abs(mine.mean(axis=0) - statistics.mean[y]) < error)
        # And the flow did move it: the mean of an affine flow obeys it.
        start = build(read_config(run / "config.resolved.toml"), comm)
        before, _ = start.density_space.mean_and_covariance(start.initial_density)
        assert np.abs(mine.mean(axis=0) - before[y] - T * (before[y] @ A.T + B)).max() < 0.06


def test_the_same_points_on_any_number_of_ranks(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", config(2), [AFFINE])
    run_sample(run, 101, comm, output=tmp_path / "ours.csv")
    if comm.rank == 0:
        run_sample(run, 101, MPI.COMM_SELF, output=tmp_path / "alone.csv")
    ours, alone = (read_csv(comm, tmp_path / name) for name in ("ours.csv", "alone.csv"))
    for name in ("x", "y"):
        np.testing.assert_allclose(numbers(ours[name]), numbers(alone[name]), atol=1e-8)
    assert ours["label"] == alone["label"]


def test_seeds_and_overwriting(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", config(), [AFFINE])
    found = []
    for seed in (0, 0, 1):
        run_sample(run, 5, comm, seed=seed, overwrite=True)
        found.append(read_csv(comm, run / "sampled.csv"))
    assert found[0] == found[1] != found[2]
    assert found[0]["label"] == ["0"] * 5
    with pytest.raises(InputError, match="exists already"):
        run_sample(run, 5, comm)


# -- new data, drawn from the target -----------------------------------------------------------------------------------


def with_target(labels: int = 1, **tables: Any) -> dict[str, Any]:
    """A target for every label: a small Gaussian."""
    target = [{"kind": "gaussian", "mean": [0.2 * y, 0.1], "std": 0.12, "label": y} for y in range(labels)]
    return config(labels, objective={"terminal": {"kind": "l2", "target": target}}, **tables)


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_new_data_are_the_target_pulled_back(comm: MPI.Comm, tmp_path: Path, method: Any) -> None:
    run = leave_run(comm, tmp_path / "run", with_target(2), [AFFINE])
    document = run_sample(run, 2000, comm, method=method, source="target", seed=3)
    assert document["output"] == str(run / "generated.csv")
    table = read_csv(comm, run / "generated.csv")
    assert list(table) == ["x", "y", "label", "log_density"]
    x, labels = np.stack([numbers(table["x"]), numbers(table["y"])], axis=1), np.array(table["label"])
    for y in range(2):
        end = exact(x[labels == str(y)])  # where the flow takes them
        assert np.abs(end.mean(axis=0) - [0.2 * y, 0.1]).max() < 0.02
        assert np.abs(end.std(axis=0) - 0.12).max() < 0.03  # the mesh is coarse
    # The density of the model is the one that `push` would tell: the target's where they go, and what the flow does.
    problem = build(read_config(run / "config.resolved.toml"), comm)
    whole = GatheredDensity.gather(problem.density_space, problem.terminal.target).non_negative()  # type: ignore[attr-defined]
    with np.errstate(divide="ignore"):
        expected = np.log(whole.values(exact(x)).sum(axis=1)) + T * np.trace(A)
    np.testing.assert_allclose(numbers(table["log_density"]), expected, atol=1e-3)


def test_new_data_where_every_label_has_its_own_flow(comm: MPI.Comm, tmp_path: Path) -> None:
    """One rank or several, and the density of all labels together is known at every point."""
    shift = np.array([[0.2, -0.1], [-0.15, 0.1]])
    table = with_target(2, field={"features": "translation", "label_dependent": True})
    run = leave_run(comm, tmp_path / "run", table, [(shift / T).ravel()])
    run_sample(run, 300, comm, source="target")
    if comm.rank == 0:
        run_sample(run, 300, MPI.COMM_SELF, source="target", output=tmp_path / "alone.csv")
    found, alone = (read_csv(comm, path) for path in (run / "generated.csv", tmp_path / "alone.csv"))
    x, labels = np.stack([numbers(found["x"]), numbers(found["y"])], axis=1), np.array(found["label"], dtype=int)
    for name in ("x", "y", "log_density"):
        np.testing.assert_allclose(numbers(found[name]), numbers(alone[name]), atol=1e-8)
    problem = build(read_config(run / "config.resolved.toml"), comm)
    whole = GatheredDensity.gather(problem.density_space, problem.terminal.target).non_negative()  # type: ignore[attr-defined]
    expected = np.log(sum(whole.values(x + shift[y])[:, y] for y in range(2)))
    np.testing.assert_allclose(numbers(found["log_density"]), expected, atol=1e-6)
    assert np.abs((x + shift[labels]).mean(axis=0) - [0.1, 0.1]).max() < 0.02


@pytest.mark.slow
def test_new_data_look_like_the_data(comm: MPI.Comm, tmp_path: Path) -> None:
    """A normalising flow between two half moons and a normal density: mean and standard deviation of the draws."""
    angle, noise = np.pi * np.arange(200) / 200, np.random.default_rng(0).normal(0.0, 0.06, (400, 2))
    upper = np.column_stack([np.cos(angle), np.sin(angle)])
    data = np.concatenate([upper, np.array([1.0, 0.5]) - upper]) + noise
    data = (data - data.mean(axis=0)) / data.std(axis=0)
    write_csv(comm, tmp_path / "moons.csv", ["x", "y"], data)
    table = {
        "domain": {"box": {"lower": [-4.0, -4.0], "upper": [4.0, 4.0], "cells": [20, 20]}},
        "density": {"initial": [{"kind": "samples", "file": "moons.csv", "columns": ["x", "y"], "bandwidth": 0.3}]},
        "field": {"kind": "mlp", "hidden": [16], "layers": 3},
        "objective": {
            "kinetic": 0.05,
            "terminal": {"kind": "kl", "target": [{"kind": "gaussian", "mean": [0.0, 0.0], "std": 1.0}]},
        },
        "optimiser": {"max_iterations": 40},
        "ideal": {"certificate": "none"},
        "output": {"directory": str(tmp_path / "run"), "densities": 0},
    }
    run_train(parse_config(table, tmp_path), comm)
    run_sample(tmp_path / "run", 4096, comm, method="sobol", source="target")
    found = read_csv(comm, tmp_path / "run" / "generated.csv")
    x = np.stack([numbers(found["x"]), numbers(found["y"])], axis=1)
    spread = np.sqrt(data.var(axis=0) + 0.3**2)  # of the kernel estimate
    assert np.abs(x.mean(axis=0) - data.mean(axis=0)).max() < 0.1
    assert np.abs(x.std(axis=0) / spread - 1.0).max() < 0.1
    # Pushed forward they are a normal density again.
    run_push(tmp_path / "run", tmp_path / "run" / "generated.csv", comm)
    pushed = read_csv(comm, tmp_path / "run" / "pushed_generated.csv")
    end = np.stack([numbers(pushed["x"]), numbers(pushed["y"])], axis=1)
    assert np.abs(end.mean(axis=0)).max() < 0.02
    assert np.abs(end.std(axis=0) - 1.0).max() < 0.03


def test_a_run_without_a_target_has_no_new_data(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", config(), [AFFINE])
    with pytest.raises(InputError, match=r"--from: .*'quadratic' has no target density"):
        run_sample(run, 5, comm, source="target")
    assert not (run / "generated.csv").exists()


def test_refusals(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", config(2), [AFFINE])
    for count, seed, words in ((0, 0, "-n: at least one"), (1, 0, "2 labels"), (5, -1, "--seed")):
        with pytest.raises(InputError, match=words):
            run_sample(run, count, comm, seed=seed)
    with pytest.raises(InputError, match="no run folder"):
        run_sample(tmp_path / "run" / "none", 5, comm)
    assert not (run / "sampled.csv").exists()
