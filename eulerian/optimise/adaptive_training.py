"""Training on meshes that follow the flow: a few iterations, then another mesh for the θ that they have led to.

On a mesh that cannot follow its density a descent is paid for numerical diffusion, and may never leave where that leads
it. So the first legs are short, and each one starts on a mesh that resolves the flow it starts from.
"""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, final

from eulerian.app.config import Config
from eulerian.base.arrays import Floats
from eulerian.control.control import ControlProblem
from eulerian.mesh.simplices import Simplices
from eulerian.optimise import DescentState, OptimiseResult, Record, Settings
from eulerian.optimise.adaptive import AdaptedProblem, adapt, excess, misses, rebuilt
from eulerian.optimise.multilevel import Level, StagedTraining, TrainingState, carry_counts

if TYPE_CHECKING:
    from eulerian.analysis.characteristics import Characteristics  # with a good part of SciPy

# Iterations of the first leg; each later one may take twice as many as the one before.
FIRST_LEG = 10


@final
class AdaptiveTraining(StagedTraining):
    """The descent in legs, each on a mesh of its own; it has the face of ``multilevel.Training``.

    A leg begins where the one before has ended, with its curvature. After a leg the flow is verified: where the mesh
    does not resolve it to the tolerances of ``[adapt]``, another one is refined for it, from the coarse mesh up. The
    training ends when the optimiser has come to an end on a mesh that resolves its flow, or when all legs together have
    taken ``max_iterations``; then the last mesh is one for the θ that is left.

    Args:
        config: with ``[adapt]``.
        problem: of ``start_problem``.
        tell: where messages go.
        state: of the training to go on with.

    Attributes:
        shortfall: what the last mesh does not resolve and why, in words; None where it resolves all.
    """

    def __init__(
        self,
        config: Config,
        problem: ControlProblem,
        tell: Callable[[str], None] = lambda _text: None,
        state: TrainingState | None = None,
    ) -> None:
        assert config.adapt is not None
        super().__init__(config, problem, tell, state)
        self._limits, self._first, self._number = config.adapt, problem, 1
        self._paths: Characteristics | None = None  # of the θ that was verified last
        self.shortfall: str | None = None

    @property
    def problem(self) -> ControlProblem:
        """On the mesh of the present leg."""
        return self._level.problem

    @property
    def carry(self) -> Callable[[Floats], Floats]:
        """Carries θ from mesh to mesh: it means the same on all of them. Not collective."""
        return lambda theta: theta

    @property
    def max_iterations(self) -> int:
        """The most iterations that all legs can take together."""
        return self.config.optimiser.max_iterations

    def run(self, callback: Callable[[Record], object] | None = None) -> OptimiseResult:
        """Leg by leg; see ``StagedTraining``. Collective."""
        state, started = self._resumed, time.perf_counter()
        if state is None:
            self._level = self._adapted(self._level)
        else:
            started -= state.history[-1].seconds
            self._go_on_from(state)
        while True:
            self._since = time.perf_counter() - started if state is None else state.since
            self._evaluations = self.problem.evaluations if state is None else state.evaluations
            result = self._descend(None if state is None else state.descent, callback)
            self._close(result, time.perf_counter() - started - self._since)
            if self._stopped or (result.status == "failed" and not result.iterations):
                break
            ended = result.status != "max_iterations" or not self._remaining
            moved, state = result.iterations > 0, None
            if moved and self._unresolved():
                self._level = self._adapted(self._level)
            elif ended:
                break
            self._number += 1
        return self._concluded(result)

    # -- inner workings ----------------------------------------------------------------------------------------------

    @property
    def _mesh(self) -> Simplices | None:
        return self.problem.density_space.simplices

    @property
    def _remaining(self) -> int:
        """Iterations that later legs may take."""
        return self.max_iterations - (self._records[-1].iteration if self._records else 0)

    def _go_on_from(self, state: TrainingState) -> None:
        """Be in the leg of a state. Collective."""
        self._recall(state)
        self._number = state.level
        assert state.mesh is not None
        problem = rebuilt(self.config, self._first, state.mesh)
        self._level = Level(problem, problem.initial_theta)

    def _adapted(self, segment: Level) -> Level:
        """The leg that starts where another one has ended, on a mesh that is made for it. Collective."""
        found = adapt(self.config, self._first, segment.theta, self._tell, self._paths)
        _carry_on_counting(segment.problem, found)
        self.shortfall = found.shortfall
        return Level(found.problem, segment.theta, segment.curvature)

    def _unresolved(self) -> bool:
        """Whether the mesh misses a tolerance at the best θ of this leg. Collective."""
        from eulerian.analysis.characteristics import Characteristics

        problem, theta = self.problem, self._level.theta
        self._paths = Characteristics.of(problem, theta)
        verification = self._paths.verify(problem, theta)
        self.shortfall = misses(self._limits, verification) or None
        return excess(self._limits, verification) > 1.0

    def _descend(self, state: DescentState | None, callback: Callable[[Record], object] | None) -> OptimiseResult:
        """Minimise on one mesh, from its start or from a state. Collective."""
        segment, optimiser = self._level, self.config.optimiser
        limit = min(FIRST_LEG * 2 ** min(self._number - 1, 20), self._remaining)
        if state is None and not self._records:
            value, gradient = segment.problem.value_and_gradient(segment.theta)
            if math.isfinite(value):
                self._first_norm = segment.problem.gradient_norm(gradient)
        settings = Settings.of(self.config, limit, optimiser.gradient_tolerance)
        return self._minimise(settings, self._first_norm, state, callback)

    def _concluded(self, result: OptimiseResult) -> OptimiseResult:
        """The last leg's result as that of the training."""
        reason = result.reason
        if result.status == "max_iterations" and not self._stopped:
            reason = f"the limit of {self.max_iterations} iterations was reached"
        if len(self._reports) > 1 and not self._stopped:
            reason = f"{reason}, on the last of {len(self._reports)} adapted meshes"
        return self._whole(result, reason)


def _carry_on_counting(before: ControlProblem, found: AdaptedProblem) -> None:
    """Count the evaluations that were made for a mesh among those of the training."""
    carry_counts(before, found.problem)
    found.problem.evaluations += len(found.reports)
