"""3-D: densities at a few times, integrated along z and along y; labels in one picture, each with its colour."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from eulerian.app.figures.density_scale import DENSITY_COLOURS, GAMMA, DensityScale
from eulerian.app.figures.label_colours import label_colours, mixed
from eulerian.app.figures.map_panels import MapPanels, write_in_corner
from eulerian.app.figures.map_window import MARGIN, WALL
from eulerian.app.runs.projections import Projections
from eulerian.app.runs.targets import Targets
from eulerian.base.arrays import Floats

_SIDE = 2.0  # inches, the longer side of a panel
_FAINT = 3e-3  # where integrals stay below this fraction of their maximum pictures end


def sight_maps(sights: Projections, targets: Targets | None = None) -> Figure:
    """One column per time, with targets at the last; above what is seen along z, below what is seen along y."""
    n_labels, n_times = sights.above.shape[3], len(sights.times)
    lower, upper = _visible(sights)
    sizes = (upper - lower) / (upper - lower).max() * _SIDE
    panels = MapPanels.of(2, n_times, (float(sizes[0]), float(max(sizes[1], sizes[2]))), share="row")
    colours = label_colours(n_labels)
    highest = [density.sum(axis=3).max(axis=(1, 2)) for density in (sights.above, sights.side)]
    scale = DensityScale.of(np.stack(highest, axis=1)[:, None])
    rows = ((sights.above, sights.above_inside, 1), (sights.side, sights.side_inside, 2))
    for (row, (density, inside, axis)), i in ((each, i) for each in enumerate(rows) for i in range(n_times)):
        panel = panels.axes[row, i]
        share = density[i] / scale.peaks[i, row]
        if n_labels == 1:
            shades = DENSITY_COLOURS(np.clip(share[..., 0], 0.0, 1.0) ** GAMMA)[..., :3]
        else:
            shades = mixed(share, colours, GAMMA)
        picture = np.concatenate([shades, inside[..., None]], axis=2).swapaxes(0, 1)
        whole = (sights.lower[0], sights.upper[0], sights.lower[axis], sights.upper[axis])
        panel.imshow(picture, extent=whole, origin="lower", interpolation="bilinear")
        _frame(panel, lower[[0, axis]], upper[[0, axis]])
        write_in_corner(panel, scale.remark(i, row).replace(r"\max\rho", r"\max"))
        if targets is not None and i == n_times - 1:
            points = targets.points[:, [0, axis]]
            panel.scatter(*points.T, marker="x", s=28, c=_marks(len(points), colours), linewidths=1.3, zorder=4)
    _name(panels.axes, sights)
    first = DENSITY_COLOURS if n_labels == 1 else LinearSegmentedColormap.from_list("total", ["white", "0.35"])
    unit = r"$\int\rho$ along a line, mass per area"
    title = unit if scale.common else "share of each panel's maximum"
    panels.tell_colours(ScalarMappable(scale.norm(0, 0) if scale.common else scale.share, first), title)
    if n_labels > 1:
        handles = [Patch(color=colour, lw=0, label=f"label {k}") for k, colour in enumerate(colours)]
        panels.figure.legend(handles=handles, loc="lower left", ncols=min(n_labels, 6), handlelength=1.0)
    return panels.figure


def _marks(count: int, colours: list[str]) -> list[str]:
    """Colours of targets: of their labels, if every label has one."""
    return ["black"] if count == 1 else colours[:count]


def _visible(sights: Projections) -> tuple[Floats, Floats]:
    """The part of the box that has mass at some time, with a margin."""
    lower, upper = sights.lower.copy(), sights.upper.copy()
    for axis, rows, along in ((0, sights.above, 1), (1, sights.above, 2), (2, sights.side, 2)):
        total = rows.sum(axis=3)
        relative = total / np.maximum(total.max(axis=(1, 2), keepdims=True), 1e-300)
        filled = np.flatnonzero((relative > _FAINT).any(axis=(0, 3 - along)))
        if len(filled):
            size = (sights.upper[axis] - sights.lower[axis]) / total.shape[along]
            margin = MARGIN * float((sights.upper - sights.lower).max())
            lower[axis] = max(sights.lower[axis], sights.lower[axis] + filled[0] * size - margin)
            upper[axis] = min(sights.upper[axis], sights.lower[axis] + (filled[-1] + 1) * size + margin)
    return lower, upper


def _frame(panel: Axes, lower: Floats, upper: Floats) -> None:
    panel.set_facecolor(WALL)
    panel.spines[:].set(visible=True, linewidth=0.5, color="0.8", in_layout=False)
    panel.tick_params(length=2, labelsize="small")
    panel.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    panel.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    panel.set(xlim=(lower[0], upper[0]), ylim=(lower[1], upper[1]))


def _name(axes: Any, sights: Projections) -> None:
    """Names where they are not a repetition."""
    for panel, t in zip(axes[0], sights.times, strict=True):
        panel.set_title(f"$t = {t:.4g}$")
    axes[0, 0].set_ylabel("along $z$\n$y$")
    axes[1, 0].set_ylabel("along $y$\n$z$")
    for row in axes:
        for panel in row[1:]:
            panel.tick_params(labelleft=False)
    for panel in axes[-1]:
        panel.set_xlabel("$x$")
