"""Names for the array types that appear in signatures, and a look at their numbers."""

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
