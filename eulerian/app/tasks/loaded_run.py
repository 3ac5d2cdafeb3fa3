"""The flow of a run folder, ready to be used again: on densities, and on points anywhere."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

from mpi4py import MPI

import numpy as np

from eulerian.analysis.flow import Flow
from eulerian.app.build.mixture import class_names, count_labels
from eulerian.app.build.network import build
from eulerian.app.config import Config, SamplesTerm, parse_config
from eulerian.app.runs.columns import read_columns
from eulerian.app.runs.files import HISTORY, HISTORY_COLUMNS, LATER_COLUMNS, THETA
from eulerian.app.runs.run_files import Tables, ideal_field, read_mesh, read_run, require_run
from eulerian.base.arrays import Floats
from eulerian.base.errors import EulerianWarning, InputError
from eulerian.base.parallel import agreed, on_root
from eulerian.control.control import ControlProblem
from eulerian.fields.frame import unwrapped
from eulerian.fields.piecewise import PiecewiseField
from eulerian.optimise.result import html_table
from eulerian.particles.flow import Scheme
from eulerian.transport.nodal_interpolant import anywhere

AXES = ("x", "y", "z")
LABEL = "label"


@final
@dataclass(frozen=True, repr=False)
class LoadedRun:
    """A run's problem with the parameters that the run ended with.

    Attributes:
        folder: of the run.
        config: of the run; of an ideal run with the free field that holds its solution.
        result: ``result.json``.
        problem: built anew.
        theta: for the problem's methods: (L, p), (1, p) of tied layers, or flat with a trained readout.
        layers: (L, p), of the field.
        readout: (r,) of the terminal loss, trained; empty without one.
        classes: names of the labels, K of them.
    """

    folder: Path
    config: Config
    result: dict[str, Any]
    problem: ControlProblem
    theta: Floats
    layers: Floats
    readout: Floats
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        total = self.result.get("objective", {}).get("total")
        value = "" if total is None else f", J = {total:.8g}"
        return f"LoadedRun({str(self.folder)!r}: {self.result['command']}, {self.result.get('status')}{value})"

    def _repr_html_(self) -> str:
        """A small table for notebooks: what was run, how it ended, and J with its parts."""
        objective = {name: f"{value:.6g}" for name, value in self.result.get("objective", {}).items() if value}
        rows = {"run": str(self.folder), "command": self.result["command"], **objective}
        return html_table(rows | {"status": f"{self.result.get('status')}: {self.result.get('reason')}"})

    @cached_property
    def flow(self) -> Flow:
        """The flow of the run's θ: points and densities through it. **Collective** the first time."""
        return Flow(self.problem, self.theta)

    @cached_property
    def history(self) -> dict[str, Floats]:
        """``history.csv`` as columns by name, each of one number per iteration; empty ones without one."""
        return read_columns(self.folder / HISTORY, HISTORY_COLUMNS, "history", absent=LATER_COLUMNS)

    @property
    def samples_term(self) -> SamplesTerm | None:
        """What names the columns of the run's points."""
        return self.config.density.samples

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the coordinates: those of the samples' columns, else x, y, z."""
        dim, term = self.problem.density_space.dim, self.samples_term
        if term is None or not all(isinstance(column, str) for column in term.columns):
            return AXES[:dim]
        return tuple(map(str, term.columns))

    @property
    def label_name(self) -> str:
        """Name of the column of labels: that of the samples, else ``label``."""
        term = self.samples_term
        return term.label_column if term is not None and isinstance(term.label_column, str) else LABEL

    @property
    def scheme(self) -> Scheme:
        """How points are moved: as ``[particles]`` of the configuration says. Collective."""
        particles = self.config.particles
        return Scheme(
            self.config.field.horizon,
            particles.method,
            steps_per_layer=particles.steps_per_layer,
            tolerance=particles.tolerance,
            length=0.5 * self.problem.extent,
        )

    def field_anywhere(self, *, with_density: bool = True) -> PiecewiseField:
        """The field where no nodes are. Collective.

        Args:
            with_density: its Jacobian in space is wanted too, which densities along paths need.

        Raises:
            InputError: the field has no Jacobian, but one is wanted.
        """
        layered = anywhere(self.problem.layered, self.problem.velocity_space)
        if with_density and not layered.has("jacobian"):
            raise InputError(
                "the field has no method jacobian, without which no density follows its points",
                key="field.object",
                value=type(unwrapped(layered.field)).__name__,
                remedy="See eulerian.fields.VectorField.",
            )
        return layered


def load(run: str | Path, comm: MPI.Comm = MPI.COMM_WORLD, *, python: bool = True) -> LoadedRun:
    """Read a run folder back: its configuration, problem, parameters, result and history. **Collective**.

    Args:
        run: the folder of a run of ``train``, ``solve``, ``verify`` or ``ideal``.
        comm: who shares the work.
        python: the run's field may be Python code of the user's.

    Raises:
        InputError: it is no run folder, or no complete one, or its parameters do not fit its configuration.
    """
    return load_trained(Path(run), comm, python=python)


def load_trained(folder: Path, comm: MPI.Comm, overrides: tuple[str, ...] = (), *, python: bool = True) -> LoadedRun:
    """Read a run folder and build its problem. **Collective**.

    Args:
        folder: of a run of ``train``, ``solve``, ``verify`` or ``ideal``.
        comm: who shares the work.
        overrides: ``KEY=VALUE`` for keys of ``[particles]``.
        python: the run's field may be Python code of the user's.

    Raises:
        InputError: it is no run folder, or no complete one, or its parameters do not fit its configuration.
    """
    for override in overrides:
        if not override.startswith("particles."):
            remedy = "The flow is that of the run; particles.method, .steps_per_layer and .tolerance may differ."
            raise InputError("only keys of particles can be set here", key="--set", value=override, remedy=remedy)
    on_root(comm, lambda: require_run(folder))
    tables, result, rows, readout = on_root(comm, lambda: read_run(folder))
    base = folder.absolute()
    config = on_root(comm, lambda: parse_config(tables, base, overrides, python=python))
    if result["command"] == "ideal":
        n_labels = count_labels(config.density.initial, comm)
        config = on_root(comm, lambda: parse_config(_idealised(tables, n_labels), base, overrides))
    mesh = on_root(comm, lambda: read_mesh(folder))
    with warnings.catch_warnings(action="ignore", category=EulerianWarning):  # the run has given them
        problem = build(config, comm, theta_file=folder / THETA, mesh=mesh)
    with agreed(comm):
        rows = _fitting(rows, problem, folder)
        if readout.size != problem.n_params - rows.size:
            expected = f"{problem.n_params - rows.size} numbers"
            what, remedy = f"the readout must have {expected}", "Was the file replaced?"
            raise InputError(what, key=str(folder / THETA), value=readout.size, remedy=remedy)
    theta = np.concatenate([rows.ravel(), readout]) if readout.size else rows
    classes = class_names(config.density.initial, problem.density_space.n_labels, comm)
    layers, own = problem.split(theta)[0], problem.terminal_readout(theta)
    return LoadedRun(folder, config, result, problem, theta, layers, own, classes)


def _idealised(tables: Tables, n_labels: int) -> Tables:
    """The configuration with the field that ``ideal`` writes, and a terminal functional that every problem can have."""
    objective = dict(tables["objective"])
    if objective["terminal"]["kind"] == "fixed":
        objective["terminal"] = {**objective["terminal"], "kind": "l2"}
    return {**tables, "field": ideal_field(tables, n_labels), "objective": objective}


def _fitting(rows: Floats, problem: ControlProblem, folder: Path) -> Floats:
    """θ in the problem's shape; of tied layers, which a run writes L times, one row is taken."""
    if rows.shape == (problem.n_layers, problem.layer_shape[1]):
        rows = rows[: problem.layer_shape[0]]
    if rows.shape != problem.layer_shape or not np.all(np.isfinite(rows)):
        raise InputError(
            f"does not fit the run's configuration, which needs finite numbers of shape {problem.layer_shape}",
            key=str(folder / THETA),
            value=rows.shape,
            remedy="Was one of them replaced?",
        )
    return rows
