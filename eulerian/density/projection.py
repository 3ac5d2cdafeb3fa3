"""From shapes to a density on a mesh, the same on any number of ranks."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.parallel import agreed, sum_all
from eulerian.density import basis
from eulerian.density.outside import Domain, check_mass, check_samples_and_kernels
from eulerian.density.shape import LabelledShape
from eulerian.density.space import DensitySpace
from eulerian.density.subdivided_rule import subdivided_rules

_LEAST_MASS = 1e-6  # of a shape's own mass: with less in the domain, scaling up would make a density of its far tail

type Factors = tuple[tuple[LabelledShape, float], ...]


def project_shapes(
    space: DensitySpace, terms: Iterable[LabelledShape], *, check_outside: bool = True
) -> tuple[Floats, Factors]:
    """The mixture of all terms as a density (n_cells, nd, K) ≥ 0 of total mass 1. **Collective**.

    Each term is scaled to its weight by its own integral over the domain, projected in L², added to its label, limited
    to be non-negative at the limiter's points, and all are scaled to total mass 1. Cells are subdivided for the
    quadrature where a term is finer than they are. Does not depend on the number of ranks beyond rounding. Mass outside
    the domain is lost, and a warning says how much, unless it is a little of a tail.

    Args:
        space: of K labels.
        terms: the same on all ranks.
        check_outside: look how much of the mass is outside the domain.

    Returns:
        The coefficients, and every term with its factor: the density itself is Σ factor · shape.

    Raises:
        InputError: a term does not fit the space, has most of its mass outside the domain, none in it, or negative or
            infinite values.
    """
    rho, checked = space.zeros(), _fitting(space, terms)
    fitting: list[LabelledShape] = []
    masses: list[float] = []
    for term in _inside(Domain(space), checked) if check_outside else checked:
        modes, mass = _modes_and_mass(space, term)
        fitting.append(term)
        masses.append(mass)
        rho[: space.n_owned, :, term.label] += term.weight / mass * modes
    if not fitting:
        raise InputError("needs at least one shape", key="density")
    space.limit(rho)
    space.update_ghosts(rho)  # last: where a cell stands among a rank's cells may change how its products are rounded
    rho /= space.mass(rho).sum()
    return rho, _with_factors(fitting, masses)


def shape_factors(space: DensitySpace, terms: Iterable[LabelledShape]) -> Factors:
    """The factors of ``project_shapes`` without a density on the mesh, and without its warnings. **Collective**."""
    fitting = list(_fitting(space, terms))
    return _with_factors(fitting, [mass_in_domain(space, term) for term in fitting])


def mass_in_domain(space: DensitySpace, term: LabelledShape) -> float:
    """Integral of a shape over the domain. **Collective**.

    Raises:
        InputError: there is none, or the shape is negative or infinite somewhere.
    """
    return _modes_and_mass(space, term)[1]


def _fitting(space: DensitySpace, terms: Iterable[LabelledShape]) -> Iterator[LabelledShape]:
    """The terms, one by one, if they fit."""
    for term in terms:
        term.shape.check(space.dim, term.key)
        if not 0 <= term.label < space.n_labels:
            what, remedy = f"there are only {space.n_labels} labels, from 0", "Number labels from 0."
            raise InputError(what, key=f"{term.key}.label", value=term.label, remedy=remedy)
        yield term


def _inside(domain: Domain, terms: Iterable[LabelledShape]) -> Iterator[LabelledShape]:
    """The terms, if enough of them lies in the domain. **Collective**."""
    for key, group in groupby(terms, lambda term: term.key):  # one warning for all classes of a file
        members = list(group)
        if all(term.shape.samples is not None for term in members):
            check_samples_and_kernels(domain, [term.shape for term in members], [term.name for term in members], key)
        else:
            for term in members:
                check_mass(domain, term.shape, key)
        yield from members


def _with_factors(terms: Sequence[LabelledShape], masses: Sequence[float]) -> Factors:
    """Terms, whose shapes have these masses in the domain, with the factors that give their shares of mass 1."""
    total = sum(term.weight for term in terms)
    return tuple((term, term.weight / (mass * total)) for term, mass in zip(terms, masses, strict=True))


def _modes_and_mass(space: DensitySpace, term: LabelledShape) -> tuple[Floats, float]:
    """A shape's projection (n_owned, nd), and its integral. **Collective**."""
    modes = _project(space, term)
    cell_mass = modes[:, 0] * space.geometry.det[: space.n_owned] / space.phi0
    mass = float(sum_all(space.comm, np.array([cell_mass.sum()]))[0])
    least = 0.0 if term.shape.mass is None else _LEAST_MASS * term.shape.mass
    if not least < mass < np.inf:
        raise InputError(
            "the term has no mass in the domain",
            key=term.key,
            value=mass,
            remedy="Move it inside, or make it wider than the cells of the mesh.",
        )
    return modes, mass


def _project(space: DensitySpace, term: LabelledShape) -> Floats:
    """Modal coefficients (n_owned, nd) of a shape's L² projection. Collective."""
    if term.shape.modes is not None:
        return term.shape.modes
    shape, vertices = term.shape, space.vertices
    near = np.all((vertices.max(axis=1) >= shape.lower) & (vertices.min(axis=1) <= shape.upper), axis=1)
    modes = np.zeros((space.n_owned, space.nd))
    # All of them first: making them is collective, which the guarded block must not be.
    rules = list(subdivided_rules(space, [shape.scale], np.flatnonzero(near)))
    with agreed(space.comm):
        for cells, points, weights in rules:
            weighted = weights[:, None] * basis.legendre(space.dim, space.degree, points)
            x = basis.physical_points(vertices[cells], points)
            values = shape.values(x.reshape(-1, space.dim))
            _require_density(values, x.reshape(-1, space.dim), term.key)
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
