"""Cells of adapted meshes against those of uniform ones of the same degree, at the same L¹ error of ρ(T).

    python scripts/bench/adapt.py

Every template's flow is one that was trained for this. Its points are carried once by the flow itself, and each mesh
is held against them (``eulerian.analysis.characteristics``). Uniform meshes are those of the template, with h, h/2 and
h/4. The adapted ones come from the coarse mesh up, one refinement after another; between them cells are interpolated
over the error (both are powers, so by logarithms).
"""

import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from suite import Benchmark, Report, Runner, Table, at_least, main

# Template, keys that are set, cells along a side of the mesh with h, and what training that takes.
CASES: dict[str, tuple[str, list[str], int]] = {
    "gaussian": ("gaussian", [], 32),
    "moons": ("moons", [], 48),
    "thin moons": ("moons", ["density.initial.0.bandwidth=0.1"], 48),
}
GOALS = {2: at_least(3.0), 4: at_least(5.0)}
ITERATIONS = 60


def work(template: str, sets: list[str], side: int, degree: int, levels: list[int], iterations: int) -> Table:
    """[cells, L¹ error] of uniform meshes by level, and of adapted ones as far as they are needed."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = trained(Path(scratch), template, sets, iterations)
        return measured(folder, side, degree, levels)


def trained(scratch: Path, template: str, sets: Sequence[str], iterations: int) -> Path:
    """The run folder of a training on adapted meshes."""
    from eulerian.app.config import read_config
    from eulerian.app.tasks.train import run_train
    from eulerian.app.templates import copy_template

    copy_template(template, scratch)
    keys = [*sets, "adapt.density=0.1", f"optimiser.max_iterations={iterations}", "output.densities=0"]
    config = read_config(scratch / f"{template}.toml", [*keys, "ideal.certificate=none"], output=scratch / "run")
    run_train(config)
    return scratch / "run"


def measured(folder: Path, side: int, degree: int, levels: Sequence[int]) -> Table:
    """Uniform and adapted meshes for the flow of a run."""
    from mpi4py import MPI

    from eulerian.analysis.characteristics import Characteristics
    from eulerian.analysis.jump_indicator import jump_indicator
    from eulerian.app.build.network import build
    from eulerian.app.build.training import start_problem
    from eulerian.app.config import read_config
    from eulerian.app.tasks.loaded_run import load_trained
    from eulerian.mesh.refinement import refined
    from eulerian.optimise.stages import cell_count

    comm = MPI.COMM_WORLD
    run = load_trained(folder, comm)
    paths = Characteristics.of(run.problem, run.theta)
    keys = [f"density.degree={degree}"]

    def point(problem: object) -> list[float]:
        found = paths.verify(problem, run.theta)
        return [float(cell_count(problem)), float(np.max(found.density_l1))]

    uniform = {}
    for level in levels:
        cells = f"domain.box.cells=[{side * level},{side * level}]"
        config = read_config(folder / "config.resolved.toml", [*keys, cells])
        uniform[str(level)] = point(build(config, comm, run.problem.field))
    least = min(error for _, error in uniform.values())
    config = read_config(folder / "config.resolved.toml", [*keys, f"adapt.density={min(4.0 * least, 0.05)}"])
    problem = start_problem(config, comm, run.problem.field)
    adapted = [point(problem)]
    while adapted[-1][1] > least:
        space = problem.density_space
        mesh = refined(space.simplices, space.mesh, jump_indicator(problem), 0.6)
        problem = build(config, comm, run.problem.field, mesh=mesh)
        adapted.append(point(problem))
    return {"uniform": uniform, "adapted": adapted}


def cells_for(points: Sequence[Sequence[float]], error: float) -> float | None:
    """How many cells adapted meshes (cells, error) need for an error; None where none is as good."""
    if points[0][1] <= error:
        return points[0][0]
    for (some, worse), (more, better) in pairwise(points):
        if better <= error:
            share = np.log(worse / error) / np.log(worse / better)
            return float(np.exp((1.0 - share) * np.log(some) + share * np.log(more)))
    return None


def measure(runner: Runner) -> Report:
    """All cases, of degree 1 and 2."""
    report = Report()
    for name, (template, sets, side) in CASES.items():
        for degree in (1, 2):
            compare(runner, report, f"{name}, degree {degree}", (template, sets, side, degree))
        if runner.quick:
            break
    return report


def compare(runner: Runner, report: Report, name: str, case: tuple[str, list[str], int, int]) -> None:
    """One case: a row for h/2 and one for h/4."""
    template, sets, side, degree = case
    levels, iterations = ([1, 2], 4) if runner.quick else ([1, 2, 4], ITERATIONS)
    task = {"template": template, "sets": sets, "side": side, "degree": degree}
    found = runner.attempt(report, name, {**task, "levels": levels, "iterations": iterations})
    if not found:
        return
    report.data[name] = {"uniform": found["uniform"], "adapted": found["adapted"]}
    for level in levels[1:]:
        cells, error = found["uniform"][str(level)]
        ours = cells_for(found["adapted"], error)
        figure = f"uniform / adapted cells, {name}, h/{level}"
        if ours is None:
            report.add(figure, None, GOALS[level], note="no adapted mesh was as good", missed=True)
            continue
        note = f"{cells:.0f} and {ours:.0f} cells for {100 * error:.2g} % in L¹"
        report.add(figure, cells / ours, GOALS[level], note=note)


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
