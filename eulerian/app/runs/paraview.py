"""Densities and velocity over time for ParaView: VTU pieces, one per rank and time, under a ``densities.pvd``.

DOLFINx' own writer puts out text only and asks density and velocity for one and the same element. Here every cell has
its own nodes, so that the jumps of a discontinuous density stay visible. Cells of degree 2 become VTK's quadratic ones;
degree 0 and 1 are written with their vertices. meshio would take longer than the solver: it packs points and cells anew
for every time, and all arrays more tightly, for a tenth less of bytes.
"""

import base64
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Self, final

import numpy as np
from numpy.typing import NDArray

from eulerian.app.runs.cell_nodes import CellNodes
from eulerian.app.runs.files import write_atomically, write_text
from eulerian.base.arrays import Floats
from eulerian.base.parallel import agreed
from eulerian.density.basis import vtk_cell_type

type Values = NDArray[Any]

_BLOCK = 2**15  # bytes that are compressed at a time, as VTK does
_LEVEL = 1  # of zlib: the fastest
_TYPES = {"float64": "Float64", "int64": "Int64", "uint8": "UInt8"}


@final
@dataclass(frozen=True)
class VtuGrid:
    """Points and cells of a VTU file (VTK's unstructured grids in XML), to be written with data of many times.

    Attributes:
        n_points: of all cells.
        n_cells: as it says.
        text: points and cells in XML.
    """

    n_points: int
    n_cells: int
    text: str

    @classmethod
    def of(cls, points: Floats, kind: int) -> Self:
        """Cells whose nodes are their own, points (n_cells, m, 3) in VTK's order; ``kind`` is VTK's cell type."""
        n_cells, m, _ = points.shape
        cells = {
            "connectivity": np.arange(n_cells * m, dtype=np.int64),
            "offsets": m * np.arange(1, n_cells + 1, dtype=np.int64),
            "types": np.full(n_cells, kind, dtype=np.uint8),
        }
        flat = points.reshape(-1, 3)
        return cls(
            len(flat),
            n_cells,
            f"<Points>\n{_data_array('Points', flat)}</Points>\n<Cells>\n{_data_arrays(cells)}</Cells>\n",
        )

    def write(self, file: BinaryIO, data: Mapping[str, Floats]) -> None:
        """Write a file with data at the points, (n_points,) or (n_points, 3) by name."""
        text = (
            '<?xml version="1.0"?>\n<VTKFile type="UnstructuredGrid" version="0.1" '
            f'byte_order="{sys.byteorder.capitalize()}Endian" compressor="vtkZLibDataCompressor">\n'
            f'<UnstructuredGrid>\n<Piece NumberOfPoints="{self.n_points}" NumberOfCells="{self.n_cells}">\n{self.text}'
            f"<PointData>\n{_data_arrays(data)}</PointData>\n</Piece>\n</UnstructuredGrid>\n</VTKFile>\n"
        )
        file.write(text.encode("ascii"))


def _data_arrays(arrays: Mapping[str, Values]) -> str:
    return "".join(_data_array(name, values) for name, values in arrays.items())


def _data_array(name: str, values: Values) -> str:
    components = f' NumberOfComponents="{values.shape[1]}"' if values.ndim == 2 else ""
    kind = _TYPES[values.dtype.name]
    return f'<DataArray type="{kind}" Name="{name}"{components} format="binary">{_packed(values)}</DataArray>\n'


def _packed(values: Values) -> str:
    """Number and sizes of the blocks, then the compressed blocks, both in base64."""
    raw = values.tobytes()
    starts = range(0, len(raw), _BLOCK)
    blocks = [zlib.compress(raw[start : start + _BLOCK], _LEVEL) for start in starts]
    last = len(raw) - starts[-1] if blocks else 0
    header = np.array([len(blocks), _BLOCK, last, *map(len, blocks)], dtype=np.uint32)
    return base64.b64encode(header.tobytes()).decode() + base64.b64encode(b"".join(blocks)).decode()


NAME = "densities"


@final
@dataclass(frozen=True)
class ParaviewWriter:
    """Writes one time after the other; the collection is renewed each time, so that an interrupted run can be read.

    Attributes:
        folder: where to write; it exists.
        nodes: of the cells to write.
        times: written so far.
    """

    folder: Path
    nodes: CellNodes
    times: list[float] = field(default_factory=list)

    def write(self, t: float, rho: Floats, v: Floats, potential: Floats | None = None) -> None:
        """Write ``density_0``, ... and ``velocity`` (``velocity_0``, ... if v depends on the label). **Collective**.

        With a potential ``potential_0``, ... too.

        Args:
            t: time.
            rho: (n_cells, nd, K) modal coefficients.
            v: (n_nodes, dim), or (K, n_nodes, dim) if the field depends on the label.
            potential: (n_owned, m, K) values at the nodes of every owned cell.
        """
        space = self.nodes.density_space
        comm, stem = space.comm, f"{NAME}_{len(self.times):06d}"
        filled = [rank for rank, cells in enumerate(comm.allgather(space.n_owned)) if cells > 0]
        pieces = {rank: f"{stem}.vtu" if comm.size == 1 else f"{stem}_p{rank}.vtu" for rank in filled}
        self.times.append(t)
        with agreed(comm):
            data = point_data(self.nodes, rho, v)
            if potential is not None:
                data |= {f"potential_{k}": potential[:, :, k].reshape(-1) for k in range(potential.shape[2])}
            if comm.rank in pieces:
                path = self.folder / pieces[comm.rank]
                write_atomically(path, lambda file: self._grid.write(file, data), sync=False)
            if comm.rank == 0:
                if comm.size > 1:
                    write_text(self.folder / f"{stem}.pvtu", _pvtu(data, list(pieces.values())))
                write_text(self.folder / f"{NAME}.pvd", _pvd(self.times, "vtu" if comm.size == 1 else "pvtu"))

    @cached_property
    def _grid(self) -> VtuGrid:
        """This rank's owned cells."""
        points, space = self.nodes.points(), self.nodes.density_space
        kind = vtk_cell_type(space.dim, space.degree)
        return VtuGrid.of(_three(points).reshape(*points.shape[:2], 3), kind)


def point_data(nodes: CellNodes, rho: Floats, v: Floats) -> dict[str, Floats]:
    """Named values at the nodes of every owned cell, flattened cell by cell; vectors with three components."""
    density, velocity = nodes.density(rho), nodes.velocity(v)
    data = {f"density_{k}": density[:, :, k].reshape(-1) for k in range(density.shape[2])}
    if v.ndim == 2:
        return data | {"velocity": _three(velocity)}
    return data | {f"velocity_{k}": _three(velocity[:, :, k]) for k in range(len(v))}


def _three(vectors: Floats) -> Floats:
    """Vectors (..., dim) as rows (n, 3) filled up by zeros: VTK knows no other vectors."""
    rows = vectors.reshape(-1, vectors.shape[-1])
    return np.pad(rows, ((0, 0), (0, 3 - rows.shape[1])))


def _pvd(times: list[float], suffix: str) -> str:
    sets = "".join(
        f'    <DataSet timestep="{t!r}" part="0" file="{NAME}_{index:06d}.{suffix}"/>\n'
        for index, t in enumerate(times)
    )
    return (
        '<?xml version="1.0"?>\n<VTKFile type="Collection" version="0.1" byte_order="LittleEndian">\n  <Collection>\n'
        f"{sets}  </Collection>\n</VTKFile>\n"
    )


def _pvtu(data: dict[str, Floats], pieces: list[str]) -> str:
    arrays = "".join(
        f'      <PDataArray type="Float64" Name="{name}"'
        f' NumberOfComponents="{values.shape[1] if values.ndim == 2 else 1}"/>\n'
        for name, values in data.items()
    )
    sources = "".join(f'    <Piece Source="{piece}"/>\n' for piece in pieces)
    return (
        '<?xml version="1.0"?>\n<VTKFile type="PUnstructuredGrid" version="0.1" byte_order="LittleEndian">\n'
        '  <PUnstructuredGrid GhostLevel="0">\n'
        f"    <PPointData>\n{arrays}    </PPointData>\n"
        '    <PPoints>\n      <PDataArray type="Float64" NumberOfComponents="3"/>\n    </PPoints>\n'
        f"{sources}  </PUnstructuredGrid>\n</VTKFile>\n"
    )
