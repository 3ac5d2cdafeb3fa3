"""``Density``: made from shapes, functions or samples; moments, values, draws and files come out."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, final

from eulerian.base import parallel
from eulerian.base.arrays import Floats, Ints

# isort: split
import dolfinx
import numpy as np
import ufl
from numpy.typing import ArrayLike

from eulerian.base.errors import InputError
from eulerian.density import basis
from eulerian.density.exact_density import ExactDensity
from eulerian.density.gathered import GatheredDensity
from eulerian.density.point_values import PointValues
from eulerian.density.sampling import Method, draw_points
from eulerian.density.shape import DensityShape, LabelledShape
from eulerian.density.shapes import FunctionShape, MeshShape, Samples
from eulerian.density.space import DensitySpace
from eulerian.density.weighted_rule import density_rules

if TYPE_CHECKING:
    import pyvista

type Projectable = (
    "Density"
    | DensityShape
    | LabelledShape
    | Callable[[Floats], ArrayLike]
    | ArrayLike
    | dolfinx.fem.Function
    | ufl.core.expr.Expr
    | Sequence[Any]
    | Mapping[int, Any]
)

# Exactness, beyond what the space itself asks for, of the rule that projects a DOLFINx function.
_MORE = 6
# Interpolation of a density falls a little below zero beside its support; what is negative up to this share of ∫|f|
# is taken for that.
_UNDERSHOOT = 0.01

# How exact rules are (see ``density_rules``) that are computed once.
_FINER = 3e-3


@final
@dataclass(frozen=True, eq=False)
class Density:
    """ρ_y, y = 0..K-1, in a ``DensitySpace``. Lengths are in the units of the mesh.

    Attributes:
        space: where it lives.
        coefficients: (n_cells, nd, K) modal coefficients of this rank's cells, ghosts included.
        exact: the density that this is the projection of, where there is one.
    """

    space: DensitySpace
    coefficients: Floats
    exact: ExactDensity | None = None

    def __repr__(self) -> str:
        space = self.space  # nothing collective: whoever prints may be one rank alone
        labels = "1 label" if space.n_labels == 1 else f"{space.n_labels} labels"
        return f"Density({labels} of degree {space.degree}, {space.n_owned} cells on this rank)"

    # -- numbers -----------------------------------------------------------------------------------------------------

    @cached_property
    def mass(self) -> Floats:
        """∫ρ_y, (K,), the same bits on every rank. **Collective** the first time."""
        return self.space.mass(self.coefficients)

    @property
    def mean(self) -> Floats:
        """Mean of each label's normalised density, (K, dim). **Collective** the first time."""
        return self._moments[0]

    @property
    def covariance(self) -> Floats:
        """Covariance of each label's normalised density, (K, dim, dim). **Collective** the first time."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[Floats, Floats]:
        with np.errstate(divide="ignore", invalid="ignore"):  # a label without mass has no mean
            return self.space.mean_and_covariance(self.coefficients)

    # -- at points ---------------------------------------------------------------------------------------------------

    def __call__(self, x: ArrayLike) -> Floats:
        """ρ_y (n, K) at this rank's points x (n, dim), 0 outside the domain. **Collective**.

        Every rank may ask for points of its own, also for none.

        Raises:
            InputError: x is not (n, dim); on all ranks.
        """
        with parallel.agreed(self.space.comm):
            points = np.asarray(x, dtype=np.float64)
            if points.ndim != 2 or points.shape[1] != self.space.dim:
                what, remedy = f"an array of shape {points.shape}", f"Give points (n, {self.space.dim})."
                raise InputError(what, key="x", remedy=remedy)
        return self._values.values(self.coefficients, points)

    def total(self, x: ArrayLike) -> Floats:
        """Σ_y ρ_y, (n,), at points x (n, dim). **Collective**, as calling the density is."""
        return np.asarray(self(x).sum(axis=1))

    @cached_property
    def _values(self) -> PointValues:
        return PointValues(self.space)

    @cached_property
    def _gathered(self) -> GatheredDensity:
        return GatheredDensity.gather(self.space, self.coefficients)

    def draw(
        self, n: int, seed: int = 0, *, method: Method = "random", label: int | None = None, with_labels: bool = False
    ) -> Any:
        """Points (n, dim) that follow the density, the same on all ranks and on any number of them. **Collective**.

        Args:
            n: how many, at least one for each label.
            seed: of the points.
            method: "random" for independent points, "sobol" for points that are spread more evenly.
            label: of one label only; by default of all, each with its share of the points, one label after the other.
            with_labels: give (points, labels (n,)).

        Raises:
            InputError: there is no such label, no mass, or n is too small.
        """
        gathered = self._gathered if label is None else self._gathered.only(self._checked(label))
        found = draw_points(gathered, n, method=method, seed=seed)
        labels: Ints = found.labels if label is None else np.full(n, label, dtype=np.int32)
        return (found.x, labels) if with_labels else found.x

    def rule(self, resolution: float = np.inf) -> tuple[Floats, Floats]:
        """Points x (n, dim) of this rank with masses m (n, K): Σ m f(x) over all ranks is ∫fρ. **Collective**.

        Of the density that this is the projection of, where there is one.

        Args:
            resolution: length over which f varies.
        """
        known = self._gathered if self.exact is None else self.exact
        fine, _ = density_rules(self.space, known, range(self.space.n_labels), _FINER, resolution)
        return fine.x, fine.weights

    # -- for others --------------------------------------------------------------------------------------------------

    def to_function(self, label: int | None = None, *, limited: bool = False) -> dolfinx.fem.Function:
        """A DOLFINx function (discontinuous Lagrange, of the same degree) with the same values. **Collective**.

        Densities of degree 1 and 2 are non-negative where the scheme looks, at points of quadrature rules. At vertices
        they may be negative, far so in cells where they are steep.

        Args:
            label: which density; by default the sum of all.
            limited: scaled towards the mean of each cell until no value at a node is negative: for pictures, and for
                forms with logarithms or roots. Masses of cells stay.

        Raises:
            InputError: there is no such label.
        """
        chosen = slice(None) if label is None else slice(self._checked(label), label + 1)
        rho = self.coefficients[..., chosen]
        if limited:
            rho = self.space.limited_at_nodes(rho)
        values = np.einsum("qi,cik->cqk", self.space.modal_to_nodal, rho)
        if limited:
            values = np.maximum(values, 0.0)  # rounding
        element = ("DG", self.space.degree)
        function = dolfinx.fem.Function(dolfinx.fem.functionspace(self.space.mesh, element))
        dofs = function.function_space.dofmap.list[: self.space.n_cells]
        function.x.array[dofs] = values.sum(axis=2)
        function.x.scatter_forward()
        return function

    def to_array(self) -> Floats:
        """The coefficients of all cells in the order of the mesh's input, (C, nd, K), on every rank. **Collective**.

        ``DensitySpace.from_array`` makes a density of such an array.
        """
        return self.space.all_cells(self.coefficients[: self.space.n_owned])

    def to_pyvista(self) -> "pyvista.UnstructuredGrid":
        """The whole mesh with the densities of all labels as point data, on every rank. **Collective**.

        Cells do not share points, so that jumps between them stay visible. Point data are ``density`` (the sum) and,
        where there are several labels, ``density_0`` …, all limited to be non-negative there (see ``to_function``).

        Raises:
            InputError: pyvista is not installed.
        """
        try:
            import pyvista
        except ImportError:
            remedy = "pip install pyvista (or eulerian[pyvista])"
            raise InputError("needs the package pyvista", key="to_pyvista", remedy=remedy) from None
        gathered = self._gathered
        nodes = basis.vtk_nodes(gathered.dim, gathered.degree)
        points = basis.physical_points(gathered.vertices, nodes)
        shapes = basis.legendre(gathered.dim, gathered.degree, nodes)
        values = np.einsum("qi,cik->cqk", shapes, self.space.limited_at_nodes(gathered.coefficients))
        values = np.maximum(values, 0.0)  # rounding
        count, size = points.shape[:2]
        cells = np.column_stack([np.full(count, size), np.arange(count * size).reshape(count, size)])
        flat = np.zeros((count * size, 3))
        flat[:, : gathered.dim] = points.reshape(-1, gathered.dim)
        kinds = np.full(count, basis.vtk_cell_type(gathered.dim, gathered.degree), dtype=np.uint8)
        grid = pyvista.UnstructuredGrid(cells.ravel(), kinds, flat)
        grid.point_data["density"] = values.sum(axis=2).ravel()
        for label in range(gathered.n_labels if gathered.n_labels > 1 else 0):
            grid.point_data[f"density_{label}"] = values[..., label].ravel()
        return grid

    def _checked(self, label: int) -> int:
        if not 0 <= label < self.space.n_labels:
            what, remedy = f"there are {self.space.n_labels} labels, from 0", "Number labels from 0."
            raise InputError(what, key="label", value=label, remedy=remedy)
        return label

    @classmethod
    def of(cls, space: DensitySpace, what: Projectable, masses: ArrayLike | None = None, key: str = "density") -> Self:
        """See ``DensitySpace.project``. **Collective**."""
        if isinstance(what, cls):
            if what.space is not space:
                what_, remedy = "is of another space", "Project it into this one: give its to_function()."
                raise InputError(what_, key=key, remedy=remedy)
            return cls(space, what.coefficients, what.exact)
        terms = _with_masses(list(_terms(space, what, key)), masses, space.n_labels, key)
        rho, exact = ExactDensity.with_projection(space, terms)
        return cls(space, rho, exact)


def _terms(space: DensitySpace, what: Any, key: str, label: int = 0) -> Iterator[LabelledShape]:
    """What a user gives as terms of a mixture. **Collective**."""
    if isinstance(what, LabelledShape):
        yield what
    elif isinstance(what, Mapping):
        for each, part in what.items():
            yield from _terms(space, part, f"{key}[{each!r}]", each)
    elif isinstance(what, list | tuple) and not _is_table(what):
        for index, part in enumerate(what):
            yield from _terms(space, part, f"{key}[{index}]", label)
    else:
        yield LabelledShape(_shape(space, what, key), label, key=key)


def _shape(space: DensitySpace, what: Any, key: str) -> DensityShape:
    """One shape of what a user gives. **Collective**."""
    if hasattr(what, "equal_mass_points"):
        shape: DensityShape = what
        return shape
    if isinstance(what, ufl.core.expr.Expr):
        return _of_expression(space, what, key)
    if isinstance(what, np.ndarray | list | tuple):
        return Samples(what, key=key)
    if callable(what) and not isinstance(what, ufl.Form):
        return FunctionShape(what)
    raise InputError(
        "is nothing that can be a density",
        key=key,
        value=type(what).__name__,
        remedy="Give a shape (Gaussian, Samples, …), a function of points (n, dim), an array of samples (n, dim), a "
        "DOLFINx function or a UFL expression, a list of these, or a dictionary label → one of these.",
    )


def _is_table(what: Sequence[Any]) -> bool:
    """Whether it is rows of numbers."""
    return len(what) > 0 and all(isinstance(row, int | float | list | tuple) for row in what)


def _of_expression(space: DensitySpace, expression: ufl.core.expr.Expr, key: str) -> MeshShape:
    """The projection of a DOLFINx function or a UFL expression of the same mesh. **Collective**."""
    with parallel.agreed(space.comm):
        if expression.ufl_shape != ():
            raise InputError("must be a scalar", key=key, value=f"shape {expression.ufl_shape}")
        domain = ufl.domain.extract_unique_domain(expression)
        if domain is None:  # UFL makes a constant of 0 * x[0], and it knows no mesh
            what, remedy = "is a constant of UFL, which is on no mesh", "Give eu.Uniform for a constant density."
            raise InputError(what, key=key, value=str(expression), remedy=remedy)
        if domain is not space.mesh.ufl_domain():
            remedy = "Interpolate it to a function on the space's mesh."
            raise InputError("is a function on another mesh", key=key, remedy=remedy)
    rule = basis.quadrature_rule(space.dim, 2 * space.degree + _MORE)
    compiled = dolfinx.fem.Expression(expression, rule.points)
    values = compiled.eval(space.mesh, np.arange(space.n_owned, dtype=np.int32)).reshape(space.n_owned, -1)
    values = _without_undershoot(space, values, rule.weights, key)
    weighted = rule.weights[:, None] * basis.legendre(space.dim, space.degree, rule.points)
    rho = np.zeros((space.n_cells, space.nd, 1))
    rho[: space.n_owned, :, 0] = values @ weighted
    space.limit(rho)
    gathered = GatheredDensity.gather(space, rho).non_negative()
    own = np.asarray(space.mesh.topology.original_cell_index[: space.n_owned])
    return MeshShape(gathered.dim, lambda x: gathered.values(x)[:, 0], gathered.coefficients[own, :, 0])


def _without_undershoot(space: DensitySpace, values: Floats, weights: Floats, key: str) -> Floats:
    """Values (n_owned, nq), the few negative ones that interpolation makes of a density set to zero. **Collective**."""
    with parallel.agreed(space.comm):
        if not np.all(np.isfinite(values)):
            raise InputError("a density must be finite everywhere", key=key, value="a value that is not")
    weighted = values * weights * space.geometry.det[: space.n_owned, None]
    below, total = parallel.sum_all(space.comm, np.array([-np.minimum(weighted, 0.0).sum(), np.abs(weighted).sum()]))
    share = float(below / total) if total > 0.0 else 0.0
    if share > _UNDERSHOOT:
        remedy = "Take ufl.max_value(f, 0), or interpolate it on a finer mesh."
        raise InputError("a density must not be negative", key=key, value=f"{share:.3g} of ∫|f| is", remedy=remedy)
    return np.maximum(values, 0.0)


def _with_masses(
    terms: list[LabelledShape], masses: ArrayLike | None, n_labels: int, key: str
) -> Iterable[LabelledShape]:
    """Terms whose weights give every label its mass."""
    missing = sorted(set(range(n_labels)) - {term.label for term in terms})
    if missing:
        remedy = "Give a dictionary label → density, with all labels from 0."
        raise InputError(f"label {missing[0]} of {n_labels} has no density", key=key, remedy=remedy)
    if masses is None:
        return terms
    shares = np.asarray(masses, dtype=np.float64)
    if shares.shape != (n_labels,) or not np.all(np.isfinite(shares)) or not np.all(shares > 0.0):
        remedy = "Give one number > 0 per label; they are scaled to the total mass 1."
        raise InputError(f"must be {n_labels} masses", key="masses", value=shares.tolist(), remedy=remedy)
    totals = np.zeros(n_labels)
    for term in terms:
        if 0 <= term.label < n_labels:
            totals[term.label] += term.weight
    return [replace(t, weight=t.weight * shares[t.label] / totals[t.label]) for t in terms]
