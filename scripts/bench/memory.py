"""A gradient with a tenth of the memory that keeping everything takes: its time, its bits, and what the process used.

    python scripts/bench/memory.py

The memory of keeping everything is what the plan of the reverse says that recording every step would need; the budget
(`solver.memory`) is then a tenth of it. Peak memory is what the operating system says of a process that only does this.
"""

import hashlib
import statistics
from pathlib import Path
from typing import Any

import cases
from suite import Benchmark, Report, Runner, Table, at_least, at_most, in_turns, main, ratios

TIME = at_most(2.0)


def built(cells: int, degree: int, steps: int, memory: float) -> Any:
    """The problem with a budget in bytes."""
    return cases.problem(cells, degree=degree, layers=2, steps=steps, memory=memory)


def work(kind: str, **case: Any) -> Table:
    """``stored`` finds the memory of everything, ``ratio`` the times; ``alone`` is there for its peak memory."""
    return {"stored": stored, "ratio": ratio, "alone": alone}[kind](**case)


def stored(cells: int, degree: int, steps: int) -> Table:
    """Bytes of all step records."""
    problem = built(cells, degree, steps, cases.spare_memory())
    problem.value(problem.initial_theta)
    return {"bytes": int(problem.sweep.plan.all_bytes), "steps": int(sum(problem.steps))}


def alone(cells: int, degree: int, steps: int, memory: float) -> Table:
    """One gradient."""
    problem = built(cells, degree, steps, memory)
    problem.value_and_gradient(problem.initial_theta)
    return {"plan": problem.sweep.plan.statement, "kept": int(problem.trajectory.kept_bytes)}


def ratio(cells: int, degree: int, steps: int, memory: float, runs: int) -> Table:
    """Seconds of both gradients, and whether they are the same to the last bit."""
    rich, poor = built(cells, degree, steps, cases.spare_memory()), built(cells, degree, steps, memory)
    theta, bits = rich.initial_theta, {}

    def gradient(name: str, problem: Any) -> None:
        problem.forget()
        value, found = problem.value_and_gradient(theta)
        bits[name] = hashlib.sha256(found.tobytes() + str(value).encode()).hexdigest()

    with_all, with_little = in_turns(runs, lambda: gradient("rich", rich), lambda: gradient("poor", poor))
    return {
        "rich": statistics.median(with_all),
        "poor": statistics.median(with_little),
        "ratios": ratios(with_little, with_all),
        "same": bits["rich"] == bits["poor"],
        "dofs": rich.density_space.n_owned * rich.density_space.nd,
    }


def measure(runner: Runner) -> Report:
    """Time, bits and peak memory at a tenth."""
    report = Report()
    for degree, cells, steps in ((1, 24, 64),) if runner.quick else ((1, 128, 128), (2, 64, 128)):
        size = {"cells": cells, "degree": degree, "steps": steps}
        figure = f"gradient with a tenth of the memory / with all, DG{degree}, 2-D"
        everything = runner.attempt(report, figure, {"kind": "stored", **size}, TIME)
        if not everything:
            continue
        tenth = everything["bytes"] / 10
        case = {"kind": "ratio", **size, "memory": tenth, "runs": runner.runs}
        found = runner.attempt(report, figure, case, TIME)
        if not found:
            continue
        note = f"{found['poor']:.2f} s against {found['rich']:.2f} s; {everything['bytes'] / 2**20:.0f} MiB for all "
        note += f"{everything['steps']} steps; {found['dofs']:,} unknowns"
        report.add(figure, found["ratios"], TIME, note=note)
        report.add("  the same to the last bit (1: yes)", float(found["same"]), at_least(1.0))
        budgets = {"all": cases.spare_memory(), "tenth": tenth}
        peaks = {name: runner.run({"kind": "alone", **size, "memory": budget}) for name, budget in budgets.items()}
        mib = {name: peak["peak_memory"] / 2**20 for name, peak in peaks.items()}
        note = (
            f"with all {mib['all']:.0f} MiB, interpreter and libraries in both; told before: {peaks['tenth']['plan']}"
        )
        report.add("  peak of the process with a tenth", mib["tenth"], unit="MiB", note=note)
        report.data[f"degree {degree}"] = {**everything, **found, "peaks": peaks}
    return report


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
