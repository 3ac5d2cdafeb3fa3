"""Functionals of densities that a user writes as a form of UFL, assembled and differentiated by DOLFINx."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from eulerian.base import parallel
from eulerian.base.arrays import Floats

# isort: split
import dolfinx
import numpy as np
import ufl
from ufl.algorithms.apply_algebra_lowering import apply_algebra_lowering
from ufl.algorithms.apply_derivatives import apply_derivatives

from eulerian.base.errors import InputError, explained
from eulerian.density.space import DensitySpace
from eulerian.objective.distances import UserFunctional
from eulerian.objective.functional import Terminal, TerminalValue


@final
@dataclass(frozen=True)
class FormLoss(UserFunctional):
    """A terminal cost that is a form of UFL in the final density, like ``ufl.inner(ufl.grad(rho), ufl.grad(rho))``.

    Of one label the density is a DOLFINx function (discontinuous Lagrange, of the space's degree), of K labels it is a
    list of K of them. The form has the value that DOLFINx assembles, on all ranks together, and is differentiated by
    ``ufl.derivative``; it may have integrals over cells, boundary and interior facets, with the quadrature degrees that
    it says. It is the mesh's density that counts, and what the form is of the flow itself is not known.

    For example, half the squared distance from a function ``target`` on the same mesh::

        loss = eu.FormLoss(lambda rho: 0.5 * (rho - target) ** 2 * ufl.dx)

    Attributes:
        form: from the density, or the list of densities, to the form. A problem asks it once, when it is made, and
            functions and coordinates of that problem's mesh may be used in it, as above. Where problems on several
            meshes are made (levels, ``adapt``, a restart on another mesh), each of them asks: then take the mesh from
            the density, ``ufl.SpatialCoordinate(rho.function_space.mesh)``.
    """

    kind = "form"

    form: Callable[[Any], ufl.Form]

    def on_mesh(self, space: DensitySpace, key: str) -> "FormFunctional":
        """See ``UserFunctional``."""
        return FormFunctional(space, self.form, key)


@final
class FormFunctional(Terminal):
    """A form of UFL on a mesh.

    Args:
        space: of ρ.
        form: see ``FormLoss``.
        key: what it is called in messages.

    Raises:
        InputError: it is no form without arguments on this mesh, or cannot be compiled; the same on all ranks.
    """

    title = "a form"
    obstacle = "it is a form, which is known of the density on the mesh only"

    def __init__(self, space: DensitySpace, form: Callable[[Any], ufl.Form], key: str) -> None:
        """Collective."""
        self._space = space
        lagrange = dolfinx.fem.functionspace(space.mesh, ("DG", space.degree))
        self._densities = [dolfinx.fem.Function(lagrange) for _ in range(space.n_labels)]
        self._slope = dolfinx.fem.Function(lagrange)
        self._dofs = lagrange.dofmap.list[: space.n_cells]
        with parallel.agreed(space.comm):
            given = self._made(form, key)
            slopes = [_derivative(given, rho, ufl.TestFunction(lagrange), key) for rho in self._densities]
        self._value = _compiled(given, key)
        self._slopes = [None if slope is None else _compiled(slope, key) for slope in slopes]

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K). Collective."""
        space = self._space
        nodal = np.einsum("qi,cik->cqk", space.modal_to_nodal, rho, optimize=True)
        for label, function in enumerate(self._densities):
            function.x.array[self._dofs] = nodal[..., label]
            function.x.scatter_forward()
        local = np.array([dolfinx.fem.assemble_scalar(self._value)])
        vector = np.zeros((space.n_owned, space.nd, space.n_labels))
        for label, slope in enumerate(self._slopes):
            if slope is not None:
                # The transpose of the map to values at nodes, cell by cell.
                vector[..., label] = self._assembled(slope) @ space.modal_to_nodal
        return TerminalValue(float(parallel.sum_all(space.comm, local)[0]), vector, readout)

    def _assembled(self, slope: Any) -> Floats:
        """A derivative by the values at the nodes of this rank's cells, (n_owned, nd). Collective."""
        found = self._slope.x
        found.array[:] = 0.0
        dolfinx.fem.assemble_vector(found.array, slope)
        # Facets between ranks are integrated on one side, for the cells on both.
        found.scatter_reverse(dolfinx.la.InsertMode.add)
        return np.asarray(found.array[self._dofs[: self._space.n_owned]])

    def _made(self, form: Callable[[Any], ufl.Form], key: str) -> ufl.Form:
        """What the user's function makes of the densities."""
        one = len(self._densities) == 1
        what = "the density" if one else f"a list of {len(self._densities)} densities"
        remedy = f"Give a function of {what} that returns a form, like rho**2 * ufl.dx."
        if not callable(form) or isinstance(form, ufl.Form | ufl.core.expr.Expr):
            raise InputError("is no function", key=key, value=type(form).__name__, remedy=remedy)
        try:
            made = form(self._densities[0] if one else list(self._densities))
        except (Exception, SystemExit) as error:
            raise InputError(f"the function raised {explained(error)}", key=key, remedy=remedy) from error
        if not isinstance(made, ufl.Form):
            what = f"the function must return a form, it returned {type(made).__name__}"
            raise InputError(what, key=key, remedy="Multiply what is to be integrated with ufl.dx, ufl.ds or ufl.dS.")
        if made.arguments():
            what = "the form has test or trial functions, but must be a number"
            raise InputError(what, key=key, remedy="Leave them out: the derivative is taken for you.")
        if any(domain is not self._space.mesh.ufl_domain() for domain in made.ufl_domains()):
            what, remedy = "the form is on another mesh", "Interpolate its functions to the mesh of the density."
            raise InputError(what, key=key, remedy=remedy)
        if not any(rho in made.coefficients() for rho in self._densities):
            what = "the density does not occur in the form, which is the same for all flows"
            raise InputError(what, key=key, remedy="Multiply with it, like f * rho * ufl.dx.")
        return made


def _derivative(form: ufl.Form, rho: dolfinx.fem.Function, test: Any, key: str) -> ufl.Form | None:
    """The derivative of a form by a density; None where it does not depend on it."""
    try:
        found = apply_derivatives(apply_algebra_lowering(ufl.derivative(form, rho, test)))
    except Exception as error:
        raise InputError(f"the form cannot be differentiated: {explained(error)}", key=key) from error
    return None if found.empty() else found


def _compiled(form: ufl.Form, key: str) -> Any:
    """A form as DOLFINx assembles it. Collective."""
    try:
        return dolfinx.fem.form(form)
    except Exception as error:  # on all ranks: DOLFINx compiles on one for all
        remedy = "It must be a form that DOLFINx can assemble."
        raise InputError(f"the form cannot be compiled: {explained(error)}", key=key, remedy=remedy) from error
