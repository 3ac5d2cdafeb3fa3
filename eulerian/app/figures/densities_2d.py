"""2-D: densities and velocity at a few times, as maps with arrows."""

from typing import Any, final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eulerian.app.figures.density_scale import DENSITY_COLOURS, DensityScale
from eulerian.app.figures.map_panels import MapPanels, write_in_corner
from eulerian.app.figures.map_window import UNKNOWN, WALL, shown, visible_window
from eulerian.app.figures.target_marks import TargetMarks
from eulerian.app.figures.triangle_grid import TriangleGrid
from eulerian.app.figures.velocity_arrows import VelocityArrows
from eulerian.app.runs.exact_densities import ExactDensities
from eulerian.app.runs.pixel_grid import Box
from eulerian.app.runs.snapshots import Snapshots
from eulerian.app.runs.targets import Targets
from eulerian.base.arrays import Floats

_WIDE = 1.5  # times as wide as high
_SIDE = 2.0  # inches, the longer side of a map
_PIXELS, _PIXELS_ON_PAGE = 400, 500  # along it


def density_maps(
    snapshots: Snapshots, page: float | None = None, targets: Targets | None = None, exact: ExactDensities | None = None
) -> Figure:
    """2-D: one row per label, one column per time; one scale of arrows throughout, and of colours if none is pale.

    On a ``page``, whose width is given in inches, wide maps stand below each other: one row per time. Targets are drawn
    at the last time. ``exact`` densities take the place of the mesh's; they have the same times.
    """
    n_times, n_labels = len(snapshots.times), snapshots.density.shape[3]
    grid = TriangleGrid.build(snapshots.points)
    window = visible_window(snapshots, grid) if exact is None else exact.window
    limits = [shown(window, grid.box, axis) for axis in range(2)]
    extent = np.array([high - low for low, high in limits])
    upright = page is not None and extent[0] > _WIDE * extent[1]
    rows, columns = (n_times, n_labels) if upright else (n_labels, n_times)
    width, height = extent / extent.max() * _SIDE
    if page is not None:
        width, height = extent / extent[0] * min(MapPanels.width_on(page, columns), 3.0)
    panels = MapPanels.of(rows, columns, (float(width), float(height)))
    pictures = _Pictures(snapshots, grid, window, _PIXELS if page is None else _PIXELS_ON_PAGE, exact)
    arrows = VelocityArrows.build(snapshots, grid, window)
    marks = None if targets is None else TargetMarks(targets, pictures.lattice)
    for k, i in np.ndindex(n_labels, n_times):
        panel = (panels.axes.T if upright else panels.axes)[k, i]
        pictures.draw(panel, i, k)
        arrows.draw(panel, i, k)
        if marks is not None and i == n_times - 1:
            marks.draw(panel, k)
        _frame_panel(panel)
        panel.set(xlim=limits[0], ylim=limits[1])
    times = [f"$t = {t:.4g}$" for t in snapshots.times]
    labels = [f"label {k}" if n_labels > 1 else "" for k in range(n_labels)]
    _label_panels(panels.axes, *((times, labels) if upright else (labels, times)))
    panels.tell_colours(pictures.colours, pictures.scale.title("area"))
    speed = f"longest arrow: $|v| = {arrows.fastest:.4g}$" if arrows.fastest > 0.0 else ""
    aim = "" if marks is None else marks.remark
    panels.note(";  ".join(text for text in (pictures.remark, aim, speed) if text))
    return panels.figure


@final
class _Pictures:
    """Densities as pictures, with the domain around them.

    Args:
        snapshots: on the mesh.
        grid: its triangles.
        window: what is shown.
        pixels: along its longer side.
        exact: instead of the mesh's densities.
    """

    def __init__(
        self, snapshots: Snapshots, grid: TriangleGrid, window: Box, pixels: int, exact: ExactDensities | None
    ) -> None:
        self.lattice = window.lattice(pixels) if exact is None else exact.lattice
        self._located = grid.locate(self.lattice)
        self._snapshots, self._window = snapshots, window
        self._outline = list(grid.outline())
        self._exact = None if exact is None else exact.shown
        self.scale = DensityScale.of(snapshots.density if self._exact is None else self._exact)
        self.remark = "" if exact is None else exact.remark

    @property
    def colours(self) -> ScalarMappable:
        """For the bar of colours."""
        scale = self.scale
        return ScalarMappable(scale.norm(0, 0) if scale.common else scale.share, DENSITY_COLOURS)

    def values(self, time: int, label: int) -> Floats:
        """Densities (n_x, n_y); NaN outside the domain, and where they are not known."""
        if self._exact is not None:
            return np.where(self._located.cells >= 0, self._exact[time, :, :, label], np.nan)
        return self._located.interpolate(self._snapshots.density[time, :, :, label])

    def draw(self, panel: Axes, time: int, label: int) -> None:
        """Fill a panel."""
        values, window = self.values(time, label), self._window
        frame = (window.lower[0], window.upper[0], window.lower[1], window.upper[1])
        panel.set_facecolor(WALL)
        if self._exact is not None:
            unknown = np.isnan(values) & (self._located.cells >= 0)
            grey = np.zeros((*values.T.shape, 4))
            grey[unknown.T] = to_rgba(UNKNOWN)
            panel.imshow(grey, extent=frame, origin="lower")
        panel.imshow(values.T, extent=frame, origin="lower", cmap=DENSITY_COLOURS, norm=self.scale.norm(time, label))
        panel.add_collection(LineCollection(self._outline, colors="0.35", linewidths=0.7, capstyle="round"))
        write_in_corner(panel, self.scale.remark(time, label))


def _frame_panel(panel: Axes) -> None:
    panel.spines[:].set(visible=True, linewidth=0.5, color="0.8", in_layout=False)  # the axes have their size
    panel.tick_params(length=2, labelsize="small")
    panel.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    panel.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def _label_panels(axes: Any, rows: list[str], columns: list[str]) -> None:
    """Names where they are not a repetition: of columns above, of rows on the left, coordinates left and below."""
    for panel, name in zip(axes[0], columns, strict=True):
        panel.set_title(name)
    for panel, name in zip(axes[:, 0], rows, strict=True):
        panel.set_ylabel(f"{name}\n$y$" if name else "$y$")
    for panel in axes[-1]:
        panel.set_xlabel("$x$")
