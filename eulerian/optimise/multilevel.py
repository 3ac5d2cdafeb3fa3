"""Training from coarse meshes and few layers to fine ones: most of the way down is made where it costs little."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats
from eulerian.base.errors import EulerianError, InputError
from eulerian.base.log import LOGGER
from eulerian.control.control import ControlProblem
from eulerian.optimise.box import Bounds, started_inside
from eulerian.optimise.callbacks import Callback, following
from eulerian.optimise.level_end import LevelEnd
from eulerian.optimise.replay import DescentState
from eulerian.optimise.result import OptimiseResult, Record
from eulerian.optimise.settings import Settings
from eulerian.optimise.stages import Say, Stage, StagedTraining, TrainingState, carry_counts, cell_count, silent
from eulerian.optimise.tao import chosen
from eulerian.optimise.transfer import Transfer

# Where the true J of a flow is not known a coarse level ends by the gradient norm. Over ten problems that came back to
# 0.3 … 3 % of its first value at a change of level. In J that is less than what is left in flat directions when the
# norm is as small: so a coarse level goes on for a while, which costs little.
COARSE_TOLERANCE = 3e-4


def train(
    levels: Sequence[ControlProblem],
    theta: ArrayLike | None = None,
    *,
    max_iterations: int = 50,
    gradient_tolerance: float = 1e-6,
    method: str | None = None,
    petsc_options: str = "",
    metric: str = "velocity",
    callback: Callback | None = None,
    progress: bool = False,
    stop: str = "gradient",
    bounds: Bounds | None = None,
) -> OptimiseResult:
    """Minimise J on one mesh after the other: each begins where the coarser one has ended. **Collective**.

    On the finest mesh an iteration costs about 2^(d+1) times as much as on one of twice the cell size. The levels may
    differ in degree: before a mesh of degree 1 one of degree 2 with cells four times as large says much the same of J,
    at a tenth of the cost. A coarse level ends when most of what it gains is its own discretisation error, or little is
    left to be gained (see ``level_end``). Ctrl-C is heard as by ``minimise``.

    Args:
        levels: the same problem from coarse to fine: of one horizon, one number of labels and, but for fields of nodal
            velocities, one number of parameters per layer. Two levels may share a field, and need not have as many
            layers.
        theta: the starting point, in the shape of the finest level's; by default its initial θ.
        max_iterations: of each level, at most.
        gradient_tolerance: on the gradient norm relative to the first of all.
        method: as for ``minimise``, like the rest.
        petsc_options: like ``"-tao_ls_type more-thuente"``.
        metric: "velocity" or "parameters".
        callback: called with the ``Record`` of each iteration on all ranks; a true result on any of them ends the
            training, with the status "stopped" and θ carried to the finest level.
        progress: show a bar on rank 0.
        stop: "gradient" or "verified", as for ``minimise``, on every level.
        bounds: of θ, as for ``minimise``; arrays broadcast to the shape of θ on every level.

    Returns:
        The minimisation of the last problem; its ``levels`` say what each of them took.

    Raises:
        InputError: the levels do not fit together, or as for ``minimise``.
    """
    _require_one_problem(levels)
    finest, how = levels[-1], chosen(method, petsc_options, bounded=bounds is not None)
    settings = Settings(how, max_iterations, gradient_tolerance, metric, stop=stop, bounds=bounds)
    coarse = [partial(_itself, problem) for problem in levels[:-1]]
    training = LevelTraining(finest, coarse, settings, LOGGER.info if finest.comm.rank == 0 else silent, theta=theta)
    with following(finest.comm, callback, training.max_iterations if progress else None) as follower:
        return follower.outcome(training.run(follower))


@final
class LevelTraining(StagedTraining):
    """The descent through all levels.

    Every level but the coarsest starts from where the coarser one ended, with its L-BFGS pairs. A coarse level ends as
    ``LevelEnd`` says. Where that does not know the true J it ends as well when the gradient norm has fallen to
    ``COARSE_TOLERANCE`` (or the settings' tolerance, if larger) of its value at the very start.

    Args:
        problem: of the finest level. Afterwards its count of evaluations is that of all levels.
        coarse: make the problems of the other levels, the coarsest first; only one of them is held at a time.
        settings: of the finest level; its ``max_iterations`` is the limit of every level.
        say: called with a line for every level that begins or is left out.
        state: of the training to go on with.
        theta: the starting point, in the shape of the finest level's.
    """

    def __init__(
        self,
        problem: ControlProblem,
        coarse: Sequence[Callable[[], ControlProblem]],
        settings: Settings,
        say: Say = silent,
        state: TrainingState | None = None,
        *,
        theta: ArrayLike | None = None,
    ) -> None:
        super().__init__(problem, settings, say, state)
        self._finest = problem
        self._levels: list[Callable[[], ControlProblem]] = [*coarse, partial(_itself, problem)]
        self._start: Floats = self._stage.theta
        if theta is not None:
            problem.split(theta)  # refuses a wrong size
            start = np.array(theta, dtype=np.float64).reshape(self._start.shape)
            self._start = started_inside(problem, settings.bounds, start)
            self._stage = Stage(problem, self._start)

    @property
    def problem(self) -> ControlProblem:
        """Of the finest level."""
        return self._finest

    @property
    def carry(self) -> Callable[[Floats], Floats]:
        """Carries θ of the present level to the shape of the finest one. Not collective."""
        to_finest = self._stage.to_finest
        return (lambda theta: theta) if to_finest is None else to_finest.theta

    @property
    def max_iterations(self) -> int:
        """The most iterations that all levels can take together."""
        return self.settings.max_iterations * len(self._levels)

    def run(self, callback: Callable[[Record], object] | None = None) -> OptimiseResult:
        """Level by level; see ``StagedTraining``. **Collective**."""
        state, result = self._resumed, None
        began = self._restored(state)
        for number in range(1 if state is None else state.level, len(self._levels) + 1):
            self._number = number
            self._since = time.perf_counter() - began if state is None else state.since
            before = self._stage
            try:
                entered = self._entered() if state is None else self._entered_again(state)
                if entered is None:
                    continue
                self._stage = entered
                self._evaluations = entered.problem.evaluations if state is None else state.evaluations
                found = self._descend(None if state is None else state.descent, callback)
            except EulerianError as error:  # before the first iterate of this level
                if result is None:
                    raise
                self._stage = before
                reason = f"{self._name} failed at its start: {error}; the best iterate of the one before is kept"
                result = replace(result, status="failed", reason=reason)
                break
            result, state = found, None
            self._close(result, time.perf_counter() - began - self._since)
            if self._stopped:
                break
        assert result is not None  # the finest level is never left out
        return self._concluded(result)

    # -- inner workings ----------------------------------------------------------------------------------------------

    @property
    def _is_finest(self) -> bool:
        return self._number == len(self._levels)

    @property
    def _name(self) -> str:
        return f"level {self._number} of {len(self._levels)}"

    def _entered_again(self, state: TrainingState) -> Stage:
        """The level of a state. **Collective**."""
        self._number = state.level
        problem = self._levels[self._number - 1]()
        return Stage(problem, problem.initial_theta, to_finest=self._to_finest(problem))

    def _to_finest(self, problem: ControlProblem) -> Transfer | None:
        """**Collective**."""
        return None if self._is_finest else Transfer(problem, self._finest)

    def _entered(self) -> Stage | None:
        """The next level at its start; None for a coarse one that cannot be. **Collective**."""
        try:
            problem = self._levels[self._number - 1]()
        except EulerianError as error:
            if self._is_finest:
                raise
            self._say(f"{self._name} is left out: {error}")
            return None
        before = self._stage.problem
        carry_counts(before, problem)  # evaluations are counted through all levels
        stage = self._stage.carried(problem, self._to_finest(problem))
        if not math.isfinite(problem.value(stage.theta)):
            # What the coarser level has found is no flow of this mesh: begin anew where the training did.
            start = self._start if self._is_finest else Transfer(self._finest, problem).theta(self._start)
            stage = Stage(problem, start, to_finest=stage.to_finest)
            if not self._is_finest and not math.isfinite(problem.value(start)):
                self._say(f"{self._name} is left out: J cannot be evaluated there ({problem.rejection})")
                carry_counts(problem, before)
                return None
        if len(self._levels) > 1:
            degree, layers = problem.density_space.degree, problem.n_layers
            self._say(f"{self._name}: {cell_count(problem)} cells of degree {degree}, {layers} layers")
        return stage

    def _descend(self, state: DescentState | None, callback: Callable[[Record], object] | None) -> OptimiseResult:
        """Minimise on one level, from its start or from a state. **Collective**."""
        stage, settings = self._stage, self.settings
        # The gradient of a nodal field is spread over the nodes: its norm falls with the root of their number.
        spread = math.sqrt(stage.problem.layer_shape[1])
        if state is None:
            norm = self._norm_at_start()
            if not self._records and math.isfinite(norm):
                self._first_norm = norm * spread
        before = self._records[-1].iteration if self._records else 0
        end = None if self._is_finest else LevelEnd(stage.problem, before, self._truth_of(state))
        if end is not None and not end.known:
            settings = replace(settings, gradient_tolerance=max(settings.gradient_tolerance, COARSE_TOLERANCE))
        return self._minimise(settings, self._first_norm / spread, state, callback, end)

    def _concluded(self, result: OptimiseResult) -> OptimiseResult:
        """The last level's result as that of the training. **Collective**."""
        reason = result.reason
        if len(self._reports) > 1 and not self._stopped and result.status != "failed":
            reason = f"{reason}, on the finest of {len(self._levels)} levels"
        result = self._of_all_stages(result, reason)
        if self._stage.to_finest is None:
            return result
        carry_counts(self._stage.problem, self._finest)
        theta = self._stage.to_finest.theta(result.theta)
        theta = started_inside(self._finest, self.settings.bounds, theta)  # nodal velocities are interpolated
        try:
            value = self._finest.value(theta)
        except EulerianError:
            if result.status != "failed":
                raise
            value = math.nan
        return replace(result, theta=theta, value=value, gradient_norm=math.nan, curvature=None)


def _itself(problem: ControlProblem) -> ControlProblem:
    return problem


def _require_one_problem(levels: Sequence[ControlProblem]) -> None:
    """Raise InputError unless θ means the same on all levels."""
    if not levels:
        raise InputError("needs at least one problem", key="levels", value=levels)
    finest = levels[-1]
    for number, problem in enumerate(levels[:-1]):
        nodal = problem.layered.at_nodes_only
        for name, mine, theirs in (
            ("horizon", problem.horizon, finest.horizon),
            ("number of labels", problem.density_space.n_labels, finest.density_space.n_labels),
            ("number of parameters per layer", *((0, 0) if nodal else (problem.layer_shape[1], finest.layer_shape[1]))),
        ):
            if mine != theirs:
                what = f"its {name} is {mine}, and that of the finest level is {theirs}"
                remedy = "Give levels of the same problem that differ in mesh, degree and layers only."
                raise InputError(what, key=f"levels[{number}]", remedy=remedy)
