"""Compile, cache and load small C libraries at run time."""

import hashlib
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from mpi4py import MPI

import cffi
import numpy as np

from eulerian.base.errors import ComputationError
from eulerian.base.parallel import agreed, on_root

# GNU C: vectors of several doubles; products fused with sums; roots without a call for the sake of errno.
_FLAGS = (
    "-O3", "-march=native", "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared", "-Wno-psabi",
)  # fmt: skip


# Seconds that a compiler may take; ours takes a few. A slower machine may be given more by the environment.
_PATIENCE = 300.0
PATIENCE_VARIABLE = "EULERIAN_COMPILE_SECONDS"

_TRIAL = "#include <math.h>\n#include <stdint.h>\ndouble trial(int64_t n) { return sqrt((double) n); }\n"

# What a killed process leaves of a compilation is deleted by a later one, when no compiler can be at work on it.
_SCRATCH = ".compile-"
_ABANDONED_AFTER = 3600.0  # seconds

_CACHE_REMEDY = "set XDG_CACHE_HOME to a folder that may be written and has some room"

# In our C files a line that begins with a word, and not with "static", begins a function that others may call.
_FUNCTION = re.compile(r"^(?!static|typedef)(\w[^;{}()]*\([^;{}]*\))\s*\{", re.MULTILINE)
_INCLUDE = re.compile(r'#include "(.+)"')

# C pointers by NumPy's codes of types.
_POINTERS = {"d": "double *", "i": "int32_t *", "B": "uint8_t *"}


class Library:
    """A C file whose functions are called through cffi, compiled for given compile-time constants when needed.

    Args:
        source: the C file; what it includes from its own folder belongs to it.
        struct: name of the struct type that its functions take, the first one that it defines.
    """

    def __init__(self, source: Path, struct: str) -> None:
        self._source = source
        self.ffi = cffi.FFI()
        text = _with_includes(source)  # cffi reads the declarations there: they are written once, in C
        start, end = text.index("typedef struct"), text.index(f"}} {struct};") + len(f"}} {struct};")
        self.ffi.cdef(text[start:end] + ";\n".join(_FUNCTION.findall(text)) + ";")
        self._loaded: dict[Path, Any] = {}

    def load(self, comm: MPI.Comm, tables: Mapping[str, np.ndarray[Any, Any]] | None = None, **constants: int) -> Any:
        """The compiled functions for the given compile-time constants. Collective.

        Rank 0 compiles into the cache; ranks that do not see its file system compile for themselves. A library that is
        not what was once compiled (a broken disk, a copy cut short) is compiled again.

        Args:
            comm: who loads.
            tables: constant arrays that the C file finds under these names.
            constants: what it finds as macros.

        Raises:
            ComputationError: there is no working C compiler, no folder to keep the result in, or none whose libraries
                may be loaded.
        """
        defines = [f"-D{name}={value}" for name, value in sorted(constants.items())]
        header = "".join(_definition(name, table) for name, table in sorted((tables or {}).items()))
        on_root(comm, lambda: _compiled(self._source, header, defines) and None)
        with agreed(comm):
            path = _compiled(self._source, header, defines)
            if path not in self._loaded:
                self._loaded[path] = self._opened(path)
            return self._loaded[path]
        raise AssertionError("unreachable: agreed raises")

    def _opened(self, path: Path) -> Any:
        try:
            return self.ffi.dlopen(str(path))
        except OSError as error:
            raise ComputationError(
                f"compiled kernels cannot be loaded ({error}); set XDG_CACHE_HOME to a folder whose programs may run"
            ) from error

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


def try_compiler() -> None:
    """Compile a few lines as the kernels are compiled, and load the result; the cache is left alone.

    Raises:
        ComputationError: what is wrong with the compiler.
    """
    with tempfile.TemporaryDirectory(prefix="eulerian-") as scratch:
        _compile([*compiler(), *_FLAGS], _TRIAL, Path(scratch), "trial")


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


def _with_includes(source: Path) -> str:
    """A C file with the files of its folder that it includes: one text, so that a change in any of them is noticed."""
    lines = [f'#line 1 "{source.name}"']
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
        included = _INCLUDE.fullmatch(line)
        lines.append(line if included is None else _with_includes(source.with_name(included[1])))
        if included is not None:
            lines.append(f'#line {number + 1} "{source.name}"')
    return "\n".join(lines)


def _compiled(source: Path, header: str, defines: list[str]) -> Path:
    """Path of the shared library, compiled if it is not in the cache yet, or not as it was."""
    command = [*compiler(), *_FLAGS]
    text = f"{header}{_with_includes(source)}\n"
    key = "\n".join([text, *command, *defines, _processor()])
    stem = f"{source.stem}-{_digest(key.encode())}"
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = sound_library(folder, stem)
    except OSError as error:
        raise ComputationError(
            f"cannot keep compiled kernels in {folder} ({error.strerror}); {_CACHE_REMEDY}"
        ) from error
    return _compile([*command, *defines], text, folder, stem) if found is None else found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:24]


def sound_library(folder: Path, stem: str = "*") -> Path | None:
    """A library of this name whose content is what was compiled; broken ones are not looked at."""
    return next((path for path in sorted(folder.glob(f"{stem}.*.so")) if is_sound(path)), None)


def is_sound(path: Path) -> bool:
    """Whether a library's content is what its name says: loading one that was cut short may end the process."""
    try:
        return path.name.split(".")[-2] == _digest(path.read_bytes())
    except (OSError, IndexError):
        return False


def abandoned(folder: Path) -> list[Path]:
    """What killed compilations have left."""
    now, found = time.time(), []
    for path in folder.glob(f"{_SCRATCH}*"):
        with suppress(OSError):
            if now - path.stat().st_mtime > _ABANDONED_AFTER:
                found.append(path)
    return found


def _compile(command: list[str], text: str, folder: Path, stem: str) -> Path:
    """Compile beside the target, try the result, then rename: nobody ever sees half a library.

    The name ends with a digest of the content, so that a damaged library is noticed.
    """
    try:
        for leftover in abandoned(folder):
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=folder, ignore_cleanup_errors=True) as scratch:
            library, source = Path(scratch) / f"{stem}.so", Path(scratch) / f"{stem}.c"
            source.write_text(text, encoding="utf-8")
            run_compiler([*command, "-o", str(library), str(source), "-lm"], stem, Path(scratch))
            if not library.is_file() or not _loads(library):
                raise ComputationError(
                    f"{command[0]} made no library that can be loaded; set CC to a compiler that works"
                )
            target = folder / f"{stem}.{_digest(library.read_bytes())}.so"
            for broken in folder.glob(f"{stem}.*.so"):
                if not is_sound(broken):
                    broken.unlink(missing_ok=True)
            library.replace(target)
    except OSError as error:
        raise ComputationError(f"cannot compile into {folder} ({error.strerror or error}); {_CACHE_REMEDY}") from error
    return target


def run_compiler(command: list[str], what: str, scratch: Path) -> None:
    """Run a compiler to its end, with its own temporary files in ``scratch``.

    Raises:
        ComputationError: it fails, was killed, or does not come to an end.
    """
    seconds = _patience()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "TMPDIR": str(scratch)},
        start_new_session=True,  # so that its children can be ended with it
    )
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        raise ComputationError(
            f"compiling {what}: {command[0]} was still at work after {seconds:g} seconds and was ended; set CC to "
            f"another compiler, or {PATIENCE_VARIABLE} to more seconds"
        ) from None
    except BaseException:
        _end(process)
        raise
    if process.returncode < 0:
        name = signal.strsignal(-process.returncode)
        raise ComputationError(f"compiling {what}: {command[0]} was ended by a signal ({name}); try again")
    if "No space left" in said:
        raise ComputationError(f"compiling {what} failed: {said.strip()[-500:]}; {_CACHE_REMEDY}")
    if process.returncode != 0:
        raise ComputationError(f"compiling {what} failed: {said.strip()[-2000:] or f'{command[0]} does not say why'}")


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _patience() -> float:
    try:
        seconds = float(os.environ.get(PATIENCE_VARIABLE, ""))
    except ValueError:
        return _PATIENCE
    return seconds if seconds > 0.0 else _PATIENCE


def _loads(library: Path) -> bool:
    """Whether a library can be loaded, tried in a process of its own: half of one may end it."""
    source = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
    command = [sys.executable, "-I", "-S", "-c", source, str(library)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_patience())
    return done.returncode == 0
