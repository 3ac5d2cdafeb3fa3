"""θ of a problem in a file, with the box that it is relative to: what a run's ``theta.npz`` is, from Python."""

from pathlib import Path
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from eulerian.app.runs.files import write_arrays
from eulerian.base.parallel import on_root
from eulerian.control.control import ControlProblem
from eulerian.fields.frame import frame_of
from eulerian.fields.theta_file import theta_arrays

if TYPE_CHECKING:
    from eulerian.particles.problem import ParticleProblem  # with a good part of SciPy


def save_theta(file: Path | str, problem: "ControlProblem | ParticleProblem", theta: ArrayLike) -> Path:
    """Write θ, with the box that a network's parameters are relative to, as a run does into ``theta.npz``.

    The key ``field.theta`` and ``--theta`` take such a file, and in a problem on another box or of another horizon the
    network is the same map as in this one. ``numpy.savez`` alone would lose the box. From Python the array ``theta`` of
    the file is an ``initial_theta`` of a problem on the same box. **Collective**: rank 0 writes its θ.

    Args:
        file: ends in .npz, or gets that ending; a file that is there is replaced.
        problem: whose θ it is.
        theta: in the problem's shape, as of ``minimise(problem).theta`` or ``J.theta(parameters)``.

    Returns:
        The file.

    Raises:
        InputError: θ has the wrong size, or is no array of numbers.
        ComputationError: the file cannot be written.
    """
    path = Path(file) if Path(file).suffix == ".npz" else Path(f"{file}.npz")
    layers, readout = problem.split(theta)
    arrays = theta_arrays(layers, readout if readout.size else None, frame_of(problem.layered.field))
    on_root(problem.comm, lambda: write_arrays(path, arrays))
    return path
