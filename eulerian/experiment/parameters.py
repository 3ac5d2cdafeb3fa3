"""θ from a file, for a problem that is built already."""

from pathlib import Path

from eulerian.arrays import Floats
from eulerian.control import ControlProblem
from eulerian.errors import InputError
from eulerian.fields.frame import Frame, frame_of
from eulerian.fields.theta_file import read_frame, read_theta
from eulerian.parallel import agreed, on_root

# isort: split
import numpy as np

KEY = "--theta"


def read_parameters(path: Path, problem: ControlProblem) -> Floats:
    """θ of a ``theta.npz``, with its readout where the problem trains one, in the problem's shape. **Collective**.

    Raises:
        InputError: the file cannot be read, or does not fit the problem.
    """
    (rows, readout), frame = on_root(problem.comm, lambda: (read_theta(path, KEY), read_frame(path, KEY)))
    with agreed(problem.comm):
        if len(rows) == problem.n_layers and np.all(rows == rows[0]):
            rows = rows[: problem.layer_shape[0]]
        if len(rows) == 1:
            rows = np.repeat(rows, problem.layer_shape[0], axis=0)
        if rows.shape != problem.layer_shape or rows.size + readout.size != problem.n_params:
            raise InputError(
                f"holds θ of shape {rows.shape} and {readout.size} numbers of a readout, but the problem has "
                f"{problem.layer_shape} and {problem.n_params - int(np.prod(problem.layer_shape))}",
                key=KEY,
                value=str(path),
                remedy="Compare with the configuration of the run that wrote it: config.resolved.toml in its folder.",
            )
        _require_frame(frame, frame_of(problem.field), path)
        if not (np.all(np.isfinite(rows)) and np.all(np.isfinite(readout))):
            remedy = "Give the theta.npz of a run that ended well."
            raise InputError("holds numbers that are not finite", key=KEY, value=str(path), remedy=remedy)
    theta = np.concatenate([rows.ravel(), readout])
    return theta.reshape(problem.initial_theta.shape)


def _require_frame(found: Frame | None, own: Frame | None, path: Path) -> None:
    """Refuse parameters of a network that were relative to another box, with which it would be another function.

    Raises:
        InputError: they are.
    """
    if own is None or (found is not None and found.agrees(own)):
        return
    raise InputError(
        "names no box that it is relative to, as in earlier versions" if found is None else f"is relative to {found}",
        key=KEY,
        value=str(path),
        remedy=f"The configuration's network is relative to {own}. With field.theta = {str(path)!r} it is the same "
        "function as in the run that wrote the file.",
    )
