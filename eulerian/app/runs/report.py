"""What a run prints: headlines and tables."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eulerian.app.build.network import SampledProblem
from eulerian.app.config import Config
from eulerian.app.runs.files import FIGURES, GAP, HISTORY, RESULT, STUDY, THETA
from eulerian.app.runs.folder import RunFolder
from eulerian.control.control import ControlProblem
from eulerian.density.space import DensitySpace
from eulerian.ideal.problem import IdealProblem
from eulerian.objective.parts import part_names

if TYPE_CHECKING:
    from eulerian.analysis.verify import Verification
    from eulerian.bounds.bracket import ContinuousBounds
    from eulerian.ideal.dynamic_ot import ConvexSolution
    from eulerian.optimise import LevelReport


def headline(config: Config, problem: ControlProblem) -> str:
    """The sizes of a problem in one line."""
    space = problem.density_space
    return (
        f"{_mesh_sizes(space)}; {config.field.kind} field, {_count(problem.n_layers, 'layer')} of "
        f"{_count(problem.layer_shape[1], 'parameter')}; {_count(space.comm.size, 'rank')}"
    )


def ideal_headline(_config: Config, problem: IdealProblem) -> str:
    """The sizes of an idealised problem in one line."""
    velocity = "any velocity" if problem.space.n_labels == 1 else "any velocity for each label"
    return (
        f"{_mesh_sizes(problem.space)}; {velocity}, {_count(problem.slabs, 'time slab')}; "
        f"{_count(problem.space.comm.size, 'rank')}"
    )


def particle_headline(config: Config, sampled: SampledProblem) -> str:
    """The sizes of a problem on particles in one line."""
    problem, space, particles = sampled.problem, sampled.space, config.particles
    origin = "of a file" if particles.file is not None else f"drawn ({particles.sampling})"
    return (
        f"{_count(problem.count, 'particle')} in {space.dim}-D {origin}, {_count(space.n_labels, 'label')}, "
        f"{particles.method}; {config.field.kind} field, {_count(problem.n_layers, 'layer')} of "
        f"{_count(problem.layer_shape[1], 'parameter')}; {_count(space.comm.size, 'rank')}"
    )


def _mesh_sizes(space: DensitySpace) -> str:
    cells = space.mesh.topology.index_map(space.dim).size_global
    labels = _count(space.n_labels, "label")
    return f"{cells} cells in {space.dim}-D, density of degree {space.degree}, {labels}"


def parts_table(columns: Mapping[str, tuple[float, Mapping[str, float]]]) -> str:
    """J and its parts, one column per point; parts that are zero throughout are left out."""
    rows = [("J", [total for total, _ in columns.values()])]
    for name in part_names():
        # An earlier version knew fewer parts: what it does not tell of is no reason for a row.
        if any(parts.get(name, 0.0) for _, parts in columns.values()):
            rows.append((f"  {name}", [parts.get(name, math.nan) for _, parts in columns.values()]))
    width = max(12, *(len(name) for name, _ in rows))
    lines = [f"{'':{width}}" + "".join(f"{name:>16}" for name in columns)]
    return "\n".join(
        lines + [f"{name:{width}}" + "".join(f"{value:16.8g}" for value in values) for name, values in rows]
    )


def ideal_table(solution: "ConvexSolution", bounds: "ContinuousBounds") -> str:
    """What the idealised problem is worth: the discrete one, with its gap, and the continuous one.

    J's parts stand beside those of the exact solution where there is one.
    """
    unused, exact = dict.fromkeys(part_names(), 0.0), bounds.hopf_lax
    columns = {"convex": (solution.primal, unused | dict(solution.parts))}
    if exact is not None:
        columns["Hopf–Lax"] = (exact.value, unused | {"terminal": exact.terminal, "kinetic": exact.kinetic})
    bound = f"{'lower bound':12}{solution.dual:16.8g}   of the discrete problem"
    if not math.isfinite(solution.primal):
        found = f"{bound}\nno flow that satisfies the continuity equation was found"
    else:
        gap = f"{'gap':12}{solution.gap:16.3g}   ({100 * solution.relative_gap:.3g} %)"
        found = f"{parts_table(columns)}\n{bound}\n{gap}"
    return f"{found}\n{bounds.statement}"


def levels_table(levels: Sequence["LevelReport"]) -> str:
    """What each level of a training took, or nothing where there was one mesh."""
    if len(levels) < 2:
        return ""
    names = ("level", "cells", "degree", "layers", "iterations", "evaluations", "J", "seconds")
    lines = ["{:>5}{:>10}{:>8}{:>8}{:>12}{:>13}{:>16}{:>9}".format(*names)]
    for each in levels:
        lines.append(
            f"{each.level:5}{each.cells:10}{each.degree:8}{each.layers:8}{each.iterations:12}{each.evaluations:13}"
            f"{each.total:16.8g}{each.seconds:9.2f}"
        )
    return "\n".join(lines)


def classification_table(document: Mapping[str, Any]) -> str:
    """What ``classification`` found, or nothing."""
    found = document.get("classification")
    if not found:
        return ""
    columns = [found[name] or {"accuracy": math.nan, "correct": []} for name in ("initial", "final")]
    rows = [("mass that the loss assigns correctly", [column["accuracy"] for column in columns])]
    for label, values in enumerate(
        itertools.zip_longest(*(column["correct"] for column in columns), fillvalue=math.nan)
    ):
        rows.append((f"  of label {label}, as a share of it", list(values)))
    lines = [f"{'':36}{'start':>10}{'end':>10}"]
    return "\n".join(lines + [f"{name:36}" + "".join(f"{value:10.4f}" for value in values) for name, values in rows])


def laws_table(laws: "Verification") -> str:
    """What a verification measured."""
    lines = [
        f"Taylor rates of J         {_rates(laws.taylor_rates)}   (2 where the gradient is right)",
        f"dot product test          {laws.dot_error:.2e}   (relative error of the adjoint)",
        f"mass                      {laws.mass_error:.2e}   (relative change)",
        f"smallest density          {laws.min_density:.2e}   (0 up to rounding, or more)",
    ]
    if laws.nearby is not None:
        lines += [
            f"at a random θ near it, where |v| comes to {laws.nearby.speed:.3g}:",
            f"  Taylor rates of J       {_rates(laws.nearby.taylor_rates)}",
            f"  dot product test        {laws.nearby.dot_error:.2e}",
        ]
    return "\n".join(lines)


def _rates(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:.4f}" for rate in rates)


def files_line(run: RunFolder) -> str:
    """Where the results are."""
    names = [name for name in (THETA, HISTORY, GAP, STUDY, "densities.pvd", FIGURES) if (run.path / name).exists()]
    return f"written to {run.path}: {', '.join([RESULT, *names])}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
