"""Ladders of approximations: what each rung costs, how far it is from the truth, and how fast that falls."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from eulerian.analysis.gradient_match import GradientMatch
from eulerian.analysis.stopwatch import EvaluationCost
from eulerian.base.arrays import Floats

ERRORS: Final = ("objective_error", "gradient_error", "density_error")


@final
@dataclass(frozen=True)
class Resolution:
    """What an approximation is.

    Attributes:
        method: "mesh", or the sampling of particles: "random" or "sobol".
        degree: of the densities; None for particles.
        cells: of the mesh; 0 for particles.
        h: longest edge of the mesh; NaN for particles.
        particles: of one set; 0 on a mesh.
    """

    method: str
    degree: int | None = None
    cells: int = 0
    h: float = math.nan
    particles: int = 0

    @property
    def ladder(self) -> str:
        """The name of the ladder that this is a rung of."""
        return f"{self.method} particles" if self.degree is None else f"mesh, degree {self.degree}"

    @property
    def fineness(self) -> float:
        """What errors are powers of: 1/h, or the number of particles."""
        return float(self.particles) if self.degree is None else 1.0 / self.h


@final
@dataclass(frozen=True, eq=False)
class Trial:
    """What one approximation found, R times over where sets of particles are drawn.

    Attributes:
        resolution: what it is.
        values: (R,) J.
        gradients: (R, n_params).
        density_error: L¹ distance of ρ(T), the root mean square over sets.
        cost: of one J and one ∇J.
        density_cpu: processor seconds that the density at T takes beyond J.
    """

    resolution: Resolution
    values: Floats
    gradients: Floats
    density_error: float
    cost: EvaluationCost
    density_cpu: float


@final
@dataclass(frozen=True, eq=False)
class Reference:
    """J and ∇J that others are held against.

    Attributes:
        name: what it is, in words.
        value: J.
        gradient: (n_params,).
        error: estimated relative error of the gradient.
        trial: the rung that it is itself, if it is one.
    """

    name: str
    value: float
    gradient: Floats
    error: float
    trial: Trial | None = None


@final
@dataclass(frozen=True)
class Rung:
    """An approximation with its relative errors, root mean squares over sets; NaN for the reference itself.

    Attributes:
        trial: what it found.
        objective_error: of J.
        gradient_cosine: of the angle between ∇J and the reference, the mean over sets.
        gradient_error: of ∇J, in L²(0, T).
    """

    trial: Trial
    objective_error: float
    gradient_cosine: float
    gradient_error: float

    @classmethod
    def of(cls, trial: Trial, reference: Reference, scaling: Floats) -> "Rung":
        """Hold a trial against a reference; ``scaling`` (n_params,) is that of ``ReducedProblem``."""
        if trial is reference.trial:
            return cls(trial, math.nan, math.nan, math.nan)
        matches = [GradientMatch.of(gradient, reference.gradient, scaling) for gradient in trial.gradients]
        return cls(
            trial,
            root_mean_square((trial.values - reference.value) / (reference.value or 1.0)),
            float(np.mean([match.cosine for match in matches])),
            root_mean_square([match.relative_error for match in matches]),
        )

    @property
    def density_error(self) -> float:
        """L¹ distance of ρ(T); all densities together have mass 1."""
        return self.trial.density_error

    @property
    def resolution(self) -> Resolution:
        """What the approximation is."""
        return self.trial.resolution


def root_mean_square(values: Sequence[float] | Floats) -> float:
    """Of numbers (n,)."""
    return float(np.sqrt(np.mean(np.square(values))))


def ladders(rungs: Iterable[Rung]) -> dict[str, list[Rung]]:
    """The rungs of each ladder, in the order given."""
    found: dict[str, list[Rung]] = {}
    for rung in rungs:
        found.setdefault(rung.resolution.ladder, []).append(rung)
    return found


def observed_rate(rungs: Sequence[Rung], error: str) -> float:
    """R in error ~ fineness^(−r), by least squares over the rungs of a ladder; NaN without two that differ.

    Args:
        rungs: of one ladder.
        error: one of ``ERRORS``.
    """
    pairs = [(rung.resolution.fineness, float(getattr(rung, error))) for rung in rungs]
    pairs = [(fineness, found) for fineness, found in pairs if math.isfinite(found) and found > 0.0]
    if len({fineness for fineness, _ in pairs}) < 2:
        return math.nan
    fineness, found = np.log(np.array(pairs)).T
    return float(-np.polyfit(fineness, found, 1)[0])


def best_reference(candidates: Iterable[Reference]) -> Reference:
    """The candidate with the smallest estimated error; one whose error is unknown only if there is no other."""
    return min(candidates, key=lambda candidate: candidate.error if math.isfinite(candidate.error) else math.inf)


def sampled_reference(name: str, values: Floats, gradients: Floats, scaling: Floats) -> Reference:
    """The mean over independent sets, (R,) and (R, n_params), whose standard error is its error."""
    mean = gradients.mean(axis=0)
    spread = gradients.std(axis=0, ddof=1) / math.sqrt(len(gradients))
    return Reference(name, float(values.mean()), mean, _relative(spread, mean, scaling))


def mesh_reference(rungs: Sequence[Trial], scaling: Floats) -> Reference:
    """The finest mesh of a ladder of two at least, from coarse to fine.

    Its error is what remains if the last two gradients differ by what the degree promises, h^(p+1).
    """
    coarse, fine = rungs[-2:]
    degree = fine.resolution.degree
    assert degree is not None
    ratio = (fine.resolution.fineness / coarse.resolution.fineness) ** (degree + 1)
    # Of two rungs close together the formula makes more than their difference: that is not believed.
    error = _relative(fine.gradients[0] - coarse.gradients[0], fine.gradients[0], scaling) / max(ratio - 1.0, 1.0)
    name = f"the mesh of {fine.resolution.cells} cells in degree {degree}"
    return Reference(name, float(fine.values[0]), fine.gradients[0], error, fine)


def disagreement(one: Reference, other: Reference, scaling: Floats) -> float:
    """Relative distance of two gradients; where it is far above their errors the methods have different limits."""
    return _relative(one.gradient - other.gradient, other.gradient, scaling)


def _relative(part: Floats, reference: Floats, scaling: Floats) -> float:
    length = float(np.linalg.norm(reference / scaling))
    return float(np.linalg.norm(part / scaling)) / length if length > 0.0 else math.nan
