"""`eulerian plot --exact`: the same densities on any number of ranks, known in closed form, and what is refused."""

from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from moving_densities import gathered
from run_folders import leave_run
from scipy.linalg import expm
from test_push import A, B, T, config

from eulerian.app.build.network import build
from eulerian.app.config import parse_config
from eulerian.app.figures.draw import draw_run
from eulerian.app.runs.cell_nodes import CellNodes
from eulerian.app.runs.files import FIGURES, SNAPSHOTS
from eulerian.app.runs.snapshots import ExactDensities
from eulerian.app.tasks import save_exact_densities
from eulerian.base.errors import InputError

# Everything turns and moves a little, so that the walls are not met by what can be seen.
GENTLE = 0.4 * np.concatenate([A.ravel(), B])


def leave_figures(comm: MPI.Comm, run: Path, table: dict, theta: np.ndarray) -> None:
    """What figures of the densities are drawn from."""
    problem = build(parse_config(table, run.parent), comm)
    samples = problem.snapshots(np.tile(theta, (problem.n_layers, 1)).ravel(), 5)
    found = gathered(CellNodes(problem.density_space, problem.velocity_space), samples)
    if found is not None:
        (run / FIGURES).mkdir()
        found.save(run / FIGURES / SNAPSHOTS)
    comm.Barrier()


def test_densities_of_an_affine_flow_on_the_figures_own_pixels(comm: MPI.Comm, tmp_path: Path) -> None:
    table = config(2)
    run = leave_run(comm, tmp_path / "run", table, [GENTLE])
    leave_figures(comm, run, table, GENTLE)
    path = save_exact_densities(run, comm)
    if comm.rank > 0:
        return
    maps = ExactDensities.load(path)
    assert np.allclose(maps.times, np.linspace(0.0, T, 5))
    x = maps.pixels.reshape(-1, 2)
    big = np.zeros((3, 3))
    big[:2, :2], big[:2, 2] = GENTLE[:4].reshape(2, 2), GENTLE[4:]
    for t, found in zip(maps.times, maps.density.reshape(5, -1, 2), strict=True):
        flow = expm(t * big)
        for k, mean in enumerate(([0.2, 0.1], [-0.3, 0.2])):
            away = (x - flow[:2, 2]) @ np.linalg.inv(flow[:2, :2]).T - mean
            shape = np.exp(-0.5 * np.sum(away**2, axis=1) / 0.25**2)
            exact = shape * (1 + k) / 3 / (2 * np.pi * 0.25**2) / np.linalg.det(flow[:2, :2])
            known = np.isfinite(found[:, k])
            assert known.mean() > 0.9
            # Masses are those in the square, which ends 3 standard deviations from the means.
            np.testing.assert_allclose(found[known, k], exact[known], rtol=5e-3, atol=1e-4)
    assert maps.missing.max() < 0.02
    assert "by characteristics" in maps.remark
    assert [path.name for path in draw_run(run)] == ["densities.png", "densities_exact.png"]


@pytest.mark.two_ranks
def test_a_run_without_figures_or_with_three_dimensions_is_refused(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", config(), [GENTLE])
    with pytest.raises(InputError, match="no figures of densities"):
        save_exact_densities(run, comm)
    table = config(
        domain={"box": {"lower": [-1.0] * 3, "upper": [1.0] * 3, "cells": [2, 2, 2]}},
        density={"initial": [{"kind": "gaussian", "mean": [0.0] * 3, "std": 0.4}]},
        objective={"terminal": {"kind": "quadratic", "target": [0.0] * 3}},
    )
    solid = leave_run(comm, tmp_path / "solid", table, [np.zeros(12)])
    with pytest.raises(InputError, match="one and two dimensions"):
        save_exact_densities(solid, comm)


@pytest.mark.one_process
def test_grey_is_what_holds_mass_and_is_not_known() -> None:
    """Half of the places of label 0 are not known: of the mass 10 % are there at the end, and 1 % before."""
    density = np.ones((3, 10, 4, 2))
    density[1:, :5, :, 0] = np.nan
    density[1, 5:, :, 0], density[2, 5:, :, 0] = 2.0 * 0.99, 2.0 * 0.9
    maps = ExactDensities(np.linspace(0, 1, 3), np.zeros(2), np.ones(2), density)
    np.testing.assert_allclose(maps.missing, [[0.0, 0.0], [0.01, 0.0], [0.1, 0.0]], atol=1e-12)
    assert np.isnan(maps.shown[2, :5, :, 0]).all()
    assert np.all(maps.shown[1, :5, :, 0] == 0.0)
    assert "10 %" in maps.remark
