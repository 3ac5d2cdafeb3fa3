"""Particles that stand for a density."""

from dataclasses import dataclass
from typing import final

from mpi4py import MPI

import numpy as np
from numpy.typing import NDArray

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
        log_density: (n,) log ρ_y(x) with the particle's own label y; None where nobody knows.
        replicate: (n,) the set that a particle belongs to; the sets are independent of one another.
        independent: the particles themselves are independent draws; those of a low-discrepancy set are not.
    """

    x: Floats
    labels: NDArray[np.integer]
    weights: Floats
    log_density: Floats | None
    replicate: NDArray[np.integer]
    independent: bool = True

    @property
    def dim(self) -> int:
        """Space dimension."""
        return int(self.x.shape[1])

    def check(self, comm: MPI.Comm, n_labels: int) -> None:
        """Hold shapes, labels and weights against what a cloud is. Collective.

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
                    raise InputError(f"an array of shape ({n},) is needed", key=f"cloud.{name}", value=values.shape)
            if not np.all(np.isfinite(self.x)):
                raise InputError("holds numbers that are not finite", key="cloud.x")
            if n and not (self.labels.min() >= 0 and self.labels.max() < n_labels):
                raise InputError(f"labels are from 0 to {n_labels - 1}", key="cloud.labels", value=self.labels.max())
            if n and not self.weights.min() >= 0.0:
                raise InputError("weights are not negative", key="cloud.weights", value=self.weights.min())
        total = float(sum_all(comm, np.array([self.weights.sum()]))[0])
        if not abs(total - 1.0) < _MASS_TOLERANCE:
            raise InputError("the weights of all ranks sum to 1", key="cloud.weights", value=total)


def share(n: int, comm: MPI.Comm) -> slice:
    """This rank's contiguous piece of n particles; the pieces differ in size by one at most."""
    bounds = [n * rank // comm.size for rank in (comm.rank, comm.rank + 1)]
    return slice(*bounds)
