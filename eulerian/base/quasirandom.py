"""Points that fill a cube evenly, always the same."""

import numpy as np

from eulerian.base.arrays import Floats


def even_points(count: int, dim: int) -> Floats:
    """Points (count, dim) spread evenly over the unit cube, in an order in which any part of them is spread evenly too.

    Multiples of the powers of a generalised golden ratio, modulo 1: the R_d sequence of Roberts (2018), The
    unreasonable effectiveness of quasirandom sequences.
    """
    golden = 2.0
    for _ in range(60):  # the positive root of g^(dim + 1) = g + 1, by a contraction
        golden = (1.0 + golden) ** (1.0 / (dim + 1))
    steps = golden ** -np.arange(1.0, dim + 1)
    return np.asarray((0.5 + np.outer(np.arange(1, count + 1), steps)) % 1.0)
