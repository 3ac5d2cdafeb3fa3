"""``eulerian ideal``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from eulerian.app.commands.command import Options, progress_of
from eulerian.app.commands.computation import Computation

if TYPE_CHECKING:
    from mpi4py import MPI

    from eulerian.app.config import Config


@final
class Ideal(Computation):
    """The lower bound of any velocity."""

    name = "ideal"
    help = "minimise over all velocities: the best that any network could do"
    examples = (
        "eulerian ideal gaussian.toml --output runs/best",
        "mpirun -n 2 eulerian ideal gaussian.toml --output runs/best",
    )

    def compute(self, options: Options, config: "Config", comm: "MPI.Comm") -> Mapping[str, Any]:
        """See ``Computation``."""
        from eulerian.app import tasks

        return tasks.run_ideal(config, comm, overwrite=options.overwrite, progress=progress_of(options, comm))
