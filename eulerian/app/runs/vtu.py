"""VTU files, VTK's unstructured grids in XML, with compressed binary arrays.

meshio writes such files too, but would take longer than the solver: it packs points and cells anew for every time, and
all arrays more tightly, for a tenth less of bytes.
"""

import base64
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Self, final

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats

type Values = NDArray[Any]

_BLOCK = 2**15  # bytes that are compressed at a time, as VTK does
_LEVEL = 1  # of zlib: the fastest
_TYPES = {"float64": "Float64", "int64": "Int64", "uint8": "UInt8"}


@final
@dataclass(frozen=True)
class VtuGrid:
    """Points and cells, ready to be written with data of many times.

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
