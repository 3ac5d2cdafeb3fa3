"""From a configuration to its problem: of a network, on a mesh or on particles, or of any velocity.

The idealised problem and the particles stand on a good part of SciPy, which takes as long to load as all the rest:
their modules are imported by the functions that need them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from mpi4py import MPI

import numpy as np

from eulerian.app.build.mixture import density_and_exact
from eulerian.base.arrays import Floats
from eulerian.app.config import Config, KlTerminal, L2Terminal, as_config, check_dimension, check_labels
from eulerian.app.config.field import IDEAL, PythonField
from eulerian.control.control import ControlProblem, EntropyCosts, RunningCosts
from eulerian.base.errors import InputError
from eulerian.fields.base import VectorField
from eulerian.app.build.field import KEY, build_field, earlier_frame, initial_theta
from eulerian.fields.frame import InBox, plain
from eulerian.fields.nodal import Nodal
from eulerian.fields.piecewise import PiecewiseField
from eulerian.fields.theta_file import read_frame
from eulerian.ideal.problem import IdealProblem
from eulerian.base.memory_limits import MemoryNeed, require_memory
from eulerian.app.build.memory import ProblemSize, ideal_needs, mesh_needs, particle_needs, total_memory
from eulerian.objective.continuous import continuous_data
from eulerian.objective.entropy import EntropyBalance
from eulerian.objective.running import VelocityCost, potential_vector
from eulerian.objective.squares import SquareCosts
from eulerian.objective.terminal import build_terminal
from eulerian.base.parallel import agreed, warn
from eulerian.density.space import DensitySpace
from eulerian.density.exact_density import ExactDensity
from eulerian.app.build.mixture import count_labels
from eulerian.app.build.mesh import create_mesh
from eulerian.mesh.simplices import Simplices
from eulerian.transport.velocity_space import VelocitySpace
from eulerian.transport.density_cost import DensityCost
from eulerian.transport.operator import flux_smoothing
from eulerian.transport.trajectory import TimeGrid

if TYPE_CHECKING:
    from eulerian.particles.problem import ParticleProblem
    from eulerian.density.gathered import GatheredDensity

# Half the longest side of a domain, and how many of them its centre is from the origin, up to which a network may well
# be given the coordinates: its first weights, of size one, neither saturate it nor leave it constant there.
_LARGEST_BOX, _FARTHEST_BOX = 30.0, 10.0

_RAW_PARAMETERS = (
    "does not say which box its parameters are relative to: it is of an earlier version, or was made by hand. They are "
    "taken as in earlier versions, whose networks saw the coordinates and gave the velocities as they are"
)

_NO_BALANCE = (
    "objective.entropy is taken from the mesh's density, which numerical diffusion lowers: the entropy of all labels "
    "together has a balance along the flow only where they share one velocity (label_dependent = false)"
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
    density_space, rho, exact, memory = _initial(config, comm, mesh_needs, mesh)
    velocity_space = VelocitySpace(density_space)
    smoothing = flux_smoothing(density_space, config.field.horizon, config.solver.flux_smoothing)
    by_label, entropy = _initial_entropies(config, density_space, exact)
    squares = _square_costs(config, density_space, exact)
    terminal = build_terminal(config.objective.terminal, density_space, by_label, powers=squares is not None)
    continuous = continuous_data(config.objective, density_space, exact, getattr(terminal, "exact", None))
    costs = _running_costs(config, velocity_space, EntropyBalance(velocity_space, smoothing), by_label, entropy)
    costs = replace(costs, squares=squares)
    # Last, for it may run code of the user's: all the rest has proved right.
    if field is None:
        nodes = velocity_space.all_nodes() if config.field.kind == "free" else None
        field = _field(config, density_space, nodes, theta_file)
    theta = _theta(config, field, velocity_space, rho)
    objective, solver = config.objective, config.solver
    return ControlProblem(
        velocity_space,
        field,
        rho,
        terminal,
        costs,
        (objective.parameters, objective.parameters_h1),
        TimeGrid(config.field.horizon, config.field.layers, solver.cfl, solver.max_steps_per_layer),
        theta,
        label_dependent=config.field.label_dependent,
        tied=config.field.tied,
        limited=solver.limiter,
        memory=min(solver.memory_bytes, memory),
        disk=(solver.disk_bytes, solver.disk_directory),
        smoothing=smoothing,
        continuous=continuous,
    )


def build_ideal(config: Config | Mapping[str, Any], comm: MPI.Comm | None = None) -> IdealProblem:
    """The idealised problem of a configuration: of its field it needs the horizon and the layers only. Collective.

    Args:
        config: from ``read_config``, or tables for ``parse_config``.
        comm: who shares the work, everybody by default.

    Raises:
        InputError: as for ``build``; also for a readout that is to be trained.
    """
    config = as_config(config)
    space, rho, *_ = _initial(config, comm, ideal_needs)
    warn_of_fixed_mesh(config, space.comm)
    return _ideal(config, space, rho)


@final
@dataclass(frozen=True)
class SampledProblem:
    """Particles, and the ground that they were drawn from.

    Attributes:
        problem: J on particles.
        space: of the initial density.
        initial: the initial density, whole on every rank.
    """

    problem: "ParticleProblem"
    space: DensitySpace
    initial: "GatheredDensity"


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
    """``build_particles``, with the ground that the particles stand on. Collective."""
    from eulerian.density.gathered import GatheredDensity
    from eulerian.app.build.particles import sample_of, particle_problem, refuse_on_particles

    config = as_config(config)
    refuse_on_particles(config)
    space, rho, *_ = _initial(config, comm, particle_needs)
    warn_of_fixed_mesh(config, space.comm)
    whole = GatheredDensity.gather(space, rho)
    sample = sample_of(config, whole, space.comm)
    field = _field(config, space)
    theta = _given_theta(config, field, space)
    horizon, layers, labelled = config.field.horizon, config.field.layers, config.field.label_dependent
    layered = PiecewiseField.equal(field, horizon, layers, label_dependent=labelled)
    return SampledProblem(particle_problem(config, space, layered, theta, sample), space, whole)


def warn_of_fixed_mesh(config: Config, comm: MPI.Comm) -> None:
    """Warn that ``[adapt]`` does nothing where no mesh is adapted. Not collective."""
    if config.adapt is not None:
        warn(comm, "[adapt] is for solve, train and compare on densities: here the mesh is the one that [domain] tells")


def _initial_entropies(config: Config, space: DensitySpace, exact: ExactDensity) -> tuple[float | None, float | None]:
    """∫ρ₀ log ρ₀, summed over the labels and of all together, each where a cost takes it by its balance. Collective."""
    objective = config.objective
    if objective.entropy_form == "density":
        return None, None
    relative, running = isinstance(objective.terminal, KlTerminal), objective.entropy > 0.0
    if running and config.field.label_dependent and space.n_labels > 1:
        running = False
        warn(space.comm, _NO_BALANCE)
    if not (relative or running):
        return None, None
    by_label, together = exact.entropies(space)
    return float(by_label.sum()) if relative else None, together if running else None


def _square_costs(config: Config, space: DensitySpace, exact: ExactDensity) -> SquareCosts | None:
    """The costs of ∫ρ² by squares that move beside the densities. Collective."""
    objective = config.objective
    distance = isinstance(objective.terminal, L2Terminal)
    if objective.power_form == "density" or not (distance or objective.congestion > 0.0):
        return None
    return SquareCosts.of(space, exact, objective.congestion, terminal=distance)


def _running_costs(
    config: Config,
    velocity_space: VelocitySpace,
    balance: EntropyBalance,
    by_label: float | None,
    entropy: float | None,
) -> RunningCosts:
    """Collective. The last two are those of ``_initial_entropies``."""
    space, objective = velocity_space.density_space, config.objective
    of_mesh = objective.entropy if entropy is None else 0.0
    by_squares = objective.power_form == "companion"
    products = by_squares and config.field.label_dependent and space.n_labels > 1
    congestion = objective.congestion if products or not by_squares else 0.0
    charged = EntropyCosts(
        balance,
        0.0 if by_label is None else 1.0,
        0.0 if entropy is None else objective.entropy,
        0.0 if entropy is None else entropy,
    )
    return RunningCosts(
        VelocityCost(velocity_space, objective.kinetic, objective.jacobian),
        None if objective.potential is None else potential_vector(space, objective.potential),
        DensityCost(congestion, of_mesh, space.floor, products) if congestion > 0.0 or of_mesh > 0.0 else None,
        None if by_label is None and entropy is None else charged,
    )


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
        InputError: there is not so much memory, among others; told before a mesh is made.
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
) -> tuple[DensitySpace, Floats, ExactDensity, float]:
    """The space of the densities, ρ₀ (n_cells, nd, K), what it projects, and the bytes left over. Collective."""
    space, left = build_space(config, comm, mesh, needs)
    return space, *density_and_exact(space, config.density.initial), left


def _ideal(config: Config, space: DensitySpace, rho: Floats) -> IdealProblem:
    """The idealised problem on given ground. Collective."""
    from eulerian.ideal.dynamic_ot import require_equal_masses
    from eulerian.ideal.functionals import Fixed, build_functional
    from eulerian.ideal.running_cost import RunningCost

    functional = build_functional(config.objective.terminal, space)
    if isinstance(functional, Fixed):
        require_equal_masses(space.mass(rho), space.mass(functional.target), MASS_TOLERANCE)
    slabs = config.ideal.slabs(config.field.layers)
    with agreed(space.comm):
        running = RunningCost.build(config.objective, space.dim)
    return IdealProblem(space, rho, functional, config.objective.kinetic, config.field.horizon, slabs, running)


def _field(
    config: Config, space: DensitySpace, nodes: Floats | None = None, theta_file: Path | None = None
) -> VectorField:
    """The field, in the frame that its given parameters are relative to. Collective."""
    low, high = (corner.tolist() for corner in space.bounding_box)
    given = config.field.theta
    file = given if theta_file is None and isinstance(given, Path) else theta_file
    with agreed(space.comm):
        stored = None if file is None else read_frame(file, KEY)
        frame = earlier_frame(config.field, low, high) if file is not None and stored is None else stored
        field = build_field(config.field, space.dim, space.n_labels, low, high, nodes, frame=frame)
    if file is not None and stored is None and isinstance(field, InBox):
        warn(space.comm, f"{file} {_RAW_PARAMETERS}")
    if isinstance(config.field, PythonField) and getattr(plain(field), "normalised", None) is None:
        _warn_of_raw_coordinates(space, config.field)
    return field


def _warn_of_raw_coordinates(space: DensitySpace, config: PythonField) -> None:
    """Warn where a field of the user's that may be a network is given numbers that networks are not made for."""
    low, high = space.bounding_box
    size, away = float(np.max(high - low)) / 2.0, float(np.max(np.abs(high + low))) / 2.0
    if size > _LARGEST_BOX or size < 1.0 / _LARGEST_BOX or away > _FARTHEST_BOX * size:
        warn(
            space.comm,
            f"field.object {config.object!r} is given the coordinates as they are, from {low.tolist()} to "
            f"{high.tolist()}: a network hardly trains on numbers so far from the box from -1 to 1. With "
            "normalised=True, where it is wrapped (or as its attribute), it sees where in the domain's box a point is "
            "and answers in half boxes per horizon; normalised=False says that all is well",
        )


def training_start(config: Config, problem: ControlProblem) -> Floats:
    """Where a training from nothing starts, for the methods of a problem that may start elsewhere. Collective."""
    fresh = config.model_copy(update={"field": config.field.model_copy(update={"theta": None})})
    rows = _given_theta(fresh, problem.field, problem.density_space)
    readout = np.zeros(0)
    if problem.split(problem.initial_theta)[1].size:
        readout = build_terminal(config.objective.terminal, problem.density_space).initial_readout()
    return np.concatenate([rows.ravel(), readout])


def _given_theta(config: Config, field: VectorField, space: DensitySpace) -> Floats:
    """Parameters that were given or drawn, the same on all ranks. Collective.

    Raises:
        InputError: they do not fit, or the field itself differs from rank to rank.
    """
    with agreed(space.comm):
        theta = initial_theta(config.field, field, space.dim, config.field.layers)
    # A model of the user's that was drawn without a seed has other parameters on every rank.
    theta = np.asarray(space.comm.bcast(theta, 0))
    if isinstance(config.field, PythonField) and space.comm.size > 1:
        _require_one_field(config.field, field, theta[0], space)
    return theta


def _require_one_field(config: PythonField, field: VectorField, row: Floats, space: DensitySpace) -> None:
    """Refuse a user's field with fixed parts that were drawn without a seed. Collective.

    Raises:
        InputError: its velocity differs from rank to rank.
    """
    low, high = space.bounding_box
    points = low + np.linspace(0.3, 0.6, 3)[:, None] * (high - low)
    with agreed(space.comm):
        layered = PiecewiseField.equal(field, 1.0, 1, label_dependent=config.label_dependent)
        v = layered.value(0, row, points, 0)
    values = np.array(space.comm.allgather(v))
    if not np.allclose(values, values[0], rtol=1e-6, atol=1e-6 * float(np.max(np.abs(values)))):
        raise InputError(
            "is not the same on all ranks, although its parameters are",
            key="field.object",
            value=config.object,
            remedy="Give a seed to the random numbers that its module draws.",
        )


def _theta(config: Config, field: VectorField, velocity_space: VelocitySpace, rho: Floats) -> Floats:
    """Where to start, (L, p), or (1, p) for tied layers. Collective."""
    space = velocity_space.density_space
    if config.field.theta != IDEAL or not isinstance(field, Nodal):
        return _given_theta(config, field, space)
    if config.objective.kinetic <= 0.0:
        raise InputError(
            "the ideal velocities are not determined without kinetic energy",
            key="field.theta",
            value=IDEAL,
            remedy="Set objective.kinetic > 0.",
        )
    from eulerian.ideal.dynamic_ot import solve_convex
    from eulerian.ideal.free_theta import nodal_theta

    solution = solve_convex(
        _ideal(config, space, rho),
        gap_tolerance=config.ideal.gap_tolerance,
        residual_tolerance=config.ideal.residual_tolerance,
        max_iterations=config.ideal.max_iterations,
    )
    return nodal_theta(solution.flow, field, velocity_space, 1 if config.field.tied else config.field.layers)
