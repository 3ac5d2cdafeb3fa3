"""Activation functions, their first and their second derivatives."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError


@dataclass(frozen=True)
class Activation:
    """A scalar function σ whose derivatives are functions of its value a = σ(z), so that z need not be kept.

    Attributes:
        value: a = σ(z), overwrites z.
        slope: σ'(z) from a.
        bend: σ''(z) from a and σ'(z).
        gain: standard deviation that weights of unit fan-in need to keep a signal's size.
    """

    value: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]
    bend: Callable[[Floats, Floats], Floats]
    gain: float = 1.0


def _tanh(z: Floats) -> Floats:
    return np.tanh(z, out=z)


def _tanh_slope(a: Floats) -> Floats:
    slope = a * a
    return np.subtract(1.0, slope, out=slope)


def _tanh_bend(a: Floats, slope: Floats) -> Floats:
    bend = a * slope
    bend *= -2.0
    return bend


def _softplus(z: Floats) -> Floats:
    # log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|)) never overflows.
    tail = np.abs(z)
    np.negative(tail, out=tail)
    np.log1p(np.exp(tail, out=tail), out=tail)
    np.maximum(z, 0.0, out=z)
    z += tail
    return z


def _softplus_slope(a: Floats) -> Floats:
    # The logistic function 1/(1 + exp(-z)) = 1 - exp(-a), accurate also where it is tiny.
    slope = np.negative(a)
    np.expm1(slope, out=slope)
    return np.negative(slope, out=slope)


def _softplus_bend(a: Floats, slope: Floats) -> Floats:
    bend = np.negative(a)
    np.exp(bend, out=bend)
    bend *= slope
    return bend


def _relu(z: Floats) -> Floats:
    return np.maximum(z, 0.0, out=z)


def _relu_slope(a: Floats) -> Floats:
    # NaN stays NaN: a comparison alone would turn it into a slope of zero.
    return np.sign(a)


def _relu_bend(a: Floats, slope: Floats) -> Floats:  # noqa: ARG001 - one signature for all
    return np.zeros_like(slope)


ACTIVATIONS = {
    "tanh": Activation(_tanh, _tanh_slope, _tanh_bend),
    "softplus": Activation(_softplus, _softplus_slope, _softplus_bend),
    "relu": Activation(_relu, _relu_slope, _relu_bend, gain=2.0**0.5),
}
"""By name. The second derivative of relu is taken as zero, which it is everywhere but at the kink."""


def activation(name: str) -> Activation:
    """The activation of this name.

    Raises:
        InputError: there is none.
    """
    if name not in ACTIVATIONS:
        raise InputError(f"must be one of {', '.join(ACTIVATIONS)}", key="field.activation", value=name)
    return ACTIVATIONS[name]
