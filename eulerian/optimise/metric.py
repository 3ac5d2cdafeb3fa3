"""How long a change of θ is: the inner product in which a descent goes downhill."""

from dataclasses import dataclass, field, replace
from typing import final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.fields.frame import ParameterUnits

# Eigenvalues below this share of the damping stretch nothing, and their eigenvectors may not be orthogonal.
_NEGLIGIBLE = 1e-4


@final
@dataclass(frozen=True)
class LowRankScaling:
    """A symmetric matrix I + V (diag(factors) − I) Vᵀ and its inverse, V with orthonormal columns.

    Attributes:
        directions: V (p, k).
        factors: (k,), positive.
    """

    directions: Floats
    factors: Floats

    def apply(self, z: Floats) -> Floats:
        """To a vector (p,)."""
        return np.asarray(z + self.directions @ ((self.factors - 1.0) * (z @ self.directions)))

    def undo(self, z: Floats) -> Floats:
        """The inverse, to a vector (p,)."""
        return np.asarray(z + self.directions @ ((1.0 / self.factors - 1.0) * (z @ self.directions)))


@final
@dataclass(frozen=True)
class Metric:
    """An inner product of parameters by a variable x = C⁻¹ϑ in which it is Euclidean; C is symmetric in every row.

    ϑ is θ in units of the domain's box.

    Attributes:
        scaling: (n_params,), x over ϑ before any stretching; the same along a row of θ.
        rows: for every row of θ what stretches it, or none.
        units: from θ to ϑ.
    """

    scaling: Floats
    rows: tuple[LowRankScaling, ...] = ()
    units: ParameterUnits = field(default_factory=ParameterUnits)

    def variable(self, theta: Floats) -> Floats:
        """The variable x of θ, both (n_params,)."""
        return self._rowwise(self.units.relative(theta), undo=False) * self.scaling

    def theta(self, x: Floats) -> Floats:
        """The θ of a variable x, both (n_params,)."""
        return self.units.absolute(self._rowwise(x, undo=True) / self.scaling)

    def gradient(self, gradient: Floats) -> Floats:
        """The derivative by x of the one by θ, both (n_params,)."""
        return self._rowwise(self.units.gradient(gradient), undo=True) / self.scaling

    def times(self, unit: float) -> "Metric":
        """The same inner product in another unit."""
        return replace(self, scaling=self.scaling * unit)

    def norm(self, gradient: Floats) -> float:
        """Length of a gradient dJ/dθ."""
        return float(np.linalg.norm(self.gradient(gradient)))

    def _rowwise(self, flat: Floats, *, undo: bool) -> Floats:
        if not self.rows:
            return flat
        size = sum(row.directions.shape[0] for row in self.rows)
        parts = np.split(flat[:size], len(self.rows))
        stretched = [row.undo(part) if undo else row.apply(part) for row, part in zip(self.rows, parts, strict=True)]
        return np.concatenate([*stretched, flat[size:]])


def low_rank_scaling(rows: Floats, damping: float) -> LowRankScaling:
    """The root of AᵀA/damping + I for the rows A (m, p).

    Args:
        rows: A.
        damping: added to AᵀA on its diagonal, positive.
    """
    if len(rows) < rows.shape[1]:
        values, left = np.linalg.eigh(rows @ rows.T)
        kept = values > _NEGLIGIBLE * damping
        values, directions = values[kept], (rows.T @ left[:, kept]) / np.sqrt(values[kept])
    else:
        values, directions = np.linalg.eigh(rows.T @ rows)
    return LowRankScaling(np.ascontiguousarray(directions), np.sqrt(np.maximum(values, 0.0) / damping + 1.0))
