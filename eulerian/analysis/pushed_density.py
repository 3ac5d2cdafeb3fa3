"""The density that a flow makes of ρ₀, along its characteristics: no mesh but that of ρ₀, so a reference for others.

By the change of variables ρ_y(T, x) = ρ_{0,y}(x₀) exp(−∫ div v dt) along the path from x₀ to x.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density.gathered import GatheredDensity
from eulerian.density.space import DensitySpace, Quadrature

type Pull = Callable[[Floats, NDArray[np.integer]], tuple[Floats, Floats]]

# Exactness of the rule for distances of densities, whose integrand is smooth but for a change of sign.
RULE_DEGREE = 4


@final
@dataclass(frozen=True)
class PushedDensity:
    """ρ(T) of the exact flow, up to the error in time of ``pull``; no walls, and no mass from outside the domain.

    Attributes:
        initial: ρ₀.
        pull: from points (n, dim) at T and their labels (n,) to where they come from, and −∫ div v dt on the way;
            collective.
        label_dependent: the flow depends on the label.
    """

    initial: GatheredDensity
    pull: Pull
    label_dependent: bool

    def values(self, x: Floats) -> Floats:
        """ρ_y(T, x), (n, K), at this rank's points x (n, dim). Collective."""
        columns = []
        for label in range(self.initial.n_labels if self.label_dependent else 1):
            start, change = self.pull(x, np.full(len(x), label))
            found = np.zeros((len(x), self.initial.n_labels))
            near = np.all(np.isfinite(start), axis=1) & np.isfinite(change)  # else no mass came from there
            found[near] = self.initial.values(start[near]) * np.exp(change[near, None])
            columns.append(found[:, label] if self.label_dependent else found)
        return np.stack(columns, axis=1) if self.label_dependent else columns[0]

    def at(self, space: DensitySpace) -> Floats:
        """Values (n_owned, nq, K) at the points of ``distance_rule``. Collective."""
        points = distance_rule(space).points
        return self.values(points.reshape(-1, space.dim)).reshape(*points.shape[:2], -1)


def distance_rule(space: DensitySpace) -> Quadrature:
    """The rule at whose points densities are compared."""
    return space.quadrature(RULE_DEGREE)


def l1_distance(space: DensitySpace, values: Floats, others: Floats) -> Floats:
    """∫|f_y − g_y|, (K,), for values (n_owned, nq, K) at the points of ``distance_rule``. Collective."""
    rule = distance_rule(space)
    return parallel.sum_all(space.comm, np.einsum("cq,cqk->k", rule.weights, np.abs(values - others)))


def density_values(space: DensitySpace, rho: Floats) -> Floats:
    """Values (n_owned, nq, K) of a density (n_cells, nd, K) at the points of ``distance_rule``."""
    return np.asarray(np.einsum("qi,cik->cqk", distance_rule(space).basis, rho[: space.n_owned], optimize=True))
