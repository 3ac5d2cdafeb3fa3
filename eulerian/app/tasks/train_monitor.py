"""What happens after every iteration of a training: history, checkpoints, progress, and an early end by a signal."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

from eulerian.app.build.network import SampledProblem
from eulerian.app.runs.result import Outcome, describe, history_row
from eulerian.app.runs.train_checkpoint import Checkpoint
from eulerian.app.tasks.network_run import layers_and_readout
from eulerian.app.tasks.task import RunContext, interrupted_early
from eulerian.base import signals
from eulerian.base.arrays import Floats
from eulerian.base.parallel import on_root
from eulerian.control.control import ControlProblem
from eulerian.fields.frame import Frame
from eulerian.optimise import Record, TrainingState

type Start = tuple[float, Mapping[str, float]]


@final
@dataclass
class TrainMonitor:
    """Called once per iteration. **Collective**.

    Attributes:
        context: whose run folder and configuration.
        method: ``densities`` or ``particles``.
        start: J at the very start and its parts.
        state: of the training, and what carries its θ to the context's problem; valid inside of calls.
        observer: called with every record.
        interrupted: the signal that has ended the training, or None.
    """

    context: RunContext[ControlProblem] | RunContext[SampledProblem]
    method: str
    start: Start
    state: Callable[[], tuple[TrainingState, Callable[[Floats], Floats]]]
    observer: Callable[[Record], None]
    interrupted: str | None = None
    _latest: tuple[TrainingState, Callable[[Floats], Floats]] | None = None
    _written: int = -1  # iteration of the checkpoint on disk
    _since: float = field(default_factory=time.monotonic)

    def __call__(self, record: Record) -> bool:
        """Record an iteration; whether the training is to end."""
        run, output = self.context.folder, self.context.config.output
        self.interrupted = signals.asked()
        every = output.checkpoint_iterations

        def keep() -> None:
            self._latest = self.state()
            run.append_history_here(history_row(record))
            late = time.monotonic() - self._since >= output.checkpoint_seconds
            if late or self.interrupted or (every and record.iteration % every == 0):
                self._write()

        on_root(run.comm, keep)
        self.observer(record)
        return self.interrupted is not None

    def finish(self) -> None:
        """Write a checkpoint of the end, so that the training can be continued. **Collective**."""
        if self.context.config.output.checkpoint_every != 0 or self.interrupted:
            on_root(self.context.folder.comm, self._write)

    def last_words(self, name: str) -> str:
        """Write a checkpoint and a result that names it; for rank 0 alone, from another thread. Not collective."""
        if self._latest is None:
            return interrupted_early(self.context.folder, "train", name)
        self._write()
        outcome = self._interrupted_by(name)
        document = describe(outcome, None, self.context.folder.comm.size)
        descent = self._latest[0].descent
        counts = {"evaluations": descent.evaluations, "rejected_evaluations": descent.rejected_evaluations}
        self.context.folder.write_result_here(document | counts)
        return outcome.reason

    def interrupted_outcome(self) -> Outcome:
        """The outcome of a training that a signal has ended; only its best θ is written. **Collective**."""
        name = self.interrupted
        assert name is not None
        return on_root(self.context.folder.comm, lambda: self._interrupted_by(name))

    def _interrupted_by(self, name: str) -> Outcome:
        """Write the best θ; the outcome so far. Not collective."""
        assert self._latest is not None
        state, carry = self._latest
        last, best = state.history[-1], state.descent.current.best
        if best is not None:
            self.context.folder.write_theta_here(*self._layers_and_readout(carry(best.theta)))
        reason = f"interrupted by {name} after iteration {last.iteration}; with --resume it goes on from there"
        return Outcome("train", "interrupted", reason, last.total, last.parts, last.iteration, last.gradient_norm)

    def _write(self) -> None:
        """Write a checkpoint of the last iteration, if there is none yet. Not collective."""
        if self._latest is None:  # a continued run was at its end already
            return
        state, carry = self._latest
        iteration, run = state.history[-1].iteration, self.context.folder
        if iteration == self._written:
            return
        with signals.undisturbed():
            parameters = self._layers_and_readout(carry(state.descent.current.theta))
            config = self.context.config.to_toml()
            Checkpoint(config, self.method, self.start, *parameters, state).write(run.path)
            self._written, self._since = iteration, time.monotonic()

    def _layers_and_readout(self, theta: Floats) -> tuple[Floats, Floats | None, Frame | None]:
        return layers_and_readout(self.context.problem.reduced, theta)


@contextmanager
def monitored[P: (ControlProblem, SampledProblem)](
    context: RunContext[P],
    method: str,
    start: Start,
    state: Callable[[], tuple[TrainingState, Callable[[Floats], Floats]]],
    max_iterations: int,
    levels: int | None = 1,
) -> Iterator[TrainMonitor]:
    """What a training is to call once per iteration, ready for signals. **Collective**.

    Args:
        context: as for ``TrainMonitor``, like all but the last.
        method: on what.
        start: J at the very start.
        state: of the training.
        max_iterations: the most that there can be.
        levels: how many meshes there are, from coarse to fine; None where nobody knows.
    """
    with context.progress.iterations(max_iterations, levels) as observer:
        monitor = TrainMonitor(context, method, start, state, observer)
        with signals.last_words(monitor.last_words, asks=True):
            yield monitor
