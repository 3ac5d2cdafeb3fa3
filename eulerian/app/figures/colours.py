"""Colours of labels, of densities, and of places where the densities of several labels are.

Two labels of one ink each would darken each other to a brown that is in no legend. Here the hue is a mean of the
labels' colours, weighted with their densities, and the total density says how far it is from white. Both are linear in
OKLab, in which equal steps look equal (B. Ottosson 2020, "A perceptual color space for image processing").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, final

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap, PowerNorm, to_hex, to_rgb

from eulerian.base.arrays import Floats

# Okabe and Ito's palette, which colour-blind readers can distinguish.
PALETTE = BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)
WALL = "#e6e6e6"  # what is not part of the domain: holes and the outside
UNKNOWN = "#c4c4c4"  # where a density is not known
TIMES: Colormap = colormaps["viridis"]
DENSITY = LinearSegmentedColormap.from_list(
    "density", ["#ffffff", "#c3dcf2", "#82b4de", "#4583c4", "#2b4f9e", "#1d1f57"]
)
GAMMA = 0.5  # of densities' colours: what is thin stays visible
_PALE = 0.4  # depth of colour, from 0 to 1, that the peak of every panel must have on a common scale

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
    if count <= len(PALETTE):
        return list(PALETTE[:count])
    return [to_hex(shade) for shade in colormaps["turbo"](np.linspace(0.05, 0.95, count))]


def time_colour(t: float, horizon: float) -> tuple[float, float, float, float]:
    """Of curves at time t; the brightest yellow would not be seen on white."""
    return TIMES(0.93 * t / horizon)


def density_colours(share: Floats) -> Floats:
    """RGB (..., 3) of densities (..., K), relative to the one that gets a full colour; labels have theirs."""
    if share.shape[-1] == 1:
        return np.asarray(DENSITY(np.clip(share[..., 0], 0.0, 1.0) ** GAMMA)[..., :3])
    return mixed(share, label_colours(share.shape[-1]), GAMMA)


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


@final
@dataclass(frozen=True)
class DensityScale:
    """How panels turn densities into colours.

    A density that gathers grows by orders of magnitude, and on one scale its beginning would be white. So there is one
    scale only where the peak of every panel has a colour on it; else every panel has its own, and names its peak.

    Attributes:
        peaks: (n, K) density with the full colour, of every panel.
        common: whether it is the same for all panels.
    """

    peaks: Floats
    common: bool

    @classmethod
    def of(cls, density: Floats) -> Self:
        """For densities (n, ..., K) at n times; NaN where they are not known."""
        peaks = np.nan_to_num(np.nanmax(density, axis=tuple(range(1, density.ndim - 1)))).astype(float)
        filled = peaks[peaks > 0.0]
        common = not len(filled) or bool((filled.min() / filled.max()) ** GAMMA >= _PALE)
        if common:
            return cls(np.full(peaks.shape, filled.max() if len(filled) else 1.0), common)
        return cls(np.where(peaks > 0.0, peaks, 1.0), common)

    def norm(self, time: int, label: int) -> PowerNorm:
        """Of a panel that shows densities."""
        return PowerNorm(GAMMA, 0.0, float(self.peaks[time, label]))

    @property
    def bar_norm(self) -> PowerNorm:
        """Of the bar of colours: on scales of their own it shows densities relative to their panel's peak."""
        return self.norm(0, 0) if self.common else PowerNorm(GAMMA, 0.0, 1.0)

    def remark(self, time: int, label: int) -> str:
        """What a panel says of its own peak; nothing on a common scale."""
        return "" if self.common else rf"$\max\rho = {self.peaks[time, label]:.3g}$"
