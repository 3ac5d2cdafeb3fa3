"""What figures show: colours of mixtures, scales, targets, classes, how far J is above its bound, projections."""

from mpi4py import MPI

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from moving_densities import cell_nodes, gathered, linear_samples

from eulerian.app.build.network import build
from eulerian.app.config import parse_config
from eulerian.app.figures.classification import class_figure
from eulerian.app.figures.colours import WALL, DensityScale, label_colours, mixed, oklab, srgb
from eulerian.app.figures.densities_2d import density_maps
from eulerian.app.figures.densities_3d import projection_maps
from eulerian.app.figures.history import ReferenceValues, history_curves
from eulerian.app.figures.particles import within
from eulerian.app.figures.target_marks import TargetMarks, between_regions
from eulerian.app.runs.class_regions import ClassifiedPoints, ClassRegions
from eulerian.app.runs.files import HISTORY_COLUMNS
from eulerian.app.runs.pixel_grid import Box
from eulerian.app.runs.projections import ProjectionGathering
from eulerian.app.runs.snapshots import Snapshots
from eulerian.app.runs.targets import Targets
from eulerian.objective.losses import CrossEntropyLoss, QuadraticLoss

TIMES = [0.0, 0.5, 1.0]


# -- colours ---------------------------------------------------------------------------------------------------------


@pytest.mark.one_process
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_mixtures_of_labels_are_legible(count: int) -> None:
    colours = label_colours(count)
    each = np.array([to_rgb(colour) for colour in colours])
    assert np.allclose(srgb(oklab(each)), each, atol=1e-6)
    assert np.allclose(mixed(np.zeros(count), colours), 1.0, atol=1e-6)
    assert np.allclose(mixed(np.eye(count), colours), each, atol=1e-6)
    share = np.random.default_rng(0).dirichlet(np.ones(count), 200)
    lightness = oklab(mixed(share, colours))[:, 0]
    own = oklab(each)[:, 0]
    assert own.min() - 0.02 < lightness.min()  # labels do not darken each other
    assert lightness.max() < own.max() + 0.02
    thin = oklab(mixed(0.3 * share, colours)) - oklab(np.ones(3))
    full = oklab(mixed(share, colours)) - oklab(np.ones(3))
    assert np.allclose(thin, 0.3 * full, atol=0.02)  # the same hue, nearer to white


@pytest.mark.one_process
@pytest.mark.parametrize(("growth", "common"), [(1.0, True), (5.0, True), (10.0, False), (60.0, False)])
def test_no_scale_whitens_the_first_panel(growth: float, common: bool) -> None:
    density = np.ones((3, 4, 3, 2)) * np.array([1.0, growth**0.5, growth])[:, None, None, None]
    scale = DensityScale.of(density)
    assert scale.common is common
    for i, k in np.ndindex(3, 2):
        assert scale.norm(i, k)(float(density[i, ..., k].max())) >= 0.4
        assert (scale.remark(i, k) == "") is common
    if not common:
        assert f"{growth:.3g}" in scale.remark(2, 0)


# -- targets ---------------------------------------------------------------------------------------------------------


@pytest.mark.two_ranks
def test_targets_are_the_loss_s_and_are_drawn_at_the_end(comm: MPI.Comm) -> None:
    nodes = cell_nodes(comm, 2, 1, 2)
    two = QuadraticLoss(np.array([[0.3, 0.2], [-0.4, 0.1]]), 1.0)
    targets = Targets.gather(nodes, two, None, np.zeros(0))
    snapshots = gathered(nodes, linear_samples(nodes, TIMES))
    ((_, rho, _),) = linear_samples(nodes, [0.5])
    aims = Targets.gather(nodes, None, rho, np.zeros(0))
    if targets is None or aims is None or snapshots is None:
        assert comm.rank > 0
        return
    figure = density_maps(snapshots, targets=targets)
    panels = [axes for axes in figure.axes if axes.images]
    for number, panel in enumerate(panels):
        crosses = [c for c in panel.collections if len(c.get_offsets()) == 1 and c.get_zorder() == 4]
        k, i = divmod(number, 3)
        assert len(crosses) == (i == 2)
        if crosses:
            assert np.allclose(crosses[0].get_offsets(), two.targets[k])
        assert np.allclose(panel.get_facecolor()[:3], to_rgb(WALL))  # holes and the outside
    assert not len(targets.nodes)
    assert aims.density.shape == (32, 3, 2)
    assert np.allclose(aims.density[..., 1], 3.0 + 0.5 * aims.nodes[..., 0], atol=1e-6)
    assert r"\rho^*" in TargetMarks(aims, np.zeros((2, 2, 2))).remark


@pytest.mark.one_process
def test_lines_between_regions_are_where_two_losses_are_least() -> None:
    angles = np.array([0.0, 2.0, 4.0]) * np.pi / 3
    loss = CrossEntropyLoss(np.stack([np.cos(angles), np.sin(angles)], axis=1), np.zeros(3), trained=False)
    around = np.linspace(0.0, 2.0 * np.pi, 721)
    losses = loss.value(np.stack([np.cos(around), np.sin(around)], axis=1), np.zeros(0))
    roots = []
    for edge in between_regions(losses):
        close = np.flatnonzero(np.abs(edge) < 1e-9)
        roots += np.degrees(around[close]).tolist()
    assert np.allclose(sorted(set(np.round(roots))), [60.0, 180.0, 300.0])


# -- classes ---------------------------------------------------------------------------------------------------------


def still(labels: int, **objective: object) -> dict:
    """A flow that moves nothing."""
    return {
        "domain": {"box": {"lower": [-1.0, -1.0], "upper": [1.0, 1.0], "cells": [8, 8]}},
        "density": {
            "initial": [
                {"kind": "uniform", "lower": [-1.0, -1.0], "upper": [0.5 + k, 1.0], "label": k} for k in range(labels)
            ]
        },
        "field": {"kind": "linear", "features": "affine", "layers": 2},
        "objective": {"kinetic": 1.0, "terminal": objective},
    }


def test_regions_and_confusion_of_a_flow_that_rests(comm: MPI.Comm) -> None:
    """The line x = 0.25 divides the classes; uniform densities know how much of each is on either side."""
    table = still(2, kind="logistic", direction=[2.0, 0.0], offset=-0.5)
    config = parse_config(table)
    problem = build(config, comm)
    theta = np.zeros(problem.n_params)
    problem.value(theta)
    found = ClassRegions.measure(problem, theta, config.density.initial)
    assert found is not None
    assert found.regions.shape == (200, 200)
    x = -1.0 + (np.arange(200) + 0.5) / 100
    assert np.array_equal(found.regions, np.broadcast_to((x > 0.25)[:, None], (200, 200)))
    # Label 0 fills [-1, 0.5]: 1/6 of it is on the right. Label 1 fills all: 5/8 of it is on the left. The rule of the
    # mesh knows the line: it lies between cells.
    np.testing.assert_allclose(found.mass, 0.5 * np.array([[5 / 6, 1 / 6], [5 / 8, 3 / 8]]), atol=1e-6)
    assert not len(found.x)


@pytest.mark.one_process
def test_confusion_counts_points() -> None:
    rng = np.random.default_rng(0)
    labels, assigned = rng.integers(0, 3, 50), rng.integers(-1, 3, 50)
    points = ClassifiedPoints(rng.uniform(-1, 1, (50, 2)), labels, assigned)
    found = points.confusion(3)
    for y, z in np.ndindex(3, 3):
        assert found.confusion[y, z] == sum((labels == y) & (assigned == z))
    assert found.total.sum() == 50
    names, box = np.array(["a", "b", "c"]), (np.full(2, -1.0), np.full(2, 1.0))
    regions = np.zeros((20, 20), dtype=int)
    classes = ClassRegions(names, *box, regions, np.eye(3) / 3, points.x, labels, assigned)
    nodes = cell_nodes(MPI.COMM_SELF, 2, 1, 3)
    snapshots = gathered(nodes, linear_samples(nodes, TIMES))
    figure = class_figure(classes, snapshots, points)
    figure.canvas.draw()
    assert len(figure.axes) == 4
    cells = [text.get_text().split("\n")[0] for text in figure.axes[2].texts]
    assert cells == [f"{value:.0f}" for value in found.confusion.ravel()]
    assert len(class_figure(classes, None, None).axes) == 2  # no map in other dimensions


# -- history ---------------------------------------------------------------------------------------------------------


def rows() -> dict[str, np.ndarray]:
    table = {name: np.zeros(4) for name in HISTORY_COLUMNS}
    unknown = {"verified": np.full(4, np.nan), "gradient_norm": np.ones(4)}
    return table | unknown | {"iteration": np.arange(4.0), "total": np.array([2.0, 1.1, 1.01, 0.99])}


@pytest.mark.one_process
def test_the_history_tells_how_far_the_bound_is() -> None:
    known = ReferenceValues.of({"certificate": {"ideal": 1.0}, "verified": {"objective": {"total": 1.02}}})
    figure = history_curves(rows(), known)
    figure.canvas.draw()
    left, gap, _ = figure.axes
    assert gap.get_yscale() == "log"
    np.testing.assert_allclose(gap.lines[0].get_ydata(), [1.0, 0.1, 0.01, np.nan], atol=1e-12)
    assert gap.lines[1].get_ydata()[0] == pytest.approx(0.02)
    assert "1 of 4" in gap.get_title()
    marker = next(line for line in left.lines if line.get_label() == "true $J$")
    assert np.array_equal(marker.get_xydata(), [[3.0, 1.02]])


@pytest.mark.one_process
def test_the_history_shows_the_true_j_where_it_was_asked_for() -> None:
    document = {"verified": {"objective": {"total": 1.02}}, "certificate": {"ideal": 1.0}, "stop": {"kept": 1}}
    figure = history_curves(rows() | {"verified": np.array([2.1, 1.02, np.nan, 1.05])}, ReferenceValues.of(document))
    figure.canvas.draw()
    for axes, values in zip(figure.axes, ([2.1, 1.02, np.nan, 1.05], [1.1, 0.02, np.nan, 0.05]), strict=False):
        marks = next(line for line in axes.lines if line.get_label() == "true $J$ on the way")
        np.testing.assert_allclose(marks.get_ydata(), values)
        assert (marks.get_marker(), marks.get_linestyle()) == ("o", "None")
        assert "true $J$ on the way" in [text.get_text() for text in axes.get_legend().get_texts()]
    kept = next(line for line in figure.axes[0].lines if line.get_label() == "true $J$, kept")
    assert np.array_equal(kept.get_xydata(), [[1.0, 1.02]])


@pytest.mark.one_process
@pytest.mark.parametrize(
    "result",
    [{}, {"certificate": None, "verified": None}, {"certificate": {"ideal": None}}, {"certificate": [], "verified": 1}],
)
def test_the_history_says_nothing_of_what_is_not_known(result: dict) -> None:
    known = ReferenceValues.of(result)
    assert known == ReferenceValues()
    assert len(history_curves(rows(), known).axes) == 2


@pytest.mark.one_process
@pytest.mark.parametrize(
    ("total", "scale"),
    [
        ([2.0, 1.1, 1.01, 0.99], "linear"),
        ([150.0, 4.0, 0.5, 0.3], "symlog"),
        ([-150.0, 4.0, 0.5, -0.3], "symlog"),
        ([1.0, 0.5, 0.1, 0.0], "linear"),
        ([np.nan] * 4, "linear"),
    ],
)
def test_where_j_falls_by_much_its_axis_is_logarithmic(total: list[float], scale: str) -> None:
    figure = history_curves(rows() | {"total": np.array(total), "kinetic": np.array([0.0, 0.3, 0.2, 0.2])})
    figure.canvas.draw()
    left = figure.axes[0]
    assert left.get_yscale() == scale
    if scale == "symlog":
        assert len(left.yaxis.get_ticklabels()) >= 4


# -- three dimensions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [1, 2])
def test_projections_on_any_number_of_ranks(comm: MPI.Comm, degree: int) -> None:
    """2 + k + t x over a cube with sides of length 2."""
    nodes = cell_nodes(comm, 3, degree, 2, n=3)
    gathering = ProjectionGathering(nodes)
    for sample in linear_samples(nodes, TIMES):
        gathering.add(*sample)
    found = gathering.gathered()
    if found is None:
        assert comm.rank > 0
        return
    assert found.above.shape == found.side.shape == (3, 64, 64, 2)
    x = -1.0 + 2.0 * (np.arange(64) + 0.5) / 64
    for i, t in enumerate(TIMES):
        for k in range(2):
            expected = 2.0 * (2.0 + k + t * x)
            for integrals in (found.above, found.side):
                np.testing.assert_allclose(
                    integrals[i, :, :, k], np.broadcast_to(expected[:, None], (64, 64)), rtol=1e-5
                )
    figure = projection_maps(found)
    figure.canvas.draw()
    assert sum(bool(axes.images) for axes in figure.axes) == 6


@pytest.mark.one_process
def test_holes_are_grey_in_maps() -> None:
    """A square whose upper right quarter is missing."""
    squares = [(0, 0), (1, 0), (0, 1)]
    corners = [[[x, y], [x + 1, y], [x + 1, y + 1]] for x, y in squares]
    corners += [[[x, y], [x, y + 1], [x + 1, y + 1]] for x, y in squares]
    points = np.array(corners, dtype=float)
    density = np.ones((2, 6, 3, 1))
    snapshots = Snapshots(np.array([0.0, 1.0]), points, density, np.zeros((2, 6, 3, 1, 2)))
    figure = density_maps(snapshots)
    panel = figure.axes[0]
    values = panel.images[0].get_array()
    assert np.ma.getmaskarray(values)[-10:, -10:].all()  # nothing there hides the grey of the panel
    assert not np.ma.getmaskarray(values)[:190, :190].any()
    assert np.allclose(panel.get_facecolor()[:3], to_rgb(WALL))


@pytest.mark.one_process
def test_particles_know_holes_by_the_outline() -> None:
    """A square with a square hole, its edges in any order and direction."""

    def square(half: float) -> np.ndarray:
        corners = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        return np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)

    outline = np.concatenate([square(1.0), square(0.4)[::-1, ::-1]])
    outline = outline[np.random.default_rng(0).permutation(8)]
    pixels = Box(np.full(2, -1.5), np.full(2, 1.5)).pixels(60)
    far = np.abs(pixels).max(axis=2)
    assert np.array_equal(within(outline, pixels), (far < 1.0) & (far > 0.4))
