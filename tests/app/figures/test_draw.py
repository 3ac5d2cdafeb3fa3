"""Figures: they are drawn from the run folder alone, and show what was put in."""

import csv
import re
from itertools import pairwise
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from matplotlib.image import imread
from moving_densities import cell_nodes, gathered, linear_samples

from eulerian.app.figures.densities_1d import density_curves
from eulerian.app.figures.densities_2d import density_maps
from eulerian.app.figures.draw import draw_run
from eulerian.app.figures.history import history_curves
from eulerian.app.runs.files import HISTORY_COLUMNS
from eulerian.app.runs.snapshots import Snapshots
from eulerian.app.runs.triangles import Triangles
from eulerian.base.errors import FigureError
from eulerian.objective.parts import part_names

pytestmark = pytest.mark.two_ranks

TIMES = [0.0, 0.25, 0.5, 0.75, 1.0]


def rank_folder(comm: MPI.Comm, path: Path) -> Path:
    """Figures are drawn by one rank: each rank of a test has a folder of its own."""
    folder = path / f"run{comm.rank}"
    (folder / "figures").mkdir(parents=True)
    return folder


def write_history(folder: Path, n: int) -> None:
    rows = [",".join(["nan" if i % 7 == 3 else str(1.0 / (1 + i))] * len(HISTORY_COLUMNS)) for i in range(n)]
    (folder / "history.csv").write_text("\n".join([",".join(HISTORY_COLUMNS), *rows]) + "\n")


@pytest.mark.parametrize(
    ("dim", "degree", "label_dependent"), [(1, 0, True), (1, 2, False), (2, 0, False), (2, 1, True), (2, 2, False)]
)
def test_every_figure_is_drawn(comm: MPI.Comm, tmp_path: Path, dim: int, degree: int, label_dependent: bool) -> None:
    nodes = cell_nodes(comm, dim, degree, n_labels=2)
    snapshots = gathered(nodes, linear_samples(nodes, TIMES, label_dependent))
    if comm.rank > 0:
        assert snapshots is None
        return
    assert snapshots is not None
    folder = rank_folder(comm, tmp_path)
    snapshots.save(folder / "figures" / "snapshots.npz")
    write_history(folder, 12)
    assert [path.name for path in draw_run(folder)] == ["densities.png", "history.png"]
    for name in ("densities", "history"):
        image = imread(folder / "figures" / f"{name}.png")
        assert min(image.shape[:2]) > 300
        assert np.ptp(image[..., :3]) > 0.5


def test_snapshots_do_not_depend_on_the_number_of_ranks(comm: MPI.Comm, tmp_path: Path) -> None:
    nodes = cell_nodes(comm, 2, 1, n_labels=2)
    snapshots = gathered(nodes, linear_samples(nodes, [0.0, 0.5]))
    if comm.rank > 0:
        return
    snapshots.save(tmp_path / "snapshots.npz")
    again = Snapshots.load(tmp_path / "snapshots.npz")
    assert again.points.shape == (32, 3, 2)
    assert np.array_equal(again.times, [0.0, 0.5])
    for k in range(2):
        assert np.allclose(again.density[1, :, :, k], 2.0 + k + 0.5 * again.points[:, :, 0], atol=1e-6)
    assert np.allclose(again.velocity[1, :, :, 0], 0.5 + again.points, atol=1e-6)


def one_triangle_pair(m: int) -> np.ndarray:
    """The unit square as two triangles, with midpoints for m = 6."""
    corners = np.array([[[0, 0], [1, 0], [1, 1]], [[0, 0], [0, 1], [1, 1]]], dtype=float)
    if m == 3:
        return corners
    middles = (corners + np.roll(corners, -1, axis=1)) / 2
    return np.concatenate([corners, middles], axis=1)


@pytest.mark.one_process
@pytest.mark.parametrize("m", [3, 6])
def test_interpolation_is_exact(m: int) -> None:
    points = one_triangle_pair(m)
    triangles = Triangles.of_nodes(points)
    pixels = triangles.box.pixels(10)
    assert pixels.shape == (10, 10, 2)
    x, y = points[..., 0], points[..., 1]
    values = 1.0 + 2.0 * x - y + (x * y + x**2 if m == 6 else 0.0)
    inside = triangles.locate(pixels).interpolate(values)
    x, y = pixels[..., 0], pixels[..., 1]
    assert np.allclose(inside, 1.0 + 2.0 * x - y + (x * y + x**2 if m == 6 else 0.0), atol=1e-12)
    outside = triangles.locate(np.array([[2.0, 0.5]])).interpolate(values)
    assert np.isnan(outside).all()


@pytest.mark.one_process
def test_outline_has_the_edges_of_one_cell_only() -> None:
    edges = Triangles.of_nodes(one_triangle_pair(3)).outline()
    assert len(edges) == 4
    assert not any(abs(np.diff(edge, axis=0)).min() > 0 for edge in edges)  # the diagonal is not among them


def snapshots_of(points: np.ndarray, density: np.ndarray) -> Snapshots:
    n, _, m, _ = density.shape
    return Snapshots(np.linspace(0, 1, n), points, density, np.zeros((n, len(points), m, 1, points.shape[2])))


@pytest.mark.one_process
def test_densities_at_rest_and_densities_that_vanish_can_be_drawn() -> None:
    points = one_triangle_pair(3)
    for value in (1.0, 0.0):
        figure = density_maps(snapshots_of(points, np.full((2, 2, 3, 1), value)))
        figure.canvas.draw()
    line = np.array([[[0.5], [1.0]], [[0.0], [0.5]]])
    for value in (1.0, 0.0):
        figure = density_curves(snapshots_of(line, np.full((2, 2, 2, 1), value)))
        figure.canvas.draw()
        drawn = figure.axes[0].lines[0].get_xdata()
        assert np.array_equal(drawn, [0.0, 0.5, 0.5, 1.0])


def test_all_panels_share_one_scale_where_none_is_pale(comm: MPI.Comm) -> None:
    nodes = cell_nodes(comm, 2, 1, n_labels=2)
    snapshots = gathered(nodes, linear_samples(nodes, TIMES))
    if comm.rank > 0:
        return
    images = [image for axes in density_maps(snapshots).axes for image in axes.images]
    assert len(images) == 10
    assert {image.norm.vmax for image in images} == {snapshots.density.max()}


@pytest.mark.one_process
@pytest.mark.parametrize("n_labels", [1, 3])
def test_maps_have_one_size_and_nothing_is_cut_off(tmp_path: Path, n_labels: int) -> None:
    nodes = cell_nodes(MPI.COMM_SELF, 2, 1, n_labels)
    snapshots = gathered(nodes, linear_samples(nodes, TIMES))
    assert snapshots is not None
    figure = density_maps(snapshots)
    figure.canvas.draw()
    boxes = [axes.get_window_extent() for axes in figure.axes if axes.images]
    sizes = [max(box.width, box.height) / figure.dpi for box in boxes]
    np.testing.assert_allclose(sizes, 2.0, atol=0.01)  # inches: no panel was shrunk for its picture to fit
    apart = [right.x0 - left.x1 for left, right in pairwise(boxes[:5])]
    np.testing.assert_allclose(apart, apart[0], atol=0.5)
    folder = rank_folder(MPI.COMM_SELF, tmp_path)
    snapshots.save(folder / "figures" / "snapshots.npz")
    (path,) = draw_run(folder)
    image = imread(path)[..., :3].min(axis=2)
    frame = 5  # pixels, half of what is left around the picture
    for edge in (image[:frame], image[-frame:], image[:, :frame], image[:, -frame:]):
        assert edge.min() == 1.0
    assert all(edge.min() < 1.0 for edge in (image[:20], image[-20:], image[:, :20], image[:, -20:]))


def page_of(pdf: bytes) -> tuple[float, float]:
    """Width and height in inches."""
    box = re.search(rb"/MediaBox \[ ([-\d. ]+) \]", pdf)
    assert box
    low_x, low_y, high_x, high_y = map(float, box.group(1).split())
    return (high_x - low_x) / 72, (high_y - low_y) / 72


@pytest.mark.one_process
@pytest.mark.parametrize(("dim", "n_labels"), [(1, 3), (2, 1), (2, 3)])
def test_figures_for_a_paper(tmp_path: Path, dim: int, n_labels: int) -> None:
    nodes = cell_nodes(MPI.COMM_SELF, dim, 1, n_labels)
    snapshots = gathered(nodes, linear_samples(nodes, TIMES))
    assert snapshots is not None
    folder = rank_folder(MPI.COMM_SELF, tmp_path)
    snapshots.save(folder / "figures" / "snapshots.npz")
    write_history(folder, 5)
    drawn = draw_run(folder, "pdf")
    assert [path.name for path in drawn] == ["densities.pdf", "history.pdf"]
    first = [path.read_bytes() for path in drawn]
    for pdf in first:
        assert b"/FontFile2" in pdf  # TrueType, embedded
        assert b"/Type3" not in pdf
        width, height = page_of(pdf)
        assert 3.0 < width <= 6.35
        assert height < 8.0
    # Each map is one picture, not thousands of triangles; the bar of colours may be one more.
    assert first[0].count(b"/Subtype /Image") in ((0,) if dim == 1 else (5 * n_labels, 5 * n_labels + 1))
    assert [path.read_bytes() for path in draw_run(folder, "pdf")] == first
    assert [path.name for path in draw_run(folder, "svg")] == ["densities.svg", "history.svg"]
    assert not list((folder / "figures").glob("*.png"))


@pytest.mark.one_process
def test_wide_maps_stand_below_each_other_on_a_page() -> None:
    points = np.concatenate([one_triangle_pair(3), one_triangle_pair(3) + np.array([1.0, 0.0])])
    snapshots = snapshots_of(points, np.ones((5, 4, 3, 2)))
    for page, rows in ((None, 2), (6.2, 5)):
        figure = density_maps(snapshots, page)
        figure.canvas.draw()
        panels = [axes for axes in figure.axes if axes.images]
        assert len(panels) == 10
        assert page is None or figure.get_figwidth() <= page
        assert len({round(axes.get_position().y0, 3) for axes in panels}) == rows
        named = [axes.get_ylabel().split("\n")[0] for axes in panels if axes.get_ylabel()]
        assert named == (["label 0", "label 1"] if page is None else [f"$t = {t:.4g}$" for t in TIMES])


def test_history_shows_every_part_and_reads_older_files(comm: MPI.Comm, tmp_path: Path) -> None:
    folder = rank_folder(comm, tmp_path)
    write_history(folder, 6)
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = {name: np.array([float(row[name]) for row in rows]) for name in HISTORY_COLUMNS}
    left = history_curves(numbers).axes[0]
    assert [line.get_label() for line in left.lines] == ["$J$", *part_names(), "true $J$ on the way"]
    assert len({line.get_color() for line in left.lines[:-1]}) == len(left.lines) - 1
    old = HISTORY_COLUMNS[:9]
    assert old[-1] == "seconds"
    (folder / "history.csv").write_text("\n".join([",".join(old), ",".join(["1"] * 9), ",".join(["2"] * 9)]) + "\n")
    assert [path.name for path in draw_run(folder)] == ["history.png"]


def test_damaged_files_are_named_and_hide_no_other_figure(comm: MPI.Comm, tmp_path: Path) -> None:
    folder = rank_folder(comm, tmp_path)
    assert draw_run(folder) == []
    (folder / "figures" / "snapshots.npz").write_bytes(b"PK rubbish")
    write_history(folder, 3)
    with pytest.raises(FigureError, match=r"densities\.png could not be drawn: snapshots") as caught:
        draw_run(folder)
    assert [path.name for path in caught.value.drawn] == ["history.png"]
    assert (folder / "figures" / "history.png").is_file()
    assert caught.value.exit_code == 1
    (folder / "history.csv").write_text("iteration,total\n1,2\n")
    with pytest.raises(FigureError, match="history") as caught:
        draw_run(folder)
    assert len(caught.value.failures) == 2
