"""Training in stages, each a descent on a mesh of its own: what levels and adapted meshes share."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

from eulerian.base.arrays import Floats
from eulerian.control.control import ControlProblem
from eulerian.mesh.simplices import Simplices
from eulerian.optimise.box import Box, started_inside, stationarity
from eulerian.optimise.descent import Descent
from eulerian.optimise.lbfgs_pairs import Curvature
from eulerian.optimise.level_end import LevelEnd
from eulerian.optimise.replay import DescentState
from eulerian.optimise.result import History, LevelReport, OptimiseResult, Record
from eulerian.optimise.settings import Settings
from eulerian.optimise.transfer import Transfer

type Say = Callable[[str], None]

# The reason of a stage whose mesh has told all it knows; and with which statuses its descent may have ended there.
_ENOUGH = "the mesh has told what it knows: most of what J gains there is its discretisation error, or little is left"
_ENDED = ("stopped", "max_iterations")


def silent(_text: str) -> None:
    """Say nothing."""


@final
@dataclass(frozen=True)
class TrainingState:
    """A training after an iteration.

    Attributes:
        level: the number of its stage, from 1.
        descent: of that stage, in its own numbering of iterations.
        records: of the stages before.
        reports: of the stages before.
        first_norm: the gradient norm at the very start, times the root of the parameters of a layer.
        evaluations: of J before this stage.
        since: seconds from the start of the training to that of this stage.
        mesh: of this stage, where it was adapted; else None.
        truth: the true J at the last check of this stage's end, NaN before the first.
    """

    level: int
    descent: DescentState
    records: tuple[Record, ...] = ()
    reports: tuple[LevelReport, ...] = ()
    first_norm: float = math.nan
    evaluations: int = 0
    since: float = 0.0
    mesh: Simplices | None = None
    truth: float = math.nan

    @property
    def history(self) -> History:
        """One record per iteration, of all stages."""
        own = (_renumbered(each, self.level, self.records, self.since) for each in self.descent.history)
        return History([*self.records, *own])


@final
@dataclass
class Stage:
    """A problem, and where its descent starts, later ends.

    Attributes:
        problem: of the stage.
        theta: for it.
        initial_hessian: the L-BFGS pairs of the stages before, later of this one.
        to_finest: carries θ to the finest level; None for that itself.
    """

    problem: ControlProblem
    theta: Floats
    initial_hessian: Curvature | None = None
    to_finest: Transfer | None = None

    def carried(self, problem: ControlProblem, to_finest: Transfer | None) -> "Stage":
        """The stage of another problem that begins where this one ends. **Collective**."""
        if problem is self.problem:
            return self
        transfer, pairs = Transfer(self.problem, problem), self.initial_hessian
        carried = transfer.curvature(pairs) if pairs is not None and len(pairs) else None
        return Stage(problem, transfer.theta(self.theta), carried, to_finest)


class StagedTraining(ABC):
    """A descent in stages, each of which begins where the one before ended, with its L-BFGS pairs.

    Args:
        problem: of the result, or of the first stage.
        settings: of the descents.
        say: called with a line for what happens between them.
        state: of the training to go on with.

    Attributes:
        shortfall: what the last mesh does not resolve and why, in words; None if unchecked, or if it resolves all.
    """

    def __init__(self, problem: ControlProblem, settings: Settings, say: Say, state: TrainingState | None) -> None:
        self.settings, self._say = settings, say
        self.shortfall: str | None = None
        self._stage = Stage(problem, started_inside(problem, settings.bounds, problem.initial_theta))
        self._resumed = state
        self._records: list[Record] = []  # of the stages before
        self._reports: list[LevelReport] = []
        self._first_norm = 0.0
        self._descent: Descent | None = None
        self._end: LevelEnd | None = None
        self._told_all = False  # whether the end of the stage is that
        self._number, self._since, self._evaluations = 0, 0.0, 0  # of the stage: which, and what was before
        self._stopped = False

    @property
    @abstractmethod
    def problem(self) -> ControlProblem:
        """The one that the result is of; while the mesh is adapted, that of the present stage."""

    @property
    @abstractmethod
    def carry(self) -> Callable[[Floats], Floats]:
        """Carries θ of the present stage to the shape of the training's result. Not collective."""

    @property
    @abstractmethod
    def max_iterations(self) -> int:
        """The most iterations that all stages can take together."""

    @abstractmethod
    def run(self, callback: Callable[[Record], object] | None = None) -> OptimiseResult:
        """Minimise J, stage by stage, once. **Collective**.

        Args:
            callback: called once per iteration on all ranks; a true result, the same on all, ends the training.

        Raises:
            InputError: J cannot be evaluated at the start, or PETSc refuses the method or an option.
        """

    @property
    def theta(self) -> Floats:
        """The present iterate, in the shape of the training's result; from inside of callbacks on."""
        assert self._descent is not None
        return self.carry(self._descent.current.theta)

    @property
    def state(self) -> TrainingState:
        """After the last iteration; from inside of callbacks on. Not collective."""
        assert self._descent is not None
        return TrainingState(
            self._number,
            self._descent.state,
            tuple(self._records),
            tuple(self._reports),
            self._first_norm,
            self._evaluations,
            self._since,
            self._mesh,
            math.nan if self._end is None else self._end.truth,
        )

    def refuse_another(self) -> None:
        """Raise unless J is still that of the state that the training goes on with, if any. **Collective**.

        Raises:
            ComputationError: it is another one.
        """
        if self._resumed is not None:
            self._resumed.descent.refuse_another(self._entered_again(self._resumed).problem)

    # -- inner workings ----------------------------------------------------------------------------------------------

    @property
    def _mesh(self) -> Simplices | None:
        """Of the present stage, where it was adapted."""
        return None

    @abstractmethod
    def _entered_again(self, state: TrainingState) -> Stage:
        """The stage of a state. **Collective**."""

    def _restored(self, state: TrainingState | None) -> float:
        """Take over what the stages before that of a state have found; when the training began, on this clock."""
        if state is None:
            return time.perf_counter()
        self._records, self._reports = list(state.records), list(state.reports)
        self._first_norm = state.first_norm
        return time.perf_counter() - state.history[-1].seconds

    def _minimise(
        self,
        settings: Settings,
        first_norm: float,
        state: DescentState | None,
        callback: Callable[[Record], object] | None,
        end: LevelEnd | None = None,
    ) -> OptimiseResult:
        """Minimise on the mesh of the present stage, from its start or from a state. **Collective**.

        Args:
            settings: of the descent.
            first_norm: that the gradient tolerance is relative to.
            state: of the descent to go on with.
            callback: as for ``run``.
            end: asked after every iteration whether the stage is to end there.
        """
        stage, ended, self._end = self._stage, False, end
        if state is not None and end is not None and end.reached(state.history, state.current.theta):
            # It has ended at the very iteration of the state: only the evaluations are replayed.
            settings, ended = replace(settings, max_iterations=state.history[-1].iteration), True
        self._descent = Descent(
            stage.problem,
            settings,
            stage.theta,
            initial_hessian=stage.initial_hessian,
            first_norm=first_norm,
            state=state,
            before=self._records[-1].iteration if self._records else 0,
        )

        descent = self._descent

        def follow(record: Record) -> bool:
            nonlocal ended
            record = _renumbered(record, self._number, self._records, self._since)
            self._stopped = callback is not None and bool(callback(record))
            if end is not None and not self._stopped:
                ended = end.reached(descent.history, descent.current.theta)
            return self._stopped or ended

        result = descent.run(follow)
        self._told_all = ended and result.status in _ENDED
        return replace(result, status="converged", reason=_ENOUGH) if self._told_all else result

    def _norm_at_start(self) -> float:
        """The gradient norm where the present stage starts; NaN where J cannot be evaluated there. **Collective**."""
        stage, bounds = self._stage, self.settings.bounds
        value, gradient = stage.problem.value_and_gradient(stage.theta)
        box = None if bounds is None else Box.of(bounds, stage.theta.shape)
        return stationarity(stage.problem, box, stage.theta, gradient) if math.isfinite(value) else math.nan

    def _truth_of(self, state: DescentState | None) -> float:
        """The true J that was known when a state was taken."""
        return math.nan if state is None or self._resumed is None else self._resumed.truth

    def _close(self, result: OptimiseResult, seconds: float) -> None:
        """The stage has ended: the next one starts from its θ and its L-BFGS pairs."""
        stage, problem = self._stage, self._stage.problem
        stage.theta, stage.initial_hessian = result.theta, result.curvature
        self._records += [_renumbered(each, self._number, self._records, self._since) for each in result.history]
        self._reports.append(
            LevelReport(
                level=self._number,
                cells=cell_count(problem),
                layers=problem.n_layers,
                iterations=result.iterations,
                evaluations=problem.evaluations - self._evaluations,
                total=result.value,
                seconds=seconds,
                degree=problem.density_space.degree,
            )
        )

    def _of_all_stages(self, result: OptimiseResult, reason: str) -> OptimiseResult:
        """The last stage's result as that of the training."""
        history, levels = History(self._records), tuple(self._reports)
        return replace(result, reason=reason, iterations=history[-1].iteration, history=history, levels=levels)


def _renumbered(record: Record, level: int, before: Sequence[Record], since: float) -> Record:
    """A stage's record in the numbering of the whole training."""
    iterations = before[-1].iteration if before else 0
    return replace(record, iteration=record.iteration + iterations, seconds=record.seconds + since, level=level)


def carry_counts(source: ControlProblem, target: ControlProblem) -> None:
    """Go on counting evaluations where another problem is."""
    target.evaluations, target.rejected_evaluations = source.evaluations, source.rejected_evaluations


def cell_count(problem: ControlProblem) -> int:
    """Cells of a problem's mesh, over all ranks."""
    space = problem.density_space
    return int(space.mesh.topology.index_map(space.dim).size_global)
