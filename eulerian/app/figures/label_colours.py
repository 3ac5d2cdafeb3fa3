"""Colours of labels, and colours of places where several labels are.

Two labels of one ink each would darken each other to a brown that is in no legend. Here the hue is a mean of the
labels' colours, weighted with their densities, and the total density says how far it is from white. Both are linear in
OKLab, in which equal steps look equal (B. Ottosson 2020, "A perceptual color space for image processing").
"""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb

from eulerian.base.arrays import Floats

# Okabe and Ito's palette, told apart by colour-blind readers.
_LABELS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_FROM_CONES, _FROM_LAB = np.linalg.inv(_TO_CONES), np.linalg.inv(_TO_LAB)


def label_colours(count: int) -> list[str]:
    """Colours of the labels."""
    if count <= len(_LABELS):
        return list(_LABELS[:count])
    return [to_hex(shade) for shade in colormaps["turbo"](np.linspace(0.05, 0.95, count))]


def label_title(name: str) -> str:
    """What a legend calls a label: a class by its name, else its number."""
    return f"label {name}" if name.isdecimal() else name.replace("$", r"\$")


def mixed(share: Floats, colours: Sequence[str], gamma: float = 1.0) -> Floats:
    """Colours of places by the densities of several labels there.

    Laws: no density is white, the full density of one label its own colour, and with densities in proportion the hue is
    the same wherever they are.

    Args:
        share: (..., K) densities, ≥ 0, relative to the one that gets a full colour.
        colours: K of them.
        gamma: exponent of the total density: below 1, what is thin stays visible.

    Returns:
        RGB (..., 3).
    """
    inks = oklab(np.array([to_rgb(colour) for colour in colours]))
    white = oklab(np.ones(3))
    share = np.maximum(share, 0.0)
    total = share.sum(axis=-1, keepdims=True)
    weights = np.divide(share, total, out=np.zeros_like(share), where=total > 0.0)
    depth = np.minimum(total, 1.0) ** gamma
    return srgb(white + depth * (weights @ inks - white * weights.sum(axis=-1, keepdims=True)))


def oklab(rgb: Floats) -> Floats:
    """Lightness and two opponent colours (..., 3) of sRGB colours (..., 3) from 0 to 1."""
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    return np.asarray(np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T)


def srgb(lab: Floats) -> Floats:
    """The inverse of ``oklab``; what no screen can show is cut off."""
    linear = np.clip((lab @ _FROM_LAB.T) ** 3 @ _FROM_CONES.T, 0.0, 1.0)
    return np.asarray(np.clip(np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear), 0, 1))
