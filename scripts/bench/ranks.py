"""One gradient on one rank and on two, and an account of the messages and reductions of every step.

    python scripts/bench/ranks.py

The jobs take turns. Messages and collective operations are counted by a library that stands between the program and
MPI (``mpi_counter.c``), because PETSc's ``-log_view`` sees neither requests that are started outside of PETSc nor
reductions by mpi4py. From solves with different numbers of steps and layers follows what each of them costs.
"""

import ctypes
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpi4py import MPI

import cases
import numpy as np
from suite import Benchmark, BenchmarkError, Report, Runner, Table, at_least, at_most, in_turns, main

from eulerian.base.jit import compiler

SPEEDUP = at_least(1.7)
COUNTS = ("messages", "message_bytes", "collectives", "collective_bytes", "barriers")
VARIABLE = "EULERIAN_MPI_COUNTER"


def work(kind: str, **case: Any) -> Table:
    """Times, or counts. Collective."""
    return {"time": times, "count": count}[kind](**case)


def times(cells: int, dim: int, degree: int, runs: int) -> Table:
    """Seconds of a value and of a value with its gradient. Collective."""
    problem = cases.problem(cells, dim=dim, degree=degree, layers=4, steps=16)
    theta = problem.initial_theta

    def evaluate() -> None:
        problem.forget()
        problem.value(theta)

    forward, adjoint = in_turns(runs, evaluate, lambda: problem.value_and_gradient(theta))
    return {
        "forward": statistics.median(forward),
        "gradient": statistics.median(a + b for a, b in zip(forward, adjoint, strict=True)),
        "steps": int(sum(problem.steps)),
        "dofs": problem.density_space.mesh.topology.index_map(dim).size_global * problem.density_space.nd,
    }


def count(cells: int, dim: int, degree: int) -> Table:
    """What a forward solve and its reverse cost by step and by layer, the mean over ranks. Collective."""
    comm, library = MPI.COMM_WORLD, ctypes.CDLL(os.environ[VARIABLE])

    def now() -> Any:
        found = (ctypes.c_longlong * len(COUNTS))()
        library.mpi_counts(found)
        return np.array(found, dtype=float)

    def counted(action: Callable[[], object]) -> Any:
        before = now()
        action()
        return comm.allreduce(now() - before) / comm.size

    check(comm, counted)

    solved = []
    for layers, steps in ((2, 8), (2, 16), (4, 16)):
        problem = cases.problem(cells, dim=dim, degree=degree, layers=layers, steps=steps)
        theta = problem.initial_theta
        problem.value_and_gradient(1.0001 * theta)  # whatever happens once
        found = [counted(lambda: problem.value(theta)), counted(lambda: problem.value_and_gradient(theta))]  # noqa: B023
        solved.append((layers, int(sum(problem.steps)), found))
    index_map = problem.density_space.mesh.topology.index_map(dim)
    neighbours = len(set(index_map.owners.tolist()))
    return {
        "stages": problem.trajectory.steppers[0].scheme.stages,
        "neighbours": comm.allreduce(neighbours) / comm.size,
        "ghosts": comm.allreduce(index_map.num_ghosts) / comm.size,
        "forward": shares(solved, 0),
        "reverse": shares(solved, 1),
    }


def check(comm: Any, counted: Callable[[Callable[[], object]], Any]) -> None:
    """Refuse to count where known messages are not seen: a zero would be good news. Collective.

    Raises:
        BenchmarkError: the counter does not stand between the program and MPI.
    """
    around, before = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    sent, received = np.zeros(3), np.zeros(3)
    requests = [comm.Recv_init(received, before), comm.Send_init(sent, around)]

    def talk() -> None:
        comm.Allreduce(MPI.IN_PLACE, sent)
        MPI.Prequest.Startall(requests)
        MPI.Request.Waitall(requests)

    found = counted(talk)
    for request in requests:
        request.Free()
    looked_up = ctypes.cast(ctypes.CDLL(MPI.__file__).MPI_Startall, ctypes.c_void_p).value  # as compiled loops do it
    ours = ctypes.cast(ctypes.CDLL(os.environ[VARIABLE]).MPI_Startall, ctypes.c_void_p).value
    if found.tolist() != [1.0, 24.0, 1.0, 24.0, 0.0] or looked_up != ours:
        raise BenchmarkError(f"known messages are counted as {found.tolist()}: the counter is not in their way")


def shares(solved: list[tuple[int, int, list[Any]]], which: int) -> Table:
    """Costs per step, per layer and once, by kind: three solves determine them."""
    system = np.array([[steps, layers, 1.0] for layers, steps, _ in solved])
    solution = np.linalg.solve(system, np.array([found[which] for *_, found in solved]))
    rows = zip(("step", "layer", "once"), np.round(solution, 6).tolist(), strict=True)
    return {name: dict(zip(COUNTS, row, strict=True)) for name, row in rows}


def counter(folder: Path) -> Path:
    """The counting library, compiled.

    Raises:
        BenchmarkError: that did not work.
    """
    target = folder / "mpi_counter.so"
    launcher = shutil.which("mpicc", path=str(Path(sys.executable).parent))
    prefix = Path(sys.prefix)
    source = Path(__file__).with_name("mpi_counter.c")
    libraries = prefix / "lib"
    flags = [f"-I{prefix / 'include'}", f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-lmpi", "-ldl"]
    command = [*(compiler() if launcher is None or (prefix / "include/mpi.h").exists() else [launcher])]
    command += ["-O2", "-fPIC", "-shared", "-o", str(target), str(source), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"mpi_counter.c does not compile: {done.stderr[-500:]}")
    return target


def measure(runner: Runner) -> Report:
    """Speed-up and account."""
    report = Report()
    kinds = (("DG1, 2-D", 2, 1, 256), ("DG1, 3-D", 3, 1, 24))
    for name, dim, degree, cells in (("DG1, 2-D", 2, 1, 32),) if runner.quick else kinds:
        speed_up(runner, report, name, {"kind": "time", "cells": cells, "dim": dim, "degree": degree})
    if not runner.quick:
        small_parts(runner, report)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            library = counter(Path(scratch))
        except BenchmarkError as error:
            report.add("messages and reductions", None, note=str(error))
            return report
        environment = {"LD_PRELOAD": str(library), VARIABLE: str(library)}
        for ranks in (2, 3):
            account(runner, report, ranks, environment)
    return report


def speed_up(runner: Runner, report: Report, name: str, case: Table) -> None:
    """One rank and two, in turns."""
    figure = f"1 rank / 2 ranks, gradient, {name}"
    found: dict[int, list[Table]] = {1: [], 2: []}
    for _ in range(runner.runs):
        for ranks, results in found.items():
            results.append(runner.attempt(report, figure, {**case, "runs": 3}, SPEEDUP, ranks=ranks))
    if not all(found[1] + found[2]):
        return
    gained = [one["gradient"] / two["gradient"] for one, two in zip(found[1], found[2], strict=True)]
    middle = {ranks: statistics.median(each["gradient"] for each in results) for ranks, results in found.items()}
    note = f"{middle[1]:.2f} s and {middle[2]:.2f} s; {found[1][0]['dofs']:,} unknowns, {found[1][0]['steps']} steps"
    if (os.cpu_count() or 1) < 2:
        note += "; this machine has one core"
    report.add(figure, gained, SPEEDUP, note=note)
    report.data[name] = {str(ranks): results for ranks, results in found.items()}


def small_parts(runner: Runner, report: Report) -> None:
    """What a second rank gains on small meshes: where that is nothing, the program advises against it."""
    for dim, meshes in ((2, (8, 14, 16, 32)), (3, (3, 4, 8))):
        gained = {}
        for cells in meshes:
            case = {"kind": "time", "cells": cells, "dim": dim, "degree": 1, "runs": 15}
            figure = f"1 rank / 2 ranks, {cells}^{dim}"
            one, two = (runner.attempt(report, figure, case, ranks=ranks) for ranks in (1, 2))
            if one and two:
                gained[two["dofs"] // (2 * (dim + 1))] = one["gradient"] / two["gradient"]
        if gained:
            least = min(gained)
            note = "cells of a rank: " + ", ".join(f"{size:,}: {ratio:.2f}" for size, ratio in gained.items())
            report.add(f"1 rank / 2 ranks with {least} cells each, DG1, {dim}-D", gained[least], note=note)
            report.data[f"small parts, {dim}-D"] = {str(size): ratio for size, ratio in gained.items()}


def account(runner: Runner, report: Report, ranks: int, environment: dict[str, str]) -> None:
    """Messages and collective operations by step and layer."""
    case = {"kind": "count", "cells": 16 if runner.quick else 64, "dim": 2, "degree": 1}
    figure = f"messages per stage and neighbour, {ranks} ranks"
    found = runner.attempt(report, figure, case, at_most(1.0), ranks=ranks, environment=environment)
    if not found:
        return
    exchanges = found["stages"] * found["neighbours"]
    for name, sweep in (("forward", "forward"), ("reverse", "reverse")):
        step, layer, once = (found[sweep][part] for part in ("step", "layer", "once"))
        note = f"{step['message_bytes'] / exchanges:.0f} bytes each; {found['ghosts']:.0f} ghost cells a rank"
        report.add(
            f"messages per stage and neighbour, {name}, {ranks} ranks",
            round(step["messages"] / exchanges, 3),
            at_most(1.0),
            note=note,
        )
        report.add(f"reductions per step, {name}, {ranks} ranks", step["collectives"], at_most(0.0))
        note = f"{layer['messages']:.1f} messages; "
        note += f"once {once['collectives']:.0f} reductions, {once['messages']:.0f} messages"
        report.add(f"reductions per layer, {name}, {ranks} ranks", layer["collectives"], at_most(1.0), note=note)
    report.data[f"account, {ranks} ranks"] = found


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
