"""What particles pay where layers end: a loss where they are, or their part of a relative entropy, at T and before."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self, final

from mpi4py import MPI

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.objective.cost_at import LayerEnd, LayerEndCost
from eulerian.objective.point_loss import PointLoss
from eulerian.particles.crowd import CrowdLoss, Meetings
from eulerian.particles.flow import Rows
from eulerian.particles.kl import particle_loss
from eulerian.particles.path_storage import PathStorage
from eulerian.particles.right_hand_side import COSTS
from eulerian.particles.sample import ParticleSample


@final
@dataclass(frozen=True)
class ParticleEndCost:
    """A loss where a number of layers has passed.

    Attributes:
        at: where, and what it counts.
        loss: ℓ, bound.
        readout: its own part of the trained parameters of all.
        constant: what the cost is beside the mean of ℓ, where ℓ is the tangent of a functional of all particles.
    """

    at: LayerEnd
    loss: PointLoss
    readout: slice
    constant: float = 0.0

    def values(self, x: Floats, log_density: Floats | None, sample: ParticleSample, readout: Floats) -> Floats:
        """What each particle pays, (n,), without the weight.

        Args:
            x: (n, dim) where they are.
            log_density: (n,) the logarithm of their density there, where it is known.
            sample: who they are.
            readout: (r,) of all costs.
        """
        losses = self.loss.value(x, readout[self.readout])
        found = np.take_along_axis(losses, sample.labels[:, None], axis=1)[:, 0]
        if not self.loss.adds_log_density:
            return found
        assert log_density is not None
        return np.asarray(found + log_density)

    def slopes(self, x: Floats, sample: ParticleSample, readout: Floats) -> Floats:
        """Derivatives of ``values`` by the positions, (n, dim)."""
        found = self.loss.gradient(x, readout[self.readout])
        return np.take_along_axis(found, sample.labels[:, None, None], axis=1)[:, 0]


@final
@dataclass(frozen=True)
class ParticleEndCosts:
    """All costs at ends of layers; the first one is the terminal cost. Where a cost is at T they add up."""

    costs: tuple[ParticleEndCost, ...]

    @classmethod
    def of(cls, costs: Sequence[LayerEndCost], n_layers: int, dim: int, n_labels: int) -> Self:
        """As a user gives them.

        Raises:
            InputError: particles cannot have one of them.
        """
        found: list[ParticleEndCost] = []
        first = 0
        for cost in costs:
            loss = particle_loss(cost.cost, dim, n_labels, cost.key)
            last = first + loss.n_readout
            found.append(ParticleEndCost(cost.end(n_layers), loss, slice(first, last)))
            first = last
        return cls(tuple(found))

    @property
    def terminal(self) -> ParticleEndCost:
        """That of ρ(T)."""
        return self.costs[0]

    @property
    def charged(self) -> Iterator[ParticleEndCost]:
        """Those that are parts of J: the others have no weight."""
        return (cost for cost in self.costs if cost.at.weight > 0.0)

    @property
    def layers(self) -> set[int]:
        """After how many layers there are costs."""
        return {cost.at.layer for cost in self.costs}

    @property
    def add_log_density(self) -> bool:
        """Whether one of them needs the density along the paths."""
        return any(cost.loss.adds_log_density for cost in self.costs)

    def initial_readout(self) -> Floats:
        """Where the trained parameters start, (r,)."""
        return np.concatenate([cost.loss.initial_readout() for cost in self.costs])

    @property
    def affine_readout(self) -> bool:
        """Whether all that is trained is (W row by row, b) of one affine map of points."""
        trained = [cost.loss for cost in self.costs if cost.loss.n_readout]
        return len(trained) == 1 and trained[0].affine_readout

    def met(self, states: "ParticleStates", comm: MPI.Comm) -> Self:
        """With tangents for functionals of all particles, where these are. **Collective**.

        Raises:
            RejectedEvaluation: the particles are too far apart for one of them.
        """
        found = []
        for cost in self.costs:
            if isinstance(cost.loss, CrowdLoss):
                tangent = cost.loss.tangent(states.positions(cost.at.layer), states.sample, comm)
                cost = replace(cost, loss=tangent, constant=tangent.constant)
            found.append(cost)
        return replace(self, costs=tuple(found))

    def constants(self) -> dict[str, float]:
        """What J is beside means over particles, by part."""
        found: dict[str, float] = {}
        for cost in self.charged:
            found[cost.at.part] = found.get(cost.at.part, 0.0) + cost.at.weight * cost.constant
        return found


@final
@dataclass(frozen=True)
class ParticleStates:
    """Positions and integrals of this rank's particles where a number of layers has passed.

    Attributes:
        sample: who they are.
        dim: of space.
        names: of the integrals.
        log_density: of these, that of the rate at which log ρ changes; None where it is not integrated.
        at: (n, width) by the number of layers.
    """

    sample: ParticleSample
    dim: int
    names: tuple[str, ...]
    log_density: str | None
    at: Mapping[int, Floats]

    def positions(self, layer: int) -> Floats:
        """(n, dim)."""
        return np.ascontiguousarray(self.at[layer][:, : self.dim])

    def log_densities(self, layer: int) -> Floats | None:
        """Log ρ_y of each particle where it is, (n,), or None where that is not known."""
        if self.log_density is None or self.sample.log_density is None:
            return None
        return np.asarray(self.sample.log_density + self.at[layer][:, self._log_density])

    def values(self, cost: ParticleEndCost, readout: Floats) -> Floats:
        """What each particle pays for one of the costs, (n,), without its weight."""
        layer = cost.at.layer
        return cost.values(self.positions(layer), self.log_densities(layer), self.sample, readout)

    def by_part(self, ends: ParticleEndCosts, readout: Floats) -> dict[str, Floats]:
        """What each particle pays, (n,), by part of J."""
        found: dict[str, Floats] = {}
        for cost in ends.charged:
            paid = cost.at.weight * self.values(cost, readout)
            found[cost.at.part] = found[cost.at.part] + paid if cost.at.part in found else paid
        return found

    def derivatives(self, ends: ParticleEndCosts, readout: Floats, weights: Floats) -> dict[int, Floats]:
        """Of the weighted sum of all costs at ends of layers by the states there, (n, width), by layer.

        Args:
            ends: the costs.
            readout: (r,) of all.
            weights: (n,) of the particles.
        """
        found: dict[int, Floats] = {}
        for cost in ends.charged:
            layer, weighted = cost.at.layer, cost.at.weight * weights
            by_state = found.setdefault(layer, np.zeros_like(self.at[layer]))
            by_state[:, : self.dim] += weighted[:, None] * cost.slopes(self.positions(layer), self.sample, readout)
            if cost.loss.adds_log_density:
                by_state[:, self._log_density] += weighted
        return found

    def by_readout(self, ends: ParticleEndCosts, readout: Floats, weights: Floats, n_labels: int) -> Floats:
        """Derivative (r,) of the same by the readout of all."""
        by_label = weights[:, None] * (self.sample.labels[:, None] == np.arange(n_labels))
        found = np.zeros(readout.size)
        for cost in ends.charged:
            x, own = self.positions(cost.at.layer), readout[cost.readout]
            found[cost.readout] = cost.at.weight * cost.loss.readout_vjp(x, own, by_label)
        return found

    @property
    def _log_density(self) -> int:
        assert self.log_density is not None
        return self.dim + self.names.index(self.log_density)


@final
@dataclass(frozen=True)
class ParticleForward:
    """What the forward sweep leaves to the adjoint one.

    Attributes:
        paths: one per group.
        states: positions and integrals at T, and where else there are costs.
        ends: the costs there, with tangents where they are functionals of all particles.
        meetings: what particles pay for one another on the way, or None.
        readout: (r,) that the losses were taken with.
        values: (n,) what each particle contributes to a part of J, by name.
        parts: of J.
    """

    paths: list[PathStorage]
    states: ParticleStates
    ends: ParticleEndCosts
    meetings: Meetings | None
    readout: Floats
    values: dict[str, Floats]
    parts: dict[str, float]

    def by_state(self, weights: Floats, n_layers: int) -> dict[int, Floats]:
        """Derivatives of J by positions and integrals (n, width), by layer, of particles with weights (n,)."""
        found = self.states.derivatives(self.ends, self.readout, weights)
        # Costs that are integrated over time enter J with the weight of their particle.
        for column, name in enumerate(self.states.names, self.states.dim):
            if name in COSTS:
                found[n_layers][:, column] = weights
        if self.meetings is not None:
            slopes = self.meetings.slopes(n_layers, 0, self.states.positions(n_layers))
            assert slopes is not None
            found[n_layers][:, : self.states.dim] += weights[:, None] * slopes
        return found

    def on_the_way(
        self, rows: Rows, picked: NDArray[np.intp] | None, weights: Floats
    ) -> Callable[[int, int, Floats, slice], Floats | None] | None:
        """See ``PathStorage.adjoint``, for some rows of the sample, or those of them that are picked."""
        if self.meetings is None:
            return None
        slopes_of, own = self.meetings.slopes, weights[rows] if picked is None else weights[rows][picked]

        def paid(layer: int, step: int, x: Floats, block: slice) -> Floats | None:
            slopes = slopes_of(layer, step, x)
            return None if slopes is None else own[block, None] * slopes

        return paid
