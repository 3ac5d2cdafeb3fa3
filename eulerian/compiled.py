"""Compile, cache and load small C libraries at run time."""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mpi4py import MPI

import cffi
import numpy as np

from eulerian.errors import ComputationError
from eulerian.parallel import agreed, on_root

# GNU C: vectors of several doubles; products fused with sums; roots without a call for the sake of errno.
_FLAGS = (
    "-O3", "-march=native", "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared", "-Wno-psabi",
)  # fmt: skip


# C pointers by NumPy's codes of types.
_POINTERS = {"d": "double *", "i": "int32_t *", "B": "uint8_t *"}


class Library:
    """A C file whose functions are called through cffi, compiled for given compile-time constants when needed.

    Args:
        source: the C file.
        struct: name of the one struct type that it defines and its functions take.
        signatures: C declarations of its functions.
    """

    def __init__(self, source: Path, struct: str, signatures: str) -> None:
        self._source = source
        self.ffi = cffi.FFI()
        text = source.read_text(encoding="utf-8")  # the struct is written once, in the C file
        start, end = text.index("typedef struct"), text.index(f"}} {struct};") + len(f"}} {struct};")
        self.ffi.cdef(text[start:end] + signatures)
        self._loaded: dict[Path, Any] = {}

    def load(self, comm: MPI.Comm, tables: Mapping[str, np.ndarray[Any, Any]] | None = None, **constants: int) -> Any:
        """The compiled functions for the given compile-time constants. Collective.

        Rank 0 compiles into the cache; ranks that do not see its file system compile for themselves.

        Args:
            comm: who loads.
            tables: constant arrays that the C file finds under these names.
            constants: what it finds as macros.

        Raises:
            ComputationError: there is no working C compiler, or no folder to keep the result in.
        """
        defines = [f"-D{name}={value}" for name, value in sorted(constants.items())]
        header = "".join(_definition(name, table) for name, table in sorted((tables or {}).items()))
        on_root(comm, lambda: _compiled(self._source, header, defines) and None)
        with agreed(comm):
            path = _compiled(self._source, header, defines)
            if path not in self._loaded:
                self._loaded[path] = self.ffi.dlopen(str(path))
            return self._loaded[path]
        raise AssertionError("unreachable: agreed raises")

    def pointer(self, array: np.ndarray[Any, Any]) -> Any:
        """C pointer to a contiguous array; the array must outlive it."""
        return self.ffi.from_buffer(_POINTERS[array.dtype.char], array)


def compiler() -> list[str]:
    """The C compiler's command: environment CC, the one Python was built with, or what is on the PATH.

    Raises:
        ComputationError: none of them exists.
    """
    candidates = [os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"]
    for candidate in filter(None, candidates):
        command = shlex.split(candidate)
        if command and shutil.which(command[0]):
            return command
    raise ComputationError(
        "no C compiler found, and the inner loops are compiled at run time. "
        "Install gcc (Debian: apt-get install gcc libc6-dev) or set the environment variable CC"
    )


def cache_folder() -> Path:
    """Where compiled kernels are kept: $XDG_CACHE_HOME/eulerian, or ~/.cache/eulerian."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(root) / "eulerian"


@cache
def _processor() -> str:
    """What the code is compiled for: the cache may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    features = [line for line in lines if line.startswith(("flags", "Features", "model name"))]
    return f"{platform.machine()} {platform.system()} {' '.join(sorted(set(features)))}"


def _definition(name: str, table: np.ndarray[Any, Any]) -> str:
    """An array as a C constant, to the last bit."""

    def braces(part: np.ndarray[Any, Any]) -> str:
        inner = [repr(part_.item()) if part_.ndim == 0 else braces(part_) for part_ in part]
        return "{" + ", ".join(inner) + "}"

    kind = "double" if table.dtype.kind == "f" else "int"
    shape = "".join(f"[{n}]" for n in table.shape)
    return f"static const {kind} {name}{shape} = {braces(table)};\n"


def _compiled(source: Path, header: str, defines: list[str]) -> Path:
    """Path of the shared library, compiled if it is not in the cache yet."""
    command = [*compiler(), *_FLAGS]
    text = f'{header}#line 1 "{source.name}"\n{source.read_text(encoding="utf-8")}'
    key = "\n".join([text, *command, *defines, _processor()])
    name = f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.so"
    target = cache_folder() / name
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ComputationError(
                f"cannot keep compiled kernels in {target.parent} ({error.strerror}); "
                "set XDG_CACHE_HOME to a writable folder"
            ) from error
        _compile([*command, *defines], text, target)
    return target


def _compile(command: list[str], text: str, target: Path) -> None:
    """Compile beside the target, then rename: a killed compiler leaves no half library behind."""
    try:
        with tempfile.TemporaryDirectory(prefix=".compile-", dir=target.parent) as scratch:
            library, source = Path(scratch) / target.name, Path(scratch) / f"{target.stem}.c"
            source.write_text(text, encoding="utf-8")
            done = subprocess.run(
                [*command, "-o", str(library), str(source), "-lm"], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise ComputationError(f"compiling {target.stem} failed: {done.stderr.strip()[-2000:]}")
            library.replace(target)
    except OSError as error:
        raise ComputationError(
            f"cannot compile into {target.parent} ({error.strerror}); set XDG_CACHE_HOME to a writable folder"
        ) from error
