"""θ from a file, for a problem that is built already."""

from pathlib import Path

from eulerian.arrays import Floats
from eulerian.control import ControlProblem
from eulerian.errors import InputError
from eulerian.fields.theta_file import read_theta
from eulerian.parallel import agreed, on_root

# isort: split
import numpy as np

KEY = "--theta"


def read_parameters(path: Path, problem: ControlProblem) -> Floats:
    """θ of a ``theta.npz``, with its readout where the problem trains one, in the problem's shape. **Collective**.

    Raises:
        InputError: the file cannot be read, or does not fit the problem.
    """
    rows, readout = on_root(problem.comm, lambda: read_theta(path, KEY))
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
        if not (np.all(np.isfinite(rows)) and np.all(np.isfinite(readout))):
            remedy = "Give the theta.npz of a run that ended well."
            raise InputError("holds numbers that are not finite", key=KEY, value=str(path), remedy=remedy)
    theta = np.concatenate([rows.ravel(), readout])
    return theta.reshape(problem.initial_theta.shape)
