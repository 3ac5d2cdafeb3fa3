"""Keeps what the figures of `eulerian compare` are drawn from."""

from collections.abc import Mapping

import numpy as np

from eulerian.analysis.pushed_density import PushedDensity
from eulerian.analysis.wasserstein import LabelledPoints
from eulerian.app.runs.cell_nodes import CellNodes
from eulerian.app.runs.comparison_data import ComparisonData
from eulerian.app.runs.files import FIGURES, METHOD_PAIR
from eulerian.app.runs.folder import RunFolder
from eulerian.base.parallel import gather_rows, on_root
from eulerian.control.control import ControlProblem

_SHOWN = 50_000  # particles that are kept for a picture


def keep_comparison(
    run: RunFolder,
    problem: ControlProblem,
    pushed: PushedDensity,
    points: LabelledPoints,
    parts: Mapping[str, tuple[float, float, float]],
) -> None:
    """Write what ``draw_run`` draws a comparison from. **Collective**.

    Args:
        run: the folder.
        problem: evaluated where both methods are compared.
        pushed: the density along characteristics.
        points: all particles at T.
        parts: J and its parts by name: mesh, particles, half width of the confidence interval.

    Raises:
        ComputationError: a file could not be written.
    """
    nodes = CellNodes(problem.density_space, problem.velocity_space)
    x, rho = nodes.points(), problem.final_density
    if problem.density_space.dim == 3:  # there is no picture of it
        x, density = x[:0], nodes.density(rho)[:0]
        exact = density
    else:
        density = nodes.density(rho)
        exact = pushed.values(x.reshape(-1, x.shape[2])).reshape(density.shape)
    gathered = [
        gather_rows(run.comm, values.astype(kind))
        for values, kind in ((x, float), (density, np.float32), (exact, np.float32))
    ]
    shown = {name: row for name, row in parts.items() if name == "total" or any(row)}
    few = points.thinned(_SHOWN, 0)

    def save() -> None:
        places, on_mesh, along = (values for values in gathered if values is not None)
        pair = ComparisonData(
            places,
            on_mesh,
            along,
            few.x.astype(np.float32),
            few.labels.astype(np.int32),
            few.weights * (points.weights.sum() / few.weights.sum()),
            np.array(list(shown)),
            *np.array(list(shown.values())).T,
        )
        pair.save(run.path / FIGURES / METHOD_PAIR)

    on_root(run.comm, save)
