"""From a configuration to particles: what they cannot do, where they start, and their J."""

from functools import partial
from typing import Any

from mpi4py import MPI

import numpy as np

from eulerian.app.build.keys import configured_keys
from eulerian.app.build.memory import sample_needs, total_memory
from eulerian.app.build.mixture import class_names, count_labels, labelled_shapes, projected_target
from eulerian.app.config import (
    Config,
    Particles,
    check_target_labels,
)
from eulerian.app.config.checks import TARGET
from eulerian.app.config.density import Terms
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.memory_limits import require_memory
from eulerian.base.parallel import agreed, on_root
from eulerian.control.control import ControlProblem
from eulerian.density.csv_samples import SampleTable, class_key, read_samples
from eulerian.density.gathered import GatheredDensity
from eulerian.density.outside import check_samples
from eulerian.density.projection import mass_in_domain
from eulerian.density.sampling import draw_points
from eulerian.density.space import DensitySpace
from eulerian.fields.base import VectorField
from eulerian.objective.distances import BLIND
from eulerian.objective.parts import part_names
from eulerian.optimise.settings import VERIFIED
from eulerian.particles.kl import NO_COMMON_STEPS, KlLoss
from eulerian.particles.problem import ParticleProblem
from eulerian.particles.sample import ParticleSample, share
from eulerian.transport.time_grid import TimeGrid


def refuse_training_on_particles(config: Config) -> None:
    """Refuse what has no meaning where particles are trained on, from the configuration alone.

    Raises:
        InputError: names the first such key, and why.
    """
    if config.optimiser.levels > 1:
        raise _refusal("optimiser.levels", config.optimiser.levels, "they have no mesh to make coarser", "Set it to 1.")
    if config.optimiser.stop == VERIFIED:
        why = "they move as the network says, and have no mesh whose error could be verified"
        raise _refusal("optimiser.stop", VERIFIED, why, 'Set it to "gradient".')


def refuse_on_particles(config: Config) -> None:
    """Refuse what has no meaning on particles, from the configuration alone.

    Raises:
        InputError: names the first such key, and why.
    """
    objective = config.objective
    for key in part_names("density"):
        weight = getattr(objective, key)
        if weight > 0.0:
            raise _refusal(f"objective.{key}", weight, BLIND, "Set it to 0.")
    if objective.interaction is not None and config.particles.method != "rk4":
        value = config.particles.method
        raise InputError(NO_COMMON_STEPS, key="particles.method", value=value, remedy='Use "rk4".')
    for key, cost in objective.end_costs:
        if cost.particles_cannot:
            raise _refusal(f"{key}.kind", cost.kind, *cost.particles_cannot)
    if config.field.needs_nodes:
        raise _refusal("field.kind", config.field.kind, "nodal velocities live on a mesh", "Use another kind of field.")
    for key, cost in objective.end_costs:
        for index, term in enumerate(cost.mixture if cost.of_logarithms else ()):
            if not term.has_log_gradient:
                what = f"log ρ* of {_article(term.kind)} has no slope for particles that end where ρ* is zero"
                remedy = "Use gaussian, samples or expression terms."
                raise _refusal(f"{key}.target.{index}.kind", term.kind, what, remedy)


def _article(kind: str) -> str:
    return "an image" if kind == "image" else "a uniform density"


def _refusal(key: str, value: object, reason: str, remedy: str = "") -> InputError:
    remedy = " ".join(filter(None, (remedy, "A mesh has it: `eulerian train` without --method particles.")))
    return InputError(f"particles cannot have this: {reason}", key=key, value=value, remedy=remedy)


def sample_of(config: Config, initial: GatheredDensity, comm: MPI.Comm) -> ParticleSample:
    """This rank's share of the particles of ``[particles]``. **Collective**.

    Args:
        config: how many, how drawn, or which file; and what the labels of the initial density are called.
        initial: the density that they are drawn from; for samples of a file it gives the log-density.
        comm: who shares them.

    Raises:
        InputError: the file cannot be read or does not fit; the same on all ranks.
    """
    particles = config.particles
    if particles.file is not None:
        names = class_names(config.density.initial, initial.n_labels, comm)
        return _sample_of_file(particles, initial, names, comm)
    require_memory(sample_needs(particles, initial.dim), total_memory(comm))
    own = share(particles.count, comm)
    with agreed(comm):
        draw = draw_points(
            initial,
            particles.count,
            method=particles.sampling,
            seed=particles.seed,
            replicates=particles.replicates,
            start=own.start,
            stop=own.stop,
        )
    independent = particles.sampling == "random"
    return ParticleSample(draw.x, draw.labels, draw.weights, draw.log_density, draw.replicate, independent)


def _sample_of_file(
    particles: Particles, initial: GatheredDensity, names: tuple[str, ...], comm: MPI.Comm
) -> ParticleSample:
    """Samples of a file, all of one weight, assigned to the replicates in turn. Collective."""
    assert particles.file is not None
    assert particles.columns is not None
    file, columns, label_column = particles.file, particles.columns, particles.label_column

    def read() -> SampleTable:
        return _with_labels_of(names, read_samples(file, columns, label_column, key="particles"), label_column)

    samples = on_root(comm, read)
    n = len(samples.points)
    own = share(n, comm)
    x, labels = np.ascontiguousarray(samples.points[own]), samples.labels[own]
    with agreed(comm), np.errstate(divide="ignore"):
        inside = initial.contains(x)
        values = np.take_along_axis(initial.values(x), labels[:, None].astype(np.intp), axis=1)[:, 0]
        log_density = np.log(np.maximum(values, 0.0))
    fate = "move all the same, from where the initial density is zero"
    check_samples(comm, np.concatenate(comm.allgather(inside)), samples.labels, samples.classes, "particles.file", fate)
    replicate = np.arange(own.start, own.stop) % min(particles.replicates, n)
    return ParticleSample(x, labels, np.full(len(x), 1.0 / n), log_density, replicate)


def _with_labels_of(names: tuple[str, ...], samples: SampleTable, label_column: str | int | None) -> SampleTable:
    """Samples with the labels that their classes have in the initial density; not collective.

    Where that knows its labels by number only, classes are taken in their order.
    """
    key, remedy = "particles.label_column", "Give the column of the same classes as there."
    if len(samples.classes) != len(names):
        what = f"the samples have {len(samples.classes)} labels, but in density.initial there are {len(names)}"
        raise InputError(what, key=key, value=label_column, remedy=remedy)
    known = {class_key(name): label for label, name in enumerate(names)}
    unknown = [name for name in samples.classes if class_key(name) not in known]
    if unknown and names == tuple(map(str, range(len(names)))):
        return samples
    if unknown:
        what = f"a class that density.initial does not have: there are {', '.join(names)[:200]}"
        raise InputError(what, key=key, value=unknown[0], remedy=remedy)
    order = np.array([known[class_key(name)] for name in samples.classes], dtype=np.int32)
    return SampleTable(samples.points, order[samples.labels], names)


def particles_on(config: Config, problem: ControlProblem, sample: ParticleSample) -> ParticleProblem:
    """The same field, θ and objective as of a problem on a mesh, on particles. **Collective**.

    Raises:
        InputError: the field lacks a derivative that particles need, or the target of kl does not fit.
    """
    theta = np.ascontiguousarray(problem.split(problem.initial_theta)[0][: problem.layer_shape[0]])
    return particle_problem(config, problem.density_space, problem.field, theta, sample)


def particle_problem(
    config: Config, space: DensitySpace, field: VectorField, theta: Floats, sample: ParticleSample
) -> ParticleProblem:
    """J on particles. **Collective**.

    Args:
        config: objective, horizon and ``[particles]``.
        space: dimension, labels and bounding box; its mesh gives a formula among the targets its mass.
        field: v.
        theta: where to start, (L, p), or (1, p) for tied layers.
        sample: this rank's particles.

    Raises:
        InputError: the field lacks a derivative that particles need, or the target of kl does not fit.
    """
    objective, particles, section = config.objective, config.particles, config.field
    target = partial(particle_target, space=space)
    terminal, at = objective.terminal.cost(objective, target), objective.costs_at(target)
    with configured_keys():
        return ParticleProblem(
            sample,
            field,
            terminal,
            objective.costs(),
            TimeGrid(section.horizon, section.layers),
            at=at,
            comm=space.comm,
            n_labels=space.n_labels,
            box=np.stack(space.bounding_box),
            initial_theta=theta,
            label_dependent=section.label_dependent,
            tied=section.tied,
            method=particles.method,
            steps_per_layer=particles.steps_per_layer,
            tolerance=particles.tolerance,
            memory=config.solver.memory_bytes,
        )


def particle_target(terms: Terms, space: DensitySpace, key: str = TARGET, *, projected: bool = False) -> Any:
    """The target of a distance: projected into the space, or as that of a relative entropy. **Collective**."""
    return projected_target(space, terms, key) if projected else relative_entropy(terms, space, key)


def relative_entropy(target: Terms, space: DensitySpace, key: str = TARGET) -> KlLoss:
    """KL against a mixture of mass 1 on all of R^d; a formula has the mass of its part in the domain. **Collective**.

    Raises:
        InputError: the target has other labels than the density, or a term cannot be a target of particles.
    """
    check_target_labels(count_labels(target, space.comm, key), space.n_labels, key)
    terms = list(labelled_shapes(target, space.dim, space.comm, key))
    known = (term.shape.mass for term in terms)
    masses = [mass_in_domain(space, term) if mass is None else mass for term, mass in zip(terms, known, strict=True)]
    return KlLoss.of(terms, masses, space.n_labels)
