"""Parameters in files: the ``theta.npz`` of a run folder."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from eulerian.arrays import Floats
from eulerian.errors import InputError


def read_theta(path: Path, key: str) -> tuple[Floats, Floats]:
    """θ (L, p), and the trained readout (r,), r = 0 without one. Nothing in the file is ever executed.

    Args:
        path: the file.
        key: what an error is to name.

    Raises:
        InputError: it cannot be read, or holds no numbers under these names.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            theta = np.atleast_2d(np.array(file["theta"], dtype=np.float64))
            readout = np.array(file["readout"], dtype=np.float64) if "readout" in file else np.zeros(0)
    except KeyError as error:
        raise InputError("the file has no array called 'theta'", key=key, value=str(path)) from error
    except (OSError, EOFError, ValueError, TypeError, BadZipFile) as error:
        remedy = "It must be written by numpy.savez(path, theta=...), as the theta.npz of a run folder is."
        raise InputError(f"cannot be read ({error})", key=key, value=str(path), remedy=remedy) from error
    return theta, readout
