"""2-D: densities and velocity at a few times, as maps with arrows."""

from dataclasses import dataclass
from typing import Self, final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from eulerian.app.figures.colours import DENSITY, UNKNOWN, DensityScale
from eulerian.app.figures.labels import panel_titles, time_title
from eulerian.app.figures.maps import (
    MapPanels,
    axis_limits,
    draw_picture,
    draw_walls,
    frame_map,
    visible_window,
    write_in_corner,
)
from eulerian.app.figures.target_marks import TargetMarks
from eulerian.app.runs.pixel_grid import Box
from eulerian.app.runs.snapshots import ExactDensities, Snapshots
from eulerian.app.runs.targets import Targets
from eulerian.app.runs.triangles import Triangles
from eulerian.base.arrays import Floats

_WIDE = 1.5  # times as wide as high
_SIDE = 2.0  # inches, the longer side of a map
_PIXELS, _PIXELS_ON_PAGE = 400, 500  # along it
_EMPTY = 1e-2  # where ρ is below this fraction of its maximum there is no arrow: nothing there feels it
_ARROWS = 10  # along the side of a square map; maps of other shapes have as many


def density_maps(
    snapshots: Snapshots, page: float | None = None, targets: Targets | None = None, exact: ExactDensities | None = None
) -> Figure:
    """2-D: one row per label, one column per time; one scale of arrows throughout, and of colours if none is pale.

    On a ``page``, whose width is given in inches, wide maps stand below each other: one row per time. Targets are drawn
    at the last time. ``exact`` densities take the place of the mesh's; they have the same times.
    """
    n_times, n_labels = len(snapshots.times), snapshots.density.shape[3]
    triangles = Triangles.of_nodes(snapshots.points)
    window = visible_window(snapshots.density, triangles.corners) if exact is None else exact.window
    size = np.array([np.ptp(axis_limits(window, triangles.box, axis)) for axis in range(2)])
    upright = page is not None and size[0] > _WIDE * size[1]
    rows, columns = (n_times, n_labels) if upright else (n_labels, n_times)
    width, height = size / size.max() * _SIDE
    if page is not None:
        width, height = size / size[0] * min(MapPanels.width_on(page, columns), 3.0)
    panels = MapPanels.of(float(width), [float(height)] * rows, columns)
    pictures = _Pictures(snapshots, triangles, window, _PIXELS if page is None else _PIXELS_ON_PAGE, exact)
    arrows = _Arrows.build(snapshots, triangles, window)
    marks = None if targets is None else TargetMarks(targets, pictures.pixels)
    for k, i in np.ndindex(n_labels, n_times):
        panel = (panels.axes.T if upright else panels.axes)[k, i]
        pictures.draw(panel, i, k)
        arrows.draw(panel, i, k)
        if marks is not None and i == n_times - 1:
            marks.draw(panel, k)
        frame_map(panel, window, triangles.box)
    names = panel_titles(n_labels), [time_title(t) for t in snapshots.times]
    row_names, column_names = names[::-1] if upright else names
    panels.name_axes([f"{name}\n$y$" if name else "$y$" for name in row_names], column_names)
    panels.add_colour_bar(pictures.colours, pictures.title)
    panels.note(";  ".join(filter(None, (pictures.remark, "" if marks is None else marks.remark, arrows.remark))))
    return panels.figure


@final
class _Pictures:
    """Densities as pictures, with the domain around them.

    Args:
        snapshots: on the mesh.
        triangles: of the mesh.
        window: what is shown.
        pixels: along its longer side.
        exact: instead of the mesh's densities.
    """

    def __init__(
        self, snapshots: Snapshots, triangles: Triangles, window: Box, pixels: int, exact: ExactDensities | None
    ) -> None:
        self.pixels = window.pixels(pixels) if exact is None else exact.pixels
        self._located = triangles.locate(self.pixels)
        self._snapshots, self._window = snapshots, window
        self._outline = triangles.outline()
        self._exact = None if exact is None else exact.shown
        self._scale = DensityScale.of(snapshots.density if self._exact is None else self._exact)
        self.remark = "" if exact is None else exact.remark

    @property
    def colours(self) -> ScalarMappable:
        """For the bar of colours."""
        return ScalarMappable(self._scale.bar_norm, DENSITY)

    @property
    def title(self) -> str:
        """Of the bar."""
        return r"density $\rho$, mass per area" if self._scale.common else r"$\rho\,/\max\rho$ of each panel"

    def draw(self, panel: Axes, time: int, label: int) -> None:
        """Fill a panel."""
        if self._exact is None:
            values = self._located.interpolate(self._snapshots.density[time, :, :, label])
        else:
            values = np.where(self._located.inside, self._exact[time, :, :, label], np.nan)
            unknown = np.isnan(values) & self._located.inside
            draw_picture(panel, self._window, np.broadcast_to(to_rgb(UNKNOWN), (*unknown.shape, 3)), unknown)
        norm = self._scale.norm(time, label)
        panel.imshow(values.T, extent=self._window.extent, origin="lower", cmap=DENSITY, norm=norm)
        draw_walls(panel, self._outline)
        write_in_corner(panel, self._scale.remark(time, label))


@final
@dataclass(frozen=True)
class _Arrows:
    """Arrows of the velocity where there is mass: few and thin, for the densities are to be seen through them.

    Attributes:
        position: (a, 2).
        vectors: (n, a, K, 2), NaN where there is no mass.
        fastest: largest length of a vector.
        length: of its arrow, in the units of the domain.
    """

    position: Floats
    vectors: Floats
    fastest: float
    length: float

    @classmethod
    def build(cls, snapshots: Snapshots, triangles: Triangles, window: Box) -> Self:
        """Those of the snapshots in a window of their mesh."""
        spacing = float(np.sqrt(window.size.prod())) / _ARROWS
        places = window.pixels(round(float(window.size.max()) / spacing)).reshape(-1, 2)
        located = triangles.locate(places)
        n_times, n_labels = len(snapshots.times), snapshots.density.shape[3]
        vectors = np.full((n_times, len(places), n_labels, 2), np.nan)
        for i, k in np.ndindex(n_times, n_labels):
            density = located.interpolate(snapshots.density[i, :, :, k])
            velocity = snapshots.velocity[i, :, :, min(k, snapshots.velocity.shape[3] - 1)]
            mass = density > _EMPTY * snapshots.density[i].max()  # False outside the domain, where both are NaN
            vectors[i, :, k] = np.where(mass[:, None], located.interpolate_labels(velocity), np.nan)
        lengths = np.linalg.norm(vectors, axis=-1)
        fastest = float(np.max(lengths, initial=0.0, where=np.isfinite(lengths)))
        return cls(places, vectors, fastest, 1.2 * spacing)

    @property
    def remark(self) -> str:
        """How long they are."""
        return f"longest arrow: $|v| = {self.fastest:.4g}$" if self.fastest > 0.0 else ""

    def draw(self, panel: Axes, time: int, label: int) -> None:
        """Draw those of a panel."""
        vectors = self.vectors[time, :, label]
        shown = np.isfinite(vectors[:, 0])
        if self.fastest > 0.0 and shown.any():
            panel.quiver(
                *self.position[shown].T,
                *vectors[shown].T,
                angles="xy",
                scale_units="xy",
                scale=self.fastest / self.length,
                width=0.0032,
                headwidth=4.0,
                color="0.1",
                alpha=0.55,
                zorder=3,
            )
