"""What a minimisation returns: one record per iteration, one report per level, and where it ended."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, final, overload

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.data_frame import data_frame
from eulerian.optimise.lbfgs_pairs import Curvature


@dataclass(frozen=True)
class Record:
    """One iteration.

    Attributes:
        iteration: 0 is the starting point. Levels go on counting: at a change the same number comes twice, for the last
            θ on one mesh, and for the one that was kept of it on the next.
        total: J.
        parts: J by name.
        gradient_norm: in L²(0, T); with bounds on θ of the projected gradient.
        evaluations: forward solves so far, on all levels.
        seconds: since the start.
        level: 1 is the coarsest; J is that of this level's mesh and layers.
        verified: J of the network itself, by characteristics; None where it was not asked for, or cannot be told.
    """

    iteration: int
    total: float
    parts: dict[str, float]
    gradient_norm: float
    evaluations: int
    seconds: float
    level: int = 1
    verified: float | None = None


@final
class History(Sequence[Record]):
    """The records of a minimisation, by number or as columns: ``history[-1].total``, ``history["total"]``.

    Args:
        records: one per iteration, the starting point first.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records = tuple(records)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> "History": ...
    @overload
    def __getitem__(self, index: str) -> Floats: ...
    def __getitem__(self, index: int | slice | str) -> "Record | History | Floats":
        if isinstance(index, str):
            return self._column(index)
        return History(self._records[index]) if isinstance(index, slice) else self._records[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment] # records hold dicts

    def __repr__(self) -> str:
        return f"History({len(self)} records of {', '.join(self._names)})"

    def columns(self) -> dict[str, Floats]:
        """All columns by name, each (n,): iteration, total, the parts of J, gradient_norm, …, level, verified.

        Whole numbers stay such; what a record does not have is NaN there.
        """
        return {name: self._column(name) for name in self._names}

    def to_pandas(self) -> Any:
        """The columns as a ``pandas.DataFrame``.

        Raises:
            InputError: pandas is not installed.
        """
        return data_frame(self.columns(), "history.columns(), a dict of NumPy arrays")

    @property
    def _parts(self) -> dict[str, None]:
        """The names of all parts, in their order; the records of rejected evaluations have none."""
        return {name: None for record in self._records for name in record.parts}

    @property
    def _names(self) -> list[str]:
        return ["iteration", "total", *self._parts, "gradient_norm", "evaluations", "seconds", "level", "verified"]

    def _column(self, name: str) -> Floats:
        if name in self._parts:
            return np.array([record.parts.get(name, np.nan) for record in self._records])
        if name not in self._names:
            raise KeyError(f"{name!r}; the columns are {', '.join(self._names)}")
        found = [getattr(record, name) for record in self._records]
        return np.array([np.nan if value is None else value for value in found])


@dataclass(frozen=True)
class LevelReport:
    """What one level took, and where it ended.

    Attributes:
        level: 1 is the coarsest.
        cells: of its mesh.
        layers: of its problem.
        iterations: taken there.
        evaluations: forward solves there.
        total: the lowest J there, with this level's mesh and layers.
        seconds: spent there, the building of a coarse problem included.
        degree: of its densities.
    """

    level: int
    cells: int
    layers: int
    iterations: int
    evaluations: int
    total: float
    seconds: float
    degree: int = 1


@dataclass(frozen=True, repr=False)
class OptimiseResult:
    """Where the minimisation ended; θ is the best iterate, also after a failure.

    Attributes:
        theta: in the shape of the starting point.
        value: J there.
        gradient_norm: in L²(0, T), there; with bounds on θ of the projected gradient.
        iterations: taken, on all levels.
        status: "converged", "max_iterations", "failed", "stopped" (by the callback) or "interrupted" (by Ctrl-C).
        reason: why it ended, in words.
        history: one record per iteration, the starting point first.
        curvature: the L-BFGS pairs of the last steps, for ``minimise(initial_hessian=...)``; None for methods that have
            no use for them.
        levels: the coarsest first; empty for a descent on one mesh.
        verified: J of the network itself at θ, as far as the rule by which the descent ended has asked for it.
    """

    theta: Floats
    value: float
    gradient_norm: float
    iterations: int
    status: str
    reason: str
    history: History = field(default_factory=History)
    curvature: Curvature | None = None
    levels: tuple[LevelReport, ...] = ()
    verified: float | None = None

    @property
    def seconds(self) -> float:
        """From the start to the last iteration."""
        return self.history[-1].seconds if self.history else 0.0

    @property
    def parts(self) -> dict[str, float]:
        """J by name at the best iterate; empty where that was not evaluated on the mesh that ``value`` is of."""
        record = self._record
        return {} if record is None else record.parts

    @property
    def kept(self) -> int | None:
        """The iteration that θ is of; None where it was carried to another mesh."""
        record = self._record
        return None if record is None else record.iteration

    @property
    def _record(self) -> Record | None:
        # Equal to the last bit: the best value is that of some record.
        return next((record for record in reversed(self.history) if record.total == self.value), None)

    def __repr__(self) -> str:
        why = f": {' '.join(self.reason.split())}" if self.status == "failed" else ""
        return f"OptimiseResult(J = {self.value:.8g}, {self.status} after {self._effort}{why})"

    def _repr_html_(self) -> str:
        """A small table for notebooks: J with its parts, how it ended, and what that took."""
        rows = {"J": f"{self.value:.8g}", **{name: f"{value:.6g}" for name, value in self.parts.items() if value}}
        rows |= {"status": f"{self.status}: {self.reason}", "effort": self._effort}
        return html_table(rows)

    @property
    def _effort(self) -> str:
        plural = "" if self.iterations == 1 else "s"
        return f"{self.iterations} iteration{plural}, {self.seconds:.3g} s"


def html_table(rows: Mapping[str, str]) -> str:
    """Names and texts as a table of HTML, for notebooks."""
    cells = (f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows.items())
    return f"<table>{''.join(cells)}</table>"
