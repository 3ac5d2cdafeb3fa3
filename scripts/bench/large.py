"""One gradient with ten million unknowns in space: seconds per step and unknown against a tenth of them, and memory.

    python scripts/bench/large.py

Both meshes are solved on as many ranks as there are cores, up to two, in turns, with the same number of time steps.
Each has a quarter of the memory that recording every step would take, so that each computes as many steps again: what
differs is the size alone. Peak memory is the sum over all ranks of what the operating system says, libraries and set-up
included.

Also: the share of the time in which the cores compute, by processor time, which includes that in which a rank asks
whether a message has come; and the share of the memory bandwidth of all cores together that a forward sweep reaches.
The triad runs on all cores at once, ten times, of which the fastest counts; the bytes are those of ``product.py``,
without the records that are written for the adjoint, so that the share is on the safe side.
"""

import os
import statistics
import time
from pathlib import Path

from mpi4py import MPI

import cases
from product import stage_bytes, triad
from suite import Benchmark, Report, Runner, Table, at_most, in_turns, main, ratios

ROOM = at_most(20.0)  # GiB
GROWTH = at_most(1.25)
SIZES = {False: (35, 75), True: (6, 10)}
LAYERS = 2
RECORD = 170  # bytes of a cell and step: four stages of four numbers, and what the limiter did


def work(cells: int, memory: float, steps: int, runs: int, triad_mib: int = 128) -> Table:
    """Seconds, memory and what the cores did. Collective."""
    comm = MPI.COMM_WORLD
    started = time.perf_counter()
    problem = cases.problem(cells, dim=3, layers=LAYERS, steps=steps, memory=memory)
    setup = time.perf_counter() - started
    theta, space = problem.initial_theta, problem.density_space
    busy: list[float] = []

    def evaluate() -> None:
        problem.forget()
        problem.value(theta)

    def gradient() -> None:
        began, computed = time.perf_counter(), time.process_time()
        problem.value_and_gradient(theta)
        share = (time.process_time() - computed) / (time.perf_counter() - began)
        busy.append(comm.allreduce(share) / comm.size)

    forward, adjoint = in_turns(runs, evaluate, gradient)
    (triads,) = in_turns(10, triad(triad_mib))
    count, scheme = int(sum(problem.steps)), problem.trajectory.steppers[0].scheme
    moved = comm.allreduce(stage_bytes(space, problem.velocity_space, scheme)) * scheme.stages * count
    return {
        "dofs": space.mesh.topology.index_map(3).size_global * space.nd,
        "steps": count,
        "setup": setup,
        "forward": statistics.median(forward),
        "gradient": statistics.median(a + b for a, b in zip(forward, adjoint, strict=True)),
        "again": problem.sweep.recomputed,
        "all_bytes": int(problem.sweep.plan.all_bytes),
        "busy": statistics.median(busy),
        "bandwidth": comm.size * 3 * triad_mib * 2**20 / min(triads),
        "moved": moved,
        "plan": problem.sweep.plan.statement,
    }


def measure(runner: Runner) -> Report:
    """Both sizes in turns."""
    report = Report()
    ranks, steps = min(2, os.cpu_count() or 1), 4 if runner.quick else 32
    small, large = SIZES[runner.quick]
    found: dict[int, list[Table]] = {small: [], large: []}
    figure = "seconds per step and unknown, 10⁷ over 10⁶ unknowns, DG1, 3-D"
    for _ in range(1 if runner.quick else 2):
        for cells, results in found.items():
            memory = max(0.25 * LAYERS * steps * RECORD * 6 * cells**3, 2.0**26)
            case = {"cells": cells, "memory": memory, "steps": steps, "runs": 1}
            results.append(runner.attempt(report, figure, case, GROWTH, ranks=ranks))
    if not all(found[small] + found[large]):
        return report
    per = {
        cells: [1e9 * each["gradient"] / each["steps"] / each["dofs"] for each in results]
        for cells, results in found.items()
    }
    growth = ratios(per[large], per[small])
    last, middle = found[large][-1], {cells: statistics.median(values) for cells, values in per.items()}
    note = f"J and ∇J, {middle[small]:.0f} and {middle[large]:.0f} ns on {ranks} ranks; {last['dofs']:,} unknowns, "
    note += f"{last['steps']} steps, {last['again']} of them computed again; "
    note += f"set-up {last['setup']:.0f} s, gradient {last['gradient']:.0f} s"
    report.add(figure, growth, GROWTH, note=note)
    peak = max(each["peak_memory"] for each in found[large]) / 2**30
    report.add("  peak memory of all ranks", peak, ROOM, unit="GiB", note=last["plan"])
    busy = statistics.median(each["busy"] for each in found[large])
    report.add("  share of the time in which the cores compute", 100 * busy, unit="%")
    share = statistics.median(each["moved"] / each["forward"] / each["bandwidth"] for each in found[large])
    note = f"triad on {ranks} cores at once {last['bandwidth'] / 1e9:.1f} GB/s"
    report.add("  share of the memory bandwidth of these cores, forward", 100 * share, unit="%", note=note)
    report.data = {str(cells): results for cells, results in found.items()}
    return report


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
