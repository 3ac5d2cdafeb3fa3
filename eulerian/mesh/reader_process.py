"""Reads one mesh file with meshio, as a program of its own: ``python reader_process.py FILE``.

Readers of mesh formats believe what a file says: a few wrong bytes make them ask for a terabyte, loop for ever, leave
Python by ``sys.exit``, or crash in the library of a binary format. Here they do all that to themselves. This file is
run by its path and imports nothing of this package; ``raw_mesh`` starts it and reads its answer.

The answer on the standard output is a line of JSON, then the numbers of the arrays whose types and shapes it names.
"""

import contextlib
import importlib.util
import io
import json
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

GMSH = b"$MeshFormat"

# What reading may take: seconds of the processor, and memory beyond what the reader has before; for any file, and for
# its size. Text of the slowest formats is read at about a megabyte a second and takes ten to thirty times its size.
_SECONDS, _SLOWEST = 4.0, 1e5
_ROOM, _EXPANSION = 2.0**29, 100.0

_COLLECTIONS = {".pvtu", ".pvd"}
_XML = {".vtu", ".vtp", ".xdmf", ".xmf", ".xml"} | _COLLECTIONS
_HDF = {".xdmf", ".xmf", ".med", ".h5m", ".cgns", ".hmf"}
_CHUNK = 1 << 16


def main() -> None:
    """Read the file within the limits and answer."""
    path = Path(sys.argv[1])
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    _load_libraries(path.suffix.lower())
    said = io.StringIO()
    try:
        _limit(path.stat().st_size)
        if path.suffix.lower() in _XML:
            files = {path, *_references(path), *(_pieces(path) if path.suffix.lower() in _COLLECTIONS else [])}
            _limit(sum(file.stat().st_size for file in files))
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header, arrays = _plain(_read(path))
    except MemoryError:
        header, arrays = {"error": "it asks for far more memory than a mesh of its size can need"}, []
    except ModuleNotFoundError as error:
        what = f"reading {path.suffix} files needs the package {error.name}, which is not installed"
        header, arrays = {"error": what, "remedy": f"pip install {error.name}"}, []
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a broken file may make a reader raise anything
        text = said.getvalue() if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        header, arrays = {"error": " ".join(text.split())[:300]}, []
    _send(answer, header, arrays)


def _limit(size: int) -> None:
    """Limit the time of the processor and the memory by the size of what is read, where the system can."""
    try:
        import resource
    except ImportError:
        return
    wanted = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_CPU: int(_SECONDS + size / _SLOWEST)}
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        wanted[resource.RLIMIT_AS] = pages * resource.getpagesize() + int(_ROOM + _EXPANSION * size)
    for which, value in wanted.items():
        hard = resource.getrlimit(which)[1]
        within = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(which, (within, hard))


def _load_libraries(suffix: str) -> None:
    """Before there are limits."""
    import meshio  # noqa: F401

    if suffix in _HDF:
        with contextlib.suppress(ImportError):
            import h5py  # noqa: F401


def _read(path: Path) -> Any:
    import meshio

    with path.open("rb") as file:
        start = file.read(len(GMSH))
    patches, suffix = _patches(), path.suffix.lower()
    if start == GMSH:
        patches.patch_gmsh()
        # Fluent also uses .msh: without this, every message on a broken gmsh file would speak of Fluent.
        return meshio.read(path, file_format="gmsh")
    if suffix == ".vtu":
        return patches.read_vtu(path)
    if suffix in _COLLECTIONS:
        return patches.read_pieces(_pieces(path))
    return patches.read_xdmf(path) if suffix in (".xdmf", ".xmf") else meshio.read(path)


def _patches() -> Any:
    """The file beside this one, found by its path."""
    spec = importlib.util.spec_from_file_location("meshio_patches", Path(__file__).with_name("meshio_patches.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _pieces(path: Path) -> list[Path]:
    """The .vtu files of a .pvtu file, or of the first time of a .pvd file.

    Raises:
        ValueError: it has none, or they are not beside it.
    """
    _references(path)  # refuses what expands without bound
    root = ElementTree.parse(path).getroot()
    if path.suffix.lower() == ".pvtu":
        found = [_beside(path, piece.get("Source", "")) for piece in root.iter("Piece")]
        if not found:
            raise ValueError("it names no file")
        for piece in found:
            _references(piece)
        return found
    sets = list(root.iter("DataSet"))
    if not sets:
        raise ValueError("it names no file")
    files = [_beside(path, each.get("file", "")) for each in sets if each.get("timestep") == sets[0].get("timestep")]
    if any(file.suffix.lower() not in (".vtu", ".pvtu") for file in files):
        raise ValueError("its files are not .vtu or .pvtu")
    for file in files:
        _references(file)
    return [piece for file in files for piece in (_pieces(file) if file.suffix.lower() == ".pvtu" else [file])]


def _references(path: Path) -> list[Path]:
    """The files beside an XML file in which its data are.

    Raises:
        ValueError: it declares entities, which can expand without bound or name other files, or has data elsewhere.
    """
    parser, text, found = expat.ParserCreate(), list[str](), list[Path]()

    def refuse(name: str, *_: object) -> None:
        raise ValueError(f"it declares the entity {name!r}, which no mesh needs")

    def begin(name: str, attributes: dict[str, str]) -> None:
        text.clear()
        elsewhere = name == "DataItem" and attributes.get("Format", "").upper() in ("HDF", "BINARY")
        parser.CharacterDataHandler = text.append if elsewhere else None

    def end(_: str) -> None:
        if parser.CharacterDataHandler is not None:
            found.append(_beside(path, "".join(text).strip().partition(":")[0]))
            parser.CharacterDataHandler = None

    parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    with path.open("rb") as file, contextlib.suppress(expat.ExpatError):  # meshio has the better message
        while chunk := file.read(_CHUNK):
            parser.Parse(chunk)
    return found


def _beside(path: Path, name: str) -> Path:
    if not name or os.path.isabs(name) or ".." in re.split(r"[/\\]", name):
        raise ValueError(f"its data are in {name[:80]!r}, which is no file beside it")
    if not (path.parent / name).is_file():
        raise ValueError(f"its data are in {name[:80]!r}, which is not there")
    return path.parent / name


def _plain(mesh: Any) -> tuple[dict[str, Any], list[Any]]:
    """A mesh as JSON and numbers: points, then the cells of every block, then whole numbers on cells by name."""
    arrays = [np.asarray(mesh.points, dtype=np.float64)]
    arrays += [np.asarray(block.data) for block in mesh.cells]
    if any(array.dtype.kind not in "iu" for array in arrays[1:]):
        raise ValueError("cells do not name their nodes by whole numbers")
    names = []
    for name, data in mesh.cell_data.items():
        parts = [np.ravel(np.asarray(part)) for part in data]
        if len(parts) == len(mesh.cells) and all(part.dtype.kind in "iu" for part in parts):
            names.append(str(name))
            arrays += parts
    pairs = {str(name): np.ravel(np.asarray(value)) for name, value in mesh.field_data.items()}
    header = {
        "blocks": [[str(block.type), int(block.dim)] for block in mesh.cells],
        "names": names,
        "fields": {name: pair.tolist() for name, pair in pairs.items() if len(pair) == 2 and pair.dtype.kind in "iu"},
    }
    return header, arrays


def _send(answer: BinaryIO, header: dict[str, Any], arrays: list[Any]) -> None:
    shapes = {"arrays": [[array.dtype.str, array.shape] for array in arrays]}
    answer.write(json.dumps(header | shapes).encode() + b"\n")
    for array in arrays:
        answer.write(array.tobytes())
    answer.flush()
    os._exit(0)  # a library that a broken file has upset may crash on its way out


if __name__ == "__main__":
    main()
