"""An animation of a run as a GIF file."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from eulerian.app.figures.animation.data import AnimationData
from eulerian.app.figures.animation.line import line_scene
from eulerian.app.figures.animation.map import map_scene
from eulerian.app.figures.animation.palette import Palette, durations, write_gif
from eulerian.app.figures.animation.renderer import Stage, spread
from eulerian.app.figures.label_colours import label_colours
from eulerian.app.figures.map_window import WALL
from eulerian.app.figures.style import drawing

_SAMPLED = 8  # frames that the palette is made from
_FIRST, _LAST = 400, 1200  # ms that the first and the last frame are seen longer


def write_animation(path: Path, film: AnimationData, rate: float) -> None:
    """Draw all frames of a film and write them at ``rate`` frames per second. Not collective: for one rank.

    Raises:
        OSError: the file cannot be written.
    """
    with drawing():
        stage = Stage(line_scene(film) if film.dim == 1 else map_scene(film))
        count = len(film.times)
        exact = ["white", "black", WALL, *label_colours(len(film.names))]
        rgb = np.rint(255 * np.array([to_rgb(colour) for colour in exact])).astype(np.uint8)
        palette = Palette([stage.frame(i) for i in spread(count, _SAMPLED)], rgb)

        def frames() -> Iterator[Image.Image]:
            for i in range(count):
                yield palette.image(stage.frame(i))

        write_gif(path, frames(), durations(count, rate, _FIRST, _LAST))
