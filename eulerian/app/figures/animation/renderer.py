"""Animated figures: what stands still is drawn once, what moves for every frame."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast, final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import NDArray

from eulerian.app.figures.animation.data import AnimationData
from eulerian.app.figures.label_colours import label_title

DPI = 100
LEFT, RIGHT, BELOW, ABOVE = 0.6, 0.3, 0.5, 0.35  # inches: around what is drawn

# Of Okabe and Ito's palette, told apart by colour-blind readers.
_LABELS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@final
@dataclass(frozen=True)
class Scene:
    """A figure with a method to show a frame.

    Attributes:
        figure: drawn on its own canvas.
        moving: what changes from frame to frame, from the back to the front.
        show: sets it to a frame.
    """

    figure: Figure
    moving: tuple[Artist, ...]
    show: Callable[[int], None]


@final
class Stage:
    """Turns a scene into pictures."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._canvas = cast(Any, FigureCanvasAgg(scene.figure))  # matplotlib leaves its canvases untyped
        for artist in scene.moving:
            artist.set_animated(True)
        self._canvas.draw()
        self._background = self._canvas.copy_from_bbox(scene.figure.bbox)

    def frame(self, index: int) -> NDArray[np.uint8]:
        """A picture (h, w, 3)."""
        self._canvas.restore_region(self._background)
        self._scene.show(index)
        for artist in self._scene.moving:
            self._scene.figure.draw_artist(artist)
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()


def spread(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` of ``count`` frames, the first and the last among them."""
    return [int(i) for i in np.unique(np.rint(np.linspace(0, count - 1, wanted)))]


def placed(figure: Figure, inches: tuple[float, float, float, float]) -> Axes:
    """Axes at left, below, width, height in inches."""
    width, height = figure.get_size_inches()
    return figure.add_axes((inches[0] / width, inches[1] / height, inches[2] / width, inches[3] / height))


def clock(figure: Figure) -> Text:
    """A place for the time, above what is drawn."""
    width, height = figure.get_size_inches()
    return figure.text(LEFT / width, 1.0 - 0.24 / height, "", family="monospace")


def time_text(film: AnimationData, index: int) -> str:
    """The time, with as many digits as frames need, so that they do not jump."""
    horizon = float(film.times[-1])
    digits = max(0, 2 - int(np.floor(np.log10(horizon)))) if horizon > 0.0 else 2
    return f"t = {film.times[index]:.{digits}f}"


def legend(figure: Figure, film: AnimationData, colours: list[str]) -> None:
    """Which colour is which label, in the line of the clock."""
    if len(film.names) < 2:
        return
    width, height = figure.get_size_inches()
    handles = [
        Line2D([], [], ls="", marker="o", ms=5, color=colour, label=label_title(name))
        for name, colour in zip(film.names, colours, strict=True)
    ]
    figure.legend(
        handles=handles,
        loc="upper right",
        bbox_to_anchor=(1.0 - RIGHT / 2 / width, 1.0 - 0.02 / height),
        ncols=min(len(handles), 5),
        handletextpad=0.1,
        columnspacing=1.0,
        borderpad=0.1,
    )
