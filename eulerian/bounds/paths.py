"""Paths of points through the flows that the idealised problem finds, for figures. The same on all ranks."""

import numpy as np
from numpy.typing import NDArray

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.bounds.hopf_lax import HopfLax
from eulerian.ideal.flow import ConvexFlow
from eulerian.ideal.poisson import GatheredMesh
from eulerian.ideal.problem import PathBundle
from eulerian.mesh.cell_walk import CellWalk

N_PATHS = {1: 28, 2: 72, 3: 120}
"""How many paths a picture holds, by dimension: all labels together, each path for about the same mass."""

_N_TIMES = 65
_STEPS_PER_SLAB = 4


def flow_paths(flow: ConvexFlow, n_paths: int | None = None, n_times: int = _N_TIMES) -> PathBundle:
    """Solutions of dx/dt = −∇φ(t, x)/λ from starting points that share out the mass of ρ_0. Collective.

    ∇φ is the mean over the cells around a vertex, linear between vertices and between instants; the classical
    Runge–Kutta method, several steps per slab. Points stay in the domain: at a wall they slide along it.

    Args:
        flow: what ``solve_convex`` found.
        n_paths: how many over all labels; by default ``N_PATHS``. Every label has at least one.
        n_times: equally spaced from 0 to T.
    """
    grid = flow.grid
    walk = CellWalk(grid.gather_vertices(grid.x), GatheredMesh(grid).cells)
    slopes = grid.gather_vertices(grid.vertex_gradients(flow.potential)) / -flow.kinetic_weight
    starts, labels = starting_points(flow, N_PATHS[grid.dim] if n_paths is None else n_paths)
    x, cells, _ = walk.enter(starts)
    path = [x]
    times = np.linspace(0.0, grid.horizon, n_times)
    steps = max(1, round(_STEPS_PER_SLAB * grid.layers / (n_times - 1)))
    dt = grid.horizon / (n_times - 1) / steps

    def velocity(t: float, points: Floats) -> Floats:
        _, there, weights = walk.move(points, cells)
        slab = min(int(t / grid.tau), grid.layers - 1)
        share = min(t / grid.tau - slab, 1.0)
        corners = walk.cells[there]
        before, after = (slopes[corners, :, slab + i, labels[:, None]] for i in (0, 1))
        return np.asarray(np.einsum("mi,mid->md", weights, (1.0 - share) * before + share * after))

    for start in times[:-1]:
        for step in range(steps):
            t = start + step * dt
            k1 = velocity(t, x)
            k2 = velocity(t + 0.5 * dt, x + 0.5 * dt * k1)
            k3 = velocity(t + 0.5 * dt, x + 0.5 * dt * k2)
            k4 = velocity(t + dt, x + dt * k3)
            x, cells, _ = walk.move(x + dt / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4), cells)
        path.append(x)
    return PathBundle(times, np.stack(path, axis=1), labels)


def straight_paths(exact: HopfLax, flow: ConvexFlow, n_paths: int | None = None, n_times: int = _N_TIMES) -> PathBundle:
    """The exact paths where Hopf–Lax applies, straight but for walls, with the starts of ``flow_paths``. Collective.

    Args:
        exact: solution of the same problem.
        flow: tells where the mass is.
        n_paths: how many over all labels; by default ``N_PATHS``.
        n_times: equally spaced from 0 to T.
    """
    starts, labels = starting_points(flow, N_PATHS[flow.grid.dim] if n_paths is None else n_paths)
    with parallel.agreed(flow.grid.comm):
        times = np.linspace(0.0, exact.horizon, n_times)
        return PathBundle(times, exact.paths_of(starts, times)[np.arange(len(labels)), labels], labels)
    raise AssertionError("unreachable: agreed raises")


def starting_points(flow: ConvexFlow, n: int) -> tuple[Floats, NDArray[np.int64]]:
    """About n points (m, dim) with labels (m,), each in the middle of as much of the mass of ρ_0. Collective."""
    grid = flow.grid
    x = grid.gather_vertices(grid.x)
    masses = grid.gather_vertices(grid.masses[:, None] * flow.initial)
    # Numbering and rounding depend on the ranks, the result must not. The nodes of regular meshes must not lie half-way
    # between two multiples of the unit.
    unit = 1.3530241e-9 * np.ptp(x, axis=0).max()
    x = np.rint(x / unit) * unit
    # By place: the halving below then takes ties in one order on any partition.
    order = np.lexsort(x.T)
    x, masses = x[order], masses[order]
    totals = masses.sum(axis=0)
    counts = np.maximum(1, np.rint(n * totals / totals.sum())).astype(int)
    found = [_centres(x, masses[:, y], count) for y, count in enumerate(counts)]
    return np.concatenate(found), np.repeat(np.arange(len(counts)), counts)


def _centres(x: Floats, masses: Floats, n: int) -> Floats:
    """Centres (n, dim) of n parts of equal mass of a cloud of points (N, dim), halved again and again."""
    total = masses.sum()
    centre = masses @ x / total
    if n == 1:
        return centre[None]
    spread = masses @ (x - centre) ** 2
    axis = int(np.argmax(spread * (1.0 - 1e-6 * np.arange(x.shape[1]))))  # a square's axes are told apart
    order = np.argsort(x[:, axis], kind="stable")
    x, masses = x[order], masses[order]
    below = np.cumsum(masses) - masses
    goal = total * (n // 2) / n
    first = np.clip(np.divide(goal - below, masses, where=masses > 0.0, out=np.zeros_like(masses)), 0.0, 1.0)
    parts = ((masses * first, n // 2), (masses * (1.0 - first), n - n // 2))
    return np.concatenate([_centres(x[part > 0.0], part[part > 0.0], count) for part, count in parts])
