"""Points drawn from the density at the end of a run."""

from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from run_folders import leave_run, numbers, read_csv
from test_push import AFFINE, A, B, T, config

from eulerian.app.build.network import build
from eulerian.app.config import read_config
from eulerian.app.tasks import run_sample
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


def test_refusals(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", config(2), [AFFINE])
    for count, seed, words in ((0, 0, "-n: at least one"), (1, 0, "2 labels"), (5, -1, "--seed")):
        with pytest.raises(InputError, match=words):
            run_sample(run, count, comm, seed=seed)
    with pytest.raises(InputError, match="no run folder"):
        run_sample(tmp_path / "run" / "none", 5, comm)
    assert not (run / "sampled.csv").exists()
