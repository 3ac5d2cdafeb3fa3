"""Densities between two time steps as HDF5 files, whatever the number of ranks. Not collective: for one rank.

Any HDF5 reader opens them. ``density`` (cells, nodes, labels) holds values at the Lagrange nodes of every cell: cells
in the order of the mesh's input, nodes in Basix' order with a cell's vertices counted as in ``vertices`` (cells, dim+1,
dim), which the file of step 0 has. ``occupation`` (cells, nodes, groups of labels, orders, shares) is the sum over
labels of the integral over time since the start of the layer, of the density and, where costs ask for it, of (T − t)
times that; ``charged`` is what congestion and entropy have cost so far. Where squares move beside the densities there
are ``powers`` (cells, nodes, columns) and ``power_occupation`` (cells, nodes, orders, shares of all). The rest is in
the attributes, the text ``config`` and, at step 0, ``theta``.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from eulerian.app.runs.files import DENSITIES, write_atomically
from eulerian.base.errors import InputError
from eulerian.mesh.cell_order import digest

FORMAT, VERSION = "eulerian density", 2

type Arrays = Mapping[str, NDArray[Any]]


@final
@dataclass(frozen=True)
class Header:
    """What a file says about its densities; all but the first two of these are the same in all files of a run.

    Attributes:
        step: time steps done.
        time: t.
        steps: time steps of every layer.
        horizon: T.
        cells: of the mesh.
        degree: of the densities.
        labels: K.
        mesh: the mesh's fingerprint.
        theta: the hash of θ.
        config: the resolved configuration, as TOML.
    """

    step: int
    time: float
    steps: tuple[int, ...]
    horizon: float
    cells: int
    degree: int
    labels: int
    mesh: str
    theta: str
    config: str

    @property
    def name(self) -> str:
        """The name of the file; names are sorted by time."""
        return DENSITIES.replace("*", f"{self.step:09d}")


def write_densities(folder: Path, header: Header, arrays: Arrays) -> None:
    """Write a file that is either complete or absent.

    Raises:
        ComputationError: it cannot be written.
    """
    import h5py  # takes its time to load, and not every run needs it

    fields = asdict(header)
    contents = io.BytesIO()  # HDF5 does not survive a disk that fills up while it writes
    with h5py.File(contents, "w") as file:
        file["config"] = fields.pop("config")
        file.attrs.update({"format": FORMAT, "version": VERSION, **fields, "steps": np.array(header.steps, np.int64)})
        for name, array in arrays.items():
            file[name] = array
            file[name].attrs["sha256"] = digest(array)
    write_atomically(folder / header.name, lambda stream: stream.write(contents.getbuffer()))


def read_header(path: Path) -> Header:
    """What a file says.

    Raises:
        InputError: it is damaged, or not such a file.
    """
    with _opened(path) as file:
        fields = {name: file.attrs[name] for name in Header.__annotations__ if name != "config"}
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in fields.items()}
        steps = tuple(fields["steps"].tolist())
        return Header(**{**plain, "steps": steps}, config=file["config"].asstr()[()])


def read_densities(path: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Arrays of a file, as they were written.

    Raises:
        InputError: it is damaged, or not such a file.
    """
    with _opened(path) as file:
        arrays = {name: np.asarray(file[name][()]) for name in names}
        for name, array in arrays.items():
            if file[name].attrs["sha256"] != digest(array):
                raise ValueError(f"{name} is not what was written")
        return arrays


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file of ours to read from; whatever goes wrong with it is an InputError."""
    import h5py

    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            if file.attrs.get("format") != FORMAT:
                raise ValueError(f"it is not of the format “{FORMAT}”")
            if file.attrs["version"] > VERSION:
                raise ValueError(f"it is of version {file.attrs['version']}, and this program knows {VERSION}")
            yield file
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"cannot be read as densities of a solve ({error})", key=str(path)) from error
