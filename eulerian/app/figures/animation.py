"""An animation of a run as a GIF file whose frames share one palette, so that colours do not flicker."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import KDTree

from eulerian.app.figures.animation_figure import AnimationData, animated_figure
from eulerian.app.figures.colours import WALL, label_colours
from eulerian.app.figures.style import drawing
from eulerian.app.runs.files import write_atomically

type Pixels = NDArray[np.uint8]

_SAMPLED = 8  # frames that the palette is made from
_COLOURS = 255  # one of 256 is left for what does not change from frame to frame
_BITS = 6  # of each channel that the nearest colour is looked up by: nobody sees the other two
_FIRST, _LAST = 400, 1200  # ms that the first and the last frame are seen longer


def write_animation(path: Path, data: AnimationData, rate: float) -> None:
    """Draw all frames and write them at ``rate`` frames per second. Not collective: for one rank.

    Raises:
        ComputationError: the file cannot be written.
    """
    count = len(data.times)
    with drawing():
        figure, show = animated_figure(data)
        canvas: Any = FigureCanvasAgg(figure)

        def frame(index: int) -> Pixels:
            show(index)
            canvas.draw()
            return np.asarray(canvas.buffer_rgba())[..., :3].copy()

        sampled = np.unique(np.rint(np.linspace(0, count - 1, _SAMPLED)).astype(int))
        exact = ["white", "black", WALL, *label_colours(len(data.names))]
        indexed = shared_palette([frame(i) for i in sampled], exact)
        images = (indexed(frame(i)) for i in range(count))  # drawn one by one, as the file is written
        first, seen = next(images), durations(count, rate, _FIRST, _LAST)
        options: dict[str, Any] = {"duration": seen, "loop": 0, "optimize": True, "disposal": 1}
        write_atomically(
            path, lambda file: first.save(file, format="GIF", save_all=True, append_images=images, **options)
        )


def shared_palette(frames: Sequence[Pixels], exact: Sequence[str]) -> Callable[[Pixels], Image.Image]:
    """What puts pictures (h, w, 3) into 255 colours, chosen for some ``frames`` by median cut, ``exact`` ones as given.

    Matplotlib's and Pillow's writers choose colours for each frame anew: they flicker, and files are twice as large.
    """
    kept = np.rint(255 * np.array([to_rgb(colour) for colour in exact])).astype(np.uint8)
    cut = Image.fromarray(np.concatenate(frames)).quantize(_COLOURS - len(kept), Image.Quantize.MEDIANCUT)
    chosen = np.array(cut.getpalette(), dtype=np.uint8).reshape(-1, 3)[: _COLOURS - len(kept)]
    colours = np.concatenate([kept, chosen])
    leading = np.arange(2**_BITS)
    channel = (leading << (8 - _BITS)) | (leading >> (2 * _BITS - 8))  # from 0 to 255: white stays white
    every = np.stack(np.meshgrid(channel, channel, channel, indexing="ij"), axis=-1)
    nearest = KDTree(colours.astype(float)).query(every)[1].astype(np.uint8)

    def indexed(frame: Pixels) -> Image.Image:
        red, green, blue = np.moveaxis(frame >> (8 - _BITS), -1, 0)
        image = Image.fromarray(nearest[red, green, blue])  # without dithering: what stands still keeps its pixels
        image.putpalette(colours.tobytes())
        return image

    return indexed


def durations(count: int, rate: float, first: int, last: int) -> list[int]:
    """How long each frame is seen, in ms: hundredths of a second without drift, the ends longer by so many ms."""
    ends = np.rint(100.0 / rate * np.arange(count + 1)).astype(int)
    result = 10 * np.diff(ends)
    result[0] += first
    result[-1] += last
    return [int(value) for value in result]
