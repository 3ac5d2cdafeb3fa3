"""Pictures as densities: dark is dense."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats
from eulerian.base.errors import EulerianWarning, InputError
from eulerian.base.quasirandom import even_points
from eulerian.density.shape import Shape

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# Kinds that Pillow decodes by itself; others are handed to other programs, or are no pictures of points.
_PICTURES = ("PNG", "JPEG", "GIF", "TIFF", "BMP", "PPM", "WEBP")
_MOST_PIXELS = 2**25  # 5800 × 5800, finer than any mesh that fits into memory
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a tag of TIFF
_PALE = 0.5  # of the darkest part: where all of a picture is darker, its values do not reach from black to white


@dataclass(frozen=True, init=False)
class Image(Shape):
    """A picture on a rectangle of the plane, bilinear between the centres of its pixels.

    Args:
        array: (rows from the top, columns) ≥ 0, the density of each pixel.
        lower: (2,) lower left corner.
        upper: (2,) upper right corner.

    Raises:
        InputError: the array has not two axes, or the corners do not make a rectangle.
    """

    darkness: Floats
    lower: Floats
    upper: Floats
    mass: ClassVar[None] = None

    def __init__(self, array: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> None:
        darkness = np.asarray(array, dtype=np.float64)
        low, high = (np.asarray(corner, dtype=np.float64) for corner in (lower, upper))
        if darkness.ndim != 2 or low.shape != (2,) or high.shape != (2,) or not np.all(low < high):
            what = f"an array of shape {darkness.shape} from {low.tolist()} to {high.tolist()} is no picture"
            raise InputError(what, key="Image", remedy="Give an array (rows, columns) and two corners (2,).")
        for name, value in (("darkness", darkness), ("lower", low), ("upper", high)):
            object.__setattr__(self, name, value)

    @property
    def dim(self) -> int:
        """Two."""
        return 2

    @property
    def scale(self) -> float:
        """The size of a pixel."""
        return float(((self.upper - self.lower) / self.darkness.shape[::-1]).min())

    def values(self, x: Floats) -> Floats:
        """Values (n,) at points x (n, 2)."""
        rows, columns = self.darkness.shape
        unit = (x - self.lower) / (self.upper - self.lower)
        across = np.clip(unit[:, 0] * columns - 0.5, 0, columns - 1)
        down = np.clip((1 - unit[:, 1]) * rows - 0.5, 0, rows - 1)
        j, i = across.astype(np.int64), down.astype(np.int64)
        right, below = np.minimum(j + 1, columns - 1), np.minimum(i + 1, rows - 1)
        s, t = across - j, down - i
        upper = (1 - s) * self.darkness[i, j] + s * self.darkness[i, right]
        lower = (1 - s) * self.darkness[below, j] + s * self.darkness[below, right]
        inside = np.all((unit >= 0) & (unit <= 1), axis=1)
        return np.where(inside, (1 - t) * upper + t * lower, 0.0)

    def equal_mass_points(self, count: int) -> Floats:
        """Points (count, 2) of equal mass, each in a pixel; none of a white picture."""
        mass = np.cumsum(np.maximum(self.darkness, 0.0))
        if not mass[-1] > 0:
            return np.empty((0, 2))
        pixels = np.searchsorted(mass, (np.arange(count) + 0.5) * (mass[-1] / count))
        down, across = np.divmod(np.minimum(pixels, len(mass) - 1), self.darkness.shape[1])
        rest = even_points(count, 2)
        unit = np.column_stack([across + rest[:, 0], self.darkness.shape[0] - down - rest[:, 1]])
        return np.asarray(self.lower + unit / self.darkness.shape[::-1] * (self.upper - self.lower))


def read_darkness(path: Path, key: str) -> Floats:
    """Read a picture as darkness from 0 (white or transparent) to 1 (black), (rows, columns), the way up it is shown.

    White is the largest number that its kind of integers can hold; floating-point numbers and integers of 32 bits have
    no white of their own: there it is the largest value of the picture. A warning says so where it may not be meant.
    Not collective: call it on one rank.

    Raises:
        InputError: the file is missing or not a picture, or holds what is no number.
    """
    from PIL import ImageOps

    try:
        with warnings.catch_warnings(), _opened(path, key) as picture:
            warnings.simplefilter("ignore")
            # A camera notes how it was held; TIFF does so in a tag that Pillow obeys by itself.
            upright = ImageOps.exif_transpose(picture)
            white_is_zero = getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
            if upright.mode[0] in "IF":  # more than 8 bits of grey
                darkness, remark = _fine_darkness(upright, white_is_zero)
            else:
                darkness = _coarse_darkness(upright)
                remark = _contrast(darkness, 255)
    except InputError:
        raise
    except Exception as error:  # a broken picture may make its decoder raise anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        remedy = f"Give a complete picture: {', '.join(_PICTURES)}."
        raise InputError(f"cannot read the picture: {reason}", key=key, value=str(path), remedy=remedy) from error
    if not np.all(np.isfinite(darkness)):
        raise InputError("the picture holds NaN or infinity", key=key, value=str(path), remedy="Give it numbers there.")
    if remark:
        warnings.warn(f"{key}: {remark}", EulerianWarning, stacklevel=2)
    return darkness


def _coarse_darkness(picture: "Picture") -> Floats:
    """Of a picture of 8 bits for each colour."""
    from PIL import Image as Pillow

    if picture.mode == "LAB":
        return 1 - np.asarray(picture.getchannel("L"), dtype=np.float64) / 255
    colour = picture.convert("RGBA")
    paper = Pillow.new("RGBA", colour.size, "white")
    return 1 - np.asarray(Pillow.alpha_composite(paper, colour).convert("L"), dtype=np.float64) / 255


def _fine_darkness(picture: "Picture", white_is_zero: bool) -> tuple[Floats, str]:
    """Of a picture of more than 8 bits of grey; and what there is to say about it."""
    grey = np.asarray(picture, dtype=np.float64)
    if "16" in picture.mode:
        darkness = grey / 65535 if white_is_zero else 1 - grey / 65535
        if isinstance(transparent := picture.info.get("transparency"), int):
            darkness = np.where(grey == transparent, 0.0, darkness)
        return darkness, _contrast(darkness, 65535)
    low, high = min(float(grey.min()), 0.0), float(grey.max())
    scaled = np.zeros_like(grey) if high <= low else (grey - low) / (high - low)
    darkness = scaled if white_is_zero else 1 - scaled
    if (low, high) == (0.0, 1.0):
        return darkness, ""
    ends = ("white", "black") if white_is_zero else ("black", "white")
    remark = f"the picture's kind of numbers has no {ends[1]} of its own: it is scaled so that {low:.6g} is {ends[0]}"
    return darkness, f"{remark} and {high:.6g}, its largest value, {ends[1]}. Scale it to 0..1 if that is not meant."


def _contrast(darkness: Floats, white: int) -> str:
    """What there is to say about a picture that uses a small part of its range, and is nowhere near white."""
    low, high = float(darkness.min()), float(darkness.max())
    if not _PALE * high < low < high:
        return ""
    values = f"{(1 - high) * white:.0f} to {(1 - low) * white:.0f}"
    return (
        f"the picture's values go from {values} only, but it is scaled so that 0 is black and {white} is white: its "
        f"lightest parts are {100 * low / high:.3g} % as dense as its darkest. Stretch its values if that is not meant."
    )


@contextmanager
def _opened(path: Path, key: str) -> Iterator["Picture"]:
    """A picture of which no more than the header has been read.

    Raises:
        InputError: its pixels are more than memory can hold, or than a picture of a density needs.
    """
    from PIL import Image as Pillow

    # Not by its name: Pillow would map an uncompressed TIFF into memory, and then mistakes rows for columns where the
    # picture is to be turned.
    with path.open("rb") as file:
        with Pillow.open(file, formats=_PICTURES) as whole:
            whole.verify()  # a decoder may be content with less than all
        file.seek(0)
        with Pillow.open(file, formats=_PICTURES) as picture:
            rows, columns = picture.size[::-1]
            if rows * columns > _MOST_PIXELS:
                what = f"has {columns} × {rows} pixels, more than {_MOST_PIXELS:.2g}"
                raise InputError(what, key=key, value=str(path), remedy="Make the picture smaller.")
            yield picture
