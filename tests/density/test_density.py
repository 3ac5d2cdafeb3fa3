"""Densities as a user makes and reads them: what can be projected, and what is told of it."""

import importlib.util
from typing import Any

from mpi4py import MPI

import dolfinx
import numpy as np
import pytest
import ufl
from numpy.testing import assert_allclose

from eulerian.base.errors import InputError
from eulerian.density.image import Image
from eulerian.density.shape import LabelledShape
from eulerian.density.shapes import Formula, Gaussian, Samples, Uniform
from eulerian.density.space import DensitySpace
from eulerian.mesh.create import box_mesh

MEAN, STD = np.array([0.3, -0.2]), 0.5


def space_of(comm: MPI.Comm, degree: int = 2, labels: int = 1, cells: int = 16) -> DensitySpace:
    return DensitySpace(box_mesh([-3.0, -3.0], [3.0, 3.0], [cells, cells], comm), degree, labels)


def bump(x: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * ((x - MEAN) ** 2).sum(axis=1) / STD**2)


def ufl_bump(mesh: dolfinx.mesh.Mesh) -> Any:
    x = ufl.SpatialCoordinate(mesh)
    return ufl.exp(-0.5 * ((x[0] - MEAN[0]) ** 2 + (x[1] - MEAN[1]) ** 2) / STD**2)


def interpolated(mesh: dolfinx.mesh.Mesh) -> dolfinx.fem.Function:
    function = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 2)))
    function.interpolate(lambda x: bump(x[:2].T))
    return function


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("what", ["shape", "function", "formula", "dolfinx function", "ufl", "list"])
def test_one_density_given_in_many_ways(comm: MPI.Comm, degree: int, what: str) -> None:
    space = space_of(comm, degree)
    gaussian = Gaussian(MEAN, std=STD)
    given: Any = {
        "shape": gaussian,
        "function": bump,
        "formula": Formula("exp(-2*((x - 0.3)**2 + (y + 0.2)**2))"),
        "dolfinx function": interpolated(space.mesh),
        "ufl": ufl_bump(space.mesh),
        "list": [gaussian, bump],
    }[what]
    rho = space.project(given)
    assert rho.mass == pytest.approx([1.0], abs=1e-12)
    # Within what the interpolation of the DOLFINx function, of degree 2 on these cells, is off by.
    assert_allclose(rho.mean[0], MEAN, atol=1e-3)
    # Constant cells have a width of their own.
    assert_allclose(rho.covariance[0], STD**2 * np.eye(2), atol=0.02 if degree == 0 else 3e-3)
    exact = rho.exact
    assert exact is not None
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (50, 2))
    assert_allclose(exact.values(x)[:, 0], gaussian.values(x), atol=0.2 if degree == 0 else 0.03)


def test_values_at_points_belong_to_whoever_asks(comm: MPI.Comm) -> None:
    space = space_of(comm, 2, labels=2)
    rho = space.project({0: Gaussian(MEAN, std=STD), 1: Uniform([-1.0, -1.0], [1.0, 1.0])}, masses=[3.0, 1.0])
    assert_allclose(rho.mass, [0.75, 0.25], atol=1e-12)
    own = np.random.default_rng(comm.rank).uniform(-0.9, 0.9, (20 + comm.rank, 2))
    values = rho(own)
    assert values.shape == (20 + comm.rank, 2)
    assert_allclose(values[:, 0], 0.75 * Gaussian(MEAN, std=STD).values(own), atol=0.01)
    assert_allclose(rho.total(own), values.sum(axis=1))
    assert rho(np.array([[9.0, 9.0]])).tolist() == [[0.0, 0.0]]
    with pytest.raises(InputError, match="Give points"):
        rho(np.zeros(2))


def test_draws_are_the_same_on_all_ranks_and_follow_the_density(comm: MPI.Comm) -> None:
    space = space_of(comm, 1, labels=2)
    rho = space.project({0: Gaussian(MEAN, std=STD), 1: Gaussian(-MEAN, std=STD)}, masses=[0.75, 0.25])
    x, labels = rho.draw(4000, seed=3, with_labels=True)
    assert np.bincount(labels).tolist() == [3000, 1000]
    assert_allclose(x[labels == 0].mean(axis=0), MEAN, atol=0.04)
    assert all(np.array_equal(x, other) for other in comm.allgather(x))
    only = rho.draw(2000, seed=1, label=1)
    assert only.shape == (2000, 2)
    assert_allclose(only.mean(axis=0), -MEAN, atol=0.05)
    with pytest.raises(InputError, match="there are 2 labels"):
        rho.draw(10, label=2)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_a_dolfinx_function_has_the_same_integrals(comm: MPI.Comm, degree: int) -> None:
    space = space_of(comm, degree, labels=2)
    rho = space.project([LabelledShape(Gaussian(MEAN, std=STD), 0, 0.4), LabelledShape(Formula("1 + x*0"), 1, 0.6)])
    x = ufl.SpatialCoordinate(space.mesh)
    for label, mass in ((0, 0.4), (1, 0.6), (None, 1.0)):
        f = rho.to_function(label)
        for weight, wanted in ((1.0, mass), (x[0], None)):
            form = dolfinx.fem.form(weight * f * ufl.dx)
            found = comm.allreduce(dolfinx.fem.assemble_scalar(form))
            expected = float(rho.mean[label, 0] * mass) if wanted is None and label is not None else wanted
            if expected is not None:
                assert found == pytest.approx(expected, abs=1e-12)
    again = space.project({0: Uniform([-1, -1], [1, 1]), 1: rho.to_function(0)})
    assert_allclose(again.mean[1], rho.mean[0], atol=1e-4)  # up to what keeps it from being negative


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("label", [None, 0])
def test_a_limited_function_is_nowhere_negative_at_nodes_and_has_the_same_mass(
    comm: MPI.Comm, degree: int, label: int | None
) -> None:
    space = space_of(comm, degree, labels=2, cells=6)
    array = space.project({0: Gaussian([0.0, 0.0], std=0.8), 1: Gaussian(MEAN, std=STD)}).to_array()
    array[:, 1:] *= 5.0  # steeper than a limiter would leave it
    rho = space.from_array(array)
    steep, limited = rho.to_function(label), rho.to_function(label, limited=True)
    assert comm.allreduce(steep.x.array.min(), MPI.MIN) < -1e-2
    assert comm.allreduce(limited.x.array.min(), MPI.MIN) >= 0.0
    forms = [dolfinx.fem.form(f * ufl.dx) for f in (steep, limited)]
    masses = [comm.allreduce(dolfinx.fem.assemble_scalar(form)) for form in forms]
    assert masses[1] == pytest.approx(masses[0], rel=1e-13)
    if importlib.util.find_spec("pyvista"):
        assert np.min(rho.to_pyvista().point_data["density_0"]) >= 0.0


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_a_grid_for_vtk_holds_the_whole_density(comm: MPI.Comm, dim: int, degree: int) -> None:
    pytest.importorskip("pyvista")
    space = DensitySpace(box_mesh([-1.0] * dim, [1.0] * dim, [4] * dim, comm), degree, 2)
    rho = space.project({0: Formula("1 + x"), 1: Formula("2 + x*0")})
    grid = rho.to_pyvista()
    assert grid.n_cells == space.mesh.topology.index_map(dim).size_global
    sizes = np.abs(np.asarray(grid.compute_cell_sizes()[("Length", "Area", "Volume")[dim - 1]]))
    assert sizes.sum() == pytest.approx(2.0**dim, rel=1e-6)
    constant = np.asarray(grid.point_data["density_1"])
    assert_allclose(constant, 0.5 / 2.0**dim, rtol=1e-9)
    if degree > 0:
        wanted = 0.5 * (1.0 + grid.points[:, 0]) / 2.0**dim
        assert_allclose(np.asarray(grid.point_data["density_0"]), wanted, atol=1e-6)
    assert_allclose(grid.point_data["density"], np.asarray(grid.point_data["density_0"]) + constant)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (3.0, "nothing that can be a density"),
        ("gaussian", "nothing that can be a density"),
        (Gaussian([0.0], std=1.0), "a shape of dimension 1, but the mesh has dimension 2"),
        (lambda x: x[:, 0], "not negative"),
        (lambda x: np.ones((len(x), 2)), r"gives an array of shape \(\d+, 2\)"),
        (lambda x: np.zeros(len(x)), "no mass in the domain"),
        (Gaussian([9.0, 9.0], std=0.3), "lies outside the domain"),
        (Formula("z"), "unknown name 'z'"),
        ([], "label 0 of 1 has no density"),
        ({1: Gaussian(MEAN, std=STD)}, "label 0 of 1 has no density"),
        ({0: Gaussian(MEAN, std=STD), 1: Gaussian(MEAN, std=STD)}, "only 1 labels"),
        (np.zeros((5, 3)), "differ along every axis|dimension 3"),
    ],
)
def test_what_is_no_density_is_refused(comm: MPI.Comm, what: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        space_of(comm, 1, cells=4).project(what)


@pytest.mark.parametrize("masses", [[1.0], [1.0, -1.0], [[0.5, 0.5]], [np.nan, 1.0]])
def test_masses_that_are_none(comm: MPI.Comm, masses: Any) -> None:
    with pytest.raises(InputError, match="must be 2 masses"):
        space_of(comm, 1, 2, 4).project({0: Uniform([-1, -1], [1, 1]), 1: bump}, masses=masses)


def test_ufl_that_does_not_fit(comm: MPI.Comm) -> None:
    space, other = space_of(comm, 1, cells=4), space_of(comm, 1, cells=5)
    x = ufl.SpatialCoordinate(space.mesh)
    for what, words in ((x, "must be a scalar"), (x[0], "not be negative"), (ufl_bump(other.mesh), "another mesh")):
        with pytest.raises(InputError, match=words):
            space.project(what)
    with pytest.raises(InputError, match="of another space"):
        space.project(other.project(bump))


def test_samples_may_be_an_array(comm: MPI.Comm) -> None:
    space = space_of(comm, 1)
    points = np.random.default_rng(0).normal(MEAN, STD, (300, 2))
    assert_allclose(space.project(points).coefficients, space.project(Samples(points)).coefficients)
    line = DensitySpace(box_mesh([-3.0], [3.0], [30], comm), 1)
    assert line.project(points[:, 0]).mean[0, 0] == pytest.approx(points[:, 0].mean(), abs=0.02)


def test_meshes_that_are_none(comm: MPI.Comm) -> None:
    with pytest.raises(InputError, match="no DOLFINx mesh"):
        DensitySpace("square")  # type: ignore[arg-type]
    quads = dolfinx.mesh.create_unit_square(comm, 3, 3, dolfinx.mesh.CellType.quadrilateral)
    with pytest.raises(InputError, match="affine simplices"):
        DensitySpace(quads)
    triangles = dolfinx.mesh.create_unit_square(comm, 3, 3)
    with pytest.raises(InputError, match="must be 0, 1 or 2"):
        DensitySpace(triangles, 3)
    with pytest.raises(InputError, match="at least one label"):
        DensitySpace(triangles, 1, 0)
    if comm.size > 1:
        bare = dolfinx.mesh.create_unit_square(comm, 8, 8, ghost_mode=dolfinx.mesh.GhostMode.none)
        with pytest.raises(InputError, match=r"create_cell_partitioner\(dolfinx.mesh.GhostMode.shared_facet, 2\)"):
            DensitySpace(bare)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gaussian([0.0, 0.0]),
        lambda: Gaussian([0.0, 0.0], np.eye(2), std=1.0),
        lambda: Gaussian([0.0, 0.0], np.eye(3)),
        lambda: Gaussian([0.0], std=0.0),
        lambda: Gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]),
        lambda: Uniform([0.0], [0.0]),
        lambda: Uniform([0.0], [1.0, 1.0]),
        lambda: Samples(np.zeros((0, 2)), 0.1),
        lambda: Samples([[np.nan]], 0.1),
        lambda: Samples([[0.0], [1.0]], -0.1),
        lambda: Samples(np.zeros((4, 2))),
        lambda: Image(np.zeros(4), [0, 0], [1, 1]),
        lambda: Formula("exp(-x**2"),
        lambda: box_mesh([0.0], [0.0], [3]),
        lambda: box_mesh([0.0, 0.0], [1.0, 1.0], [3]),
        lambda: box_mesh([0.0], [1.0], [0]),
    ],
)
def test_shapes_that_are_none(make: Any) -> None:
    with pytest.raises(InputError):
        make()


def test_constants_and_forms_of_ufl_are_no_densities(comm: MPI.Comm) -> None:
    space = space_of(comm, 1, cells=4)
    x = ufl.SpatialCoordinate(space.mesh)
    with pytest.raises(InputError, match="a constant of UFL, which is on no mesh"):
        space.project(0 * x[0])
    with pytest.raises(InputError, match="nothing that can be a density"):
        space.project(x[0] ** 2 * ufl.dx)
