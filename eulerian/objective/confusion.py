"""Confusion matrices: how much of what belongs to one label is taken for another."""

from dataclasses import dataclass
from typing import Self, final

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats


@final
@dataclass(frozen=True)
class Classification:
    """Masses by label and by assigned region.

    Attributes:
        confusion: (K, K), [y, z] = ∫ρ_y over the region assigned to label z.
        total: (K,) mass of each label; more than the row's sum where a part is assigned to no label.
    """

    confusion: Floats
    total: Floats

    @property
    def accuracy(self) -> float:
        """Share of all mass that lies in the region of its own label."""
        return float(np.trace(self.confusion) / self.total.sum())

    @property
    def correct(self) -> Floats:
        """Share of each label's mass in its own region, (K,); NaN for a label without mass."""
        return np.asarray(np.diag(self.confusion) / np.where(self.total > 0.0, self.total, np.nan))

    @classmethod
    def of_points(cls, labels: NDArray[np.integer], assigned: NDArray[np.integer], n_labels: int) -> Self:
        """Numbers of points by their own label and the one that they are assigned, (n,) each; -1 is no label."""
        confusion = np.zeros((n_labels, n_labels))
        rows = assigned >= 0
        np.add.at(confusion, (labels[rows], assigned[rows]), 1.0)
        return cls(confusion, np.bincount(labels, minlength=n_labels).astype(float))
