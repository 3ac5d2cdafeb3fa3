"""From the unit cube into a cell, such that uniform points follow the polynomial density of the cell."""

import numpy as np
from numpy.polynomial.legendre import leggauss

from eulerian.base.arrays import Floats
from eulerian.density import basis

_MOST_STEPS = 80  # of bisection; Newton's method needs less than ten


def cell_quantiles(dim: int, degree: int, coefficients: Floats, u: Floats) -> Floats:
    """Points of the reference cell with the densities that the coefficients describe, for uniform u.

    The inverse Rosenblatt transformation (Rosenblatt 1952, doi:10.1214/aoms/1177729394): coordinate by coordinate the
    distribution given the coordinates before it is inverted. In collapsed coordinates (ξ_k = s_k r, r what the
    coordinates before have left of 1) the densities of s_k are polynomials, so quadrature gives them exactly.

    Args:
        dim: 1, 2 or 3.
        degree: of the densities.
        coefficients: (n, nd), a density ≥ 0 that is not zero for every point.
        u: (n, dim) in [0, 1).

    Returns:
        (n, dim) reference coordinates.
    """
    result = np.zeros((len(u), dim))
    room = np.ones(len(u))
    for axis in range(dim):
        s = _inverse(_conditional(dim, degree, coefficients, result, room, axis), u[:, axis])
        result[:, axis] = room * s
        room = room * (1.0 - s)
    return result


def _conditional(dim: int, degree: int, coefficients: Floats, fixed: Floats, room: Floats, axis: int) -> Floats:
    """Density of s on [0, 1], given the coordinates before ``axis``: monomial coefficients (n, m), of any mass."""
    rest = dim - axis - 1
    nodes = (leggauss(degree + rest + 1)[0] + 1) / 2  # as many as a polynomial of degree + rest has coefficients
    rule = basis.quadrature_rule(rest, degree)
    n, m, q = len(room), len(nodes), len(rule.weights)
    points = np.zeros((n, m, q, dim))
    points[..., :axis] = fixed[:, None, None, :axis]
    points[..., axis] = room[:, None, None] * nodes[:, None]
    points[..., axis + 1 :] = (room[:, None] * (1 - nodes))[:, :, None, None] * rule.points
    table = basis.legendre(dim, degree, points.reshape(-1, dim)).reshape(n, m, q, -1)
    values = np.einsum("nmqi,ni,q->nm", table, coefficients, rule.weights, optimize=True) * (1 - nodes) ** rest
    return np.asarray(values @ np.linalg.inv(np.vander(nodes, increasing=True)).T)


def _inverse(density: Floats, u: Floats) -> Floats:
    """S with ∫_0^s = u ∫_0^1 of polynomials (n, m) on [0, 1]: Newton's method inside a bracket that bisection keeps."""
    powers = np.arange(1, density.shape[1] + 1)
    integral = density / powers
    total = integral.sum(axis=1)
    target = u * total
    low, high, s = np.zeros_like(u), np.ones_like(u), u.copy()  # u is exact where the density is constant
    for _ in range(_MOST_STEPS):
        value, slope = _horner(integral, s) * s - target, _horner(density, s)
        low, high = np.where(value < 0, s, low), np.where(value < 0, high, s)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a slope may vanish: bisection goes on
            step = s - value / slope
        better = np.where((step > low) & (step < high), step, (low + high) / 2)
        done = np.abs(better - s) <= 4e-16  # a few last places of numbers below one
        s = better
        if np.all(done):
            break
    return s


def _horner(coefficients: Floats, s: Floats) -> Floats:
    value = np.zeros_like(s)
    for column in coefficients.T[::-1]:
        value = value * s + column
    return value
