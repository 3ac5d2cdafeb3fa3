"""What particles pay for one another: functionals of all of them that are quadratic in their density.

Such a functional F has a tangent where the particles are: ∫Φ dρ + constant with the potential Φ = δF/δρ, which has the
value of F and its derivatives by positions and weights. So it is paid as a loss at points, once all of them have met.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self, final

from mpi4py import MPI

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError, RejectedEvaluation
from eulerian.objective.interactions import FormAtPoints, QuadraticForm, QuadraticFunctional
from eulerian.objective.lattice_sums import Lattice
from eulerian.objective.point_loss import PointLoss
from eulerian.objective.time_rule import layer_rule
from eulerian.particles.flow import Rows
from eulerian.particles.sample import ParticleSample
from eulerian.particles.targets import Terms, labelled_terms, normalised

_NOTHING = 1e-13  # beside the largest number of a target: so much of it may be left out


@final
@dataclass(frozen=True)
class Tangent(PointLoss):
    """Φ at the particles of this rank, in the order of the sample, of a functional of all of them.

    Attributes:
        form: the functional in a box that holds them.
        points: where they are.
        dual: what Φ is made of.
        constant: what F is beside ∫Φ dρ.
        n_labels: K.
    """

    form: QuadraticForm
    points: FormAtPoints
    dual: Floats
    constant: float
    n_labels: int

    def value(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's arguments
        """Φ for every label, (n, K)."""
        return self._for_all(self.points.potential(self.dual))

    def gradient(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's arguments
        """∇Φ for every label, (n, K, dim)."""
        return self._for_all(self.points.gradient(self.dual))

    def _for_all(self, columns: Floats) -> Floats:
        return np.broadcast_to(columns, (len(columns), self.n_labels, *columns.shape[2:]))


@final
@dataclass(frozen=True)
class CrowdLoss(PointLoss):
    """A functional that only the tangent of is a loss at points.

    Attributes:
        functional: as a user hands it to a problem.
        n_labels: K.
        key: what it is called in messages.
        target: ρ*, or None.
    """

    functional: QuadraticFunctional
    n_labels: int
    key: str
    target: "_Target | None" = None

    @classmethod
    def of(cls, functional: QuadraticFunctional, dim: int, n_labels: int, key: str) -> Self:
        """Of what a user hands to a problem.

        Raises:
            InputError: its target does not fit, or has no integrals against Gaussians that are known.
        """
        if functional.target is None:
            return cls(functional, n_labels, key)
        target = _Target.of(functional, dim, n_labels, key)
        return cls(functional, n_labels, key, target)

    def value(self, x: Floats, readout: Floats) -> Floats:
        """See ``tangent``."""
        raise NotImplementedError("particles pay for one another where all of them are")

    gradient = value

    def tangent(self, x: Floats, sample: ParticleSample, comm: MPI.Comm) -> Tangent:
        """Where the sample's particles are at x (n, dim). **Collective**.

        Raises:
            RejectedEvaluation: they are too far apart for the width of a kernel, or nowhere.
        """
        low, high = _box(x, comm)
        try:
            form = (
                self.functional.within(low, high, self.key)
                if self.target is None
                else self.target.form(low, high, comm)
            )
        except InputError as error:  # the same on all ranks
            raise RejectedEvaluation(f"the particles are too far apart: {error}") from None
        masses = sample.weights[:, None] * (sample.labels[:, None] == np.arange(self.n_labels))
        with parallel.agreed(comm):
            points = form.at(x)
            own = points.sums(masses)
        c = parallel.sum_all(comm, own)
        dual = form.dual(c)
        return Tangent(form, points, dual, form.value(c) - float(np.vdot(dual, c)), self.n_labels)

    def _form(self, low: Floats, high: Floats, comm: MPI.Comm) -> QuadraticForm:
        """The functional in a box. Collective."""
        if self.target is None:
            return self.functional.within(low, high, self.key)
        return self.target.form(low, high, comm)


def _box(x: Floats, comm: MPI.Comm) -> tuple[Floats, Floats]:
    """Corners (d,) of the bounding box of the points of all ranks. **Collective**.

    Raises:
        RejectedEvaluation: some point is nowhere.
    """
    corners = np.stack([-x.min(axis=0, initial=np.inf), x.max(axis=0, initial=-np.inf)])
    if not np.all(np.isfinite(x)):
        corners[:] = np.inf  # NaN has no place in a maximum
    comm.Allreduce(MPI.IN_PLACE, corners, MPI.MAX)
    if not np.all(np.isfinite(corners)):
        raise RejectedEvaluation("positions are not finite")
    return -corners[0], corners[1]


@final
@dataclass
class _Target:
    """ρ* of a functional, by its sums in any box.

    Attributes:
        functional: whose it is.
        n_labels: K.
        key: what the functional is called in messages.
        terms: shapes on all of R^d, or None.
        density: or a projected density.
    """

    functional: QuadraticFunctional
    n_labels: int
    key: str
    terms: Terms | None
    density: Any
    _box: tuple[Floats, Floats] | None = None
    _rule: tuple[Floats, Floats] | None = None
    _last: tuple[bytes, QuadraticForm] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, functional: QuadraticFunctional, dim: int, n_labels: int, key: str) -> Self:
        """As a user gives it.

        Raises:
            InputError: it does not fit, or has no integrals against Gaussians that are known.
        """
        what, name = functional.target, f"{key}.target"
        if hasattr(what, "rule"):
            return cls(functional, n_labels, key, None, what)
        terms = normalised(labelled_terms(what, dim, n_labels, name))
        low = np.stack([np.broadcast_to(term.shape.lower, dim) for term, _ in terms]).min(axis=0)
        high = np.stack([np.broadcast_to(term.shape.upper, dim) for term, _ in terms]).max(axis=0)
        if not np.all(np.isfinite([low, high])):
            remedy = "Project it into a space that covers it: space.project(…)."
            raise InputError("has no box that it ends in", key=name, remedy=remedy)
        lattice = Lattice.of(low, high, functional.resolution, f"{key}.width")
        sums = functional.within(low, high, key).of_shapes(terms, n_labels)
        # Far tails of shapes end later than they matter.
        return cls(functional, n_labels, key, terms, None, lattice.box_of(np.abs(sums).max(axis=1), _NOTHING))

    def form(self, low: Floats, high: Floats, comm: MPI.Comm) -> QuadraticForm:
        """The distance from it, for points in a box. **Collective**.

        Raises:
            InputError: the box is too large for the kernel.
        """
        if self._box is None:
            self._rule = self.density.rule(self.functional.resolution)
            self._box = _box(self._rule[0], comm)
        unit = self.functional.resolution  # steps, so that small moves do not ask for other sums of the target
        low = unit * np.floor(np.minimum(low, self._box[0]) / unit)
        high = unit * np.ceil(np.maximum(high, self._box[1]) / unit)
        name = np.stack([low, high]).tobytes()
        if self._last is None or self._last[0] != name:
            form = self.functional.within(low, high, self.key)
            self._last = name, form.with_target(self._sums(form, comm))
        return self._last[1]

    def _sums(self, form: QuadraticForm, comm: MPI.Comm) -> Floats:
        """Collective."""
        with parallel.agreed(comm):
            if self.terms is not None:
                return form.of_shapes(self.terms, self.n_labels)
            assert self._rule is not None
            x, masses = self._rule
            own = form.at(x).sums(masses)
        return parallel.sum_all(comm, own)


@final
@dataclass
class Meetings:
    """∫F(ρ(t)) dt of a functional of all particles, by a quadrature rule on the time steps of every layer.

    Attributes:
        loss: F.
        horizon: T.
        n_layers: L.
        steps_per_layer: of equal length.
        tangents: F's, weighted, by layer and number of steps in it; T is the start of a layer L.
        constant: the sum of their constants.
        values: (n,) what each particle adds to J beside that.
    """

    loss: CrowdLoss
    horizon: float
    n_layers: int
    steps_per_layer: int
    tangents: dict[tuple[int, int], tuple[QuadraticForm, Floats]] = field(default_factory=dict)
    constant: float = 0.0
    values: Floats = field(default_factory=lambda: np.zeros(0))

    def in_layer(
        self, layer: int, starts: Sequence[tuple[Rows, Sequence[Floats]]], sample: ParticleSample, comm: MPI.Comm
    ) -> None:
        """All particles go through a layer. **Collective**.

        Args:
            layer: its number.
            starts: rows of the sample, and positions (k, dim) of these particles where each step starts.
            sample: the particles.
            comm: who shares them.

        Raises:
            RejectedEvaluation: as for ``CrowdLoss.tangent``.
        """
        for step in range(self.steps_per_layer):
            x = np.empty_like(sample.x)
            for rows, positions in starts:
                x[rows] = positions[step]
            self.meet(layer, step, x, sample, comm)

    def meet(self, layer: int, step: int, x: Floats, sample: ParticleSample, comm: MPI.Comm) -> None:
        """All particles are at x (n, dim) there. **Collective**; raises what ``in_layer`` raises."""
        weight = self._weight(layer, step)
        if weight == 0.0:
            return
        found = self.loss.tangent(x, sample, comm)
        self.tangents[layer, step] = found.form, weight * found.dual
        self.constant += weight * found.constant
        with parallel.agreed(comm):
            potential = weight * np.take_along_axis(found.value(x, np.zeros(0)), sample.labels[:, None], axis=1)[:, 0]
        self.values = self.values + potential if self.values.size else potential

    def slopes(self, layer: int, step: int, x: Floats) -> Floats | None:
        """∇Φ (m, dim), weighted, at some of the points x (m, dim) there; None where nothing counts."""
        if (layer, step) not in self.tangents:
            return None
        form, dual = self.tangents[layer, step]
        return form.at(x).gradient(dual)[:, 0]

    def _weight(self, layer: int, step: int) -> float:
        """What counts where so many steps of a layer have passed; 0 where nothing does."""
        rule = dict(layer_rule(self.steps_per_layer))
        count = rule.get(step, 0.0) if layer < self.n_layers else 0.0
        # Neighbouring layers share their ends.
        before = rule[self.steps_per_layer] if step == 0 and layer > 0 else 0.0
        return self.horizon / self.n_layers * (count + before)
