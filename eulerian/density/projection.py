"""From the terms of a configuration to a density on a mesh, the same on any number of ranks."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mpi4py import MPI

import numpy as np

from eulerian.app.config import ExpressionTerm, GaussianTerm, ImageTerm, SamplesTerm, Term, UniformTerm
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.formula import Expression
from eulerian.base.parallel import agreed, on_root, sum_all
from eulerian.density import basis
from eulerian.density.csv_samples import Samples, compare_classes, read_samples
from eulerian.density.image_file import read_darkness
from eulerian.density.outside import Domain, check_estimates, check_mass
from eulerian.density.profiles import (
    Formula,
    Gaussian,
    Image,
    KernelEstimate,
    Profile,
    Uniform,
    scott_bandwidth,
)
from eulerian.density.space import DensitySpace
from eulerian.density.subdivided_rule import physical_points, subdivided_rules

_LEAST_MASS = 1e-6


@dataclass(frozen=True)
class Piece:
    """One term of a mixture: a profile, its label, its share of the mass before all are scaled to 1, and its key."""

    profile: Profile
    label: int
    share: float
    key: str


def count_labels(terms: Sequence[Term], comm: MPI.Comm, key: str = "density.initial") -> int:
    """Number K of labels; files of samples with a column of classes are read for it. Collective.

    Raises:
        InputError: labels have gaps, or a file cannot be read.
    """

    def count() -> int:
        labels: set[int] = set()
        named: dict[str, tuple[str, ...]] = {}
        for index, term in enumerate(terms):
            if isinstance(term, SamplesTerm) and term.label_column is not None:
                named[f"{key}.{index}"] = classes = read_samples(term, f"{key}.{index}").classes
                labels.update(range(len(classes)))
            else:
                labels.add(term.label)
        compare_classes(named)
        if labels != set(range(len(labels))):
            what, remedy = "labels must be 0..K-1 without gaps", "Number the labels from 0."
            raise InputError(what, key=key, value=sorted(labels), remedy=remedy)
        return len(labels)

    return on_root(comm, count)


def class_names(terms: Sequence[Term], n_labels: int, comm: MPI.Comm, key: str = "density.initial") -> tuple[str, ...]:
    """Names of the labels: the classes of the first samples that have all of them, else numbers. Collective.

    Raises:
        InputError: a file cannot be read.
    """

    def find() -> tuple[str, ...]:
        for index, term in enumerate(terms):
            if isinstance(term, SamplesTerm) and term.label_column is not None:
                names = read_samples(term, f"{key}.{index}").classes
                if len(names) == n_labels:
                    return names
        return tuple(map(str, range(n_labels)))

    return on_root(comm, find)


def initial_density(space: DensitySpace, terms: Sequence[Term], key: str = "density.initial") -> Floats:
    """The mixture of all terms as a density (n_cells, nd, K) ≥ 0 of total mass 1. Collective.

    Each term is scaled to its weight by its own integral over the domain, projected in L², added to its label, limited
    to be non-negative at the limiter's points, and all are scaled to total mass 1. Cells are subdivided for the
    quadrature where a term is finer than they are. Does not depend on the number of ranks beyond rounding. Mass outside
    the domain is lost, and a warning says how much, unless it is a little of a tail.

    Args:
        space: of K labels.
        terms: as in ``density.initial``.
        key: dotted key of ``terms``, for messages.

    Raises:
        InputError: a term has most of its mass outside the domain, none in it, or negative or infinite values, or its
            file cannot be read.
    """
    return density_and_factors(space, terms, key)[0]


def density_and_factors(
    space: DensitySpace, terms: Sequence[Term], key: str = "density.initial"
) -> tuple[Floats, tuple[tuple[Piece, float], ...]]:
    """``initial_density``, and every piece with its factor: the density itself is Σ factor · profile. Collective."""
    return _assembled(space, mixture(space, terms, key, Domain(space)))


def piece_factors(
    space: DensitySpace, terms: Sequence[Term], key: str = "density.initial"
) -> tuple[tuple[Piece, float], ...]:
    """The factors of ``density_and_factors`` without a density on the mesh, and without its warnings. Collective."""
    pieces = list(mixture(space, terms, key))
    return _with_factors(pieces, [mass_in_domain(space, piece) for piece in pieces])


def estimated_density(space: DensitySpace, samples: Samples, bandwidth: float | Literal["scott"], key: str) -> Floats:
    """The kernel estimate of labelled samples, of total mass 1; labels without samples have no mass. Collective.

    Args:
        space: of K labels.
        samples: the same on all ranks; their labels are those of the space.
        bandwidth: of the kernel, or Scott's rule for every label.
        key: the samples' name, for messages.

    Raises:
        InputError: a label's samples lie outside the domain, or are too few for Scott's rule.
    """
    present, counts = np.unique(samples.labels, return_counts=True)
    pieces = (
        Piece(_estimate(samples, int(label), bandwidth, key), int(label), count / len(samples.labels), key)
        for label, count in zip(present, counts, strict=True)
    )
    return _assembled(space, pieces)[0]


def _assembled(space: DensitySpace, pieces: Iterable[Piece]) -> tuple[Floats, tuple[tuple[Piece, float], ...]]:
    """The sum of all pieces as a density of total mass 1, and the pieces with their factors. Collective."""
    rho = space.zeros()
    known: list[Piece] = []
    masses: list[float] = []
    for piece in pieces:
        modes, mass = _modes_and_mass(space, piece)
        known.append(piece)
        masses.append(mass)
        rho[: space.n_owned, :, piece.label] += piece.share / mass * modes
    space.limit(rho)
    space.update_ghosts(rho)  # last: where a cell stands among a rank's cells may change how its products are rounded
    rho /= space.mass(rho).sum()
    return rho, _with_factors(known, masses)


def _with_factors(pieces: Sequence[Piece], masses: Sequence[float]) -> tuple[tuple[Piece, float], ...]:
    """Pieces, whose profiles have these masses in the domain, with the factors that give their shares of mass 1."""
    total = sum(piece.share for piece in pieces)
    return tuple((piece, piece.share / (mass * total)) for piece, mass in zip(pieces, masses, strict=True))


def mass_in_domain(space: DensitySpace, piece: Piece) -> float:
    """Integral of a piece's profile over the domain. Collective.

    Raises:
        InputError: there is none, or the profile is negative or infinite somewhere.
    """
    return _modes_and_mass(space, piece)[1]


def _modes_and_mass(space: DensitySpace, piece: Piece) -> tuple[Floats, float]:
    """A profile's projection (n_owned, nd), and its integral. Collective."""
    modes = _project(space, piece)
    cell_mass = modes[:, 0] * space.geometry.det[: space.n_owned] / space.phi0
    mass = float(sum_all(space.comm, np.array([cell_mass.sum()]))[0])
    least = 0.0 if piece.profile.mass is None else _LEAST_MASS * piece.profile.mass
    if not least < mass < np.inf:
        raise InputError(
            "the term has no mass in the domain",
            key=piece.key,
            value=mass,
            remedy="Move it inside, or make it wider than the cells of the mesh.",
        )
    return modes, mass


def mixture(space: DensitySpace, terms: Sequence[Term], key: str, domain: Domain | None = None) -> Iterator[Piece]:
    """One piece per term, or per class of a file of samples. Collective.

    Args:
        space: of as many labels.
        terms: as in ``density.initial``.
        key: dotted key of ``terms``, for messages.
        domain: whatever is outside of it is lost, which a warning says; None if nothing is.

    Raises:
        InputError: a term does not fit the space, its file cannot be read, or most of it lies outside the domain.
    """
    for index, term in enumerate(terms):
        name = f"{key}.{index}"
        if not isinstance(term, SamplesTerm):
            piece = Piece(_profile(term, space, name), _label(term.label, space, name), term.weight, name)
            if domain is not None:
                check_mass(domain, piece.profile, name)
            yield piece
            continue
        _require_length(term.columns, space.dim, f"{name}.columns")
        samples = on_root(space.comm, lambda term=term, name=name: read_samples(term, name))  # type: ignore[misc]
        estimates = [_estimate(samples, label, term.bandwidth, name) for label in range(len(samples.classes))]
        if domain is not None:
            check_estimates(domain, estimates, samples.classes, name)
        for label, estimate in enumerate(estimates):
            own = term.label if term.label_column is None else label
            share = term.weight * float(np.mean(samples.labels == label))
            yield Piece(estimate, _label(own, space, name), share, name)


def _profile(term: Term, space: DensitySpace, key: str) -> Profile:
    """The shape of a term. Collective for pictures, whose file rank 0 reads."""
    dim = space.dim
    if isinstance(term, GaussianTerm):
        _require_length(term.mean, dim, f"{key}.mean")
        covariance = np.eye(dim) * term.std**2 if term.std is not None else np.array(term.covariance)
        return Gaussian(np.array(term.mean), covariance)
    if isinstance(term, UniformTerm):
        _require_length(term.lower, dim, f"{key}.lower")
        return Uniform(np.array(term.lower), np.array(term.upper))
    if isinstance(term, ExpressionTerm):
        return Formula(Expression.parse(term.value, ("x", "y", "z")[:dim], f"{key}.value"), dim)
    if isinstance(term, ImageTerm):
        if dim != 2:
            raise InputError("pictures need dimension 2", key=f"{key}.kind", value=dim, remedy="Use another kind.")
        _require_length(term.lower, dim, f"{key}.lower")
        darkness = on_root(space.comm, lambda: read_darkness(Path(term.file), f"{key}.file"))
        return Image(darkness, np.array(term.lower), np.array(term.upper))
    raise InputError("unknown kind of density", key=f"{key}.kind", value=term.kind)


def _estimate(samples: Samples, label: int, bandwidth: float | Literal["scott"], key: str) -> KernelEstimate:
    """The kernel density estimate of one class."""
    points = samples.points[samples.labels == label]
    if bandwidth == "scott":
        return KernelEstimate(points, scott_bandwidth(points, f"{key}.bandwidth"))
    return KernelEstimate(points, np.full(points.shape[1], float(bandwidth)))


def _label(label: int, space: DensitySpace, key: str) -> int:
    if label >= space.n_labels:
        raise InputError(
            f"there are only {space.n_labels} labels, from 0",
            key=f"{key}.label",
            value=label,
            remedy="Number labels from 0.",
        )
    return label


def _require_length(vector: Sequence[object], dim: int, key: str) -> None:
    if len(vector) != dim:
        raise InputError(f"needs {dim} entries, one per axis", key=key, value=list(vector), remedy=f"Give {dim}.")


def _project(space: DensitySpace, piece: Piece) -> Floats:
    """Modal coefficients (n_owned, nd) of a profile's L² projection. Collective."""
    profile, vertices = piece.profile, space.vertices
    near = np.all((vertices.max(axis=1) >= profile.lower) & (vertices.min(axis=1) <= profile.upper), axis=1)
    modes = np.zeros((space.n_owned, space.nd))
    rules = list(subdivided_rules(space, [profile.scale], np.flatnonzero(near)))
    with agreed(space.comm):
        for cells, points, weights in rules:
            weighted = weights[:, None] * basis.legendre(space.dim, space.degree, points)
            x = physical_points(vertices[cells], points)
            values = profile.values(x.reshape(-1, space.dim))
            _require_density(values, x.reshape(-1, space.dim), piece.key)
            modes[cells] = values.reshape(len(cells), -1) @ weighted
    return modes


def _require_density(values: Floats, x: Floats, key: str) -> None:
    """Refuse values that are negative or not finite."""
    bad = np.flatnonzero(~((values >= 0) & np.isfinite(values)))
    if len(bad):
        where = ", ".join(f"{coordinate:.6g}" for coordinate in x[bad[0]])
        raise InputError(
            f"a density must be finite and not negative, but it is {values[bad[0]]:.6g} at ({where})",
            key=key,
            remedy="For example max(0, …) keeps an expression from becoming negative.",
        )
