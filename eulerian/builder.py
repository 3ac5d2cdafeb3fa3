"""From a configuration to a ControlProblem."""

from mpi4py import MPI

from eulerian.config import Config, check_dimension, check_labels, loss_terminal
from eulerian.control import ControlProblem
from eulerian.fields.build import build_field, initial_theta
from eulerian.objective.running import VelocityCost
from eulerian.objective.terminal import build_terminal
from eulerian.parallel import agreed
from eulerian.space.density import DensitySpace
from eulerian.space.initial import count_labels, initial_density
from eulerian.space.mesh import create_mesh
from eulerian.space.velocity import VelocitySpace
from eulerian.transport.operator import flux_smoothing
from eulerian.transport.trajectory import TimeGrid


def build(config: Config, comm: MPI.Comm | None = None) -> ControlProblem:
    """The problem that a configuration describes. Collective.

    Args:
        config: from ``read_config``.
        comm: who shares the work, everybody by default.

    Raises:
        InputError: something in the configuration, or in a file that it names, does not fit; the same on all ranks.
    """
    comm = MPI.COMM_WORLD if comm is None else comm
    loss = loss_terminal(config)
    mesh = create_mesh(comm, config.domain)
    dim = mesh.topology.dim
    n_labels = count_labels(config.density.initial, comm)
    check_dimension(config, dim)
    check_labels(config, n_labels)
    density_space = DensitySpace(mesh, config.density.degree, n_labels)
    velocity_space = VelocitySpace(density_space)
    rho = initial_density(density_space, config.density.initial)
    terminal = build_terminal(loss, density_space)
    low, high = density_space.bounding_box
    nodes = velocity_space.all_nodes() if config.field.kind == "free" else None
    with agreed(comm):
        field = build_field(config.field, dim, n_labels, low.tolist(), high.tolist(), nodes)
        theta = initial_theta(config.field, field, dim, config.field.layers)
    objective, solver = config.objective, config.solver
    return ControlProblem(
        velocity_space,
        field,
        rho,
        terminal,
        VelocityCost(velocity_space, objective.kinetic, objective.jacobian),
        (objective.parameters, objective.parameters_h1),
        TimeGrid(config.field.horizon, config.field.layers, solver.cfl, solver.max_steps_per_layer),
        theta,
        label_dependent=config.field.label_dependent,
        limited=solver.limiter,
        memory=solver.memory_bytes,
        smoothing=flux_smoothing(density_space, config.field.horizon, solver.flux_smoothing),
    )
