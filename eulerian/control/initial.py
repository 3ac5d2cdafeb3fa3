"""What J takes from ρ₀ besides its transport: entropies and squares that costs start from, and their derivatives."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density.density import Density
from eulerian.density.space import DensitySpace
from eulerian.objective.floored_entropy import entropy, entropy_slope
from eulerian.objective.running import EntropyCosts, RunningCosts
from eulerian.objective.squares import SquareColumns
from eulerian.transport.group_stepper import Groups

if TYPE_CHECKING:
    from eulerian.control.control import ControlProblem


@dataclass
class Start:
    """What a forward solve starts from.

    Attributes:
        rho: ρ₀ (n_cells, nd, K), ghosts up to date.
        squares: that move beside the densities.
    """

    rho: Floats
    squares: list[SquareColumns]

    def changes(self) -> dict[str, float]:
        """By part of J, what is to be added since entropies start elsewhere than the problem's own. **Collective**."""
        return {}

    def keep(self, by_density: Floats, by_square: Groups) -> None:
        """Keep what the adjoint has found, where the derivative by this start is wanted. **Collective**.

        Args:
            by_density: (n_cells, nd, K) by what is transported, on owned cells.
            by_square: likewise by the squares that move beside it.
        """


@final
class MeshStart(Start):
    """A mesh function that J starts from in place of the problem's own ρ₀.

    Entropies and squares are those of the mesh function: ∫(ρ + δ) log(ρ + δ) − δ log δ with the space's floor δ, and
    the limited projections of its squares. (A problem starts from those of ρ₀ itself, before its projection.)

    Args:
        space: of densities.
        rho: (n_cells, nd, K), ghosts up to date.
        running: the costs along the way, as the problem has them for its own ρ₀.
        groups: the labels that have one velocity.
        horizon: T.

    Attributes:
        found: the derivative of J by the coefficients, (C, nd, K) of all cells on all ranks, of the last adjoint.
    """

    def __init__(
        self, space: DensitySpace, rho: Floats, running: RunningCosts, groups: Sequence[Sequence[int]], horizon: float
    ) -> None:
        """Collective."""
        super().__init__(rho, [])
        self.found: Floats | None = None
        self._space, self._entropy, self._groups, self._horizon = space, running.entropy, groups, horizon
        self._rule = space.quadrature(space.objective_degree)  # exact for squares
        self._values = np.einsum("qi,cik->cqk", self._rule.basis, rho[: space.n_owned], optimize=True)
        if running.squares is not None:
            self._unlimited = self._projected(self._summed(self._values) ** 2)
            self.squares.extend(running.squares.of_projections(space, self._unlimited).columns(groups))

    # -- entropies ---------------------------------------------------------------------------------------------------

    def changes(self) -> dict[str, float]:
        """See ``Start``. **Collective**."""
        costs, changes = self._entropy, dict[str, float]()
        if costs is None:
            return changes
        floor, both = self._space.floor, self._summed(self._values)
        local = np.einsum("cq,cqk->k", self._rule.weights, entropy(both, floor) - entropy(np.zeros(()), floor))
        found = parallel.sum_all(self._space.comm, local)
        for end in costs.ends:
            changes[end.part] = changes.get(end.part, 0.0) + end.weight * (float(found[:-1].sum()) - costs.by_label)
        if costs.running > 0.0:
            changes["entropy"] = costs.running * self._horizon * (float(found[-1]) - costs.initial)
        return changes

    def _entropy_derivative(self, costs: EntropyCosts) -> Floats:
        """(n_owned, nd, K)."""
        slope = entropy_slope(self._summed(self._values), self._space.floor)
        by_label, together = sum(end.weight for end in costs.ends), costs.running * self._horizon
        return self._integrated(by_label * slope[..., :-1] + together * slope[..., -1:])

    # -- squares -----------------------------------------------------------------------------------------------------

    def _square_derivative(self, by_square: Groups) -> Floats:
        """(n_owned, nd, K), of the derivatives by the columns of ``squares``."""
        space, by_q = self._space, np.zeros_like(self._unlimited)
        for columns, found in zip(self.squares, by_square, strict=True):
            places = [space.n_labels] if columns.summed else list(self._groups[columns.group])
            by_q[..., places] += found[: space.n_owned]
        by_q = space.limit_vjp(self._unlimited, by_q)
        at_points = np.einsum("qi,cik->cqk", self._rule.basis, by_q, optimize=True)
        at_points *= 2.0 * self._summed(self._values)
        by_rho = at_points[..., :-1] + at_points[..., -1:]
        return self._projected(by_rho)

    # -- both --------------------------------------------------------------------------------------------------------

    def keep(self, by_density: Floats, by_square: Groups) -> None:
        """See ``Start``. **Collective**."""
        found = by_density[: self._space.n_owned].copy()
        if self._entropy is not None:
            found += self._entropy_derivative(self._entropy)
        if by_square:
            found += self._square_derivative(by_square)
        self.found = self._space.all_cells(found)

    @staticmethod
    def _summed(values: Floats) -> Floats:
        """Densities (…, K), and their sum behind them."""
        return np.concatenate([values, values.sum(axis=-1, keepdims=True)], axis=-1)

    def _projected(self, values: Floats) -> Floats:
        """Coefficients (n_owned, nd, m) of the L² projection of values (n_owned, nq, m)."""
        weighted = self._rule.reference_weights[:, None] * self._rule.basis
        return np.asarray(np.einsum("cqk,qi->cik", values, weighted, optimize=True))

    def _integrated(self, values: Floats) -> Floats:
        """∫ of values (n_owned, nq, m) times the basis, (n_owned, nd, m)."""
        return np.asarray(np.einsum("cq,qi,cqk->cik", self._rule.weights, self._rule.basis, values, optimize=True))


@final
@dataclass
class Starts:
    """What a problem's evaluations start from.

    Attributes:
        own: the problem's ρ₀.
        chosen: by what is evaluated now.
        other: the last one of a user's.
    """

    own: Start
    chosen: Start
    other: MeshStart | None = None


def value_from(problem: "ControlProblem", theta: ArrayLike, rho0: Density | ArrayLike) -> float:
    """J(θ, ρ₀) of a mesh function ρ₀, or +∞ where it cannot be evaluated (``rejection`` says why). **Collective**.

    Args:
        problem: whose J it is.
        theta: as for its ``value``.
        rho0: a density of its space, or the coefficients (C, nd, K) of all cells in the order of the mesh's input
            (``Density.to_array``), the same on all ranks. It is taken as it is, not scaled to mass 1. What J takes of
            ρ₀'s entropy and square is that of the mesh function; ``value`` takes it of ρ₀ before its projection.

    Raises:
        InputError: θ or ρ₀ has the wrong size, or ρ₀ is not finite; the same on all ranks.
    """
    with _starting_from(problem, rho0):
        return problem.value(theta)


def value_and_gradients(
    problem: "ControlProblem", theta: ArrayLike, rho0: Density | ArrayLike
) -> tuple[float, Floats, Floats]:
    """``value_from``, dJ/dθ in the shape of θ, and dJ/dρ₀ by the coefficients (C, nd, K), on all ranks. **Collective**.

    The latter holds all that depends on ρ₀, and is exact where the limiter is differentiable. Where ρ₀ is zero J has
    one-sided derivatives only; there it is the adjoint state, the derivative by mass that the limiter leaves alone.
    ``DensitySpace.representative`` makes φ₀ of it, for which dJ = ∫φ₀ δρ₀. Both are zero where J is +∞.

    Raises:
        InputError: as for ``value_from``.
        ComputationError: J is finite, but a derivative is not; the same on all ranks.
    """
    with _starting_from(problem, rho0):
        value, gradient = problem.value_and_gradient(theta)
        start = problem.starts.chosen
    assert isinstance(start, MeshStart)
    space = problem.density_space
    if not math.isfinite(value):
        return value, gradient, np.zeros((space.n_cells_global, space.nd, space.n_labels))
    assert start.found is not None
    return value, gradient, start.found.copy()


@contextmanager
def _starting_from(problem: "ControlProblem", rho0: Density | ArrayLike) -> Iterator[None]:
    """Evaluations of a problem start from this ρ₀. **Collective**."""
    space = problem.density_space
    given = rho0 if hasattr(rho0, "coefficients") else space.from_array(rho0, key="rho0")
    rho, starts = Density.of(space, given, key="rho0").coefficients, problem.starts
    # The same object for the same numbers: the last evaluation may serve again.
    same = starts.other is not None and np.array_equal(starts.other.rho, rho)
    if not parallel.all_true(space.comm, same):
        starts.other = MeshStart(space, rho, problem.running, problem.groups, problem.horizon)
    assert starts.other is not None
    starts.chosen = starts.other
    try:
        with problem.trajectory.whole():
            yield
    finally:
        starts.chosen = starts.own
