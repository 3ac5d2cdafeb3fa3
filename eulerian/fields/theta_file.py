"""Parameters in files: the ``theta.npz`` of a run folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from eulerian.array_file import Shapes, read_arrays
from eulerian.arrays import Floats
from eulerian.errors import InputError

THETA, READOUT = "theta", "readout"


def read_theta(path: Path, key: str, check: Callable[[Shapes], object] = lambda _shapes: None) -> tuple[Floats, Floats]:
    """θ (L, p), and the trained readout (r,), r = 0 without one. Nothing in the file is ever executed.

    Args:
        path: the file.
        key: what an error is to name.
        check: told the shapes of ``theta`` and, where it is there, ``readout`` before they are read.

    Raises:
        InputError: it cannot be read, or holds no numbers under these names; what ``check`` raises.
    """
    found = read_arrays(path, [THETA], key, optional=[READOUT], check=check)
    for name, array in found.items():
        if array.dtype.kind not in "fiub":
            remedy = "It must be written by numpy.savez(path, theta=...), as the theta.npz of a run folder is."
            raise InputError(f"the array {name!r} holds no numbers", key=key, value=str(path), remedy=remedy)
    theta = np.atleast_2d(np.array(found[THETA], dtype=np.float64))
    return theta, np.array(found[READOUT], dtype=np.float64) if READOUT in found else np.zeros(0)
