"""Figures of the idealised problem: drawn from the run folder alone, and true to what is in it."""

import re
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.image import imread
from moving_densities import cell_nodes, gathered, linear_samples

from eulerian.app.figures.draw import draw_run
from eulerian.app.figures.gap import gap_curves
from eulerian.app.figures.trajectories import load_paths, trajectory_lines, trajectory_map
from eulerian.app.runs.files import GAP_COLUMNS, write_arrays
from eulerian.app.runs.snapshots import Snapshots
from eulerian.base.errors import FigureError, InputError
from eulerian.ideal.problem import PathBundle

pytestmark = pytest.mark.one_process

TIMES = np.linspace(0.0, 1.0, 9)


def bundle(dim: int, n_labels: int = 2) -> PathBundle:
    """Three paths per label, from the left to the right."""
    start = np.linspace(-0.6, -0.2, 3)[:, None] * np.ones(dim)
    one = start[:, None] + TIMES[:, None] * np.linspace(0.4, 0.2, dim)
    return PathBundle(TIMES, np.concatenate([one] * n_labels), np.repeat(np.arange(n_labels), 3))


def snapshots_of(dim: int, n_labels: int = 2) -> Snapshots:
    nodes = cell_nodes(MPI.COMM_SELF, dim, 1, n_labels)
    found = gathered(nodes, linear_samples(nodes, TIMES.tolist()))
    assert found is not None
    return found


def gap_rows(n: int = 30) -> dict[str, np.ndarray]:
    """A gap that closes, far away in the beginning."""
    i = np.arange(1.0, n + 1)
    rows = {name: i for name in GAP_COLUMNS}
    rows |= {"primal": 1.0 + 10.0**-i, "dual": 1.0 - 5.0 / i**2}
    rows |= {"relative_gap": rows["primal"] - rows["dual"], "residual": 0.1 / i}
    return rows


def test_the_gap_is_drawn_where_there_is_a_flow_only() -> None:
    rows = gap_rows()
    rows["relative_gap"][:-2] = np.nan
    left, right = gap_curves(rows).axes
    lines = {line.get_label(): line for line in (*left.get_lines(), *right.get_lines())}
    assert len(lines["estimate: not yet a flow"].get_xdata()) == 30
    assert len(lines["primal: cost of a flow"].get_xdata()) == 2
    assert len(lines["relative gap, certified"].get_xdata()) == 2
    rows["primal"][:] = rows["relative_gap"][:] = np.nan  # it never had one
    gap_curves(rows).canvas.draw()


def write_gap(folder: Path) -> None:
    rows = gap_rows()
    lines = [",".join(GAP_COLUMNS), *(",".join(map(str, line)) for line in zip(*rows.values(), strict=True))]
    (folder / "gap.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("dim", [1, 2])
def test_a_folder_of_the_ideal_command_is_drawn(tmp_path: Path, dim: int) -> None:
    folder = tmp_path / "run"
    (folder / "figures").mkdir(parents=True)
    snapshots_of(dim).save(folder / "figures" / "snapshots.npz")
    write_arrays(folder / "figures" / "trajectories.npz", bundle(dim)._asdict())
    write_gap(folder)
    drawn = draw_run(folder)
    assert [path.name for path in drawn] == ["densities.png", "trajectories.png", "gap.png"]
    for path in drawn:
        image = imread(path)
        assert min(image.shape[:2]) > 300
        assert np.ptp(image[..., :3]) > 0.5


def test_curves_show_a_few_of_many_times() -> None:
    many = snapshots_of(1)
    few = many.thinned(5)
    assert few.times.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert np.array_equal(few.density, many.density[::2])
    assert np.array_equal(few.velocity, many.velocity[::2])
    assert many.thinned(20).times.tolist() == TIMES.tolist()


def test_lines_in_space_and_time() -> None:
    """Every path once, in the panel of its label, with time upwards."""
    paths = bundle(1)
    figure = trajectory_lines(snapshots_of(1), paths)
    panels = [axes for axes in figure.axes if axes.get_ylim() == (0.0, 1.0) and axes.lines]
    assert len(panels) == 2
    for k, panel in enumerate(panels):
        own = paths.paths[paths.labels == k]
        assert len(panel.lines) == len(own)
        for line, path in zip(panel.lines, own, strict=True):
            assert np.array_equal(line.get_xdata(), path[:, 0])
            assert np.array_equal(line.get_ydata(), TIMES)


def test_maps_show_paths_walls_and_both_densities() -> None:
    snapshots, paths = snapshots_of(2), bundle(2)
    figure = trajectory_map(snapshots, paths)
    assert len(figure.axes) == 2
    for k, panel in enumerate(figure.axes):
        outline, lines = [c for c in panel.collections if isinstance(c, LineCollection)]
        assert len(outline.get_segments()) == 16
        pieces = np.stack(lines.get_segments())
        own = paths.paths[paths.labels == k]
        assert np.array_equal(pieces.reshape(3, 8, 2, 2)[:, :, 0], own[:, :-1])
        assert np.array_equal(pieces.reshape(3, 8, 2, 2)[:, :, 1], own[:, 1:])
        ink = np.asarray(panel.images[0].get_array())
        # The final density grows to the right, the initial one is the same everywhere: there is more of the orange.
        left, right = ink[300, 100, :3], ink[300, 500, :3]
        assert left[2] > right[2] + 0.05
        assert right[0] > left[0] + 0.05


def test_densities_that_vanish_can_be_drawn() -> None:
    for dim, draw in ((1, trajectory_lines), (2, trajectory_map)):
        found = snapshots_of(dim)
        empty = Snapshots(found.times, found.points, np.zeros_like(found.density), found.velocity)
        draw(empty, bundle(dim)).canvas.draw()


def test_the_gap_closes_in_sight() -> None:
    rows = gap_rows()
    left, right = gap_curves(rows).axes
    low, high = left.get_ylim()
    assert low < rows["dual"][-1] < rows["primal"][-1] < high
    assert high - low < 0.5 * (rows["primal"][0] - rows["dual"][0])
    assert [line.get_label() for line in left.lines] == ["primal: cost of a flow", "dual: lower bound"]
    assert right.get_yscale() == "log"
    gap_curves({name: column[:1] for name, column in rows.items()}).canvas.draw()
    gap_curves({name: np.where(rows["iteration"] == 1, np.nan, column) for name, column in rows.items()}).canvas.draw()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "figures").mkdir(parents=True)
    (folder / "gap.csv").write_text("iteration,primal\n1,2\n")
    with pytest.raises(FigureError, match="gap"):
        draw_run(folder)
    file = folder / "figures" / "trajectories.npz"
    write_arrays(file, {"times": TIMES})
    with pytest.raises(InputError, match=re.escape("trajectories")):
        load_paths(file)
