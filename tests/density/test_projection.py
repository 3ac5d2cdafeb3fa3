"""Initial densities: mass, positivity, moments, labels, partition independence, and what is refused."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from paths import MESHES, TESTS
from PIL import Image as Pillow
from problems import box_space

from eulerian.app.build.mixture import count_labels, initial_density
from eulerian.app.config import ExpressionTerm, GaussianTerm, ImageTerm, SamplesTerm, Term, UniformTerm
from eulerian.base.arrays import Floats
from eulerian.base.errors import EulerianWarning, InputError
from eulerian.base.parallel import on_root
from eulerian.density.space import DensitySpace
from eulerian.mesh.create import import_mesh


def write_files(folder: Path) -> None:
    """A table of three classes of 60, 30 and 10 rows, and a picture of a dark quarter."""
    rng = np.random.default_rng(0)
    rows = [
        f"{x:.17g},{y:.17g},{name}"
        for name, centre, n in (("b", (1.0, 1.0), 30), ("a", (-1.0, 0.0), 60), ("c", (1.0, -1.0), 10))
        for x, y in centre + 0.3 * rng.normal(size=(n, 2))
    ]
    (folder / "data.csv").write_text("\n".join(["x,y,class", *rows]) + "\n")
    grey = np.full((20, 40), 255, dtype=np.uint8)
    grey[:10, :20] = 0
    Pillow.fromarray(grey).save(folder / "shape.png")


@pytest.fixture
def files(tmp_path: Path, comm: MPI.Comm) -> Path:
    on_root(comm, lambda: write_files(tmp_path))
    return tmp_path


def all_kinds(folder: Path) -> list[Term]:
    """Every kind of term, in 2-D, with three labels."""
    return [
        GaussianTerm(mean=(-0.5, 0.3), std=0.4, weight=2.0),
        GaussianTerm(mean=(1.0, 0.3), covariance=((0.2, 0.1), (0.1, 0.1)), label=1),
        UniformTerm(lower=(-1.13, -0.6), upper=(0.4, 0.51), label=2),
        ExpressionTerm(value="heaviside(1 - x**2 - y**2)*exp(x)", weight=0.5),
        SamplesTerm(file=folder / "data.csv", columns=("x", "y"), label_column="class"),
        SamplesTerm(file=folder / "data.csv", columns=("x", "y"), bandwidth=0.2, label=1),
        ImageTerm(file=folder / "shape.png", lower=(-2.0, -1.0), upper=(2.0, 1.0), label=2),
    ]


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("n_labels", [1, 3])
def test_mass_is_one_and_nothing_is_negative(comm: MPI.Comm, dim: int, degree: int, n_labels: int) -> None:
    space = box_space(comm, dim, (40, 20, 6)[dim - 1], degree, n_labels)
    terms: list[Term] = [
        GaussianTerm(mean=(0.3 * k,) * dim, std=0.3 + 0.1 * k, weight=k + 1.0, label=k) for k in range(n_labels)
    ]
    terms.append(ExpressionTerm(value="heaviside(x - 0.123)", weight=0.5))
    rho = initial_density(space, terms)
    weights = np.arange(1.0, n_labels + 1)
    weights[0] += 0.5
    np.testing.assert_allclose(space.mass(rho), weights / weights.sum(), rtol=1e-13)
    assert abs(space.mass(rho).sum() - 1) < 1e-14
    assert space.extrema(rho)[0] > -1e-14
    assert rho.shape == (space.n_cells, space.nd, n_labels)
    before = rho.copy()
    space.update_ghosts(rho)
    np.testing.assert_array_equal(rho, before)


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_moments_of_a_gaussian(comm: MPI.Comm, dim: int, degree: int) -> None:
    space = box_space(comm, dim, (60, 40, 12)[dim - 1], degree)
    mean = np.array([-0.5, 0.3, 0.1])[:dim]
    covariance = np.array([[0.3, 0.1, 0.0], [0.1, 0.2, 0.05], [0.0, 0.05, 0.25]])[:dim, :dim]
    term = GaussianTerm(mean=tuple(mean), covariance=tuple(map(tuple, covariance)))
    found_mean, found_covariance = space.mean_and_covariance(initial_density(space, [term]))
    tolerance = (5e-5, 5e-5, 5e-3)[dim - 1]  # the domain cuts the tails off
    np.testing.assert_allclose(found_mean[0], mean, atol=tolerance)
    np.testing.assert_allclose(found_covariance[0], covariance, atol=tolerance)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_projection_converges(comm: MPI.Comm, degree: int) -> None:
    errors = []
    for cells in (20, 40):
        space = box_space(comm, 2, cells, degree)
        rho = initial_density(space, [GaussianTerm(mean=(0.1, -0.2), std=0.6)])
        rule = space.quadrature(8)
        values = np.einsum("qi,cik->cqk", rule.basis, rho[: space.n_owned])[..., 0]
        squares = ((rule.points - [0.1, -0.2]) ** 2).sum(axis=-1)
        exact = np.exp(-squares / (2 * 0.36)) / (2 * np.pi * 0.36)
        errors.append(np.sqrt(comm.allreduce(float((rule.weights * (values - exact) ** 2).sum()))))
    assert np.log2(errors[0] / errors[1]) > degree + 0.85
    assert errors[1] < (0.03, 2e-3, 1.5e-4)[degree]


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_a_density_finer_than_the_cells_keeps_its_place(comm: MPI.Comm, degree: int) -> None:
    space = box_space(comm, 2, 10, degree)
    rho = initial_density(space, [GaussianTerm(mean=(-0.52, 0.31), std=0.01)])
    masses = comm.gather(space.cell_mass(rho)[:, 0])
    corners = comm.gather(space.vertices)
    if masses is not None and corners is not None:
        home = np.concatenate(corners)[np.concatenate(masses).argmax()]
        assert np.concatenate(masses).max() == pytest.approx(1.0)
        assert (home.min(axis=0) <= [-0.52, 0.31]).all()
        assert (home.max(axis=0) >= [-0.52, 0.31]).all()


def test_uniform_and_expression_with_jumps_inside_cells(comm: MPI.Comm) -> None:
    space = box_space(comm, 2, 30, 1, 2)
    terms: Sequence[Term] = [
        UniformTerm(lower=(-1.07, -0.4), upper=(0.51, 1.93)),
        ExpressionTerm(value="heaviside(1 - x**2 - y**2)", label=1),
    ]
    mean, covariance = space.mean_and_covariance(initial_density(space, terms))
    np.testing.assert_allclose(mean, [[-0.28, 0.765], [0, 0]], atol=4e-3)
    np.testing.assert_allclose(covariance[0], np.diag([1.58**2, 2.33**2]) / 12, atol=8e-3)
    np.testing.assert_allclose(covariance[1], np.eye(2) / 4, atol=4e-3)


def test_samples_with_classes(comm: MPI.Comm, files: Path) -> None:
    space = box_space(comm, 2, 40, 1, 3)
    term = SamplesTerm(file=files / "data.csv", columns=("x", "y"), label_column="class", bandwidth=0.15)
    rho = initial_density(space, [term])
    np.testing.assert_allclose(space.mass(rho), [0.6, 0.3, 0.1], rtol=1e-13)  # sorted by name, not by row
    data = np.array([line.split(",")[:2] for line in (files / "data.csv").read_text().split()[1:]], dtype=float)
    mean, covariance = space.mean_and_covariance(rho)
    np.testing.assert_allclose(mean[0], data[30:90].mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(mean[1], data[:30].mean(axis=0), atol=1e-3)
    expected = np.cov(data[30:90], rowvar=False, ddof=0) + 0.15**2 * np.eye(2)
    np.testing.assert_allclose(covariance[0], expected, atol=2e-3)


def test_picture(comm: MPI.Comm, files: Path) -> None:
    space = box_space(comm, 2, 60, 1)
    rho = initial_density(space, [ImageTerm(file=files / "shape.png", lower=(-2.0, -1.0), upper=(2.0, 1.0))])
    mean, covariance = space.mean_and_covariance(rho)
    np.testing.assert_allclose(mean[0], [-1.0, 0.5], atol=2e-3)  # the upper left quarter
    np.testing.assert_allclose(covariance[0], np.diag([4.0, 1.0]) / 12, atol=3e-3)


def test_all_kinds_on_a_mesh_file(comm: MPI.Comm, files: Path) -> None:
    space = DensitySpace(import_mesh(comm, MESHES / "dumbbell.msh").mesh, 2, 3)
    rho = initial_density(space, all_kinds(files))
    weights = np.array([2 + 0.5 + 0.6, 1 + 0.3 + 1, 1 + 0.1 + 1])
    np.testing.assert_allclose(space.mass(rho), weights / weights.sum(), rtol=1e-13)
    assert space.extrema(rho)[0] > -1e-13


def test_count_labels(comm: MPI.Comm, files: Path) -> None:
    samples = SamplesTerm(file=files / "data.csv", columns=("x", "y"), label_column="class")
    gaussian = GaussianTerm(mean=(0.0, 0.0), std=1.0, label=3)
    assert count_labels([samples], comm) == 3
    assert count_labels([samples, gaussian], comm) == 4
    assert count_labels(all_kinds(files), comm) == 3
    on_root(comm, lambda: (files / "other.csv").write_text("x,y,class\n0,0,b\n1,1,c\n2,2,d\n"))
    other = samples.model_copy(update={"file": files / "other.csv"})
    with pytest.warns(EulerianWarning, match=r"initial\.1 \(b, c, d\) are not those of density.initial.0 \(a, b, c\)"):
        count_labels([samples, other], MPI.COMM_SELF)
    with pytest.raises(InputError, match=r"density\.initial: labels must be 0\.\.K-1 without gaps; got '?\[3\]"):
        count_labels([gaussian], comm)


@pytest.mark.parametrize(
    ("term", "key", "message"),
    [
        (GaussianTerm(mean=(9.0, 0.0), std=0.3), "1", "100 % of its mass lies outside the domain"),
        (GaussianTerm(mean=(3.5, 0.0), std=1.0), "1", "69.[0-9] % of its mass lies outside the domain"),
        (UniformTerm(lower=(4.0, 0.0), upper=(5.0, 1.0)), "1", "100 % of its mass lies outside the domain"),
        (ExpressionTerm(value="0*x"), "1", "no mass in the domain"),
        (ExpressionTerm(value="x"), "1", "not negative, but it is -"),
        (ExpressionTerm(value="log(x)"), "1", "must be finite"),
        (ExpressionTerm(value="exp(exp(exp(9 + x)))"), "1", "must be finite.*inf"),
        (GaussianTerm(mean=(0.0, 0.0, 0.0), std=0.3), "1", "a shape of dimension 3"),
        (UniformTerm(lower=(0.0,), upper=(1.0,)), "1", "a shape of dimension 1"),
        (SamplesTerm(file=Path("/nowhere.csv"), columns=(0, 1)), "1.file", "No such file"),
        (ImageTerm(file=Path("/nowhere.png"), lower=(0.0, 0.0), upper=(1.0, 1.0)), "1.file", "cannot read the picture"),
        (GaussianTerm(mean=(0.0, 0.0), std=0.3, label=1), "1.label", "only 1 labels"),
    ],
)
def test_refused(comm: MPI.Comm, term: Term, key: str, message: str) -> None:
    space = box_space(comm, 2, 4, 1)
    with pytest.raises(InputError, match=message) as error:
        initial_density(space, [GaussianTerm(mean=(0.0, 0.0), std=1.0), term])
    assert error.value.key == f"density.initial.{key}"


def test_refused_for_the_dimension_or_the_content(comm: MPI.Comm, tmp_path: Path) -> None:
    on_root(comm, lambda: Pillow.new("L", (4, 4), 255).save(tmp_path / "white.png"))
    on_root(comm, lambda: (tmp_path / "one.csv").write_text("1,1\n"))
    white = ImageTerm(file=tmp_path / "white.png", lower=(0.0, 0.0), upper=(1.0, 1.0))
    with pytest.raises(InputError, match="a shape of dimension 2"):
        initial_density(box_space(comm, 1, 4, 1), [white])
    with pytest.raises(InputError, match="no mass"):
        initial_density(box_space(comm, 2, 4, 1), [white])
    with pytest.raises(InputError, match=r"initial\.0\.bandwidth: .*no spread"):
        initial_density(box_space(comm, 2, 4, 1), [SamplesTerm(file=tmp_path / "one.csv", columns=(0, 1))])
    with pytest.raises(InputError, match=r"initial\.0\.value"):
        initial_density(box_space(comm, 1, 4, 1), [ExpressionTerm(value="y")])


# -- ranks ------------------------------------------------------------------------------------------------------------


def in_input_order(space: DensitySpace, rho: Floats) -> Floats:
    """Cell means and vertex values of all cells, by input number, on every rank: independent of the partition."""
    comm, owned = space.comm, space.n_owned
    order = np.concatenate(comm.allgather(space.mesh.topology.original_cell_index[:owned]))
    mean = space.phi0 * rho[:owned, :1]
    # The vertices of a cell come in an order that depends on the rank.
    values = np.concatenate([mean, np.sort(space.vertex_values(rho), axis=1)], axis=1)
    return np.concatenate(comm.allgather(values))[np.argsort(order)]


def two_densities(comm: MPI.Comm, folder: Path) -> list[Floats]:
    dumbbell = DensitySpace(import_mesh(comm, MESHES / "dumbbell.msh").mesh, 2, 3)
    ball = DensitySpace(import_mesh(comm, MESHES / "ball.msh").mesh, 1, 1)
    terms = [GaussianTerm(mean=(0.3, 0.0, -0.2), std=0.3), ExpressionTerm(value="heaviside(x + y - z)")]
    return [
        in_input_order(dumbbell, initial_density(dumbbell, all_kinds(folder))),
        in_input_order(ball, initial_density(ball, terms)),
    ]


# Where a job finds this file and what it imports.
FOLDERS = [str(TESTS), str(Path(__file__).parent)]

JOB = """
import sys
from pathlib import Path
from mpi4py import MPI
import numpy as np

sys.path[:0] = {tests!r}
from test_projection import two_densities
from problems import box_space
from eulerian.app.config import ExpressionTerm
from eulerian.base.errors import InputError
from eulerian.app.build.mixture import initial_density

comm = MPI.COMM_WORLD
found = two_densities(comm, Path({folder!r}))
try:
    # Negative in one corner: only one rank sees it, all must be told.
    initial_density(box_space(comm, 2, 8, 1), [ExpressionTerm(value="5.5 - x - y")])
except InputError as error:
    told = comm.gather(str(error))
if comm.rank == 0:
    assert len(set(told)) == 1, told
    np.savez({out!r}, *found, told=told)
"""


@pytest.mark.mpi
def test_the_same_density_on_any_number_of_ranks(files: Path, comm: MPI.Comm, mpirun: Callable[..., Any]) -> None:
    serial = two_densities(comm, files)
    for ranks in (2, 3):
        out = files / f"{ranks}.npz"
        run = mpirun(ranks, JOB.format(tests=FOLDERS, folder=str(files), out=str(out)))
        assert run.returncode == 0, run.stderr
        with np.load(out) as found:
            for i, expected in enumerate(serial):
                error = np.abs(found[f"arr_{i}"] - expected).max() / expected.max()
                assert error < 1e-13
            assert found["told"].shape == (ranks,)
