"""How much memory a run needs at least, as far as its configuration says.

What cannot fit is refused before anything is allocated: systems promise memory that they do not have, and end the
process that uses it. Every figure is a lower bound, measured on runs with small networks: what is refused would fail.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

from mpi4py import MPI

from eulerian.app.config import Config, Particles
from eulerian.base.memory_limits import MemoryNeed, node_memory, process_limit

_NUMBER = 8  # bytes

# By dimension: bytes per cell of a mesh and its geometry; cells, and nodes of degree 2, per vertex of a large mesh.
_MESH = {1: 400, 2: 850, 3: 1500}
_CELLS_PER_VERTEX = {1: 1.0, 2: 2.0, 3: 6.0}
_NODES_OF_DEGREE_2 = {1: 2.0, 2: 4.0, 3: 8.0}
_DENSITIES = 7  # besides two for every layer
_COPIES_OF_THETA = 4  # θ, its gradient, and what the optimiser needs at least
_PARTICLE = 350  # bytes per particle besides one position
_SLAB = 150  # bytes per cell, time slab and label of the convex solver, and once more for all labels


def total_memory(comm: MPI.Comm) -> float:
    """Bytes that all ranks have together, every node counted once. **Collective**."""
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    own = min(node_memory(), node.size * process_limit()) if node.rank == 0 else 0.0
    node.Free()
    return float(comm.allreduce(own))


@final
@dataclass(frozen=True)
class ProblemSize:
    """What is known of a problem once its mesh is.

    Attributes:
        dim: of space.
        cells: of the mesh, after refinement.
        labels: K.
        ranks: how many there are.
    """

    dim: int
    cells: float
    labels: int
    ranks: int


def mesh_needs(config: Config, sizes: ProblemSize) -> Iterator[MemoryNeed]:
    """Of densities on a mesh, carried by a network."""
    yield mesh_need(config, sizes)
    layers, state = config.field.layers, _state(config, sizes)
    columns = 1.0 + _squares(config, sizes) / sizes.labels
    yield _densities(config, sizes, columns * state * (2 * layers + _DENSITIES), f"densities of {layers} layers")
    if config.output.densities:
        yield MemoryNeed(
            config.output.densities * state,
            f"{config.output.densities} snapshots of the densities",
            "output.densities",
            config.output.densities,
            "Ask for fewer.",
        )
    yield from theta_needs(config, sizes)


def ideal_needs(config: Config, sizes: ProblemSize) -> Iterator[MemoryNeed]:
    """Of the convex problem."""
    yield mesh_need(config, sizes)
    slabs = config.ideal.slabs(config.field.layers)
    size = _SLAB * (sizes.labels + 1.0) * sizes.cells * slabs
    yield _densities(config, sizes, size, f"densities and momenta of {slabs} time slabs")


def particle_needs(config: Config, sizes: ProblemSize) -> Iterator[MemoryNeed]:
    """Of particles that are carried by a network, and of the mesh that they are drawn from."""
    yield mesh_need(config, sizes)
    yield from sample_needs(config.particles, sizes.dim)
    yield from theta_needs(config, sizes)


def sample_needs(particles: Particles, dim: int) -> Iterator[MemoryNeed]:
    """Of particles that are drawn."""
    if particles.file is None:
        size = float(particles.count) * (_PARTICLE + _NUMBER * dim)
        yield MemoryNeed(
            size, f"{particles.count} particles", "particles.count", particles.count, "Take fewer particles."
        )


def mesh_need(config: Config, sizes: ProblemSize) -> MemoryNeed:
    """Of the mesh itself."""
    return MemoryNeed(_MESH[sizes.dim] * sizes.cells, f"a mesh of {sizes.cells:.3g} cells", **_domain(config))


def theta_needs(config: Config, sizes: ProblemSize) -> Iterator[MemoryNeed]:
    """Of θ, which every rank knows; nothing is known of a field of the user's own."""
    field = config.field
    rows, width = 1 if field.tied else field.layers, field.row_size(sizes.dim, sizes.labels, _nodes(config, sizes))
    if width is None:
        return
    value = getattr(field, field.size_key)
    key, value = f"field.{field.size_key}", list(value) if isinstance(value, tuple) else value
    if rows > width:
        key, value = "field.layers", field.layers
    size = _NUMBER * _COPIES_OF_THETA * width * rows * sizes.ranks
    remedy = "Use a narrower network, fewer layers or, for a free field, a coarser mesh."
    yield MemoryNeed(size, f"{width * rows:.3g} parameters and their optimiser on every rank", key, value, remedy)


def _state(config: Config, sizes: ProblemSize) -> float:
    """Bytes of one density of all labels."""
    dim, degree = sizes.dim, config.density.degree
    return float(_NUMBER * math.comb(dim + degree, dim) * sizes.labels) * sizes.cells


def _squares(config: Config, sizes: ProblemSize) -> int:
    """How many squares of densities move beside them."""
    objective = config.objective
    if objective.power_form == "density":
        return 0
    charged = [objective.terminal, *(cost for cost in objective.at if cost.weight > 0.0)]
    each, together = any(cost.of_squares for cost in charged), objective.congestion > 0.0
    if sizes.labels == 1 or config.field.label_dependent:
        return sizes.labels if each or together else 0
    return sizes.labels * each + together


def _nodes(config: Config, sizes: ProblemSize) -> float:
    """Nodes of the velocity."""
    per_vertex = _NODES_OF_DEGREE_2[sizes.dim] if config.density.degree == 2 else 1.0
    return per_vertex * sizes.cells / _CELLS_PER_VERTEX[sizes.dim]


def _densities(config: Config, sizes: ProblemSize, size: float, purpose: str) -> MemoryNeed:
    """A need that grows with cells, layers and labels: the one of them that is furthest from usual is to blame."""
    layers = config.ideal.layers or config.field.layers
    excess = {"domain": sizes.cells / 1e5, "layers": layers / 16, "labels": sizes.labels / 4}
    blame = max(excess, key=lambda name: excess[name])
    if blame == "layers":
        key = "ideal.layers" if config.ideal.layers else "field.layers"
        return MemoryNeed(size, purpose, key, layers, "Use fewer layers or cells.")
    if blame == "labels":
        return MemoryNeed(
            size, f"{purpose} and {sizes.labels} labels", "density.initial", None, "Use fewer labels or cells."
        )
    return MemoryNeed(size, purpose, **_domain(config))


def _domain(config: Config) -> dict[str, Any]:
    """Key, value and remedy of a mesh that is too large."""
    domain = config.domain
    if domain.refine:
        return {"key": "domain.refine", "value": domain.refine, "remedy": "Refine less often."}
    if domain.box is not None:
        return {"key": "domain.box.cells", "value": list(domain.box.cells), "remedy": "Use fewer cells."}
    return {"key": "domain.file", "value": str(domain.file), "remedy": "Use a coarser mesh."}
