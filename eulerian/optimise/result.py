"""What a descent tells: one record per iteration, one report per level, and where it ended."""

from dataclasses import dataclass, field

from eulerian.base.arrays import Floats
from eulerian.optimise.lbfgs_pairs import Curvature


@dataclass(frozen=True)
class Record:
    """One iteration.

    Attributes:
        iteration: 0 is the starting point. Levels go on counting: at a change the same number comes twice, for the same
            θ on both meshes.
        total: J.
        parts: J by name.
        gradient_norm: in L²(0, T).
        evaluations: forward solves so far, on all levels.
        seconds: since the start.
        level: 1 is the coarsest; J is that of this level's mesh and layers.
    """

    iteration: int
    total: float
    parts: dict[str, float]
    gradient_norm: float
    evaluations: int
    seconds: float
    level: int = 1


@dataclass(frozen=True)
class LevelReport:
    """What one level took, and where it ended.

    Attributes:
        level: 1 is the coarsest.
        cells: of its mesh; 0 where there is none.
        layers: of its problem.
        iterations: taken there.
        evaluations: forward solves there.
        total: the lowest J there, with this level's mesh and layers.
        seconds: spent there, the building of a coarse problem included.
    """

    level: int
    cells: int
    layers: int
    iterations: int
    evaluations: int
    total: float
    seconds: float


@dataclass(frozen=True)
class OptimiseResult:
    """Where the minimisation ended; θ is the best iterate, also after a failure.

    Attributes:
        theta: in the shape of the starting point.
        value: J there.
        gradient_norm: in L²(0, T), there.
        iterations: taken, on all levels.
        status: "converged", "max_iterations" or "failed".
        reason: why it ended, in words.
        history: one record per iteration, the starting point first.
        curvature: what the last steps have learnt; None for methods that have no use for it.
        levels: the coarsest first; empty for a descent on one mesh.
    """

    theta: Floats
    value: float
    gradient_norm: float
    iterations: int
    status: str
    reason: str
    history: list[Record] = field(repr=False)
    curvature: Curvature | None = field(default=None, repr=False)
    levels: tuple[LevelReport, ...] = ()
