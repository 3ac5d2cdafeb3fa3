"""What happens once per layer: assembling the operator in sparse products and shares of a gradient, and the network.

    python scripts/bench/layer.py

The operator of every layer is assembled twice for a gradient, forward and in reverse. The network (two hidden layers of
64) is evaluated at all nodes once per layer, and pulled back once; the steps are those of the CFL condition over T = 1.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import cases
from product import matrices
from suite import Benchmark, Report, Runner, Table, at_most, in_turns, main, ratios

from eulerian import build
from eulerian.app.config import parse_config
from eulerian.transport.operator import TransportOperator

PRODUCTS, SHARE, NETWORK = at_most(15.0), at_most(15.0), at_most(20.0)


class Watched:
    """Any object, with the seconds that its methods take."""

    def __init__(self, watched: Any) -> None:
        self._watched, self.seconds = watched, 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._watched, name)
        if not callable(found) or isinstance(found, type):
            return found

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return found(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def work(kind: str, **case: Any) -> Table:
    """Of the operator, or of the network."""
    return {"operator": assembly, "network": network}[kind](**case)


def assembly(cells: int, dim: int, degree: int, runs: int, steps: int) -> Table:
    """Seconds of assembling one operator, of a product and of a gradient with four layers."""
    layers = 4
    problem = cases.problem(cells, dim=dim, degree=degree, layers=layers, steps=steps)
    theta = problem.initial_theta
    operator = TransportOperator(problem.density_space, problem.velocity_space, 1, problem.smoothing)
    velocities = [problem.layered.value(0, row, problem.velocity_space.x) for row in (theta[0], 1.001 * theta[0])]
    operator.assemble(velocities[0])
    aij, baij = matrices(operator, problem.density_space)
    x, y = aij.createVecRight(), aij.createVecLeft()
    x.setRandom()

    def products(matrix: Any) -> None:
        for _ in range(20):
            matrix.mult(x, y)

    def gradient() -> None:
        problem.forget()
        problem.value_and_gradient(theta)

    def assemble() -> None:
        for velocity in velocities:
            operator.assemble(velocity)

    actions = (assemble, lambda: products(aij), lambda: products(baij), gradient)
    assembled, with_aij, with_baij, gradients = in_turns(runs, *actions)
    once = [seconds / 2 for seconds in assembled]
    bare = [min(a, b) / 20 for a, b in zip(with_aij, with_baij, strict=True)]
    found = {
        "dofs": problem.density_space.n_owned * problem.density_space.nd,
        "steps_per_layer": problem.steps[0],
        "assemble": statistics.median(once),
        "product": statistics.median(bare),
        "products": ratios(once, bare),
        "shares": [100 * 2 * layers * share for share in ratios(once, gradients)],
    }
    for thing in (aij, baij, x, y):
        thing.destroy()
    return found


def network(cells: int, runs: int, layers: int) -> Table:
    """Seconds of the network within those of a gradient, T = 1."""
    config = cases.turning(cells, layers=layers, hidden=[64, 64])
    config["field"]["horizon"] = 1.0
    problem = build(parse_config(config, "."))
    watched = Watched(problem.layered)
    problem.state.layered = watched  # type: ignore[assignment]
    theta, shares, seconds = problem.initial_theta, [], []
    for run in range(runs + 1):
        watched.seconds = 0.0
        problem.forget()
        started = time.perf_counter()
        problem.value_and_gradient(theta)
        seconds.append(time.perf_counter() - started)
        shares.append(100 * watched.seconds / seconds[-1])
        if not run:
            shares.clear()
    return {
        "dofs": problem.density_space.n_owned * problem.density_space.nd,
        "nodes": len(problem.velocity_space.x),
        "steps": int(sum(problem.steps)),
        "shares": shares,
        "gradient": statistics.median(seconds[1:]),
    }


def measure(runner: Runner) -> Report:
    """Rows for operator and network."""
    report = Report()
    kinds = (("DG1, 2-D", 2, 1, 256), ("DG2, 2-D", 2, 2, 128), ("DG1, 3-D", 3, 1, 24))
    for name, dim, degree, cells in (("DG1, 2-D", 2, 1, 32),) if runner.quick else kinds:
        case = {"kind": "operator", "cells": cells, "dim": dim, "degree": degree, "runs": runner.runs, "steps": 32}
        figure = f"assembling a layer, {name}"
        if found := runner.attempt(report, figure, case, PRODUCTS):
            milliseconds = f"{1e3 * found['assemble']:.1f} ms; product {1e3 * found['product']:.2f} ms; "
            report.add(
                figure, found["products"], PRODUCTS, unit="products", note=f"{milliseconds}{found['dofs']:,} unknowns"
            )
            note = f"{found['steps_per_layer']} steps per layer; either this or the line above is the goal"
            report.add(f"  share of a gradient, {name}", found["shares"], SHARE, unit="%", note=note)
            report.data[name] = found
    case = {"kind": "network", "cells": 32 if runner.quick else 128, "runs": runner.runs, "layers": 8}
    figure = "network 2 × 64, share of a gradient"
    if found := runner.attempt(report, figure, case, NETWORK):
        note = f"{found['nodes']:,} nodes, 8 layers, {found['steps']} steps, {found['gradient']:.2f} s"
        report.add(figure, found["shares"], NETWORK, unit="%", note=note)
        report.data["network"] = found
    return report


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
