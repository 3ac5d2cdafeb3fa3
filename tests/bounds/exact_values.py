"""Values of idealised problems that are known exactly, for densities on all of space."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.linalg import sqrtm
from scipy.optimize import minimize
from scipy.special import ndtr

from eulerian.base.arrays import Floats
from eulerian.density.shapes import Gaussian

type Density = Callable[[Floats], Floats]


def transport(alpha: float, start: Gaussian, goal: Gaussian) -> float:
    """α/2 W₂² of two normal densities (Dowson and Landau 1982, doi:10.1016/0047-259X(82)90077-X)."""
    root = np.real(sqrtm(start.covariance))
    mixed = np.real(sqrtm(root @ goal.covariance @ root))
    away = start.mean - goal.mean
    return 0.5 * alpha * float(away @ away + np.trace(start.covariance + goal.covariance - 2.0 * mixed))


def divergence(alpha: float, start: Gaussian, goal: Gaussian) -> float:
    """Min KL(ρ|ρ*) + α/2 W₂²(ρ_0, ρ) for two normal densities with the same axes: a sum over these.

    On an axis, with k = 1/s₁², the best mean costs αk/(α + k) (m₁ − m₀)²/2, and the best deviation s is the root of
    (α + k) s² − α s₀ s − 1.
    """
    _, axes = np.linalg.eigh(start.covariance + 0.3 * goal.covariance)
    total = 0.0
    for axis in axes.T:
        s0, k = np.sqrt(axis @ start.covariance @ axis), 1.0 / (axis @ goal.covariance @ axis)
        s = (alpha * s0 + np.sqrt((alpha * s0) ** 2 + 4.0 * (alpha + k))) / (2.0 * (alpha + k))
        total += 0.5 * alpha * k / (alpha + k) * float(axis @ (goal.mean - start.mean)) ** 2
        total += -np.log(s * np.sqrt(k)) + 0.5 * (k * s**2 - 1.0) + 0.5 * alpha * (s - s0) ** 2
    return float(total)


def boxes(alpha: float, start: Sequence[Floats], goal: Sequence[Floats]) -> float:
    """α/2 W₂² of uniform densities on two boxes, given by their corners: the map is affine, axis by axis."""
    (low, high), (end, top) = start, goal
    middle, half = (low + high) / 2 - (end + top) / 2, (high - low) / 2 - (top - end) / 2
    return 0.5 * alpha * float(middle @ middle + half @ half / 3.0)


def on_a_line(alpha: float, lower: float, upper: float, start: Density, goal: Density, cells: int = 2000) -> float:
    """α/2 W₂² of two densities on a line: the map keeps the order of points."""
    x = np.linspace(lower, upper, 40 * cells + 1)
    ranks = []
    for density in (start, goal):
        values = density(x)
        sums = np.concatenate([[0.0], np.cumsum(0.5 * (values[1:] + values[:-1]))])
        ranks.append(sums / sums[-1])
    q = np.unique(np.concatenate(ranks))
    away = np.subtract(*(np.interp(q, rank, x) for rank in ranks))
    squares = (away[1:] ** 2 + away[1:] * away[:-1] + away[:-1] ** 2) / 3.0
    return 0.5 * alpha * float(np.diff(q) @ squares)


def squared_distance_on_a_line(
    alpha: float, lower: float, upper: float, start: Gaussian, goal: Gaussian, cells: int
) -> float:
    """Min ½∫(ρ − ρ*)² + α/2 W₂²(ρ_0, ρ) over densities that are constant on the images of some cells: an upper bound.

    It exceeds the minimum by O(1/cells²).
    """
    x = np.linspace(*(start.mean[0] + side * 6.0 * np.sqrt(start.covariance[0, 0]) for side in (-1.0, 1.0)), cells + 1)
    std, middle = np.sqrt(goal.covariance[0, 0]), goal.mean[0]
    masses = np.diff(ndtr((x - start.mean[0]) / np.sqrt(start.covariance[0, 0])))
    masses /= masses.sum()
    square = 0.25 / (std * np.sqrt(np.pi))

    def value_and_slope(parameters: Floats) -> tuple[float, Floats]:
        widths = np.exp(parameters[1:])
        z = parameters[0] + np.concatenate([[0.0], np.cumsum(widths)])
        away, place = z - x, (z - middle) / std
        inside = np.diff(ndtr(place)) / widths
        value = 0.5 * alpha * masses @ (away[1:] ** 2 + away[1:] * away[:-1] + away[:-1] ** 2) / 3.0
        value += 0.5 * np.sum(masses**2 / widths) - masses @ inside + square
        slope = np.zeros(cells + 1)
        slope[1:] += alpha * masses * (2.0 * away[1:] + away[:-1]) / 6.0
        slope[:-1] += alpha * masses * (2.0 * away[:-1] + away[1:]) / 6.0
        density = np.exp(-0.5 * place**2) / (std * np.sqrt(2.0 * np.pi))
        by_width = -0.5 * masses**2 / widths**2 + masses * inside / widths
        slope[1:] += by_width - masses * density[1:] / widths
        slope[:-1] -= by_width - masses * density[:-1] / widths
        rest = np.cumsum(slope[::-1])[::-1]
        return value, np.concatenate([[rest[0]], rest[1:] * widths])

    found = []
    for share in (0.1, 0.5, 0.9):  # of the way; the problem is not convex in z
        begin = (1.0 - share) * x + share * (middle + std * (x - start.mean[0]) / np.sqrt(start.covariance[0, 0]))
        guess = np.concatenate([begin[:1], np.log(np.diff(begin))])
        best = minimize(value_and_slope, guess, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "maxfun": 9000})
        z = best.x[0] + np.concatenate([[0.0], np.cumsum(np.exp(best.x[1:]))])
        assert lower <= z[0]
        assert z[-1] <= upper
        found.append(float(best.fun))
    return min(found)
