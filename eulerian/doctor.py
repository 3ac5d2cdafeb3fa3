"""What works on this machine: compiler, MPI, PETSc, DOLFINx, caches. For one process, outside of any parallel job.

Whatever may crash or hang is tried in a process of its own.
"""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

_TIMEOUT = 120.0  # seconds for one check
_STALE_AFTER = 60.0  # seconds: the lock of a compiler at work is younger

# A launcher started from within a parallel job would take itself for one of its ranks.
_LAUNCHER_VARIABLES = ("PMI_", "PMIX_", "OMPI_", "PRTE_", "MPI_LOCAL", "HYDI_", "HYDRA_")

_REINSTALL = "Install the package again in a fresh environment; the README tells how"

_WORK = """
from eulerian.parallel import guarded
def main():
    from eulerian.builder import build
    from eulerian.config import parse_config
    gaussian = {"kind": "gaussian", "mean": [0.0], "std": 0.5}
    problem = build(parse_config({
        "domain": {"box": {"lower": [-2.0], "upper": [2.0], "cells": [8]}},
        "density": {"initial": [gaussian]},
        "field": {"kind": "linear", "features": "affine", "layers": 1},
        "objective": {"terminal": {"kind": "quadratic", "target": [0.5]}},
    }))
    problem.value_and_gradient(problem.initial_theta)
    return 0
guarded(main)
"""


@final
@dataclass(frozen=True)
class Finding:
    """A verdict in two lines.

    Attributes:
        verdict: ``ok``, ``note`` (works, but worth knowing) or ``TROUBLE``.
        subject: what was looked at.
        found: what was found there.
        advice: what to do about it, or what it is good for.
    """

    verdict: Literal["ok", "note", "TROUBLE"]
    subject: str
    found: str
    advice: str

    @property
    def good(self) -> bool:
        """Whether ``eulerian`` can work."""
        return self.verdict != "TROUBLE"

    def __str__(self) -> str:
        return f"{self.verdict:8} {self.subject}: {self.found}\n         {self.advice}"


def examine() -> list[Finding]:
    """Every check, in such an order that a trouble explains those after it."""
    checks: tuple[Callable[[], Finding], ...] = (
        python,
        mpi_library,
        mpi_launcher,
        petsc,
        dolfinx,
        compiler,
        kernel_cache,
        kernels,
        python_headers,
        form_cache,
    )
    return [check() for check in checks]


# -- checks ----------------------------------------------------------------------------------------------------------


def python() -> Finding:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("ok", "Python", f"{version}, {sys.executable}", "3.12 or newer is needed")


def mpi_library() -> Finding:
    """The MPI library that mpi4py loads."""
    done = _python("from mpi4py import MPI; print(MPI.Get_library_version())")
    if done.returncode != 0:
        return Finding("TROUBLE", "MPI library", f"mpi4py does not start: {_last_line(done)}", _REINSTALL)
    return Finding("ok", "MPI library", done.stdout.strip().splitlines()[0], "mpi4py starts with it")


def mpi_launcher() -> Finding:
    """Whether the launcher on the PATH belongs to that library: a foreign one starts ranks that never meet."""
    own = Path(sysconfig.get_path("scripts")) / "mpiexec"
    launcher = shutil.which("mpiexec") or shutil.which("mpirun")
    if launcher is not None and _joins_ranks(launcher):
        return Finding("ok", "MPI launcher", launcher, f"two ranks met: {launcher} -n 2 eulerian ...")
    found = f"{launcher} starts ranks that do not meet" if launcher else "no mpiexec or mpirun on the PATH"
    if own.exists() and _joins_ranks(str(own)):
        return Finding("TROUBLE" if launcher else "note", "MPI launcher", found, f"For parallel runs call {own}")
    return Finding("TROUBLE", "MPI launcher", found, "Install the launcher of the MPI library above; serial runs work")


def petsc() -> Finding:
    """PETSc's version and kind of numbers."""
    done = _python(
        "from eulerian import parallel; from petsc4py import PETSc; import numpy\n"
        "print('.'.join(map(str, PETSc.Sys.getVersion())), numpy.dtype(PETSc.ScalarType).name)"
    )
    if done.returncode != 0:
        return Finding("TROUBLE", "PETSc", f"petsc4py does not start: {_last_line(done)}", _REINSTALL)
    version, scalar = done.stdout.split()
    if scalar != "float64":
        advice = "Install a PETSc and DOLFINx with real numbers in double precision"
        return Finding("TROUBLE", "PETSc", f"{version} computes with {scalar}", advice)
    return Finding("ok", "PETSc", f"{version}, {scalar}", "real double precision, as needed")


def dolfinx() -> Finding:
    """DOLFINx' version."""
    done = _python("from eulerian import parallel; import dolfinx; print(dolfinx.__version__)")
    if done.returncode != 0:
        return Finding("TROUBLE", "DOLFINx", f"does not start: {_last_line(done)}", _REINSTALL)
    version = done.stdout.strip()
    if not version.startswith("0.11"):
        return Finding("note", "DOLFINx", version, "Tested with 0.11 only")
    return Finding("ok", "DOLFINx", version, "the version that is tested")


def compiler() -> Finding:
    """The C compiler for the transport kernels."""
    done = _python("from eulerian.compiled import compiler; print(*compiler(), sep='\\n')")
    if done.returncode != 0:
        advice = "Install one (Debian: apt-get install gcc libc6-dev) or set the environment variable CC"
        return Finding("TROUBLE", "C compiler", f"none found: {_last_line(done)}", advice)
    command = done.stdout.splitlines()
    version = _run([*command, "--version"])
    if version.returncode != 0:
        return Finding("TROUBLE", "C compiler", f"{' '.join(command)} does not start", "Set CC to one that does")
    return Finding("ok", "C compiler", version.stdout.splitlines()[0], f"called as {' '.join(command)}")


def kernel_cache() -> Finding:
    """Whether compiled kernels can be kept."""
    done = _python(
        "from eulerian.compiled import cache_folder; import tempfile\n"
        "folder = cache_folder(); print(folder); folder.mkdir(parents=True, exist_ok=True)\n"
        "tempfile.TemporaryFile(dir=folder).close()"
    )
    folder = done.stdout.strip() or "unknown"
    if done.returncode != 0:
        advice = "Set XDG_CACHE_HOME to a folder that may be written"
        return Finding("TROUBLE", "kernel cache", f"{folder} cannot be written: {_last_line(done)}", advice)
    return Finding("ok", "kernel cache", folder, "may be written")


def kernels() -> Finding:
    """A tiny problem from end to end: kernels are compiled, a density is moved, a gradient computed."""
    started = time.monotonic()
    done = _python(_WORK)
    if done.returncode != 0:
        return Finding("TROUBLE", "kernels", _last_line(done), "Mend what the message names; then try again")
    return Finding("ok", "kernels", "a density was moved and a gradient computed", _took(time.monotonic() - started))


def python_headers() -> Finding:
    """Python's C headers, which DOLFINx' own forms are compiled with; the transport kernels do without."""
    folder = Path(sysconfig.get_path("include"))
    if (folder / "Python.h").exists():
        return Finding("ok", "Python headers", str(folder), "DOLFINx can compile forms (the tests use some)")
    advice = "Needed only to compile DOLFINx forms of your own (Debian: apt-get install python3-dev)"
    return Finding("note", "Python headers", f"no Python.h in {folder}", advice)


def form_cache() -> Finding:
    """Locks that a killed process left in the cache of DOLFINx' forms: everybody who meets one waits, then fails."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "fenics"
    now = time.time()
    try:
        stale = [
            source
            for source in sorted(folder.glob("*.c"))
            if not source.with_suffix(".c.cached").exists() and now - source.stat().st_mtime > _STALE_AFTER
        ]
    except OSError as error:
        return Finding("note", "form cache", f"cannot be looked at: {error}", "Used by DOLFINx forms of your own only")
    if stale:
        found = f"{len(stale)} locks of killed processes in {folder}"
        return Finding("note", "form cache", found, f"Remove {' '.join(str(source) for source in stale)}")
    return Finding("ok", "form cache", str(folder), "no locks of killed processes")


# -- tools -----------------------------------------------------------------------------------------------------------


def _joins_ranks(launcher: str) -> bool:
    """Whether two ranks that it starts meet in one world."""
    source = "from mpi4py import MPI; print(end=str(MPI.COMM_WORLD.size))"  # one write: ranks interleave their lines
    done = _run([launcher, "-n", "2", sys.executable, "-c", source])
    return done.returncode == 0 and done.stdout == "22"


def _python(source: str) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable, "-c", source])


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program outside of any parallel job; one that hangs or is missing counts as failed."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(_LAUNCHER_VARIABLES)}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
    try:
        out, err = process.communicate(timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with its children: the ranks of a launcher would go on
        process.communicate()
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {_TIMEOUT:g} seconds")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def _took(seconds: float) -> str:
    return f"in {seconds:.1f} s, compilation and start included"
