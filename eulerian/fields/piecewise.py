"""A field as the layers use it: each layer has its time, and the field gets label and time only if it wants them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.fields.base import VectorField, returned
from eulerian.fields.frame import unwrapped


class PiecewiseField:
    """A field in L layers of time.

    The methods are those of ``VectorField`` with the layer's number in front; ``label`` is always welcome and reaches
    fields that depend on it, and so does the layer's time. What a field returns is looked at each time: a user's may
    change its mind.

    Args:
        field: v(x, θ); a true attribute ``time_dependent`` asks for the keyword ``time``.
        times: (L,) midpoints of the layers.
        label_dependent: the field takes the label.

    Attributes:
        time_dependent: the field takes the time.
    """

    def __init__(self, field: VectorField, times: Sequence[float], *, label_dependent: bool = False) -> None:
        self.field, self.times, self.label_dependent = field, tuple(times), label_dependent
        self.time_dependent = bool(getattr(field, "time_dependent", False))

    @classmethod
    def equal(
        cls, field: VectorField, horizon: float, layers: int, *, label_dependent: bool = False
    ) -> "PiecewiseField":
        """Layers of equal length."""
        times = (np.arange(layers) + 0.5) * (horizon / layers)
        return cls(field, times.tolist(), label_dependent=label_dependent)

    def value(self, layer: int, row: Floats, x: Floats, label: int | None = None) -> Floats:
        """Velocities (n, dim) at points x (n, dim)."""
        return returned("value", self.field.value(row, x, **self._inputs(layer, label)), x.shape)

    def vjp(self, layer: int, row: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        """Gradient (p,) with respect to θ of Σ_n w_n · v(x_n, θ), w (n, dim)."""
        return returned("vjp", self.field.vjp(row, x, w, **self._inputs(layer, label)), row.shape)

    def value_and_vjp(
        self, layer: int, row: Floats, x: Floats, label: int | None = None
    ) -> tuple[Floats, Callable[[Floats], Floats]]:
        """Velocities (n, dim) at points x (n, dim), and w ↦ ``vjp``; θ and x are not to be changed before its call."""
        method = self._joint("value_and_vjp", ("value", "vjp"))
        if method is not None:
            v, vjp = method(row, x, **self._inputs(layer, label))
            return returned("value_and_vjp", v, x.shape), lambda w: returned("value_and_vjp", vjp(w), row.shape)
        return self.value(layer, row, x, label), lambda w: self.vjp(layer, row, x, w, label)

    def jacobian(self, layer: int, row: Floats, x: Floats, label: int | None = None) -> Floats:
        """Derivatives (n, dim, dim) in space."""
        jacobian = self.field.jacobian(row, x, **self._inputs(layer, label))
        return returned("jacobian", jacobian, (*x.shape, x.shape[1]))

    def value_and_divergence(
        self, layer: int, row: Floats, x: Floats, label: int | None = None
    ) -> tuple[Floats, Floats]:
        """Velocities (n, dim) and their divergence (n,) at points x (n, dim)."""
        method = self._joint("value_and_diagonal", ("value", "jacobian"))
        if method is not None:
            v, diagonal = method(row, x, **self._inputs(layer, label))
            name = "value_and_diagonal"
            return returned(name, v, x.shape), np.einsum("ni->n", returned(name, diagonal, x.shape))
        return self.value(layer, row, x, label), np.einsum("nii->n", self.jacobian(layer, row, x, label))

    def jacobian_vjp(self, layer: int, row: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        """Gradient (p,) with respect to θ of Σ_n w_n : ∇v(x_n, θ), w (n, dim, dim)."""
        gradient = self.field.jacobian_vjp(row, x, w, **self._inputs(layer, label))
        return returned("jacobian_vjp", gradient, row.shape)

    def jacobian_vjp_x(self, layer: int, row: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        """Gradients (n, dim) with respect to x_n of w_n : ∇v(x_n, θ), w (n, dim, dim)."""
        method: Any = self.field.jacobian_vjp_x
        return returned("jacobian_vjp_x", method(row, x, w, **self._inputs(layer, label)), x.shape)

    def has(self, method: str) -> bool:
        """Whether the field has a method of this name."""
        return callable(getattr(unwrapped(self.field), method, None))

    @property
    def at_nodes_only(self) -> bool:
        """Whether the field knows its velocities at the nodes of a mesh only."""
        return bool(getattr(self.field, "at_nodes_only", False))

    @property
    def tells_theta_jacobian(self) -> bool:
        """Whether the field has the method ``theta_jacobian``."""
        return self._joint("theta_jacobian", ("value", "vjp")) is not None

    def theta_jacobian(self, layer: int, row: Floats, x: Floats, label: int | None = None) -> Floats:
        """Derivatives (n, dim, p) by θ, of a field that has this method."""
        method: Any = self.field.theta_jacobian  # type: ignore[attr-defined]
        return returned("theta_jacobian", method(row, x, **self._inputs(layer, label)), (*x.shape, row.size))

    def pull_back(
        self, layer: int, row: Floats, x: Floats, w: Floats, label: int | None = None
    ) -> tuple[Floats, Floats]:
        """Gradients (p,) by θ and (n, dim) by the points of Σ_n w_n · v(x_n, θ), w (n, dim)."""
        method = self._joint("pull_back", ("value", "vjp", "jacobian"))
        if method is not None:
            by_theta, by_point = method(row, x, w, **self._inputs(layer, label))
            return returned("pull_back", by_theta, row.shape), returned("pull_back", by_point, x.shape)
        by_theta = self.vjp(layer, row, x, w, label)
        return by_theta, np.asarray(np.einsum("nij,ni->nj", self.jacobian(layer, row, x, label), w))

    def jacobian_pull_back(
        self, layer: int, row: Floats, x: Floats, w: Floats, label: int | None = None
    ) -> tuple[Floats, Floats]:
        """Gradients (p,) by θ and (n, dim) by the points of Σ_n w_n : ∇v(x_n, θ), w (n, dim, dim)."""
        method = self._joint("jacobian_pull_back", ("jacobian", "jacobian_vjp", "jacobian_vjp_x"))
        if method is not None:
            by_theta, by_point = method(row, x, w, **self._inputs(layer, label))
            name = "jacobian_pull_back"
            return returned(name, by_theta, row.shape), returned(name, by_point, x.shape)
        return self.jacobian_vjp(layer, row, x, w, label), self.jacobian_vjp_x(layer, row, x, w, label)

    def _joint(self, name: str, single: tuple[str, ...]) -> Any:
        """The field's method ``name`` that does the work of others at once, or None.

        A class that inherits it, but has another version of one of the others, does not mean it.
        """
        ancestry = type(unwrapped(self.field)).__mro__

        def depth(method: str) -> int:
            return next((i for i, ancestor in enumerate(ancestry) if method in vars(ancestor)), len(ancestry))

        own = depth(name)
        return getattr(self.field, name) if own < len(ancestry) and all(own <= depth(m) for m in single) else None

    def _inputs(self, layer: int, label: int | None) -> dict[str, Any]:
        inputs: dict[str, Any] = {"label": label} if self.label_dependent else {}
        if self.time_dependent:
            inputs["time"] = self.times[layer]
        return inputs
