"""Mass outside the domain: how much, for every kind of term; what is told, what is refused, and what is normal."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from paths import MESHES
from PIL import Image as Pillow
from scipy.stats import norm

from eulerian.app.build.mesh import create_mesh
from eulerian.app.build.mixture import initial_density
from eulerian.app.config import Box, Domain, ExpressionTerm, GaussianTerm, ImageTerm, SamplesTerm, Term, UniformTerm
from eulerian.app.config.values import FilePath
from eulerian.base.errors import EulerianWarning, InputError
from eulerian.base.parallel import on_root
from eulerian.density import outside
from eulerian.density.image import Image
from eulerian.density.shapes import Gaussian, Samples, Uniform
from eulerian.density.space import DensitySpace
from eulerian.mesh.create import import_mesh


def square(comm: MPI.Comm, cells: int = 6, n_labels: int = 1) -> DensitySpace:
    """[-1, 1]²."""
    return DensitySpace(
        create_mesh(comm, Domain(box=Box(lower=(-1, -1), upper=(1, 1), cells=(cells,) * 2))), 1, n_labels
    )


def told(comm: MPI.Comm, space: DensitySpace, terms: Sequence[Term], key: str = "density.initial") -> list[str]:
    """What building the density warns of, on all ranks."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rho = initial_density(space, terms, key)
    assert abs(space.mass(rho).sum() - 1) < 1e-13
    assert all(issubclass(each.category, EulerianWarning) for each in caught)
    assert comm.rank == 0 or not caught  # told once
    return comm.bcast([str(each.message) for each in caught], 0)


# -- the domain ----------------------------------------------------------------------------------------------------


def test_holes_and_notches_are_outside(comm: MPI.Comm) -> None:
    space = DensitySpace(import_mesh(comm, MESHES / "square_with_hole.msh").mesh, 1)
    low, high = space.bounding_box
    x = np.array([(low + high) / 2, low, high, low + 0.02 * (high - low), high + 1e-6 * (high - low), 100 * high])
    assert outside.Domain(space).contains(x).tolist() == [False, True, True, True, False, False]
    space = DensitySpace(import_mesh(comm, MESHES / "l_shape.msh").mesh, 1)
    corners = np.array([[x, y] for x in (-0.9, 0.9) for y in (-0.9, 0.9)]) * space.bounding_box[1]
    assert outside.Domain(space).contains(corners).sum() == 3


def test_points_at_the_walls_are_inside(comm: MPI.Comm) -> None:
    """Data are often scaled so that they end at the walls."""
    box = Box(lower=(0.1, -0.3), upper=(0.7, 0.3), cells=(3, 3))
    domain = outside.Domain(DensitySpace(create_mesh(comm, Domain(box=box)), 1))
    rest = np.random.default_rng(0).random((50, 2))
    rest[:25, 0], rest[25:, 1] = np.round(rest[:25, 0]), np.round(rest[25:, 1])
    assert np.all(domain.contains(np.array([0.1, -0.3]) + 0.6 * rest))
    assert not np.any(domain.contains(np.array([[0.1 - 1e-8, 0.0], [0.3, 0.3 + 1e-8]])))


# -- shares --------------------------------------------------------------------------------------------------------


@pytest.mark.one_process
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_points_stand_for_their_profile(dim: int) -> None:
    """Shares beyond a plane are those of the exact distributions."""
    rng = np.random.default_rng(dim)
    root = 0.3 * np.eye(dim) + 0.1 * rng.normal(size=(dim, dim))
    mean, samples = rng.normal(size=dim), rng.normal(size=(7, dim))
    lower, upper, n = mean - 1.0, mean + rng.random(dim), 10_000
    for threshold in mean[0] + np.array([-0.5, 0.0, 0.2]):
        gaussian = Gaussian(mean, root @ root.T).equal_mass_points(n)
        exact = norm.cdf((threshold - mean[0]) / np.sqrt((root @ root.T)[0, 0]))
        assert np.mean(gaussian[:, 0] < threshold) == pytest.approx(exact, abs=2e-3)
        uniform = Uniform(lower, upper).equal_mass_points(n)
        exact = np.clip((threshold - lower[0]) / (upper[0] - lower[0]), 0, 1)
        assert np.mean(uniform[:, 0] < threshold) == pytest.approx(exact, abs=1e-3)
        estimate = Samples(samples, np.full(dim, 0.4)).equal_mass_points(n)
        exact = norm.cdf((threshold - samples[:, 0]) / 0.4).mean()
        assert np.mean(estimate[:, 0] < threshold) == pytest.approx(exact, abs=3e-3)


@pytest.mark.one_process
def test_points_stand_for_a_picture() -> None:
    darkness = np.array([[0.0, 1.0, 0.2], [0.6, 0.0, 0.2]])
    points = Image(darkness, np.array([1.0, -2.0]), np.array([4.0, 0.0])).equal_mass_points(10_000)
    assert points.shape == (10_000, 2)
    assert np.all((points >= [1.0, -2.0]) & (points <= [4.0, 0.0]))
    across, down = np.floor(points[:, 0] - 1).astype(int), np.floor(-points[:, 1]).astype(int)
    found = np.zeros((2, 3))
    np.add.at(found, (down, across), 1e-4)
    np.testing.assert_allclose(found, darkness / darkness.sum(), atol=2e-4)
    assert len(Image(np.zeros((2, 2)), np.zeros(2), np.ones(2)).equal_mass_points(100)) == 0


def test_every_kind_of_term_is_told(comm: MPI.Comm, tmp_path: Path) -> None:
    picture = np.full((10, 20), 255, dtype=np.uint8)
    picture[:, 2:18] = 0
    on_root(comm, lambda: Pillow.fromarray(picture).save(tmp_path / "bar.png"))
    tails = norm.cdf([1, -3, 2, -2])
    terms: list[tuple[Term, float]] = [
        (UniformTerm(lower=(-0.9, 0.0), upper=(0.1, 1.0 + 1 / 9)), 0.1),
        (GaussianTerm(mean=(0.5, 0.0), std=0.5), 1 - (tails[0] - tails[1]) * (tails[2] - tails[3])),
        (ImageTerm(file=tmp_path / "bar.png", lower=(-0.25, -0.5), upper=(1.75, 0.5)), 0.55 / 1.6),
    ]
    for term, expected in terms:
        (text,) = told(comm, square(comm), [term])
        share, rest = text.split(" % of the mass of density.initial.0 lies outside the domain ")
        assert float(share) == pytest.approx(100 * expected, abs=0.2)
        assert "scaled up" in rest
        assert told(comm, square(comm, cells=23), [term]) == [text]  # whatever the mesh
    (text,) = told(comm, square(comm), [terms[0][0]], "objective.terminal.target")
    assert "objective.terminal.target.0" in text


def test_tails_and_what_ends_at_the_walls_are_normal(comm: MPI.Comm) -> None:
    terms: list[Term] = [
        GaussianTerm(mean=(0.0, 0.0), std=0.3),
        GaussianTerm(mean=(0.9, 0.9), std=0.04),
        UniformTerm(lower=(-1.0, -1.0), upper=(1.0, 1.0)),
        ExpressionTerm(value="exp(x)"),
    ]
    assert told(comm, square(comm), terms) == []


def write_samples(comm: MPI.Comm, path: Path, groups: dict[str, tuple[int, int]]) -> FilePath:
    """Of each class so many inside [-0.5, 0.5]² and so many far outside."""
    rng = np.random.default_rng(0)
    rows = ["x,y,class"]
    for name, (inside, outside_) in groups.items():
        rows += [f"{x},{y},{name}" for x, y in rng.uniform(-0.5, 0.5, (inside, 2))]
        rows += [f"{x},{y},{name}" for x, y in rng.uniform(2.0, 3.0, (outside_, 2))]
    on_root(comm, lambda: path.write_text("\n".join(rows) + "\n"))
    return path


def samples_term(file: Path, **more: Any) -> SamplesTerm:
    return SamplesTerm(file=file, columns=("x", "y"), **{"bandwidth": 0.1, **more})


def test_samples_are_counted(comm: MPI.Comm, tmp_path: Path) -> None:
    file = write_samples(comm, tmp_path / "a.csv", {"a": (60, 40)})
    (text,) = told(comm, square(comm), [samples_term(file)])
    assert text.startswith("40 % of the samples of density.initial.0 (40 of 100) lie outside the domain and are lost")
    file = write_samples(comm, tmp_path / "b.csv", {"a": (999, 1)})
    (text,) = told(comm, square(comm), [samples_term(file)])
    assert text.startswith("0.1 % of the samples of density.initial.0 (1 of 1000)")
    file = write_samples(comm, tmp_path / "c.csv", {"a": (30, 0), "b": (10, 20), "c": (49, 1)})
    (text,) = told(comm, square(comm, 6, 3), [samples_term(file, label_column="class")])
    assert "(21 of 110: 20 of 30 of class 'b', 1 of 50 of class 'c')" in text
    assert "class by class" in text
    file = write_samples(comm, tmp_path / "d.csv", {"a": (30, 0)})
    assert told(comm, square(comm), [samples_term(file)]) == []


def test_samples_in_a_hole_are_outside(comm: MPI.Comm, tmp_path: Path) -> None:
    space = DensitySpace(import_mesh(comm, MESHES / "square_with_hole.msh").mesh, 1)
    middle = sum(space.bounding_box) / 2
    rows = "".join(f"{x},{y}\n" for x, y in [*[middle] * 3, *[space.bounding_box[0] + 0.1] * 5])
    on_root(comm, lambda: (tmp_path / "a.csv").write_text(rows))
    term = SamplesTerm(file=tmp_path / "a.csv", columns=(0, 1), bandwidth=0.02)
    (text,) = told(comm, space, [term])
    assert "37.5 % of the samples" in text


def test_wide_kernels_are_told(comm: MPI.Comm, tmp_path: Path) -> None:
    file = write_samples(comm, tmp_path / "a.csv", {"a": (50, 0), "b": (50, 0)})
    texts = told(comm, square(comm, 6, 2), [samples_term(file, bandwidth=0.6, label_column="class")])
    assert len(texts) == 2
    assert "% of the mass of class 'a' of density.initial.0 lies outside" in texts[0]
    with pytest.raises(InputError, match=r"density\.initial\.0\.bandwidth: .* of the mass of .* lies outside"):
        initial_density(square(comm), [samples_term(file, bandwidth=5.0)])


# -- refusals ------------------------------------------------------------------------------------------------------


def test_most_of_it_outside_is_refused(comm: MPI.Comm, tmp_path: Path) -> None:
    on_root(comm, lambda: Pillow.new("L", (4, 4), 0).save(tmp_path / "dark.png"))
    file = write_samples(comm, tmp_path / "a.csv", {"a": (49, 51)})
    terms: list[tuple[Term, str]] = [
        (GaussianTerm(mean=(1.2, 0.0), std=0.3), r"74\.. % of its mass"),
        (UniformTerm(lower=(0.0, 0.0), upper=(3.0, 1.0)), r"66\.. % of its mass"),
        (ImageTerm(file=tmp_path / "dark.png", lower=(0.0, 0.0), upper=(4.0, 1.0)), r"75 % of its mass"),
        (samples_term(file), r"51 % of the samples \(51 of 100\)"),
    ]
    for term, message in terms:
        with pytest.raises(InputError, match=rf"{message} lies? outside the domain.*Enlarge the domain") as error:
            initial_density(square(comm), [GaussianTerm(mean=(0.0, 0.0), std=0.2), term])
        assert error.value.key == "density.initial.1"


def test_half_of_it_outside_is_not(comm: MPI.Comm, tmp_path: Path) -> None:
    file = write_samples(comm, tmp_path / "a.csv", {"a": (50, 50)})
    terms = [GaussianTerm(mean=(1.0, 0.0), std=0.2), samples_term(file), UniformTerm(lower=(0, 0), upper=(2, 1))]
    initial_density(square(comm), terms)


def test_a_class_outside_is_refused_by_its_name(comm: MPI.Comm, tmp_path: Path) -> None:
    file = write_samples(comm, tmp_path / "a.csv", {"here": (50, 0), "there": (0, 3)})
    with pytest.raises(InputError, match="all 3 samples of class 'there' lie outside the domain") as error:
        initial_density(square(comm, 6, 2), [samples_term(file, label_column="class")])
    assert error.value.key == "density.initial.0"
