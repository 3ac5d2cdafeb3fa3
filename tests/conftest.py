"""Fixtures of the whole suite. It runs serially and as ``mpirun -n 2 python -m mpi4py -m pytest`` alike.

Inside a parallel job the first failure ends the job: a test that failed on one rank may have left the others waiting
in a collective call, and every later test would meet the wrong messages.
"""

import gc
import math
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mpi4py import MPI

import pytest
from jobs import RANK, SCRIPTS, Here, run_group

import eulerian.base.parallel  # noqa: F401 - gives PETSc its options before any test imports dolfinx
from eulerian.app import cli

FAILED = pytest.StashKey[bool]()
STATUS = pytest.StashKey[int]()

MpiRun = Callable[..., subprocess.CompletedProcess[str]]


def pytest_configure(config: pytest.Config) -> None:
    """Stop at the first failure when there are other ranks; hear Ctrl-C, which a job in the background ignores."""
    if MPI.COMM_WORLD.size > 1:
        config.option.maxfail = 1
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Take what exists now out of `collect_garbage`'s search, which otherwise costs more than the tests."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep the outcome for `pytest_unconfigure`."""
    session.config.stash[STATUS] = int(exitstatus)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_unconfigure(config: pytest.Config) -> Iterator[None]:
    """End all ranks when this one has failed, be it on the way out; the others may wait for it (see RANK)."""
    status = config.stash.get(STATUS, 0)
    try:
        yield
    except BaseException:
        traceback.print_exc()
        status = status or int(pytest.ExitCode.INTERNAL_ERROR)
        raise
    finally:
        if MPI.COMM_WORLD.size > 1 and status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            sys.stdout.flush()
            sys.stderr.flush()
            if MPI.COMM_WORLD.rank > 0:
                time.sleep(2)  # rank 0 has probably failed too: let it tell first
            MPI.COMM_WORLD.Abort(status)


# Marks, on how many ranks at most their tests run, and why.
LIMITS = {
    "mpi": (1, "starts its own parallel job"),
    "one_process": (1, "needs one process only"),
    "two_ranks": (2, "says nothing new on more than two ranks"),
}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import files of which the number of ranks rules out all tests: a third of the time to collect them.

    Those that are named on the command line are, so that their tests are told to be skipped.
    """
    ruled_out = [mark for mark, (most, _) in LIMITS.items() if MPI.COMM_WORLD.size > most]
    named = any(word.split("::")[0].endswith(collection_path.name) for word in config.invocation_params.args)
    if not ruled_out or named or not collection_path.match("test_*.py"):
        return None
    text = collection_path.read_text(encoding="utf-8")
    return re.search(rf"(?m)^pytestmark = pytest\.mark\.({'|'.join(ruled_out)})\b", text) is not None or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what the number of ranks rules out.

    A test that starts a parallel job of its own cannot do so inside one; one for one process need not run twice.
    Three ranks differ from two in how a mesh is cut: a rank has several neighbours, ranks share a vertex but no facet,
    some own nothing. Whatever deals with cells, nodes or messages is tested there: laws, meshes, densities, transport,
    J, ideal problems, what is gathered for output. What does not ask how the mesh is cut runs on one and on two ranks
    only (``two_ranks``): whole commands, optimisation over many iterations, particles, models of other libraries, which
    steps are kept in memory, how exact a search at single points is. It is collective or not, and two ranks tell. Of
    tests with many parameters some cases run on ranks (``thinning.thinned``): every dimension and degree, not all
    together with every kind of everything else.
    """
    for marker, (most, reason) in LIMITS.items():
        if MPI.COMM_WORLD.size > most:
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Remember a failure, for `collect_garbage`."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture(scope="session")
def comm() -> MPI.Comm:
    """All ranks."""
    return MPI.COMM_WORLD


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, comm: MPI.Comm) -> Path:
    """A temporary folder, made by rank 0 and known to every rank."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    return Path(comm.bcast(str(tmp_path_factory.mktemp(name)) if comm.rank == 0 else None, 0))


@pytest.fixture(autouse=True)
def cores_and_cells_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is warned of more ranks than cores or cells: what a run tells is not to depend on where the tests run."""
    monkeypatch.setattr("eulerian.base.parallel.own_cores", lambda: frozenset(range(1024)))
    monkeypatch.setattr("eulerian.base.parallel.core_limit", lambda: math.inf)
    monkeypatch.setattr("eulerian.base.parallel.SMALL_PART", dict.fromkeys((1, 2, 3), 0))


@pytest.fixture(autouse=True)
def no_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw figures only where a test is marked ``figures``, elsewhere they write their data.

    To draw them takes a small run several times as long as all the rest. Commands that a test starts as programs of
    their own, and what draws a given folder, are not concerned.
    """
    if not request.node.get_closest_marker("figures"):
        monkeypatch.setattr("eulerian.app.tasks.drawing._failures_of_drawing", lambda *_, **__: [])
        monkeypatch.setattr("eulerian.app.tasks.drawing.core_to_spare", lambda _: False)


@pytest.fixture(autouse=True)
def collect_garbage(request: pytest.FixtureRequest, comm: MPI.Comm) -> Iterator[None]:
    """Free PETSc's objects after each test, on all ranks at the same point: destroying one is collective."""
    yield
    if comm.size > 1 and not request.node.stash.get(FAILED, False):
        from petsc4py import PETSc  # at the top it would start PETSc before eulerian.base.parallel does

        gc.collect()
        comm.barrier()
        PETSc.garbage_cleanup(comm)


@pytest.fixture(scope="module", autouse=True)
def freeze_what_stays(comm: MPI.Comm) -> Iterator[None]:
    """Take what a file's tests have loaded for good, modules and caches, out of `collect_garbage`'s search as well."""
    yield
    if comm.size > 1:
        gc.collect()
        gc.freeze()


@pytest.fixture
def mpirun(tmp_path: Path) -> MpiRun:
    """A function that runs a parallel job to its end; for tests marked ``mpi``.

    ``mpirun(n, job, timeout=120, cwd=None)`` starts n ranks. A job given as text is Python source code, of
    which an exception on one rank ends all; a job given as a list is a command line. The result has ``returncode``,
    ``stdout`` and ``stderr``; failing is the caller's business.
    """
    launcher = os.path.join(SCRIPTS, "mpiexec")
    if not os.path.exists(launcher):
        launcher = "mpiexec"

    def run(
        n: int, job: str | Sequence[str], timeout: float = 120, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        if isinstance(job, str):
            source = tmp_path / "job.py"
            source.write_text(job, encoding="utf-8")
            job = [sys.executable, "-c", RANK, str(source)]
        return run_group([launcher, "-n", str(n), *map(str, job)], timeout, cwd or tmp_path)

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Here]:
    """A function that runs the command line in this process; for what a command says, does and ends with.

    ``here(*arguments, code=0)`` stands in the test's folder and wants that exit code. To start a process that loads all
    libraries takes longer than most commands: only tests of the start and the end of a process need one of their own.
    """
    threshold = gc.get_threshold()

    def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        words = [str(argument) for argument in arguments]
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", ["eulerian", *words])
            patch.setenv("OMP_NUM_THREADS", "1")
            with pytest.raises(SystemExit) as ended:
                cli.entry()
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, out + err
        assert "Traceback" not in err
        return subprocess.CompletedProcess(words, code, out, err)

    yield run
    gc.set_threshold(*threshold)
