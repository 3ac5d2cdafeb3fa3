"""What a run on particles leaves: its keys in ``result.json``, its table, and the paths that its figure shows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from eulerian.app.runs.files import FIGURES, PARTICLES, ArrayRecord
from eulerian.app.runs.triangles import Triangles
from eulerian.base.arrays import Floats

if TYPE_CHECKING:
    from eulerian.app.build.network import SampledProblem
    from eulerian.app.config import Particles
    from eulerian.app.runs.folder import RunFolder
    from eulerian.app.runs.result import Document
    from eulerian.particles.problem import ParticleProblem

_SHOWN = 4000  # particles whose paths are saved
_TIMES = 41
LEVEL = 0.95


@final
@dataclass(frozen=True)
class ParticlePaths(ArrayRecord):
    """Where some of the particles are over time.

    Attributes:
        times: (n_times,) equally spaced from 0 to T.
        positions: (n_times, n, dim).
        labels: (n,).
        weights: (n,).
        box: (2, dim) corners of the domain's bounding box.
        outline: (m, 2, 2) edges of the domain's boundary; empty unless it is two-dimensional.
    """

    CONTENTS = "particles"

    times: Floats
    positions: Floats
    labels: NDArray[np.integer]
    weights: Floats
    box: Floats
    outline: Floats


def particle_document(sampled: "SampledProblem", particles: "Particles") -> "Document":
    """The keys ``method`` and ``particles``, for the last evaluation. **Collective**."""
    problem = sampled.problem
    names = ["total", *(name for name, value in problem.parts.items() if value != 0.0 and name != "parameters")]
    from_file = particles.file is not None
    return {
        "method": "particles",
        "particles": {
            "count": problem.count,
            "sampling": "file" if from_file else particles.sampling,
            "seed": None if from_file else particles.seed,
            "stepping": particles.method,
            "level": LEVEL,
            "interval": {name: problem.interval(name, LEVEL) for name in names},
            "outside": problem.outside,
            "at": _costs_at_times(problem),
        },
    }


def _costs_at_times(problem: "ParticleProblem") -> list["Document"]:
    """The costs at given times without their weights, with half widths of confidence intervals. Collective."""
    from eulerian.base.parallel import sum_all
    from eulerian.particles.statistics import half_widths

    found, sample, readout = [], problem.sample, problem.split(problem.theta)[1]
    for cost in problem.met_ends.costs[1:]:
        paid = problem.states.values(cost, readout)
        value = cost.constant + float(sum_all(problem.comm, np.array([sample.weights @ paid]))[0])
        width = float(half_widths(sample, paid[:, None], problem.n_labels, problem.comm, LEVEL)[0])
        time = cost.at.layer * problem.horizon / problem.n_layers
        found.append({"time": time, "weight": cost.at.weight, "value": value, "interval": width})
    return found


def particle_table(document: "Document") -> str:
    """Half widths of the confidence intervals, and how many particles left the domain."""
    found = document["particles"]
    widths = ", ".join(f"{name} ± {width:.2g}" for name, width in found["interval"].items())
    lines = [f"{found['count']} particles, {100 * found['level']:.0f} % confidence intervals: {widths}"]
    for cost in found["at"]:
        part = f"weight {cost['weight']:g}" if cost["weight"] > 0.0 else "held out: no part of J"
        lines.append(f"cost at t = {cost['time']:.6g}: {cost['value']:.6g} ± {cost['interval']:.2g} ({part})")
    fresh = found.get("fresh")
    if fresh:
        lines.append(f"J on particles that were not trained on: {fresh['total']:.8g} ± {fresh['interval']:.2g}")
    if found["outside"] > 0.0:
        lines.append(f"{100 * found['outside']:.3g} % of the mass ends outside the domain: particles feel no walls")
    return "\n".join(lines)


def save_paths(run: "RunFolder", sampled: "SampledProblem", theta: Floats) -> None:
    """Save the paths of some particles for the figure. **Collective**.

    Args:
        run: the folder.
        sampled: the particles.
        theta: (L, p).
    """
    from eulerian.base.parallel import gather_rows, on_root  # starts MPI, which no figure needs

    problem, comm, sample = sampled.problem, sampled.problem.comm, sampled.problem.sample
    # Every stride-th particle of the whole sample: the same ones on any number of ranks.
    first = sum(comm.allgather(len(sample.x))[: comm.rank])
    stride = -(-problem.count // _SHOWN)
    chosen = np.flatnonzero((first + np.arange(len(sample.x))) % stride == 0)
    labels, weights = sample.labels[chosen], sample.weights[chosen]
    positions = problem.push(theta, np.ascontiguousarray(sample.x[chosen]), labels, _TIMES)
    gathered = [gather_rows(comm, rows) for rows in (np.ascontiguousarray(positions.swapaxes(0, 1)), labels, weights)]

    def save() -> None:
        moved, own, shares = (rows for rows in gathered if rows is not None)
        times = np.linspace(0.0, problem.horizon, _TIMES)
        flat = sampled.initial.dim == 2
        outline = Triangles.of_nodes(sampled.initial.vertices).outline() if flat else np.empty((0, 2, 2))
        shown: Any = moved.swapaxes(0, 1).astype(np.float32)  # figures do not see the difference
        ParticlePaths(times, shown, own, stride * shares, problem.box, outline).save(run.path / FIGURES / PARTICLES)

    on_root(comm, save)
