"""What fields made of other libraries' models share: θ as one row, labels and time, and many points in pieces."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.base import checked, install, label_block, raised
from eulerian.fields.theta_file import read_theta

KEY = "field.object"
PIECE = 4096
"""Points that a model is given at a time."""


@dataclass(frozen=True)
class Inputs:
    """What a model is given besides the point.

    Attributes:
        n_labels: number K of labels; 0 for a model that sees no label.
        time_dependent: the model sees the time t, as it is (in [0, T]).
        style: "joined": the model takes one array, the point with the unit vector e_y of the label and the time behind
            it, dim + K + 1 numbers; "separate": it takes the point and the keywords ``label`` (a whole number) and
            ``time`` (a number), of which only those that these settings ask for are passed.
        normalised: the model works in the frame of the domain (see ``NormalisedField``): it is given points
            relative to the domain's box, from −1 to 1, and times relative to the horizon, and what it returns is in
            half boxes (of the longest side) per horizon. False gives it everything as it is; so does None, but then
            there is a warning where the box is far from the one from −1 to 1.
    """

    n_labels: int = 0
    time_dependent: bool = False
    style: Literal["joined", "separate"] = "joined"
    normalised: bool | None = None

    def __post_init__(self) -> None:
        if self.n_labels < 0:
            raise InputError("must be at least 0", key="n_labels", value=self.n_labels)
        if self.style not in ("joined", "separate"):
            raise InputError('must be "joined" or "separate"', key="inputs", value=self.style)

    def label(self, label: int | None) -> int:
        """The label as the model sees it; 0 for a model that sees none.

        Raises:
            InputError: a label is missing, out of range, or given to a model that has no use for it.
        """
        if label is not None and not self.n_labels:
            raise InputError(
                "the model was wrapped without labels",
                key=KEY,
                remedy="Say n_labels=... where the field is made, or set field.label_dependent = false.",
            )
        return label_block(label, self.n_labels)

    def time(self, time: float | None) -> float:
        """The time as the model sees it; 0 for a model that sees none.

        Raises:
            InputError: it is missing.
        """
        if self.time_dependent and time is None:
            raise InputError("a time-dependent field needs the time", key="time")
        return 0.0 if time is None else float(time)

    def describe(self, dim: int) -> str:
        """What the model was given, in words, for messages."""
        parts = [f"{dim} coordinates"]
        if self.n_labels:
            parts.append(f"{self.n_labels} label entries" if self.style == "joined" else "label=")
        if self.time_dependent:
            parts.append("the time" if self.style == "joined" else "time=")
        return ", ".join(parts)


class FrameworkField(ABC):
    """A field v(x, θ) made of a model of another library; derivatives come from that library.

    θ holds all trained parameters, one after the other, each row by row, always in float64; the model computes in its
    own precision. Points must not influence one another.

    Args:
        start: (p,) the model's current parameters.
        inputs: what the model is given besides the point.

    Attributes:
        inputs: as given.
        n_labels: number of labels that the model sees.
        time_dependent: the model sees the time.
        normalised: the model works in the frame of the domain.

    Raises:
        InputError: the model has no parameters.
    """

    _initialise: Callable[..., Any] | None

    def __init__(self, start: Floats, inputs: Inputs) -> None:
        if not start.size:
            raise InputError("the model holds no parameters that could be trained", key=KEY)
        if not np.all(np.isfinite(start)):
            raise InputError("the model holds parameters that are not finite", key=KEY)
        self._start, self.inputs = start, inputs
        self.n_labels = inputs.n_labels
        self.time_dependent, self.normalised = inputs.time_dependent, inputs.normalised

    def n_params(self, dim: int, /) -> int:  # noqa: ARG002
        """Number p of all trained numbers; whether the model fits the dimension shows when it is called."""
        return self._start.size

    def init(self, rng: np.random.Generator, /) -> Floats:
        """The parameters (p,) that the model had, or fresh ones if an initialiser was given."""
        fresh = self._fresh(int(rng.integers(2**31)))
        return self._start.copy() if fresh is None else fresh

    def value(self, theta: Floats, x: Floats, label: int | None = None, time: float | None = None) -> Floats:
        """Velocities (n, dim) at points x (n, dim)."""
        x = _points(x)
        return self._rows("value", theta, x, None, label, time, x.shape)

    def vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None, time: float | None = None) -> Floats:
        """Gradient (p,) of Σ_n w_n · v(x_n, θ), w (n, dim)."""
        x = _points(x)
        return self._sum("vjp", theta, x, checked("w", w, x.shape), label, time)

    def jacobian(self, theta: Floats, x: Floats, label: int | None = None, time: float | None = None) -> Floats:
        """∂v_i/∂x_j as entry [n, i, j] of an array (n, dim, dim)."""
        x = _points(x)
        return self._rows("jacobian", theta, x, None, label, time, (*x.shape, x.shape[1]))

    def jacobian_vjp(
        self, theta: Floats, x: Floats, w: Floats, label: int | None = None, time: float | None = None
    ) -> Floats:
        """Gradient (p,) of Σ_n w_n : ∇v(x_n, θ), w (n, dim, dim)."""
        x = _points(x)
        return self._sum("jacobian_vjp", theta, x, checked("w", w, (*x.shape, x.shape[1])), label, time)

    def jacobian_vjp_x(
        self, theta: Floats, x: Floats, w: Floats, label: int | None = None, time: float | None = None
    ) -> Floats:
        """Gradients (n, dim) of w_n : ∇v(x_n, θ) with respect to x_n, w (n, dim, dim)."""
        x = _points(x)
        return self._rows("jacobian_vjp_x", theta, x, checked("w", w, (*x.shape, x.shape[1])), label, time, x.shape)

    @property
    def random_start(self) -> bool:
        """Whether ``init`` draws parameters; without an initialiser it gives those that the model had."""
        return self._initialise is not None

    @property
    def may_want_a_frame(self) -> bool:
        """Whether nobody has said if the model sees the frame of the domain or suits the coordinates as they are."""
        return self.normalised is None

    @abstractmethod
    def in_double(self) -> "FrameworkField":
        """The same field, computing in float64 throughout; itself if it does so anyway."""

    @abstractmethod
    def module(self, row: Floats) -> Any:
        """A model of the library's own kind with the parameters θ = ``row`` (p,); the wrapped one stays as it is."""

    def modules(self, theta: Floats | Path | str) -> list[Any]:
        """One model per row of θ (L, p), which may also be the name of a run's ``theta.npz``.

        Raises:
            InputError: the file cannot be read, or its rows belong to another model.
        """
        rows = read_theta(Path(theta), "theta")[0] if isinstance(theta, Path | str) else theta
        return [self.module(row) for row in checked("theta", np.atleast_2d(rows), (None, self._start.size))]

    @abstractmethod
    def _fresh(self, seed: int) -> Floats | None:
        """New parameters (p,) from the user's initialiser, if there is one."""

    @abstractmethod
    def _evaluate(self, method: str, theta: Floats, x: Floats, w: Floats | None, label: int, time: float) -> Any:
        """One of the five methods on at most PIECE points: something that NumPy can read, perhaps later."""

    def _pieces(
        self, method: str, theta: Floats, x: Floats, w: Floats | None, label: int | None, time: float | None
    ) -> list[Floats]:
        theta = checked("theta", theta, (self._start.size,))
        chosen, moment = self.inputs.label(label), self.inputs.time(time)
        slices = [slice(start, start + PIECE) for start in range(0, len(x), PIECE)]
        # All pieces are started before the first one is waited for: JAX computes them meanwhile.
        started = [
            self._evaluate(method, theta, x[rows], None if w is None else w[rows], chosen, moment) for rows in slices
        ]
        return [np.asarray(piece, dtype=np.float64) for piece in started]

    def _rows(
        self,
        method: str,
        theta: Floats,
        x: Floats,
        w: Floats | None,
        label: int | None,
        time: float | None,
        shape: tuple[int, ...],
    ) -> Floats:
        result = np.empty(shape)
        start = 0
        for piece in self._pieces(method, theta, x, w, label, time):
            rows = min(PIECE, len(x) - start)
            result[start : start + rows] = piece[:rows]  # some libraries are given padded pieces
            start += rows
        return result

    def _sum(self, method: str, theta: Floats, x: Floats, w: Floats, label: int | None, time: float | None) -> Floats:
        total = np.zeros(self._start.size)
        for piece in self._pieces(method, theta, x, w, label, time):
            total += piece
        return total


def missing(package: str, extra: str, error: ImportError) -> InputError:
    """What to raise where a library is missing."""
    return InputError(f"{package} cannot be imported ({error})", key=KEY, remedy=install(extra))


def call_model(call: Callable[[], Any], inputs: Inputs, dim: int) -> Any:
    """The outcome of ``call``; an error says what the model was given.

    Raises:
        InputError: the call raised something.
    """
    try:
        return call()
    except Exception as error:
        remedy = (
            "Its input must have room for the coordinates, one entry per label and the time, as far as they are asked "
            'for (or inputs="separate").'
        )
        raise raised(f"the model cannot be applied to {inputs.describe(dim)}:", error, remedy=remedy) from error


def check_outcome(outcome: Any, expected: Sequence[int], given: str) -> None:
    """Refuse what is no velocity.

    Raises:
        InputError: not an array, of another shape, or not of real floating-point numbers.
    """
    shape, dtype = getattr(outcome, "shape", None), getattr(outcome, "dtype", None)
    if shape is None or dtype is None:
        raise InputError(f"the model must return an array, it returns {type(outcome).__name__}", key=KEY)
    if tuple(shape) != tuple(expected):
        raise InputError(
            f"the model must return shape {tuple(expected)} for {given}, it returns {tuple(shape)}", key=KEY
        )
    if "float" not in str(dtype):
        raise InputError(f"the model must return floating-point numbers, it returns {dtype}", key=KEY)


def threads_per_rank() -> int | None:
    """Threads that one of several ranks on this machine may use; None where there is only one rank.

    A library that takes every core in every rank slows all of them down. The launcher's environment tells how many
    ranks there are; ``OMP_NUM_THREADS`` has the last word.
    """
    for name in ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE", "PMI_SIZE"):
        text = os.environ.get(name, "")
        if text.isdigit():
            break
    else:
        return None
    if int(text) < 2:
        return None
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(wanted) if wanted.isdigit() else cores // int(text))


def _points(x: Floats) -> Floats:
    return checked("x", x, (None, None))
