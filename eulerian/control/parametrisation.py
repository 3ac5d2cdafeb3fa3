"""Checks of a field and of its initial parameters against a problem, before anything is computed; free of meshes."""

from collections.abc import Sequence
from typing import Any

from mpi4py import MPI

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats, theta_array
from eulerian.base.errors import InputError
from eulerian.base.parallel import agreed, warn
from eulerian.fields.base import VectorField
from eulerian.fields.frame import in_box, unwrapped
from eulerian.fields.piecewise import PiecewiseField

# Half the longest side of a domain, and how many of them its centre is from the origin, up to which a network may well
# be given the coordinates: its first weights, of size one, neither saturate it nor leave it constant there.
_LARGEST_BOX, _FARTHEST_BOX = 30.0, 10.0


def check_field(
    comm: MPI.Comm, field: Any, lower: Floats, upper: Floats, horizon: float, n_labels: int, *, label_dependent: bool
) -> VectorField:
    """A field as it is used in a domain, checked against dimension and labels before anything is computed.

    Warns where a model of another library is given numbers that networks are not made for.

    Args:
        comm: who works.
        field: the user's.
        lower: corner (dim,) of the domain's bounding box, the same on all ranks.
        upper: opposite corner.
        horizon: T.
        n_labels: K.
        label_dependent: whether the label is an input of the field.

    Raises:
        InputError: it is none, or one for another dimension or other labels.
    """
    found = in_box(field, lower.tolist(), upper.tolist(), horizon)
    known = getattr(unwrapped(found), "n_labels", 0)
    if known and (not label_dependent or known != n_labels):
        what = f"tells {known} labels apart, but there are {n_labels} and label_dependent = {label_dependent}"
        raise InputError(what, key="field", value=type(field).__name__, remedy="Give the field as many labels.")
    if getattr(unwrapped(found), "may_want_a_frame", False):
        warn_of_raw_coordinates(comm, lower, upper, "the model that the field is made of")
    return found


def warn_of_raw_coordinates(comm: MPI.Comm, lower: Floats, upper: Floats, name: str) -> None:
    """Warn where a field of the user's that may be a network is given numbers that networks are not made for.

    Args:
        comm: who works.
        lower: corner (dim,) of the domain's bounding box.
        upper: opposite corner.
        name: of the field in the warning.
    """
    size, away = float(np.max(upper - lower)) / 2.0, float(np.max(np.abs(upper + lower))) / 2.0
    if size > _LARGEST_BOX or size < 1.0 / _LARGEST_BOX or away > _FARTHEST_BOX * size:
        warn(
            comm,
            f"{name} is given the coordinates as they are, from {lower.tolist()} to "
            f"{upper.tolist()}: a network hardly trains on numbers so far from the box from -1 to 1. With "
            "normalised=True, where it is wrapped (or as its attribute), it sees where in the domain's box a point is "
            "and answers in half boxes per horizon; normalised=False says that all is well",
        )


def warn_of_unused_seed(comm: MPI.Comm, field: VectorField, seed: int, key: str) -> None:
    """Warn of a seed other than 0 where a field always starts from the parameters that its model has.

    Args:
        comm: who works.
        field: any.
        seed: that was given.
        key: its name in the warning.
    """
    if seed and not getattr(unwrapped(field), "random_start", True):
        warn(
            comm,
            f"{key} = {seed} changes nothing: the field starts from the parameters that its model has. Give the model "
            "another seed where it is made, or say with initialise=, where it is wrapped, how parameters are drawn",
        )


def initial_rows(
    field: VectorField, dim: int, comm: MPI.Comm, layers: int, given: ArrayLike | None, seed: int, *, tied: bool
) -> Floats:
    """Where optimisers start, (L, p) or (1, p) for tied layers, the same on all ranks. **Collective**.

    Args:
        field: that they are parameters of.
        dim: of space.
        comm: who works.
        layers: L.
        given: (p,) or (1, p) for all layers, or (L, p); None for the field's own random start in every layer.
        seed: of that.
        tied: all layers share one row.

    Raises:
        InputError: sizes do not fit, rows of tied layers differ, or a number is not finite; the same on all ranks.
    """
    if given is None:
        warn_of_unused_seed(comm, field, seed, "seed")
    with agreed(comm):
        # The user's code and numbers: whatever is wrong with them may be so on one rank only.
        rows = field.init(np.random.default_rng(seed)) if given is None else given
        theta, p = np.atleast_2d(theta_array(rows, "initial_theta")), field.n_params(dim)
        if theta.shape not in ((1, p), (layers, p)):
            what = f"has shape {np.shape(rows)}, but {layers} layers of {p} parameters need ({layers}, {p}) or (1, {p})"
            raise InputError(what, key="initial_theta", remedy="One row serves all layers.")
        if not np.all(np.isfinite(theta)):
            raise InputError("holds numbers that are not finite", key="initial_theta", remedy="Give finite numbers.")
        if tied and np.any(theta != theta[0]):
            raise InputError("has rows that differ, but layers are tied", key="initial_theta", remedy="Give one row.")
    # A model that was drawn without a seed has other parameters on every rank: rank 0 says which.
    theta = np.asarray(comm.bcast(theta, 0))
    return theta[:1] if tied else np.ascontiguousarray(np.broadcast_to(theta, (layers, p)))


def require_derivatives(layered: PiecewiseField, methods: Sequence[str], who: str) -> None:
    """Raise InputError unless the field has the derivatives that ``who`` needs."""
    missing = [method for method in methods if not layered.has(method)]
    if missing:
        raise InputError(
            f"{who} need {', '.join(missing)}, which the field has not",
            key="field.object",
            value=type(unwrapped(layered.field)).__name__,
            remedy="See eulerian.fields.VectorField for what they take and return.",
        )
