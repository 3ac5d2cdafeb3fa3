"""What works on this machine: compiler, MPI, PETSc, DOLFINx, caches. For one process, outside of any parallel job.

Whatever may crash or hang is tried in a process of its own.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from eulerian.base.memory_limits import (
    core_limit,
    free_memory,
    launcher_variables,
    own_cores,
    sensible_ranks,
    size_text,
)

_TIMEOUT = 120.0  # seconds for one check
_STALE_AFTER = 60.0  # seconds: the lock of a compiler at work is younger

_REINSTALL = "Install the package again in a fresh environment; the README tells how"

# Bytes that a folder must have room for, to be called writable: more than any file of a small run.
ROOM = 2**21

_COMPILER_SECONDS = 30  # for a few lines

_NEEDED_BY_KERNELS = ("MPI library", "PETSc", "DOLFINx", "temporary files", "C compiler", "kernel cache")

_TINY = {
    "domain": {"box": {"lower": [-2.0], "upper": [2.0], "cells": [8]}},
    "density": {"initial": [{"kind": "gaussian", "mean": [0.0], "std": 0.5}]},
    "field": {"kind": "linear", "features": "affine", "layers": 1},
    "objective": {"terminal": {"kind": "quadratic", "target": [0.5]}},
}

# How a check in a process of its own reports an error: in one line.
ERRORS_IN_ONE_LINE = """
import contextlib, sys
@contextlib.contextmanager
def one_line_errors():
    from eulerian.base.errors import EulerianError
    try:
        yield
    except (EulerianError, OSError) as error:
        sys.exit(" ".join(str(error).split()))
"""

_WORK = f"""{ERRORS_IN_ONE_LINE}
from eulerian.base import parallel
with one_line_errors():
    from eulerian.app.build.network import build
    from eulerian.app.config import parse_config
    problem = build(parse_config({_TINY!r}))
    problem.value_and_gradient(problem.initial_theta)
"""

_CACHE = f"""{ERRORS_IN_ONE_LINE}
import os, tempfile
from eulerian.base.jit import abandoned, cache_folder, is_sound
folder = cache_folder()
print(folder)
with one_line_errors():
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes({ROOM}))
        file.flush()
        os.fsync(file.fileno())
print(sum(path.name.count(".") == 2 and not is_sound(path) for path in folder.glob("*.so")), len(abandoned(folder)))
"""

_COMPILER = f"""{ERRORS_IN_ONE_LINE}
import shlex
from eulerian.base.jit import compiler, try_compiler
with one_line_errors():
    print(shlex.join(compiler()), flush=True)
    try_compiler()
"""


# A wheel of DOLFINx finds the MPI library only where mpi4py has loaded it.
_DOLFINX = """
try:
    import dolfinx
except ImportError:
    from mpi4py import MPI
    import dolfinx
print(dolfinx.__version__, "late" if "MPI" in globals() else "")
"""


type Verdict = Literal["ok", "note", "TROUBLE"]


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

    verdict: Verdict
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
        temporary_files,
        compiler,
        kernel_cache,
        kernels,
        python_headers,
        form_cache,
        working_folder,
        memory,
        cores,
    )
    findings: list[Finding] = []
    for check in checks:
        if check is kernels and not all(finding.good for finding in findings if finding.subject in _NEEDED_BY_KERNELS):
            findings.append(Finding("TROUBLE", "kernels", "not tried", "Mend what is in trouble above"))
        else:
            findings.append(check())
    return findings


# -- checks ----------------------------------------------------------------------------------------------------------


def python() -> Finding:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("ok", "Python", f"{version}, {sys.executable}", "3.12 or newer is needed")


def mpi_library() -> Finding:
    """The MPI library that mpi4py loads."""
    done = run_python("from mpi4py import MPI; print(MPI.Get_library_version())")
    if done.returncode != 0:
        return _not_starting("MPI library", "mpi4py", done)
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
    done = run_python(
        "from eulerian.base import parallel; from petsc4py import PETSc; import numpy\n"
        "print('.'.join(map(str, PETSc.Sys.getVersion())), numpy.dtype(PETSc.ScalarType).name)"
    )
    if done.returncode != 0:
        return _not_starting("PETSc", "petsc4py", done)
    version, scalar = done.stdout.split()
    if scalar != "float64":
        advice = "Install a PETSc and DOLFINx with real numbers in double precision"
        return Finding("TROUBLE", "PETSc", f"{version} computes with {scalar}", advice)
    return Finding("ok", "PETSc", f"{version}, {scalar}", "real double precision, as needed")


def dolfinx() -> Finding:
    """DOLFINx' version, and whether programs may import it first."""
    done = run_python(_DOLFINX)
    if done.returncode != 0:
        return _not_starting("DOLFINx", "it", done)
    version, *late = done.stdout.split()
    if not version.startswith("0.11"):
        return Finding("note", "DOLFINx", version, "Tested with 0.11 only")
    if late:
        advice = "In programs of your own, `from mpi4py import MPI` comes before `import dolfinx`"
        return Finding("note", "DOLFINx", f"{version}, which finds MPI only after mpi4py has loaded it", advice)
    return Finding("ok", "DOLFINx", version, "the version that is tested")


def temporary_files() -> Finding:
    """Whether there is a place for temporary files: compilers and the adjoint's storage on disk want one."""
    subject, advice = "temporary files", "Free some space, or set TMPDIR to a folder with room"
    try:
        return folder_room(subject, Path(tempfile.gettempdir()), advice)
    except FileNotFoundError as error:  # none of the usual folders may be written
        return Finding("TROUBLE", subject, f"they cannot be written: {error.strerror or error}", advice)


def compiler() -> Finding:
    """The C compiler for the transport kernels: it must compile a few lines in a short time."""
    done = run_python(_COMPILER, {"EULERIAN_COMPILE_SECONDS": str(_COMPILER_SECONDS)})
    command = done.stdout.strip()
    if not command:
        advice = "Install one (Debian: apt-get install gcc libc6-dev) or set the environment variable CC"
        return Finding("TROUBLE", "C compiler", f"none found: {last_line(done)}", advice)
    if done.returncode != 0:
        return Finding("TROUBLE", "C compiler", f"{command}: {last_line(done)}", "Set CC to one that works")
    version = _run([*shlex.split(command), "--version"])
    name = version.stdout.splitlines()[0] if version.returncode == 0 and version.stdout else command
    return Finding("ok", "C compiler", name, f"compiles, called as {command}")


def kernel_cache() -> Finding:
    """Whether compiled kernels can be kept, and whether those that are there are as they were."""
    done = run_python(_CACHE)
    folder, *counts = done.stdout.strip().splitlines() or ["unknown"]
    if done.returncode != 0:
        advice = "Set XDG_CACHE_HOME to a folder that may be written and has some room"
        return Finding("TROUBLE", "kernel cache", f"{folder} cannot be written: {last_line(done)}", advice)
    damaged, abandoned = map(int, counts[0].split())
    if damaged or abandoned:
        found = f"{damaged} damaged libraries and {abandoned} abandoned compilations in {folder}"
        return Finding("note", "kernel cache", found, "Harmless: the next compilation deletes them")
    return Finding("ok", "kernel cache", folder, "may be written")


def kernels() -> Finding:
    """A tiny problem from end to end: kernels are compiled, a density is moved, a gradient computed."""
    started = time.monotonic()
    done = run_python(_WORK)
    if done.returncode != 0:
        return Finding("TROUBLE", "kernels", last_line(done), "Mend what the message names; then try again")
    return Finding(
        "ok",
        "kernels",
        "a density was moved and a gradient computed",
        f"in {time.monotonic() - started:.1f} s, compilation and start included",
    )


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


def working_folder() -> Finding:
    """Whether runs can be written here."""
    advice = "Change to another one, or give every run --output"
    return folder_room("working folder", Path.cwd(), advice, verdict="note")


def memory() -> Finding:
    """What this machine has left."""
    free = free_memory()
    if free < 2**30:
        return Finding("note", "memory", f"{size_text(free)} left", "End other programs, or set solver.memory to less")
    return Finding("ok", "memory", f"{size_text(free)} left", "solver.memory says how much of it the adjoint may take")


def cores() -> Finding:
    """How many ranks make sense on this machine."""
    own, limit = own_cores(), core_limit()
    most = sensible_ranks(own, limit)
    found = f"{len(own)} that this process may use" + (f", of them {limit:.3g} at a time" if limit < len(own) else "")
    if most == 1:
        return Finding("ok", "cores", found, "More than one rank on this machine makes a run slower")
    return Finding("ok", "cores", found, f"At most {most} ranks make sense on this machine: mpirun -n {most}")


# -- tools -----------------------------------------------------------------------------------------------------------


def _joins_ranks(launcher: str) -> bool:
    """Whether two ranks that it starts meet in one world."""
    source = "from mpi4py import MPI; print(end=str(MPI.COMM_WORLD.size))"  # one write: ranks interleave their lines
    done = _run([launcher, "-n", "2", sys.executable, "-c", source])
    return done.returncode == 0 and done.stdout == "22"


def run_python(source: str, extra: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python source outside of any parallel job, in this environment with some ``extra`` variables."""
    return _run([sys.executable, "-c", source], extra)


def folder_room(
    subject: str,
    folder: Path,
    advice: str,
    *,
    verdict: Verdict = "TROUBLE",
    wanted: int = 0,
    purpose: str = "",
    shown: Path | None = None,
) -> Finding:
    """Whether a folder may be written (else ``verdict`` and ``advice``) and has the bytes ``wanted`` for a ``purpose``.

    A file is written to see that. A folder that is still to be made is ``shown`` by its own name.
    """
    name = folder if shown is None else shown
    try:
        if folder.is_file():
            raise NotADirectoryError(f"{folder} is a file")
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM))
            file.flush()
            os.fsync(file.fileno())
        room = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(verdict, subject, f"{name} cannot be written: {error.strerror or error}", advice)
    found = f"{name}, {size_text(room)} free{purpose and f'; {purpose}'}"
    if room < wanted:
        return Finding("TROUBLE", subject, found, f"Free some space, or {advice[0].lower()}{advice[1:]}")
    return Finding("ok", subject, found, "may be written")


def _not_starting(subject: str, name: str, done: subprocess.CompletedProcess[str]) -> Finding:
    return Finding("TROUBLE", subject, f"{name} does not start: {last_line(done)}", _REINSTALL)


def _run(command: Sequence[str], extra: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program outside of any parallel job; one that hangs or is missing counts as failed."""
    launched = launcher_variables(os.environ)  # a launcher started with these would take itself for a rank of this job
    environment = {name: text for name, text in os.environ.items() if name not in launched}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", **(extra or {})}
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


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The last thing that a program said."""
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"
