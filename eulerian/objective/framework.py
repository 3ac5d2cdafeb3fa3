"""What functions of the user's own in other libraries share: parameters as one row, points in pieces, derivatives."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError, explained
from eulerian.fields.framework import PIECE
from eulerian.objective.losses import takes_label
from eulerian.objective.point_functions import PointFunction
from eulerian.objective.point_loss import PointLoss
from eulerian.objective.ufl_objects import remedy_of


@final
class Misfit(Exception):
    """What is wrong with a function, found where nobody knows what it is called."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what, self.remedy = what, remedy


class FrameworkFunction(ABC):
    """A function f(parameters, rows…, label) with one number for each row, which a library computes and differentiates.

    It computes in float64. "Rows" are arrays (n, …) of one length n: points, say, and densities there. The parameters
    are one vector r (m,), of which all entries are trained; what stays fixed is a part of the function.

    Args:
        start: (m,) where training starts.
        labelled: the function is passed the label, one for all rows of a call.
        batched: it takes all rows (n, …), else one (…) at a time. Rows must not influence one another.

    Attributes:
        start, labelled, batched: as given.
        key: what it is called in messages.
    """

    key = "terminal"

    def __init__(self, start: Floats, *, labelled: bool, batched: bool) -> None:
        self.start, self.labelled, self.batched = start, labelled, batched

    def called(self, key: str) -> Self:
        """The same, with another name in messages."""
        other = copy.copy(self)
        other.key = key
        return other

    def started_at(self, start: Floats) -> Self:
        """The same, with other parameters (m,) to start from."""
        other = copy.copy(self)
        other.start = start
        return other

    def value(self, parameters: Floats, rows: Sequence[Floats], label: int = 0) -> Floats:
        """f, (n,).

        Raises:
            InputError: the function raises, or returns something else than a number for each row.
        """
        pieces = [self._guarded(parameters, piece, None, label) for piece in _pieces(rows)]
        return np.concatenate([np.zeros(0), *(np.asarray(piece[0]) for piece in pieces)])[: len(rows[0])]

    def pull_back(
        self, parameters: Floats, rows: Sequence[Floats], w: Floats, label: int = 0
    ) -> tuple[Floats, Floats, list[Floats]]:
        """The values f (n,), and the gradients of Σ_n w_n f_n: by the parameters (m,), and by each of the rows.

        Raises:
            InputError: as for ``value``.
        """
        values, by_parameters, by_rows = np.zeros(len(w)), np.zeros(len(parameters)), [np.zeros(a.shape) for a in rows]
        for start, piece in zip(range(0, len(w), PIECE), _pieces(rows), strict=True):
            found = self._guarded(parameters, piece, w[start : start + PIECE], label)
            by_parameters += np.asarray(found[1])
            for total, part in zip((values, *by_rows), (found[0], *found[2:]), strict=True):
                total[start : start + PIECE] = np.asarray(part)
        return values, by_parameters, by_rows

    def check_rows(self, rows: Sequence[Floats]) -> None:
        """Refuse a batched function whose rows influence one another, as far as two rows tell.

        Raises:
            InputError: it does; its numbers would depend on how points are shared out among ranks.
        """
        if not self.batched:
            return
        both, alone = self.value(self.start, rows), self.value(self.start, [array[1:] for array in rows])
        if not np.allclose(both[1:], alone, rtol=1e-6, atol=1e-12, equal_nan=True):
            remedy = "Use fixed statistics instead of those of the points at hand, and switch off random layers."
            raise InputError("the value at a point must depend on that point only", key=self.key, remedy=remedy)

    @abstractmethod
    def _evaluate(self, parameters: Floats, rows: Sequence[Floats], w: Floats | None, label: int) -> Sequence[Any]:
        """(f,), and with w the gradients by the parameters and by the rows; of at most PIECE rows and at least one.

        Raises:
            Misfit: the function returns something else.
        """

    def _guarded(self, parameters: Floats, rows: Sequence[Floats], w: Floats | None, label: int) -> Sequence[Any]:
        try:
            return self._evaluate(parameters, rows, w, label)
        except Misfit as misfit:
            raise InputError(misfit.what, key=self.key, remedy=misfit.remedy) from None
        except (Exception, SystemExit) as error:
            what, remedy = f"the function raised {explained(error)}", remedy_of(error)
            raise InputError(what, key=self.key, remedy=remedy) from error


def sees_label(f: Any, inputs: Sequence[str], key: str, *first: str) -> bool:
    """Whether a function is passed the label behind its other arguments.

    Args:
        f: of a user's.
        inputs: what it is called with; "label" where it may see it.
        key: what it is called in messages.
        first: what stands before these.

    Raises:
        InputError: it cannot be called so.
    """
    if not callable(f):
        raise InputError("is no function", key=key, value=type(f).__name__, remedy="Give a function or a module.")
    names = tuple(name for name in (*first, *inputs) if name != "label")
    labelled = takes_label(f, key, names)
    if labelled and "label" not in inputs:
        what = f"cannot be called as f({', '.join(names)}): it needs another argument"
        raise InputError(what, key=key, remedy="Wrap it.")
    return labelled


def check_outcome(outcome: Any, n: int | None, given: str) -> None:
    """Refuse what is no number for each row.

    Args:
        outcome: an array of a library, or anything.
        n: of rows; None where the function was given one.
        given: what the function was given, in words.

    Raises:
        Misfit: not an array, of another shape, or not of real floating-point numbers.
    """
    shape, dtype = getattr(outcome, "shape", None), str(getattr(outcome, "dtype", ""))
    wanted = () if n is None else (n,)
    if shape is None:
        kind = type(outcome).__name__
        raise Misfit(f"the function must return an array, for {given} it returned {kind}", "Return f itself.")
    if tuple(shape) != wanted:
        what = f"the function must return shape {wanted} for {given}, it returned {tuple(shape)}"
        remedy = "Return one number for each point, like (x**2).sum(-1)."
        raise Misfit(what, remedy)
    if "float" not in dtype:
        raise Misfit(f"the function must return floating-point numbers, it returned {dtype}", "Return real numbers.")


@final
@dataclass(frozen=True)
class FrameworkLoss(PointLoss):
    """A loss ℓ(x) or ℓ(x, label) that another library differentiates, by x and by parameters of its own.

    Attributes:
        function: of points x (n, dim).
        n_labels: K, once bound.
    """

    function: FrameworkFunction
    n_labels: int = 0

    def _bound(self, dim: int, n_labels: int, key: str) -> Self:
        function = self.function.called(key)
        function.check_rows([np.linspace(0.1, 0.4, 2 * dim).reshape(2, dim)])
        return replace(self, function=function, n_labels=n_labels)

    @property
    def n_readout(self) -> int:
        """Number of trained parameters."""
        return self.function.start.size

    def initial_readout(self) -> Floats:
        """The parameters (r,) as they were given."""
        return self.function.start.copy()

    def value(self, x: Floats, readout: Floats) -> Floats:
        """ℓ, (n, K)."""
        own = self._own(readout)
        return self._by_label([self.function.value(own, [x], label) for label in self._labels])

    def gradient(self, x: Floats, readout: Floats) -> Floats:
        """∂ℓ/∂x, (n, K, dim)."""
        ones, own = np.ones(len(x)), self._own(readout)
        return self._by_label([self.function.pull_back(own, [x], ones, label)[2][0] for label in self._labels])

    def readout_vjp(self, x: Floats, readout: Floats, w: Floats) -> Floats:
        """Gradient (r,) with respect to the readout of Σ w_ny ℓ(x_n, y), w (n, K)."""
        if not self.n_readout:
            return np.zeros(0)
        columns = w.T if self.function.labelled else [w.sum(axis=1)]
        total, own = np.zeros(self.n_readout), self._own(readout)
        for label, column in zip(self._labels, columns, strict=True):
            total += self.function.pull_back(own, [x], np.ascontiguousarray(column), label)[1]
        return total

    def _own(self, readout: Floats) -> Floats:
        """Its parameters: those of other costs may follow them."""
        return readout[: self.n_readout]

    @property
    def _labels(self) -> range:
        """Those that the function tells apart."""
        return range(self.n_labels if self.function.labelled else 1)

    def _by_label(self, columns: list[Floats]) -> Floats:
        """Arrays (n, …) of the labels as (n, K, …)."""
        found = np.stack(columns, axis=1)
        return found if self.function.labelled else np.repeat(found, self.n_labels, axis=1)


@final
@dataclass(frozen=True)
class FrameworkPotential(PointFunction):
    """A function V(x) that another library differentiates, by x and by parameters of its own.

    Attributes:
        function: of points x (n, dim).
        parameters: (r,) that it is evaluated with, where they are fixed; None for those that training starts from.
    """

    function: FrameworkFunction
    parameters: Floats | None = None

    def value(self, x: Floats, /) -> Floats:
        """V, (n,)."""
        return self.function.value(self._parameters, [x])

    def gradient(self, x: Floats, /) -> Floats:
        """∇V, (n, dim)."""
        return self.function.pull_back(self._parameters, [x], np.ones(len(x)))[2][0]

    @property
    def n_readout(self) -> int:
        """Number of trained parameters; 0 once they are fixed."""
        return self.function.start.size if self.parameters is None else 0

    def initial_readout(self) -> Floats:
        """The parameters (r,) as they were given."""
        return self.function.start.copy() if self.parameters is None else np.zeros(0)

    def called(self, key: str) -> Self:
        """The same, with another name in messages."""
        return replace(self, function=self.function.called(key))

    def at(self, readout: Floats) -> Self:
        """See ``PointFunction``."""
        count = self.n_readout
        return replace(self, parameters=readout[readout.size - count :].copy()) if count else self

    def readout_vjp(self, x: Floats, w: Floats) -> Floats:
        """See ``PointFunction``."""
        return self.function.pull_back(self._parameters, [x], w)[1]

    @property
    def _parameters(self) -> Floats:
        return self.function.start if self.parameters is None else self.parameters


def count_parameters(cost: Any) -> int:
    """Number of trained parameters of a loss or a functional of a library's function; 0 of anything else."""
    function = getattr(cost, "function", None)
    return function.start.size if isinstance(function, FrameworkFunction) else 0


def started_at(cost: Any, readout: Sequence[float], key: str) -> Any:
    """A loss or a functional of a library's function, with other parameters (r,) to start from.

    Args:
        cost: of ``eulerian.jax`` or ``eulerian.torch``.
        readout: the parameters.
        key: that gives them, for messages.

    Raises:
        InputError: it is something else, or has another number of parameters.
    """
    function = getattr(cost, "function", None)
    if not isinstance(function, FrameworkFunction):
        what, remedy = "is for losses of eulerian.jax and eulerian.torch only", "Leave it out."
        raise InputError(what, key=key, value=type(cost).__name__, remedy=remedy)
    if len(readout) != function.start.size:
        what = f"has {len(readout)} numbers, but the loss trains {function.start.size}"
        raise InputError(what, key=key, remedy="Give one for each parameter, or leave it out.")
    return replace(cost, function=function.started_at(np.array(readout, dtype=np.float64)))


def _pieces(rows: Sequence[Floats]) -> list[list[Floats]]:
    """At most PIECE rows at a time; none of no rows, which many a function does not take."""
    return [[array[start : start + PIECE] for array in rows] for start in range(0, len(rows[0]), PIECE)]
