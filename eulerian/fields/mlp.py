"""A multilayer perceptron as a velocity field, with exact derivatives written out by hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.fields.activations import Activation, activation
from eulerian.fields.base import (
    KEPT,
    blocks,
    check_dimension,
    check_sizes,
    checked,
    column_sums,
    label_block,
    quiet,
)
from eulerian.fields.frame import Frame, NormalisedField
from eulerian.fields.speed_limit import SpeedLimit

REACH = 4.0
"""The box of a perceptron is from −4 to 4 along every axis, where weights of size one make a few bends.

With a box from −1 to 1 the moons of the templates came down to KL = 0.13 in as many iterations as otherwise to 0.03,
whatever the size of the first weights; with velocities in half boxes per horizon to 0.05.
"""

_LIMITED = (
    "value",
    "vjp",
    "value_and_vjp",
    "theta_jacobian",
    "jacobian",
    "value_and_diagonal",
    "jacobian_vjp",
    "jacobian_vjp_x",
    "pull_back",
    "jacobian_pull_back",
)

type Layers = list[tuple[Floats, Floats]]  # weights (outputs, inputs) and bias (outputs,) of every layer


@dataclass(frozen=True)
class Mlp:
    """v = W_m σ(… σ(W_1 (x, e_y) + b_1) …) + b_m with all weights trained.

    θ = (W_1 row by row, b_1, W_2 row by row, b_2, …). A label-dependent network sees the unit vector e_y of the label
    behind the coordinates: it only adds one column of W_1 to b_1. In a problem x is relative to the domain's box, and
    v to the box and the horizon (see ``in_box``). No theorem says that a minimiser exists for this field; its gap to
    the ideal value can be measured.

    Attributes:
        dim: space dimension.
        hidden: width of every hidden layer.
        activation: tanh, softplus or relu (not differentiable at its kinks; its second derivative is taken as zero).
        n_labels: number K of labels that the network distinguishes; 0 for a label-independent field.
        zero_init: start with a last layer of zeros, so that v = 0 while the hidden layers are random.
        output_scale: factor of the last layer's initial weights when ``zero_init`` is false.
        max_speed: V, in the user's units of length per time: the network is in a ``SpeedLimit``; None for none.
    """

    dim: int
    hidden: tuple[int, ...] = (32, 32)
    activation: str = "tanh"
    n_labels: int = 0
    zero_init: bool = True
    output_scale: float = 1.0
    max_speed: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        check_sizes(dim=self.dim, n_labels=self.n_labels)
        for width in self.hidden:
            check_sizes(hidden=width)
        activation(self.activation)
        if self.max_speed is not None:
            # In the place of its own: what a subclass makes of these methods is limited as well.
            limited = SpeedLimit(self._unlimited, self.max_speed)
            for name in _LIMITED:
                object.__setattr__(self, name, getattr(limited, name))

    def in_box(self, lower: Sequence[float], upper: Sequence[float], horizon: float) -> NormalisedField | SpeedLimit:
        """The network that sees a domain's box as the one from −4 to 4."""
        return self.in_frame(Frame.of_box(lower, upper, horizon, REACH))

    def in_frame(self, frame: Frame) -> NormalisedField | SpeedLimit:
        """The network that sees points in a frame; its limit is one in the user's units all the same."""
        network = NormalisedField(self._unlimited, frame)
        return network if self.max_speed is None else SpeedLimit(network, self.max_speed)

    def n_params(self, dim: int, /) -> int:
        """Number of all weights and biases."""
        check_dimension(self.dim, dim)
        return sum(outputs * (inputs + 1) for outputs, inputs in self._shapes)

    def init(self, rng: np.random.Generator, /) -> Floats:
        """Random hidden layers whose signals keep their size (LeCun et al. 1998; He et al. 2015), then the last layer.

        Biases of hidden layers are random too: with zeros every ridge would pass through the origin of the coordinates.
        """
        theta = np.empty(self.n_params(self.dim))
        *inner, (last, bias) = self._views(theta)
        for depth, (weights, offsets) in enumerate(inner):
            fan_in = weights.shape[1] if depth else self.dim + min(self.n_labels, 1)
            weights[:] = rng.standard_normal(weights.shape) * (self._sigma.gain / fan_in**0.5)
            offsets[:] = rng.uniform(-1.0, 1.0, offsets.shape)
        last[:] = (
            0.0 if self.zero_init else rng.standard_normal(last.shape) * (self.output_scale / last.shape[1] ** 0.5)
        )
        bias[:] = 0.0
        return theta

    @quiet
    def value(self, theta: Floats, x: Floats, label: int | None = None) -> Floats:
        """Velocities (n, dim) at points x (n, dim)."""
        x = checked("x", x, (None, self.dim))
        *inner, (last, bias) = self._layers(theta, label)
        v = np.empty((len(x), self.dim))
        for rows in blocks(len(x), self._widest):
            signal = x[rows]
            for weights, offsets in inner:
                signal = _advance(self._sigma, signal, weights, offsets)
            np.matmul(signal, last.T, out=v[rows])
        v += bias
        return v

    @quiet
    def vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        """Gradient (p,) of Σ_n w_n · v(x_n, θ), w (n, dim): the forward pass is repeated block by block."""
        return self._pulled_back(theta, x, w, label, None)

    @quiet
    def value_and_vjp(
        self, theta: Floats, x: Floats, label: int | None = None
    ) -> tuple[Floats, Callable[[Floats], Floats]]:
        """``value``, and ``vjp`` as a function of w; for few points it does not repeat the forward pass."""
        if len(x) * sum(self.hidden) > KEPT:
            return self.value(theta, x, label), lambda w: self.vjp(theta, x, w, label)
        x = checked("x", x, (None, self.dim))
        layers = self._layers(theta, label)
        last, bias = layers[-1]
        runs = [(rows, _signals(self._sigma, layers, x[rows])) for rows in blocks(len(x), 2 * self._widest)]
        v = np.empty((len(x), self.dim))
        for rows, signals in runs:
            np.matmul(signals[-1], last.T, out=v[rows])
        v += bias

        @quiet
        def vjp(w: Floats) -> Floats:
            w = checked("w", w, x.shape)
            gradient, targets = self._zeros()
            for rows, signals in runs:
                _pull_back(self._sigma, layers, signals, w[rows], targets)
            return self._with_label(gradient, label)

        return v, vjp

    def pull_back(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> tuple[Floats, Floats]:
        """``vjp`` together with the gradients (n, dim) by the points, at the price of one."""
        by_point = np.empty_like(x)
        return self._pulled_back(theta, x, w, label, by_point), by_point

    @quiet
    def _pulled_back(self, theta: Floats, x: Floats, w: Floats, label: int | None, by_point: Floats | None) -> Floats:
        """Gradient (p,) by θ; that by the points is written to ``by_point``, if it is there."""
        x = checked("x", x, (None, self.dim))
        w = checked("w", w, x.shape)
        layers = self._layers(theta, label)
        gradient, targets = self._zeros()
        for rows in blocks(len(x), 2 * self._widest):
            signals = _signals(self._sigma, layers, x[rows])
            back = _pull_back(self._sigma, layers, signals, w[rows], targets)
            if by_point is not None:
                np.matmul(back, layers[0][0], out=by_point[rows])
        return self._with_label(gradient, label)

    @quiet
    def theta_jacobian(self, theta: Floats, x: Floats, label: int | None = None) -> Floats:
        """∂v_i/∂θ_k as entry [n, i, k] of an array (n, dim, p)."""
        x = checked("x", x, (None, self.dim))
        layers = self._layers(theta, label)
        signals = _signals(self._sigma, layers, x)
        jacobian = np.zeros((len(x), self.dim, self.n_params(self.dim)))
        flat = jacobian.reshape(len(x) * self.dim, jacobian.shape[2])
        back = np.broadcast_to(np.eye(self.dim), (len(x), self.dim, self.dim))
        end = flat.shape[1]
        for depth in reversed(range(len(layers))):
            outputs, inputs = self._shapes[depth]
            signal = signals[depth]
            start = end - outputs * (inputs + 1)
            flat[:, end - outputs : end] = back.reshape(len(flat), outputs)
            products = back[..., None] * signal[:, None, None, :]
            weights = jacobian[:, :, start : end - outputs].reshape(len(x), self.dim, outputs, inputs)  # a view
            weights[..., : signal.shape[1]] = products
            if depth == 0 and self.n_labels:
                weights[..., self.dim + label_block(label, self.n_labels)] = back
            if depth:
                back = (back @ layers[depth][0]) * self._sigma.slope(signal)[:, None, :]
            end = start
        return jacobian

    @quiet
    def jacobian(self, theta: Floats, x: Floats, label: int | None = None) -> Floats:
        """∂v_i/∂x_j as entry [n, i, j] of an array (n, dim, dim), by derivatives that run along with the signal."""
        x = checked("x", x, (None, self.dim))
        layers = self._layers(theta, label)
        jacobian = np.empty((len(x), self.dim, self.dim))
        for rows in blocks(len(x), (self.dim + 2) * self._widest):
            _, _, raw = _tangents(self._sigma, layers, x[rows])
            jacobian[rows] = np.moveaxis(raw[-1], 0, 2)
        return jacobian

    @quiet
    def value_and_diagonal(self, theta: Floats, x: Floats, label: int | None = None) -> tuple[Floats, Floats]:
        """``value`` together with ∂v_i/∂x_i (n, dim), whose sum is the divergence; of one hidden layer almost free."""
        x = checked("x", x, (None, self.dim))
        layers = self._layers(theta, label)
        last, bias = layers[-1]
        v, diagonal = np.empty((len(x), self.dim)), np.empty((len(x), self.dim))
        shallow = len(layers) == 2  # then ∂v_i/∂x_i = Σ_k W_ik σ'(z_k) A_ki: no tangents are needed
        pairs = (last * layers[0][0].T).T if shallow else last.T
        for rows in blocks(len(x), self._widest if shallow else (self.dim + 2) * self._widest):
            if shallow:
                signal = _advance(self._sigma, x[rows], *layers[0])
                np.matmul(self._sigma.slope(signal), pairs, out=diagonal[rows])
            else:
                signals, _, raw = _tangents(self._sigma, layers, x[rows])
                signal, diagonal[rows] = signals[-1], np.einsum("ini->ni", raw[-1])
            np.matmul(signal, last.T, out=v[rows])
        v += bias
        return v, diagonal

    @quiet
    def jacobian_vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        """Gradient (p,) of Σ_n w_n : ∇v(x_n, θ), w (n, dim, dim)."""
        return self.jacobian_pull_back(theta, x, w, label)[0]

    @quiet
    def jacobian_pull_back(
        self, theta: Floats, x: Floats, w: Floats, label: int | None = None
    ) -> tuple[Floats, Floats]:
        """``jacobian_vjp`` and ``jacobian_vjp_x`` at the price of one."""
        x = checked("x", x, (None, self.dim))
        w = checked("w", w, (len(x), self.dim, self.dim))
        layers = self._layers(theta, label)
        gradient, targets = self._zeros()
        by_point = np.empty_like(x)
        for rows in blocks(len(x), 2 * (self.dim + 2) * self._widest):
            by_point[rows] = _pull_back_tangents(self._sigma, layers, x[rows], np.moveaxis(w[rows], 2, 0), targets)
        return self._with_label(gradient, label), by_point

    @quiet
    def jacobian_vjp_x(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        """Gradients (n, dim) of w_n : ∇v(x_n, θ) with respect to x_n, w (n, dim, dim)."""
        x = checked("x", x, (None, self.dim))
        w = checked("w", w, (len(x), self.dim, self.dim))
        layers = self._layers(theta, label)
        gradient = np.empty_like(x)
        for rows in blocks(len(x), 2 * (self.dim + 2) * self._widest):
            gradient[rows] = _pull_back_tangents(self._sigma, layers, x[rows], np.moveaxis(w[rows], 2, 0), None)
        return gradient

    @property
    def _unlimited(self) -> Self:
        return self if self.max_speed is None else replace(self, max_speed=None)

    @property
    def _sigma(self) -> Activation:
        return activation(self.activation)

    @cached_property
    def _shapes(self) -> tuple[tuple[int, int], ...]:
        """(outputs, inputs) of every layer."""
        sizes = (self.dim + self.n_labels, *self.hidden, self.dim)
        return tuple(zip(sizes[1:], sizes[:-1], strict=True))

    @cached_property
    def _widest(self) -> int:
        return max((self.dim, *self.hidden))

    def _views(self, theta: Floats) -> Layers:
        """Weights and biases as views of θ, the first layer with the columns of all labels."""
        layers, start = [], 0
        for outputs, inputs in self._shapes:
            middle = start + outputs * inputs
            layers.append((theta[start:middle].reshape(outputs, inputs), theta[middle : middle + outputs]))
            start = middle + outputs
        return layers

    def _layers(self, theta: Floats, label: int | None) -> Layers:
        """The network of one label: its column of the first layer is part of the first bias."""
        theta = checked("theta", theta, (self.n_params(self.dim),))
        (weights, bias), *rest = self._views(theta)
        if self.n_labels:
            # A new array: this bias is not θ's own.
            bias = bias + weights[:, self.dim + label_block(label, self.n_labels)]
            weights = weights[:, : self.dim]
        return [(weights, bias), *rest]

    def _zeros(self) -> tuple[Floats, Layers]:
        """A zero gradient (p,) and views of it that match ``_layers``."""
        gradient = np.zeros(self.n_params(self.dim))
        (weights, bias), *rest = self._views(gradient)
        return gradient, [(weights[:, : self.dim], bias), *rest]

    def _with_label(self, gradient: Floats, label: int | None) -> Floats:
        """The label's column has entered as a part of the first bias, so it has the same gradient."""
        if self.n_labels:
            weights, bias = self._views(gradient)[0]
            weights[:, self.dim + label_block(label, self.n_labels)] = bias
        return gradient


def _advance(sigma: Activation, signal: Floats, weights: Floats, bias: Floats) -> Floats:
    """σ(W a + b) for the rows of ``signal``."""
    z = signal @ weights.T
    z += bias  # in place, as σ is: a sum would be another array of all points and units
    return sigma.value(z)


def _signals(sigma: Activation, layers: Layers, x: Floats) -> list[Floats]:
    """The inputs of every layer, at points x."""
    signals = [x]
    for weights, bias in layers[:-1]:
        signals.append(_advance(sigma, signals[-1], weights, bias))
    return signals


def _pull_back(sigma: Activation, layers: Layers, signals: list[Floats], back: Floats, targets: Layers) -> Floats:
    """Add the gradients of Σ back · v to ``targets``; ``signals`` are the inputs of every layer.

    Returns:
        the gradients with respect to W a + b of the first layer.
    """
    for depth in reversed(range(len(layers))):
        weights, bias = targets[depth]
        weights += back.T @ signals[depth]
        bias += column_sums(back)
        if depth:
            back = back @ layers[depth][0]
            back *= sigma.slope(signals[depth])
    return back


def _tangents(sigma: Activation, layers: Layers, x: Floats) -> tuple[list[Floats], list[Floats], list[Floats]]:
    """Forward pass with derivatives in all directions j.

    Returns:
        the input a (n, ·) of every layer, its derivatives ∂a/∂x_j (dim, n, ·), and W ∂a/∂x_j (dim, n, ·), which is
        ∇v for the last layer. Before the first activation the derivatives do not depend on the point: (dim, 1, ·).
    """
    signals, tangents, raw = [x], [np.eye(x.shape[1])[:, None, :]], []
    for weights, bias in layers[:-1]:
        signals.append(_advance(sigma, signals[-1], weights, bias))
        raw.append(tangents[-1] @ weights.T)
        tangents.append(raw[-1] * sigma.slope(signals[-1]))
    raw.append(tangents[-1] @ layers[-1][0].T)
    return signals, tangents, raw


def _pull_back_tangents(sigma: Activation, layers: Layers, x: Floats, back: Floats, targets: Layers | None) -> Floats:
    """Add the gradients of Σ back_j · ∂v/∂x_j, back (dim, n, dim), to ``targets``; return those of x, (n, dim)."""
    signals, tangents, raw = _tangents(sigma, layers, x)
    z_back = np.zeros_like(x)  # with respect to W a + b: the last one does not enter the Jacobian
    for depth in reversed(range(len(layers))):
        if targets is not None:
            weights, bias = targets[depth]
            if depth:
                weights += (back.swapaxes(1, 2) @ tangents[depth]).sum(axis=0)
            else:
                weights += back.sum(axis=1).T  # the tangents of x are the unit vectors
            weights += z_back.T @ signals[depth]
            bias += z_back.sum(axis=0)
        if depth:
            slope = sigma.slope(signals[depth])
            back = back @ layers[depth][0]
            z_back = z_back @ layers[depth][0]
            z_back *= slope
            z_back += sigma.bend(signals[depth], slope) * (back * raw[depth - 1]).sum(axis=0)
            back *= slope
    return z_back @ layers[0][0]
