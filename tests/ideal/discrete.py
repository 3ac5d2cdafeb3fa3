"""The discrete problem of the convex solver, written out on every rank from coordinates and cells: slow and obvious."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from eulerian.base.arrays import Floats, Ints
from eulerian.ideal.space_time import SpaceTime


@dataclass(frozen=True)
class Discrete:
    """A whole mesh and the slabs of time.

    Attributes:
        x: (N, dim) vertices.
        cells: (n, dim+1).
        volumes: (n,).
        gradients: (n, dim+1, dim) of the barycentric coordinates.
        masses: (N,) M_i.
        layers: L.
        tau: τ.
    """

    x: Floats
    cells: Ints
    volumes: Floats
    gradients: Floats
    masses: Floats
    layers: int
    tau: float

    @property
    def dim(self) -> int:
        return self.x.shape[1]

    @cached_property
    def blur(self) -> Floats:
        """(N, N): of vertex values, ¾ of the mass matrix over M_i and ¼ of what does nothing."""
        mass, corners = np.zeros((len(self.x), len(self.x))), self.dim + 1
        for cell, volume in zip(self.cells, self.volumes, strict=True):
            for i in cell:
                for j in cell:  # ∫l_i l_j
                    mass[i, j] += volume * (2.0 if i == j else 1.0) / (corners * (corners + 1))
        return 0.75 * mass / self.masses[:, None] + 0.25 * np.eye(len(self.x))

    def falls(self, potential: Floats) -> Floats:
        """−∂_tφ, blurred, of (N, L + 1): (N, L)."""
        return -self.blur @ np.diff(potential, axis=1) / self.tau

    @cached_property
    def divergence(self) -> sparse.csr_array:
        """A (N (L+1), n (dim+1) L 2 dim) of the continuity equation; see ``left_side``."""
        instants, corners, dim = self.layers + 1, self.dim + 1, self.dim
        rows, columns, entries = [], [], []
        size = corners * self.layers * 2 * dim
        places = np.arange(size).reshape(corners, self.layers, 2, dim)
        for number, cell in enumerate(self.cells):
            weight = self.tau * self.volumes[number] / corners / 2.0
            for vertex, gradient in zip(cell, self.gradients[number], strict=True):
                for slab in range(self.layers):
                    for end in (0, 1):
                        rows.append(np.full((corners, dim), vertex * instants + slab + end))
                        columns.append(number * size + places[:, slab, end])
                        entries.append(np.tile(weight * gradient, (corners, 1)))
        shape = (len(self.x) * instants, len(self.cells) * size)
        triples = (np.concatenate(entries).ravel(), (np.concatenate(rows).ravel(), np.concatenate(columns).ravel()))
        return sparse.csr_array(triples, shape=shape)


def everywhere(grid: SpaceTime, rows: Floats, error: float = 0.0) -> Floats:
    """Vertex values (n_nodes, ...) of all ranks in global numbering; copies must be the same. Collective."""
    parts = grid.comm.allgather((grid.numbers, rows))
    result = np.full((grid.n_global, *rows.shape[1:]), np.nan)
    for numbers, values in parts:
        known = ~np.isnan(result[numbers])
        np.testing.assert_allclose(values[known], result[numbers][known], rtol=0.0, atol=error)
        result[numbers] = values
    return result


def discretise(grid: SpaceTime) -> Discrete:
    """Collective."""
    x = everywhere(grid, grid.x, 1e-14)
    cells = np.concatenate(grid.comm.allgather(grid.numbers[grid.nodes]))
    volumes, gradients, masses = [], [], np.zeros(len(x))
    for cell in cells:
        table = np.column_stack([np.ones(len(cell)), x[cell]])  # column c of the inverse: coefficients of coordinate c
        gradients.append(np.linalg.inv(table)[1:].T)
        volumes.append(abs(np.linalg.det(table)) / math.factorial(x.shape[1]))
        masses[cell] += volumes[-1] / len(cell)
    return Discrete(x, cells, np.array(volumes), np.array(gradients), masses, grid.layers, grid.horizon / grid.layers)


def left_side(problem: Discrete, density: Floats) -> tuple[sparse.csr_array, Floats]:
    """The continuity equation A m + r = ∫φ_0 dμ_0 − ∫φ_T dρ_T, tested with every φ.

    Args:
        problem: the mesh.
        density: (N, L).

    Returns:
        A (N (L+1), n (dim+1) L 2 dim), and r (N (L+1),) for the densities.
    """
    rest = np.zeros((len(problem.x), problem.layers + 1))
    blurred = problem.blur.T @ (problem.masses[:, None] * density)
    for slab in range(problem.layers):  # τ M ρ a, a = −(φ^{n+1} − φ^n)/τ, blurred
        rest[:, slab] += blurred[:, slab]
        rest[:, slab + 1] -= blurred[:, slab]
    return problem.divergence, rest.ravel()


def cheapest_momenta(
    problem: Discrete, lam: float, density: Floats, source: Floats, final: Floats
) -> tuple[float, float]:
    """λ/2 ∫∫|m|²/ρ of the smallest momenta for given densities, and by how much they miss the equation.

    Args:
        problem: the mesh.
        lam: λ.
        density: (N, L).
        source: (N,) ∫φ_i dρ_0.
        final: (N,) ρ_T.
    """
    equation, rest = left_side(problem, density)
    right = np.zeros((len(problem.x), problem.layers + 1))
    right[:, 0] += source
    right[:, -1] -= problem.masses * final
    right = right.ravel() - rest
    # |m|² λ τ |K|/(d+1) / (4ρ) = |y|²/2: the shortest y
    shares = np.repeat(problem.volumes / (problem.dim + 1), problem.dim + 1).reshape(problem.cells.shape)
    scale = 2.0 * density[problem.cells] / (lam * problem.tau * shares[:, :, None])
    scaled = equation * np.sqrt(np.repeat(scale.ravel(), 2 * problem.dim))
    kept = slice(problem.layers + 1, None)  # rows add up to zero at every instant: leave out those of a vertex
    normal = sparse.csc_array(scaled[kept] @ scaled[kept].T)
    factor = linalg.splu(normal)
    multiplier = factor.solve(right[kept])
    multiplier += factor.solve(right[kept] - normal @ multiplier)
    y = scaled[kept].T @ multiplier
    return 0.5 * float(y @ y), float(np.abs(scaled @ y - right).max())


def worst_violation(problem: Discrete, lam: float, potential: Floats) -> float:
    """Largest a + Σ_K |K|/(d+1) (|∇φ^n|² + |∇φ^{n+1}|²)/(4λ M_i), a of ``falls``, for a potential (N, L + 1)."""
    worst, falls = -np.inf, problem.falls(potential)
    for slab in range(problem.layers):
        ring = np.zeros(len(problem.x))
        for cell, volume, gradients in zip(problem.cells, problem.volumes, problem.gradients, strict=True):
            before, after = gradients.T @ potential[cell, slab], gradients.T @ potential[cell, slab + 1]
            ring[cell] += volume / (problem.dim + 1) * (before @ before + after @ after) / (4.0 * lam)
        worst = max(worst, np.max(ring / problem.masses + falls[:, slab]))
    return float(worst)
