"""What a velocity field is: the protocol that the network, and any field of the user, fulfils."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError, explained


class VectorField(Protocol):
    """A family of velocities v(x, θ) on R^d, with exact derivatives. Stateless: θ belongs to the caller.

    A class with these methods is a field, it needs no base class. θ is (p,), one layer's parameters; points x,
    velocities and cotangents w are (n, dim), n = 0 included; all float64 and dimensionless; no method changes its
    arguments. ``label`` is the class y whose points move: label-dependent fields need it, other fields may leave the
    argument out, because it is passed to label-dependent fields only.

    The attributes are for fields that need them; one that a field does not have is false, 0 or none.

    Attributes:
        time_dependent: true: every method is given the time t in [0, T] as the keyword ``time`` too.
        n_labels: number K of labels that it distinguishes; 0 if it sees no label.
        normalised: true: it is put into the frame of the domain (see ``frame.NormalisedField``): its points are
            relative to the domain's box, from −1 to 1, its times to the horizon, and what it returns is in half boxes
            per horizon. False says that the user's coordinates, which all others see, are as they should be.
        in_box: a method of (lower, upper, horizon): the field as it is to be used in this domain; for fields that want
            another frame than ``normalised`` gives them.
        at_nodes_only: true: it has velocities at the nodes of a mesh only (see ``nodal.Nodal``).

    Laws, for every perturbation δ of θ and small ξ of x:

    * ⟨w, v(x, θ + δ) − v(x, θ)⟩ = ⟨vjp(θ, x, w), δ⟩ + O(|δ|²), and the same for ``jacobian`` with ``jacobian_vjp``;
    * v(x + ξ, θ) − v(x, θ) = ``jacobian`` ξ + O(|ξ|²);
    * ⟨W, ∇v(x + ξ, θ) − ∇v(x, θ)⟩ = ⟨jacobian_vjp_x(θ, x, W), ξ⟩ + O(|ξ|²).

    On a mesh ``value`` and ``vjp`` suffice: there the Jacobian penalty takes the gradient of the finite-element
    velocity. Particles need ``jacobian`` too. ``jacobian_vjp`` and ``jacobian_vjp_x`` are the gradients of divergences
    and of the Jacobian penalty on particles.

    More methods save time, where a field has them. On a mesh, ``value_and_vjp(theta, x, label)`` gives the value and
    the function w ↦ vjp(theta, x, w), which may keep what the forward pass has found: θ and x are not to be changed
    before its last call. On particles, ``pull_back(theta, x, w, label)`` gives ``vjp`` and the gradients (n, dim) by
    the points, Σ_i w_ni ∂v_i/∂x, together; ``jacobian_pull_back`` gives ``jacobian_vjp`` and ``jacobian_vjp_x``
    together. ``value_and_diagonal(theta, x, label)`` gives ``value`` and the derivatives (n, dim) ∂v_i/∂x_i
    together, whose sum is the divergence.
    """

    def n_params(self, dim: int, /) -> int:
        """Number p of parameters of one layer in dimension ``dim``."""
        ...

    def init(self, rng: np.random.Generator, /) -> Floats:
        """Initial θ (p,): a function of the generator's state only, so that all ranks draw the same."""
        ...

    def value(self, theta: Floats, x: Floats, label: int | None = None) -> Floats:
        """Velocities (n, dim) at points x (n, dim)."""
        ...

    def vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        """Gradient (p,) with respect to θ of Σ_n w_n · v(x_n, θ), w (n, dim)."""
        ...

    def jacobian(self, theta: Floats, x: Floats, label: int | None = None) -> Floats:
        """Derivatives (n, dim, dim) in space: entry [n, i, j] is ∂v_i/∂x_j at x_n."""
        ...

    def jacobian_vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        """Gradient (p,) with respect to θ of Σ_n w_n : ∇v(x_n, θ), w (n, dim, dim)."""
        ...

    def jacobian_vjp_x(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        """Gradients (n, dim): row n is the one with respect to x_n of w_n : ∇v(x_n, θ), w (n, dim, dim)."""
        ...


REQUIRED = ("n_params", "init", "value", "vjp")
"""Methods without which nothing is a field; the others are for Jacobian penalties and particles."""


# --- what users' code returns and raises ------------------------------------------------------------------------------


def returned(
    method: str, outcome: Any, shape: tuple[int, ...], *, key: str = "field", name: str | None = None
) -> Floats:
    """What a field's method returned, as float64 of the promised shape.

    Args:
        method: its name.
        outcome: what it returned.
        shape: promised.
        key: what an error is to name.
        name: the field's, for the error; without it the error shows what is wrong with the outcome.

    Raises:
        InputError: it is something else; broadcast, or without its imaginary part, it would give a wrong gradient.
    """
    try:
        array = np.asarray(outcome)
        if array.dtype.kind not in "fiub":
            raise TypeError
        array = array.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        kind = str(getattr(outcome, "dtype", type(outcome).__name__))
        what = f"{method} must return an array of real numbers, it returned {kind}"
        raise InputError(what, key=key, value=name or kind) from error
    if array.shape != shape:
        what = f"{method} must return an array of shape {shape}, it returned shape {array.shape}"
        raise InputError(what, key=key, value=name or array.shape)
    return array


def raised(
    what: str,
    error: BaseException,
    name: str | None = None,
    remedy: str | None = None,
    key: str = "field.object",
) -> InputError:
    """What to raise where code that ``field.object``, or another key, names has raised an error.

    Args:
        what: was done, as in "vjp raised".
        error: its error.
        name: the import path of the code.
        remedy: what to do about it.
        key: that names the code.
    """
    remedy = remedy or f"The fault is in the code that {key} names."
    return InputError(f"{what} {explained(error)}", key=key, value=name, remedy=remedy)


def install(extra: str) -> str:
    """The remedy where a library of an extra is missing."""
    return f'Install it: pip install "eulerian[{extra}]".'


# --- helpers for the fields of this package --------------------------------------------------------------------------

quiet = np.errstate(over="ignore", invalid="ignore", under="ignore")
"""Decorator: far-off θ overflow, and the caller learns it from non-finite values, not from warnings."""


def checked(name: str, values: ArrayLike, shape: tuple[int | None, ...]) -> Floats:
    """``values`` as float64 of this shape (None: any length), without a copy where possible.

    Raises:
        InputError: the shape is another one; silent broadcasting would give a wrong velocity or gradient.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("n" if want is None else str(want) for want in shape)
        raise InputError(
            f"an array of shape ({wanted}{',' if len(shape) == 1 else ''}) is needed", key=name, value=array.shape
        )
    return array


def check_dimension(own: int, dim: int) -> None:
    """Refuse a field built for another space dimension.

    Raises:
        InputError: the dimensions differ.
    """
    if dim != own:
        raise InputError(f"the field was built for dimension {own}", key="field", value=dim)


def check_sizes(**sizes: int) -> None:
    """Refuse sizes below one, ``n_labels`` below zero.

    Raises:
        InputError: a size is too small.
    """
    for name, size in sizes.items():
        least = 0 if name == "n_labels" else 1
        if size < least:
            raise InputError(f"must be at least {least}", key=f"field.{name}", value=size)


def check_box(dim: int, lower: Sequence[float], upper: Sequence[float]) -> tuple[Floats, Floats]:
    """Both corners of a bounding box as arrays (dim,).

    Raises:
        InputError: wrong length, not finite, or lower not below upper.
    """
    low, high = checked("lower", lower, (dim,)), checked("upper", upper, (dim,))
    if not np.all(low < high) or not np.all(np.isfinite(high - low)):
        raise InputError(
            "a bounding box needs finite corners with lower < upper", key="lower, upper", value=(low, high)
        )
    return low, high


def label_block(label: int | None, n_labels: int) -> int:
    """Index of the parameter block or input of ``label``; 0 for a field that does not depend on the label.

    Raises:
        InputError: the field depends on the label and it is missing or not one of 0..K-1.
    """
    if n_labels == 0:
        return 0
    if label is None or not 0 <= label < n_labels:
        raise InputError(f"a label-dependent field needs a label from 0 to {n_labels - 1}", key="label", value=label)
    return int(label)


KEPT = 2**19
"""Numbers that a field may keep from a forward pass for its derivative: 4 MB, for every layer."""


def column_sums(rows: Floats) -> Floats:
    """Sum (m,) of rows (n, m): a product, for a sum is slow where rows are short."""
    return np.asarray(np.ones(len(rows)) @ rows)


def blocks(n: int, floats_per_point: int) -> Iterator[slice]:
    """Cut n points into runs whose temporaries of ``floats_per_point`` numbers stay in the processor's cache."""
    size = max(128, 65536 // max(floats_per_point, 1))
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
