"""Checks of a field and of its initial parameters against a problem, before anything is computed; free of meshes."""

from collections.abc import Sequence
from typing import Any

from mpi4py import MPI

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats, theta_array
from eulerian.base.errors import InputError
from eulerian.base.parallel import agreed
from eulerian.fields.base import VectorField
from eulerian.fields.frame import in_box, unwrapped
from eulerian.fields.piecewise import PiecewiseField


def check_field(
    field: Any, lower: Floats, upper: Floats, horizon: float, n_labels: int, *, label_dependent: bool
) -> VectorField:
    """A field as it is used in a domain, checked against dimension and labels before anything is computed.

    Args:
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
    return found


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
