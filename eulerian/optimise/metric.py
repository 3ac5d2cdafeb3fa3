"""The inner product of parameters in which a descent is a steepest descent, by a variable in which it is Euclidean."""

from dataclasses import dataclass, field, replace
from typing import final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.control.reduced import ReducedProblem
from eulerian.fields.frame import ParameterUnits

# Added to the metric on its diagonal, relative to its trace: parameters that move no mass must not run away, and mass
# must not go straight for the nearest wall. With 1e-3 networks got caught on the near side of a corridor, with 1e-2
# and more never; from 1e-1 on most of the metric's advantage is gone.
DAMPING = 2e-2

# Eigenvalues below this share of the damping change nothing, and their eigenvectors may not be orthogonal.
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
    """An inner product of parameters, by the variable x = S R ϑ in which it is Euclidean.

    ϑ is θ in units of the domain's box, R acts on every row of θ by a ``LowRankScaling``, S is diagonal.

    Attributes:
        scaling: (n_params,), the diagonal of S; constant along a row of θ.
        rows: R, one matrix per row of θ; empty for the identity.
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
        """dJ/dx of dJ/dθ, both (n_params,)."""
        return self._rowwise(self.units.gradient(gradient), undo=True) / self.scaling

    def times(self, unit: float) -> "Metric":
        """The same inner product with lengths ``unit`` times as large."""
        return replace(self, scaling=self.scaling * unit)

    def norm(self, gradient: Floats) -> float:
        """The norm of dJ/dx, for a gradient dJ/dθ (n_params,)."""
        return float(np.linalg.norm(self.gradient(gradient)))

    def _rowwise(self, flat: Floats, *, undo: bool) -> Floats:
        if not self.rows:
            return flat
        size = sum(row.directions.shape[0] for row in self.rows)
        parts = np.split(flat[:size], len(self.rows))
        scaled = [row.undo(part) if undo else row.apply(part) for row, part in zip(self.rows, parts, strict=True)]
        return np.concatenate([*scaled, flat[size:]])  # behind the rows: a trained readout


def low_rank_scaling(rows: Floats, damping: float) -> LowRankScaling:
    """The root of AᵀA/damping + I for the rows A (m, p).

    Args:
        rows: A.
        damping: added to AᵀA on its diagonal, positive.
    """
    # Of AAᵀ and AᵀA the smaller one: both have the same positive eigenvalues.
    if len(rows) < rows.shape[1]:
        values, left = np.linalg.eigh(rows @ rows.T)
        kept = values > _NEGLIGIBLE * damping
        values, directions = values[kept], (rows.T @ left[:, kept]) / np.sqrt(values[kept])
    else:
        values, directions = np.linalg.eigh(rows.T @ rows)
    # Rounding may leave eigenvalues just below zero.
    return LowRankScaling(np.ascontiguousarray(directions), np.sqrt(np.maximum(values, 0.0) / damping + 1.0))


def velocity_metric(problem: ReducedProblem) -> Metric | None:
    """The inner product ∫∫ |δv|² dμ dt of changes δθ, v being linearised at the last evaluation, plus a little |δθ|².

    Near a minimum the second derivative of J is much like it, because J is a smooth functional of the velocity where
    the mass is, while equally large changes of different parameters may change the velocity very unequally. In this
    metric steepest descent is the natural gradient (Amari 1998, doi:10.1162/089976698300017746). **Collective**.

    Returns:
        None where the problem has no ``velocity_matrices``.
    """
    matrices = problem.velocity_matrices()
    if matrices is None:
        return None
    comm, count = problem.comm, problem.layer_shape[0]
    # The mean over rows: then the damping does not depend on the number of layers.
    trace = comm.allreduce(sum(float(np.sum(matrix**2)) for matrix in matrices.values())) / count
    if not 0.0 < trace < np.inf:
        return None
    scalings = {row: low_rank_scaling(matrix, DAMPING * trace) for row, matrix in matrices.items()}
    gathered = {row: scaling for part in comm.allgather(scalings) for row, scaling in part.items()}
    return Metric(problem.scaling, tuple(gathered[row] for row in range(count)), problem.units)
