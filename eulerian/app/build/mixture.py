"""From the terms of a configuration to densities: rank 0 reads what files they name, and shares it."""

from collections.abc import Iterator, Sequence

from mpi4py import MPI

from eulerian.app.config import Term, check_target_labels
from eulerian.app.config.checks import TARGET
from eulerian.app.config.density import Terms
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.parallel import agreed, on_root
from eulerian.density.csv_samples import compare_classes
from eulerian.density.density import Density
from eulerian.density.exact_density import ExactDensity
from eulerian.density.shape import LabelledShape
from eulerian.density.space import DensitySpace

INITIAL = "density.initial"


def count_labels(terms: Sequence[Term], comm: MPI.Comm, key: str = INITIAL) -> int:
    """Number K of labels; files of samples with a column of classes are read for it. **Collective**.

    Raises:
        InputError: labels have gaps, or a file cannot be read.
    """

    def count() -> int:
        labels: set[int] = set()
        named: dict[str, tuple[str, ...]] = {}
        for index, term in enumerate(terms):
            if classes := term.classes(f"{key}.{index}"):
                named[f"{key}.{index}"] = classes
            labels.update(range(len(classes)) if classes else (term.label,))
        compare_classes(named)
        if labels != set(range(len(labels))):
            what, remedy = "labels must be 0..K-1 without gaps", "Number the labels from 0."
            raise InputError(what, key=key, value=sorted(labels), remedy=remedy)
        return len(labels)

    return on_root(comm, count)


def class_names(terms: Sequence[Term], n_labels: int, comm: MPI.Comm, key: str = INITIAL) -> tuple[str, ...]:
    """Names of the labels: the classes of the first samples that have all of them, else numbers. **Collective**.

    Raises:
        InputError: a file cannot be read.
    """

    def find() -> tuple[str, ...]:
        for index, term in enumerate(terms):
            if len(names := term.classes(f"{key}.{index}")) == n_labels:
                return names
        return tuple(map(str, range(n_labels)))

    return on_root(comm, find)


def labelled_shapes(terms: Sequence[Term], dim: int, comm: MPI.Comm, key: str = INITIAL) -> Iterator[LabelledShape]:
    """The shapes of all terms, with their labels and shares, term by term. **Collective**.

    Args:
        terms: of a mixture, checked for this dimension.
        dim: of space.
        comm: who shares them.
        key: dotted key of the terms, for messages.

    Raises:
        InputError: a file cannot be read, or does not fit.
    """
    for index, term in enumerate(terms):
        name = f"{key}.{index}"
        if term.code is not None:  # a function of the user's cannot be sent: every rank has its own
            with agreed(comm):
                own = term.labelled_shapes(dim, name)
            yield from own
            continue
        yield from on_root(comm, lambda term=term, name=name: term.labelled_shapes(dim, name))  # type: ignore[misc]


def exact_density(space: DensitySpace, terms: Sequence[Term], key: str = INITIAL) -> ExactDensity:
    """The density of all terms as a function. **Collective**. Errors as of ``labelled_shapes``, ``project_shapes``."""
    return ExactDensity.of_shapes(space, labelled_shapes(terms, space.dim, space.comm, key))


def density_and_exact(space: DensitySpace, terms: Sequence[Term], key: str = INITIAL) -> tuple[Floats, ExactDensity]:
    """The coefficients (n_cells, nd, K) of all terms, and the density that they project. **Collective**."""
    return ExactDensity.with_projection(space, labelled_shapes(terms, space.dim, space.comm, key))


def initial_density(space: DensitySpace, terms: Sequence[Term], key: str = INITIAL) -> Floats:
    """The coefficients (n_cells, nd, K) of all terms. **Collective**."""
    return density_and_exact(space, terms, key)[0]


def projected_target(space: DensitySpace, terms: Terms, key: str = TARGET, *, projected: bool = True) -> Density:
    """The target density of a distance. **Collective**.

    Args:
        space: where to.
        terms: of the target.
        key: what it is called in messages.
        projected: whether the distance wants nothing else; of no matter here.

    Raises:
        InputError: it has other labels than the density, or no mass; the same on all ranks.
    """
    del projected
    check_target_labels(count_labels(terms, space.comm, key), space.n_labels, key)
    return Density(space, *density_and_exact(space, terms, key))
