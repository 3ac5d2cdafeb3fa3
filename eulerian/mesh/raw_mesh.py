"""What meshio reads from a mesh file, in a process of its own. Not collective: call it on one rank."""

import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, final

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.memory_limits import environment_of_helpers, require_readable

AGAIN = "Write the file again with the program that made the mesh."
_ENDED = re.compile(r"EOF|[Ee]nd of file|[Tt]runcated|are announced and")
_TAIL = 200  # bytes at either end of a file that tell whether it is all there

_LEAST_EXPANSION = 2.0  # bytes in memory, over all that is done with a mesh, for a byte of its file
_READER = Path(__file__).with_name("reader_process.py")


@final
@dataclass(frozen=True)
class Block:
    """Cells of one type.

    Attributes:
        type: meshio's name of it.
        dim: of the cells.
        data: (n, nodes) as the file numbers them.
    """

    type: str
    dim: int
    data: NDArray[Any]

    def __len__(self) -> int:
        return len(self.data)


@final
@dataclass(frozen=True)
class RawMesh:
    """What a file holds, unchecked.

    Attributes:
        points: (n, coordinates).
        cells: in blocks.
        cell_data: whole numbers on cells by name, one array per block.
        field_data: names of physical groups: (tag, dimension).
    """

    points: Floats
    cells: list[Block]
    cell_data: dict[str, list[NDArray[Any]]]
    field_data: dict[str, list[int]]


def read_file(path: Path) -> RawMesh:
    """Read a file with meshio, in a process of its own with limits on memory and time (see ``reader_process``).

    Raises:
        InputError: the file is missing or cannot be read within the limits.
    """
    _require_file(path)
    command = [sys.executable, "-P", str(_READER), str(path.absolute())]
    with subprocess.Popen(
        command,
        env=environment_of_helpers(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as reader:
        assert reader.stdout is not None
        try:
            return _received(reader.stdout, path)
        except ValueError as error:  # it ended before its answer did
            raise _unreadable(path, "its reader crashed or took too long: is it what it claims to be?") from error
        finally:
            reader.kill()


def _require_file(path: Path) -> None:
    """Refuse what is no file, and an empty one."""
    try:
        if not path.is_file():
            what = "it is not a file" if path.exists() else "there is no such file"
            raise InputError(f"cannot read the mesh: {what}", key=str(path), remedy="Give the path of a mesh file.")
        require_readable(path, _LEAST_EXPANSION, str(path))
        with path.open("rb") as file:
            start = file.read(1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read the mesh: {reason}", key=str(path), remedy="Give another file.") from error
    if not start:
        raise InputError("the mesh file is empty", key=str(path), remedy="Write it again, or give another file.")


def _received(stream: IO[bytes], path: Path) -> RawMesh:
    """The reader's answer.

    Raises:
        InputError: the reader refused the file.
        ValueError: the answer breaks off.
    """
    header = json.loads(stream.readline())
    if "error" in header:
        raise _unreadable(path, header["error"], header.get("remedy"))
    arrays = iter([_array(stream, np.dtype(kind), tuple(shape)) for kind, shape in header["arrays"]])
    points = next(arrays)
    cells = [Block(kind, dim, next(arrays)) for kind, dim in header["blocks"]]
    data = {name: [next(arrays) for _ in cells] for name in header["names"]}
    return RawMesh(points, cells, data, header["fields"])


def _array(stream: IO[bytes], kind: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The next array, not to be written to; ValueError if not all of it comes."""
    return np.frombuffer(stream.read(kind.itemsize * math.prod(shape)), dtype=kind).reshape(shape)


def _unreadable(path: Path, reason: str, remedy: str | None = None) -> InputError:
    what = f"cannot read the mesh {path.name}"
    what = f"{what} ({reason})" if reason else what
    return InputError(what, key=str(path), remedy=remedy or _remedy(path, reason))


def _remedy(path: Path, reason: str) -> str:
    """What to do about a file that cannot be read."""
    if path.suffix.lower() not in known_formats():
        return f"Known formats: {', '.join(known_formats())}"
    if "parametric" in reason:
        return "Write it again without the parameters of nodes (in gmsh: Mesh.SaveParametric = 0)."
    if _breaks_off(path) or _ENDED.search(reason):
        return "Is the file complete? It seems to break off."
    return f"{AGAIN} Or use another format, for example .msh of gmsh or .vtu."


def known_formats() -> list[str]:
    """Endings of files that can be read."""
    import meshio

    return sorted({*meshio.extension_to_filetypes, ".pvd", ".pvtu"})


def _breaks_off(path: Path) -> bool:
    """Whether a file of gmsh or of XML has no end."""
    with path.open("rb") as file:
        start = file.read(_TAIL).lstrip()
        file.seek(max(path.stat().st_size - _TAIL, 0))
        end = file.read().rstrip()
    if start.startswith(b"$MeshFormat"):
        return re.search(rb"\$End\w+$", end) is None
    if start.startswith(b"<"):
        return re.search(rb"</[\w:]+>$", end) is None
    return False
