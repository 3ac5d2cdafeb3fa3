"""What particles may cost: at their end a loss, or its part of KL(ρ(T) | ρ*) = E[log ρ(T, x(T)) − log ρ*(x(T))]."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, ClassVar, NoReturn, Self, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.density.shape import LabelledShape
from eulerian.objective.costs import Costs
from eulerian.objective.distances import BLIND, DensityFunctional, KullbackLeibler
from eulerian.objective.interactions import QuadraticFunctional
from eulerian.objective.losses import as_loss
from eulerian.objective.parts import part_names
from eulerian.objective.point_loss import PointLoss
from eulerian.particles.crowd import CrowdLoss
from eulerian.particles.targets import labelled_terms, normalised

KEY = "terminal.target"

NO_COMMON_STEPS = "particles that pay for one another all along the way need time steps that all of them take"


@final
@dataclass(frozen=True)
class KlLoss(PointLoss):
    """The part −log ρ*_y(x) of the relative entropy: a point loss; particles add log ρ_y(T, x), which they carry.

    Summed over the labels, KL = Σ_y ∫ρ_y log(ρ_y/ρ*_y), with ρ* on all of R^d: particles know no walls.

    Attributes:
        terms: the shapes that ρ* consists of, each with its factor; every label has one.
        n_labels: K.
    """

    adds_log_density: ClassVar[bool] = True

    terms: tuple[tuple[LabelledShape, float], ...]
    n_labels: int

    @classmethod
    def of(cls, terms: Sequence[LabelledShape], masses: Sequence[float], n_labels: int) -> Self:
        """Of a target of mass 1.

        Args:
            terms: their weights are shares of the mass.
            masses: what the shapes themselves integrate to.
            n_labels: K.
        """
        return cls(normalised(terms, masses), n_labels)

    def value(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """−log ρ*_y at points for every label, (n, K)."""
        return -np.stack([self._log(x, label) for label in range(self.n_labels)], axis=1)

    def gradient(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """Derivative in space for every label, (n, K, dim)."""
        return -np.stack([self._slope(x, label) for label in range(self.n_labels)], axis=1)

    def _of_label(self, label: int) -> list[tuple[LabelledShape, float]]:
        return [(term, np.log(factor)) for term, factor in self.terms if term.label == label]

    def _log(self, x: Floats, label: int) -> Floats:
        """The logarithm of a mixture (n,)."""
        logs = [term.shape.log_values(x) + shift for term, shift in self._of_label(label)]
        return logs[0] if len(logs) == 1 else np.asarray(np.logaddexp.reduce(logs, axis=0))

    def _slope(self, x: Floats, label: int) -> Floats:
        """Its gradient (n, dim): the mean of the terms' by their shares of ρ*."""
        found = [(term.shape.log_and_gradient(x), shift) for term, shift in self._of_label(label)]
        if len(found) == 1:
            return found[0][0][1]
        logs = np.stack([log + shift for (log, _), shift in found])
        slopes = np.stack([slope for (_, slope), _ in found])
        with np.errstate(all="ignore"):
            parts = np.exp(logs - np.logaddexp.reduce(logs, axis=0))
        # A term that vanishes at a point has no slope there, and no part in that of the mixture.
        return np.asarray(np.einsum("mn,mni->ni", parts, np.where(parts[..., None] > 0.0, slopes, 0.0)))


def kl_loss(target: Any, dim: int, n_labels: int, key: str = KEY) -> KlLoss:
    """The loss of a target that a user gives. A shape of unknown mass, as of a formula, counts as if it were 1.

    Args:
        target: a shape, a list of shapes (a mixture of equal shares), a dictionary label → one of these, or a
            projected ``Density``, whose shapes then have their masses inside its domain.
        dim: of space.
        n_labels: K.
        key: what it is called in messages.

    Raises:
        InputError: it is none of these, or does not fit the dimension or the labels.
    """
    if isinstance(target, KlLoss):
        return target
    if (exact := getattr(target, "exact", None)) is not None:
        return KlLoss(tuple(exact.terms), n_labels)
    return KlLoss(normalised(labelled_terms(target, dim, n_labels, key)), n_labels)


@singledispatch
def particle_loss(terminal: Any, dim: int, n_labels: int, key: str = "terminal") -> PointLoss:
    """What the end of a particle costs.

    Args:
        terminal: a loss, a function of points, or a distance.
        dim: of space.
        n_labels: K.
        key: what it is called in messages.

    Raises:
        InputError: particles cannot have it.
    """
    return as_loss(terminal, key).bind(dim, n_labels, key)


@particle_loss.register
def _(terminal: KullbackLeibler, dim: int, n_labels: int, key: str = "terminal") -> PointLoss:
    return kl_loss(terminal.target, dim, n_labels, f"{key}.target")


@particle_loss.register
def _(terminal: DensityFunctional, dim: int, n_labels: int, key: str = "terminal") -> NoReturn:  # noqa: ARG001
    raise _refusal(key, terminal.kind, *terminal.particles_cannot)


@particle_loss.register
def _(terminal: QuadraticFunctional, dim: int, n_labels: int, key: str = "terminal") -> PointLoss:
    return CrowdLoss.of(terminal, dim, n_labels, key)


def refuse_costs(costs: Costs, method: str) -> None:
    """Raise InputError where there are costs of the density, which particles do not know, or cannot pay together."""
    if costs.interaction is not None and method != "rk4":
        raise InputError(NO_COMMON_STEPS, key="method", value=method, remedy='Use "rk4".')
    if costs.running is not None:
        raise _refusal("costs.running", costs.running.kind, *costs.running.particles_cannot)
    for name in part_names("density"):
        if getattr(costs, name) > 0.0:
            raise _refusal(f"costs.{name}", getattr(costs, name), BLIND, "Set it to 0.")


def _refusal(key: str, value: object, reason: str = "", remedy: str = "") -> InputError:
    return InputError(f"particles cannot have this: {reason}", key=key, value=value, remedy=remedy)
