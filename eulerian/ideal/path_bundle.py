"""Paths of points: what is kept of them, and read without a mesh or MPI."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats


class PathBundle(NamedTuple):
    """Points on their way.

    Attributes:
        times: (n,).
        paths: (m, n, dim).
        labels: (m,) label of each path.
    """

    times: Floats
    paths: Floats
    labels: NDArray[np.int64]
