"""From a good guess to a local minimum, for many points at once, of functions that may have kinks.

Smooth minima take a few Newton steps on the values of a 3^d stencil. What is left — kinks that lie across the axes, and
minima on a slanted boundary, where a stencil gets stuck — is finished by the ellipsoid method, to which kinks and
constraints are cuts like any other (Shor 1977, doi:10.1007/BF01071394).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.bounds.convexity import ConvexDomain

type Function = Callable[[NDArray[np.intp], Floats], Floats]
"""Values (n,) of functions number i (n,) at z (n, dim); +∞ where there is none."""

_BLOCK = 2**13  # functions at a time
_MAX_ITERATIONS = 200
_BALL = 16.0  # radius of the first ellipsoid, in widths
_MAX_CUTS = 40  # times d(d + 1): the volume that is left shrinks by e^(-20 d)
_ROUNDING = 1e-14  # relative to the scale: changes below this are not followed
_SMOOTH = 1e-10  # a stencil that is flat only when it is smaller than this share of the domain sits on a kink


@dataclass(frozen=True)
class LocalSearch:
    """How to improve guesses.

    Attributes:
        domain: where the minima are sought.
        width: the distance of the guesses from the minima, roughly.
        scale: of the functions' values, for rounding.
        enough: what a smooth minimum may be missed by, absolute.
    """

    domain: ConvexDomain
    width: float
    scale: float
    enough: float = 0.0

    def minimise(self, function: Function, z: Floats, group: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Local minimisers (n, dim) near guesses z (n, dim), and their values (n,), not above those of the guesses.

        Guesses of one ``group`` (n,), ascending, are for the same function: only the best one matters in the end.
        """
        z, values = z.copy(), np.empty(len(z))
        for start in range(0, len(z), _BLOCK):
            which = np.arange(start, min(start + _BLOCK, len(z)))
            smooth = self._stencils(function, which, z, values)
            if self.domain.dim > 1:
                worth = self._worth_polishing(z[which], values[which], group[which])
                self._ellipsoids(function, which[~smooth & worth], z, values)
        return z, values

    def _worth_polishing(self, z: Floats, values: Floats, group: NDArray[np.intp]) -> NDArray[np.bool_]:
        """The best of each group, and those out of reach of the ellipsoids that start there; (n,)."""
        order = np.lexsort((values, group))
        _, first, member = np.unique(group[order], return_index=True, return_inverse=True)
        leader = np.empty(len(z), dtype=np.intp)
        leader[order] = order[first[member]]
        far = np.linalg.norm(z - z[leader], axis=1) > 0.5 * _BALL * self.width
        return np.asarray(far | (leader == np.arange(len(z))))

    def _stencils(self, function: Function, which: NDArray[np.intp], z: Floats, values: Floats) -> NDArray[np.bool_]:
        """Move to the best of a stencil's points or the minimum of its quadratic, or shrink it; says who is smooth."""
        offsets = np.array(list(product((-1.0, 0.0, 1.0), repeat=self.domain.dim)))
        centre, tolerance = len(offsets) // 2, _ROUNDING * self.scale
        active, width = np.arange(len(which)), np.full(len(which), self.width)
        smooth = np.zeros(len(which), dtype=bool)
        values[which] = self._inside(function, which, z[which])
        for _ in range(_MAX_ITERATIONS):
            if not len(active):
                break
            who, w, c = which[active], width[active], z[which[active]]
            around = c[:, None] + w[:, None, None] * offsets
            v = self._inside(function, np.repeat(who, len(offsets)), around.reshape(-1, self.domain.dim))
            v = np.asfortranarray(v.reshape(len(who), -1))  # sums and extrema over a row run along the rows together
            v[:, centre] = values[who]
            best = v.argmin(axis=1)
            best[v[:, centre] <= v.min(axis=1)] = centre
            step, predicted = _newton_step(v, offsets, tolerance)
            newton = c + w[:, None] * step
            reached = self._inside(function, who, newton)
            with np.errstate(invalid="ignore"):
                trusted = (predicted >= 0.0) & (
                    np.abs(v[:, centre] - predicted - reached) <= 0.1 * predicted + tolerance
                )
            jump = reached < v.min(axis=1)
            rows = np.arange(len(who))
            z[who] = np.where(jump[:, None], newton, around[rows, best])
            values[who] = np.where(jump, reached, v[rows, best])
            short = np.abs(step).max(axis=1) <= 1.0
            near = jump | (best == centre)
            width[active] = w * np.where(near & short & trusted, 0.125, np.where(near & (short | ~jump), 0.5, 1.0))
            known = np.isfinite(v)
            spread = np.max(v, axis=1, initial=-np.inf, where=known) - values[who]
            done = (spread <= tolerance) & (known.sum(axis=1) >= 2**self.domain.dim)
            # A step of Newton's method that brought what it promised, and promised next to nothing, was the last one.
            done |= near & short & trusted & (predicted <= self.enough)
            smooth[active] = done & (w > _SMOOTH * self.domain.diameter)
            least = np.where(
                known.all(axis=1) | self.domain.is_box, _ROUNDING * self.domain.diameter, 1e-3 * self.width
            )
            active = active[~done & (w > least)]
        return smooth

    def _ellipsoids(self, function: Function, who: NDArray[np.intp], z: Floats, values: Floats) -> None:
        """Improve on z by cutting ellipsoids around them through their centres, until nothing can be left to gain."""
        dim, domain = self.domain.dim, self.domain
        centre = z[who].copy()
        shape = np.tile(np.eye(dim) * (_BALL * self.width) ** 2, (len(who), 1, 1))
        for _ in range(_MAX_CUTS * dim * (dim + 1)):
            if not len(who):
                return
            excess, worst = domain.excess(centre)
            inside = excess <= 0.0
            cut = domain.normals[worst]
            cut[inside], value = self._slope(function, who[inside], centre[inside])
            # A centre that is worse than the best value known, or outside, is cut off with all that is as bad.
            excess[inside] = np.maximum(value - values[who[inside]], 0.0)
            better = value < values[who[inside]]
            z[who[inside][better]], values[who[inside][better]] = centre[inside][better], value[better]
            along = np.einsum("nij,nj->ni", shape, cut)
            reach = np.sqrt(np.maximum(np.einsum("ni,ni->n", cut, along), 0.0))
            small = np.where(inside, 1e-12 * self.scale, 1e-14 * domain.diameter)
            going = np.isfinite(reach) & (reach > small) & (excess < reach)
            who, centre, along, reach, shape, excess = (a[going] for a in (who, centre, along, reach, shape, excess))
            unit, deep = along / reach[:, None], (excess / reach)[:, None]
            centre = centre - (1.0 + dim * deep) / (dim + 1) * unit
            squeeze = 2.0 * (1.0 + dim * deep) / ((dim + 1) * (1.0 + deep)) * unit
            shape = shape - squeeze[:, :, None] * unit[:, None, :]
            shape *= (dim**2 / (dim**2 - 1) * (1.0 - deep**2))[:, :, None]

    def _inside(self, function: Function, who: NDArray[np.intp], z: Floats) -> Floats:
        """The function's values, +∞ outside the domain, (n,)."""
        inside = self.domain.contains(z)
        if inside.all():
            return function(who, z)
        values = np.full(len(z), np.inf)
        values[inside] = function(who[inside], z[inside])
        return values

    def _slope(self, function: Function, who: NDArray[np.intp], z: Floats) -> tuple[Floats, Floats]:
        """Differences (n, dim) and the values (n,); the differences may reach out of the domain by a hair."""
        # Short: at a kink the slopes of one side are wanted, and a cut need not be exact.
        delta = 1e-9 * self.domain.diameter
        value, slope = function(who, z), np.empty_like(z)
        for direction in range(self.domain.dim):
            shift = delta * np.eye(self.domain.dim)[direction]
            up, down = function(who, z + shift), function(who, z - shift)
            up_known, down_known = np.isfinite(up), np.isfinite(down)
            span = delta * (up_known.astype(float) + down_known)
            with np.errstate(invalid="ignore"):
                rise = np.where(up_known, up, value) - np.where(down_known, down, value)
            slope[:, direction] = rise / np.maximum(span, delta)
        return slope, value


def _newton_step(v: Floats, offsets: Floats, tolerance: float) -> tuple[Floats, Floats]:
    """The minimum of the quadratic through a stencil's values (n, 3^dim).

    Returns:
        The steps (n, dim) in widths of the stencil, at most two widths along any axis (zero where there is no such
        quadratic), and by how much they should lower the value, (n,).
    """
    n, dim = len(v), offsets.shape[1]
    place = 3 ** np.arange(dim - 1, -1, -1)
    centre, unit = len(offsets) // 2, np.eye(dim, dtype=int)
    known = np.isfinite(v).all(axis=1)
    v = np.where(known[:, None], v, 0.0)
    slope, bend = np.empty((n, dim)), np.empty((n, dim, dim))
    for i in range(dim):
        up, down = v[:, centre + place[i]], v[:, centre - place[i]]
        slope[:, i] = 0.5 * (up - down)
        bend[:, i, i] = up + down - 2.0 * v[:, centre]
        for j in range(i):
            same, other = (unit[i] + unit[j]) @ place, (unit[i] - unit[j]) @ place
            mixed = v[:, centre + same] + v[:, centre - same] - v[:, centre + other] - v[:, centre - other]
            bend[:, i, j] = bend[:, j, i] = 0.25 * mixed
    # Where the quadratic is flat: a step of zero instead of none.
    ridge = tolerance + 1e-9 * np.abs(bend).max(axis=(1, 2)) + 1e-300
    with np.errstate(all="ignore"):
        step = -_solve(bend + ridge[:, None, None] * unit, slope)
        step *= (2.0 / np.maximum(np.abs(step).max(axis=1), 2.0))[:, None]
        predicted = -np.einsum("ni,ni->n", step, slope + 0.5 * np.einsum("nij,nj->ni", bend, step))
    usable = known & np.isfinite(predicted)
    return np.where(usable[:, None], step, 0.0), np.where(usable, predicted, -1.0)


def _solve(matrices: Floats, right: Floats) -> Floats:
    """Solutions (n, dim) of small symmetric systems by Cramer's rule; not finite where a matrix is singular."""
    dim = right.shape[1]
    if dim == 1:
        return right / matrices[:, 0]
    if dim == 2:
        (a, b), (_, c) = matrices[:, 0].T, matrices[:, 1].T
        turned = np.stack([c * right[:, 0] - b * right[:, 1], a * right[:, 1] - b * right[:, 0]], axis=1)
        return np.asarray(turned / (a * c - b * b)[:, None])
    rows = matrices[:, 0], matrices[:, 1], matrices[:, 2]
    crosses = [np.cross(rows[i - 2], rows[i - 1]) for i in range(3)]  # columns of the inverse times the determinant
    determinant = np.einsum("ni,ni->n", rows[0], crosses[0])
    return np.asarray(np.einsum("nij,nj->ni", np.stack(crosses, axis=2), right) / determinant[:, None])
