"""Animated GIF files whose frames share one palette, so that colours do not flicker."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import KDTree

from eulerian.app.runs.files import write_atomically

type Pixels = NDArray[np.uint8]

_COLOURS = 255  # one of 256 is left for what does not change from frame to frame
_SAMPLES = 2**15  # pixels that median cut sees


@final
class Palette:
    """At most 255 colours, and the one of them that is nearest to any other.

    Args:
        frames: pictures (h, w, 3) that the colours are chosen for.
        exact: colours (e, 3) that must be among them as they are.
    """

    def __init__(self, frames: Sequence[Pixels], exact: Pixels) -> None:
        colours, counts = np.unique(np.concatenate([_packed(frame).ravel() for frame in frames]), return_counts=True)
        if len(colours) + len(exact) > _COLOURS:
            # The square root: large plain areas need no more colours than small ones with many shades.
            shares = np.sqrt(counts)
            repeated = np.maximum(1, np.round(shares / shares.sum() * _SAMPLES)).astype(int)
            strip = Image.fromarray(_unpacked(np.repeat(colours, repeated))[None])
            cut = strip.quantize(_COLOURS - len(exact), Image.Quantize.MEDIANCUT, kmeans=2)
            chosen = np.array(cut.getpalette(), dtype=np.uint8).reshape(-1, 3)[: _COLOURS - len(exact)]
        else:
            chosen = _unpacked(colours)
        self.colours: Pixels = np.unique(np.concatenate([exact, chosen]), axis=0)
        self._tree = KDTree(self.colours.astype(float))
        self._known = np.zeros(2**24, dtype=bool)
        self._nearest = np.zeros(2**24, dtype=np.uint8)

    def image(self, frame: Pixels) -> Image.Image:
        """A picture (h, w, 3) in these colours, without dithering: what stands still keeps its pixels."""
        packed = _packed(frame)
        new = np.unique(packed[~self._known[packed]])
        self._nearest[new] = self._tree.query(_unpacked(new).astype(float))[1]
        self._known[new] = True
        image = Image.fromarray(self._nearest[packed])  # of mode L
        image.putpalette(self.colours.tobytes())
        return image


def write_gif(path: Path, frames: Iterator[Image.Image], durations: Sequence[int]) -> None:
    """Write frames of one palette that run for ever; ``durations`` in ms, multiples of 10, one per frame."""
    first = next(frames)
    write_atomically(
        path,
        lambda file: first.save(
            file,
            format="GIF",
            save_all=True,
            append_images=frames,
            duration=list(durations),
            loop=0,
            optimize=True,
            disposal=1,
        ),
    )


def durations(count: int, rate: float, first: int, last: int) -> list[int]:
    """How long each frame is seen, in ms, at ``rate`` frames per second in hundredths of a second without drift.

    The first and the last frame stay longer by ``first`` and ``last`` ms.
    """
    ends = np.rint(100.0 / rate * np.arange(count + 1)).astype(int)
    result = 10 * np.diff(ends)
    result[0] += first
    result[-1] += last
    return [int(value) for value in result]


def _packed(frame: Pixels) -> NDArray[np.int32]:
    wide = frame.astype(np.int32)
    return np.asarray((wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2])


def _unpacked(colours: NDArray[np.int32]) -> Pixels:
    return np.stack([colours >> 16, (colours >> 8) & 255, colours & 255], axis=-1).astype(np.uint8)
