"""A quadrature rule for ∫F(ρ(t)) dt over a layer, at some of its time steps."""

from functools import cache

import numpy as np
from numpy.polynomial import legendre

from eulerian.base.arrays import Floats

# Parts that a layer's time is cut into at most. Its velocity is constant, so F(ρ(t)) is smooth there, and an integral
# that is exact for polynomials of this degree is better than the time steps that it looks at.
INTERVALS = 4

# Rounding of a number of steps.
_SAME = 1e-9


@cache
def layer_rule(count: int) -> list[tuple[int, float]]:
    """Steps of a layer of ``count`` steps, and the weights of a quadrature rule there; the weights' sum is 1.

    With n + 1 steps it is exact for polynomials of degree n (Clenshaw & Curtis's points, moved to the time steps).
    """
    n = min(count, INTERVALS)
    points = 0.5 * count * (1.0 - np.cos(np.pi * np.arange(n + 1) / n))
    inwards = np.where(points < 0.5 * count, np.ceil(points - _SAME), np.floor(points + _SAME))
    # Where steps are few, one of the roundings may put points so close to an end that this end counts negatively.
    rules = [(steps, _weights(steps / count)) for steps in (np.rint(points), inwards)]
    steps, weights = max(rules, key=lambda rule: float(rule[1].min()))
    return [(int(step), float(weight)) for step, weight in zip(steps, weights, strict=True)]


def _weights(points: Floats) -> Floats:
    """Those of the quadrature rule on [0, 1] with given points that is exact for polynomials as far as possible."""
    # Orthogonal polynomials, all of whose integrals but the first vanish: a well-conditioned system.
    table = legendre.legvander(2.0 * points - 1.0, len(points) - 1)
    return np.linalg.solve(table.T, np.eye(len(points))[0])
