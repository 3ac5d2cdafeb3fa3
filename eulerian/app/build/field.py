"""From the configuration to a field and its initial parameters."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.base import VectorField
from eulerian.fields.features import RandomFeatures, Rbf, Residual
from eulerian.fields.frame import Frame, InBox
from eulerian.fields.linear import Affine, Translation
from eulerian.fields.mlp import Mlp
from eulerian.fields.nodal import Nodal
from eulerian.fields.theta_file import THETA, read_theta
from eulerian.fields.user import load_field

if TYPE_CHECKING:
    from eulerian.app.config.field import AnyField, LinearField

KEY = "field.theta"

REACH = 4.0
"""The box of a perceptron is from −4 to 4 along every axis, where weights of size one make a few bends.

With a box from −1 to 1 the moons of the templates came down to KL = 0.13 in as many iterations as otherwise to 0.03,
whatever the size of the first weights; with velocities in half boxes per horizon to 0.05.
"""


def build_field(
    config: "AnyField",
    dim: int,
    n_labels: int,
    lower: Sequence[float],
    upper: Sequence[float],
    nodes: Floats | None = None,
    *,
    needs_jacobian: bool = False,
    frame: Frame | None = None,
) -> VectorField:
    """The field that ``config`` describes.

    Networks, and fields of the user that ask for it by a true attribute ``normalised``, are in the frame of the domain.

    Args:
        config: the section ``[field]``.
        dim: space dimension.
        n_labels: number of labels of the densities; the field distinguishes them if ``label_dependent``.
        lower: corner (dim,) of the domain's bounding box, the same on all ranks.
        upper: opposite corner.
        nodes: all velocity nodes (N, dim) of the mesh, the same on all ranks, any order; a free field needs them.
        needs_jacobian: divergences will be asked for, so a field of the user must have a Jacobian.
        frame: that a network's given parameters are relative to, if it is another one than that of the domain.

    Raises:
        InputError: the configuration asks for a field that cannot be made.
    """
    labels = n_labels if config.label_dependent else 0
    own = Frame.of_box(lower, upper, config.horizon)
    if frame is None:
        frame = Frame.of_box(lower, upper, config.horizon, REACH) if config.kind == "mlp" else own
    if len(frame.centre) != dim:
        raise InputError(f"belong to a network of dimension {len(frame.centre)}", key=KEY, value=f"dimension {dim}")
    if config.kind == "linear":
        return _linear(config, dim, labels, own, frame)
    if config.kind == "mlp":
        return InBox(Mlp(dim, config.hidden, config.activation, labels, config.zero_init, config.output_scale), frame)
    if config.kind == "python":
        points = np.array(own.centre) + np.array([[-0.3], [0.2]]) * np.array(own.length)
        found = load_field(
            config.object, config.folder, dim=dim, n_labels=labels, points=points, needs_jacobian=needs_jacobian
        )
        return InBox(found, frame) if getattr(found, "normalised", False) else found
    if nodes is None:
        raise InputError("a free field needs the nodes of a mesh", key="field.kind", value="free")
    return Nodal(nodes, n_labels=labels, zero_init=config.zero_init, frame=own)


def earlier_frame(config: "AnyField", lower: Sequence[float], upper: Sequence[float]) -> Frame:
    """What parameters in a file without a frame are relative to, as in versions that wrote none.

    Velocities were in the user's units, and so were points, but for features that were laid out in the domain's box.
    """
    own = Frame.of_box(lower, upper, 1.0)
    return Frame(own.centre, own.length) if config.kind == "linear" else Frame.raw(len(own.length))


def _linear(config: "LinearField", dim: int, labels: int, own: Frame, frame: Frame) -> VectorField:
    zero, width, seed = config.zero_init, config.width, config.seed
    match config.features:
        case "affine":
            return Affine(dim, n_labels=labels, zero_init=zero, frame=own)
        case "translation":
            return Translation(dim, n_labels=labels, zero_init=zero, frame=own)
        case "rbf":
            return InBox(Rbf(dim, width, n_labels=labels, zero_init=zero), frame)
        case "random":
            return InBox(RandomFeatures(dim, width, seed=seed, n_labels=labels, zero_init=zero), frame)
        case "residual":
            return InBox(Residual(dim, width, seed=seed, n_labels=labels, zero_init=zero), frame)


def initial_theta(config: "AnyField", field: VectorField, dim: int, n_layers: int) -> Floats:
    """Parameters (n_layers, p) to start from: those given in ``config``, else one random draw for all layers.

    The same start in every layer means a θ that is constant in time. Tied layers have one row, (1, p).

    Raises:
        InputError: the file cannot be read, or sizes do not fit, or a number is not finite.
    """
    p = field.n_params(dim)
    if config.theta is None:
        rows = field.init(np.random.default_rng(config.seed))
    elif isinstance(config.theta, Path):
        rows, _ = read_theta(config.theta, KEY, lambda shapes: _require_shape(shapes[THETA], field, n_layers, p))
    else:
        rows = _rows(config.theta)
    theta = np.atleast_2d(_rows(rows))
    _require_shape(theta.shape, field, n_layers, p)
    if not np.all(np.isfinite(theta)):
        raise InputError("holds numbers that are not finite", key=KEY, remedy="Give finite numbers.")
    if config.tied:
        if np.any(theta != theta[0]):
            raise InputError("has rows that differ, but field.tied = true", key=KEY, remedy="Give one row.")
        return theta[:1]
    return np.ascontiguousarray(np.broadcast_to(theta, (n_layers, p)))


def _require_shape(shape: tuple[int, ...], field: VectorField, n_layers: int, p: int) -> None:
    """Raise InputError unless θ has one row for all layers or one for each; a single row may lie alone."""
    if shape not in ((p,), (1, p), (n_layers, p)):
        raise InputError(
            f"has shape {shape}, but {n_layers} layers of {p} parameters need ({n_layers}, {p}) or (1, {p})",
            key=KEY,
            remedy=_layout(field),
        )


def _rows(rows: ArrayLike) -> Floats:
    try:
        return np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("must be rows of numbers, all of one length", key=KEY) from error


def _layout(field: VectorField) -> str:
    if isinstance(field, Affine | Translation):
        start = "A row by row, then b" if isinstance(field, Affine) else "the velocity"
        return f"One row is {start}{'; one such block per label' if field.n_labels else ''}."
    return "Every row holds the parameters of one layer; one row serves all layers."
