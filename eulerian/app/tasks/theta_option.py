"""``--theta RUN``: θ of a run, or of a file, for a command that evaluates a network."""

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, final

from mpi4py import MPI

import numpy as np

from eulerian.app.build.mixture import count_labels
from eulerian.app.build.network import SampledProblem
from eulerian.app.config import Config
from eulerian.app.config.functionals import KEY as KEY_OF_TERMINAL
from eulerian.app.config.objective import POTENTIAL
from eulerian.app.config.tables import changed_keys
from eulerian.app.config.toml import dump_toml
from eulerian.app.runs.files import THETA, is_run
from eulerian.app.runs.result import Document
from eulerian.app.runs.run_files import Tables, ideal_field, read_run, require_run
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.parallel import on_root, warn
from eulerian.control.control import ControlProblem
from eulerian.fields.theta_file import read_theta

KEY = "--theta"

# Keys of the configuration that θ is read into: what is wrong with them is wrong with the file.
READ_INTO = re.compile(r"field\.theta|objective\.((terminal|at\.\d+)\.(weights|bias|readout)|potential\.readout)")

# Features that are drawn at random: their θ means nothing with others.
_DRAWN = ("random", "residual")

_FREE = ("kind", "layers", "horizon", "label_dependent")
_MESH_SIZES = ("dimension", "cells", "h_min", "h_max")
_OWN_MESH = "The velocities of a free field are for the mesh that they were found on."
_BADLY = {"failed": "failed", "interrupted": "was interrupted"}


@final
@dataclass(frozen=True)
class ThetaSource:
    """Where a command evaluates its network, and where that θ comes from.

    Attributes:
        config: starts at that θ and with its readout, so that the new run's resolved configuration says so too.
        source: as the user named it; None for the θ that the configuration starts from.
        run: the folder whose θ it is; None where the file is in none.
        description: of the run, one sentence.
        warnings: about the run.
        difference: why θ of the run means something else here, or None.
        mesh: sizes of the run's mesh, where θ belongs to its nodes.
    """

    config: Config
    source: Path | None = None
    run: Path | None = None
    description: str = ""
    warnings: tuple[str, ...] = ()
    difference: InputError | None = None
    mesh: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config, source: Path | None, comm: MPI.Comm | None) -> Self:
        """Read θ, its readout, and what the run says about both; nothing is built yet. **Collective**.

        Args:
            config: of the command.
            source: a run folder or an ``.npz`` file; None for the start that the configuration has.
            comm: who shares the work, everybody by default.

        Raises:
            InputError: there is no such θ, the run is not complete, or the readout does not fit.
        """
        if source is None:
            return cls(config)
        comm = MPI.COMM_WORLD if comm is None else comm
        n_labels = count_labels(config.density.initial, comm) if _trains_readout(config) else 0
        return on_root(comm, lambda: cls._read(config, source, n_labels))

    @classmethod
    def _read(cls, config: Config, source: Path, n_labels: int) -> Self:
        """``of`` a source. Not collective."""
        folder = _folder(source)
        if folder is None:
            _, readout = read_theta(source, KEY)
            return cls(_starting_at(config, source, source, readout, n_labels), source)
        if folder.resolve() == config.output.directory.resolve():
            remedy = "Choose another folder with --output."
            raise InputError("is the folder of the new run, too", key=KEY, value=str(source), remedy=remedy)
        try:
            require_run(folder)
            tables, result, _, readout = read_run(folder)
        except InputError as error:
            raise InputError(error.what, key=KEY, value=str(source), remedy=error.remedy) from None
        theirs = tables.get("field", {})
        if result["command"] == "ideal":
            theirs = ideal_field(tables, len((result.get("mass") or {}).get("initial") or [1.0]))
        difference, warnings = _compared(config, tables, theirs, source)
        status = result.get("status")
        if status in _BADLY:
            warnings.append(f"θ is of a run that {_BADLY[status]}: {source}, {result.get('reason')}")
        value = (result.get("objective") or {}).get("total")
        description = f"θ of {source}, a run of `{result['command']}`" + (
            "" if value is None else f" (J = {value:.8g} there)"
        )
        mesh = result.get("mesh") if theirs.get("kind") == "free" else None
        started = _starting_at(config, source, folder / THETA, readout, n_labels)
        return cls(started, source, folder, description, tuple(warnings), difference, mesh or {})

    @property
    def name(self) -> str:
        """θ in words."""
        return "the initial θ" if self.source is None else f"θ of {self.source}"

    @property
    def title(self) -> str:
        """The same above a column of a table."""
        return "at the initial θ" if self.source is None else "at θ of the run" if self.run else "at θ of the file"

    @property
    def document(self) -> Document:
        """The key ``theta`` of ``result.json``: the run and the file that θ was read from, if it was."""
        start = self.config.field.theta
        names = {"run": self.run, "file": start if isinstance(start, Path) else None}
        return {"theta": {name: None if path is None else str(path) for name, path in names.items()}}

    def build[P: (ControlProblem, SampledProblem)](
        self, make: Callable[[Config, MPI.Comm], P], config: Config, comm: MPI.Comm
    ) -> P:
        """The problem that ``make`` gives, which starts at this θ. **Collective**.

        Raises:
            InputError: what ``make`` raises; θ does not fit, or means something else here.
        """
        for text in self.warnings:
            warn(comm, text)
        try:
            problem = make(config, comm)
        except InputError as error:
            if self.source is None or not READ_INTO.fullmatch(error.key or ""):
                raise
            why = "Was the file replaced?"
            if self.difference is not None:
                why = f"Indeed it {self.difference.what}. {self.difference.remedy}"
            remedy = why if self.run else "Compare with the configuration of the run that wrote it."
            raise InputError(error.what, key=KEY, value=str(self.source), remedy=remedy) from None
        if self.difference is not None:
            raise self.difference
        if self.mesh:
            self._require_mesh(problem.describe()["mesh"])
        return problem

    def _require_mesh(self, ours: Mapping[str, Any]) -> None:
        """Raise InputError if θ belongs to the nodes of another mesh than one of these sizes."""
        for name in _MESH_SIZES:
            before, now = self.mesh.get(name), ours[name]
            if before is not None and not math.isclose(before, now, rel_tol=1e-9):
                what = f"holds velocities at the nodes of another mesh: {name} was {before:.6g} there, and is {now:.6g}"
                raise InputError(what, key=KEY, value=str(self.source), remedy=_OWN_MESH)


def _folder(source: Path) -> Path | None:
    """The run folder that a source names, itself or by its file; None where it is a file elsewhere. Not collective."""
    if source.is_dir():
        return source
    if not source.exists():
        raise InputError("there is no such run folder or file", key=KEY, value=str(source), remedy="Name a run folder.")
    if source.suffix != ".npz":
        what, remedy = "is neither a run folder nor an .npz file", "Name a run folder."
        raise InputError(what, key=KEY, value=str(source), remedy=remedy)
    return source.parent if source.name == THETA and is_run(source.parent) else None


def _starting_at(config: Config, source: Path, file: Path, readout: Floats, n_labels: int) -> Config:
    """The configuration with θ of a file and its readout (r,) as the start. Not collective."""
    started = config.with_values("field", theta=file.absolute())
    objective, owners = config.objective, dict(config.in_order_of_readouts)
    if objective.potential_formula is None and objective.potential is not None:
        owners[POTENTIAL] = objective.potential
    trained = [key for key, cost in config.in_order_of_readouts if cost.trains_readout]
    # Affine readouts share what the others leave: of how many axes they are is not known here.
    rest = readout.size - sum(cost.readout_size(key, n_labels, -1) for key, cost in owners.items())
    columns = rest // (n_labels * len(trained)) - 1 if trained else 0
    sizes = [cost.readout_size(key, n_labels, columns) for key, cost in owners.items()]
    if sum(sizes) != readout.size or (trained and columns < 1):
        wants = f"a readout for {n_labels} labels" if trained else str(sum(sizes) or "none")
        where = " and ".join(trained) or KEY_OF_TERMINAL
        what = f"holds {readout.size} numbers of a readout, but {where} trains {wants}"
        remedy = f"Compare with {where} of the run that wrote it."
        raise InputError(what, key=KEY, value=str(source), remedy=remedy)
    if not np.all(np.isfinite(readout)):
        raise InputError("holds a readout that is not finite", key=KEY, value=str(source), remedy="Train it anew.")
    parts = np.split(readout, np.cumsum(sizes)[:-1])
    costs = {key: owners[key].started_at(own, n_labels) for key, own in zip(owners, parts, strict=True)}
    potential = costs.get(POTENTIAL, objective.potential)
    terminal, *at = (costs[key] for key, _ in objective.end_costs)
    return started.with_values("objective", terminal=terminal, at=tuple(at), potential=potential)


def _trains_readout(config: Config) -> bool:
    return any(cost.trains_readout for _, cost in config.objective.end_costs)


def _compared(config: Config, tables: Tables, theirs: Tables, source: Path) -> tuple[InputError | None, list[str]]:
    """Why θ of a run means something else in this configuration, if it does; and what is worth a warning."""
    new, found = tomllib.loads(config.to_toml()), []
    for key, before, after in changed_keys(_meaning(tables, theirs), _meaning(new, new["field"])):
        if before is None:  # an earlier version did not know the key
            continue
        if key in ("field.horizon", "field.object"):
            found.append(f"{key} was {before!r} in {source}, and is {after!r} here: its θ may make another flow")
            continue
        remedy = _OWN_MESH if key.startswith("domain.") and theirs["kind"] == "free" else f"Set {key} as it was there."
        if key == "field.kind" and before == "free":
            given = {name: value for name, value in theirs.items() if name in _FREE}
            inline = ", ".join(dump_toml(given).splitlines())
            remedy = f"Set field={{ {inline} }}: such velocities belong to the nodes of the mesh."
        what = f"is of a run with {key} = {before!r}, and here it is {after!r}"
        return InputError(what, key=KEY, value=str(source), remedy=remedy), found
    return None, found


def _meaning(tables: Tables, field: Tables) -> Tables:
    """The keys that say what θ of a field does: neither where it starts from, nor what its shape says."""
    features, start = field.get("features"), {"theta", "zero_init", "output_scale", "tied", "folder"}
    left_out = start if features in _DRAWN else start | {"seed"}
    found: Tables = {"field": {name: value for name, value in field.items() if name not in left_out}}
    if field.get("kind") == "mlp":
        found["field"].setdefault("max_speed", "none")  # a limit where there was none changes what θ does
    domain = tables.get("domain", {})
    if domain.get("box") and field.get("kind") == "free":
        found["domain"] = {"box": domain["box"], "refine": domain.get("refine", 0)}
    return found
