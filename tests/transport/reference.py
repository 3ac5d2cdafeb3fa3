"""The transport operator written as a UFL form and assembled by DOLFINx: slow, readable, independent."""

import basix.ufl
import numpy as np
import ufl
from dolfinx import fem


def assemble_form(density_space, velocity_space, v, delta):
    """Dense-able SciPy CSR matrix of A(v) (not premultiplied by M⁻¹) on one rank, dofs cell by cell."""
    mesh, degree = density_space.mesh, density_space.degree
    if degree:
        element = basix.ufl.element(
            "DG", mesh.basix_cell(), degree, lagrange_variant=basix.LagrangeVariant.legendre, discontinuous=True
        )
    else:
        element = basix.ufl.element("DG", mesh.basix_cell(), 0)
    space = fem.functionspace(mesh, element)
    velocity = fem.Function(velocity_space.function_space)
    velocity.x.array[:] = v.ravel()
    n = ufl.FacetNormal(mesh)
    rho, w = ufl.TrialFunction(space), ufl.TestFunction(space)
    dx = ufl.Measure("dx", domain=mesh, metadata={"quadrature_degree": velocity_space.degree + 2 * degree})
    dS = ufl.Measure("dS", domain=mesh, metadata={"quadrature_degree": density_space.facet_degree})
    s = ufl.dot(velocity("+"), n("+"))
    magnitude = ufl.sqrt(s**2 + delta**2)
    flux = 0.5 * (s * (rho("+") + rho("-")) + magnitude * (rho("+") - rho("-")))
    form = -ufl.jump(w) * flux * dS
    if degree:
        form += rho * ufl.dot(velocity, ufl.grad(w)) * dx
    matrix = fem.assemble_matrix(fem.form(form)).to_scipy()
    if degree == 0:  # Basix' constant is 1, the orthonormal one is phi0
        matrix = matrix * density_space.phi0**2
    assert np.all(space.dofmap.list.ravel() == np.arange(matrix.shape[0]))
    return matrix
