"""Units of the domain: a network sees where in the domain's box it is, and answers in boxes per horizon.

So J does not depend on where the origin of the coordinates is, nor on the units of length and time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.base import REQUIRED, VectorField, check_box, checked

ARRAYS = ("box_centre", "length_unit", "velocity_unit", "time_unit")
"""Names of a frame's numbers where it is stored beside θ."""


@final
@dataclass(frozen=True)
class Frame:
    """Coordinates u = (x − c)/h, a unit of velocity and one of time.

    Every axis has its own h: a network resolves a corridor as finely across as along it, and axes may have units of
    their own. The velocity has one unit for all axes, because its cost |v|² has: so equal changes of what a network
    returns cost the same.

    Attributes:
        centre: c (dim,), of the domain's bounding box.
        length: h (dim,), the units of length along the axes, in proportion to the box.
        velocity: the unit of velocities, the largest h per horizon.
        time: the unit of time, the horizon.
    """

    centre: tuple[float, ...]
    length: tuple[float, ...]
    velocity: float = 1.0
    time: float = 1.0

    @classmethod
    def of_box(cls, lower: Sequence[float], upper: Sequence[float], horizon: float, reach: float = 1.0) -> Self:
        """The frame in which a domain's box is from −reach to reach along every axis.

        Raises:
            InputError: the corners (dim,) are not finite, or lower is not below upper.
        """
        low, high = check_box(len(lower), lower, upper)
        centre, length = 0.5 * (low + high), (high - low) / (2.0 * reach)
        return cls(tuple(centre.tolist()), tuple(length.tolist()), float(length.max()) / horizon, horizon)

    @classmethod
    def raw(cls, dim: int) -> Self:
        """The frame in which everything is as the user has it."""
        return cls((0.0,) * dim, (1.0,) * dim)

    def relative(self, x: Floats) -> Floats:
        """Coordinates u (n, dim) of points x (n, dim)."""
        return np.asarray((checked("x", x, (None, len(self.length))) - np.array(self.centre)) / np.array(self.length))

    @property
    def arrays(self) -> dict[str, Floats]:
        """Its numbers by the names under which they are stored."""
        numbers = (self.centre, self.length, self.velocity, self.time)
        return {name: np.array(number) for name, number in zip(ARRAYS, numbers, strict=True)}


@dataclass(frozen=True)
class FieldWrapper:
    """A field that is another one, f, seen in another way: it has the methods and the parameters that f has.

    Attributes:
        wrapped: f.
    """

    wrapped: VectorField

    @property
    def time_dependent(self) -> bool:
        """Whether f is."""
        return bool(getattr(self.wrapped, "time_dependent", False))

    @property
    def n_labels(self) -> int:
        """Number K of labels that f distinguishes; 0 where it sees none."""
        return int(getattr(self.wrapped, "n_labels", 0))

    def n_params(self, dim: int, /) -> int:
        """Those of f."""
        return self.wrapped.n_params(dim)

    def init(self, rng: np.random.Generator, /) -> Floats:
        """Those of f."""
        return self.wrapped.init(rng)


@final
@dataclass(frozen=True)
class NormalisedField(FieldWrapper):
    """A field f in the frame of a domain: v(x, θ) = V f((x − c)/h, θ), with all derivatives by the chain rule.

    A field that depends on time is given t/T. In ``Frame.raw`` it is f itself.

    Attributes:
        frame: c, h, V and T.
    """

    frame: Frame

    def in_box(self, lower: Sequence[float], upper: Sequence[float], horizon: float) -> Self:  # noqa: ARG002
        """Itself: its θ is relative to its own frame, whatever the domain is."""
        return self

    def in_frame(self, frame: Frame) -> VectorField:
        """F in another frame instead."""
        return framed(self.wrapped, frame)

    def value(self, theta: Floats, x: Floats, label: int | None = None, **time: float) -> Floats:
        """Velocities (n, dim) at points x (n, dim)."""
        return self.frame.velocity * self.wrapped.value(theta, self.frame.relative(x), **self._inputs(label, time))

    def vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None, **time: float) -> Floats:
        """Gradient (p,) of Σ_n w_n · v(x_n, θ), w (n, dim)."""
        u, w = self.frame.relative(x), self.frame.velocity * np.asarray(w)
        return self.wrapped.vjp(theta, u, w, **self._inputs(label, time))

    def value_and_vjp(self, theta: Floats, x: Floats, label: int | None = None, **time: float) -> Any:
        """``value``, and ``vjp`` as a function of w."""
        method: Any = self.wrapped.value_and_vjp  # type: ignore[attr-defined]
        v, vjp = method(theta, self.frame.relative(x), **self._inputs(label, time))
        return self.frame.velocity * v, lambda w: vjp(self.frame.velocity * w)

    def theta_jacobian(self, theta: Floats, x: Floats, label: int | None = None, **time: float) -> Floats:
        """∂v_i/∂θ_k as entry [n, i, k] of an array (n, dim, p)."""
        method: Any = self.wrapped.theta_jacobian  # type: ignore[attr-defined]
        return np.asarray(self.frame.velocity * method(theta, self.frame.relative(x), **self._inputs(label, time)))

    def jacobian(self, theta: Floats, x: Floats, label: int | None = None, **time: float) -> Floats:
        """∂v_i/∂x_j as entry [n, i, j] of an array (n, dim, dim)."""
        return self.wrapped.jacobian(theta, self.frame.relative(x), **self._inputs(label, time)) * self._slope

    def value_and_diagonal(
        self, theta: Floats, x: Floats, label: int | None = None, **time: float
    ) -> tuple[Floats, Floats]:
        """``value``, and ∂v_i/∂x_i (n, dim)."""
        method: Any = self.wrapped.value_and_diagonal  # type: ignore[attr-defined]
        v, diagonal = method(theta, self.frame.relative(x), **self._inputs(label, time))
        return self.frame.velocity * v, diagonal * self._slope

    def jacobian_vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None, **time: float) -> Floats:
        """Gradient (p,) of Σ_n w_n : ∇v(x_n, θ), w (n, dim, dim)."""
        return self.wrapped.jacobian_vjp(theta, self.frame.relative(x), self._by_u(x, w), **self._inputs(label, time))

    def jacobian_vjp_x(self, theta: Floats, x: Floats, w: Floats, label: int | None = None, **time: float) -> Floats:
        """Gradients (n, dim) of w_n : ∇v(x_n, θ) with respect to x_n, w (n, dim, dim)."""
        u, w = self.frame.relative(x), self._by_u(x, w)
        return np.asarray(self.wrapped.jacobian_vjp_x(theta, u, w, **self._inputs(label, time)) / self.frame.length)

    def pull_back(
        self, theta: Floats, x: Floats, w: Floats, label: int | None = None, **time: float
    ) -> tuple[Floats, Floats]:
        """``vjp`` together with the gradients (n, dim) by the points."""
        method: Any = self.wrapped.pull_back  # type: ignore[attr-defined]
        found = method(theta, self.frame.relative(x), self.frame.velocity * w, **self._inputs(label, time))
        return found[0], found[1] / np.array(self.frame.length)

    def jacobian_pull_back(
        self, theta: Floats, x: Floats, w: Floats, label: int | None = None, **time: float
    ) -> tuple[Floats, Floats]:
        """``jacobian_vjp`` and ``jacobian_vjp_x`` together."""
        method: Any = self.wrapped.jacobian_pull_back  # type: ignore[attr-defined]
        found = method(theta, self.frame.relative(x), self._by_u(x, w), **self._inputs(label, time))
        return found[0], found[1] / np.array(self.frame.length)

    @property
    def _slope(self) -> Floats:
        """Factors of ∂v_i/∂x_j over ∂f_i/∂u_j, by the last axis."""
        return np.asarray(self.frame.velocity / np.array(self.frame.length))

    def _by_u(self, x: Floats, w: Floats) -> Floats:
        """Cotangents of ∂f_i/∂u_j of those of ∂v_i/∂x_j, both (n, dim, dim)."""
        return checked("w", w, (len(x), len(self.frame.length), len(self.frame.length))) * self._slope

    def _inputs(self, label: int | None, time: dict[str, float]) -> dict[str, Any]:
        inputs: dict[str, Any] = {} if label is None else {"label": label}
        return inputs | {name: moment / self.frame.time for name, moment in time.items()}


def in_box(field: VectorField, lower: Sequence[float], upper: Sequence[float], horizon: float) -> VectorField:
    """The field as it is used in a domain: networks are put into the frame of its box, others stay as they are.

    The field's own method ``in_box(lower, upper, horizon)`` decides, where it has one. Of others those with a true
    attribute ``normalised`` are put into the frame in which the box is from −1 to 1. To have a network see the user's
    coordinates, give it as ``NormalisedField(field, Frame.raw(dim))``.

    Args:
        field: any field, of this package or of the user's.
        lower: corner (dim,) of the domain's bounding box, the same on all ranks.
        upper: opposite corner.
        horizon: T.

    Raises:
        InputError: it is no field, or one for another dimension.
    """
    missing = [method for method in REQUIRED if not callable(getattr(field, method, None))]
    if missing:
        what = f"{type(field).__name__} is no VectorField: it has no {', '.join(missing)}"
        remedy = "Give Mlp(...), Linear(...), a wrapped model, or an object with these methods."
        raise InputError(what, key="field", value=repr(field)[:60], remedy=remedy)
    field.n_params(len(lower))
    own = getattr(field, "in_box", None)
    if callable(own):
        framed: VectorField = own(lower, upper, horizon)
        return framed
    if getattr(field, "normalised", False):
        return NormalisedField(field, Frame.of_box(lower, upper, horizon))
    return field


def framed(field: VectorField, frame: Frame) -> VectorField:
    """The field with parameters that are relative to a frame; its own method ``in_frame`` decides, where it has one."""
    own = getattr(field, "in_frame", None)
    found: VectorField = own(frame) if callable(own) else NormalisedField(field, frame)
    return found


def in_frame(field: VectorField, frame: Frame) -> VectorField:
    """The field with parameters that are relative to ``frame`` instead of to its own, if they are relative to any."""
    return field if frame_of(field) is None else framed(field, frame)


def unwrapped(field: VectorField) -> VectorField:
    """The field without the frame and the limit that it may be in: its class has the methods that count."""
    return unwrapped(field.wrapped) if isinstance(field, FieldWrapper) else field


def rewrapped(field: VectorField, inner: VectorField) -> VectorField:
    """Another field in the frame and the limit that ``field`` is in."""
    if not isinstance(field, FieldWrapper):
        return inner
    wrapper: VectorField = replace(field, wrapped=rewrapped(field.wrapped, inner))
    return wrapper


def frame_of(field: VectorField) -> Frame | None:
    """The frame that a field's parameters are relative to; None where they are in the user's units."""
    if isinstance(field, NormalisedField):
        return field.frame
    return frame_of(field.wrapped) if isinstance(field, FieldWrapper) else None


@final
@dataclass(frozen=True)
class AffineUnits:
    """Parameters (W row by row, b) of x ↦ W x + b, relative to a frame: W' = W h/s and b' = (b + W c)/s.

    They are other numbers for the same map, u ↦ s (W' u + b'). Descents work with these: by W and b the map changes in
    very unequal ways where the box is far from the origin or its size far from one.

    Attributes:
        frame: c and h.
        outputs: m, of W (m, inputs) and b (m,); arrays hold any number of such blocks, one after the other.
        inputs: the dimension, or 0 where there is b only.
        unit: s.
    """

    frame: Frame
    outputs: int
    inputs: int
    unit: float

    def relative(self, absolute: Floats) -> Floats:
        """(W', b') of (W, b), both (..., p)."""
        w, b = self._split(absolute)
        return self._joined(absolute, w * self._length / self.unit, (b + w @ self._centre) / self.unit)

    def absolute(self, relative: Floats) -> Floats:
        """(W, b) of (W', b'), both (..., p)."""
        w, b = self._split(relative)
        w = w * (self.unit / self._length)
        return self._joined(relative, w, b * self.unit - w @ self._centre)

    def gradient(self, absolute: Floats) -> Floats:
        """Derivatives by (W', b') of those by (W, b), both (..., p)."""
        w, b = self._split(absolute)  # the transpose of ``absolute``, which is linear
        w = (w - b[..., None] * self._centre) * (self.unit / self._length)
        return self._joined(absolute, w, b * self.unit)

    @property
    def diagonal(self) -> "AffineUnits":
        """The units in which b stays by itself: b' = b/s."""
        return replace(self, frame=replace(self.frame, centre=(0.0,) * len(self.frame.centre)))

    @property
    def _length(self) -> Floats:
        return np.array(self.frame.length[: self.inputs])

    @property
    def _centre(self) -> Floats:
        return np.array(self.frame.centre[: self.inputs])

    def _split(self, flat: Floats) -> tuple[Floats, Floats]:
        """W (..., blocks, m, inputs) and b (..., blocks, m)."""
        blocks = flat.reshape(*flat.shape[:-1], -1, self.outputs * (self.inputs + 1))
        w = blocks[..., : self.outputs * self.inputs]
        return w.reshape(*blocks.shape[:-1], self.outputs, self.inputs), blocks[..., self.outputs * self.inputs :]

    def _joined(self, like: Floats, w: Floats, b: Floats) -> Floats:
        rows = w.reshape(*b.shape[:-1], self.outputs * self.inputs)
        return np.concatenate([rows, b], axis=-1).reshape(like.shape)


@final
@dataclass(frozen=True)
class ParameterUnits:
    """Units of a whole θ, of layers and readout in one vector (n,): descents work with the numbers relative to them.

    Attributes:
        layers: of all rows of the field; None where θ has no units, as that of a network has none.
        readout: of the numbers behind them; None without a readout, or where it has no units.
        n_readout: how many these are.
    """

    layers: AffineUnits | None = None
    readout: AffineUnits | None = None
    n_readout: int = 0

    @classmethod
    def of(cls, field: VectorField, box: tuple[Floats, Floats], n_readout: int, *, affine: bool = True) -> Self:
        """Those of a field and of a readout (W row by row, b) of points in a box, of another one, or of none."""
        layers = getattr(field, "units", None)
        if not n_readout or not affine:
            return cls(layers if isinstance(layers, AffineUnits) else None, None, n_readout)
        low, high = box
        frame = Frame.of_box(low.tolist(), high.tolist(), 1.0)
        readout = AffineUnits(frame, n_readout // (len(low) + 1), len(low), 1.0)
        return cls(layers if isinstance(layers, AffineUnits) else None, readout, n_readout)

    def relative(self, theta: Floats) -> Floats:
        """θ in units of the box."""
        return self._both(theta, AffineUnits.relative)

    def absolute(self, theta: Floats) -> Floats:
        """θ of the one in units of the box."""
        return self._both(theta, AffineUnits.absolute)

    def gradient(self, gradient: Floats) -> Floats:
        """The derivative by θ in units of the box of the one by θ."""
        return self._both(gradient, AffineUnits.gradient)

    def diagonal(self, size: int) -> Floats:
        """Factors (n,) from a θ of this size to units of the box in which no number has a share in another one."""
        layers = None if self.layers is None else self.layers.diagonal
        readout = None if self.readout is None else self.readout.diagonal
        return replace(self, layers=layers, readout=readout).relative(np.ones(size))

    def _both(self, flat: Floats, change: Any) -> Floats:
        if self.layers is None and self.readout is None:
            return flat
        first, rest = np.split(flat, [flat.size - self.n_readout])
        first = first if self.layers is None else change(self.layers, first)
        return np.concatenate([first, rest if self.readout is None else change(self.readout, rest)])
