"""Weighted particles that represent a density."""

from dataclasses import dataclass
from typing import Self, final

from mpi4py import MPI

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.parallel import agreed, sum_all

_MASS_TOLERANCE = 1e-9


@final
@dataclass(frozen=True, eq=False)
class ParticleSample:
    """Weighted particles of a density ρ_y, y = 1..K: this rank's share, a contiguous piece of all of them.

    Attributes:
        x: (n, dim) positions.
        labels: (n,) from 0 to K−1.
        weights: (n,) ≥ 0, over all ranks of sum 1.
        log_density: (n,) log ρ_y(x) with the particle's own label y; None where unknown.
        replicate: (n,) the set that a particle belongs to; the sets are independent of one another.
        independent: the particles themselves are independent draws; those of a low-discrepancy set are not.
    """

    x: Floats
    labels: NDArray[np.integer]
    weights: Floats
    log_density: Floats | None
    replicate: NDArray[np.integer]
    independent: bool = True

    @classmethod
    def of(
        cls,
        points: ArrayLike,
        comm: MPI.Comm,
        labels: ArrayLike | None = None,
        log_density: ArrayLike | None = None,
        replicates: int = 16,
    ) -> Self:
        """This rank's share of points of equal weight. Not collective, but every rank gives the same points.

        Args:
            points: (n, dim) of all particles, independent draws from ρ₀.
            comm: who shares them.
            labels: (n,) theirs; 0 by default.
            log_density: (n,) log ρ_y there, which the relative entropy needs.
            replicates: sets that they are dealt out to, like cards.

        Raises:
            InputError: the points are not n rows of numbers.
        """
        x = np.asarray(points, dtype=np.float64)
        if x.ndim != 2 or not x.size:
            raise InputError(f"an array of shape {x.shape}", key="sample.x", remedy="Give points (n, dim).")
        n, own = len(x), share(len(x), comm)
        classes = np.zeros(n, dtype=np.int64) if labels is None else np.asarray(labels)
        known = None if log_density is None else np.asarray(log_density, dtype=np.float64)[own]
        replicate = np.arange(own.start, own.stop) % min(replicates, n)
        mine = np.ascontiguousarray(x[own])
        return cls(mine, classes[own], np.full(len(mine), 1.0 / n), known, replicate)

    def count_labels(self, comm: MPI.Comm) -> int:
        """One more than the largest label. **Collective**."""
        return 1 + int(comm.allreduce(int(self.labels.max(initial=0)), MPI.MAX))

    def box(self, comm: MPI.Comm) -> Floats:
        """(2, dim) corners of the bounding box of all particles. **Collective**."""
        # One reduction for both: the minimum is minus the maximum of −x.
        corners = np.stack([-self.x.min(axis=0, initial=np.inf), self.x.max(axis=0, initial=-np.inf)])
        comm.Allreduce(MPI.IN_PLACE, corners, MPI.MAX)
        return corners * [[-1.0], [1.0]]

    @property
    def dim(self) -> int:
        """Space dimension."""
        return int(self.x.shape[1])

    def check(self, comm: MPI.Comm, n_labels: int) -> None:
        """Check shapes, labels and weights. **Collective**.

        Raises:
            InputError: something does not fit; the same on all ranks.
        """
        n = len(self.x)
        with agreed(comm):
            rows = {"labels": self.labels, "weights": self.weights, "replicate": self.replicate}
            if self.log_density is not None:
                rows["log_density"] = self.log_density
            for name, values in rows.items():
                if values.shape != (n,):
                    raise InputError(f"an array of shape ({n},) is needed", key=f"sample.{name}", value=values.shape)
            if not np.all(np.isfinite(self.x)):
                raise InputError("holds numbers that are not finite", key="sample.x")
            if n and not (self.labels.min() >= 0 and self.labels.max() < n_labels):
                raise InputError(f"labels are from 0 to {n_labels - 1}", key="sample.labels", value=self.labels.max())
            if n and not self.weights.min() >= 0.0:
                raise InputError("weights are not negative", key="sample.weights", value=self.weights.min())
        # Behind the checks that all ranks pass together: a rank that had raised would be missing here.
        total = float(sum_all(comm, np.array([self.weights.sum()]))[0])
        if not abs(total - 1.0) < _MASS_TOLERANCE:
            raise InputError("the weights of all ranks sum to 1", key="sample.weights", value=total)

    def require_log_density(self, comm: MPI.Comm) -> None:
        """Check that log ρ₀ is known, which the relative entropy needs. **Collective**.

        Raises:
            InputError: it is not, or is not finite, at some particle; the same on all ranks.
        """
        known = self.log_density
        missing = comm.allreduce(len(self.x) if known is None else int(np.count_nonzero(~np.isfinite(known))))
        if missing:
            raise InputError(
                f"the relative entropy needs log ρ₀, which is unknown or infinite at {missing} particles",
                key="sample.log_density",
                remedy="Particles must lie where the initial density is positive",
            )


def share(n: int, comm: MPI.Comm) -> slice:
    """This rank's contiguous piece of n particles; the pieces differ in size by one at most."""
    bounds = [n * rank // comm.size for rank in (comm.rank, comm.rank + 1)]
    return slice(*bounds)
