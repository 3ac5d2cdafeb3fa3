"""Named arrays in an ``.npz`` file, read without pickle and without believing what the file says of its sizes."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from eulerian.base.errors import InputError
from eulerian.base.memory_limits import MemoryNeed, node_memory, require_memory

_COPIES = 2.0  # of an array that is read, at least

type Shapes = dict[str, tuple[int, ...]]


class NoSuchArrayError(InputError):
    """The file is sound, but an array is not in it."""


def read_arrays(
    path: Path,
    names: Iterable[str],
    key: str,
    *,
    optional: Iterable[str] = (),
    check: Callable[[Shapes], object] = lambda _shapes: None,
) -> dict[str, NDArray[Any]]:
    """Read arrays of an ``.npz`` file; nothing in it is ever executed. Not collective.

    Args:
        path: the file.
        names: of arrays that must be there.
        key: what an error is to name.
        optional: of arrays that may be there.
        check: called with all shapes before any array is read.

    Raises:
        InputError: it is missing, not such a file, or holds something else than numbers and texts, or more than memory
            can hold; NoSuchArrayError where one of ``names`` is missing; what ``check`` raises.
    """
    remedy = "It must be written by numpy.savez or by a run: is it complete?"
    try:
        with ZipFile(path) as archive:
            there = set(archive.namelist())
            wanted = [*names, *(name for name in optional if f"{name}.npy" in there)]
            missing = [name for name in wanted if f"{name}.npy" not in there]
            if missing:
                what = f"the file has no array called {missing[0]!r}"
                raise NoSuchArrayError(what, key=key, value=str(path), remedy=remedy)
            headers = {name: _header(archive, f"{name}.npy") for name in wanted}
            size = _COPIES * sum(math.prod(shape) * kind.itemsize for shape, kind in headers.values())
            require_memory([MemoryNeed(size, "its arrays", key, str(path), remedy)], node_memory())
            check({name: shape for name, (shape, _) in headers.items()})
            return {name: _array(archive, f"{name}.npy") for name in wanted}
    except InputError:
        raise
    except Exception as error:  # broken archives raise whatever their readers stumble on
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"cannot be read ({reason})", key=key, value=str(path), remedy=remedy) from error


def _header(archive: ZipFile, member: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array; ValueError if they do not fit the size of the member."""
    with archive.open(member) as file:
        shape, kind = _read_header(file)
        if kind.hasobject:
            raise ValueError(f"{member} holds Python objects, which are never loaded")
        claimed, there = math.prod(shape) * kind.itemsize, archive.getinfo(member).file_size - file.tell()
        if claimed != there:
            raise ValueError(f"{member} claims to hold {claimed} bytes, but there are {there}")
        return shape, kind


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    return tuple(map(int, shape)), kind


def _array(archive: ZipFile, member: str) -> NDArray[Any]:
    with archive.open(member) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
