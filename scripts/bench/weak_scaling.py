"""Weak scaling to 10⁴ ranks on paper: a model of one gradient from constants that are measured here, or assumed.

    python scripts/bench/weak_scaling.py
    python scripts/bench/weak_scaling.py --latency 5e-6 --bandwidth 1e8

Seconds of one stage on a rank with N cells (docs/results/scaling.md derives it):

    t = c N  +  m α + b (q/β + (1 − q)/β₀)  +  R (2 α ⌈log₂ P⌉ + 8 L p / β) / S

c is the time of a cell and stage, the mean of forward and reverse, on two ranks at once; m the neighbours of a part and
b the bytes that it sends them, of which the share q leaves the node; α the latency of a message, β the bandwidth of one
rank between nodes and β₀ within; R the reductions of a gradient (``ranks.py`` counts them: the same for any number of
steps), S its stages, and L p the numbers of θ. Communication overlaps with nothing.
"""

import argparse
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from mpi4py import MPI

import cases
import numpy as np
from suite import Benchmark, Report, Runner, Table, in_turns, main

RANKS = (1, 16, 128, 1024, 10_000)


@dataclass(frozen=True)
class Network:
    """What connects the ranks; assumed, not measured: a cluster's network shared by all cores of a node.

    Attributes:
        latency: α, seconds per message, software included.
        bandwidth: β, bytes per second of one rank between nodes: 25 GB/s of a node shared by all its ranks.
        inside: β₀, the same within a node.
        node: ranks of a node.
    """

    latency: float = 2e-6
    bandwidth: float = 2e8
    inside: float = 1e9
    node: int = 128

    def leaving(self, dim: int, ranks: int) -> float:
        """q: of the surface of all parts of a node, the share that is the surface of the node, a square or a cube."""
        return 0.0 if ranks <= self.node else self.node ** (-1.0 / dim)


@dataclass(frozen=True)
class Part:
    """What one rank has.

    Attributes:
        dim: 2 or 3.
        cells: N.
        seconds_per_cell: c.
        stages: S of a gradient, forward or reverse.
        parameters: L p.
        reductions: R of forward and reverse.
    """

    dim: int
    cells: int
    seconds_per_cell: float
    stages: int = 2048
    parameters: int = 8 * 114
    reductions: int = 12

    @property
    def neighbours(self) -> int:
        """m: of compact parts, 6 in the plane and 14 in space."""
        return {2: 6, 3: 14}[self.dim]

    @property
    def facets(self) -> float:
        """Between this part, a square or a cube, and others: two triangles to a square, six tetrahedra to a cube."""
        if self.dim == 2:
            return 4.0 * (self.cells / 2.0) ** 0.5
        return 12.0 * (self.cells / 6.0) ** (2.0 / 3.0)

    @property
    def bytes_sent(self) -> float:
        """b: the values at the nodes of these facets, degree 1."""
        return 8.0 * self.dim * self.facets

    def seconds(self, ranks: int, network: Network) -> tuple[float, float, float]:
        """Of one stage: computing, ghosts, and its share of the reductions."""
        computing = self.seconds_per_cell * self.cells
        if ranks == 1:
            return computing, 0.0, 0.0
        neighbours = min(self.neighbours, ranks - 1)
        q = network.leaving(self.dim, ranks)
        per_byte = q / network.bandwidth + (1.0 - q) / network.inside
        ghosts = neighbours * network.latency + self.bytes_sent * per_byte
        once = 2.0 * network.latency * math.ceil(math.log2(ranks)) + 8.0 * self.parameters / network.bandwidth
        return computing, ghosts, self.reductions * once / self.stages

    def efficiency(self, ranks: int, network: Network) -> float:
        """Of that many ranks, against one that has as many cells."""
        computing, *rest = self.seconds(ranks, network)
        return computing / (computing + sum(rest))

    def smallest(self, ranks: int, network: Network) -> int:
        """Cells per rank at which half of the time is computing: finer parts do not pay."""
        cells = 10
        while replace(self, cells=cells).efficiency(ranks, network) < 0.5 and cells < 10**9:
            cells = math.ceil(1.1 * cells)
        return cells


def work(kind: str, **case: int) -> Table:
    """A constant of this machine. Collective."""
    return {"cell": seconds_per_cell, "message": message}[kind](**case)


def seconds_per_cell(cells: int, dim: int) -> Table:
    """Of a stage of DG1, the mean of forward and reverse, all ranks busy. Collective."""
    problem = cases.problem(cells, dim=dim, layers=2, steps=16)
    theta = problem.initial_theta

    def gradient() -> None:
        problem.forget()
        problem.value_and_gradient(theta)

    (seconds,) = in_turns(3, gradient)
    space, scheme = problem.density_space, problem.trajectory.steppers[0].scheme
    stages = 2 * scheme.stages * sum(problem.steps)
    return {"seconds": float(np.median(seconds)) / (stages * space.n_owned), "cells": space.n_owned}


def message(rounds: int) -> Table:
    """Latency and bandwidth between the first two ranks, through shared memory where they share it. Collective."""
    comm = MPI.COMM_WORLD
    found = []
    for size in (1, 2**17):
        buffer = np.zeros(size)
        comm.barrier()
        started = MPI.Wtime()
        for _ in range(rounds):
            for sender in (0, 1):
                if comm.rank == sender:
                    comm.Send(buffer, 1 - sender)
                elif comm.rank == 1 - sender:
                    comm.Recv(buffer, sender)
        found.append((MPI.Wtime() - started) / (2 * rounds))
    return {"latency": found[0], "bandwidth": 8 * (2**17 - 1) / (found[1] - found[0])}


def measure(runner: Runner, network: Network = Network()) -> Report:
    """Constants, and the table for parts of 10³ to 10⁵ cells."""
    report = Report()
    quick = runner.quick
    here = runner.attempt(report, "a message on this machine", {"kind": "message", "rounds": 100}, ranks=2)
    if here:
        note = f"{here['bandwidth'] / 1e9:.1f} GB/s; assumed for the network {1e6 * network.latency:.1f} µs and "
        note += f"{network.bandwidth / 1e9:.2g} GB/s per rank"
        report.add("latency on this machine, 2 ranks", 1e6 * here["latency"], unit="µs", note=note)
        report.data["here"] = here
    for dim, cells in ((2, 24 if quick else 200), (3, 6 if quick else 22)):
        found = runner.attempt(
            report, f"cell and stage in {dim}-D", {"kind": "cell", "cells": cells, "dim": dim}, ranks=2
        )
        if not found:
            continue
        report.add(
            f"seconds of a cell and stage, {dim}-D, DG1", 1e9 * found["seconds"], unit="ns", note="2 ranks at once"
        )
        table = []
        for size in (1_000, 10_000, 100_000):
            part = Part(dim, size, found["seconds"])
            row: Table = {"dimension": dim, "cells per rank": size}
            row |= {f"{ranks:,} ranks": part.efficiency(ranks, network) for ranks in RANKS}
            table.append(row)
        part = Part(dim, 100_000, found["seconds"])
        split = ", ".join(f"{1e6 * part_:.3g}" for part_ in part.seconds(RANKS[-1], network))
        note = f"model; µs of a stage for computing, ghosts, reductions: {split}; "
        note += f"half at {part.smallest(RANKS[-1], network):,} cells per rank"
        name = f"weak scaling to {RANKS[-1]:,} ranks, {dim}-D, 10⁵ cells per rank"
        report.add(name, part.efficiency(RANKS[-1], network), note=note)
        report.data[f"{dim}-D"] = {"seconds_per_cell": found["seconds"], "efficiency": table}
    return report


def print_model(data: Table) -> None:
    """Efficiency by size and ranks, as Markdown."""
    rows = [row for name in ("2-D", "3-D") if name in data for row in data[name]["efficiency"]]
    if rows:
        print("\n| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(f"{x:.2f}" if isinstance(x, float) else f"{x:,}" for x in row.values()) + " |")


def command() -> None:
    """The benchmark with another network."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--latency", type=float, default=Network.latency)
    parser.add_argument("--bandwidth", type=float, default=Network.bandwidth)
    own, rest = parser.parse_known_args(sys.argv[1:])
    network = Network(own.latency, own.bandwidth)

    def measured(runner: Runner) -> Report:
        report = measure(runner, network)
        print_model(report.data)
        return report

    main(Benchmark(str(__doc__), measured, work), str(Path(__file__)), rest)


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    command()
