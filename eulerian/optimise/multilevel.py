"""Training from coarse meshes and few layers to fine ones: most of the way down is made where it costs little."""

import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

from mpi4py import MPI

from eulerian.app.build.network import build
from eulerian.app.config import Config
from eulerian.app.config.levels import coarse_to_fine, iterations_of_a_level
from eulerian.base.arrays import Floats
from eulerian.base.errors import EulerianError, EulerianWarning
from eulerian.control.control import ControlProblem
from eulerian.fields.base import VectorField
from eulerian.mesh.simplices import Simplices
from eulerian.optimise import Curvature, Descent, DescentState, LevelReport, OptimiseResult, Record, Settings
from eulerian.optimise.transfer import Transfer

# A coarse level need not go further down than the next mesh will find itself up again: over ten problems the gradient
# came back to 0.3 … 3 % of its first norm at a change of level. In J that is less than what is left in flat directions
# when the norm is as small: so a coarse level goes on for a while, which costs little.
COARSE_TOLERANCE = 3e-4


def train(
    config: Config, comm: MPI.Comm | None = None, callback: Callable[[Record], object] | None = None
) -> tuple[ControlProblem, OptimiseResult]:
    """Minimise J as a configuration says, on ``optimiser.levels`` meshes. Collective.

    Args:
        config: from ``read_config``.
        comm: who shares the work, everybody by default.
        callback: called once per iteration on all ranks; a true result ends the training.

    Returns:
        The problem on the finest mesh, which is that of the configuration, and its minimisation.

    Raises:
        InputError: as for ``build`` and ``minimise``.
    """
    training = Training(config, build(config, comm))
    return training.problem, training.run(callback)


@final
@dataclass(frozen=True)
class TrainingState:
    """A training after an iteration.

    Attributes:
        level: on which it is; 1 is the coarsest.
        descent: on that level, in its own numbering of iterations.
        records: of the levels before.
        reports: of the levels before.
        first_norm: the gradient norm at the very start, times the root of the parameters of a layer.
        evaluations: of J before this level.
        since: seconds from the start of the training to that of this level.
        mesh: of this level, where it was adapted; else that of the configuration.
    """

    level: int
    descent: DescentState
    records: tuple[Record, ...] = ()
    reports: tuple[LevelReport, ...] = ()
    first_norm: float = math.nan
    evaluations: int = 0
    since: float = 0.0
    mesh: Simplices | None = None

    @property
    def history(self) -> list[Record]:
        """One record per iteration, of all levels."""
        return [
            *self.records,
            *(_numbered(each, self.level, self.records, self.since) for each in self.descent.history),
        ]


@final
@dataclass
class Level:
    """A level and where its descent starts, later ends.

    Attributes:
        problem: of the level.
        theta: for it.
        curvature: learnt so far.
        to_finest: carries θ to the finest level; None for that itself.
    """

    problem: ControlProblem
    theta: Floats
    curvature: Curvature | None = None
    to_finest: Transfer | None = None

    def carried(self, problem: ControlProblem, to_finest: Transfer | None) -> "Level":
        """The next level. Collective."""
        if problem is self.problem:
            return self
        transfer = Transfer(self.problem, problem)
        known = self.curvature
        curvature = transfer.curvature(known) if known is not None and len(known) else None
        return Level(problem, transfer.theta(self.theta), curvature, to_finest)


class StagedTraining(ABC):
    """A descent in stages, each on a mesh of its own: what trainings on levels and on adapted meshes share.

    Args:
        config: of the training.
        problem: that it begins with.
        tell: where messages go.
        state: of the training to go on with.
    """

    def __init__(
        self, config: Config, problem: ControlProblem, tell: Callable[[str], None], state: TrainingState | None
    ) -> None:
        self.config, self._tell = config, tell
        self._level = Level(problem, problem.initial_theta)
        self._resumed = state
        self._records: list[Record] = []  # of the stages before
        self._reports: list[LevelReport] = []
        self._first_norm = 0.0
        self._descent: Descent | None = None
        self._number, self._since, self._evaluations = 0, 0.0, 0  # of the stage: which, and what was before
        self._stopped = False

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
        """Minimise J, stage by stage, once. Collective.

        Args:
            callback: called once per iteration on all ranks; a true result ends the training.

        Raises:
            InputError: J cannot be evaluated at the start, or PETSc refuses the method or an option.
        """

    @property
    def theta(self) -> Floats:
        """Where the descent is, in the shape of the training's result; from inside of callbacks on."""
        assert self._descent is not None
        return self.carry(self._descent.now.theta)

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
        )

    # -- inner workings ----------------------------------------------------------------------------------------------

    @property
    def _mesh(self) -> Simplices | None:
        """Of the present stage, where it is not one of the configuration."""
        return None

    def _recall(self, state: TrainingState) -> None:
        """Know what the stages before that of a state have found."""
        self._records, self._reports = list(state.records), list(state.reports)
        self._first_norm = state.first_norm

    def _minimise(
        self,
        settings: Settings,
        first_norm: float,
        state: DescentState | None,
        callback: Callable[[Record], object] | None,
    ) -> OptimiseResult:
        """Minimise on the mesh of the present stage, from its start or from a state. Collective."""
        level = self._level
        self._descent = Descent(
            level.problem, settings, level.theta, curvature=level.curvature, first_norm=first_norm, state=state
        )

        def follow(record: Record) -> bool:
            record = _numbered(record, self._number, self._records, self._since)
            self._stopped = callback is not None and bool(callback(record))
            return self._stopped

        return self._descent.run(follow)

    def _close(self, result: OptimiseResult, seconds: float) -> None:
        """The stage has ended: the next one starts from its θ and its curvature."""
        level, problem = self._level, self._level.problem
        level.theta, level.curvature = result.theta, result.curvature
        self._records += [_numbered(each, self._number, self._records, self._since) for each in result.history]
        evaluations = problem.evaluations - self._evaluations
        self._reports.append(
            LevelReport(
                self._number,
                cell_count(problem),
                problem.n_layers,
                result.iterations,
                evaluations,
                result.value,
                seconds,
            )
        )

    def _whole(self, result: OptimiseResult, reason: str) -> OptimiseResult:
        """The last stage's result as that of the training."""
        return replace(
            result,
            reason=reason,
            iterations=self._records[-1].iteration,
            history=self._records,
            levels=tuple(self._reports),
        )


@final
class Training(StagedTraining):
    """The descent through all levels.

    Every level but the coarsest starts from where the coarser one ended, with its curvature. With several levels each
    may take half of ``max_iterations``: on the finest, where an iteration costs about 2^(d+1) times as much as on the
    next coarser one, no more are needed to come as low as with all of them from the start. A coarse level ends when the
    gradient norm has fallen to ``COARSE_TOLERANCE`` (or ``gradient_tolerance``, if larger) of its value at the very
    start.

    Args:
        config: of the finest level.
        problem: its problem. Afterwards its count of evaluations is that of all levels.
        tell: where messages go.
        state: of the training to go on with.
    """

    def __init__(
        self,
        config: Config,
        problem: ControlProblem,
        tell: Callable[[str], None] = lambda _text: None,
        state: TrainingState | None = None,
    ) -> None:
        super().__init__(config, problem, tell, state)
        self.problem = problem
        self._configs = coarse_to_fine(config)

    @property
    def carry(self) -> Callable[[Floats], Floats]:
        """Carries θ of the present level to the shape of the finest one. Not collective."""
        to_finest = self._level.to_finest
        return (lambda theta: theta) if to_finest is None else to_finest.theta

    def run(self, callback: Callable[[Record], object] | None = None) -> OptimiseResult:
        """Level by level; see ``StagedTraining``. Collective."""
        state, configs = self._resumed, self._configs
        started = time.perf_counter()
        if state is not None:
            started -= state.history[-1].seconds
            self._recall(state)
        result: OptimiseResult | None = None
        for self._number, config in enumerate(configs, start=1):
            if state is not None and self._number < state.level:
                continue
            resumed = state if state is not None and self._number == state.level else None
            self._since = time.perf_counter() - started if resumed is None else resumed.since
            before = self._level
            try:
                level = self._entered(config) if resumed is None else self._entered_again(config)
                if level is None:
                    continue
                self._level = level
                self._evaluations = level.problem.evaluations if resumed is None else resumed.evaluations
                found = self._descend(level, None if resumed is None else resumed.descent, callback)
            except EulerianError as error:  # before the first iterate of this level
                if result is None:
                    raise
                self._level = before
                reason = f"{self._name} failed at its start: {error}; the best iterate of the one before is kept"
                result = replace(result, status="failed", reason=reason)
                break
            result = found
            self._close(result, time.perf_counter() - started - self._since)
            if self._stopped:
                break
        assert result is not None  # the finest level is never left out
        return self._concluded(result)

    @property
    def max_iterations(self) -> int:
        """The most iterations that all levels can take together."""
        return self._limit * len(self._configs)

    # -- inner workings ----------------------------------------------------------------------------------------------

    @property
    def _limit(self) -> int:
        """Iterations of a level."""
        return iterations_of_a_level(self.config, len(self._configs))

    @property
    def _name(self) -> str:
        return f"level {self._number} of {len(self._configs)}"

    def _entered_again(self, config: Config) -> Level:
        """The level of a state. Collective."""
        if config is self.config:
            return Level(self.problem, self.problem.initial_theta)
        field = None if self.problem.layered.at_nodes_only else self.problem.field
        problem = _build_coarse(config, self.problem.comm, field)
        return Level(problem, problem.initial_theta, to_finest=Transfer(problem, self.problem))

    def _entered(self, config: Config) -> Level | None:
        """The level of a configuration, at its start; None for a coarse one that cannot be. Collective."""
        finest, name = config is self.config, self._name
        if finest:
            problem = self.problem
        else:
            field = None if self.problem.layered.at_nodes_only else self.problem.field
            try:
                problem = _build_coarse(config, self.problem.comm, field)
            except EulerianError as error:
                self._tell(f"{name} is left out: {error}")
                return None
        before = self._level.problem
        carry_counts(before, problem)
        level = self._level.carried(problem, None if finest else Transfer(problem, self.problem))
        if not math.isfinite(problem.value(level.theta)):
            initial = (
                problem.initial_theta if finest else Transfer(self.problem, problem).theta(self.problem.initial_theta)
            )
            level = Level(problem, initial, to_finest=level.to_finest)
            if not finest and not math.isfinite(problem.value(initial)):
                self._tell(f"{name} is left out: J cannot be evaluated there ({problem.rejection})")
                carry_counts(problem, before)
                return None
        if self.config.optimiser.levels > 1:
            self._tell(f"{name}: {cell_count(problem)} cells, {problem.n_layers} layers")
        return level

    def _descend(
        self, level: Level, state: DescentState | None, callback: Callable[[Record], object] | None
    ) -> OptimiseResult:
        """Minimise on one level, from its start or from a state. Collective."""
        optimiser, problem = self.config.optimiser, level.problem
        if state is None:
            value, gradient = problem.value_and_gradient(level.theta)
            if not self._records and math.isfinite(value):
                self._first_norm = problem.gradient_norm(gradient) * math.sqrt(problem.layer_shape[1])
        tolerance = optimiser.gradient_tolerance
        tolerance = tolerance if problem is self.problem else max(tolerance, COARSE_TOLERANCE)
        settings = Settings.of(self.config, self._limit, tolerance)
        # The gradient of a free field is spread over the nodes: its norm falls with the root of their number.
        first_norm = self._first_norm / math.sqrt(problem.layer_shape[1])
        return self._minimise(settings, first_norm, state, callback)

    def _concluded(self, result: OptimiseResult) -> OptimiseResult:
        """The last level's result as that of the training. Collective."""
        reason = result.reason
        if len(self._reports) > 1 and not self._stopped and result.status != "failed":
            reason = f"{reason}, on the finest of {len(self._configs)} levels"
        whole = self._whole(result, reason)
        if self._level.to_finest is None:
            return whole
        carry_counts(self._level.problem, self.problem)
        theta = self._level.to_finest.theta(result.theta)
        try:
            value = self.problem.value(theta)
        except EulerianError:
            if result.status != "failed":
                raise
            value = math.nan
        return replace(whole, theta=theta, value=value, gradient_norm=math.nan, curvature=None)


def _build_coarse(config: Config, comm: MPI.Comm, field: VectorField | None) -> ControlProblem:
    """The problem of a level; what there is to warn of was said of the finest one. Collective."""
    with warnings.catch_warnings(action="ignore", category=EulerianWarning):
        return build(config, comm, field)


def _numbered(record: Record, level: int, before: Sequence[Record], since: float) -> Record:
    """A level's record in the numbering of the whole training."""
    iterations = before[-1].iteration if before else 0
    return replace(record, iteration=record.iteration + iterations, seconds=record.seconds + since, level=level)


def carry_counts(source: ControlProblem, target: ControlProblem) -> None:
    """Go on counting evaluations where another problem is."""
    target.evaluations, target.rejected_evaluations = source.evaluations, source.rejected_evaluations


def cell_count(problem: ControlProblem) -> int:
    """Cells of a problem's mesh."""
    space = problem.density_space
    return int(space.mesh.topology.index_map(space.dim).size_global)
