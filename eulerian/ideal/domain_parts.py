"""Parts of the domain that are not connected: no mass moves from one to another, and each has a problem of its own."""

from dataclasses import dataclass
from typing import final

from mpi4py import MPI

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from eulerian.base import parallel
from eulerian.base.arrays import Floats, Ints
from eulerian.base.errors import InputError
from eulerian.density.space import DensitySpace
from eulerian.ideal.functionals import KEY
from eulerian.ideal.problem import IdealProblem
from eulerian.ideal.space_time import SpaceTime

SAME_MASS = 1e-6  # relative error up to which a target is scaled to the initial mass
_NEARLY = 1e-3  # of a label's mass: a difference up to which a part's target is scaled to it, with a warning
_MOST_NAMED = 6


@final
@dataclass(frozen=True)
class DomainPart:
    """One of the parts.

    Attributes:
        number: from 1, in the order of the least coordinates.
        grid: its space-time.
        nodes: (n,) numbers of its vertices among those of the undivided space-time, on this rank.
        cells: (n_cells,) which cells of the space are in it, ghosts included.
        low: least coordinates, (dim,).
        high: greatest coordinates.
    """

    number: int
    grid: SpaceTime
    nodes: Ints
    cells: NDArray[np.bool_]
    low: Floats
    high: Floats

    @property
    def name(self) -> str:
        """Number, place and size."""
        zero = 1e-9 * float(np.max(self.high - self.low))  # what rounding has left of it
        ends = np.where(np.abs([self.low, self.high]) > zero, [self.low, self.high], 0.0)
        box = " × ".join(f"[{low:.4g}, {high:.4g}]" for low, high in ends.T)
        return f"part {self.number} ({box}, {('length', 'area', 'volume')[self.grid.dim - 1]} {self.grid.volume:.4g})"

    def only(self, rho: Floats) -> Floats:
        """A density (n_cells, nd, K) without what is elsewhere."""
        return np.where(self.cells[:, None, None], rho, 0.0)


def domain_parts(grid: SpaceTime) -> list[DomainPart]:
    """What is connected through vertices, at least one part. Collective."""
    part, count = _numbered(grid)
    if count == 1:
        low, high = grid.space.bounding_box
        everything = np.ones(grid.space.n_cells, dtype=bool)
        return [DomainPart(1, grid, np.arange(grid.n_nodes, dtype=np.int32), everything, low, high)]
    found = []
    for number in range(count):
        nodes = np.flatnonzero(part == number).astype(np.int32)
        piece = grid.restricted(nodes)
        low, high = np.empty(grid.dim), np.empty(grid.dim)
        grid.comm.Allreduce(piece.x.min(axis=0, initial=np.inf), low, MPI.MIN)
        grid.comm.Allreduce(piece.x.max(axis=0, initial=-np.inf), high, MPI.MAX)
        found.append(DomainPart(0, piece, nodes, part[grid.cell_nodes[:, 0]] == number, low, high))
    found.sort(key=lambda each: (*each.low, *each.high))  # the same order on any number of ranks
    return [DomainPart(i, p.grid, p.nodes, p.cells, p.low, p.high) for i, p in enumerate(found, 1)]


def _numbered(grid: SpaceTime) -> tuple[Ints, int]:
    """The number of its part for every vertex of this rank, and how many there are. Collective."""
    # A part may wind through all ranks: each looks at the graph of all cells, and numbers parts alike.
    cells = np.concatenate(grid.comm.allgather(grid.numbers[grid.nodes]))
    first = np.repeat(cells[:, 0], grid.dim)
    # A star around its first vertex connects a cell as well as all of its edges would.
    links = coo_array((np.ones(len(first), dtype=np.int8), (first, cells[:, 1:].ravel())), shape=(grid.n_global,) * 2)
    count, part = connected_components(links, directed=False)
    return np.asarray(part[grid.numbers], dtype=np.int32), int(count)


def require_masses(problem: IdealProblem, parts: list[DomainPart]) -> None:
    """Check that every part has the mass that the terminal functional wants there. Collective.

    A fixed target must have them. A target of a divergence or a distance need not: its value stays finite, but what
    the masses differ by cannot be moved away, and that is said.

    Raises:
        InputError: a fixed target wants mass to change parts.
    """
    space, target = problem.space, problem.functional.target
    if len(parts) < 2 or target is None:
        return
    have, want = (_masses(space, density, parts) for density in (problem.rho0, target))
    total = have.sum(axis=0)
    worst = float(np.max(np.abs(have - want) / np.maximum(total, np.finfo(float).tiny)))
    if worst <= SAME_MASS:
        return
    said = _difference(have, want, parts)
    if not problem.functional.is_constraint:
        text = "no flow makes the masses of ρ(T) those of the target, because they belong to other parts of the domain"
        parallel.warn(space.comm, f"{text}, which are not connected: {said}")
    elif worst <= _NEARLY:
        text = "the masses of the target are scaled, part by part of the domain, to those of density.initial"
        parallel.warn(space.comm, f"{text}, because no mass moves from one part to another: {said}")
    else:
        raise InputError(
            f"mass would have to move from one part of the domain to another, and they are not connected: {said}",
            key=f"{KEY}.target",
            remedy="Change the weights or the places of the terms, or join the parts of the mesh "
            "(`eulerian mesh FILE` tells how many there are).",
        )


def _masses(space: DensitySpace, rho: Floats, parts: list[DomainPart]) -> Floats:
    """Of every part and label, (parts, K). Collective."""
    of_cells = space.cell_mass(rho)
    return parallel.sum_all(space.comm, np.stack([of_cells[part.grid.cells].sum(axis=0) for part in parts]))


def _difference(have: Floats, want: Floats, parts: list[DomainPart]) -> str:
    """The parts whose masses differ, those that differ most first."""
    total = np.maximum(have.sum(axis=0), np.finfo(float).tiny)
    share = np.abs(have - want) / total
    # Rounded, so that the same parts are named on any partition.
    order = np.argsort(-np.round(share, 9), axis=None, kind="stable")
    places = [(i, y) for i, y in zip(*np.unravel_index(order, share.shape), strict=True)]
    places = [(int(i), int(y)) for i, y in places if share[i, y] > SAME_MASS]
    found = []
    for i, label in places[:_MOST_NAMED]:
        of = f" of label {label}" if have.shape[1] > 1 else ""
        found.append(f"{parts[i].name} has mass {have[i, label]:.6g}{of}, its target {want[i, label]:.6g}")
    more = f"; and {len(places) - _MOST_NAMED} more" if len(places) > _MOST_NAMED else ""
    return "; ".join(found) + more
