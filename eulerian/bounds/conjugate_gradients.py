"""Conjugate gradients for vectors that all ranks hold, with the same bits on all of them."""

from collections.abc import Callable

from mpi4py import MPI

import numpy as np

from eulerian.base.arrays import Floats


def conjugate_gradients(
    comm: MPI.Comm, apply: Callable[[Floats], Floats], b: Floats, diagonal: Floats, tolerance: float, most: int
) -> Floats:
    """An approximate solution of A x = b, preconditioned by A's diagonal. **Collective**.

    Args:
        comm: whose ranks all have b.
        apply: x ↦ A x, symmetric and positive semidefinite, with b in its range.
        b: (n,).
        diagonal: (n,) > 0.
        tolerance: on the residual in the preconditioner's norm, relative to b.
        most: iterations.
    """

    def inner(x: Floats, y: Floats) -> float:
        # Sums may differ in the last bit from rank to rank, and with them the number of iterations.
        product: float = comm.bcast(float(x @ y))
        return product

    x, r = np.zeros_like(b), b.copy()
    y = r / diagonal
    p, rho = y.copy(), inner(r, y)
    goal = tolerance**2 * rho
    for _ in range(most):
        if not rho > goal:
            break
        q = apply(p)
        bend = inner(p, q)
        if not bend > 0.0:
            break
        x += rho / bend * p
        r -= rho / bend * q
        y = r / diagonal
        rho, old = inner(r, y), rho
        p = y + rho / old * p
    return x
