"""What a run on particles leaves: its keys in ``result.json``, its table, and the paths that its figure shows."""

from typing import Any

from eulerian import parallel
from eulerian.arrays import Floats

# isort: split
import numpy as np

from eulerian.builder import Swarm
from eulerian.config import Particles
from eulerian.output.files import FIGURES, PARTICLES
from eulerian.output.result import Document
from eulerian.output.run_folder import RunFolder
from eulerian.output.swarm_paths import SwarmPaths
from eulerian.output.triangle_grid import TriangleGrid

_SHOWN = 4000  # particles whose paths are kept
_TIMES = 41
LEVEL = 0.95


def swarm_document(swarm: Swarm, particles: Particles) -> Document:
    """The keys ``method`` and ``particles``, for the last evaluation. **Collective**."""
    problem = swarm.problem
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
        },
    }


def swarm_table(document: Document) -> str:
    """Half widths of the confidence intervals, and how many particles left the domain."""
    found = document["particles"]
    widths = ", ".join(f"{name} ± {width:.2g}" for name, width in found["interval"].items())
    lines = [f"{found['count']} particles, {100 * found['level']:.0f} % confidence intervals: {widths}"]
    fresh = found.get("fresh")
    if fresh:
        lines.append(f"J on particles that were not trained on: {fresh['total']:.8g} ± {fresh['interval']:.2g}")
    if found["outside"] > 0.0:
        lines.append(f"{100 * found['outside']:.3g} % of the mass ends outside the domain: particles feel no walls")
    return "\n".join(lines)


def keep_paths(run: RunFolder, swarm: Swarm, theta: Floats) -> None:
    """Keep the paths of some particles for the figure. **Collective**.

    Args:
        run: the folder.
        swarm: the particles.
        theta: (L, p).
    """
    problem, cloud = swarm.problem, swarm.problem.cloud
    first = sum(problem.comm.allgather(len(cloud.x))[: problem.comm.rank])
    stride = -(-problem.count // _SHOWN)
    chosen = np.flatnonzero((first + np.arange(len(cloud.x))) % stride == 0)
    labels, weights = cloud.labels[chosen], cloud.weights[chosen]
    positions = problem.push(theta, np.ascontiguousarray(cloud.x[chosen]), labels, _TIMES)
    gathered = [
        parallel.gather_rows(problem.comm, rows)
        for rows in (np.ascontiguousarray(positions.swapaxes(0, 1)), labels, weights)
    ]

    def save() -> None:
        moved, own, shares = gathered
        assert moved is not None
        assert own is not None
        assert shares is not None
        times = np.linspace(0.0, problem.horizon, _TIMES)
        flat = swarm.initial.dim == 2
        outline = TriangleGrid.build(swarm.initial.vertices).outline() if flat else np.empty((0, 2, 2))
        kept: Any = moved.swapaxes(0, 1).astype(np.float32)  # figures do not see the difference
        SwarmPaths(times, kept, own, stride * shares, problem.box, outline).save(run.path / FIGURES / PARTICLES)

    parallel.on_root(problem.comm, save)
