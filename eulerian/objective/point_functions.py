"""Functions of points that a user gives, as a formula or in Python: checked at every call, with derivatives."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError, explained
from eulerian.base.formula import COORDINATES, Expression
from eulerian.objective.ufl_objects import refuse_ufl, remedy_of


class PointFunction(ABC):
    """A function V(x) with its derivative, possibly with parameters of its own that are trained; x is (n, dim)."""

    @abstractmethod
    def value(self, x: Floats, /) -> Floats:
        """V, (n,), with the parameters that it has."""

    @abstractmethod
    def gradient(self, x: Floats, /) -> Floats:
        """∇V, (n, dim)."""

    @property
    def n_readout(self) -> int:
        """Number of trained parameters."""
        return 0

    def initial_readout(self) -> Floats:
        """Where they start, (r,)."""
        return np.zeros(0)

    def called(self, key: str) -> "PointFunction":  # noqa: ARG002 - of those with messages
        """The same, with another name in messages."""
        return self

    def at(self, readout: Floats) -> "PointFunction":  # noqa: ARG002 - of trained ones
        """The function with its parameters fixed: the last r of these, those of other costs stand before them."""
        return self

    def readout_vjp(self, x: Floats, w: Floats) -> Floats:  # noqa: ARG002 - of trained ones
        """Gradient (r,) with respect to the parameters that it has of Σ w_n V(x_n), w (n,)."""
        return np.zeros(0)


@final
@dataclass(frozen=True)
class FormulaFunction(PointFunction):
    """A formula in the coordinates.

    Attributes:
        expression: the formula.
        dim: of space.
    """

    expression: Expression
    dim: int

    def value(self, x: Floats, /) -> Floats:
        """V, (n,)."""
        return self.expression(self._at(x))

    def gradient(self, x: Floats, /) -> Floats:
        """∇V, (n, dim)."""
        return np.stack(self.expression.gradient(self._at(x), COORDINATES[: self.dim])[1], axis=1)

    def _at(self, x: Floats) -> dict[str, Floats]:
        return dict(zip(COORDINATES, x.T, strict=False))


@final
@dataclass(frozen=True)
class PythonFunction(PointFunction):
    """A Python function of points (n, dim) that returns (n,).

    Attributes:
        function: it.
        key: what it is called in messages.
    """

    function: Callable[[Floats], ArrayLike]
    key: str

    def value(self, x: Floats, /) -> Floats:
        """V, (n,)."""
        return called(self.function, x, (len(x),), self.key)

    def gradient(self, x: Floats, /) -> Floats:
        """∇V, (n, dim); see ``central_differences``."""
        return central_differences(self.value, x)


def as_point_function(what: str | Callable[[Floats], ArrayLike] | PointFunction, dim: int, key: str) -> PointFunction:
    """The text of a formula in x, y, z, or a function of points (n, dim), as a function with a derivative.

    Raises:
        InputError: it is neither, or the formula has other variables than the dimension.
    """
    if isinstance(what, PointFunction):
        return what.called(key)
    refuse_ufl(what, key)
    if isinstance(what, str):
        return FormulaFunction(Expression.parse(what, COORDINATES[:dim], key), dim)
    if callable(what):
        return PythonFunction(what, key)
    remedy = "Give a formula in quotes, a function of points (n, dim) that returns (n,), or potential(f) of a library."
    raise InputError("is neither a formula nor a function", key=key, value=type(what).__name__, remedy=remedy)


def called(function: Callable[..., Any], x: Floats, shape: tuple[int, ...], key: str, *more: int) -> Floats:
    """What a user's function returns at points x (n, dim), as float64 of the shape that it must have.

    Raises:
        InputError: it raises, or returns something else; its numbers may be NaN or infinite.
    """
    if not len(x):  # a rank without points: many a function fails there
        return np.zeros(shape)
    given = _guarded(lambda: function(x.copy(), *more), key)  # a copy, for it may write into its argument
    refuse_ufl(given, key)
    found: NDArray[Any] = _guarded(lambda: np.asarray(given), key)
    arguments = ", ".join([f"points of shape {x.shape}", *(f"label {label}" for label in more)])
    if found.dtype.kind not in "biuf":
        what = f"the function must return real numbers, but for {arguments} it returned {found.dtype}"
        raise InputError(what, key=key, remedy=f"Return a NumPy array of shape {shape}.")
    if found.shape != shape:
        what = f"the function must return one number for each point: for {arguments} it returned shape {found.shape}"
        raise InputError(what, key=key, remedy=f"Return an array of shape {shape}, like f(x).sum(axis=1).")
    return found.astype(np.float64)


def _guarded(of_user: Callable[[], Any], key: str) -> Any:
    try:
        return of_user()
    except (Exception, SystemExit) as error:
        raise InputError(f"the function raised {explained(error)}", key=key, remedy=remedy_of(error)) from error


def central_differences(function: Callable[[Floats], Floats], x: Floats, length: float = 1.0) -> Floats:
    """The derivative (n, dim) of a function x (n, dim) ↦ (n,), of fourth order.

    The step along an axis is h = ε^(1/5) ≈ 7e-4 times ``length``, over which the function should vary: there the error
    h⁴/30 |V⁽⁵⁾| of the difference and that of rounding are alike, and the result is right to about 1e-12 |V|/length.
    Far from the origin h is at least 7e-7 of the coordinate, which could not be told apart from a smaller shift's
    rounding. A function that varies over much shorter lengths needs a derivative of its own.
    """
    gradient = np.empty_like(x)
    for axis in range(x.shape[1]):
        there = x[:, axis]
        # What was added in floating point is the step, not what was to be added.
        step = there + np.finfo(float).eps ** 0.2 * np.maximum(1e-3 * np.abs(there), length) - there
        # Richardson's extrapolation of two central differences: the errors of order h² cancel.
        ahead, behind, far_ahead, far_behind = (
            function(_moved(x, axis, shift * step)) for shift in (1.0, -1.0, 2.0, -2.0)
        )
        gradient[:, axis] = (8.0 * (ahead - behind) - (far_ahead - far_behind)) / (12.0 * step)
    return gradient


def _moved(x: Floats, axis: int, step: Floats) -> Floats:
    moved = x.copy()
    moved[:, axis] += step
    return moved
