"""Figures and tables of both methods: true to their numbers, drawn from the run folder alone."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from matplotlib.image import imread
from moving_densities import cell_nodes

from eulerian.analysis.convergence import Reference, Resolution, Rung, Trial
from eulerian.analysis.stopwatch import EvaluationCost, Seconds
from eulerian.app.figures.comparison import comparison_curves, comparison_maps, part_errors
from eulerian.app.figures.draw import draw_run
from eulerian.app.figures.study import frontier
from eulerian.app.runs.comparison import ComparisonData, comparison_table
from eulerian.app.runs.study_table import read_study, study_rates, study_rows, study_table, write_study
from eulerian.base.errors import InputError
from eulerian.objective.parts import part_names

pytestmark = pytest.mark.one_process


def pair(dim: int, n_labels: int = 2) -> ComparisonData:
    """Densities that grow to the right, the mesh's 0.5 too large, and five particles of each label."""
    points = cell_nodes(MPI.COMM_SELF, dim, 1, n_labels).points()
    pushed = np.stack([2.0 + k + points[..., 0] for k in range(n_labels)], axis=2)
    x = np.tile(np.linspace(-0.5, 0.5, 5)[:, None] * np.ones(dim), (n_labels, 1))
    labels = np.repeat(np.arange(n_labels), 5)
    weights = np.full(5 * n_labels, 0.2 / n_labels)
    mesh, particles = np.array([4.0, 3.0, 1.0]), np.array([4.4, 3.6, 0.8])
    interval = np.array([0.2, np.nan, 0.0])
    names = np.array(["total", "terminal", "kinetic"])
    return ComparisonData(points, pushed + 0.5, pushed, x, labels, weights, names, mesh, particles, interval)


def test_maps_show_the_mesh_the_particles_and_the_difference() -> None:
    figure = comparison_maps(pair(2))
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 4
    for k in range(2):
        left, right = panels[2 * k : 2 * k + 2]
        shown = left.collections[-1].get_offsets()
        assert np.allclose(shown, np.repeat(np.linspace(-0.5, 0.5, 5)[:, None], 2, axis=1))
        assert np.nanmin(right.images[0].get_array()) == pytest.approx(0.5)
        assert left.images[0].get_array()[250, 400] > left.images[0].get_array()[250, 100] + 0.5
    figure.canvas.draw()


def test_curves_show_a_histogram_of_each_label() -> None:
    figure = comparison_curves(pair(1))
    for k in range(2):
        upper, lower = figure.axes[k], figure.axes[2 + k]
        (stairs,) = upper.patches
        heights, edges, _ = stairs.get_data()
        assert np.sum(heights * np.diff(edges)) == pytest.approx(0.5)
        mesh, pushed = (line.get_ydata() for line in upper.lines[:2])
        assert mesh - pushed == pytest.approx(np.full(len(mesh), 0.5))
        assert lower.lines[0].get_ydata() == pytest.approx(mesh - pushed)
    figure.canvas.draw()


def test_parts_are_differences_with_their_intervals() -> None:
    figure = part_errors(pair(1))
    (container,) = figure.axes[0].containers
    marks, _, (bars,) = container.lines
    assert marks.get_xdata() == pytest.approx([10.0, 15.0, -5.0])
    widths = [np.ptp(segment[:, 0]) for segment in bars.get_segments()]
    assert widths == pytest.approx([10.0, 0.0, 0.0])
    figure.canvas.draw()
    right = figure.axes[0].child_axes[0]
    assert [text.get_text() for text in right.get_yticklabels()] == ["4 / 4.4 ± 0.2", "3 / 3.6", "1 / 0.8"]


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_folder_is_drawn(tmp_path: Path, dim: int) -> None:
    folder = tmp_path / "run"
    (folder / "figures").mkdir(parents=True)
    found = pair(dim)
    if dim == 3:  # what `compare` leaves there
        found = replace(found, points=found.points[:0], density=found.density[:0], pushed=found.pushed[:0])
    found.save(folder / "figures" / "compare.npz")
    write_study(folder / "study.csv", rungs())
    names = ["compare.png"] if dim < 3 else []
    drawn = draw_run(folder)
    assert [path.name for path in drawn] == [*names, "parts.png", "study.png"]
    for path in drawn:
        assert np.ptp(imread(path)[..., :3]) > 0.5


def test_densities_that_vanish_can_be_drawn() -> None:
    for dim, draw in ((1, comparison_curves), (2, comparison_maps)):
        found = pair(dim)
        nothing = replace(found, density=0.0 * found.density, pushed=0.0 * found.pushed, x=found.x[:0])
        draw(replace(nothing, labels=found.labels[:0], weights=found.weights[:0])).canvas.draw()


def test_a_damaged_pair(tmp_path: Path) -> None:
    path = tmp_path / "compare.npz"
    path.write_bytes(b"PK nothing")
    with pytest.raises(InputError, match="comparison"):
        ComparisonData.load(path)


# -- studies ---------------------------------------------------------------------------------------------------------


def rungs() -> list[Rung]:
    """A mesh of order 2, whose finest rung is the reference, and random particles."""
    truth = np.array([1.0, 2.0])

    def trial(what: Resolution, errors: list[float], seconds: float) -> Trial:
        cost = EvaluationCost(Seconds(seconds, seconds), Seconds(2.0 * seconds, 3.0 * seconds))
        values = np.array([2.0 + 2.0 * e for e in errors])
        return Trial(what, values, np.stack([truth * (1.0 + e) for e in errors]), abs(errors[0]) + 1e-9, cost, seconds)

    meshes = [trial(Resolution("mesh", 1, 10 * 4**i, 0.5**i), [0.1 * 0.25**i], 0.1 * 8**i) for i in range(3)]
    meshes.append(trial(Resolution("mesh", 1, 640, 0.125), [0.0], 50.0))
    clouds = [trial(Resolution("random", particles=n), [n**-0.5, -(n**-0.5)], n * 1e-4) for n in (100, 400)]
    reference = Reference("the mesh", 2.0, truth, 1e-9, meshes[-1])
    return [Rung.of(each, reference, np.ones(2)) for each in (*meshes, *clouds)]


def test_a_study_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    write_study(path, rungs())
    rows = read_study(path)
    for row, expected in zip(rows, study_rows(rungs()), strict=True):
        for name, value in expected.items():
            if name == "ladder":
                assert row[name] == value
            else:
                assert row[name] == pytest.approx(math.nan if value is None else value, nan_ok=True), name
    assert [row["sets"] for row in rows[-2:]] == [2.0, 2.0]
    path.write_text("ladder,degree\nmesh,1\n")
    with pytest.raises(InputError, match="study"):
        read_study(path)


def test_rates_and_table_of_a_study() -> None:
    rates = study_rates(rungs())
    assert rates["mesh, degree 1"] == pytest.approx(
        {"objective_error": 2.0, "gradient_error": 2.0, "density_error": rates["mesh, degree 1"]["density_error"]}
        | {"power_of": "h"}
    )
    assert rates["random particles"]["gradient_error"] == pytest.approx(0.5)
    table = study_table(rungs())
    assert "∇J h^2.00" in table
    assert "∇J N^-0.50" in table
    (finest,) = (line for line in table.splitlines() if "640 cells" in line)
    assert finest.split()[-6:-2] == ["-", "-", "-", "1.00e-09"]


def test_the_frontier_has_a_line_per_ladder() -> None:
    rows: list[dict[str, Any]] = [
        {name: math.nan if value is None else value for name, value in row.items()} for row in study_rows(rungs())
    ]
    figure = frontier(rows)
    left, middle, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["mesh, degree 1", "random particles"]
    assert left.lines[0].get_xdata() == pytest.approx([0.1, 0.8, 6.4, 50.0])
    assert middle.lines[0].get_xdata() == pytest.approx([0.3, 2.4, 19.2, 150.0])
    assert right.lines[1].get_xdata() == pytest.approx([0.02, 0.08])
    assert left.lines[1].get_ydata() == pytest.approx([0.1, 0.05])
    assert [text.get_text() for text in middle.texts] == ["$h^{2.0}$", "$N^{-0.50}$"]
    figure.canvas.draw()


def test_the_table_of_a_comparison() -> None:
    parts = dict.fromkeys(("total", *part_names()), 0.0) | {"total": 3.0, "terminal": 2.5, "kinetic": 0.5}
    seconds = {"value": 0.1, "value_and_gradient": 0.4}
    found = {
        "parts": parts,
        "interval": {name: 0.125 * value for name, value in parts.items()} | {"kinetic": math.nan},
        "l1_density": 0.01,
        "l1_kernel_estimate": math.nan,
        "cpu_seconds": {"mesh": seconds, "particles": seconds},
        "gradient_cosine": 0.99,
        "gradient_relative_error": 0.02,
        "gradient_reference": "mesh",
        "gradient_sampling_error": 0.01,
        "wasserstein_note": "no library",
        "outside": 0.0,
    }
    lines = comparison_table({"objective": parts, "compare": found}).splitlines()
    assert lines[1].split() == ["J", "3", "3", "0.375"]
    assert lines[3].split() == ["kinetic", "0.5", "0.5", "-"]
    assert lines[4].split()[-2:] == ["0.01", "-"]
    assert "of the mesh" in lines[-2]
    assert lines[-1] == "no library"
