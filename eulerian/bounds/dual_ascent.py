"""Potentials at T that bound the idealised problem from below, improved by Newton's method.

For any function φ_T on a convex domain, φ_0(x) = min_z {φ_T(z) + α/2 |x − z|²} with α = λ/T solves the Hamilton–Jacobi
equation, so ∫φ_0 dμ_0 − F*(φ_T) is a lower bound of the idealised problem, whatever φ_T is (the dual of
Kantorovich, with F for the second measure). It is concave in φ_T. Its gradient is the density that the minimisers z
transport μ_0 to, minus the density that φ_T asks of F; its second derivative is that of a weighted Poisson problem,
which makes Newton's method natural (for the gradient method with a Poisson problem as its metric see Jacobs and Léger
2020, doi:10.1007/s00211-020-01154-8).
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

from mpi4py import MPI

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.jit import Library
from eulerian.bounds.conjugate_gradients import conjugate_gradients
from eulerian.bounds.grid_search import LossTable
from eulerian.bounds.splines import Design, SplineFunction, SplineSpace
from eulerian.ideal.final_costs import Conjugate, FinalCost

_MOST_STEPS = 50  # of Newton's method on one spline space
_CG_TOLERANCE, _MOST_CG = 1e-3, 200
_SHARE, _GOOD = 0.1, 0.7  # of the predicted gain that a step must bring, and with which the damping falls
_MOST_POLISH, _STILL = 25, 1e-8  # Newton steps to a minimiser; in intervals of the splines: a step that ends them
_ALL = 8  # minima that are told apart, in the last evaluation
_GRID = {1: 1025, 2: 129, 3: 33}  # points per axis of the search for the minimisers
LEAST_DAMPING, _MOST_DAMPING = 1e-7, 1e3  # relative to the largest diagonal entry of the second derivative


LIBRARY = Library(Path(__file__).with_name("spline_minima.c"), "splines_t")
at = LIBRARY.pointer

type Rows = slice | NDArray[np.intp]


@final
@dataclass(frozen=True)
class Source:
    """∫f dμ_0 ≈ Σ w_i f(x_i) for one label: this rank's points."""

    x: Floats
    weights: Floats


@final
@dataclass(frozen=True)
class _Iterate:
    """The bound at some coefficients, with what its derivatives need."""

    coefficients: Floats
    value: float
    gradient: Floats
    z: Floats
    conjugate: Conjugate


@final
class DualAscent:
    """Newton's method for ∫φ_0 dμ_0 − F*(φ_T) over a spline space. Making one is **collective**.

    Args:
        space: of φ_T; its box is the domain of z.
        alpha: α = λ/T.
        source: μ_0.
        cost: F.
        comm: who shares the points.
    """

    def __init__(self, space: SplineSpace, alpha: float, source: Source, cost: FinalCost, comm: MPI.Comm) -> None:
        self._space, self._alpha, self._source, self._cost, self._comm = space, alpha, source, cost, comm
        self._at_cost: csr_array = space.design(cost.points).matrix()
        self._last: _Iterate | None = None  # where ``run`` came to
        self._functions = LIBRARY.load(comm, DIM=space.dim)
        names, box = ("lower", "upper", "width", "intervals"), (space.lower, space.upper, space.width)
        intervals = np.array(space.intervals, dtype=np.int32)
        self._arrays: list[NDArray[Any]] = [*(np.ascontiguousarray(array) for array in box), intervals]
        numbers = {"alpha": alpha, "widest": space.width.max(), "still": _STILL, "steps": _MOST_POLISH}
        pointers = [at(array) for array in self._arrays]
        self._box = {**dict(zip(names, pointers, strict=True)), **numbers}

    def run(self, start: Floats, tolerance: float, damping: float = LEAST_DAMPING) -> tuple[SplineFunction, float]:
        """Climb from some coefficients until less than ``tolerance`` is left to gain. **Collective**.

        Args:
            start: coefficients.
            tolerance: see above.
            damping: of the first step, relative to the largest diagonal entry of the second derivative.

        Returns:
            The potential, and the damping of the last step that was of use.
        """
        now, failed = self._evaluate(self._comm.bcast(start), self._source.x), False
        used = damping
        for _ in range(_MOST_STEPS):
            step = self._newton_step(now, damping)
            gain = self._comm.bcast(0.5 * float(now.gradient @ step))
            if not gain > tolerance:
                break
            trial = self._evaluate(now.coefficients + step, now.z)
            # Levenberg (1944) and Marquardt (1963): the damping grows until a step brings what it promises.
            brought = (trial.value - now.value) / gain
            if brought >= _SHARE:
                now, used = trial, damping
                if brought >= _GOOD and not failed:  # what has just been too little would be so again
                    damping = max(0.1 * damping, LEAST_DAMPING)
            elif damping > _MOST_DAMPING:
                break
            else:
                damping *= 10.0
            failed = brought < _SHARE
        self._last = now
        return SplineFunction(self._space, now.coefficients), used

    def evaluate(self, coefficients: Floats, follow: int = _ALL) -> tuple[float, Floats]:
        """The bound at some coefficients, and where the points go, (n, dim). **Collective**.

        Args:
            coefficients: of φ_T.
            follow: how many minima of each point are told apart: one is not enough for a bound.
        """
        last = self._last
        if follow == 1 and last is not None and last.coefficients is coefficients:
            return last.value, last.z
        found = self._evaluate(coefficients, self._source.x, follow)
        return found.value, found.z

    # -- inner workings ----------------------------------------------------------------------------------------------

    def _evaluate(self, coefficients: Floats, guess: Floats, follow: int = 1) -> _Iterate:
        """Collective."""
        source = self._source
        with parallel.agreed(self._comm):
            z, lowest = self._transform(coefficients, guess, follow)
            pushed = self._space.design(z).matrix().T @ source.weights
        conjugate = self._cost.conjugate(self._at_cost @ coefficients)
        local = np.append(pushed - self._at_cost.T @ conjugate.weights, source.weights @ lowest)
        sums = parallel.sum_all(self._comm, local)
        return _Iterate(coefficients, float(sums[-1]) - conjugate.value, sums[:-1], z, conjugate)

    def _transform(self, coefficients: Floats, guess: Floats, follow: int) -> tuple[Floats, Floats]:
        """Minimisers z of φ_T(z) + α/2 |x − z|² and the minima, from guesses and the best places of a grid."""
        x = self._source.x
        if not len(x):
            return x, np.zeros(0)
        on_grid = self._tabulate(coefficients).minimise(x, self._alpha)
        if follow == 1:  # the better one of two beginnings: that is enough to climb
            nearest = on_grid.nearest(x)
            better = self._costs(coefficients, x, nearest) < self._costs(coefficients, x, guess)
            return self._polish(coefficients, np.where(better[:, None], nearest, guess))
        candidates = on_grid.candidates(x)
        z, values = self._polish(coefficients, guess)
        for column in range(min(follow, candidates.values.shape[1])):
            worth = np.flatnonzero(np.isfinite(candidates.values[:, column]))
            other, others = self._polish(coefficients, candidates.z[worth, column], worth)
            better = others < values[worth]
            z[worth[better]], values[worth[better]] = other[better], others[better]
        return z, values

    def _tabulate(self, coefficients: Floats) -> LossTable:
        axes, design = self._grid
        return LossTable(axes, design.values(coefficients).reshape([len(axis) for axis in axes]))

    @cached_property
    def _grid(self) -> tuple[tuple[Floats, ...], Design]:
        """The axes of the grid that is searched, and the splines there."""
        space, n = self._space, _GRID[self._space.dim]
        axes = tuple(np.linspace(low, high, n) for low, high in zip(space.lower, space.upper, strict=True))
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        return axes, space.design(points.reshape(-1, space.dim))

    def _polish(self, coefficients: Floats, z: Floats, which: Rows = slice(None)) -> tuple[Floats, Floats]:
        """Local minima near z, of all points or of some of them, by Newton's method in the box."""
        x, z = np.ascontiguousarray(self._source.x[which]), np.array(z, order="C")
        values, held = np.empty(len(x)), np.ascontiguousarray(coefficients)
        struct = LIBRARY.ffi.new("splines_t *", {**self._box, "coefficients": at(held)})
        self._functions.minima(struct, len(x), at(x), at(z), at(values))
        return z, values

    def _costs(self, coefficients: Floats, x: Floats, z: Floats) -> Floats:
        return self._space.design(z).values(coefficients) + 0.5 * self._alpha * np.sum((x - z) ** 2, axis=1)

    def _free(self, z: Floats, gradient: Floats) -> Floats:
        """1 along axes where z may move, 0 where a wall holds it, (n, dim)."""
        held = (z <= self._space.lower) & (gradient > 0.0) | (z >= self._space.upper) & (gradient < 0.0)
        return np.where(held, 0.0, 1.0)

    def _inverse(self, hessian: Floats, free: Floats) -> Floats:
        """(α + D²φ)⁻¹ along the free axes, with eigenvalues made positive: (n, dim, dim)."""
        unit = np.eye(self._space.dim)
        matrix = free[:, :, None] * free[:, None, :] * (self._alpha * unit + hessian)
        matrix = matrix + (1.0 - free)[:, :, None] * unit
        inverse = np.empty_like(matrix)
        good = _is_definite(matrix - 1e-3 * self._alpha * unit)
        inverse[good] = _inverted(matrix[good])
        values, vectors = np.linalg.eigh(matrix[~good])
        values = np.maximum(np.abs(values), 1e-3 * self._alpha)
        inverse[~good] = np.einsum("nij,nj,nkj->nik", vectors, 1.0 / values, vectors)
        return inverse * free[:, :, None] * free[:, None, :]

    def _newton_step(self, now: _Iterate, damping: float) -> Floats:
        """An ascent direction, from the second derivative by conjugate gradients. Collective."""
        with parallel.agreed(self._comm):
            model = _Curvature.at(self, now)
        diagonal = parallel.sum_all(self._comm, model.diagonal())
        damping *= float(diagonal.max())
        diagonal += damping
        total = parallel.sum_all(self._comm, now.conjugate.curvature.sum()[None])[0]

        def apply(v: Floats) -> Floats:
            product, mean = model.apply(v)
            sums = parallel.sum_all(self._comm, np.append(product, mean))
            shared = sums[-1] / total if total > 0.0 else 0.0
            return sums[:-1] - shared * pull + damping * v

        pull = parallel.sum_all(self._comm, model.pull)
        return conjugate_gradients(self._comm, apply, now.gradient, diagonal, _CG_TOLERANCE, _MOST_CG)


def _is_definite(matrices: Floats) -> NDArray[np.bool_]:
    """Whether symmetric matrices (n, dim, dim) are positive definite, by their leading minors (Sylvester); (n,)."""
    sizes = range(1, matrices.shape[1] + 1)
    return np.all([_determinants(matrices[:, :size, :size]) > 0.0 for size in sizes], axis=0)


def _determinants(matrices: Floats) -> Floats:
    """Of small matrices (n, dim, dim), up to two dimensions without LAPACK, which takes its time for each; (n,)."""
    if matrices.shape[1] == 1:
        return matrices[:, 0, 0]
    if matrices.shape[1] == 2:
        return matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]
    return np.asarray(np.linalg.det(matrices))


def _inverted(matrices: Floats) -> Floats:
    """The inverses of small symmetric matrices, likewise; (n, dim, dim)."""
    if matrices.shape[1] > 2:
        return np.linalg.inv(matrices)
    found = np.ones_like(matrices)
    if matrices.shape[1] == 2:
        found[:, 0, 0], found[:, 1, 1] = matrices[:, 1, 1], matrices[:, 0, 0]
        found[:, 0, 1] = found[:, 1, 0] = -matrices[:, 0, 1]
    return np.asarray(found / _determinants(matrices)[:, None, None])


@final
@dataclass(frozen=True)
class _Curvature:
    """Minus the second derivative of the bound, this rank's part."""

    slopes: list[csr_array]
    inverse: Floats
    at_cost: csr_array
    curvature: Floats
    pull: Floats

    @classmethod
    def at(cls, ascent: DualAscent, now: _Iterate) -> "_Curvature":
        design: Design = ascent._space.design(now.z)
        jets = design.jets(now.coefficients)
        free = ascent._free(now.z, jets.gradient + ascent._alpha * (now.z - ascent._source.x))
        inverse = ascent._inverse(jets.hessian, free)
        inverse = inverse * ascent._source.weights[:, None, None]
        curvature = now.conjugate.curvature
        return cls(design.slopes(), inverse, ascent._at_cost, curvature, ascent._at_cost.T @ curvature)

    def diagonal(self) -> Floats:
        squares: list[Floats] = [matrix.power(2).T @ self.inverse[:, i, i] for i, matrix in enumerate(self.slopes)]
        return np.sum([*squares, self.at_cost.power(2).T @ self.curvature], axis=0)

    def apply(self, v: Floats) -> tuple[Floats, float]:
        """Its product without the rank-one part, and the sum Σ c v that this needs."""
        gradient = np.stack([matrix @ v for matrix in self.slopes], axis=1)
        flux = np.einsum("nij,nj->ni", self.inverse, gradient)
        products: list[Floats] = [matrix.T @ column for matrix, column in zip(self.slopes, flux.T, strict=True)]
        values = self.curvature * (self.at_cost @ v)
        return np.sum([*products, self.at_cost.T @ values], axis=0), float(values.sum())
