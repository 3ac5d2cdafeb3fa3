"""What `eulerian compare` leaves: a table for the terminal, and what its figures are drawn from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from eulerian.app.runs.files import FIGURES, METHOD_PAIR, ArrayRecord
from eulerian.base.arrays import Floats
from eulerian.objective.parts import part_names

if TYPE_CHECKING:
    from eulerian.analysis.pushed_density import PushedDensity  # with a good part of SciPy
    from eulerian.analysis.wasserstein import LabelledPoints
    from eulerian.app.runs.folder import RunFolder
    from eulerian.control.control import ControlProblem

_SHOWN = 50_000  # particles that are saved for a picture
_NAME, _CELL = 38, 16  # widths of a table's columns
_METHODS = ("mesh", "particles")


@final
@dataclass(frozen=True)
class ComparisonData(ArrayRecord):
    """Both methods at T, in single precision.

    Attributes:
        points: (N, m, dim) nodes of all cells (see ``CellNodes``); no cells in three dimensions.
        density: (N, m, K) on the mesh.
        pushed: (N, m, K) along characteristics.
        x: (n, dim) particles.
        labels: (n,) theirs.
        weights: (n,) theirs.
        names: (q,) of J and its parts that are not zero throughout.
        mesh: (q,) their values on the mesh.
        particles: (q,) by particles.
        interval: (q,) half widths of confidence intervals of the latter; NaN if unknown.
    """

    CONTENTS = "comparison"

    points: Floats
    density: Floats
    pushed: Floats
    x: Floats
    labels: NDArray[np.integer]
    weights: Floats
    names: NDArray[np.str_]
    mesh: Floats
    particles: Floats
    interval: Floats

    @property
    def n_labels(self) -> int:
        """Number K of labels."""
        return int(self.density.shape[2])


def save_comparison(
    run: "RunFolder",
    problem: "ControlProblem",
    pushed: "PushedDensity",
    points: "LabelledPoints",
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
    from eulerian.app.runs.cell_nodes import CellNodes  # starts MPI, which no figure needs
    from eulerian.base.parallel import gather_rows, on_root

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


def comparison_table(document: Mapping[str, Any]) -> str:
    """What ``eulerian compare`` found, from the keys ``objective`` and ``compare`` of its document."""
    mesh, found = document["objective"], document["compare"]
    lines = [_line("", "mesh", "particles", "± 95 %")]
    for name in ("total", *part_names()):
        values = (mesh[name], found["parts"][name])
        if name == "total" or any(values):
            title = "J" if name == "total" else f"  {name}"
            lines.append(_line(title, *(f"{value:.8g}" for value in values), _short(found["interval"][name])))
    lines.append(
        _line("L¹ distance to the exact density", *(_short(found[key]) for key in ("l1_density", "l1_kernel_estimate")))
    )
    for name, title in (("value", "J"), ("value_and_gradient", "J and ∇J")):
        lines.append(_line(f"CPU seconds of {title}", *(_short(found["cpu_seconds"][key][name]) for key in _METHODS)))
    lines += ["", _gradient_sentence(found), _transport_sentence(found)]
    if found["outside"]:
        lines.append(f"Particles feel no walls: {_short(found['outside'])} of their weight ends outside the domain.")
    return "\n".join(lines)


def _line(name: str, *cells: str) -> str:
    return (f"{name:{_NAME}}" + "".join(f"{cell:>{_CELL}}" for cell in cells)).rstrip()


def _short(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3g}"


def _gradient_sentence(found: Mapping[str, Any]) -> str:
    return (
        f"Gradients: the two differ by {_short(found.get('gradient_initial_error'))} of the gradient at the start of a "
        f"training. Relative to that of the {found['gradient_reference']} here it is "
        f"{_short(found['gradient_relative_error'])}, where {_short(found['gradient_sampling_error'])} is to be "
        "expected from so many particles."
    )


def _transport_sentence(found: Mapping[str, Any]) -> str:
    if found["wasserstein_note"]:
        return str(found["wasserstein_note"])
    return (
        f"Wasserstein distance W₂ between ρ(T) of the mesh and {found['wasserstein_points']} particles: "
        f"{_short(found['wasserstein2'])} (of as many random draws from it: {_short(found['wasserstein2_floor'])}). "
        f"Sliced W₂: {_short(found['sliced_wasserstein2'])}."
    )
