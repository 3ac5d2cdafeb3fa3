"""Animations: what a frame shows, colours that do not flicker, and time that does not drift."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from moving_densities import cell_nodes
from PIL import Image

from eulerian.app.figures.animation import line as line_module
from eulerian.app.figures.animation import map as map_module
from eulerian.app.figures.animation.data import AnimationData, ProjectionFrames
from eulerian.app.figures.animation.line import line_scene
from eulerian.app.figures.animation.map import WALL, map_scene
from eulerian.app.figures.animation.palette import Palette, durations
from eulerian.app.figures.animation.renderer import Stage
from eulerian.app.figures.animation.write import write_animation
from eulerian.app.figures.label_colours import label_colours, oklab

pytestmark = pytest.mark.one_process

BLUE, ORANGE = label_colours(2)


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the pixels, and of the time."""
    for module in (line_module, map_module):
        monkeypatch.setattr(module, "DPI", 50)


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


def test_a_palette_has_the_nearest_of_its_colours() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    palette = Palette([frame], np.array([[255, 255, 255], [1, 2, 3]], dtype=np.uint8))
    assert len(palette.colours) <= 255
    assert [1, 2, 3] in palette.colours.tolist()
    shown = np.asarray(palette.image(frame).convert("RGB")).astype(int)
    distance = np.linalg.norm(frame[:, :, None].astype(int) - palette.colours.astype(int), axis=3).min(axis=2)
    assert np.allclose(np.linalg.norm(shown - frame, axis=2), distance)
    few = Palette([frame[:2, :4]], np.zeros((0, 3), dtype=np.uint8))
    assert np.array_equal(np.asarray(few.image(frame[:2, :4]).convert("RGB")), frame[:2, :4])


# -- maps ------------------------------------------------------------------------------------------------------------


def test_labels_have_colours_on_one_map_and_a_mixture_where_they_meet() -> None:
    film = film_of(2, particles=0)
    scene = map_scene(film)
    first, last = (Stage(scene).frame(i) for i in (0, 5))
    left, right = at(first, scene.figure, -0.9, 0.0), at(first, scene.figure, 0.9, 0.0)
    for found, colour in ((left, BLUE), (right, ORANGE)):
        ink, full = (oklab(rgb)[1:] for rgb in (found / 255.0, np.array(to_rgb(colour))))
        assert np.allclose(ink / np.linalg.norm(ink), full / np.linalg.norm(full), atol=0.1)
    assert np.all(at(last, scene.figure, -0.9, 0.0) >= left)  # the density has halved
    assert np.all(at(first, scene.figure, 0.0, 0.0) > 235)
    both = AnimationData(
        film.times, film.points, film.density + film.density[..., ::-1], film.positions, film.labels, ("0", "1")
    )
    scene = map_scene(both)
    met = oklab(at(Stage(scene).frame(0), scene.figure, -0.9, 0.0) / 255.0)
    each = [oklab(np.array(to_rgb(colour))) for colour in (BLUE, ORANGE)]
    assert np.allclose(met, np.mean(each, axis=0), atol=0.03)  # half of both, and not their shadow


def test_maps_are_the_right_way_up() -> None:
    film = film_of(2, n_labels=1, particles=0)
    rising = np.maximum(0.0, film.points[..., 0]) * (1.0 + film.points[..., 1])
    scene = map_scene(replace(film, density=np.repeat(rising[None, ..., None], 6, axis=0)))
    frame = Stage(scene).frame(0)
    light = {(x, y): int(at(frame, scene.figure, x, y).sum()) for x in (0.2, 0.8) for y in (-0.8, 0.8)}
    assert light[0.8, 0.8] < light[0.2, 0.8] < light[0.8, -0.8] < light[0.2, -0.8]


def test_walls_are_grey_and_the_hole_of_a_mesh_is_a_wall() -> None:
    film = film_of(2, particles=0)
    centres = film.points.mean(axis=1)
    kept = np.abs(centres).max(axis=1) > 0.34  # a square hole in the middle
    scene = map_scene(
        AnimationData(film.times, film.points[kept], film.density[:, kept], film.positions, film.labels, ("0", "1"))
    )
    grey = np.rint(255 * np.array(to_rgb(WALL)))
    assert np.array_equal(at(Stage(scene).frame(0), scene.figure, 0.0, 0.1), grey)


def test_particles_are_where_they_are_and_draw_a_tail() -> None:
    film = film_of(2)
    scene = map_scene(film)
    Stage(scene).frame(3)
    heads = [artist for artist in scene.moving if isinstance(artist, Line2D)]
    for label, line in enumerate(heads):
        assert np.allclose(np.column_stack(line.get_data()), film.positions[3, film.labels == label])
    tails = scene.moving[-4]
    assert isinstance(tails, LineCollection)
    assert np.allclose(np.stack(tails.get_segments()), film.positions[:4].swapaxes(0, 1))


def test_particles_alone_and_densities_alone() -> None:
    for dim in (1, 2):
        film = film_of(dim)
        nothing = np.zeros_like(film.density)
        scene = line_scene if dim == 1 else map_scene
        alone = scene(AnimationData(film.times, film.points, nothing, film.positions, film.labels, film.names))
        assert len(alone.figure.axes) == 1  # no key, no curves
        Stage(alone).frame(5)
        Stage(scene(film_of(dim, particles=0))).frame(5)


def test_particles_that_fly_away_are_left_out() -> None:
    for dim in (1, 2):
        film = film_of(dim)
        film.positions[2:, 0] = np.inf
        film.positions[1:, 1] = np.nan
        scene = line_scene(film) if dim == 1 else map_scene(film)
        Stage(scene).frame(5)


def test_few_outliers_do_not_set_the_scale() -> None:
    points = cell_nodes(MPI.COMM_SELF, 2, 1, 1, n=20).points()
    film = film_of(2, n_labels=1, particles=0)
    film = replace(film, points=points, density=np.repeat(np.maximum(0.0, points[None, ..., :1]), 6, axis=0))
    spiky = film.density.copy()
    spiky[:, 7, 0] = 4.0
    texts = []
    for density in (film.density, spiky):
        scene = map_scene(replace(film, density=density))
        Stage(scene)
        texts.append([tick.get_text() for tick in scene.figure.axes[1].get_yticklabels()])
    assert "geq" in texts[1][-1]
    assert 0.9 < float(texts[1][-1].split("$")[-1]) < 2.0


@pytest.mark.parametrize("degree", [1, 2])
def test_three_dimensions_are_integrated_along_z(degree: int) -> None:
    film = film_of(3, degree=degree)
    pixels = np.stack(np.meshgrid([-0.7, 0.1, 0.9], [-0.3, 0.4], indexing="ij"), axis=-1)
    sampler = ProjectionFrames(film, pixels)
    assert sampler.inside.all()
    height = np.ptp(film.points[..., 2])
    found = sampler.frame(0)
    for k, side in enumerate((-1.0, 1.0)):
        expected = 2.0 * np.maximum(0.0, side * pixels[..., 0]) * height
        # Between the nodes next to x = 0 the nodal interpolation of |x| is not |x|.
        assert np.allclose(found[[0, 2], :, k], expected[[0, 2]], rtol=1e-5, atol=1e-6)


def test_the_key_says_what_is_shown() -> None:
    assert "int" in map_scene(film_of(3, n_times=2)).figure.axes[1].get_ylabel()
    assert "int" not in map_scene(film_of(2, n_times=2)).figure.axes[1].get_ylabel()


# -- curves ----------------------------------------------------------------------------------------------------------


def test_curves_are_the_densities_and_lines_the_past() -> None:
    film = film_of(1)
    scene = line_scene(film)
    Stage(scene).frame(4)
    paths, curves = scene.figure.axes
    assert np.allclose(np.sort(curves.lines[1].get_ydata()), np.sort(film.density[4, :, :, 1].ravel()))
    segments = np.stack(paths.collections[0].get_segments())
    assert np.allclose(segments[:, :, 0], film.positions[:5, :, 0].T)
    assert np.allclose(segments[:, :, 1], film.times[:5])
    assert curves.get_ylim()[1] >= film.density.max()


def test_many_labels_have_colours_of_their_own() -> None:
    assert len(set(label_colours(12))) == 12
