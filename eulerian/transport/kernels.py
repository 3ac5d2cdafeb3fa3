"""Compile, cache and load the kernels of ``kernels.c`` for one scheme."""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from mpi4py import MPI

import cffi
import numpy as np

from eulerian.errors import ComputationError
from eulerian.parallel import agreed, on_root

_SOURCE = Path(__file__).with_name("kernels.c")
_FLAGS = ("-O3", "-march=native", "-std=c11", "-fPIC", "-shared")
_SIGNATURES = """
double assemble(const scheme_t *, const double *v, double *blocks);
void contract(const scheme_t *, const double *v, const double *S, double *gv);
void apply(const scheme_t *, const double *blocks, const double *u, double *out);
void apply_transpose(const scheme_t *, const double *blocks, const double *z, double *out);
void stage(const scheme_t *, const double *blocks, const double *u, const double *u0, double alpha, double beta,
           double dt, int limited, double *out, double *factors, uint8_t *lowest_at, double weight, double *total);
void limit_vjp(const scheme_t *, const double *w, const double *factors, const uint8_t *lowest_at, double *g);
void stage_vjp(const scheme_t *, const double *blocks, const double *z, const double *u, double alpha, double beta,
               double dt, double weight, const double *running, double *gu, double *g0, double *S);
"""

ffi = cffi.FFI()


def _declarations() -> str:
    """The struct of ``kernels.c`` (so that it is written once) and the functions."""
    text = _SOURCE.read_text(encoding="utf-8")
    start, end = text.index("typedef struct"), text.index("} scheme_t;") + len("} scheme_t;")
    return text[start:end] + _SIGNATURES


ffi.cdef(_declarations())


def load_kernels(comm: MPI.Comm, **constants: int) -> Any:
    """The compiled kernels for the given compile-time constants (see ``kernels.c``). Collective.

    Rank 0 compiles into the cache; ranks that do not see its file system compile for themselves.

    Raises:
        ComputationError: there is no working C compiler, or no folder to keep the result in.
    """
    on_root(comm, lambda: _compiled(tuple(sorted(constants.items()))) and None)
    with agreed(comm):
        return _load(_compiled(tuple(sorted(constants.items()))))
    raise AssertionError("unreachable: agreed raises")


def pointer(array: np.ndarray[Any, Any]) -> Any:
    """C pointer to a contiguous array; the array must outlive it."""
    kinds = {"float64": "double *", "int32": "int32_t *", "uint8": "uint8_t *"}
    return ffi.from_buffer(kinds[array.dtype.name], array)


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
        "no C compiler found, and the transport kernels are compiled at run time. "
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


def _compiled(constants: tuple[tuple[str, int], ...]) -> Path:
    """Path of the shared library, compiled if it is not in the cache yet."""
    command = [*compiler(), *_FLAGS]
    defines = [f"-D{name}={value}" for name, value in constants]
    key = "\n".join([_SOURCE.read_text(encoding="utf-8"), *command, *defines, _processor()])
    name = f"kernels-{hashlib.sha256(key.encode()).hexdigest()[:24]}.so"
    target = cache_folder() / name
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ComputationError(
                f"cannot keep compiled kernels in {target.parent} ({error.strerror}); "
                "set XDG_CACHE_HOME to a writable folder"
            ) from error
        _compile([*command, *defines], target)
    return target


def _compile(command: list[str], target: Path) -> None:
    """Compile beside the target, then rename: a killed compiler leaves no half library behind."""
    try:
        with tempfile.TemporaryDirectory(prefix=".compile-", dir=target.parent) as scratch:
            library = Path(scratch) / "kernels.so"
            done = subprocess.run(
                [*command, "-o", str(library), str(_SOURCE), "-lm"], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise ComputationError(f"compiling the transport kernels failed: {done.stderr.strip()[-2000:]}")
            library.replace(target)
    except OSError as error:
        raise ComputationError(
            f"cannot compile into {target.parent} ({error.strerror}); set XDG_CACHE_HOME to a writable folder"
        ) from error


@cache
def _load(path: Path) -> Any:
    return ffi.dlopen(str(path))
