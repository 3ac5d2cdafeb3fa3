"""Training on meshes that follow the flow: a few iterations, then another mesh for the θ that they have led to.

On a mesh that cannot follow its density a descent is paid for numerical diffusion, and may never leave where that leads
it. So the first stages are short, and each one starts on a mesh that resolves the flow it starts from.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, final

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.control.control import ControlProblem
from eulerian.mesh.simplices import Simplices
from eulerian.optimise.adaptive import Build, Tolerances, adapted, excess, misses
from eulerian.optimise.level_end import LevelEnd
from eulerian.optimise.replay import DescentState
from eulerian.optimise.result import OptimiseResult, Record
from eulerian.optimise.settings import Settings
from eulerian.optimise.stages import Say, Stage, StagedTraining, TrainingState, carry_counts, silent

if TYPE_CHECKING:
    from eulerian.analysis.characteristics import Characteristics  # with a good part of SciPy

# Iterations of the first stage; each later one may take twice as many as the one before.
FIRST_STAGE = 10


@final
class AdaptiveTraining(StagedTraining):
    """The descent in stages, each on a mesh that is adapted to the flow it starts from.

    A stage ends at its limit, or as soon as most of what J gains is the discretisation error of its mesh: see
    ``LevelEnd``. Then the flow is verified: where the mesh does not resolve it to the tolerances, another one is
    refined for it, from the coarse mesh up. The training ends when the optimiser has come to an end on a mesh that
    resolves its flow, or when all stages together have taken the settings' ``max_iterations``; then the last mesh is
    one for the θ that is left.

    Args:
        problem: on the mesh that all refinement begins with, and its initial θ; its density space knows the simplices.
        build: makes the same problem on another mesh, as for ``adapt``.
        limits: what a mesh is to resolve.
        settings: of the descents, all together.
        say: called with a line for every mesh.
        state: of the training to go on with.

    Raises:
        InputError: the problem's space does not know its simplices.
    """

    def __init__(
        self,
        problem: ControlProblem,
        build: Build,
        limits: Tolerances,
        settings: Settings,
        say: Say = silent,
        state: TrainingState | None = None,
    ) -> None:
        super().__init__(problem, settings, say, state)
        if problem.density_space.simplices is None:
            remedy = "Give them to its DensitySpace, or to what makes that."
            raise InputError("its mesh must be made of simplices that all ranks know", key="problem", remedy=remedy)
        self._build, self._limits, self._coarse = build, limits, problem.density_space.simplices
        self._number = 1
        self._paths: Characteristics | None = None  # of the θ that was verified last

    @property
    def problem(self) -> ControlProblem:
        """On the mesh of the present stage."""
        return self._stage.problem

    @property
    def carry(self) -> Callable[[Floats], Floats]:
        """Carries θ from mesh to mesh: it means the same on all of them. Not collective."""
        return lambda theta: theta

    @property
    def max_iterations(self) -> int:
        """The most iterations that all stages can take together."""
        return self.settings.max_iterations

    def run(self, callback: Callable[[Record], object] | None = None) -> OptimiseResult:
        """Stage by stage; see ``StagedTraining``. **Collective**."""
        state = self._resumed
        began = self._restored(state)
        self._stage = self._adapted() if state is None else self._entered_again(state)
        while True:
            self._since = time.perf_counter() - began if state is None else state.since
            self._evaluations = self.problem.evaluations if state is None else state.evaluations
            result = self._descend(None if state is None else state.descent, callback)
            self._close(result, time.perf_counter() - began - self._since)
            if self._stopped or (result.status == "failed" and not result.iterations):
                break
            ended = result.status != "max_iterations" and not self._told_all
            ended = ended or not self._remaining
            # A stage that has found no θ that is better for the network itself has not moved either.
            moved, state = result.iterations > 0 and result.kept != 0, None
            if moved and self._unresolved():
                self._stage = self._adapted()
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
        """Iterations that later stages may take."""
        return self.max_iterations - (self._records[-1].iteration if self._records else 0)

    def _entered_again(self, state: TrainingState) -> Stage:
        """The stage of a state. **Collective**."""
        self._number = state.level
        assert state.mesh is not None
        problem = self._build(state.mesh)
        return Stage(problem, problem.initial_theta)

    def _adapted(self) -> Stage:
        """The stage that starts where the present one has ended, on a mesh that is made for it. **Collective**."""
        before = self._stage
        found = adapted(self._build, self._coarse, before.theta, self._limits, self._say, self._paths)
        carry_counts(before.problem, found.problem)
        found.problem.evaluations += len(found.reports)  # those that were made for a mesh count, too
        self.shortfall = found.shortfall
        return Stage(found.problem, before.theta, before.initial_hessian)

    def _unresolved(self) -> bool:
        """Whether the mesh misses a tolerance at the best θ of this stage. **Collective**."""
        from eulerian.analysis.characteristics import Characteristics

        problem, theta = self.problem, self._stage.theta
        self._paths = Characteristics.of(problem, theta)
        verification = self._paths.verify(problem, theta)
        self.shortfall = misses(self._limits, verification) or None
        return excess(self._limits, verification) > 1.0

    def _descend(self, state: DescentState | None, callback: Callable[[Record], object] | None) -> OptimiseResult:
        """Minimise on one mesh, from its start or from a state. **Collective**."""
        stage = self._stage
        # The bound only keeps the number small.
        limit = min(FIRST_STAGE * 2 ** min(self._number - 1, 20), self._remaining)
        if state is None and not self._records:
            norm = self._norm_at_start()
            if math.isfinite(norm):
                self._first_norm = norm
        settings = replace(self.settings, max_iterations=limit)
        end = LevelEnd(stage.problem, truth=self._truth_of(state), coarse=False)
        return self._minimise(settings, self._first_norm, state, callback, end)

    def _concluded(self, result: OptimiseResult) -> OptimiseResult:
        """The last stage's result as that of the training."""
        reason = result.reason
        if result.status == "max_iterations":
            reason = f"the limit of {self.max_iterations} iterations was reached"
        if len(self._reports) > 1 and not self._stopped:
            reason = f"{reason}, on the last of {len(self._reports)} adapted meshes"
        return self._of_all_stages(result, reason)
