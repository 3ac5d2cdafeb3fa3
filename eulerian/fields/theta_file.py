"""Parameters in files: the ``theta.npz`` of a run folder, with the frame that they are relative to."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.npz import Shapes, read_arrays
from eulerian.fields.frame import ARRAYS, Frame

THETA, READOUT = "theta", "readout"


def theta_arrays(layers: Floats, readout: Floats | None, frame: Frame | None) -> dict[str, Floats]:
    """θ (L, p), a trained readout (r,) and the frame of a network, by the names under which they are stored."""
    arrays = {THETA: layers} if readout is None else {THETA: layers, READOUT: readout}
    return arrays if frame is None else arrays | frame.arrays


def read_theta(path: Path, key: str, check: Callable[[Shapes], object] = lambda _shapes: None) -> tuple[Floats, Floats]:
    """θ (L, p), and the trained readout (r,), r = 0 without one. Nothing in the file is ever executed.

    Args:
        path: the file.
        key: what an error is to name.
        check: called with the shapes of ``theta`` and, where it is there, ``readout`` before they are read.

    Raises:
        InputError: it cannot be read, or holds no numbers under these names; what ``check`` raises.
    """
    found = read_arrays(path, [THETA], key, optional=[READOUT], check=check)
    for name, array in found.items():
        if array.dtype.kind not in "fiub":
            remedy = "Write it by eulerian.save_theta(path, problem, theta), which is what the theta.npz of a run is."
            raise InputError(f"the array {name!r} holds no numbers", key=key, value=str(path), remedy=remedy)
    theta = np.atleast_2d(np.array(found[THETA], dtype=np.float64))
    return theta, np.array(found[READOUT], dtype=np.float64) if READOUT in found else np.zeros(0)


def read_frame(path: Path, key: str) -> Frame | None:
    """What the parameters of a network in this file are relative to; None where the file does not say.

    Then it is of a version whose networks saw raw coordinates, or made by hand, or its field has no need of a frame.

    Raises:
        InputError: it cannot be read, or holds no such numbers.
    """
    try:
        return frame_from(read_arrays(path, [], key, optional=ARRAYS))
    except ValueError as error:
        remedy = f"Copy the arrays {', '.join(ARRAYS)} of the run that the parameters come from, or leave all out."
        what = "holds no sound box for its network to be relative to"
        raise InputError(what, key=key, value=str(path), remedy=remedy) from error


def frame_from(arrays: Mapping[str, NDArray[Any]]) -> Frame | None:
    """The frame among the arrays of a file, or None without any.

    Raises:
        ValueError: some are missing, or are no numbers of a frame.
    """
    there = [np.array(arrays[name], dtype=np.float64) for name in ARRAYS if name in arrays]
    if not there:
        return None
    centre, length, velocity, time = there
    numbers = np.concatenate([np.ravel(array) for array in there])
    positive = np.concatenate([length.ravel(), velocity.ravel(), time.ravel()])
    if centre.ndim != 1 or centre.shape != length.shape or velocity.size != 1 or time.size != 1:
        raise ValueError("shapes do not fit")
    if not (np.all(np.isfinite(numbers)) and np.all(positive > 0.0)):
        raise ValueError("numbers are not finite, or not positive")
    return Frame(tuple(centre.tolist()), tuple(length.tolist()), float(velocity.item()), float(time.item()))
