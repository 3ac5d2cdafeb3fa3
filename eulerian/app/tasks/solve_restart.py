"""The densities that an earlier forward solve has saved, and whether it may be continued. All is **collective**."""

import json
import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, final

from mpi4py import MPI

import numpy as np

from eulerian.app.config import Config
from eulerian.app.config.field import IDEAL
from eulerian.app.config.tables import changed_keys
from eulerian.app.runs.files import CHECKPOINT, CONFIG, DENSITIES, GAP, HISTORY, RESULT, is_run
from eulerian.app.runs.solve_checkpoint import SolveCheckpoint
from eulerian.app.runs.solve_checkpoint_file import Header, read_header
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.parallel import on_root
from eulerian.control.control import ControlProblem
from eulerian.mesh.cell_order import digest
from eulerian.transport.observer import SweepState

# Densities and parameters that differ by less than this, relative to the largest, differ by rounding.
_ROUNDING = 1e-9

# What the flow and its costs do not depend on. Files are compared by their contents, not by their names.
_HARMLESS = ("output.", "optimiser.", "particles.", "solver.memory", "solver.disk")
_ANEW = "Run it anew with --overwrite, or undo the change"


@final
class EarlierSolve:
    """The densities of an earlier solve, those that can be used.

    Args:
        folder: of its densities.
        headers: of the densities, by time steps done; none where nothing can be used.
        damaged: why files are left out.

    Attributes:
        theta: of the solve; set by ``fit``, if there are headers.
        config: of the solve to come.
    """

    def __init__(self, folder: Path, headers: dict[int, Header], damaged: list[str], config: Config) -> None:
        self.folder, self.headers, self.damaged, self.config = folder, headers, damaged, config
        self.theta: Floats | None = None
        self._store: SolveCheckpoint | None = None

    @classmethod
    def to_resume(cls, comm: MPI.Comm, config: Config) -> Self:
        """Of the run that is in ``output.directory``; nothing is changed there.

        Raises:
            InputError: there is none, or it is another command's or configuration's.
        """
        run = config.output.directory

        def look() -> tuple[dict[int, Header], list[str]]:
            if not is_run(run):
                raise InputError("holds no run to go on with", key="--resume", value=str(run), remedy="Leave it out.")
            _require_solve(run)
            found = _look(run / CHECKPOINT)
            _require_same(next(iter(found[0].values())).config if found[0] else _text_of(run / CONFIG), config)
            return found

        headers, damaged = on_root(comm, look)
        return cls(run / CHECKPOINT, headers, damaged, config)

    @classmethod
    def to_restart(cls, comm: MPI.Comm, config: Config, run: Path, at: float | None) -> Self:
        """Of another run, up to a time.

        Raises:
            InputError: there is none, it is of another configuration, or nothing of it can be used.
        """

        def look() -> tuple[dict[int, Header], list[str]]:
            if not is_run(run):
                raise InputError("is no run folder", key="--restart", value=str(run))
            if run.resolve() == config.output.directory.resolve():
                remedy = "Choose another folder with --output, or use --resume"
                raise InputError("is the folder of the new run, too", key="--restart", value=str(run), remedy=remedy)
            if at is not None and not (math.isfinite(at) and at >= 0.0):
                raise InputError("must be a time from 0 on", key="--at", value=at)
            headers, damaged = _look(run / CHECKPOINT)
            if not headers:
                why = f" ({damaged[0]})" if damaged else ""
                raise InputError(f"holds no densities to start from{why}", key="--restart", value=str(run))
            _require_same(headers[0].config, config)
            latest = math.inf if at is None else at + _ROUNDING * headers[0].horizon
            return {step: header for step, header in headers.items() if header.time <= latest}, damaged

        headers, damaged = on_root(comm, look)
        return cls(run / CHECKPOINT, headers, damaged, config)

    @property
    def steps(self) -> tuple[int, ...] | None:
        """Time steps of each layer, or None where nothing can be used."""
        return self.headers[0].steps if self.headers else None

    def fit(self, problem: ControlProblem) -> None:
        """Check the densities against the problem that was built; then they can be read.

        Raises:
            InputError: they are of another mesh, other initial densities or other parameters.
        """
        self._store = SolveCheckpoint(self.folder, problem)
        if not self.headers:
            return
        first, space = self.headers[0], problem.density_space
        if first.mesh != self._store.mesh:
            key = "domain" if self.config.domain.file is None else "domain.file"
            raise InputError("is another mesh than that of the earlier solve", key=key, remedy=_ANEW)
        if first.labels != space.n_labels:
            what = f"has {space.n_labels} labels, and the earlier solve had {first.labels}"
            raise InputError(what, key="density.initial", remedy=_ANEW)
        try:
            self.theta, start = self._store.theta(first), self._store.read(first)
            if digest(self.theta) != first.theta:
                raise InputError("θ is not that of the other files", key=str(self.folder / first.name))
        except InputError as error:  # without the first file nothing else can be trusted
            self.damaged.append(str(error))
            self.headers.clear()
            return
        self._require_theta(problem.initial_theta)
        _require_start(problem, start)

    def state(self, step: int) -> SweepState | None:
        """The state after so many time steps; None if it was not saved, or is damaged."""
        if step not in self.headers:
            return None
        assert self._store is not None, "fit comes first"
        try:
            return self._store.read(self.headers[step])
        except InputError as error:
            self.damaged.append(str(error))
            del self.headers[step]
            return None

    def _require_theta(self, theta: Floats) -> None:
        if self.config.field.theta == IDEAL:  # solved for, up to a tolerance
            return
        assert self.theta is not None
        if not np.allclose(theta, self.theta, rtol=_ROUNDING, atol=_ROUNDING * float(np.max(np.abs(theta), initial=0))):
            raise InputError("are other parameters than those of the earlier solve", key="field.theta", remedy=_ANEW)


def _look(folder: Path) -> tuple[dict[int, Header], list[str]]:
    """The headers of a folder by steps, and what is wrong with other files. Not collective."""
    headers: dict[int, Header] = {}
    damaged: list[str] = []
    for path in sorted(folder.glob(DENSITIES)):
        try:
            header = read_header(path)
            first = headers.get(0, header)
            if header.name != path.name or replace(header, step=0, time=0.0) != replace(first, step=0, time=0.0):
                raise InputError("does not belong to the other files of the folder", key=str(path))
            headers[header.step] = header
        except InputError as error:
            damaged.append(str(error))
    return (headers if 0 in headers else {}), damaged


def _require_solve(run: Path) -> None:
    """Raise InputError if a run folder is another command's."""
    try:
        command: Any = json.loads(_text_of(run / RESULT) or '{"command": "solve"}')["command"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot be read ({error})", key=str(run / RESULT)) from error
    if command != "solve" or (run / HISTORY).exists() or (run / GAP).exists():
        what = "holds a run of another command than solve"
        raise InputError(what, key="--resume", value=str(run), remedy="Choose another folder with --output.")


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", key=str(path)) from error


def _require_same(text: str, config: Config) -> None:
    """Raise InputError naming the first key in which a configuration differs from that of the earlier solve."""
    try:
        old, new = tomllib.loads(text), tomllib.loads(config.to_toml())
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"its configuration cannot be read ({error})", key="the earlier solve") from error
    if not old:
        return
    ideal = config.field.theta == IDEAL

    def harmless(key: str) -> bool:
        return (
            key.startswith(_HARMLESS)
            or (key.startswith("ideal.") and not ideal)
            or key == "domain.file"
            or (key.startswith("density.initial.") and key.endswith(".file"))
        )

    for key, before, after in changed_keys(old, new, harmless):
        both_files = isinstance(before, str) and isinstance(after, str) and IDEAL not in (before, after)
        if key != "field.theta" or not both_files:
            was = "was not given" if before is None else f"was {before!r}"
            raise InputError(f"{was} in the earlier solve", key=key, value=after, remedy=_ANEW)


def _require_start(problem: ControlProblem, start: SweepState) -> None:
    """Raise InputError unless initial densities are those of the problem. Collective."""
    layouts, rho = [stepper.layout for stepper in problem.trajectory.steppers], problem.initial_density
    n, off, largest = problem.density_space.n_owned, 0.0, 0.0
    for layout, group, found in zip(layouts, problem.groups, start.densities, strict=False):
        # To the layout's nodal values and back, as the saved ones went: the difference is rounding only.
        ours = layout.unpack_nodes(layout.pack(np.ascontiguousarray(rho[:n, :, group])))
        off = max(off, float(np.max(np.abs(ours - layout.unpack_nodes(found)), initial=0.0)))
        largest = max(largest, float(np.max(np.abs(ours), initial=0.0)))
    comm = problem.comm
    if not comm.allreduce(off, MPI.MAX) <= _ROUNDING * comm.allreduce(largest, MPI.MAX):
        raise InputError("are other densities than those of the earlier solve", key="density.initial", remedy=_ANEW)
