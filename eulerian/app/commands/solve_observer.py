"""What a forward solve leaves on its way: densities to go on from, ParaView files and the data of the figures."""

import time
from collections.abc import Iterable
from typing import final

import numpy as np

from eulerian.app.commands.command import Session
from eulerian.app.commands.solve_restart import EarlierSolve
from eulerian.app.runs.cell_nodes import CellNodes
from eulerian.app.runs.densities import draw_gathered, gathering_of, keep_aims, tell_boundary_mass
from eulerian.app.runs.files import CHECKPOINT
from eulerian.app.runs.paraview import ParaviewWriter
from eulerian.app.runs.snapshots import FIGURE_TIMES
from eulerian.app.runs.solve_checkpoint import SolveCheckpoint
from eulerian.app.runs.solve_checkpoint_file import Header
from eulerian.base.arrays import Floats
from eulerian.base.errors import EulerianError
from eulerian.control.control import ControlProblem
from eulerian.mesh.cell_order import digest
from eulerian.transport.observer import SweepState
from eulerian.transport.time_grid import TimeSteps


@final
class SolveObserver:
    """Goes along with a forward solve (a ``SweepObserver``). All of it is **collective**.

    Densities are kept at the start, at the end of every layer and at the last time step before every snapshot, unless
    ``output.checkpoint_every`` is 0. What an earlier solve has kept is not computed again, but every snapshot is
    written anew from it.

    An output that fails does not end the solve: nothing more is written, and ``finish`` raises the error.

    Args:
        session: with the run folder.
        earlier: what may be gone on from; it fits.

    Attributes:
        theta: where to solve.
        steps: see ``SweepObserver``.
        seconds: see ``SweepObserver``.
    """

    def __init__(self, session: Session[ControlProblem], earlier: EarlierSolve | None = None) -> None:
        problem, output = session.problem, session.config.output
        self._session, self._problem, self._earlier = session, problem, earlier
        self.steps = None if earlier is None else earlier.steps
        self.seconds = 0.0
        known = None if earlier is None else earlier.theta
        self.theta: Floats = problem.initial_theta if known is None else known.reshape(problem.initial_theta.shape)
        nodes = CellNodes(problem.density_space, problem.velocity_space)
        self._paraview, self._gathering = ParaviewWriter(session.run.path, nodes), gathering_of(nodes)
        self._shown = frozenset(np.linspace(0.0, problem.horizon, output.densities).tolist())
        self._drawn = frozenset(np.linspace(0.0, problem.horizon, FIGURE_TIMES).tolist() if output.figures else ())
        self._store = SolveCheckpoint(session.run.path / CHECKPOINT, problem) if output.checkpoint_every else None
        self._due: dict[int, list[float]] = {}
        self._kept: set[int] = set()
        self._failure: EulerianError | None = None

    def begin(self, steps: TimeSteps) -> Iterable[int]:
        """See ``SweepObserver``."""
        for t in sorted(self._shown | self._drawn):
            self._due.setdefault(steps.mark(t).step, []).append(t)
        if self._earlier is None:
            return self._due
        if self._store is not None and self._earlier.folder == self._store.folder:
            self._kept = set(self._earlier.headers)
        return {*self._due, *self._earlier.headers}

    def restore(self, step: int) -> SweepState | None:
        """See ``SweepObserver``."""
        if self._earlier is None or step not in self._earlier.headers:
            return None
        started = time.perf_counter()
        position = self._earlier.position(step)
        if position is None:
            self._kept.discard(step)
            self._session.progress.say(f"Computed again: {self._earlier.damaged[-1]}")
        self.seconds += time.perf_counter() - started
        return position

    def at(self, state: SweepState) -> None:
        """See ``SweepObserver``."""
        started = time.perf_counter()
        if self._failure is None:
            try:
                self._keep(state)
                for t in self._due.get(state.step, ()):
                    self._show(*self._problem.sample(t, state.densities))
            except EulerianError as error:  # the same on all ranks
                self._failure = error
        self.seconds += time.perf_counter() - started

    def finish(self) -> None:
        """Draw the figures.

        Raises:
            EulerianError: this or some earlier output failed.
        """
        if self._failure is not None:
            raise self._failure
        tell_boundary_mass(self._session.run, self._problem, self._session.progress)
        if self._session.run.figures:
            terms = self._session.config.density.initial
            keep_aims(self._session.run, self._problem, self._gathering.nodes, self.theta, terms)
        draw_gathered(self._session.run, self._gathering)

    def _keep(self, state: SweepState) -> None:
        if self._store is None or state.step in self._kept:
            return
        space, steps = self._problem.density_space, self._problem.sweep.steps
        header = Header(
            state.step,
            steps.time(state.step),
            steps.counts,
            self._problem.horizon,
            space.mesh.topology.index_map(space.dim).size_global,
            space.degree,
            space.n_labels,
            self._store.mesh,
            digest(self.theta),
            self._session.config.to_toml(),
        )
        self._store.write(header, state, {"theta": self.theta} if state.step == 0 else None)

    def _show(self, t: float, rho: Floats, v: Floats) -> None:
        if t in self._shown:
            self._paraview.write(t, rho, v)
        if t in self._drawn:
            self._gathering.add(t, rho, v)
