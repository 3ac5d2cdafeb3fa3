"""Figures of the idealised problem: paths over the densities that they carry, and the closing duality gap."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from eulerian.app.figures.densities_1d import on_line, sorted_line
from eulerian.app.figures.density_scale import DENSITY_COLOURS
from eulerian.app.figures.label_colours import mixed
from eulerian.app.figures.map_window import FAINT, MARGIN, WALL, padded, visible_window
from eulerian.app.figures.triangle_grid import TriangleGrid
from eulerian.app.runs.snapshots import Snapshots
from eulerian.base.arrays import Floats
from eulerian.base.npz import read_arrays
from eulerian.ideal.problem import PathBundle

# Of Okabe and Ito's palette.
_FIRST, _LAST, _RESIDUAL = "#0072B2", "#D55E00", "#009E73"
_PASSING = LinearSegmentedColormap.from_list("passing", [_FIRST, "#3a3a3a", _LAST])
_PIXELS = 600  # along the longer side of a map, and along a line
_GAMMA = 0.6  # of densities' colours: tails stay visible


def load_paths(file: Path) -> PathBundle:
    """Read ``trajectories.npz``, which has the arrays of a ``PathBundle``.

    Raises:
        InputError: it is missing or not such a file.
    """
    return PathBundle(**read_arrays(file, PathBundle._fields, "trajectories"))


def trajectory_lines(snapshots: Snapshots, paths: PathBundle) -> Figure:
    """1-D: the density over space and time with the paths on it, between the initial and the final density."""
    x, order = sorted_line(snapshots.points)
    density = on_line(snapshots.density, order)
    n_labels, horizon = density.shape[2], float(snapshots.times[-1])
    left, right = _reach(x, density)
    pixels = np.linspace(left, right, _PIXELS)
    norm = PowerNorm(_GAMMA, 0.0, float(density.max()))
    figure = Figure(
        figsize=(1.4 + 3.6 * max(n_labels, 1.35), 4.8), layout=ConstrainedLayoutEngine(h_pad=0.0, hspace=0.0)
    )
    axes: Any = figure.subplots(3, n_labels, sharex=True, sharey="row", squeeze=False, height_ratios=(1, 4, 1))
    for k in range(n_labels):
        above, middle, below = axes[:, k]
        for panel, row, colour, name in ((above, -1, _LAST, "T"), (below, 0, _FIRST, "0")):
            panel.fill_between(x, density[row, :, k], color=colour, alpha=0.25, lw=0.0)
            panel.plot(x, density[row, :, k], color=colour, lw=1.2)
            panel.set(yticks=[], ylim=(0.0, 1.1 * density[row].max() or 1.0))
            panel.spines["left"].set_visible(False)
            panel.tick_params(bottom=panel is below)
            if k == 0:
                panel.set_ylabel(rf"$\rho({name})$", rotation=0, ha="right", va="center", color=colour)
        shades = np.stack([np.interp(pixels, x, row) for row in density[:, :, k]])
        image = middle.pcolormesh(
            pixels, snapshots.times, shades, cmap=DENSITY_COLOURS, norm=norm, shading="gouraud", rasterized=True
        )
        for path in paths.paths[paths.labels == k]:
            middle.plot(path[:, 0], paths.times, color=_LAST, lw=0.7)
        middle.set(xlim=(left, right), ylim=(0.0, horizon))
        middle.tick_params(bottom=False)
        above.set_title(f"label {k}" if n_labels > 1 else "")
        below.set_xlabel("$x$")
    axes[1, 0].set_ylabel("time $t$")
    bar = figure.colorbar(image, ax=axes[1, -1], fraction=0.05, aspect=24, pad=0.02)
    bar.set_label(r"density $\rho$, mass per length")
    bar.outline.set_linewidth(0.4)
    return figure


def _reach(x: Floats, density: Floats) -> tuple[float, float]:
    """The part of a line that has mass at some time, with a margin, for densities (n, m, K) at points x (m,)."""
    filled = x[np.any(density > FAINT * density.max(axis=1, keepdims=True), axis=(0, 2))]
    if not len(filled):
        return float(x[0]), float(x[-1])
    margin = MARGIN * float(filled[-1] - filled[0])
    return max(float(x[0]), float(filled[0]) - margin), min(float(x[-1]), float(filled[-1]) + margin)


def trajectory_map(snapshots: Snapshots, paths: PathBundle) -> Figure:
    """2-D: per label one map of the initial density, the final density and the paths between them."""
    n_labels = snapshots.density.shape[3]
    window = visible_window(snapshots, TriangleGrid.build(snapshots.points))
    width, height = window.size / window.size.max() * (6.0 if n_labels == 1 else 4.2)
    figure = Figure(figsize=(width * n_labels + 0.7, height + 0.8), layout="compressed")
    axes: Any = figure.subplots(1, n_labels, sharex=True, sharey=True, squeeze=False)
    for k, panel in enumerate(axes[0]):
        draw_transport(panel, snapshots, paths, k)
        panel.set_title(f"label {k}" if n_labels > 1 else "")
        panel.set_xlabel("$x$")
    axes[0, 0].set_ylabel("$y$")
    handles = [
        Patch(color=colour, alpha=0.7, lw=0, label=_scale_title(snapshots, row))
        for colour, row in ((_FIRST, 0), (_LAST, -1))
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, handlelength=1.0, handleheight=1.0)
    return figure


def _scale_title(snapshots: Snapshots, row: int) -> str:
    """Which density a colour is, and how high it is where the colour is full, label by label."""
    peaks = ", ".join(f"{peak:.3g}" for peak in snapshots.density[row].max(axis=(0, 1)))
    return rf"$\rho(t = {snapshots.times[row]:.4g})$, full colour: {peaks} per area"


def draw_transport(axes: Axes, snapshots: Snapshots, paths: PathBundle, label: int = 0, *, whole: bool = False) -> None:
    """One map: the initial density blue, the final one orange, each on a scale of its own, and paths between them.

    What is not part of the domain is grey. The map shows where there is mass, or the ``whole`` domain.
    """
    grid = TriangleGrid.build(snapshots.points)
    window = grid.box if whole else visible_window(snapshots, grid)
    located = grid.locate(window.lattice(_PIXELS))
    inside = located.cells >= 0
    ends = [snapshots.density[row, :, :, label] for row in (0, -1)]
    shares = [np.where(inside, located.interpolate(values) / (values.max() or 1.0), 0.0) for values in ends]
    ink = mixed(np.stack(shares, axis=-1), (_FIRST, _LAST), _GAMMA)
    axes.set_facecolor(WALL)
    ground = PolyCollection(list(grid.corners), facecolors="white", edgecolors="white", linewidths=0.3)
    ground.set_rasterized(True)  # in a vector figure thousands of triangles would show their seams
    axes.add_collection(ground)
    axes.imshow(
        np.concatenate([ink, inside[..., None]], axis=2).swapaxes(0, 1),
        extent=(window.lower[0], window.upper[0], window.lower[1], window.upper[1]),
        origin="lower",
        zorder=1.5,
    )
    axes.add_collection(LineCollection(list(grid.outline()), colors="0.25", linewidths=0.9, zorder=2, capstyle="round"))
    chosen = paths.paths[paths.labels == label]
    pieces = np.stack([chosen[:, :-1], chosen[:, 1:]], axis=2)
    lines = LineCollection(
        list(pieces.reshape(-1, 2, 2)), cmap=_PASSING, linewidths=0.7, alpha=0.9, zorder=3, capstyle="round"
    )
    lines.set_array(np.tile(0.5 * (paths.times[:-1] + paths.times[1:]), len(chosen)))
    axes.add_collection(lines)
    axes.scatter(chosen[:, 0, 0], chosen[:, 0, 1], s=4, color=_FIRST, lw=0, zorder=4)
    axes.scatter(chosen[:, -1, 0], chosen[:, -1, 1], s=7, color=_LAST, ec="white", lw=0.3, zorder=4)
    axes.spines[:].set(visible=True, linewidth=0.5, color="0.8")
    axes.tick_params(length=2, labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set(xlim=padded(window, 0), ylim=padded(window, 1), aspect="equal")


def gap_curves(rows: dict[str, Floats]) -> Figure:
    """Primal and dual value coming together, and the residual, over the iterations.

    A gap has only what is the cost of a flow; until then the primal value is an estimate, which may lie on either side.
    """
    figure = Figure(figsize=(7.0, 2.8), layout="constrained")
    left: Axes
    right: Axes
    left, right = figure.subplots(1, 2)
    iteration, primal, dual, gap = (rows[name] for name in ("iteration", "primal", "dual", "relative_gap"))
    flows = np.isfinite(gap)
    if not flows.all():
        left.plot(iteration, primal, ":", color=_LAST, lw=1.2, label="estimate: not yet a flow")
    left.plot(iteration[flows], primal[flows], "o-", color=_LAST, ms=4, lw=1.4, label="primal: cost of a flow")
    left.plot(iteration, dual, color=_FIRST, lw=1.4, label="dual: lower bound")
    left.set(xlabel="iteration", ylabel="$J$", ylim=_interesting(primal, dual))
    left.legend()
    right.plot(iteration, rows["residual"], color=_RESIDUAL, lw=1.2, label="residual")
    right.plot(iteration[flows], np.abs(gap[flows]), "o-", color="black", ms=4, lw=1.2, label="relative gap, certified")
    right.set(xlabel="iteration", yscale="log")
    right.grid(which="major", color="0.9")
    right.legend()
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.margins(x=0.02)
    return figure


def _interesting(primal: Floats, dual: Floats) -> tuple[float, float]:
    """Limits of J that leave out the first records, far off as they are."""
    later = np.concatenate([primal[len(primal) // 6 :], dual[len(dual) // 6 :]])
    later = later[np.isfinite(later)] if np.isfinite(later).any() else np.zeros(1)
    low, high = float(later.min()), float(later.max())
    room = 0.1 * (high - low) or 1e-3 * abs(high) or 1.0
    return low - room, high + room
