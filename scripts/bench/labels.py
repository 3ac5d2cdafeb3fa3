"""Eight labels that move together against one: values and gradients of the same field in the same steps.

python scripts/bench/labels.py
"""

import statistics
from pathlib import Path

import cases
from suite import Benchmark, Report, Runner, Table, at_most, in_turns, main, ratios

GOAL = at_most(5.5)


def work(cells: int, degree: int, labels: int, runs: int) -> Table:
    """Seconds of values and gradients with one label and with several."""
    one, many = (cases.problem(cells, degree=degree, labels=count, steps=24) for count in (1, labels))
    theta = one.initial_theta

    def forget() -> None:
        one.forget()
        many.forget()

    actions = (
        forget,
        lambda: one.value(theta),
        lambda: many.value(theta),
        lambda: one.value_and_gradient(theta),
        lambda: many.value_and_gradient(theta),
    )
    _, value_1, value_k, reverse_1, reverse_k = in_turns(runs, *actions)
    both_1 = [a + b for a, b in zip(value_1, reverse_1, strict=True)]
    both_k = [a + b for a, b in zip(value_k, reverse_k, strict=True)]
    return {
        "dofs": one.density_space.n_owned * one.density_space.nd,
        "one": statistics.median(both_1),
        "many": statistics.median(both_k),
        "gradient": ratios(both_k, both_1),
        "forward": ratios(value_k, value_1),
    }


def measure(runner: Runner) -> Report:
    """Degrees 1 and 2."""
    report = Report()
    for degree, cells in ((1, 24), (2, 12)) if runner.quick else ((1, 128), (2, 64)):
        case = {"cells": cells, "degree": degree, "labels": 8, "runs": runner.runs}
        figure = f"8 labels / 1 label, gradient, DG{degree}, 2-D"
        if found := runner.attempt(report, figure, case, GOAL):
            note = f"{found['many']:.2f} s against {found['one']:.2f} s; {found['dofs']:,} unknowns a label"
            report.add(figure, found["gradient"], GOAL, note=note)
            report.add(f"8 labels / 1 label, forward, DG{degree}, 2-D", found["forward"], GOAL)
            report.data[f"degree {degree}"] = found
    return report


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
