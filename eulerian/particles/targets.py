"""Target densities of particles: mixtures of shapes on all of R^d, for particles know no walls."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eulerian.base.errors import InputError
from eulerian.density.shape import LabelledShape

type Terms = tuple[tuple[LabelledShape, float], ...]
"""Shapes, each with the factor that it counts with."""


def labelled_terms(target: Any, dim: int, n_labels: int, key: str) -> list[LabelledShape]:
    """The shapes of a target that a user gives.

    Args:
        target: a shape, a list of shapes (a mixture of equal shares), or a dictionary label → one of these.
        dim: of space.
        n_labels: K.
        key: what it is called in messages.

    Raises:
        InputError: it is none of these, or does not fit the dimension or the labels.
    """
    terms = list(_labelled(target, key))
    for term in terms:
        term.shape.check(dim, term.key)
    if {term.label for term in terms} != set(range(n_labels)):
        given = sorted({term.label for term in terms})
        what = f"has labels {given}, but those of the particles are from 0 to {n_labels - 1}"
        raise InputError(what, key=key, remedy="Give a dictionary label → target.")
    return terms


def normalised(terms: Sequence[LabelledShape], masses: Sequence[float] | None = None) -> Terms:
    """A mixture of mass 1 of shapes whose weights are shares of it.

    Args:
        terms: the shapes.
        masses: what they integrate to; by default what they say, or 1 where that is unknown, as of a formula.
    """
    known = masses or [1.0 if term.shape.mass is None else term.shape.mass for term in terms]
    total = sum(term.weight for term in terms)
    return tuple((term, term.weight / (mass * total)) for term, mass in zip(terms, known, strict=True))


def _labelled(target: Any, key: str, label: int = 0) -> Iterator[LabelledShape]:
    if hasattr(target, "shape") and hasattr(target, "label"):
        yield target
    elif isinstance(target, Mapping):
        for each, part in target.items():
            yield from _labelled(part, f"{key}[{each!r}]", each)
    elif isinstance(target, list | tuple):
        for index, part in enumerate(target):
            yield from _labelled(part, f"{key}[{index}]", label)
    elif hasattr(target, "log_and_gradient"):
        yield LabelledShape(target, label, key=key)
    else:
        remedy = "Give Gaussian, Samples or Formula, a list of these, or a dictionary label → one of these."
        raise InputError("is no shape with a logarithm", key=key, value=type(target).__name__, remedy=remedy)
