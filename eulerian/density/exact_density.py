"""The density that shapes describe, as a function of x: what a mesh holds is its projection."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.parallel import agreed, sum_all
from eulerian.density import basis
from eulerian.density.projection import Factors, project_shapes, shape_factors
from eulerian.density.shape import LabelledShape
from eulerian.density.space import DensitySpace
from eulerian.density.subdivided_rule import subdivided_rules
from eulerian.mesh.simplices import Indices


@final
@dataclass(frozen=True)
class ExactDensity:
    """Densities ρ_y(x) = Σ factor · shape(x) over the terms of label y, of total mass 1 in the domain.

    It is normalised as ``project_shapes`` normalises the mesh's: every term to its share of the mass *inside the
    domain*. Outside the domain the shapes go on, but there is no mass there. The same numbers on all ranks.

    Attributes:
        terms: shapes with label and key, each with its factor.
        n_labels: K.
    """

    terms: Factors
    n_labels: int

    @classmethod
    def of_shapes(cls, space: DensitySpace, terms: Iterable[LabelledShape]) -> Self:
        """The density of shapes in the domain that a space covers. **Collective**.

        Args:
            space: of K labels; its cells are the domain over which masses are taken.
            terms: the same on all ranks.

        Raises:
            InputError: as for ``project_shapes``, but nothing is said about mass outside the domain.
        """
        return cls(shape_factors(space, terms), space.n_labels)

    @classmethod
    def with_projection(cls, space: DensitySpace, terms: Iterable[LabelledShape]) -> tuple[Floats, Self]:
        """The mesh's density (n_cells, nd, K), as ``project_shapes`` gives it, and the one it stands for.

        **Collective**. Raises what ``project_shapes`` raises.
        """
        rho, factors = project_shapes(space, terms)
        return rho, cls(factors, space.n_labels)

    @property
    def mass(self) -> Floats:
        """∫ρ_y over the domain, (K,): the labels' shares."""
        shares = np.zeros(self.n_labels)
        for term, _ in self.terms:
            shares[term.label] += term.weight
        return np.asarray(shares / shares.sum())

    def values(self, x: Floats) -> Floats:
        """ρ_y(x), (n, K), at points x (n, d), per unit of volume. Points that follow one another should be near."""
        result = np.zeros((len(x), self.n_labels))
        for term, factor in self.terms:
            result[:, term.label] += factor * term.shape.values(x)
        return result

    def log_values(self, x: Floats) -> Floats:
        """Log ρ_y(x), (n, K), far tails included and without a floor; −∞ where the density is zero."""
        result = np.full((len(x), self.n_labels), -np.inf)
        for term, factor in self.terms:
            column = result[:, term.label]
            np.logaddexp(column, np.log(factor) + term.shape.log_values(x), out=column)
        return result

    def projection(self, space: DensitySpace, function: Callable[[Floats], Floats]) -> Floats:
        """Coefficients (n_owned, nd, m) of the L² projection of a function of the densities. **Collective**.

        Args:
            space: where to.
            function: from densities (cells, points, K) to numbers (cells, points, m).
        """
        count = function(np.zeros((0, 1, self.n_labels))).shape[2]
        found, rules = np.zeros((space.n_owned, space.nd, count)), self.rules(space)
        with agreed(space.comm):
            for cells, points, weights in rules:
                weighted = weights[:, None] * basis.legendre(space.dim, space.degree, points)
                rho = self.values_in(space.vertices[cells], points)
                found[cells] = np.einsum("cqk,qi->cik", function(rho), weighted)
        return found

    def rules(self, space: DensitySpace) -> list[tuple[Indices, Floats, Floats]]:
        """Rules that are fine enough for all terms, some cells at a time: see ``subdivided_rules``. **Collective**."""
        scales = [term.shape.scale for term, _ in self.terms]
        # A list, not an iterator: making them is collective, and those who use them do so inside ``agreed``.
        return list(subdivided_rules(space, scales, np.arange(space.n_owned)))

    def values_in(self, vertices: Floats, points: Floats) -> Floats:
        """ρ_y (n, q, K) at reference points (q, d) in cells of given vertices (n, d+1, d)."""
        x = basis.physical_points(vertices, points)
        return self.values(x.reshape(-1, x.shape[2])).reshape(*x.shape[:2], -1)

    def entropies(self, space: DensitySpace) -> tuple[Floats, float]:
        """∫ρ_y log ρ_y over the domain, (K,), and that of all labels' density together. **Collective**."""
        sums, rules = np.zeros(self.n_labels + 1), self.rules(space)
        with agreed(space.comm):
            for cells, points, weights in rules:
                rho = self.values_in(space.vertices[cells], points)
                both = np.concatenate([rho, rho.sum(axis=2, keepdims=True)], axis=2)
                product = both * np.log(both, out=np.zeros_like(both), where=both > 0.0)  # 0 log 0 = 0
                sums += np.einsum("c,q,cqk->k", space.geometry.det[cells], weights, product)
        total = sum_all(space.comm, sums)
        return total[:-1], float(total[-1])


def projection_errors(space: DensitySpace, rho: Floats, exact: ExactDensity) -> Floats:
    """∫_K |ρ_h − ρ|, relative to the label's mass, on this rank's owned cells: (n_owned, K). **Collective**.

    Cells are subdivided for the quadrature where ρ is finer than they are.

    Args:
        space: of ρ_h.
        rho: (n_cells, nd, K) coefficients of ρ_h.
        exact: ρ, of as many labels.
    """
    found = np.zeros((space.n_owned, space.n_labels))
    rules = exact.rules(space)
    with agreed(space.comm):
        for cells, points, weights in rules:
            true = exact.values_in(space.vertices[cells], points)
            table = basis.legendre(space.dim, space.degree, points)
            projected = np.einsum("qi,cik->cqk", table, rho[cells], optimize=True)
            found[cells] = np.einsum("q,cqk->ck", weights, np.abs(projected - true))
    return found * space.geometry.det[: space.n_owned, None] / space.mass(rho)
