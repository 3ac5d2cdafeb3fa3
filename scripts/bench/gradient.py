"""One value and one gradient: the ratio of their costs, and how both grow with the mesh.

    python scripts/bench/gradient.py
    python scripts/bench/gradient.py --quick --output /tmp/bench

Gaussians turn and move under an affine field, limiter on; islands with sharp shores keep the limiter busy. The number
of time steps is the same on all meshes: seconds per step and unknown should not depend on the mesh. (At a given horizon
halving h doubles the steps.) Everything that the adjoint needs is kept in memory.
"""

import statistics
from pathlib import Path

import cases
import numpy as np
from suite import Benchmark, Report, Runner, Table, at_most, in_turns, main, ratios, slope

from eulerian.density import basis

RATIO = at_most(4.0)
SIZES = {False: (64, 128, 256, 512), True: (24, 48)}
# Name, dimension, degree, cells, islands: about 4·10⁵, 2·10⁵ and 3·10⁵ unknowns.
KINDS = {
    False: (("DG1, 2-D", 2, 1, 256, False), ("DG2, 2-D", 2, 2, 128, False), ("DG1, 3-D", 3, 1, 24, False)),
    True: (("DG1, 2-D", 2, 1, 48, False), ("DG2, 2-D", 2, 2, 24, False), ("DG1, 3-D", 3, 1, 8, False)),
}
BUSY = {False: ("DG1, 2-D, busy limiter", 2, 1, 256, True), True: ("DG1, 2-D, busy limiter", 2, 1, 48, True)}


def work(cells: int, dim: int, degree: int, islands: bool, runs: int, steps: int = 32) -> Table:
    """Times of a value and of a value with its gradient. Collective."""
    problem = cases.problem(cells, dim=dim, degree=degree, islands=islands, steps=steps)
    theta = problem.initial_theta

    def evaluate() -> None:
        problem.forget()
        problem.value(theta)

    forward, adjoint = in_turns(runs, evaluate, lambda: problem.value_and_gradient(theta))
    both = [a + b for a, b in zip(forward, adjoint, strict=True)]
    space, rho = problem.density_space, problem.final_density
    values = np.einsum("mi,cik->cmk", basis.legendre(dim, degree, space.limiter_points), rho[: space.n_owned])
    means = np.abs(rho[: space.n_owned, 0]) * space.phi0
    zero = np.any(values.min(axis=1) <= 1e-12 * means, axis=1)
    return {
        "dofs": space.mesh.topology.index_map(dim).size_global * space.nd,
        "steps": int(sum(problem.steps)),
        "stages": problem.trajectory.steppers[0].scheme.stages,
        "forward": statistics.median(forward),
        "gradient": statistics.median(both),
        "ratios": ratios(both, forward),
        "limited": space.comm.allreduce(int(zero.sum())) / space.mesh.topology.index_map(dim).size_global,
    }


def measure(runner: Runner) -> Report:
    """Ratios by kind, then growth of DG1 in two dimensions, of DG2, and of DG1 in three."""
    report = Report()
    report.data["kinds"] = []
    for name, dim, degree, cells, islands in (*KINDS[runner.quick], BUSY[runner.quick]):
        case = {"cells": cells, "dim": dim, "degree": degree, "islands": islands, "runs": runner.runs}
        found = runner.attempt(report, f"gradient / forward, {name}", case, RATIO)
        if found:
            note = f"{found['dofs']:,} unknowns, {found['steps']} steps: "
            note += f"{found['forward']:.2f} s and {found['gradient']:.2f} s"
            if islands:
                note += f"; limited at the end: {found['limited']:.0%} of the cells"
            report.add(f"gradient / forward, {name}", found["ratios"], RATIO, note=note)
            report.data["kinds"].append({"name": name, **found})
    report.data["sizes"] = {}
    for name, dim, degree, sizes in ladders(runner):
        grow(runner, report, name, dim, degree, sizes)
    return report


def ladders(runner: Runner) -> tuple[tuple[str, int, int, tuple[int, ...]], ...]:
    """Name, dimension, degree and cells per side of every ladder of meshes."""
    three = (6, 8) if runner.quick else (8, 16, 32)
    return (
        ("DG1, 2-D", 2, 1, SIZES[runner.quick]),
        ("DG2, 2-D", 2, 2, SIZES[runner.quick][:-1]),
        ("DG1, 3-D", 3, 1, three),
    )


def grow(runner: Runner, report: Report, name: str, dim: int, degree: int, sizes: tuple[int, ...]) -> None:
    """One ladder of meshes: nanoseconds per unknown and step of the finest, and the slope of seconds per step."""
    found = []
    for cells in sizes:
        runs = 5 if cells < 256 else 1
        case = {"cells": cells, "dim": dim, "degree": degree, "islands": False, "runs": runs, "steps": 16}
        found.append(runner.attempt(report, f"cost on {cells}^{dim}, {name}", case))
    found = [each for each in found if each]
    if len(found) < 2:
        return
    for label, key in (("forward", "forward"), ("value and gradient", "gradient")):
        per = [each[key] / each["steps"] for each in found]
        ns = [1e9 * seconds / each["dofs"] for seconds, each in zip(per, found, strict=True)]
        power = slope([each["dofs"] for each in found], per)
        note = f"{sizes[0]}^{dim} … {sizes[-1]}^{dim}: " + ", ".join(f"{value:.1f}" for value in ns)
        note += f" ns; seconds per step grow like unknowns^{power:.2f}"
        report.add(f"{label} per step and unknown, {name}", ns[-1], unit="ns", note=note)
    report.data["sizes"][name] = [{"cells": cells, **each} for cells, each in zip(sizes, found, strict=False)]


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
