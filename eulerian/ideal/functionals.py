"""Convex functionals of the final density and their conjugates, for piecewise constant densities.

The dual of the idealised problem is sup ∫φ_0 dμ_0 − F*(φ_T). On cells F*(w) = ∫f*(x, w) dx with w the cell means of φ_T,
and the splitting method needs its proximal map only.
"""

from collections.abc import Callable
from typing import Protocol

from eulerian import config, parallel
from eulerian.arrays import Floats
from eulerian.errors import InputError

# isort: split
from mpi4py import MPI

import numpy as np
from scipy.special import wrightomega, xlogy

from eulerian.objective.terminal import LinearLoss, build_terminal
from eulerian.space.density import DensitySpace
from eulerian.space.initial import count_labels, initial_density

KEY = "objective.terminal"


class Functional(Protocol):
    """F(ρ_T) = Σ_y ∫f(x, ρ_y(T, x)) dx for densities that are constant on cells; label y at a time, owned cells only."""

    def value(self, rho: Floats, label: int) -> float:
        """F of cell values (n_owned,) ≥ 0; +∞ where it is not finite. Collective."""
        ...

    def conjugate(self, w: Floats, label: int) -> float:
        """F*(w) = sup over ρ ≥ 0 of ∫wρ − F(ρ), for cell values (n_owned,) at which it is finite. Collective."""
        ...

    def proximal(self, z: Floats, weight: float, label: int) -> Floats:
        """argmin over w of f*(w) + weight/2 (w − z)², cell by cell; (n_owned,)."""
        ...

    def shift(self, w: Floats, mass: float, label: int) -> float:
        """argmax over c of −c·mass − F*(w − c): the best constant to take off a potential. Collective."""
        ...


class Linear:
    """∫ℓρ_T. F* is 0 where w ≤ ℓ and +∞ elsewhere.

    Args:
        space: of ρ.
        loss: x (n, dim) ↦ ℓ (n, K), finite in the domain.
    """

    def __init__(self, space: DensitySpace, loss: Callable[[Floats], Floats]) -> None:
        self.loss, self._space = loss, space
        rule = space.quadrature(space.objective_degree)
        values = loss(rule.points.reshape(-1, space.dim)).reshape(*rule.weights.shape, space.n_labels)
        self._volumes: Floats = rule.weights.sum(axis=1)
        self._means: Floats = np.einsum("cq,cqk->ck", rule.weights, values) / self._volumes[:, None]

    def value(self, rho: Floats, label: int) -> float:
        """∫ℓρ. Collective."""
        return _sum(self._space, self._volumes * self._means[:, label] * rho)

    def conjugate(self, w: Floats, label: int) -> float:  # noqa: ARG002 - the protocol's arguments
        """0. Collective."""
        return 0.0

    def proximal(self, z: Floats, weight: float, label: int) -> Floats:  # noqa: ARG002
        """min(z, ℓ)."""
        return np.minimum(z, self._means[:, label])

    def shift(self, w: Floats, mass: float, label: int) -> float:  # noqa: ARG002
        """max(w − ℓ). Collective."""
        worst = float(np.max(w - self._means[:, label], initial=-np.inf))
        return float(self._space.comm.allreduce(worst, MPI.MAX))


class KullbackLeibler:
    """KL(ρ_T | ρ*) = ∫ρ log(ρ/ρ*) − ρ + ρ*, +∞ where ρ has mass and ρ* none. F*(w) = ∫ρ*(eʷ − 1).

    Args:
        space: of ρ.
        target: ρ* (n_cells, nd, K).
    """

    def __init__(self, space: DensitySpace, target: Floats) -> None:
        self.target, self._space, self._volumes = target, space, space.quadrature(1).weights.sum(axis=1)
        self._target: Floats = np.maximum(target[: space.n_owned, 0] * space.phi0, 0.0)

    def value(self, rho: Floats, label: int) -> float:
        """KL. Collective."""
        target = self._target[:, label]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(rho > 0.0, rho / target, 1.0)
        return _sum(self._space, self._volumes * (xlogy(rho, ratio) - rho + target))

    def conjugate(self, w: Floats, label: int) -> float:
        """∫ρ*(eʷ − 1). Collective."""
        target = self._target[:, label]
        return _sum(self._space, self._volumes * np.where(target > 0.0, target * np.expm1(w), 0.0))

    def proximal(self, z: Floats, weight: float, label: int) -> Floats:
        """The w with w + (ρ*/weight) eʷ = z, by Wright's omega function."""
        with np.errstate(divide="ignore"):
            shift = np.log(self._target[:, label]) - np.log(weight)
        return np.asarray(
            np.where(np.isfinite(shift), z - wrightomega(np.where(np.isfinite(shift), z + shift, 0.0)), z)
        )

    def shift(self, w: Floats, mass: float, label: int) -> float:
        """log(∫ρ*eʷ / mass). Collective."""
        target = self._target[:, label]
        top = float(self._space.comm.allreduce(float(np.max(w[target > 0.0], initial=-np.inf)), MPI.MAX))
        terms = np.where(target > 0.0, target * np.exp(np.where(target > 0.0, w - top, 0.0)), 0.0)
        return top + float(np.log(_sum(self._space, self._volumes * terms) / mass))


class SquaredDistance:
    """½‖ρ_T − ρ*‖² in L². F*(w) = ∫½max(w + ρ*, 0)² − ½ρ*².

    Args:
        space: of ρ.
        target: ρ* (n_cells, nd, K).
    """

    def __init__(self, space: DensitySpace, target: Floats) -> None:
        self.target, self._space, self._volumes = target, space, space.quadrature(1).weights.sum(axis=1)
        self._target: Floats = np.maximum(target[: space.n_owned, 0] * space.phi0, 0.0)

    def value(self, rho: Floats, label: int) -> float:
        """½‖ρ − ρ*‖². Collective."""
        return _sum(self._space, self._volumes * 0.5 * (rho - self._target[:, label]) ** 2)

    def conjugate(self, w: Floats, label: int) -> float:
        """∫½max(w + ρ*, 0)² − ½ρ*². Collective."""
        target = self._target[:, label]
        return _sum(self._space, self._volumes * 0.5 * (np.maximum(w + target, 0.0) ** 2 - target**2))

    def proximal(self, z: Floats, weight: float, label: int) -> Floats:
        """(weight z − ρ*)/(1 + weight) where z + ρ* > 0, else z."""
        target = self._target[:, label]
        return np.where(z + target > 0.0, (weight * z - target) / (1.0 + weight), z)

    def shift(self, w: Floats, mass: float, label: int) -> float:
        """The c with ∫max(w − c + ρ*, 0) = mass, by Newton's method from the left (convex, decreasing). Collective."""
        height = w + self._target[:, label]
        c = float(self._space.comm.allreduce(float(np.max(height, initial=-np.inf)), MPI.MAX))
        volume = _sum(self._space, self._volumes)
        c -= mass / volume + 1.0
        for _ in range(200):
            above = height > c
            sums = [_sum(self._space, self._volumes * part) for part in (np.where(above, height - c, 0.0), above)]
            step = (sums[0] - mass) / sums[1] if sums[1] > 0.0 else -(mass / volume + 1.0)
            c += step
            if abs(step) <= 1e-13 * (1.0 + abs(c)):
                break
        return c


class Fixed:
    """ρ_T = ρ* exactly. F*(w) = ∫w dρ*, taken with the vertices' masses of ρ*, not with cell means.

    Args:
        target: ρ* (n_cells, nd, K).
    """

    def __init__(self, target: Floats) -> None:
        self.target = target


type AnyFunctional = Linear | KullbackLeibler | SquaredDistance | Fixed


def build_functional(terminal: config.Terminal, space: DensitySpace) -> AnyFunctional:
    """The functional that the configuration describes. Collective.

    Raises:
        InputError: the target has other labels than the density, or other masses where they are fixed, or is empty; the
            loss is not finite or is trained; the same on all ranks.
    """
    if isinstance(terminal, config.FixedTerminal | config.KlTerminal | config.L2Terminal):
        key = f"{KEY}.target"
        n_labels = count_labels(terminal.target, space.comm, key)
        if n_labels != space.n_labels:
            raise InputError(
                "must have the labels of density.initial", key=key, value=f"{n_labels} instead of {space.n_labels}"
            )
        target = initial_density(space, terminal.target, key)
        match terminal:
            case config.FixedTerminal():
                return Fixed(target)
            case config.KlTerminal():
                return KullbackLeibler(space, target)
            case config.L2Terminal():
                return SquaredDistance(space, target)
    loss = build_terminal(terminal, space)
    if not isinstance(loss, LinearLoss):
        raise InputError(
            "the idealised problem needs a loss that is not trained",
            key=f"{KEY}.trainable",
            value=True,
            remedy="Set trainable = false and give the weights of the readout",
        )
    return Linear(space, lambda x: loss.losses(x, np.zeros(0)))


def _sum(space: DensitySpace, values: Floats) -> float:
    """Over all cells of all ranks. Collective."""
    return float(parallel.sum_all(space.comm, np.array([values.sum()]))[0])
