"""A field that is never faster than a given speed, with exact derivatives by the chain rule.

v = w / √(1 + |w|²/V²) of the velocity w of another field: smooth, in its direction, almost w where |w| is much less
than V, and shorter than V everywhere. With u = v/V and s = √(1 − |u|²) = |v|/|w| its derivative by w is s (I − u uᵀ).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.base import checked, quiet
from eulerian.fields.frame import FieldWrapper, Frame, framed, in_box

# Rounding must not lift a speed above V.
_BELOW = 1.0 - 2.0**-49


@final
@dataclass(frozen=True)
class _Map:
    """w ↦ v at n points, with its derivatives.

    Attributes:
        u: v/V (n, dim).
        s: |v|/|w| (n,).
        limit: V.
    """

    u: Floats
    s: Floats
    limit: float

    @classmethod
    def of(cls, w: Floats, limit: float) -> Self:
        """At velocities w (n, dim); hypot, for the square of a far-off velocity overflows."""
        s = limit / np.hypot(limit, np.hypot.reduce(w, axis=1))
        return cls(s[:, None] * w / limit, s, limit)

    @property
    def value(self) -> Floats:
        """The velocities v (n, dim)."""
        return self.limit * self.u

    def times(self, c: Floats) -> Floats:
        """The derivative, which is symmetric, times c (n, dim) or, column by column, c (n, dim, m)."""
        if c.ndim == 2:
            along = np.einsum("ni,ni->n", self.u, c)
            return np.asarray(self.s[:, None] * (c - along[:, None] * self.u))
        rows = np.einsum("ni,nik->nk", self.u, c)
        return np.asarray(self.s[:, None, None] * (c - self.u[:, :, None] * rows[:, None, :]))

    def pulled_back(self, c: Floats) -> Floats:
        """The cotangents (n, dim) of w of those of v."""
        return self.times(checked("w", c, self.u.shape))

    def bend(self, a: Floats, c: Floats) -> Floats:
        """Gradients (n, dim) by w of c : (derivative · a), both (n, dim, dim)."""
        m = c @ a.swapaxes(1, 2)
        mu = np.einsum("nij,nj->ni", m, self.u)
        across = np.einsum("nii->n", m) - 3.0 * np.einsum("ni,ni->n", self.u, mu)
        both = mu + np.einsum("nij,ni->nj", m, self.u)
        return np.asarray(-(self.s**2 / self.limit)[:, None] * (across[:, None] * self.u + both))


@final
@dataclass(frozen=True)
class SpeedLimit(FieldWrapper):
    """The field v = w / √(1 + |w|²/V²) of the velocity w of any other field: |v| < V everywhere, for every θ.

    V is in the user's units of length per time, whatever frame the other field is in. v is not linear in θ where w is:
    the theorem by which a minimiser exists for such fields does not hold for it. On meshes of degree 2 the
    finite-element velocity, which has the field's values at its nodes, may be a little faster between them.

    Example:
        ``eu.SpeedLimit(field, 2.0)``; for a perceptron, ``eu.Mlp(2, [16], max_speed=2.0)`` is the same.

    Attributes:
        wrapped: the other field; one of velocities at the nodes of a mesh needs no such map: bound its θ.
        max_speed: V.
    """

    max_speed: float

    def __post_init__(self) -> None:
        check_max_speed(self.max_speed)
        if getattr(self.wrapped, "at_nodes_only", False):
            what = "its parameters are its velocities: a map behind them would make these numbers mean something else"
            remedy = "Bound θ itself: minimise(problem, bounds=(-V, V))."
            raise InputError(what, key="max_speed", value=type(self.wrapped).__name__, remedy=remedy)

    @property
    def normalised(self) -> bool:
        """Whether the other field asks for the frame of a domain."""
        return bool(getattr(self.wrapped, "normalised", False))

    @property
    def units(self) -> Any:
        """Those of the other field's θ, if it has any."""
        return getattr(self.wrapped, "units", None)

    def in_box(self, lower: Sequence[float], upper: Sequence[float], horizon: float) -> Self:
        """The other field as it is in a domain, with the same limit."""
        return replace(self, wrapped=in_box(self.wrapped, lower, upper, horizon))

    def in_frame(self, frame: Frame) -> Self:
        """The other field in a frame, with the same limit."""
        return replace(self, wrapped=framed(self.wrapped, frame))

    @quiet
    def value(self, theta: Floats, x: Floats, label: int | None = None, **time: float) -> Floats:
        """Velocities (n, dim) at points x (n, dim)."""
        return self._map(theta, x, label, time).value

    @quiet
    def vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None, **time: float) -> Floats:
        """Gradient (p,) of Σ_n w_n · v(x_n, θ), w (n, dim)."""
        by_velocity = self._map(theta, x, label, time).pulled_back(w)
        return self.wrapped.vjp(theta, x, by_velocity, **_inputs(label, time))

    @quiet
    def value_and_vjp(
        self, theta: Floats, x: Floats, label: int | None = None, **time: float
    ) -> tuple[Floats, Callable[[Floats], Floats]]:
        """``value``, and ``vjp`` as a function of w."""
        method: Any = self.wrapped.value_and_vjp  # type: ignore[attr-defined]
        found, back = method(theta, x, **_inputs(label, time))
        limited = _Map.of(found, self._limit)

        @quiet
        def vjp(w: Floats) -> Floats:
            return np.asarray(back(limited.pulled_back(w)))

        return limited.value, vjp

    @quiet
    def theta_jacobian(self, theta: Floats, x: Floats, label: int | None = None, **time: float) -> Floats:
        """∂v_i/∂θ_k as entry [n, i, k] of an array (n, dim, p)."""
        method: Any = self.wrapped.theta_jacobian  # type: ignore[attr-defined]
        return self._map(theta, x, label, time).times(method(theta, x, **_inputs(label, time)))

    @quiet
    def jacobian(self, theta: Floats, x: Floats, label: int | None = None, **time: float) -> Floats:
        """∂v_i/∂x_j as entry [n, i, j] of an array (n, dim, dim)."""
        a = self.wrapped.jacobian(theta, x, **_inputs(label, time))
        return self._map(theta, x, label, time).times(a)

    @quiet
    def value_and_diagonal(
        self, theta: Floats, x: Floats, label: int | None = None, **time: float
    ) -> tuple[Floats, Floats]:
        """``value``, and ∂v_i/∂x_i (n, dim): all derivatives of the other field are in these."""
        limited = self._map(theta, x, label, time)
        a = limited.times(self.wrapped.jacobian(theta, x, **_inputs(label, time)))
        return limited.value, np.ascontiguousarray(np.einsum("nii->ni", a))

    @quiet
    def jacobian_vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None, **time: float) -> Floats:
        """Gradient (p,) of Σ_n w_n : ∇v(x_n, θ), w (n, dim, dim)."""
        by_velocity, by_jacobian, _ = self._cotangents(theta, x, w, label, time)
        bent = self.wrapped.jacobian_vjp(theta, x, by_jacobian, **_inputs(label, time))
        return np.asarray(bent + self.wrapped.vjp(theta, x, by_velocity, **_inputs(label, time)))

    @quiet
    def jacobian_vjp_x(self, theta: Floats, x: Floats, w: Floats, label: int | None = None, **time: float) -> Floats:
        """Gradients (n, dim) of w_n : ∇v(x_n, θ) with respect to x_n, w (n, dim, dim)."""
        by_velocity, by_jacobian, a = self._cotangents(theta, x, w, label, time)
        bent = self.wrapped.jacobian_vjp_x(theta, x, by_jacobian, **_inputs(label, time))
        return np.asarray(bent + np.einsum("nij,ni->nj", a, by_velocity))

    @quiet
    def pull_back(
        self, theta: Floats, x: Floats, w: Floats, label: int | None = None, **time: float
    ) -> tuple[Floats, Floats]:
        """``vjp`` together with the gradients (n, dim) by the points."""
        method: Any = self.wrapped.pull_back  # type: ignore[attr-defined]
        by_velocity = self._map(theta, x, label, time).pulled_back(w)
        by_theta, by_point = method(theta, x, by_velocity, **_inputs(label, time))
        return by_theta, by_point

    @quiet
    def jacobian_pull_back(
        self, theta: Floats, x: Floats, w: Floats, label: int | None = None, **time: float
    ) -> tuple[Floats, Floats]:
        """``jacobian_vjp`` and ``jacobian_vjp_x`` together."""
        by_velocity, by_jacobian, a = self._cotangents(theta, x, w, label, time)
        method: Any = self.wrapped.jacobian_pull_back  # type: ignore[attr-defined]
        by_theta, by_point = method(theta, x, by_jacobian, **_inputs(label, time))
        by_theta = by_theta + self.wrapped.vjp(theta, x, by_velocity, **_inputs(label, time))
        return by_theta, by_point + np.einsum("nij,ni->nj", a, by_velocity)

    @property
    def _limit(self) -> float:
        return self.max_speed * _BELOW

    def _map(self, theta: Floats, x: Floats, label: int | None, time: dict[str, float]) -> _Map:
        return _Map.of(self.wrapped.value(theta, x, **_inputs(label, time)), self._limit)

    def _cotangents(
        self, theta: Floats, x: Floats, w: Floats, label: int | None, time: dict[str, float]
    ) -> tuple[Floats, Floats, Floats]:
        """Of a cotangent w (n, dim, dim) of ∇v: those of the other field's velocity and Jacobian, and that Jacobian."""
        limited = self._map(theta, x, label, time)
        w = checked("w", w, (*limited.u.shape, limited.u.shape[1]))
        a = self.wrapped.jacobian(theta, x, **_inputs(label, time))
        return limited.bend(a, w), limited.times(w), a


def check_max_speed(speed: float) -> None:
    """Raise InputError unless a speed is one that can be a limit."""
    if isinstance(speed, bool) or not isinstance(speed, int | float | np.floating) or not 0.0 < speed < math.inf:
        remedy = "Give a speed in units of length per time, like 2.0."
        raise InputError("must be a finite number > 0", key="max_speed", value=speed, remedy=remedy)


def _inputs(label: int | None, time: dict[str, float]) -> dict[str, Any]:
    return time if label is None else {"label": label, **time}
