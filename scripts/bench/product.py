"""One application of the right-hand side, limiter included, against the bare sparse product; share of the bandwidth.

    python scripts/bench/product.py

A stage is a whole Runge-Kutta stage of a forward solve (product, axpys, limiter, ghosts): seconds of the solve over its
number of stages, one layer, next to nothing recorded. The bare products are PETSc's MatMult with the same operator as
AIJ and as BAIJ matrix. Everything takes turns in one process.

The bandwidth is that of the triad a = b + s c on one core (24 bytes an entry; that the cache reads a before it is
overwritten is not counted). The bytes of a product are what must be moved if every vector is read or written once:

    AIJ    12 per entry (value, column), 4 + 16 per row (row pointer, x, y)
    BAIJ   8 per entry, 4 per block, 4 per block row, 16 per row
    stage  per cell: ρ read and written, ρ⁰ read in the stages that mix it in (8 nd each); two upwind coefficients per
           flux point of the facets (16 each), as the smoothed flux has; the velocity in the cell (8 d nn); the index
           of the neighbour's trace (4 per facet node)

A share is these bytes over seconds over the triad's bandwidth: the part of the way to the limit that memory sets to
whoever does not fuse stages. Implementations that keep other numbers than these move others.
"""

import statistics
from pathlib import Path
from typing import Any

from mpi4py import MPI

import cases
import numpy as np
from petsc4py import PETSc
from suite import RUNS, Benchmark, Report, Runner, Table, at_most, in_turns, main, ratios

from eulerian.base.jit import Library
from eulerian.density import basis
from eulerian.transport.operator import TransportOperator
from eulerian.transport.reference import coordinate_entries
from eulerian.transport.ssp import SSPScheme

PRODUCT = at_most(2.0)
KINDS = {
    False: (("DG1, 2-D", 2, 1, 256), ("DG2, 2-D", 2, 2, 128), ("DG1, 3-D", 3, 1, 24)),
    True: (("DG1, 2-D", 2, 1, 48),),
}


def work(cells: int, dim: int, degree: int, runs: int, steps: int, triad_mib: int = 128) -> Table:
    """Seconds of a stage, of both products and of the triad, and the bytes that they move."""
    problem = cases.problem(cells, dim=dim, degree=degree, layers=1, steps=steps, memory=2.0**28)
    theta, space = problem.initial_theta, problem.density_space
    operator = TransportOperator(space, problem.velocity_space, 1, problem.smoothing)
    operator.assemble(problem.layered.value(0, problem.split(theta)[0][0], problem.velocity_space.x))
    rho = problem.initial_density
    aij, baij = matrices(operator, space)
    x, y = aij.createVecRight(), aij.createVecLeft()
    x.setRandom()
    repeats = 20

    def evaluate() -> None:
        problem.forget()
        problem.value(theta)

    def product(matrix: Any) -> None:
        for _ in range(repeats):
            matrix.mult(x, y)

    stream = triad(triad_mib)
    actions = (evaluate, lambda: product(aij), lambda: product(baij), stream, lambda: operator.apply(rho))
    forward, with_aij, with_baij, triads, applied = in_turns(runs, *actions)
    scheme = problem.trajectory.steppers[0].scheme
    stages = int(sum(problem.steps)) * scheme.stages
    stage = [seconds / stages for seconds in forward]
    bare = {"AIJ": [s / repeats for s in with_aij], "BAIJ": [s / repeats for s in with_baij]}
    best = [min(a, b) for a, b in zip(bare["AIJ"], bare["BAIJ"], strict=True)]
    found = {
        "dofs": space.n_owned * space.nd,
        "stages": stages,
        "stage": statistics.median(stage),
        "apply": statistics.median(applied),
        "AIJ": statistics.median(bare["AIJ"]),
        "BAIJ": statistics.median(bare["BAIJ"]),
        "stage_over_aij": statistics.median(ratios(stage, bare["AIJ"])),
        "stage_over_baij": statistics.median(ratios(stage, bare["BAIJ"])),
        "stage_over_best": ratios(stage, best),
        "triad_bytes_per_second": 3 * triad_mib * 2**20 / statistics.median(triads),
        "bytes": {**product_bytes(space, aij, baij), "stage": stage_bytes(space, problem.velocity_space, scheme)},
    }
    for thing in (aij, baij, x, y):
        thing.destroy()
    return found


def matrices(operator: Any, space: Any) -> tuple[Any, Any]:
    """B as AIJ and as BAIJ matrix."""
    rows, columns, values = coordinate_entries(operator)
    n = space.n_owned * space.nd
    aij = PETSc.Mat().create(space.comm)
    aij.setSizes(((n, None), (n, None)))
    aij.setType("aij")
    aij.setPreallocationCOO(rows.astype(PETSc.IntType), columns.astype(PETSc.IntType))
    aij.setValuesCOO(values)
    aij.setBlockSizes(space.nd, space.nd)
    return aij, aij.convert("baij", PETSc.Mat())


def triad(mib: int) -> Any:
    """The triad on three arrays of that size, as a function of nothing."""
    library = Library(Path(__file__).with_name("triad.c"), "triad_t")
    compiled = library.load(MPI.COMM_SELF)
    n = mib * 2**17
    a, b, c = np.zeros(n), np.ones(n), np.full(n, 2.0)
    task = library.ffi.new("triad_t *")
    task.n, task.s = n, 3.0
    task.a, task.b, task.c = (library.pointer(array) for array in (a, b, c))

    def run(_kept: tuple[Any, ...] = (a, b, c)) -> None:
        compiled.triad(task)

    return run


def product_bytes(space: Any, aij: Any, baij: Any) -> dict[str, float]:
    """Bytes of a bare product (see above)."""
    nd, n = space.nd, space.n_owned * space.nd
    entries = aij.getInfo()["nz_used"]
    blocks = baij.getInfo()["nz_used"] / nd**2
    return {
        "AIJ": 12 * entries + 20 * n,
        "BAIJ": 8 * nd**2 * blocks + 4 * blocks + 4 * space.n_owned + 16 * n,
    }


def stage_bytes(space: Any, velocity_space: Any, scheme: SSPScheme) -> float:
    """Bytes of a stage on this rank, the mean over those of a step (see above)."""
    dim, nd = space.dim, space.nd
    points = len(basis.facet_weights(dim, space.facet_degree))
    nodes = {0: 1, 1: dim, 2: dim * (dim + 1) // 2}[space.degree]  # of a facet: a simplex of dimension dim - 1
    states = 8 * nd * (2 + np.count_nonzero(scheme.alpha) / scheme.stages)
    per_cell = states + (dim + 1) * (16 * points + 4 * nodes) + 8 * dim * velocity_space.cell_nodes.shape[1]
    return float(per_cell * space.n_owned)


def measure(runner: Runner) -> Report:
    """One row of the ratio and one of the shares for each kind."""
    report = Report()
    report.data["kinds"] = []
    for name, dim, degree, cells in KINDS[runner.quick]:
        figure = f"RHS with limiter / bare product, {name}"
        size = {"runs": 3, "steps": 32, "triad_mib": 16} if runner.quick else {"runs": RUNS, "steps": 96}
        found = runner.attempt(
            report, figure, {"cells": cells, "dim": dim, "degree": degree, **size}, PRODUCT if dim == 2 else None
        )
        if not found:
            continue
        milliseconds = {key: 1e3 * found[key] for key in ("stage", "apply", "AIJ", "BAIJ")}
        note = "{stage:.2f} ms; product alone {apply:.2f} ms; AIJ {AIJ:.2f} ms, BAIJ {BAIJ:.2f} ms".format(
            **milliseconds
        )
        note += (
            f" (×{found['stage_over_aij']:.2f} AIJ, ×{found['stage_over_baij']:.2f} BAIJ); {found['dofs']:,} unknowns"
        )
        report.add(figure, found["stage_over_best"], PRODUCT, note=note)
        peak = found["triad_bytes_per_second"]
        shares = {key: found["bytes"][key] / found[key] / peak for key in ("stage", "AIJ", "BAIJ")}
        note = f"triad {peak / 1e9:.1f} GB/s; stage {found['bytes']['stage'] / 2**20:.1f} MiB; "
        note += f"AIJ reaches {shares['AIJ']:.0%}, BAIJ {shares['BAIJ']:.0%}"
        report.add(f"share of the memory bandwidth, {name}", 100 * shares["stage"], unit="%", note=note)
        report.data["kinds"].append({"name": name, **found, "shares": shares})
    return report


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
