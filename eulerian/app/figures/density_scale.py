"""Which density gets the full colour: one for all panels of a figure, or each panel's own."""

from dataclasses import dataclass
from typing import Self, final

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, PowerNorm

from eulerian.base.arrays import Floats

DENSITY_COLOURS = LinearSegmentedColormap.from_list(
    "density", ["#ffffff", "#c3dcf2", "#82b4de", "#4583c4", "#2b4f9e", "#1d1f57"]
)
GAMMA = 0.5  # of densities' colours: what is thin stays visible
_PALE = 0.4  # depth of colour, from 0 to 1, that the peak of every panel must have on a common scale


@final
@dataclass(frozen=True)
class DensityScale:
    """How panels turn densities into colours.

    A density that gathers grows by orders of magnitude, and on one scale its beginning would be white. So there is one
    scale only where the peak of every panel has a colour on it; else every panel has its own, and tells its peak.

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
    def share(self) -> PowerNorm:
        """Of densities relative to their panel's peak, for the bar of colours."""
        return PowerNorm(GAMMA, 0.0, 1.0)

    def title(self, unit: str) -> str:
        """What the bar of colours says.

        Args:
            unit: of the densities: "area", "length", ...
        """
        return rf"density $\rho$, mass per {unit}" if self.common else r"$\rho\,/\max\rho$ of each panel"

    def remark(self, time: int, label: int) -> str:
        """What a panel says of its own peak; nothing on a common scale."""
        return "" if self.common else rf"$\max\rho = {self.peaks[time, label]:.3g}$"
