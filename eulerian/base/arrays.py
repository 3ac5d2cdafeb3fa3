"""Names for the array types that appear in signatures, and a look at their numbers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eulerian.base.errors import InputError

type Floats = NDArray[np.float64]
type Ints = NDArray[np.int32]


def require_finite(values: Floats, x: Floats, what: str, key: str, where: str = "the whole domain") -> None:
    """Refuse a function of space that has no value somewhere. Not collective.

    Args:
        values: (n, ...) of the function.
        x: (n, dim) the points.
        what: the function, as in "the loss".
        key: its name in messages.
        where: it should be defined.

    Raises:
        InputError: a value is not finite; names the first such point.
    """
    bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if np.any(bad):
        raise InputError(
            f"{what} is not finite everywhere in the domain",
            key=key,
            value=f"a non-finite value at {x[bad][0].tolist()}",
            remedy=f"Use a formula that is defined on {where}",
        )


def theta_array(theta: Any, key: str = "theta") -> Floats:
    """A copy of θ as an array of float64; what is none is refused. Not collective.

    Raises:
        InputError: it is no array of numbers, as a model of another library.
    """
    try:
        return np.array(theta, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # the last one of tensors with gradients
        remedy = (
            "A model's parameters become one by J.theta(parameters), with J = eulerian.jax.objective(problem) or "
            "eulerian.torch.objective(problem)."
        )
        what = "must be an array of numbers, like the problem's initial_theta"
        raise InputError(what, key=key, value=type(theta).__name__, remedy=remedy) from error
