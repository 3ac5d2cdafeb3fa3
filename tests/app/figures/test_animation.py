"""Animations: what a frame shows, colours that do not flicker, and time that does not drift."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from moving_densities import cell_nodes
from PIL import Image

from eulerian.app.figures import animation_figure
from eulerian.app.figures.animation import durations, shared_palette, write_animation
from eulerian.app.figures.animation_figure import AnimationData, animated_figure
from eulerian.app.figures.colours import WALL, label_colours, oklab
from eulerian.app.runs.projections import LineIntegrals

pytestmark = pytest.mark.one_process

BLUE, ORANGE = label_colours(2)


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the pixels, and of the time."""
    monkeypatch.setattr(animation_figure, "DPI", 50)


def film_of(dim: int, n_labels: int = 2, n_times: int = 6, degree: int = 1, particles: int = 4) -> AnimationData:
    """Label 0 lies on the left, label 1 on the right, and both fade; particles go from left to right."""
    points = cell_nodes(MPI.COMM_SELF, dim, degree, 1, n=6 if dim < 3 else 3).points()
    times = np.linspace(0.0, 2.0, n_times)
    x = points[..., 0]
    each = [np.maximum(0.0, side * x) for side in (-1.0, 1.0, 0.5)][:n_labels]
    density = (2.0 - 0.5 * times)[:, None, None, None] * np.stack(each, axis=-1)
    start = np.random.default_rng(0).uniform(-0.5, 0.0, (particles, dim))
    positions = start + 0.25 * times[:, None, None]
    labels = np.arange(particles, dtype=np.int32) % n_labels
    return AnimationData(times, points, density.astype(np.float32), positions, labels, tuple(map(str, range(n_labels))))


def frames_of(path: Path) -> list[np.ndarray]:
    with Image.open(path) as image:
        found = []
        for i in range(image.n_frames):
            image.seek(i)
            found.append(np.asarray(image.convert("RGB")))
    return found


def drawn(film: AnimationData, index: int = 0) -> tuple[Figure, np.ndarray]:
    """The figure at a frame, and its picture."""
    figure, show = animated_figure(film)
    canvas = FigureCanvasAgg(figure)
    show(index)
    canvas.draw()
    return figure, np.asarray(canvas.buffer_rgba())[..., :3].copy()


def at(frame: np.ndarray, figure, x: float, y: float) -> np.ndarray:
    """The colour at a point of the map."""
    column, row = figure.axes[0].transData.transform((x, y))
    return frame[frame.shape[0] - 1 - int(row), int(column)]


# -- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "n_labels"), [(1, 2), (2, 1), (2, 3), (3, 2)])
def test_a_film_becomes_a_file(tmp_path: Path, dim: int, n_labels: int) -> None:
    write_animation(tmp_path / "a.gif", film_of(dim, n_labels), 10.0)
    frames = frames_of(tmp_path / "a.gif")
    assert len(frames) == 6
    colours = np.unique(np.concatenate([frame.reshape(-1, 3) for frame in frames]), axis=0)
    assert len(colours) <= 256
    assert [255, 255, 255] in colours.tolist()
    for before, after in pairwise(frames):
        assert np.mean(before != after) > 1e-4
    assert all(np.array_equal(frame[-1], frames[0][-1]) for frame in frames)  # the margin stands still
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["loop"] == 0
        seen = 0
        for i in range(image.n_frames):
            image.seek(i)
            seen += image.info["duration"]
    assert seen == 600 + 400 + 1200


def test_what_stands_still_keeps_its_pixels_and_takes_no_room(tmp_path: Path) -> None:
    film = film_of(2, n_times=12, particles=0)
    still = AnimationData(
        film.times, film.points, np.repeat(film.density[:1], 12, axis=0), film.positions, film.labels, ("0", "1")
    )
    write_animation(tmp_path / "moving.gif", film, 10.0)
    write_animation(tmp_path / "still.gif", still, 10.0)
    first, *others = frames_of(tmp_path / "still.gif")
    assert len(others) == 11
    for frame in others:
        changed = np.argwhere((frame != first).any(axis=2))
        assert changed[:, 0].max() < 20  # the clock above the map
    assert (tmp_path / "still.gif").stat().st_size < 0.5 * (tmp_path / "moving.gif").stat().st_size


@pytest.mark.parametrize("rate", [1.0, 7.0, 15.0, 24.0, 50.0])
def test_time_does_not_drift(rate: float) -> None:
    found = durations(60, rate, 0, 0)
    assert abs(sum(found) - 60e3 / rate) <= 5.0
    assert {duration % 10 for duration in found} == {0}
    assert max(found) - min(found) <= 10


def test_pictures_have_the_nearest_colours_of_one_palette() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    indexed = shared_palette([frame], ["white", "#010203"])
    image = indexed(frame)
    colours = np.array(image.getpalette()).reshape(-1, 3)
    assert len(colours) <= 255
    assert [1, 2, 3] in colours.tolist()
    shown = np.asarray(image.convert("RGB")).astype(int)
    nearest = np.linalg.norm(frame[:, :, None].astype(int) - colours, axis=3).min(axis=2)
    # Looked up by six bits of each channel: the colour that they stand for is at most 3 away on each axis.
    assert np.all(np.linalg.norm(shown - frame, axis=2) <= nearest + 2 * 3 * 3**0.5)
    white = np.full_like(frame, 255)
    assert np.array_equal(np.asarray(indexed(white).convert("RGB")), white)


# -- maps ------------------------------------------------------------------------------------------------------------


def test_labels_have_colours_on_one_map_and_a_mixture_where_they_meet() -> None:
    film = film_of(2, particles=0)
    (figure, first), (_, last) = (drawn(film, i) for i in (0, 5))
    left, right = at(first, figure, -0.9, 0.0), at(first, figure, 0.9, 0.0)
    for found, colour in ((left, BLUE), (right, ORANGE)):
        ink, full = (oklab(rgb)[1:] for rgb in (found / 255.0, np.array(to_rgb(colour))))
        assert np.allclose(ink / np.linalg.norm(ink), full / np.linalg.norm(full), atol=0.1)
    assert np.all(at(last, figure, -0.9, 0.0) >= left)  # the density has halved
    assert np.all(at(first, figure, 0.0, 0.0) > 235)
    both = AnimationData(
        film.times, film.points, film.density + film.density[..., ::-1], film.positions, film.labels, ("0", "1")
    )
    figure, first = drawn(both)
    met = oklab(at(first, figure, -0.9, 0.0) / 255.0)
    each = [oklab(np.array(to_rgb(colour))) for colour in (BLUE, ORANGE)]
    assert np.allclose(met, np.mean(each, axis=0), atol=0.03)  # half of both, and not their shadow


def test_maps_are_the_right_way_up() -> None:
    film = film_of(2, n_labels=1, particles=0)
    rising = np.maximum(0.0, film.points[..., 0]) * (1.0 + film.points[..., 1])
    figure, frame = drawn(replace(film, density=np.repeat(rising[None, ..., None], 6, axis=0)))
    light = {(x, y): int(at(frame, figure, x, y).sum()) for x in (0.2, 0.8) for y in (-0.8, 0.8)}
    assert light[0.8, 0.8] < light[0.2, 0.8] < light[0.8, -0.8] < light[0.2, -0.8]


def test_walls_are_grey_and_the_hole_of_a_mesh_is_a_wall() -> None:
    film = film_of(2, particles=0)
    centres = film.points.mean(axis=1)
    kept = np.abs(centres).max(axis=1) > 0.34  # a square hole in the middle
    figure, frame = drawn(replace(film, points=film.points[kept], density=film.density[:, kept]))
    grey = np.rint(255 * np.array(to_rgb(WALL)))
    assert np.array_equal(at(frame, figure, 0.0, 0.1), grey)


def test_particles_are_where_they_are_and_draw_a_tail() -> None:
    film = film_of(2)
    panel = drawn(film, 3)[0].axes[0]
    for label, line in enumerate(panel.lines):
        assert np.allclose(np.column_stack(line.get_data()), film.positions[3, film.labels == label])
    tails = panel.collections[-1]
    assert isinstance(tails, LineCollection)
    assert np.allclose(np.stack(tails.get_segments()), film.positions[:4].swapaxes(0, 1))


def test_particles_alone_and_densities_alone() -> None:
    for dim in (1, 2):
        film = film_of(dim)
        figure, _ = drawn(replace(film, density=np.zeros_like(film.density)), 5)
        assert len(figure.axes) == 1  # no key, no curves
        drawn(film_of(dim, particles=0), 5)


def test_particles_that_fly_away_are_left_out() -> None:
    for dim in (1, 2):
        film = film_of(dim)
        film.positions[2:, 0] = np.inf
        film.positions[1:, 1] = np.nan
        drawn(film, 5)


def test_few_outliers_do_not_set_the_scale() -> None:
    points = cell_nodes(MPI.COMM_SELF, 2, 1, 1, n=20).points()
    film = film_of(2, n_labels=1, particles=0)
    film = replace(film, points=points, density=np.repeat(np.maximum(0.0, points[None, ..., :1]), 6, axis=0))
    spiky = film.density.copy()
    spiky[:, 7, 0] = 4.0
    texts = []
    for density in (film.density, spiky):
        figure, _ = drawn(replace(film, density=density))
        texts.append([tick.get_text() for tick in figure.axes[1].get_yticklabels()])
    assert "geq" in texts[1][-1]
    assert 0.9 < float(texts[1][-1].split("$")[-1]) < 2.0


@pytest.mark.parametrize("degree", [1, 2])
def test_three_dimensions_are_integrated_along_z(degree: int) -> None:
    film = film_of(3, degree=degree)
    pixels = np.stack(np.meshgrid([-0.7, 0.1, 0.9], [-0.3, 0.4], indexing="ij"), axis=-1)
    lines = LineIntegrals(film.points, pixels)
    assert lines.inside.all()
    height = np.ptp(film.points[..., 2])
    found = lines.integrals(film.density[0])
    for k, side in enumerate((-1.0, 1.0)):
        expected = 2.0 * np.maximum(0.0, side * pixels[..., 0]) * height
        # Between the nodes next to x = 0 the nodal interpolation of |x| is not |x|.
        assert np.allclose(found[[0, 2], :, k], expected[[0, 2]], rtol=1e-5, atol=1e-6)


def test_the_key_says_what_is_shown() -> None:
    assert "int" in drawn(film_of(3, n_times=2))[0].axes[1].get_ylabel()
    assert "int" not in drawn(film_of(2, n_times=2))[0].axes[1].get_ylabel()


# -- curves ----------------------------------------------------------------------------------------------------------


def test_curves_are_the_densities_and_lines_the_past() -> None:
    film = film_of(1)
    paths, curves = drawn(film, 4)[0].axes
    assert np.allclose(np.sort(curves.lines[1].get_ydata()), np.sort(film.density[4, :, :, 1].ravel()))
    segments = np.stack(paths.collections[0].get_segments())
    assert np.allclose(segments[:, :, 0], film.positions[:5, :, 0].T)
    assert np.allclose(segments[:, :, 1], film.times[:5])
    assert curves.get_ylim()[1] >= film.density.max()


def test_many_labels_have_colours_of_their_own() -> None:
    assert len(set(label_colours(12))) == 12
