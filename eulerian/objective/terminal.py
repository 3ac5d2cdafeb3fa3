"""Terminal functionals of the final density, and their derivatives: losses Σ_y ∫ℓ(x, y) ρ_y(T, x) dx, distances."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from eulerian.app import config
from eulerian.app.build.mixture import count_labels, density_and_exact
from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.density.exact_density import ExactDensity
from eulerian.density.space import DensitySpace, Quadrature
from eulerian.objective.floored_entropy import entropy, entropy_slope
from eulerian.objective.losses import PointLoss, build_loss

KEY = "objective.terminal"


@dataclass(frozen=True)
class TerminalValue:
    """A terminal functional F(ρ(T), readout) and its derivatives.

    Attributes:
        value: F, the same on all ranks.
        density: (n_owned, nd, K) derivative by the coefficients of ρ(T).
        readout: (r,) derivative by the readout, the same on all ranks.
    """

    value: float
    density: Floats
    readout: Floats


class Terminal(Protocol):
    """A functional of the final density, possibly with parameters of its own (a trained readout)."""

    @property
    def loss(self) -> PointLoss | None:
        """ℓ where the functional is ∫ℓρ(T), else None."""
        ...

    def initial_readout(self) -> Floats:
        """Where the trained parameters start, (r,)."""
        ...

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K) and readout (r,). Collective."""
        ...


class LinearLoss:
    """∫ℓρ_T: quadrature turns a loss that is not trained into one inner product, once and for all.

    Args:
        space: the space of ρ.
        loss: ℓ.

    Raises:
        InputError: ℓ is not finite somewhere in the domain; the same on all ranks.
    """

    def __init__(self, space: DensitySpace, loss: PointLoss) -> None:
        """Collective."""
        self._space, self.loss = space, loss
        start = self.initial_readout()
        with parallel.agreed(space.comm), np.errstate(all="ignore"):
            values = self._values(start)
            if not np.all(np.isfinite(values)):
                where = self._rule.points[~np.isfinite(values).all(axis=2)][0]
                raise InputError(
                    "the loss is not finite everywhere in the domain",
                    key=KEY,
                    value=f"a non-finite value at {where.tolist()}",
                    remedy="Use a formula that is defined on the whole domain",
                )
        self._fixed = None if loss.n_readout else self._vector(values)

    @property
    def n_readout(self) -> int:
        """Number of trained parameters."""
        return self.loss.n_readout

    def initial_readout(self) -> Floats:
        """Where the trained parameters start, (r,)."""
        return self.loss.initial_readout()

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K) and readout (r,). Collective."""
        space, rule, owned = self._space, self._rule, rho[: self._space.n_owned]
        vector = self._vector(self._values(readout)) if self._fixed is None else self._fixed
        local = np.array([np.vdot(vector, owned)])
        if self.n_readout:
            mass = np.einsum("cq,qi,cik->cqk", rule.weights, rule.basis, owned, optimize=True)
            slope = self.loss.readout_vjp(self._points, readout, mass.reshape(-1, space.n_labels))
            local = np.concatenate([local, slope])
        total = parallel.sum_all(space.comm, local)
        return TerminalValue(float(total[0]), vector, total[1:])

    def losses(self, x: Floats, readout: Floats) -> Floats:
        """ℓ(x, y) at points (n, dim) for every label, (n, K)."""
        return self.loss.value(x, readout)

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


class _ToTarget:
    """What functionals of a target density share: no readout, no loss at points.

    Args:
        space: the space of ρ.
        target: ρ* on the mesh (n_cells, nd, K).
        exact: ρ* itself, where that is known.
    """

    loss = None

    def __init__(self, space: DensitySpace, target: Floats, exact: ExactDensity | None = None) -> None:
        self._space, self.target, self.exact = space, target, exact

    def initial_readout(self) -> Floats:
        """Nothing to train."""
        return np.zeros(0)


class RelativeEntropy(_ToTarget):
    """KL(ρ_T | ρ*), of the mesh's density or by the balance of its entropy.

    Attributes:
        log_floor: (K,) or (1,) what log ρ* counts at least, softly: logaddexp(log ρ*, log_floor).
    """

    log_floor: Floats


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
        with parallel.agreed(space.comm):
            values = exact.log_values(rule.points.reshape(-1, space.dim))
        vanishing = parallel.sum_all(space.comm, np.isneginf(values).any(axis=0).astype(float)) > 0.0
        self.log_floor = np.where(vanishing, np.log(space.floor), -np.inf)
        logarithm = np.logaddexp(values, self.log_floor).reshape(*rule.weights.shape, -1)
        self._vector = -np.einsum("cq,qi,cqk->cik", rule.weights, rule.basis, logarithm, optimize=True)

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K). Collective."""
        local = np.array([np.vdot(self._vector, rho[: self._space.n_owned])])
        value = self._initial + float(parallel.sum_all(self._space.comm, local)[0])
        return TerminalValue(value, self._vector, readout)


class SquaredDistanceLoss(_ToTarget):
    """½‖ρ_T − ρ*‖² in L², summed over the labels: the basis is orthonormal up to the cells' size."""

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K). Collective."""
        n = self._space.n_owned
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
        both = exact.projection(space, lambda rho: np.concatenate([rho, rho**2], axis=2))
        det = space.geometry.det[: space.n_owned]
        squares = np.array([np.sum(det @ both[:, 0, space.n_labels :]) / space.phi0])
        self._constant = 0.5 * float(parallel.sum_all(space.comm, squares)[0])
        self._vector = -det[:, None, None] * both[..., : space.n_labels]

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K). Collective."""
        local = np.array([np.vdot(self._vector, rho[: self._space.n_owned])])
        value = self._constant + float(parallel.sum_all(self._space.comm, local)[0])
        return TerminalValue(value, self._vector, readout)


def target_density(terminal: config.TargetTerminal, space: DensitySpace) -> Floats:
    """ρ* (n_cells, nd, K) of mass 1. Collective.

    Raises:
        InputError: it has other labels than the density, or no mass; the same on all ranks.
    """
    return _target_and_exact(terminal, space)[0]


def _target_and_exact(terminal: config.TargetTerminal, space: DensitySpace) -> tuple[Floats, ExactDensity]:
    """ρ* on the mesh, and as a function. Collective."""
    config.check_target_labels(count_labels(terminal.target, space.comm, f"{KEY}.target"), space.n_labels)
    return density_and_exact(space, terminal.target, f"{KEY}.target")


def build_terminal(
    terminal: config.Terminal, space: DensitySpace, initial_entropy: float | None = None, *, powers: bool = False
) -> Terminal:
    """The terminal functional that the configuration describes. Collective.

    Args:
        terminal: what it is.
        space: the space of ρ.
        initial_entropy: Σ_y ∫ρ₀ log ρ₀, where kl leaves what becomes of it to its balance along the flow; else None.
        powers: whether l2 leaves ½∫ρ_T² to squares that move beside the densities.

    Raises:
        InputError: it does not fit the number of labels or the domain, or is a constraint; the same on all ranks.
    """
    match terminal:
        case config.KlTerminal() if initial_entropy is not None:
            return KullbackLeiblerBalance(space, *_target_and_exact(terminal, space), initial_entropy)
        case config.KlTerminal():
            return KullbackLeiblerLoss(space, *_target_and_exact(terminal, space))
        case config.L2Terminal() if powers:
            return SquaredDistanceByPowers(space, *_target_and_exact(terminal, space))
        case config.L2Terminal():
            return SquaredDistanceLoss(space, *_target_and_exact(terminal, space))
        case config.FixedTerminal():
            raise InputError(
                "a network cannot be held to a final density exactly",
                key=f"{KEY}.kind",
                value="fixed",
                remedy="Use `eulerian ideal`, or kind = kl or l2",
            )
        case _:
            return LinearLoss(space, build_loss(terminal, space.dim, space.n_labels))
