"""All cells of a density on every rank, so that it can be evaluated anywhere without communication."""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Self, final

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.density import basis
from eulerian.density.space import EMPTY, DensitySpace
from eulerian.mesh.point_location import CellFinder

_BLOCK = 2**15  # points whose basis is tabulated at a time


@final
@dataclass(frozen=True, eq=False)
class GatheredDensity:
    """Densities ρ_y, y = 1..K, on all cells of a mesh, whose order does not depend on the number of ranks.

    Attributes:
        vertices: (C, dim+1, dim) of the cells.
        coefficients: (C, nd, K) in the orthonormal Legendre basis of ``DensitySpace``.
        degree: 0, 1 or 2.
    """

    vertices: Floats
    coefficients: Floats
    degree: int

    @classmethod
    def gather(cls, space: DensitySpace, rho: Floats) -> Self:
        """Bring the cells of a density (n_cells, nd, K) to all ranks. **Collective**."""
        return cls(space.all_cells(space.vertices), space.all_cells(rho[: space.n_owned]), space.degree)

    def only(self, label: int) -> Self:
        """The density of one label."""
        return type(self)(self.vertices, np.ascontiguousarray(self.coefficients[..., label : label + 1]), self.degree)

    # -- sizes ------------------------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Space dimension."""
        return int(self.vertices.shape[2])

    @property
    def n_labels(self) -> int:
        """Number K of labels."""
        return int(self.coefficients.shape[2])

    @cached_property
    def det(self) -> Floats:
        """|det J| = dim! × volume of each cell, (C,)."""
        return np.asarray(np.abs(np.linalg.det(self.vertices[:, 1:] - self.vertices[:, :1])))

    @cached_property
    def cell_mass(self) -> Floats:
        """Mass in each cell, (C, K)."""
        return np.asarray(self.coefficients[:, 0] * (self.det[:, None] / self._phi0))

    @property
    def mass(self) -> Floats:
        """∫ρ_y, (K,)."""
        return np.asarray(self.cell_mass.sum(axis=0))

    # -- evaluation -------------------------------------------------------------------------------------------------

    @cached_property
    def finder(self) -> CellFinder:
        """Finds the cells of points."""
        return CellFinder(self.vertices)

    def values(self, x: Floats) -> Floats:
        """ρ_y (n, K) at points x (n, dim); 0 outside the domain."""
        cells, weights = self.finder.find(x)
        result = np.zeros((len(x), self.n_labels))
        inside = np.flatnonzero(cells >= 0)
        result[inside] = self.values_in(cells[inside], weights[inside, 1:])
        return result

    def values_in(self, cells: NDArray[np.int64], reference: Floats) -> Floats:
        """ρ_y (n, K) in cells (n,) at reference points (n, dim), one for each of the cells."""
        result = np.empty((len(cells), self.n_labels))
        for start in range(0, len(cells), _BLOCK):
            part = slice(start, start + _BLOCK)
            table = basis.legendre(self.dim, self.degree, reference[part])
            result[part] = np.einsum("ni,nik->nk", table, self.coefficients[cells[part]])
        return result

    def contains(self, x: Floats) -> NDArray[np.bool_]:
        """Which of the points x (n, dim) lie in the domain, its boundary included: (n,)."""
        return np.asarray(self.finder.find(x)[0] >= 0)

    # -- positivity -------------------------------------------------------------------------------------------------

    def non_negative(self) -> Self:
        """The density scaled towards its cell means until it is nowhere negative; masses stay as they are.

        The scheme's limiter guards the quadrature points only; this looks at the minimum over each cell. A cell whose
        mean is not positive becomes empty, and the others make up for it.
        """
        coefficients = self.coefficients.copy()
        mean = self._phi0 * coefficients[:, 0]
        filled = mean >= EMPTY
        coefficients *= filled[:, None]
        if self.degree:
            lowest = self._minima(coefficients)
            limited = filled & (lowest < 0.0)
            factor = np.where(limited, mean / np.where(limited, mean - lowest, 1.0), 1.0)
            coefficients[:, 1:] *= factor[:, None]
        left = np.einsum("ck,c->k", coefficients[:, 0], self.det) / self._phi0
        coefficients *= np.where(left > 0.0, np.maximum(self.mass, 0.0) / np.where(left > 0.0, left, 1.0), 0.0)
        return type(self)(self.vertices, coefficients, self.degree)

    @property
    def _phi0(self) -> float:
        return float(basis.legendre(self.dim, 0, np.zeros((1, self.dim)))[0, 0])

    def _minima(self, coefficients: Floats) -> Floats:
        """The least value of each label in each cell, (C, K)."""
        corners = basis.reference_vertices(self.dim)
        at_corners = np.einsum("qi,cik->cqk", basis.legendre(self.dim, self.degree, corners), coefficients)
        lowest = np.asarray(at_corners.min(axis=1))
        if self.degree < 2:
            return lowest
        pairs = list(combinations(range(self.dim + 1), 2))
        middles = np.array([(corners[i] + corners[j]) / 2 for i, j in pairs])
        at_middles = np.einsum("qi,cik->cqk", basis.legendre(self.dim, 2, middles), coefficients)
        forms = np.empty((len(coefficients), self.n_labels, self.dim + 1, self.dim + 1))
        for i in range(self.dim + 1):
            forms[..., i, i] = at_corners[:, i]
        for (i, j), value in zip(pairs, np.moveaxis(at_middles, 1, 0), strict=True):
            forms[..., i, j] = forms[..., j, i] = 2.0 * value - (at_corners[:, i] + at_corners[:, j]) / 2
        # A quadratic with Bernstein coefficients ≥ 0 has its minimum ≥ 0: there is no need to look for it.
        doubtful = forms.min(axis=(2, 3)) < 0.0
        lowest[doubtful] = np.minimum(lowest[doubtful], _least_inside(forms[doubtful]))
        return lowest


def _least_inside(forms: Floats) -> Floats:
    """Least stationary value of quadratics in the relative interior of a simplex' faces, (m,); +∞ without one.

    Args:
        forms: (m, dim+1, dim+1) symmetric, the quadratic is bᵀMb in barycentric coordinates b, Σb = 1. With M_S, the
            part of a face, M_S b = μ1 there, and μ is the value.
    """
    least = np.full(len(forms), np.inf)
    corners = forms.shape[1]
    for size in range(2, corners + 1):
        for face in combinations(range(corners), size):
            system = np.zeros((len(forms), size + 1, size + 1))
            system[:, :size, :size] = forms[:, face][:, :, face]
            system[:, :size, size], system[:, size, :size] = -1.0, 1.0
            # Singular where the quadratic is constant along a line: then a smaller face has the same value.
            scale = np.abs(system[:, :size, :size]).max(axis=(1, 2))
            regular = np.flatnonzero(np.abs(np.linalg.det(system)) > 1e-12 * scale ** (size - 1))
            right = np.zeros((len(regular), size + 1, 1))  # the last row is Σb = 1
            right[:, size] = 1.0
            solution = np.linalg.solve(system[regular], right)[..., 0]
            inside = np.all(solution[:, :size] >= 0.0, axis=1)
            rows = regular[inside]
            least[rows] = np.minimum(least[rows], solution[inside, size])
    return least
