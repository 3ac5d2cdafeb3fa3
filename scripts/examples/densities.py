"""Densities on meshes: what can be projected, and what a density tells. Runs on any number of ranks.

    python scripts/examples/densities.py
    mpirun -n 2 python scripts/examples/densities.py
"""

from mpi4py import MPI

import dolfinx
import numpy as np
import ufl

import eulerian as eu

# A mesh of one's own, or one of these: eu.box_mesh(lower, upper, cells), eu.read_mesh("disk.msh").
shared = dolfinx.mesh.GhostMode.shared_facet
mesh = dolfinx.mesh.create_rectangle(MPI.COMM_WORLD, [[-3.0, -3.0], [3.0, 3.0]], [24, 24], ghost_mode=shared)
space = eu.DensitySpace(mesh, degree=2)

# One density, given in many ways. Whatever is given is scaled to mass 1.
x = ufl.SpatialCoordinate(mesh)
points = np.random.default_rng(0).normal([0.5, 0.0], 0.5, (400, 2))
for name, what in {
    "shape": eu.Gaussian([0.5, 0.0], std=0.5),
    "formula": eu.Formula("exp(-2*((x - 0.5)**2 + y**2))"),
    "function": lambda x: np.exp(-2.0 * ((x[:, 0] - 0.5) ** 2 + x[:, 1] ** 2)),
    "UFL expression": ufl.exp(-2.0 * ((x[0] - 0.5) ** 2 + x[1] ** 2)),
    "samples": points,  # the same as eu.Samples(points, bandwidth="scott")
    "narrower kernels": eu.Samples(points, bandwidth=0.1),
    "mixture": [eu.Gaussian([0.0, 0.0], std=0.5), eu.Uniform([0.0, -1.0], [2.0, 1.0])],
    "picture": eu.Image(np.array([[0.0, 1.0], [1.0, 0.0]]), [-1.0, -1.0], [2.0, 1.0]),
}.items():
    rho: eu.Density = space.project(what)
    if mesh.comm.rank == 0:
        print(f"{name:17}mean {rho.mean[0].round(3)}, variances {np.diag(rho.covariance[0]).round(3)}")

# Several labels, each with its mass; eu.LabelledShape(shape, label, weight) says the same term by term.
two = eu.DensitySpace(mesh, degree=1, labels=2)
rho = two.project({0: eu.Gaussian([-1.0, 0.0], std=0.4), 1: eu.Gaussian([1.0, 0.0], std=0.4)}, masses=[0.3, 0.7])
same = two.project(
    [
        eu.LabelledShape(eu.Gaussian([-1.0, 0.0], std=0.4), 0, weight=0.3),
        eu.LabelledShape(eu.Gaussian([1.0, 0.0], std=0.4), 1, weight=0.7),
    ]
)
assert np.allclose(rho.coefficients, same.coefficients)
values = rho(np.array([[0.0, 0.0], [1.0, 0.0]]))  # (2 points, 2 labels)
draws, labels = rho.draw(1000, seed=1, with_labels=True)
integral = mesh.comm.allreduce(dolfinx.fem.assemble_scalar(dolfinx.fem.form(rho.to_function(label=1) * ufl.dx)))
grid = rho.to_pyvista()  # for pyvista's plots: grid.plot(scalars="density")
if mesh.comm.rank == 0:
    print(f"{rho!r}: masses {rho.mass}, {values[1, 1]:.3f} of label 1 at (1, 0); ∫ by DOLFINx {integral:.6f}")
    print(f"{len(draws)} draws, {np.sum(labels == 1)} of label 1; a grid of {grid.n_cells} cells")
