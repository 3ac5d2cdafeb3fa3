"""The figure of data and flow at several times: what is saved of a problem, and what is drawn of it."""

from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest

import eulerian as eu
from eulerian.app.figures.draw import draw_run
from eulerian.app.figures.times import time_curves, time_maps
from eulerian.app.runs.cell_nodes import CellNodes
from eulerian.app.runs.files import TIMES
from eulerian.app.runs.times import TimeTargets

pytestmark = pytest.mark.two_ranks


def moving(comm: MPI.Comm, dim: int, labels: int, degree: int = 1, *, losses_only: bool = False) -> eu.ControlProblem:
    """A flow to the right, with costs of every sort."""
    space = eu.DensitySpace(eu.box_mesh([-2.0] * dim, [2.0] * dim, [12] * dim, comm=comm), degree, labels)
    normals = {y: eu.Gaussian([0.3 * y] + [0.0] * (dim - 1), std=0.4) for y in range(labels)}
    goal = eu.QuadraticLoss([[0.5 * y] + [0.0] * (dim - 1) for y in range(labels)])
    at = [eu.CostAt(1.0, "x**2"), eu.CostAt(0.25, goal, 2.0), eu.CostAt(0.25, "x**2", 0.5)]
    if not losses_only:
        at += [eu.CostAt(0.75, eu.KullbackLeibler(normals), 0.0), eu.CostAt(0.5, eu.SquaredDistance(normals), 3.0)]
    problem = eu.ControlProblem(space, eu.Linear(dim, "translation"), normals, "x**2", time=eu.TimeGrid(1.0, 4), at=at)
    problem.value(np.full_like(problem.initial_theta, 0.4))
    return problem


def data_of(problem: eu.ControlProblem) -> TimeTargets | None:
    return TimeTargets.gather(CellNodes(problem.density_space, problem.velocity_space), problem)


@pytest.mark.parametrize("dim", [1, 2])
def test_what_is_saved_is_what_was_asked_for(comm: MPI.Comm, dim: int) -> None:
    problem = moving(comm, dim, 2)
    found = data_of(problem)
    if comm.rank > 0:
        assert found is None
        return
    assert found is not None
    np.testing.assert_allclose(found.times, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(found.weights, [2.5, 3.0, 0.0, 2.0])
    assert [np.isfinite(each).all() for each in found.target] == [False, True, True, False]
    np.testing.assert_allclose(found.points[0, :, 0], [0.0, 0.5])
    assert np.isnan(found.points[1:]).all()
    # The target is where the density was at the start, and the density has moved on since.
    places = found.nodes[..., 0]
    starts = [np.average(places, weights=found.target[1, :, :, k]) for k in range(2)]
    for row, t in enumerate(found.times):
        moved = [np.average(places, weights=found.density[row, :, :, k]) for k in range(2)]
        np.testing.assert_allclose(np.subtract(moved, starts), 0.4 * t, atol=0.03)
    assert found.titles == ["$t = 0.25$", "$t = 0.5$", "$t = 0.75$, held out", "$t = 1$"]


@pytest.mark.parametrize(("dim", "labels", "degree"), [(1, 1, 0), (1, 2, 2), (2, 1, 1), (2, 2, 2)])
def test_a_column_for_each_time(comm: MPI.Comm, tmp_path: Path, dim: int, labels: int, degree: int) -> None:
    found = data_of(moving(comm, dim, labels, degree))
    if found is None:
        return
    (tmp_path / "figures").mkdir(exist_ok=True)
    found.save(tmp_path / "figures" / TIMES)
    assert [path.name for path in draw_run(tmp_path)] == ["times.png"]
    assert [path.name for path in draw_run(tmp_path, "pdf")] == ["times.pdf"]
    figure: Any = time_curves(found) if dim == 1 else time_maps(found)
    titles = [panel.get_title() for panel in figure.axes if panel.get_title()]
    assert titles == found.titles
    if dim == 1:
        panels = np.array(figure.axes).reshape(labels, 4)
        flows = [[line.get_ydata() for line in panel.lines if "flow" in line.get_label()] for panel in panels[0]]
        assert all(len(each) == 1 for each in flows)
        assert np.nanmax(flows[0][0]) == pytest.approx(found.density[0, :, :, 0].max())
        texts = [text.get_text() for text in figure.legends[0].get_texts()]
        assert len(texts) == len(set(texts)) == 3
    else:
        panels = np.array(figure.axes[: 8 * labels]).reshape(labels, 2, 4)
        pictures = [[[len(panel.images) for panel in row] for row in rows] for rows in panels]
        assert pictures == [[[0, 1, 1, 0], [1, 1, 1, 1]]] * labels
        said = [text.get_text() for text in panels[0, 0, 3].texts]
        assert said == ["no density: a loss"]
        names = [panel.get_ylabel() for panel in panels[:, :, 0].ravel()]
        assert [name.split("\n")[0].rpartition(" ")[2] for name in names] == ["data", "flow"] * labels


@pytest.mark.parametrize("dim", [1, 2])
def test_without_any_data_the_flow_is_drawn(comm: MPI.Comm, dim: int) -> None:
    found = data_of(moving(comm, dim, 1, losses_only=True))
    if found is None:
        return
    figure: Any = time_curves(found) if dim == 1 else time_maps(found)
    if dim == 1:
        assert [text.get_text() for text in figure.legends[0].get_texts()] == [r"flow $\rho$", "target point"]
    assert len(figure.axes) == (2 if dim == 1 else 5)
