"""From a configuration to its problem: of a network, on a mesh or on particles, or of any velocity.

The idealised problem and the particles need a good part of SciPy, which takes as long to load as all the rest:
their modules are imported by the functions that need them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast, final

from mpi4py import MPI

import numpy as np

from eulerian.app.build.keys import configured_keys
from eulerian.app.build.memory import ProblemSize, ideal_needs, mesh_needs, particle_needs, total_memory
from eulerian.app.build.mesh import create_mesh
from eulerian.app.build.mixture import count_labels, density_and_exact, projected_target
from eulerian.app.config import (
    Config,
    as_config,
    check_dimension,
    check_labels,
)
from eulerian.app.config.checks import code_sections
from eulerian.app.config.field import IDEAL, KEY
from eulerian.app.config.objective import AT
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.memory_limits import MemoryNeed, require_memory
from eulerian.base.parallel import agreed, warn
from eulerian.control.control import ControlProblem
from eulerian.control.parametrisation import warn_of_raw_coordinates, warn_of_unused_seed
from eulerian.control.statistics import mesh_sizes
from eulerian.density.density import Density
from eulerian.density.space import DensitySpace
from eulerian.fields.base import VectorField
from eulerian.fields.frame import frame_of, unwrapped
from eulerian.fields.piecewise import PiecewiseField
from eulerian.fields.theta_file import read_frame
from eulerian.ideal.problem import IdealProblem
from eulerian.mesh.simplices import Simplices
from eulerian.objective.distances import DensityFunctional
from eulerian.objective.point_loss import PointLoss
from eulerian.transport.time_grid import TimeGrid
from eulerian.transport.velocity_space import VelocitySpace

if TYPE_CHECKING:
    from eulerian.density.gathered import GatheredDensity
    from eulerian.fields.nodal import Nodal
    from eulerian.particles.problem import ParticleProblem

_RAW_PARAMETERS = (
    "does not say which box its parameters are relative to: it is of an earlier version, or was made by hand. They are "
    "taken as in earlier versions, whose networks saw the coordinates and gave the velocities as they are. If they are "
    "of a problem of this version, write them with eulerian.save_theta(file, problem, theta), which stores the box"
)

# Masses are sums of weights over their total, up to rounding.
MASS_TOLERANCE = 1e-8


def build(
    config: Config | Mapping[str, Any],
    comm: MPI.Comm | None = None,
    field: VectorField | None = None,
    *,
    theta_file: Path | None = None,
    mesh: Simplices | None = None,
) -> ControlProblem:
    """The problem that a configuration describes. Collective.

    Args:
        config: from ``read_config``, or tables for ``parse_config``.
        comm: who shares the work, everybody by default.
        field: to be used instead of the one that the configuration describes, built already.
        theta_file: whose parameters the field is to be used with; it says what those of a network are relative to. By
            default the file that the configuration names, if it does.
        mesh: of the same domain, known to all ranks, to be used instead of the one that the configuration describes.

    Raises:
        InputError: something in the configuration, or in a file that it names, does not fit; the same on all ranks.
    """
    config = as_config(config)
    space, rho0, memory = _initial(config, comm, mesh_needs, mesh)
    section, objective, solver = config.field, config.objective, config.solver
    terminal, at = terminal_cost(config, space), objective.costs_at(partial(projected_target, space))
    velocity_space = VelocitySpace(space)
    if field is None:
        nodes = velocity_space.all_nodes() if section.needs_nodes else None
        field = _field(config, space, nodes, theta_file)
    with configured_keys():
        return ControlProblem(
            space,
            field,
            rho0,
            terminal,
            objective.costs(),
            TimeGrid(section.horizon, section.layers, solver.cfl, solver.max_steps_per_layer),
            at=at,
            initial_theta=_theta(config, field, velocity_space, rho0),
            label_dependent=section.label_dependent,
            tied=section.tied,
            entropy_form=objective.entropy_form,
            power_form=objective.power_form,
            limiter=solver.limiter,
            flux_smoothing=solver.flux_smoothing,
            memory=min(solver.memory_bytes, memory),
            disk=(solver.disk_bytes, solver.disk_directory),
            velocity_space=velocity_space,
        )


def terminal_cost(config: Config, space: DensitySpace) -> DensityFunctional | PointLoss:
    """The terminal cost of a configuration; a target is projected into the space. **Collective**.

    Raises:
        InputError: a target does not fit the density; the same on all ranks.
    """
    objective = config.objective
    return objective.terminal.cost(objective, partial(projected_target, space))


def build_ideal(config: Config | Mapping[str, Any], comm: MPI.Comm | None = None) -> IdealProblem:
    """The idealised problem of a configuration: of its field it needs the horizon and the layers only. Collective.

    Args:
        config: from ``read_config``, or tables for ``parse_config``.
        comm: who shares the work, everybody by default.

    Raises:
        InputError: as for ``build``; also for a readout that is to be trained.
    """
    config = as_config(config)
    _refuse_times(config)
    space, rho0, _ = _initial(config, comm, ideal_needs)
    warn_of_fixed_mesh(config, space.comm)
    return _ideal(config, space, rho0)


@final
@dataclass(frozen=True)
class SampledProblem:
    """Particles, and the density that they were drawn from.

    Attributes:
        problem: J on particles.
        space: of the initial density.
        initial: the initial density, gathered on every rank.
    """

    problem: "ParticleProblem"
    space: DensitySpace
    initial: "GatheredDensity"
    has_statistics: ClassVar[bool] = False  # of densities on the mesh

    @property
    def reduced(self) -> "ParticleProblem":
        """θ ↦ J(θ) itself."""
        return self.problem

    def describe(self) -> dict[str, Any]:
        """See ``ReducedProblem``; with the sizes of the mesh that the particles were drawn from. **Collective**."""
        return {"mesh": mesh_sizes(self.space), **self.problem.describe()}


def build_particles(config: Config | Mapping[str, Any], comm: MPI.Comm | None = None) -> "ParticleProblem":
    """The problem of a configuration on particles that are drawn from its initial density. Collective.

    Args:
        config: from ``read_config``, or tables for ``parse_config``.
        comm: who shares the work, everybody by default.

    Raises:
        InputError: as for ``build``; also for costs, targets and fields that particles cannot have.
    """
    return build_sampled_problem(config, comm).problem


def build_sampled_problem(config: Config | Mapping[str, Any], comm: MPI.Comm | None = None) -> SampledProblem:
    """``build_particles``, with the density that the particles were drawn from. Collective."""
    from eulerian.app.build.particles import particle_problem, refuse_on_particles, sample_of
    from eulerian.density.gathered import GatheredDensity

    config = as_config(config)
    refuse_on_particles(config)
    space, rho0, _ = _initial(config, comm, particle_needs)
    warn_of_fixed_mesh(config, space.comm)
    initial = GatheredDensity.gather(space, rho0.coefficients)
    sample = sample_of(config, initial, space.comm)
    field = _field(config, space)
    theta = _given_theta(config, field, space)
    return SampledProblem(particle_problem(config, space, field, theta, sample), space, initial)


def warn_of_fixed_mesh(config: Config, comm: MPI.Comm) -> None:
    """Warn that ``[adapt]`` does nothing where no mesh is adapted. Not collective."""
    if config.adapt is not None:
        warn(comm, "[adapt] is for solve, train and compare on densities: here the mesh is the one that [domain] tells")


def build_space(
    config: Config,
    comm: MPI.Comm | None = None,
    mesh: Simplices | None = None,
    needs: Callable[[Config, ProblemSize], Iterable[MemoryNeed]] = mesh_needs,
) -> tuple[DensitySpace, float]:
    """The space of the densities, and the memory that ``needs`` leave over, in bytes. Collective.

    Args:
        config: from ``read_config``.
        comm: who shares the work, everybody by default.
        mesh: as for ``build``.
        needs: what memory is needed for.

    Raises:
        InputError: there is not so much memory, among others; found before a mesh is made.
    """
    comm = MPI.COMM_WORLD if comm is None else comm
    memory = total_memory(comm)
    n_labels = count_labels(config.density.initial, comm)
    left = memory

    def check(dim: int, n_cells: float) -> None:
        nonlocal left
        check_dimension(config, dim)
        left = require_memory(needs(config, ProblemSize(dim, n_cells, n_labels, comm.size)), memory)

    distributed = create_mesh(comm, config.domain, check, mesh)
    check_labels(config, n_labels)
    return DensitySpace(distributed, config.density.degree, n_labels, mesh), comm.bcast(left, 0)


def _initial(
    config: Config,
    comm: MPI.Comm | None,
    needs: Callable[[Config, ProblemSize], Iterable[MemoryNeed]],
    mesh: Simplices | None = None,
) -> tuple[DensitySpace, Density, float]:
    """The space of the densities, ρ₀, and the bytes left over. Collective."""
    with agreed(MPI.COMM_WORLD if comm is None else comm):
        for key, section in code_sections(config):
            if key != "field":  # which is loaded together with what it makes
                section.load(key)
    space, left = build_space(config, comm, mesh, needs)
    return space, Density(space, *density_and_exact(space, config.density.initial)), left


def _refuse_times(config: Config) -> None:
    """Raise InputError where there are costs at given times, which the convex solver does not know."""
    for index, cost in enumerate(config.objective.at):
        if cost.weight > 0.0:
            what = "the convex solver knows costs along the way and at the end, none at times between"
            remedy = "`eulerian train` has them, and a bound where all of them are losses."
            raise InputError(what, key=f"{AT}.{index}.time", value=cost.time, remedy=remedy)


def _ideal(config: Config, space: DensitySpace, rho0: Density) -> IdealProblem:
    """The idealised problem on a given space. Collective."""
    from eulerian.ideal.dynamic_ot import require_equal_masses

    _refuse_times(config)
    objective, terminal = config.objective, terminal_cost(config, space)
    with configured_keys():
        problem = IdealProblem(
            space,
            rho0,
            terminal,
            objective.kinetic,
            config.field.horizon,
            config.ideal.slabs(config.field.layers),
            potential=objective.potential_function(),
            congestion=objective.congestion,
            entropy=objective.entropy,
            interaction=objective.costs().interaction,
        )
        target = problem.functional.target
        if target is not None and problem.functional.is_constraint:
            require_equal_masses(rho0.mass, space.mass(target), MASS_TOLERANCE)
    return problem


def _field(
    config: Config, space: DensitySpace, nodes: Floats | None = None, theta_file: Path | None = None
) -> VectorField:
    """The field, in the frame that its given parameters are relative to, with what there is to warn of. Collective."""
    low, high = (corner.tolist() for corner in space.bounding_box)
    given = config.field.theta
    file = given if theta_file is None and isinstance(given, Path) else theta_file
    with agreed(space.comm):
        stored = None if file is None else read_frame(file, KEY)
        frame = config.field.earlier_frame(low, high) if file is not None and stored is None else stored
        field = config.field.build(space.dim, space.n_labels, low, high, nodes, frame)
    if file is not None and stored is None and frame_of(field) is not None:
        warn(space.comm, f"{file} {_RAW_PARAMETERS}")
    if config.field.code is not None:
        inner = unwrapped(field)
        told_by_problem = hasattr(inner, "may_want_a_frame")  # of models of other libraries
        if getattr(inner, "normalised", None) is None and not told_by_problem:
            warn_of_raw_coordinates(space.comm, *space.bounding_box, f"field.object {config.field.code!r}")
        if given is None:
            warn_of_unused_seed(space.comm, field, config.field.seed, "field.seed")
    return field


def training_start(config: Config, problem: ControlProblem) -> Floats:
    """Where a training from nothing starts, for the methods of a problem that may start elsewhere. Collective."""
    rows = _given_theta(config.with_values("field", theta=None), problem.field, problem.density_space)
    return np.concatenate([rows.ravel(), problem.split(problem.initial_theta)[1]])


def _given_theta(config: Config, field: VectorField, space: DensitySpace) -> Floats:
    """Parameters that were given or drawn, the same on all ranks. Collective.

    Raises:
        InputError: they do not fit, or the field itself differs from rank to rank.
    """
    with agreed(space.comm):
        theta = config.field.initial_theta(field, space.dim)
    # A model of the user's that was drawn without a seed has other parameters on every rank.
    theta = np.asarray(space.comm.bcast(theta, 0))
    if config.field.code is not None and space.comm.size > 1:
        _require_one_field(config, field, theta[0], space)
    return theta


def _require_one_field(config: Config, field: VectorField, row: Floats, space: DensitySpace) -> None:
    """Refuse a user's field with fixed parts that were drawn without a seed. Collective.

    Raises:
        InputError: its velocity differs from rank to rank.
    """
    low, high = space.bounding_box
    points = low + np.linspace(0.3, 0.6, 3)[:, None] * (high - low)
    with agreed(space.comm):
        layered = PiecewiseField.equal(field, 1.0, 1, label_dependent=config.field.label_dependent)
        v = layered.value(0, row, points, 0)
    values = np.array(space.comm.allgather(v))
    if not np.allclose(values, values[0], rtol=1e-6, atol=1e-6 * float(np.max(np.abs(values)))):
        raise InputError(
            "is not the same on all ranks, although its parameters are",
            key="field.object",
            value=config.field.code,
            remedy="Give a seed to the random numbers that its module draws.",
        )


def _theta(config: Config, field: VectorField, velocity_space: VelocitySpace, rho0: Density) -> Floats:
    """Where to start, (L, p), or (1, p) for tied layers. Collective."""
    space = velocity_space.density_space
    if config.field.theta != IDEAL or not getattr(field, "at_nodes_only", False):  # one handed over may be another
        return _given_theta(config, field, space)
    if config.objective.kinetic <= 0.0:
        raise InputError(
            "the ideal velocities are not determined without kinetic energy",
            key="field.theta",
            value=IDEAL,
            remedy="Set objective.kinetic > 0.",
        )
    from eulerian.ideal.dynamic_ot import solve_convex
    from eulerian.ideal.flow import nodal_theta

    with configured_keys():
        solution = solve_convex(_ideal(config, space, rho0), **config.ideal.solver_options)
    return nodal_theta(
        solution.flow, cast("Nodal", field), velocity_space, 1 if config.field.tied else config.field.layers
    )
