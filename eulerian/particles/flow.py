"""Points and log-densities through the flow of a field, forwards and backwards."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from mpi4py import MPI

import numpy as np
from numpy.typing import NDArray

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.piecewise import PiecewiseField
from eulerian.particles.right_hand_side import Motion, RightHandSide
from eulerian.particles.runge_kutta import DORMAND_PRINCE, RK4, Tableau, controlled, step

type Labels = NDArray[np.integer]
type Rows = slice | NDArray[np.intp]


class Layers(Protocol):
    """How time is cut: a ``TimeGrid``, whose CFL number and steps particles do not need."""

    @property
    def horizon(self) -> float:
        """T."""

    @property
    def layers(self) -> int:
        """L."""


@dataclass(frozen=True)
class Scheme:
    """How particles are moved in time.

    Attributes:
        horizon: T; the layers have equal length.
        method: the classical Runge–Kutta method of order 4, or Dormand and Prince's pair under error control.
        steps_per_layer: of ``rk4``.
        tolerance: of ``dopri5``, of positions in units of ``length``, of what is integrated relative and absolute.
        max_steps: of ``dopri5`` in one layer.
        length: half the longest side of the domain.
    """

    horizon: float
    method: Literal["rk4", "dopri5"] = "rk4"
    steps_per_layer: int = 4
    tolerance: float = 1e-8
    max_steps: int = 10_000
    length: float = 1.0

    @property
    def tableau(self) -> Tableau:
        """The Runge–Kutta method."""
        return RK4 if self.method == "rk4" else DORMAND_PRINCE


@dataclass(frozen=True)
class Segment:
    """Paths through one layer.

    Attributes:
        motion: the layer's rates.
        steps: (k,) their lengths.
        starts: (n, dim) positions where each step starts.
        end: (n, width) positions and integrals where the layer ends.
    """

    motion: Motion
    steps: Floats
    starts: list[Floats]
    end: Floats


def segments(
    rates: RightHandSide,
    theta: Floats,
    x: Floats,
    label: int | None,
    scheme: Scheme,
    *,
    comm: MPI.Comm | None = None,
    steps: Sequence[Floats] | None = None,
    back: bool = False,
) -> Iterator[Segment]:
    """Paths of points of one label through the layers, one after another. **Collective**, if there is a communicator.

    Args:
        rates: what is integrated.
        theta: (L, p).
        x: (n, dim) this rank's points.
        label: theirs; None where the field does not depend on it.
        scheme: how.
        comm: who shares the points: error control looks at all of them, and an error reaches every rank.
        steps: the lengths of the steps in every layer, in the order of the segments, instead of the scheme's choice.
        back: from T to 0.

    Raises:
        RejectedEvaluation: error control needs too many steps.
        InputError: what the field raises.
    """
    duration = scheme.horizon / len(theta)
    y = np.concatenate([x, np.zeros((len(x), len(rates.names)))], axis=1)
    order, longest = range(len(theta)), duration
    for index, layer in enumerate(reversed(order) if back else order):
        motion = Motion(rates, layer, theta[layer], label, -1.0 if back else 1.0)
        with np.errstate(all="ignore"):  # a far-off θ shows in a J that is not finite
            if steps is None and scheme.method == "dopri5":
                found = controlled(
                    motion,
                    y,
                    duration,
                    rates.dim,
                    scheme.tolerance,
                    first=longest,
                    max_steps=scheme.max_steps,
                    comm=comm,
                    length=scheme.length,
                )
                segment = Segment(motion, *found)
            else:
                count = scheme.steps_per_layer
                lengths = np.full(count, duration / count) if steps is None else steps[index]
                segment = _with_steps(motion, scheme.tableau, y, lengths, rates.dim, comm)
        # The next layer first tries the longest step of this one: layers differ little.
        y, longest = segment.end, float(segment.steps.max())
        yield segment


def segments_back_from(
    t: float,
    rates: RightHandSide,
    theta: Floats,
    x: Floats,
    label: int | None,
    scheme: Scheme,
    *,
    comm: MPI.Comm | None = None,
) -> Iterator[Segment]:
    """Paths back to 0 of points that are at ``x`` at a time t, with equal steps. **Collective** with ``comm``.

    Arguments as for ``segments``; of the layer that t lies in, only the part before t is integrated over, with steps
    that are as long as the others or shorter. At t = 0 there are no segments.
    """
    duration, count = scheme.horizon / len(theta), scheme.steps_per_layer
    # Up to rounding: an end of a layer does not begin the next one.
    layers = int(np.ceil(t / duration - 1e-9))
    steps = [np.full(count, duration / count)] * layers
    rest = t - (layers - 1) * duration
    if layers and rest < (1.0 - 1e-9) * duration:
        few = max(1, int(np.ceil(count * rest / duration)))
        steps[0] = np.full(few, rest / few)  # the first segment is that of the last layer
    return segments(rates, theta[:layers], x, label, scheme, comm=comm, steps=steps, back=True) if layers else iter(())


def _with_steps(motion: Motion, tableau: Tableau, y: Floats, steps: Floats, dim: int, comm: MPI.Comm | None) -> Segment:
    """One layer with steps that are known. Collective, if there is a communicator."""
    starts: list[Floats] = []

    def step_forward(state: Floats) -> Floats:
        for h in steps:
            starts.append(np.ascontiguousarray(state[:, :dim]))  # integrals do not act back: the adjoint needs none
            state = step(tableau, motion, state, float(h), dim)
        return state

    if comm is None:
        return Segment(motion, steps, starts, step_forward(y))
    with parallel.agreed(comm, "the field"):
        y = step_forward(y)
    return Segment(motion, steps, starts, y)


def label_groups(
    labels: Labels, *, label_dependent: bool, comm: MPI.Comm | None = None
) -> list[tuple[int | None, Rows]]:
    """Particles that move with one velocity: (label, rows), the same labels on all ranks. Collective with ``comm``."""
    if not label_dependent:
        return [(None, slice(None))]
    present = set(np.unique(labels).tolist())
    if comm is not None:
        present = set().union(*comm.allgather(present))  # every rank takes part in the collectives of every group
    return [(label, np.flatnonzero(labels == label)) for label in sorted(present)]


def carry(
    field: PiecewiseField,
    theta: Floats,
    x: Floats,
    labels: Labels,
    times: Sequence[float] | Floats,
    scheme: Scheme,
    comm: MPI.Comm | None = None,
) -> Floats:
    """Positions at given times of points that start at t = 0. Collective, if there is a communicator.

    A time between two steps is reached by a shorter step from the one before it, so that the times change no path.

    Args:
        field: v.
        theta: (L, p).
        x: (n, dim) this rank's points.
        labels: (n,) theirs, of use to fields that depend on the label only.
        times: any order, from 0 to T.
        scheme: how.
        comm: who shares the points, if error control is to look at all of them.

    Returns:
        (len(times), n, dim).

    Raises:
        InputError: a time is out of range; what the field raises.
        RejectedEvaluation: error control needs too many steps.
    """
    moments = np.asarray(times, dtype=np.float64)
    tolerance = 1e-12 * scheme.horizon  # ends of steps are sums, with rounding
    if np.any((moments < -tolerance) | (moments > scheme.horizon + tolerance)):
        raise InputError(f"times are from 0 to {scheme.horizon:g}", key="times", value=moments.tolist())
    rates = RightHandSide(field, x.shape[1])
    positions = np.empty((len(moments), *x.shape))
    for label, rows in label_groups(labels, label_dependent=field.label_dependent, comm=comm):
        positions[np.ix_(moments <= tolerance, np.arange(len(x))[rows])] = x[rows]
        for segment in segments(rates, theta, x[rows], label, scheme, comm=comm):
            begin = segment.motion.layer * scheme.horizon / len(theta)
            ends = begin + np.cumsum(segment.steps)
            for h, start, end in zip(segment.steps, segment.starts, ends, strict=True):
                for index in np.flatnonzero((moments > end - h + tolerance) & (moments <= end + tolerance)):
                    at_end = abs(moments[index] - end) <= tolerance
                    part = float(h if at_end else moments[index] - (end - h))
                    with np.errstate(all="ignore"):
                        positions[index, rows] = step(scheme.tableau, segment.motion, start, part, rates.dim)
    return positions


def carry_density(
    field: PiecewiseField, theta: Floats, x: Floats, labels: Labels, scheme: Scheme, comm: MPI.Comm | None = None
) -> tuple[Floats, Floats]:
    """Where points end, and how the density changes on the way. Collective, if there is a communicator.

    The change of variables: log ρ(T, x(T)) = log ρ(0, x(0)) + change, change = −∫ div v(x(t), θ_t) dt.

    Args:
        field: v.
        theta: (L, p).
        x: (n, dim) this rank's points at t = 0.
        labels: (n,) theirs.
        scheme: how.
        comm: as for ``carry``.

    Returns:
        positions (n, dim) at T, and the change (n,).
    """
    return _with_density(field, theta, x, labels, scheme, comm, back=False)


def carry_back(
    field: PiecewiseField, theta: Floats, x: Floats, labels: Labels, scheme: Scheme, comm: MPI.Comm | None = None
) -> tuple[Floats, Floats]:
    """Where points that end at ``x`` come from: the inverse of ``carry_density`` up to the error in time.

    With the change (n,) that comes with them, log ρ(T, x) = log ρ(0, x(0)) + change. Collective, if there is a
    communicator; arguments as for ``carry_density``, with x (n, dim) at T.

    Returns:
        positions (n, dim) at t = 0, and the change (n,).
    """
    start, change = _with_density(field, theta, x, labels, scheme, comm, back=True)
    return start, -change  # integrated backwards in time


def _with_density(
    field: PiecewiseField,
    theta: Floats,
    x: Floats,
    labels: Labels,
    scheme: Scheme,
    comm: MPI.Comm | None,
    *,
    back: bool,
) -> tuple[Floats, Floats]:
    rates = RightHandSide(field, x.shape[1], log_density=True)
    ends = np.empty((len(x), rates.width))
    for label, rows in label_groups(labels, label_dependent=field.label_dependent, comm=comm):
        for segment in segments(rates, theta, x[rows], label, scheme, comm=comm, back=back):
            ends[rows] = segment.end
    return ends[:, : rates.dim].copy(), ends[:, -1].copy()
