"""Running costs that are not linear in the density, at stages of the time steps as the compiled loops hold them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.jit import Library
from eulerian.density import basis
from eulerian.transport.simd_layout import NodalLayout, aligned, in_blocks

_LIBRARY = Library(Path(__file__).with_name("density_cost.c"), "cost_t")


@dataclass(frozen=True)
class DensityCost:
    """γ/2 ∫ρ² + σ ∫((ρ + δ) log(ρ + δ) − δ log δ) per time, for the total density ρ of all labels.

    With the floor δ the entropy is smooth, 0 in empty cells, and its derivative is bounded there; below 0, where only
    rounding (or a solve without limiter) leads, it continues as its tangent.

    Attributes:
        congestion: γ.
        entropy: σ.
        floor: δ > 0.
        products: whether γ is charged on products of different densities only: their own squares are known better
            elsewhere. The densities that are summed have one column each then.
    """

    congestion: float
    entropy: float
    floor: float
    products: bool = False


@final
class DensityCharge:
    """A cost of the total density and its derivative. Densities have the layout's shape; nothing is collective.

    Every moment is charged by itself, so the bits do not depend on how many are charged together.

    Args:
        layout: of the densities; several may have one layout and are summed.
        cost: what they cost.
    """

    def __init__(self, layout: NodalLayout, cost: DensityCost) -> None:
        """Collective (compiles on first use)."""
        space, element = layout.space, layout.element
        self._layout = layout
        rule, square = (basis.quadrature_rule(space.dim, n) for n in (space.objective_degree, 2 * space.degree))
        # ρ² is a polynomial and is integrated exactly; the logarithm takes the rule of all other costs.
        points, nodes = element.values(rule.points), element.values(square.points)
        gram = np.einsum("q,qi,qj->ij", square.weights, nodes, nodes)
        tables = {
            "GRAM": gram,
            "POINTS": points,
            "WEIGHTS": rule.weights,
            "PROJECT": np.linalg.solve(gram, points.T * rule.weights),
        }
        self._kernels = _LIBRARY.load(
            space.comm,
            tables,
            ND=space.nd,
            NQ=len(rule.weights),
            GROUPS=layout.groups,
            WIDTH=layout.width,
            COLUMNS=layout.columns,
        )
        self._det = in_blocks(space.geometry.det[: space.n_owned])  # C holds a pointer only: the array must outlive it
        self._cost = _LIBRARY.ffi.new("cost_t *")
        self._cost.n_owned, self._cost.det = space.n_owned, _LIBRARY.pointer(self._det)
        self._cost.congestion, self._cost.entropy, self._cost.floor = cost.congestion, cost.entropy, cost.floor
        assert not cost.products or layout.columns == 1, "one column for each density"
        self._cost.products = cost.products
        self._slopes: list[Floats] = []

    def values(self, moments: Sequence[Sequence[Floats]]) -> Floats:
        """This rank's share of congestion and entropy per time, (len(moments), 2).

        Args:
            moments: the densities at every moment, whose sum counts.
        """
        found = np.empty((len(moments), 2))
        self._kernels.charge(self._cost, *_pointers(moments), _LIBRARY.pointer(found))
        return found

    def slopes(self, moments: Sequence[Sequence[Floats]], base: Floats, own: int = 0) -> list[Floats]:
        """What represents the derivative by any column in L², at every moment, added to ``base``.

        Args:
            moments: as for ``values``.
            base: (n_batches + 1, nd, cells) as ``NodalLayout.pack_shared`` makes them.
            own: which of the densities the derivative is by; they differ where only products are charged.

        Returns:
            Arrays like ``base``, overwritten by the next call.
        """
        while len(self._slopes) < len(moments):  # kept for the next call: the adjoint asks for the same many times
            self._slopes.append(aligned(base.shape))
        results = self._slopes[: len(moments)]
        targets = _LIBRARY.ffi.new("double *[]", [_LIBRARY.pointer(each) for each in results])
        self._kernels.slope(self._cost, *_pointers(moments), own, _LIBRARY.pointer(base), targets)
        return results


def _pointers(moments: Sequence[Sequence[Floats]]) -> tuple[Any, int, int]:
    flat = [_LIBRARY.pointer(density) for densities in moments for density in densities]
    return _LIBRARY.ffi.new("double *[]", flat), len(moments[0]), len(moments)
