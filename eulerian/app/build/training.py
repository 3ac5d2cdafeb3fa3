"""From a configuration to the training of its problem: settings, levels, and meshes that are adapted."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mpi4py import MPI

import dolfinx
import numpy as np

from eulerian.app.build.mixture import density_and_exact
from eulerian.app.build.network import build, build_space
from eulerian.app.config import Adapt, Config, Domain
from eulerian.app.config.checks import mixtures
from eulerian.app.config.levels import LEAST_CELLS, coarse_to_fine, halved_box, iterations_of_a_level
from eulerian.base.arrays import Floats
from eulerian.base.errors import EulerianWarning, InputError
from eulerian.base.parallel import on_root
from eulerian.control.control import ControlProblem
from eulerian.density.exact_density import projection_errors
from eulerian.fields.base import VectorField
from eulerian.mesh.importing import read_simplices
from eulerian.mesh.refinement import without_tags
from eulerian.mesh.simplices import Simplices, box_simplices, part_corners
from eulerian.optimise import Method, Settings, TrainingState
from eulerian.optimise.adaptive import AdaptedProblem, Tolerances, adapted, resolve_data
from eulerian.optimise.adaptive_training import AdaptiveTraining
from eulerian.optimise.multilevel import LevelTraining
from eulerian.optimise.settings import VERIFIED
from eulerian.optimise.stages import Say, silent
from eulerian.optimise.verified_stop import require_verifiable

if TYPE_CHECKING:
    from eulerian.analysis.characteristics import Characteristics  # with a good part of SciPy

# What to look at where a line search fails: derivatives of this package's own fields are tested.
_ADVICE = "the field is of your own: check its vjp: `eulerian verify CONFIG`"

# Cells along the longest side of a box where refinement begins, by dimension: few enough to cost nothing, enough for a
# flow to be seen at all.
COARSEST = {1: 16, 2: 16, 3: 8}


def descent_settings(config: Config, max_iterations: int | None = None) -> Settings:
    """How a descent goes down; with ``optimiser.max_iterations`` by default."""
    optimiser = config.optimiser
    return Settings(
        Method(optimiser.method, optimiser.petsc_options),
        optimiser.max_iterations if max_iterations is None else max_iterations,
        optimiser.gradient_tolerance,
        optimiser.metric,
        "" if config.field.code is None else _ADVICE,
        optimiser.stop,
        optimiser.bounds,
    )


def tolerances(adapt: Adapt) -> Tolerances:
    """Those of the table ``[adapt]``."""
    return Tolerances(adapt.density, adapt.objective, adapt.max_cells, adapt.rounds)


def build_training(
    config: Config, problem: ControlProblem, say: Say = silent, state: TrainingState | None = None
) -> LevelTraining | AdaptiveTraining:
    """The training of a problem on ``optimiser.levels`` meshes, or on adapted ones with ``[adapt]``.

    Args:
        config: of the problem.
        problem: of ``build``; of ``start_problem`` with ``[adapt]``.
        say: called with a line for what happens on the way.
        state: of the training to continue.

    Raises:
        InputError: the training is to end by a J that cannot be verified.
    """
    if config.optimiser.stop == VERIFIED:
        require_verifiable(problem, "optimiser.stop")
    if config.adapt is not None:
        on_mesh = _on_mesh(config, problem)
        return AdaptiveTraining(problem, on_mesh, tolerances(config.adapt), descent_settings(config), say, state)
    levels = coarse_to_fine(config)
    # A field of nodal velocities belongs to its mesh; all others are the same on every level.
    field = None if problem.layered.at_nodes_only else problem.field
    coarse = [partial(_build_quietly, each, problem.comm, field) for each in levels[:-1]]
    settings = descent_settings(config, iterations_of_a_level(config, len(levels)))
    return LevelTraining(problem, coarse, settings, say, state)


def start_problem(
    config: Config, comm: MPI.Comm | None = None, field: VectorField | None = None, *, theta_file: Path | None = None
) -> ControlProblem:
    """The problem of a configuration with ``[adapt]`` on a coarse mesh that resolves its data. **Collective**.

    Arguments and errors as for ``build``.
    """
    assert config.adapt is not None, "for configurations with [adapt]"
    comm = MPI.COMM_WORLD if comm is None else comm
    coarse = coarse_mesh(comm, config.domain)
    mesh = resolve_data(coarse, partial(_data_errors, config, comm), tolerances(config.adapt))
    return build(config, comm, field, theta_file=theta_file, mesh=mesh)


def adapt_mesh(
    config: Config,
    start: ControlProblem,
    theta: Floats,
    say: Say = silent,
    paths: "Characteristics | None" = None,
) -> AdaptedProblem:
    """``adapt`` for a configuration with ``[adapt]``, from its ``start_problem``. **Collective**."""
    mesh = start.density_space.simplices
    assert config.adapt is not None
    assert mesh is not None
    return adapted(_on_mesh(config, start), mesh, theta, tolerances(config.adapt), say, paths)


def coarse_mesh(comm: MPI.Comm, domain: Domain) -> Simplices:
    """Where adaptive refinement begins, known to all ranks. **Collective**.

    A box has as many cells as the configuration wants, halved until there are at most ``COARSEST`` along every side; a
    file's cells are taken as they are. ``domain.refine`` is left out.

    Raises:
        InputError: as for ``create_mesh``.
    """

    def make() -> Simplices:
        if domain.box is not None:
            box = domain.box
            while max(box.cells) > max(COARSEST[box.dim], LEAST_CELLS):
                box = halved_box(box)
            return box_simplices(box.lower, box.upper, box.cells)
        if domain.file is None:
            raise InputError("needs a box or a file", key="domain")
        return without_tags(part_corners(*read_simplices(domain.file)))

    return on_root(comm, make)


# -- inner workings --------------------------------------------------------------------------------------------------


def _on_mesh(config: Config, problem: ControlProblem) -> Callable[[Simplices], ControlProblem]:
    """Makes a problem of the configuration on another mesh."""
    return lambda mesh: _build_quietly(config, problem.comm, problem.field, mesh)


def _build_quietly(
    config: Config, comm: MPI.Comm, field: VectorField | None, mesh: Simplices | None = None
) -> ControlProblem:
    """The problem of a configuration; what there is to warn of was said of the first one. **Collective**."""
    with warnings.catch_warnings(action="ignore", category=EulerianWarning):
        return build(config, comm, field, mesh=mesh)


def _data_errors(config: Config, comm: MPI.Comm, mesh: Simplices) -> tuple[dolfinx.mesh.Mesh, Floats]:
    """How far ρ₀ and a target density are from their projections on a mesh, for ``resolve_data``. **Collective**."""
    with warnings.catch_warnings(action="ignore", category=EulerianWarning):  # `build` repeats them
        space, _ = build_space(config, comm, mesh)
        return space.mesh, np.stack(
            [projection_errors(space, *density_and_exact(space, terms, key)) for key, terms in mixtures(config)]
        )
