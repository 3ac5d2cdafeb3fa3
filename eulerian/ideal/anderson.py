"""Anderson's acceleration of a fixed-point iteration."""

from mpi4py import MPI

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats

_MEMORY = 5  # pairs of earlier results and their residuals
_DAMPING = 1e-10  # relative, of the least squares: columns become parallel
_LARGEST_RISE = 1.2  # of an iterate's error over the smallest one so far, up to which mixtures are taken


class AndersonAcceleration:
    """The next x from results g_k of a map and residuals f_k = g_k − x_k.

    It is g_k − Σ c_j Δg_j over the last few differences, with |f_k − Σ c_j Δf_j| least: Anderson (1965,
    doi:10.1145/321296.321305); Walker & Ni (2011, doi:10.1137/10078356X). A mixture may be worse than what it is made
    of. Where an iterate's error has grown the iteration goes on without mixtures for a while, which does not let errors
    grow if the map is nonexpansive; for twice as long every time, or failures could follow one another for ever.

    Args:
        comm: the ranks that share the rows.
    """

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm = comm
        self._pause, self._next_pause = 0, 1  # results without a mixture
        self.forget()

    def forget(self) -> None:
        """Begin anew: the map is another one. Local."""
        self._smallest = np.inf
        self._clear()

    def _clear(self) -> None:
        self._last: tuple[Floats, Floats] | None = None
        self._results: list[Floats] = []
        self._residuals: list[Floats] = []

    def mixed(self, result: Floats, residual: Floats, size: float) -> Floats | None:
        """Where to go on, or None at the result itself. Collective.

        Args:
            result: g_k, rows of the vertices that this rank sees.
            residual: f_k, so scaled that sums of squares over all ranks are what is to be made small; of any shape.
            size: of the iterate's error, by which mixtures are judged; the same on all ranks.
        """
        self._smallest = min(self._smallest, size)
        if self._pause > 0:
            self._pause -= 1
            return None
        if not size <= _LARGEST_RISE * self._smallest:
            self._clear()
            self._pause, self._next_pause = self._next_pause, 2 * self._next_pause
            return None
        last, rows = self._last, residual.ravel()
        self._last = result, rows
        if last is None:
            return None
        self._results = [*self._results, result - last[0]][-_MEMORY:]
        self._residuals = [*self._residuals, rows - last[1]][-_MEMORY:]
        basis = np.array([*self._residuals, rows])
        products = parallel.sum_all(self._comm, basis @ basis.T)
        matrix = products[:-1, :-1]
        damping = _DAMPING * float(np.trace(matrix))
        if not damping > 0.0:  # nothing moves any more
            return None
        shares = np.linalg.solve(matrix + damping * np.eye(len(matrix)), products[:-1, -1])
        mixture = result.copy()
        # One by one: the same bits on all ranks that see a vertex.
        for share, change in zip(shares.tolist(), self._results, strict=True):
            mixture -= share * change
        return mixture
