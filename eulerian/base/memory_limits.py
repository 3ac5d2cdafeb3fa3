"""How much memory and how many cores there are, and which variables launchers of MPI set. Starts no MPI."""

import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from eulerian.base.errors import InputError

_UNLIMITED = 2.0**60  # a control group without a limit says something like 2⁶³

# How launchers (MPICH and Intel MPI, PMIx, Open MPI, Slurm, PALS, Flux, MVAPICH) make a process a rank of theirs.
_LAUNCHERS = (
    "PMI_",
    "PMI2_",
    "PMIX_",
    "OMPI_",
    "PRTE_",
    "MPI_LOCAL",
    "HYDI_",
    "HYDRA_",
    "SLURM_",
    "PALS_",
    "FLUX_",
    "MV2_COMM_WORLD_",
)
_OF_THE_USER = ("OMPI_ALLOW_RUN_AS_ROOT",)


def launcher_variables(environment: Mapping[str, str]) -> list[str]:
    """The variables by which MPI would take this process, or one that it starts, for a rank of a launcher's job."""
    return [name for name in environment if name.startswith(_LAUNCHERS) and not name.startswith(_OF_THE_USER)]


def environment_of_helpers() -> dict[str, str]:
    """For a process that this one starts: the same modules, one thread, and nothing of a launcher's job."""
    of_launcher = launcher_variables(os.environ)
    others = {name: value for name, value in os.environ.items() if name not in of_launcher}
    path = os.pathsep.join(entry for entry in sys.path if os.path.isabs(entry))
    return {**others, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@final
@dataclass(frozen=True)
class MemoryNeed:
    """A part of what a run needs.

    Attributes:
        size: bytes, over all ranks.
        purpose: what for, in words.
        key: what makes it so large.
        value: of the key.
        remedy: what to do about it.
    """

    size: float
    purpose: str
    key: str
    value: object
    remedy: str


def node_memory() -> float:
    """Bytes of this machine's memory that its processes may use: all of it, or what a control group allows."""
    limits = [float(os.sysconf("SC_PHYS_PAGES")) * float(os.sysconf("SC_PAGE_SIZE"))]
    limits += [limit for limit in map(_limit_in, _control_files()) if limit < _UNLIMITED]
    return min(limits)


def free_memory() -> float:
    """Bytes that processes of this machine may still take, by the system and by their control group."""
    free = [node_memory()]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    free += [float(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable:")]
    for file in _control_files():
        used = _limit_in(file.with_name("memory.current" if file.name == "memory.max" else "memory.usage_in_bytes"))
        if _limit_in(file) < _UNLIMITED and used < math.inf:
            free.append(max(_limit_in(file) - used, 0.0))
    return min(free)


def _control_files() -> Iterator[Path]:
    """Files with the memory limits of this process's control groups and of those above, versions 2 and 1."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers in ("", "memory"):
            folder, name = (root, "memory.max") if not controllers else (root / "memory", "memory.limit_in_bytes")
            inner = Path(path.lstrip("/"))
            yield from (folder / group / name for group in (inner, *inner.parents))


def _limit_in(file: Path) -> float:
    try:
        return float(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # not there, or "max"
        return math.inf


def own_cores() -> frozenset[int]:
    """Numbers of the cores that this process may use."""
    try:
        return frozenset(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # there is no such thing as binding on this system
        return frozenset(range(os.cpu_count() or 1))


def core_limit() -> float:
    """Cores that the control groups of this process allow at a time; infinite without a limit."""
    root, limits = Path("/sys/fs/cgroup"), [math.inf]
    for folder in {file.parent for file in _control_files()}:
        limits.append(_quota(folder / "cpu.max"))  # version 2
        if folder.is_relative_to(root / "memory"):  # version 1
            folder = root / "cpu" / folder.relative_to(root / "memory")
            limits.append(_limit_in(folder / "cpu.cfs_quota_us") / _limit_in(folder / "cpu.cfs_period_us"))
    return min((limit for limit in limits if limit > 0.0), default=math.inf)


def _quota(file: Path) -> float:
    """Cores by a file such as "200000 100000": microseconds of work in so many of time."""
    try:
        work, time = file.read_text(encoding="ascii").split()
        return float(work) / float(time)
    except (OSError, ValueError, ZeroDivisionError):  # not there, or "max 100000"
        return math.inf


def sensible_ranks(cores: Iterable[int], limit: float) -> int:
    """How many processes can work at a time on these cores, of which a limit allows some: at least one."""
    return max(1, int(min(len(set(cores)), max(limit, 1.0))))


def process_limit() -> float:
    """Bytes that the limits of this process allow (``ulimit -v``)."""
    try:
        import resource
    except ImportError:
        return math.inf
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    return math.inf if soft == resource.RLIM_INFINITY else float(soft)


def require_memory(needs: Iterable[MemoryNeed], memory: float) -> float:
    """What is left of the memory, in bytes.

    Raises:
        InputError: the needs are larger; names the largest.
    """
    parts = sorted(needs, key=lambda need: -need.size)
    total = sum(need.size for need in parts)
    if total <= memory:
        return memory - total
    worst = parts[0]
    raise InputError(
        f"needs at least {size_text(worst.size)} of memory for {worst.purpose}"
        + (f" ({size_text(total)} in all)" if len(parts) > 1 else "")
        + f", but there are {size_text(memory)}",
        key=worst.key,
        value=worst.value,
        remedy=worst.remedy,
    )


def size_text(size: float) -> str:
    """Bytes in words."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024.0:
            return f"{size:.3g} {unit}"
        size /= 1024.0
    return f"{size:.3g} PiB"


def require_readable(path: Path, expansion: float, key: str) -> None:
    """Refuse a file that memory cannot hold once it is read, before it is.

    Args:
        path: the file.
        expansion: bytes in memory, at least, for each byte of the file.
        key: what an error is to name.

    Raises:
        InputError: it is too large.
        OSError: it cannot be looked at.
    """
    size = float(path.stat().st_size)
    purpose = f"a file of {size_text(size)}"
    require_memory([MemoryNeed(size * expansion, purpose, key, str(path), "Give a smaller file.")], node_memory())
