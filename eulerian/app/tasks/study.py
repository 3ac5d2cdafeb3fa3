"""`eulerian compare --study`: how fast meshes and particles converge to one another, and what it costs.

The truth is the flow of the network itself, from a ρ₀ that is the projection of the configuration's on a mesh of half
the finest rung's size, in degree 2 (integrals of smooth functions against its error are of the order h⁶). All particles
are drawn from that ρ₀. So projecting ρ₀ on a coarse mesh is part of that mesh's error and no part of the particles',
and so is the interpolation of the velocity. Densities are compared with the density along characteristics, J and ∇J
against the finest of both methods, whichever has the smaller estimated error. References take half the particles'
steps in time, so that the particles' own error in time is seen too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, final

from mpi4py import MPI

import numpy as np

from eulerian.analysis.convergence import (
    Reference,
    Resolution,
    Rung,
    Trial,
    best_reference,
    disagreement,
    mesh_reference,
    root_mean_square,
    sampled_reference,
)
from eulerian.analysis.pushed_density import PushedDensity, density_values, l1_distance
from eulerian.analysis.stopwatch import EvaluationCost, Seconds, clocked, evaluation_cost
from eulerian.app.build.mesh import create_mesh
from eulerian.app.build.mixture import initial_density
from eulerian.app.build.network import build
from eulerian.app.build.particles import particles_on, sample_of
from eulerian.app.config import Config
from eulerian.app.runs.progress import Progress
from eulerian.app.tasks.compare_methods import all_points, kernel_error, pushed_density
from eulerian.app.tasks.network_run import finite_value
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.control.control import ControlProblem
from eulerian.density.gathered import GatheredDensity
from eulerian.density.space import DensitySpace
from eulerian.particles.problem import ParticleProblem

type Sampling = Literal["random", "sobol"]

_REFERENCE_DEGREE = 2


@final
@dataclass(frozen=True)
class StudyPlan:
    """What is tried.

    Attributes:
        degrees: of the densities.
        halvings: of the size of the configuration's cells, negative ones coarsen (boxes only); None chooses.
        counts: numbers of particles of one set.
        replicates: sets of every number.
        reference_count: particles of a set of the reference, Sobol points.
        reference_replicates: its sets.
    """

    degrees: tuple[int, ...]
    halvings: tuple[int, ...] | None = None
    counts: tuple[int, ...] = (256, 1024, 4096, 16384)
    replicates: int = 8
    reference_count: int = 65536
    reference_replicates: int = 4

    def levels(self, config: Config, dim: int) -> list[int]:
        """The halvings that are possible, from coarse to fine."""
        chosen = self.halvings
        if chosen is None:
            finest = 1 if dim < 3 else 0
            chosen = tuple(range(finest - 3, finest + 1)) if config.domain.box else tuple(range(finest + 2))
        return [level for level in sorted(set(chosen)) if _possible(config, level)]


@final
@dataclass(frozen=True)
class Study:
    """What was found.

    Attributes:
        rungs: of all ladders.
        reference: of J and ∇J.
        disagreement: relative distance of ∇J between the finest of both methods.
        expected: the sum of their estimated errors. Where the distance is far above it their limits differ: at walls,
            which particles do not feel.
    """

    rungs: tuple[Rung, ...]
    reference: Reference
    disagreement: float
    expected: float


def refined(config: Config, level: int, degree: int) -> Config:
    """The configuration with cells 2^level times smaller, and densities of another degree."""
    box, refine = config.domain.box, config.domain.refine + level
    if refine < 0:
        assert box is not None
        box = box.model_copy(update={"cells": tuple(n >> -refine for n in box.cells)})
    return config.with_values("domain", box=box, refine=max(refine, 0)).with_values("density", degree=degree)


def _possible(config: Config, level: int) -> bool:
    """Whether there is a mesh with cells 2^level times smaller: a box must keep three cells a side."""
    times = -(config.domain.refine + level)
    box = config.domain.box
    return times <= 0 or (box is not None and all(n % 2**times == 0 and n >> times > 2 for n in box.cells))


def run_study(config: Config, problem: ControlProblem, theta: Floats, plan: StudyPlan, progress: Progress) -> Study:
    """Climb all ladders at one θ. **Collective**.

    Args:
        config: whose mesh is made coarser and finer.
        problem: of that configuration.
        theta: for all rungs.
        plan: what is tried.
        progress: gets a line for every rung.

    Raises:
        InputError: the mesh leaves no two rungs.
        RejectedEvaluation: J cannot be evaluated on a rung.
    """
    levels = plan.levels(config, problem.density_space.dim)
    if len(levels) < 2:
        raise InputError("cannot be halved: a study needs two meshes", key="domain.box.cells", value=config.domain.box)
    setup = _StudySetup.of(config, problem, theta, levels[-1] + 1)
    trials = [_mesh_trial(setup, level, degree, progress) for degree in plan.degrees for level in levels]
    by_degree = [[trial for trial in trials if trial.resolution.degree == degree] for degree in plan.degrees]
    for sampling in ("random", "sobol"):
        trials += [_sample_trial(setup, sampling, n, plan.replicates, progress) for n in plan.counts]
    scaling, sets = problem.scaling, plan.reference_replicates
    values, gradients = setup.evaluated(setup.careful, "sobol", plan.reference_count, sets)
    sampled = sampled_reference(f"{sets} sets of {plan.reference_count} Sobol points", values, gradients, scaling)
    meshes = best_reference(mesh_reference(each, scaling) for each in by_degree)
    reference = best_reference((sampled, meshes))
    rungs = tuple(Rung.of(trial, reference, scaling) for trial in trials)
    return Study(rungs, reference, disagreement(sampled, meshes, scaling), sampled.error + meshes.error)


@dataclass(frozen=True)
class _StudySetup:
    """What all rungs share.

    Attributes:
        config: as given.
        careful: with half the particles' steps in time.
        problem: of ``config``; knows field and loss.
        theta: for both methods.
        initial: the ρ₀ that particles are drawn from.
        pushed: the truth at T.
        exact: its values where the densities of ``problem`` are compared.
    """

    config: Config
    careful: Config
    problem: ControlProblem
    theta: Floats
    initial: GatheredDensity
    pushed: PushedDensity
    exact: Floats

    @classmethod
    def of(cls, config: Config, problem: ControlProblem, theta: Floats, level: int) -> "_StudySetup":
        """Project ρ₀ on the mesh of ``level`` and carry it along. Collective."""
        fine = refined(config, level, _REFERENCE_DEGREE)
        space = DensitySpace(create_mesh(problem.comm, fine.domain), _REFERENCE_DEGREE, problem.density_space.n_labels)
        initial = GatheredDensity.gather(space, initial_density(space, fine.density.initial)).non_negative()
        settings = config.particles
        steps, tolerance = 2 * settings.steps_per_layer, settings.tolerance / 100
        careful = config.with_values("particles", file=None, steps_per_layer=steps, tolerance=tolerance)
        # The pushed density needs the particles' field and steps only, so any few particles will do.
        few = sample_of(_sized(careful, "sobol", 64 * space.n_labels, 0), initial, problem.comm)
        pushed = pushed_density(initial, particles_on(careful, problem, few), theta)
        return cls(config, careful, problem, theta, initial, pushed, pushed.at(problem.density_space))

    def particle_sets(self, config: Config, sampling: Sampling, n: int, replicates: int) -> Iterator[ParticleProblem]:
        """Problems on independent sets of n particles, evaluated at θ. Collective."""
        for replicate in range(replicates):
            sized = _sized(config, sampling, n, 100 * n + replicate)  # no two sets share a seed, whatever their sizes
            sample = sample_of(sized, self.initial, self.problem.comm)
            particles = particles_on(sized, self.problem, sample)
            finite_value(particles, self.theta, "this θ on particles")
            yield particles

    def evaluated(self, config: Config, sampling: Sampling, n: int, replicates: int) -> tuple[Floats, Floats]:
        """J (R,) and ∇J (R, n_params) of independent sets. Collective."""
        found = [each.value_and_gradient(self.theta) for each in self.particle_sets(config, sampling, n, replicates)]
        return np.array([value for value, _ in found]), np.stack([gradient.ravel() for _, gradient in found])


def _sized(config: Config, sampling: Sampling, n: int, seed: int) -> Config:
    """With one set of n particles."""
    seed += config.particles.seed
    return config.with_values("particles", count=n, sampling=sampling, seed=seed, replicates=1, file=None)


def _mesh_trial(setup: _StudySetup, level: int, degree: int, progress: Progress) -> Trial:
    """Collective."""
    problem = build(refined(setup.config, level, degree), setup.problem.comm)
    finite_value(problem, setup.theta, "this θ on a mesh of the study")
    cost = evaluation_cost(problem, setup.theta)
    value, gradient = problem.value_and_gradient(setup.theta)
    space = problem.density_space
    distance = l1_distance(space, density_values(space, problem.final_density), setup.pushed.at(space))
    cells = space.mesh.topology.index_map(space.dim).size_global
    progress.say(f"  degree {degree}, {cells} cells: {cost.gradient.wall:.2f} s for J and ∇J")
    resolution = Resolution("mesh", degree, cells, longest_edge(space))
    return Trial(resolution, np.array([value]), gradient.reshape(1, -1), float(distance.sum()), cost, 0.0)


def _sample_trial(setup: _StudySetup, sampling: Sampling, n: int, replicates: int, progress: Progress) -> Trial:
    """Collective."""
    space, comm = setup.problem.density_space, setup.problem.comm
    found, costs, distances, seconds = [], [], [], []
    for particles in setup.particle_sets(setup.config, sampling, n, replicates):
        costs.append(evaluation_cost(particles, setup.theta, most=1))
        found.append(particles.value_and_gradient(setup.theta))
        error, spent = clocked(comm, partial(kernel_error, space, all_points(particles), setup.exact))
        distances.append(float(error.sum()))
        seconds.append(spent.cpu)
    cost = _mean(costs)
    progress.say(f"  {n} {sampling} particles: {cost.gradient.wall:.2f} s for J and ∇J")
    return Trial(
        Resolution(sampling, particles=n),
        np.array([value for value, _ in found]),
        np.stack([gradient.ravel() for _, gradient in found]),
        root_mean_square(distances),
        cost,
        float(np.mean(seconds)),
    )


def _mean(costs: list[EvaluationCost]) -> EvaluationCost:
    def mean(each: list[Seconds]) -> Seconds:
        return Seconds(float(np.mean([s.wall for s in each])), float(np.mean([s.cpu for s in each])))

    return EvaluationCost(mean([cost.value for cost in costs]), mean([cost.gradient for cost in costs]))


def longest_edge(space: DensitySpace) -> float:
    """Largest diameter of a cell. Collective."""
    x = space.vertices
    lengths = np.linalg.norm(x[:, :, None] - x[:, None, :], axis=3)
    return float(space.comm.allreduce(float(lengths.max(initial=0.0)), MPI.MAX))
