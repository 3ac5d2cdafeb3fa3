"""Output during a forward sweep: ParaView files, the data of figures, and densities to continue from."""

import time
from collections.abc import Callable, Iterable
from typing import final

from eulerian.app.runs.cell_nodes import CellNodes
from eulerian.app.runs.densities import DensityWriter, save_targets_and_classes, warn_of_boundary_mass
from eulerian.app.runs.files import CHECKPOINT
from eulerian.app.runs.solve_checkpoint import SolveCheckpoint
from eulerian.app.runs.solve_checkpoint_file import Header
from eulerian.app.tasks.drawing import draw_figures
from eulerian.app.tasks.solve_restart import EarlierSolve
from eulerian.app.tasks.task import RunContext
from eulerian.base.arrays import Floats
from eulerian.base.errors import EulerianError, RejectedEvaluation
from eulerian.control.control import ControlProblem
from eulerian.mesh.cell_order import digest
from eulerian.transport.observer import SweepState
from eulerian.transport.time_grid import TimeSteps


@final
class DensityObserver:
    """Writes densities during a forward sweep (a ``SweepObserver``). All of it is **collective**.

    An output that fails does not end the sweep: nothing more is written, and ``finish`` raises the error.

    Args:
        context: of the run; its problem is the one that is evaluated.
        theta: where.
        checkpoints: save densities to continue from at the start, at the end of every layer and at the last time step
            before every snapshot.
        earlier: the solve to be continued; it fits. What it has is not computed again, but every snapshot is written
            anew from it.
        advance: called with the time steps that are done, and how many there are, but not for what is restored.

    Attributes:
        steps: see ``SweepObserver``.
        seconds: see ``SweepObserver``.
    """

    def __init__(
        self,
        context: RunContext[ControlProblem],
        theta: Floats,
        *,
        checkpoints: bool = False,
        earlier: EarlierSolve | None = None,
        advance: Callable[[int, int], object] = lambda _done, _total: None,
    ) -> None:
        self._context, self._problem, self._theta, self._earlier = context, context.problem, theta, earlier
        self._advance, self._total, self._restored = advance, 0, -1
        self.steps = None if earlier is None else earlier.steps
        self.seconds = 0.0
        space, output = self._problem.density_space, context.config.output
        nodes = CellNodes(space, self._problem.velocity_space)
        self._writer = DensityWriter(context.folder, nodes, self._problem.horizon, output.densities)
        self._store = SolveCheckpoint(context.folder.path / CHECKPOINT, self._problem) if checkpoints else None
        self._due: dict[int, list[float]] = {}  # times of snapshots by the last time step before them
        self._stored: set[int] = set()
        self._failure: EulerianError | None = None

    def evaluate(self) -> float:
        """J(θ), with the outputs of its forward sweep."""
        if self._writer.times or self._store is not None:
            return self._problem.value_observed(self._theta, self)
        return self._problem.value(self._theta)

    def begin(self, steps: TimeSteps) -> Iterable[int]:
        """See ``SweepObserver``."""
        self._total = steps.ends[-1]
        for t in self._writer.times:
            self._due.setdefault(steps.mark(t).step, []).append(t)
        if self._earlier is None:
            return self._due
        if self._store is not None and self._earlier.folder == self._store.folder:
            self._stored = set(self._earlier.headers)
        return {*self._due, *self._earlier.headers}

    def restore(self, step: int) -> SweepState | None:
        """See ``SweepObserver``."""
        if self._earlier is None or step not in self._earlier.headers:
            return None
        started = time.perf_counter()
        state = self._earlier.state(step)
        if state is None:
            self._stored.discard(step)
            self._context.progress.say(f"Computed again: {self._earlier.damaged[-1]}")
        else:
            self._restored = step
        self.seconds += time.perf_counter() - started
        return state

    def at(self, state: SweepState) -> None:
        """See ``SweepObserver``."""
        started = time.perf_counter()
        if self._failure is None:
            try:
                self._store_state(state)
                for t in self._due.get(state.step, ()):
                    self._writer.write(*self._problem.sample(t, state.densities))
            except EulerianError as error:  # the same on all ranks; the sweep itself may still end well
                self._failure = error
        if state.step != self._restored:
            self._advance(state.step, self._total)
        self.seconds += time.perf_counter() - started

    def finish(self) -> None:
        """Draw the figures of an evaluation that has come to its end.

        Raises:
            RejectedEvaluation: J could not be evaluated.
            EulerianError: this or some earlier output failed.
        """
        if not self._problem.parts:
            raise RejectedEvaluation(self._problem.rejection or "the evaluation failed")
        if self._failure is not None:
            raise self._failure
        context = self._context
        warn_of_boundary_mass(context.folder, self._problem, context.progress)
        if context.folder.figures:
            terms = context.config.density.initial
            save_targets_and_classes(context.folder, self._problem, self._writer.nodes, self._theta, terms)
        self._writer.finish()
        draw_figures(context.folder, without=("history",))

    def _store_state(self, state: SweepState) -> None:
        if self._store is None or state.step in self._stored:
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
            digest(self._theta),
            self._context.config.to_toml(),
        )
        self._store.write(header, state, {"theta": self._theta} if state.step == 0 else None)
