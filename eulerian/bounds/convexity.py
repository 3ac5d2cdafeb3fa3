"""Is the domain convex, and which half spaces bound it?"""

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import factorial

import numpy as np
from numpy.typing import NDArray

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.density.space import DensitySpace

# Round domains are polyhedra, and a triangulated sphere has edges that cut a little below the hull of its vertices
# (meshes/ball.msh lacks 1.5e-5 of the hull's volume, 0.1 % of its diameter deep). Flat boundaries miss nothing.
MISSING_VOLUME = 1e-3
"""Largest share of the hull's volume that a convex domain may lack."""
DENT = 1e-2
"""Greatest depth below the hull of a convex domain's boundary, relative to the diameter of its bounding box."""

_ROUNDING = 1e-12
_BLOCK = 2**18  # distances at a time


@dataclass(frozen=True)
class ConvexDomain:
    """The convex hull of a mesh, as an intersection of half spaces n·x ≤ b. The same bits on all ranks.

    Attributes:
        normals: (m, dim) outward unit normals.
        offsets: (m,).
        lower: (dim,) lower corner of the bounding box.
        upper: (dim,) upper corner.
        centre: (dim,) a point inside.
    """

    normals: Floats
    offsets: Floats
    lower: Floats
    upper: Floats
    centre: Floats

    @property
    def dim(self) -> int:
        """Dimension of the space."""
        return len(self.lower)

    @cached_property
    def diameter(self) -> float:
        """Diagonal of the bounding box."""
        return float(np.linalg.norm(self.upper - self.lower))

    @cached_property
    def is_box(self) -> bool:
        """Whether the domain is its bounding box."""
        return bool(np.all(np.abs(self.normals).max(axis=1) > 1.0 - _ROUNDING))

    @cached_property
    def radius(self) -> float:
        """Radius of a ball around ``centre`` that lies inside."""
        return float(np.min(self.offsets - self.normals @ self.centre))

    def contains(self, x: Floats) -> NDArray[np.bool_]:
        """Whether points (n, dim) are inside, up to rounding; (n,)."""
        margin = _ROUNDING * self.diameter  # points of the boundary belong to the domain
        inside = np.ones(len(x), dtype=bool)
        for column, low, high in zip(x.T, self.lower - margin, self.upper + margin, strict=True):
            inside &= (column >= low) & (column <= high)
        if self.is_box:
            return inside
        away = np.zeros(len(x))
        for column, middle in zip(x.T, self.centre, strict=True):
            away += (column - middle) ** 2
        # Most points lie in the inner ball, and need no look at the many sides of a disk.
        doubtful = np.flatnonzero(inside & (away > self.radius**2))
        inside[doubtful] = self.excess(x[doubtful])[0] <= margin
        return inside

    def excess(self, x: Floats) -> tuple[Floats, NDArray[np.intp]]:
        """How far points (n, dim) are beyond the half space that they violate most, and which one that is.

        For points inside the first is some number ≤ 0: half spaces that none of the points violates are not compared.
        """
        if not len(x):
            return np.zeros(0), np.zeros(0, dtype=np.intp)
        low, high = x.min(axis=0), x.max(axis=0)
        farthest = self.normals @ (low + high) / 2 + np.abs(self.normals) @ (high - low) / 2
        near = np.flatnonzero(farthest > self.offsets)
        if not len(near):
            near = np.array([np.argmax(farthest - self.offsets)])
        beyond, worst = np.empty(len(x)), np.empty(len(x), dtype=np.intp)
        step = max(1, _BLOCK // len(near))
        for start in range(0, len(x), step):
            block = slice(start, start + step)
            slack = (self.normals[near] @ x[block].T - self.offsets[near, None]).T
            worst[block] = near[slack.argmax(axis=1)]
            beyond[block] = slack.max(axis=1)
        return beyond, worst

    def depth(self, x: Floats) -> Floats:
        """Distance of points (n, dim) from the nearest bounding plane, negative outside; (n,)."""
        found = np.empty(len(x))
        step = max(1, _BLOCK // len(self.offsets))
        for start in range(0, len(x), step):
            block = slice(start, start + step)
            found[block] = (self.offsets[:, None] - self.normals @ x[block].T).min(axis=0)
        return found


def convex_domain(space: DensitySpace) -> ConvexDomain:
    """The domain of a space, which must be convex. Collective.

    The boundary of the mesh is compared with that of the convex hull of its vertices: a slit, which takes away no
    volume, is seen too. What is missing may be no more than MISSING_VOLUME and DENT.

    Raises:
        InputError: the domain is not convex; the same on all ranks.
    """
    facets = _boundary_facets(space)
    gathered = parallel.gather_rows(space.comm, facets.reshape(-1, space.dim))
    points = np.zeros((0, space.dim)) if gathered is None else gathered
    domain, volume = parallel.on_root(space.comm, lambda: _hull(points))
    cells = space.geometry.det[: space.n_owned].sum() / factorial(space.dim)
    missing = 1.0 - float(parallel.sum_all(space.comm, np.array([cells]))[0]) / volume
    probes = np.concatenate([facets, facets.mean(axis=1, keepdims=True)], axis=1).reshape(-1, space.dim)
    local = float(domain.depth(probes).max(initial=0.0)) / domain.diameter
    dent = max(space.comm.allgather(local))
    if missing > MISSING_VOLUME or dent > DENT:
        raise InputError(
            "straight paths to the best targets need a convex domain, or one in the plane",
            key="domain",
            value=f"a domain that lacks {missing:.2g} of its convex hull, with dents {dent:.2g} of its diameter deep",
            remedy='The convex solver lets the flow go around corners: ideal.certificate = "convex"',
        )
    return domain


def straight_domain(space: DensitySpace) -> ConvexDomain | None:
    """The domain of a space if straight paths stay in it, else None. Collective."""
    try:
        return convex_domain(space)
    except InputError:
        return None


def _boundary_facets(space: DensitySpace) -> Floats:
    """Vertices (n, dim, dim) of this rank's boundary facets."""
    cells, opposite = np.nonzero(space.geometry.neighbours[: space.n_owned] < 0)
    kept = np.arange(space.dim + 1) != opposite[:, None]
    return np.asarray(space.vertices[cells][kept].reshape(len(cells), space.dim, space.dim))


def _hull(points: Floats) -> tuple[ConvexDomain, float]:
    """The convex hull of points (n, dim) and its volume; does not depend on the order of the points."""
    points = np.unique(points, axis=0)  # sorted: the result depends on no order of the ranks
    lower, upper = points.min(axis=0), points.max(axis=0)
    centre = np.asarray(points.mean(axis=0))
    corners = np.array(list(product(*zip(lower, upper, strict=True))))
    if np.all(np.any(np.all(points[:, None] == corners, axis=2), axis=0)):  # the hull is the bounding box
        unit = np.eye(len(lower))
        return (
            ConvexDomain(np.concatenate([-unit, unit]), np.concatenate([-lower, upper]), lower, upper, centre),
            float(np.prod(upper - lower)),
        )
    from scipy.spatial import ConvexHull  # takes its time to load: only where it is wanted

    hull = ConvexHull(points)
    # A facet with more corners than a simplex appears once per simplex.
    scaled = hull.equations / np.append(np.ones(len(lower)), np.abs(points).max())
    _, first = np.unique(np.round(scaled, 9), axis=0, return_index=True)
    equations = hull.equations[np.sort(first)]
    normals = np.ascontiguousarray(equations[:, :-1])
    return ConvexDomain(normals, -equations[:, -1], lower, upper, centre), float(hull.volume)
