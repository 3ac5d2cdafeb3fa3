"""Densities against particles at one θ: every number of `eulerian compare`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from eulerian.analysis import wasserstein
from eulerian.analysis.gradient_match import GradientMatch, gradient_length
from eulerian.analysis.kernel_estimate import KernelEstimate
from eulerian.analysis.pushed_density import PushedDensity, density_values, distance_rule, l1_distance
from eulerian.analysis.stopwatch import EvaluationCost, evaluation_cost
from eulerian.analysis.wasserstein import LabelledDistance, LabelledPoints, distance_by_label
from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.control.control import ControlProblem
from eulerian.density.gathered import GatheredDensity
from eulerian.density.sampling import draw_points
from eulerian.density.space import DensitySpace
from eulerian.objective.parts import part_names
from eulerian.particles.flow import carry_back
from eulerian.particles.problem import ParticleProblem

# Points a side of sliced distances, and of exact ones on the line: both sort.
_SORTED_POINTS = 100_000


@final
@dataclass(frozen=True)
class Parts:
    """J and its parts by both methods.

    Attributes:
        mesh: by name, "total" among them.
        particles: the same.
        interval: half widths of the 95 % confidence intervals of the particles' values; NaN if unknown.
    """

    mesh: Mapping[str, float]
    particles: Mapping[str, float]
    interval: Mapping[str, float]

    @property
    def rows(self) -> dict[str, tuple[float, float, float]]:
        """By name: mesh, particles, interval."""
        return {name: (value, self.particles[name], self.interval[name]) for name, value in self.mesh.items()}


@final
@dataclass(frozen=True)
class Gradients:
    """The gradients of both methods against one another.

    Attributes:
        match: relative to ``reference``.
        reference: "mesh" or "particles", whichever has more samples: degrees of freedom of the density, or particles.
        sampling_error: relative standard error of the particles' gradient; NaN if unknown.
        initial: norm of the mesh's gradient where training starts. At a trained θ both gradients are small, and an
            error relative to one of them, or an angle, says little.
    """

    match: GradientMatch
    reference: str
    sampling_error: float
    initial: float

    @property
    def initial_error(self) -> float:
        """Their distance relative to the initial gradient; NaN where that vanishes."""
        return self.match.distance / self.initial if self.initial > 0.0 else math.nan


@final
@dataclass(frozen=True)
class Transport:
    """Wasserstein distances between ρ(T) and the particles at T.

    Attributes:
        exact: W₂.
        sliced: sliced W₂.
        floor: W₂ between ρ(T) and random draws from it, as many as there were particles: no more can be seen.
        points: on the particles' side of ``exact``.
    """

    exact: LabelledDistance
    sliced: LabelledDistance
    floor: LabelledDistance
    points: int


@final
@dataclass(frozen=True)
class DensityErrors:
    """L¹ distances over the domain to the density along characteristics, per label (K,).

    Attributes:
        mesh: of ρ(T) on the mesh, by the forward identity where the flow has been verified (see
            ``analysis.characteristics``), else at the points of a rule on the mesh, which may miss filaments.
        kernel: of a kernel estimate from the particles; NaN for labels of too few points.
        reference: (n_owned, nq, K) the density along characteristics at the points of ``distance_rule``.
    """

    mesh: Floats
    kernel: Floats
    reference: Floats


def compare_parts(mesh: ControlProblem, particles: ParticleProblem) -> Parts:
    """J and its parts at the last evaluation of both. Collective."""
    names = ("total", *part_names())
    return Parts(
        {"total": math.fsum(mesh.parts.values()), **mesh.parts},
        {"total": math.fsum(particles.parts.values()), **particles.parts},
        {name: particles.interval(name) for name in names},
    )


def compare_gradients(mesh: ControlProblem, particles: ParticleProblem, theta: Floats, start: Floats) -> Gradients:
    """∇J of both at θ, and of the mesh at the ``start`` of a training. Collective."""
    initial = gradient_length(mesh.value_and_gradient(start)[1], mesh.scaling)
    found = {"mesh": mesh.value_and_gradient(theta)[1], "particles": particles.value_and_gradient(theta)[1]}
    space = mesh.density_space
    # The method with more samples is likely the more accurate one, and so the better reference.
    unknowns = space.mesh.topology.index_map(space.dim).size_global * space.nd * space.n_labels
    reference, other = ("mesh", "particles") if unknowns >= particles.count else ("particles", "mesh")
    error = particles.gradient_norm(particles.gradient_interval()) / particles.gradient_norm(found["particles"])
    match = GradientMatch.of(found[other], found[reference], mesh.scaling)
    return Gradients(match, reference, error, initial)


def pushed_density(initial: GatheredDensity, particles: ParticleProblem, theta: Floats) -> PushedDensity:
    """ρ(T) along the characteristics of the network itself, from ρ₀ and with the particles' steps in time."""
    rows, _ = particles.split(theta)
    return PushedDensity(
        initial,
        lambda x, labels: carry_back(particles.layered, rows, x, labels, particles.scheme, particles.comm),
        particles.layered.label_dependent,
    )


def compare_densities(
    mesh: ControlProblem, pushed: PushedDensity, points: LabelledPoints, verified: Floats | None
) -> DensityErrors:
    """Distances of ρ(T) and of a kernel estimate from all particles at T to the pushed density. Collective.

    Args:
        mesh: evaluated.
        pushed: the density along characteristics.
        points: all particles at T.
        verified: (K,) the distances of ρ(T) relative to the labels' masses, where they are known already.
    """
    space = mesh.density_space
    reference = pushed.at(space)
    on_mesh = None if verified is None else verified * space.mass(mesh.initial_density)
    return DensityErrors(
        l1_distance(space, density_values(space, mesh.final_density), reference) if on_mesh is None else on_mesh,
        kernel_error(space, points, reference),
        reference,
    )


def kernel_error(space: DensitySpace, points: LabelledPoints, reference: Floats) -> Floats:
    """L¹ distances (K,) of kernel estimates from points, the same on all ranks, to a density. Collective."""
    at = distance_rule(space).points
    values = np.full(reference.shape, np.nan)
    for label in range(space.n_labels):
        own = points.labels == label
        try:
            estimate = KernelEstimate.of(points.x[own], points.weights[own])
        except (np.linalg.LinAlgError, ValueError):  # too few points, or all in one place
            continue
        values[..., label] = estimate.values(at.reshape(-1, space.dim)).reshape(at.shape[:2])
    return l1_distance(space, values, reference)


def compare_transport(mesh: ControlProblem, points: LabelledPoints, seed: int) -> Transport | None:
    """Wasserstein distances between ρ(T) and all particles at T; None without the library POT. Collective."""
    space = mesh.density_space
    gathered = GatheredDensity.gather(space, mesh.final_density)
    return parallel.on_root(space.comm, lambda: _distances(gathered, points, seed) if wasserstein.available() else None)


def _distances(gathered: GatheredDensity, points: LabelledPoints, seed: int) -> Transport:
    def drawn(n: int, method: Any) -> LabelledPoints:
        found = draw_points(gathered, max(n, gathered.n_labels), method=method, seed=seed)
        return LabelledPoints(found.x, found.labels, found.weights)

    limit = _SORTED_POINTS if gathered.dim == 1 else wasserstein.PLAN_POINTS
    few, many = points.thinned(limit, seed), points.thinned(_SORTED_POINTS, seed)
    dense = drawn(limit, "sobol")  # Sobol points stand for ρ(T): their own distance to it is far below that of draws
    return Transport(
        distance_by_label(dense, few, gathered.n_labels, wasserstein.wasserstein2),
        distance_by_label(
            drawn(max(len(many.x), limit), "sobol"), many, gathered.n_labels, wasserstein.sliced_wasserstein2
        ),
        distance_by_label(dense, drawn(len(few.x), "random"), gathered.n_labels, wasserstein.wasserstein2),
        len(few.x),
    )


def all_points(particles: ParticleProblem) -> LabelledPoints:
    """The particles at T with their labels and weights, on all ranks, in the order of the sample. Collective."""
    sample, comm = particles.sample, particles.comm
    rows = (particles.final_points, sample.labels, sample.weights)
    x, labels, weights = (np.concatenate(comm.allgather(each)) for each in rows)
    return LabelledPoints(x, labels, weights)


@final
@dataclass(frozen=True)
class Comparison:
    """Both methods at one θ.

    Attributes:
        parts: J.
        gradients: ∇J.
        densities: L¹ distances.
        transport: Wasserstein distances, or None without POT.
        costs: of the "mesh" and of the "particles".
        moments: means (K, dim) and covariances (K, dim, dim) of the particles.
        outside: share of the particles' weight that ends outside the domain's bounding box.
        points: all particles at T.
        pushed: the density along characteristics.
    """

    parts: Parts
    gradients: Gradients
    densities: DensityErrors
    transport: Transport | None
    costs: Mapping[str, EvaluationCost]
    moments: tuple[Floats, Floats]
    outside: float
    points: LabelledPoints
    pushed: PushedDensity


def compare_methods(
    mesh: ControlProblem,
    particles: ParticleProblem,
    theta: Floats,
    seed: int,
    start: Floats,
    verified: Floats | None = None,
) -> Comparison:
    """Everything about both methods at θ, where both can be evaluated and have been once. Collective.

    Args:
        mesh: the problem on densities.
        particles: the one on particles that were drawn from its initial density.
        theta: for both.
        seed: of the draws from ρ(T).
        start: θ where a training starts, whose gradient is the measure of others.
        verified: (K,) L¹ errors of ρ(T), relative to the labels' masses, where they are known.
    """
    costs = {"mesh": evaluation_cost(mesh, theta), "particles": evaluation_cost(particles, theta)}
    points = all_points(particles)
    initial = GatheredDensity.gather(mesh.density_space, mesh.initial_density).non_negative()
    pushed = pushed_density(initial, particles, theta)
    gradients = compare_gradients(mesh, particles, theta, start)
    return Comparison(
        compare_parts(mesh, particles),
        gradients,
        compare_densities(mesh, pushed, points, verified),
        compare_transport(mesh, points, seed),
        costs,
        particles.moments(),
        particles.outside,
        points,
        pushed,
    )
