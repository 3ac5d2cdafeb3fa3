"""Terminal functionals of the final density, and their derivatives: losses Σ_y ∫ℓ(x, y) ρ_y(T, x) dx, distances."""

from collections.abc import Sequence
from functools import cached_property, singledispatch
from typing import Any, NoReturn

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats, require_finite
from eulerian.density.density import Density
from eulerian.density.exact_density import ExactDensity
from eulerian.density.space import DensitySpace, Quadrature
from eulerian.objective.continuous import FunctionDensity
from eulerian.objective.distances import FixedDensity, KullbackLeibler, SquaredDistance, UserFunctional
from eulerian.objective.floored_entropy import entropy, entropy_slope
from eulerian.objective.functional import Terminal as Terminal  # exported beside what they are on a mesh, too
from eulerian.objective.functional import TerminalValue as TerminalValue
from eulerian.objective.losses import as_loss
from eulerian.objective.point_loss import PointLoss


class LinearLoss(Terminal):
    """∫ℓρ_T: quadrature turns a loss that is not trained into one inner product, once and for all.

    Args:
        space: the space of ρ.
        loss: ℓ, bound.
        key: what it is called in messages.

    Raises:
        InputError: ℓ is not finite somewhere in the domain; the same on all ranks.
    """

    loss: PointLoss

    def __init__(self, space: DensitySpace, loss: PointLoss, key: str = "terminal") -> None:
        """Collective."""
        self._space, self.loss = space, loss
        # The user's function may raise, or not be finite, on some ranks only.
        start = self.initial_readout()
        with parallel.agreed(space.comm), np.errstate(all="ignore"):
            values = self._values(start)
            require_finite(values.reshape(-1, space.n_labels), self._points, "the loss", key)
        # What does not depend on a readout is integrated once: an evaluation is then one inner product.
        self._fixed = None if loss.n_readout else self._vector(values)

    def initial_readout(self) -> Floats:
        """Where the trained parameters start, (r,)."""
        return self.loss.initial_readout()

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K) and readout (r,). Collective."""
        space, owned = self._space, rho[: self._space.n_owned]
        vector, slope = (self._fixed, np.zeros(0)) if self._fixed is not None else self._trained(owned, readout)
        local = np.concatenate([[np.vdot(vector, owned)], slope])
        # Value and slope in one message: latency, not size, is what a reduction costs.
        total = parallel.sum_all(space.comm, local)
        return TerminalValue(float(total[0]), vector, total[1:])

    def _trained(self, owned: Floats, readout: Floats) -> tuple[Floats, Floats]:
        """The derivatives by ρ and, this rank's share of it, by the readout. Collective."""
        rule = self._rule
        mass = np.einsum("cq,qi,cik->cqk", rule.weights, rule.basis, owned, optimize=True)
        with parallel.agreed(self._space.comm), np.errstate(all="ignore"):  # it may be code of the user's
            vector = self._vector(self._values(readout))
            return vector, self.loss.readout_vjp(self._points, readout, mass.reshape(-1, self._space.n_labels))

    @property
    def affine_readout(self) -> bool:
        """See ``PointLoss``."""
        return self.loss.affine_readout

    @property
    def _rule(self) -> Quadrature:
        return self._space.quadrature(self._space.objective_degree)

    @cached_property
    def _points(self) -> Floats:
        return self._rule.points.reshape(-1, self._space.dim)

    def _values(self, readout: Floats) -> Floats:
        return self.loss.value(self._points, readout).reshape(*self._rule.weights.shape, self._space.n_labels)

    def _vector(self, values: Floats) -> Floats:
        return np.asarray(np.einsum("cq,qi,cqk->cik", self._rule.weights, self._rule.basis, values, optimize=True))


class _ToTarget(Terminal):
    """What functionals of a target density share.

    Args:
        space: the space of ρ.
        target: ρ* on the mesh (n_cells, nd, K).
        exact: ρ* itself, where that is known.
    """

    target: Floats

    def __init__(self, space: DensitySpace, target: Floats, exact: ExactDensity | None = None) -> None:
        self._space, self.target, self.exact = space, target, exact


class RelativeEntropy(_ToTarget):
    """KL(ρ_T | ρ*), of the mesh's density or by the balance of its entropy.

    Attributes:
        log_floor: (K,) or (1,) what log ρ* counts at least, softly: logaddexp(log ρ*, log_floor).
    """

    log_floor: Floats
    logarithmic = True

    def density_cost(
        self,
        log_density: Floats,
        target: FunctionDensity | None,
        x: Floats,
        labels: Sequence[int],
        readout: Floats,  # noqa: ARG002 - it has none
    ) -> Floats:
        """log(ρ/ρ*), (n, k)."""
        assert target is not None
        return np.asarray(log_density - np.logaddexp(target.log_values(x), self.log_floor)[:, labels])


class KullbackLeiblerLoss(RelativeEntropy):
    """KL(ρ_T | ρ*) = Σ_y ∫ (ρ + δ) log((ρ + δ)/(ρ* + δ)) − ρ + ρ*, with the floor δ of the space.

    The floor makes the divergence finite and smooth where a density is zero: it is that of both densities on top of a
    uniform one of mass 1e-8 (Csiszár's generalised divergence; ≥ 0 point by point, 0 only for ρ = ρ*, convex, never
    above the one without floor).
    """

    def __init__(self, space: DensitySpace, target: Floats, exact: ExactDensity | None = None) -> None:
        """Collective."""
        super().__init__(space, target, exact)
        self._rule, self._floor = space.quadrature(space.objective_degree), space.floor
        self._at_points, self.log_floor = self._positive(target), np.log([space.floor])

    def _positive(self, rho: Floats) -> Floats:
        values = np.einsum("qi,cik->cqk", self._rule.basis, rho[: self._space.n_owned], optimize=True)
        # Between the limiter's points a projected target may dip below zero, where it has no logarithm.
        return np.asarray(np.maximum(values, 0.0))

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K). Collective."""
        rule, floor, target = self._rule, self._floor, self._at_points
        values = np.einsum("qi,cik->cqk", rule.basis, rho[: self._space.n_owned], optimize=True)
        logarithm = np.log(target + floor)
        cost = entropy(values, floor) - (values + floor) * logarithm - values + target
        slope = entropy_slope(values, floor) - logarithm - 1.0
        local = np.array([np.einsum("cq,cqk->", rule.weights, cost, optimize=True)])
        vector = np.einsum("cq,qi,cqk->cik", rule.weights, rule.basis, slope, optimize=True)
        return TerminalValue(float(parallel.sum_all(self._space.comm, local)[0]), vector, readout)


class KullbackLeiblerBalance(RelativeEntropy):
    """KL(ρ_T | ρ*) without the change of ∫ρ log ρ along the way: Σ_y (∫ρ₀ log ρ₀ − ∫ρ_T log ρ*), linear in ρ_T.

    Together with that change (``EntropyBalance``) it is the divergence of the densities that the exact flow of the same
    velocities leads to. A label whose ρ* vanishes somewhere in the domain has the space's floor δ for it there:
    log (ρ* + δ).

    Args:
        space: the space of ρ.
        target: ρ* on the mesh (n_cells, nd, K).
        exact: ρ*.
        initial_entropy: Σ_y ∫ρ₀ log ρ₀.
    """

    def __init__(self, space: DensitySpace, target: Floats, exact: ExactDensity, initial_entropy: float) -> None:
        """Collective."""
        super().__init__(space, target, exact)
        self._initial, rule = initial_entropy, space.quadrature(space.objective_degree)
        values, self.log_floor = _logarithms(space, exact)
        # Softly: with a maximum the loss would have a kink where ρ* falls to the floor.
        logarithm = np.logaddexp(values, self.log_floor).reshape(*rule.weights.shape, -1)
        self._vector = -np.einsum("cq,qi,cqk->cik", rule.weights, rule.basis, logarithm, optimize=True)

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K). Collective."""
        local = np.array([np.vdot(self._vector, rho[: self._space.n_owned])])
        value = self._initial + float(parallel.sum_all(self._space.comm, local)[0])
        return TerminalValue(value, self._vector, readout)


def log_floor(space: DensitySpace, target: FunctionDensity) -> Floats:
    """What log ρ* counts at least, softly, (K,): log δ for a label whose ρ* vanishes somewhere. **Collective**."""
    return _logarithms(space, target)[1]


def _logarithms(space: DensitySpace, target: FunctionDensity) -> tuple[Floats, Floats]:
    """Log ρ* (n, K) at this rank's points of the terminal loss, and its floor (K,). Collective."""
    with parallel.agreed(space.comm):
        values = target.log_values(space.quadrature(space.objective_degree).points.reshape(-1, space.dim))
    # A zero that one rank sees changes the label's logarithm on all: J must not depend on the partition.
    vanishing = parallel.sum_all(space.comm, np.isneginf(values).any(axis=0).astype(float)) > 0.0
    return values, np.where(vanishing, np.log(space.floor), -np.inf)


class SquaredDistanceLoss(_ToTarget):
    """½‖ρ_T − ρ*‖² in L², summed over the labels: the basis is orthonormal up to the cells' size."""

    cancelling = True

    def density_cost(
        self,
        log_density: Floats,
        target: FunctionDensity | None,
        x: Floats,
        labels: Sequence[int],
        readout: Floats,  # noqa: ARG002 - it has none
    ) -> Floats:
        """½ρ − ρ*, (n, k): all but the constant ½∫ρ*²."""
        assert target is not None
        return np.asarray(0.5 * np.exp(log_density) - target.values(x)[:, labels])

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K). Collective."""
        n = self._space.n_owned
        # The basis is orthonormal on the reference cell: the mass matrix is det times the identity.
        vector = self._space.geometry.det[:n, None, None] * (rho[:n] - self.target[:n])
        local = np.array([0.5 * np.vdot(vector, rho[:n] - self.target[:n])])
        return TerminalValue(float(parallel.sum_all(self._space.comm, local)[0]), vector, readout)


class SquaredDistanceByPowers(SquaredDistanceLoss):
    """½‖ρ_T − ρ*‖² without ½∫ρ_T²: Σ_y (½∫ρ*² − ∫ρ_T ρ*), linear in ρ_T.

    The squares of the densities that the exact flow of the same velocities leads to are known by squares that move
    beside them (``SquareCosts``). Where ρ_T is close to ρ*, the sum is a small difference of large numbers, whose
    errors no longer cancel as they do in the mesh's own ½‖ρ_h − ρ*‖²: on a mesh that does not resolve ρ* it is too
    large, but nothing is gained by a density that the mesh smears.

    Args:
        space: the space of ρ.
        target: ρ* on the mesh (n_cells, nd, K).
        exact: ρ*.
    """

    def __init__(self, space: DensitySpace, target: Floats, exact: ExactDensity) -> None:
        """Collective."""
        super().__init__(space, target, exact)
        # Of ρ* itself, not of its projection squared, which has lost what the mesh does not resolve.
        both = exact.projection(space, lambda rho: np.concatenate([rho, rho**2], axis=2))
        det = space.geometry.det[: space.n_owned]
        # The first mode is constant: its coefficient over φ₀ is the cell's mean.
        squares = np.array([np.sum(det @ both[:, 0, space.n_labels :]) / space.phi0])
        self._constant = 0.5 * float(parallel.sum_all(space.comm, squares)[0])
        self._vector = -det[:, None, None] * both[..., : space.n_labels]

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K). Collective."""
        local = np.array([np.vdot(self._vector, rho[: self._space.n_owned])])
        value = self._constant + float(parallel.sum_all(self._space.comm, local)[0])
        return TerminalValue(value, self._vector, readout)


@singledispatch
def on_mesh(cost: Any, space: DensitySpace, initial_entropy: float | None = None, key: str = "terminal") -> Terminal:
    """What a user hands to a problem as its terminal cost, as a functional of densities in a space. **Collective**.

    Args:
        cost: a distance, a loss, or what can be one (see ``losses.as_loss``).
        space: the space of ρ.
        initial_entropy: Σ_y ∫ρ₀ log ρ₀, which the relative entropy by its balance starts from.
        key: what it is called in messages.

    Raises:
        InputError: it does not fit the space or its labels, or no network can have it; the same on all ranks.
    """
    del initial_entropy
    return LinearLoss(space, as_loss(cost, key).bind(space.dim, space.n_labels, key), key)


@on_mesh.register
def _(
    cost: KullbackLeibler, space: DensitySpace, initial_entropy: float | None = None, key: str = "terminal"
) -> Terminal:
    target = Density.of(space, cost.target, key=f"{key}.target")
    if cost.form == "density":
        return KullbackLeiblerLoss(space, target.coefficients, target.exact)
    assert initial_entropy is not None
    return KullbackLeiblerBalance(space, target.coefficients, exact_density(target), initial_entropy)


@on_mesh.register
def _(
    cost: SquaredDistance, space: DensitySpace, initial_entropy: float | None = None, key: str = "terminal"
) -> Terminal:
    del initial_entropy
    target = Density.of(space, cost.target, key=f"{key}.target")
    if cost.form == "density":
        return SquaredDistanceLoss(space, target.coefficients, target.exact)
    return SquaredDistanceByPowers(space, target.coefficients, exact_density(target))


@on_mesh.register
def _(
    cost: UserFunctional, space: DensitySpace, initial_entropy: float | None = None, key: str = "terminal"
) -> Terminal:
    del initial_entropy
    made: Terminal = cost.on_mesh(space, key)
    return made


@on_mesh.register
def _(cost: FixedDensity, space: DensitySpace, initial_entropy: float | None = None, key: str = "terminal") -> NoReturn:
    del space, initial_entropy
    cost.refuse_network(key)
    raise AssertionError("it refuses every network")


def exact_density(density: Density) -> ExactDensity:
    """What a density on the mesh is the projection of; itself, where that is unknown. **Collective**."""
    if density.exact is not None:
        return density.exact
    functions = {label: density.to_function(label) for label in range(density.space.n_labels)}
    # Projected again, as a function like any other: that gives it the form of exact densities.
    again = Density.of(density.space, functions, masses=density.mass)
    assert again.exact is not None
    return again.exact
