"""Held-out likelihood in the plane against seconds of one core: a flow trained on densities beside flows of others.

    pip install --no-deps --target rivals flowjax diffrax lineax optimistix paramax
    python scripts/bench/likelihood.py --rivals rivals

Two moons (600 points for training), eight Gaussians, a pinwheel and a checkerboard (2000 each): the mean of −log p at
20000 other points, less what the exact density has there. With as many points again as there are for training every
method stops early, and the best of its settings is chosen; held-out points are only looked at then.

* eulerian: KL(ρ(T) | normal) of the kernel estimate of the points, on a mesh, by L-BFGS; p is the normal density pulled
  back through the flow. The bandwidth is the one that the points for validation like best.
* kernel estimate: itself, with that bandwidth.
* spline flow (flowjax) and continuous flow (diffrax): maximum likelihood by Adam, as ``maximum_likelihood.py`` says.

Seconds are those of the processor in a process that is bound to one core, training only. Beside them stands what comes
before: for eulerian the bandwidth, the mesh, the density on it and kernels from the cache, for JAX compiling; importing
is not counted. A second at a loaded machine does less: the table says how many seconds of the clock one took. All of it
takes about twelve minutes of one core. Leaves ``likelihood.json`` and ``likelihood.png`` in the output folder,
and prints a table of all settings and one for the documentation.
"""

import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jax_particles import one_core
from likelihood_chart import draw
from maximum_likelihood import Setting
from maximum_likelihood import train as train_by_likelihood
from point_sets import KINDS, Floats, PointSet, gaussian_mixture, gaussian_mixtures, point_set
from suite import Benchmark, Report, Runner, Table, at_most, main

if TYPE_CHECKING:
    from eulerian.fields.piecewise import PiecewiseField

SNAPSHOTS = 12
BANDWIDTHS = np.geomspace(0.04, 0.2, 15)
EULERIAN, SPLINE, CONTINUOUS, KERNELS = "eulerian", "spline flow", "continuous flow", "kernel estimate"


@dataclass(frozen=True)
class Flow:
    """How eulerian trains: squares along each side of the box [−4, 4]², degree, network, λ, and how long."""

    cells: int
    degree: int = 1
    layers: int = 8
    hidden: int = 32
    kinetic: float = 0.02
    iterations: int = 80
    levels: int = 1

    @property
    def words(self) -> str:
        """For tables."""
        levels = f", {self.levels} levels" if self.levels > 1 else ""
        shape = f"{self.cells}² squares, degree {self.degree}, {self.layers} layers of 2 × {self.hidden}"
        return f"{shape}, λ = {self.kinetic:g}{levels}"


FLOWS = (Flow(32), Flow(48, kinetic=0.01, iterations=200))
QUICK_SPLINE = Setting("spline", 1e-2, width=32, depth=1, layers=4)
LARGE_SPLINE = Setting("spline", 3e-3, decay=1.0)
SMALL_NETWORK = Setting("cnf", 1e-2, width=32, kinetic=0.01)
LARGE_NETWORK = Setting("cnf", 1e-2, kinetic=0.01)
OTHERS = {  # with seconds: the rate falls in that time, so a short training is not the beginning of a long one
    SPLINE: ((QUICK_SPLINE, 4.0), (LARGE_SPLINE, 4.0), (LARGE_SPLINE, 12.0)),
    CONTINUOUS: ((SMALL_NETWORK, 24.0), (LARGE_NETWORK, 24.0)),
}


# -- one training, in a process of its own ---------------------------------------------------------------------------


def work(name: str, method: str, held_out: int, setting: Table, seconds: float = 0.0) -> Table:
    """Train on one set on one core, and value what was kept on the way."""
    one_core()
    started, clock = time.perf_counter(), time.process_time()
    points = point_set(name, held_out)
    if method == KERNELS:
        found = by_kernels(points)
    elif method == EULERIAN:
        found = by_eulerian(points, Flow(**setting))
    else:
        found = by_likelihood(points, Setting(**setting), seconds)
    share = (time.perf_counter() - started) / (time.process_time() - clock)
    return {**found, "true": points.true_nll, "wall": share, "load": os.getloadavg()[0]}


def by_kernels(points: PointSet) -> Table:
    """The kernel estimate."""
    clock = time.process_time()
    bandwidth = best_bandwidth(points)
    spent = time.process_time() - clock
    nll = [-float(np.mean(gaussian_mixture(x, points.train, bandwidth))) for x in (points.validation, points.held_out)]
    return {"before": 0.0, "bandwidth": bandwidth, "trace": [[spent, *nll]], "trained": spent}


def best_bandwidth(points: PointSet) -> float:
    """The one of ``BANDWIDTHS`` with which the kernel estimate makes the points for validation most likely."""
    likelihood = gaussian_mixtures(points.validation, points.train, BANDWIDTHS).mean(axis=1)
    return float(BANDWIDTHS[int(np.argmax(likelihood))])


def by_eulerian(points: PointSet, flow: Flow) -> Table:
    """`eulerian train`, without what it writes."""
    from eulerian.app.build.network import build
    from eulerian.app.build.training import build_training
    from eulerian.app.config import parse_config

    clock = time.process_time()
    bandwidth = best_bandwidth(points)
    with tempfile.TemporaryDirectory() as folder:
        np.savetxt(Path(folder) / "points.csv", points.train, delimiter=",", header="x,y", comments="")
        training = build_training(config := parse_config(configuration(flow, bandwidth), folder), build(config))
    before = time.process_time() - clock
    kept: list[tuple[float, Floats]] = []
    clock = time.process_time()
    training.run(lambda _record: kept.append((time.process_time() - clock, training.theta.copy())))

    def nll(theta: Floats, x: Floats) -> float:
        return -float(np.mean(pulled_back(training.problem.layered, theta, x)))

    rows = geometric([when for when, _ in kept], SNAPSHOTS)
    trace = valued([kept[row] for row in rows], points, nll)
    return {"before": before, "bandwidth": bandwidth, "trace": trace, "trained": kept[-1][0]}


def pulled_back(field: "PiecewiseField", theta: Floats, x: Floats) -> Floats:
    """Log of the normal density, pulled back through the flow of θ (L, p) to points (n, 2): (n,).

    It is what ``eulerian push`` calls ``log_likelihood``, with twice as long steps (an error of 1e-5 here).
    """
    from eulerian.particles.flow import Scheme, carry_density

    scheme, labels = Scheme(horizon=1.0, steps_per_layer=2), np.zeros(len(x), dtype=np.int32)
    end, change = carry_density(field, theta, x, labels, scheme)
    return np.asarray(-0.5 * (end**2).sum(axis=1) - np.log(2.0 * np.pi) - change)


def configuration(flow: Flow, bandwidth: float) -> Table:
    """For ``parse_config``; the points are in ``points.csv``."""
    samples = {"kind": "samples", "file": "points.csv", "columns": ["x", "y"], "bandwidth": bandwidth}
    normal = {"kind": "gaussian", "mean": [0.0, 0.0], "std": 1.0}
    return {
        "domain": {"box": {"lower": [-4.0, -4.0], "upper": [4.0, 4.0], "cells": [flow.cells, flow.cells]}},
        "density": {"degree": flow.degree, "initial": [samples]},
        "field": {"kind": "mlp", "hidden": [flow.hidden, flow.hidden], "layers": flow.layers, "horizon": 1.0},
        "objective": {
            "kinetic": flow.kinetic,
            "parameters": 1e-5,
            "terminal": {"kind": "kl", "target": [normal]},
        },
        "optimiser": {"max_iterations": flow.iterations, "levels": flow.levels},
        "solver": {"max_steps_per_layer": 300},  # a trial point that needs more is not worth its time
    }


def by_likelihood(points: PointSet, setting: Setting, seconds: float) -> Table:
    """A flow of others."""
    trained = train_by_likelihood(setting, points.train, seconds, SNAPSHOTS)

    def nll(parameters: Any, x: Floats) -> float:
        return -float(np.mean(trained.log_density(parameters, x)))

    trace = valued(list(zip(trained.seconds, trained.parameters, strict=True)), points, nll)
    return {"before": trained.compiling, "trace": trace, "trained": trained.seconds[-1]}


def geometric(seconds: list[float], count: int) -> list[int]:
    """Rows at about geometric times, the last one among them."""
    wanted = np.geomspace(max(seconds[-1] / 30.0, 1e-3), seconds[-1], count)
    return sorted({min(int(np.searchsorted(seconds, when)), len(seconds) - 1) for when in wanted})


def valued(kept: list[tuple[float, Any]], points: PointSet, nll: Any) -> list[list[float]]:
    """(seconds, for validation, held out) wherever a training was better than ever before on points for validation."""
    trace: list[list[float]] = []
    for when, parameters in kept:
        seen = nll(parameters, points.validation)
        if np.isfinite(seen) and (not trace or seen < trace[-1][1]):
            trace.append([when, seen, nll(parameters, points.held_out)])
    return trace


# -- all of them -----------------------------------------------------------------------------------------------------


def contestants(*, quick: bool) -> list[tuple[str, str, Table]]:
    """Method, setting in words and case of every training of a set."""
    listed: list[tuple[str, str, Table]] = [(KERNELS, "", {"method": KERNELS, "setting": {}})]
    flows = (Flow(12, layers=2, hidden=8, iterations=8),) if quick else FLOWS
    listed += [(EULERIAN, flow.words, {"method": EULERIAN, "setting": vars(flow)}) for flow in flows]
    for method, settings in OTHERS.items():
        for setting, seconds in settings[: 1 if quick else None]:
            limit = 0.5 if quick else seconds
            case = {"method": method, "setting": vars(setting), "seconds": limit}
            listed.append((method, f"{setting.words}, {limit:g} s", case))
    return listed


def measure(runner: Runner) -> Report:
    """All trainings; a row for each."""
    report = Report()
    for name in KINDS:
        results: dict[str, list[Table]] = {}
        for method, words, case in contestants(quick=runner.quick):
            figure = f"{name}: {method}"
            case = {"name": name, "held_out": 1000 if runner.quick else 20_000, **case}
            found = runner.attempt(report, figure, case)
            if found:
                results.setdefault(method, []).append({"setting": words, **found})
                add_row(report, figure, words, found)
        report.data[name] = {"true": next(iter(results.values()))[0]["true"], "results": results}
    goal_of_the_moons(report)
    print(readme_table(report.data))
    return report


def add_row(report: Report, figure: str, words: str, found: Table) -> None:
    """What validation chooses, against the exact density at the points held out, and what it took."""
    seconds, _, value = found["trace"][-1]
    bandwidth = f"bandwidth {found['bandwidth']:.3f}" if "bandwidth" in found else ""
    parts = [
        words,
        bandwidth,
        f"best after {seconds:.1f} of {found['trained']:.1f} s",
        f"{found['before']:.1f} s before",
        f"−log p {value:.3f}",
        f"{found['wall']:.1f} s of the clock for one of the processor",
    ]
    report.add(figure, value - found["true"], unit="nats", note="; ".join(filter(None, parts)))


def goal_of_the_moons(report: Report) -> None:
    """The best of eulerian on the moons within five seconds."""
    reached = [
        row[2] for each in report.data["moons"]["results"].get(EULERIAN, []) for row in each["trace"] if row[0] <= 5.0
    ]
    report.add("moons: −log p of eulerian within 5 s", min(reached, default=None), at_most(1.5), missed=not reached)


def chosen(found: list[Table]) -> Table:
    """The setting that points for validation like best."""
    return min(found, key=lambda each: each["trace"][-1][1])


def readme_table(data: Table) -> str:
    """Held-out value and seconds of every method's chosen setting, the least of every set in bold; Markdown."""
    methods = (EULERIAN, SPLINE, CONTINUOUS, KERNELS)
    lines = [["", *data], ["---"] * (1 + len(data))]
    lines.append(["exact density", *(f"{each['true']:.3f}" for each in data.values())])
    columns = [{method: chosen(each["results"][method]) for method in each["results"]} for each in data.values()]
    for method in methods:
        cells = []
        for column in columns:
            if method not in column:
                cells.append("—")
                continue
            seconds, _, value = column[method]["trace"][-1]
            least = value <= min(each["trace"][-1][2] for each in column.values())
            cells.append(f"{'**' if least else ''}{value:.3f}{'**' if least else ''} ({seconds:.2g} s)")
        lines.append([method, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    written = main(BENCHMARK, str(Path(__file__)))
    if written is not None:
        document = json.loads(written.read_text(encoding="utf-8"))
        print(draw(document["data"], written.with_suffix(".png")))
