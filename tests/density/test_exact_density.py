"""The density as a function is the one whose projection the mesh holds; its logarithm has tails without a floor."""

from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from problems import box_space
from test_projection import all_kinds, files  # noqa: F401 - a fixture

from eulerian.app.build.mixture import density_and_exact, exact_density, initial_density
from eulerian.app.config import GaussianTerm, SamplesTerm, Term, UniformTerm
from eulerian.base import parallel
from eulerian.density.shapes import Gaussian, Samples


def test_it_has_the_masses_and_the_projection_of_the_mesh(comm: MPI.Comm, files: Path) -> None:  # noqa: F811
    space = box_space(comm, 2, 12, 1, 3)
    terms = all_kinds(files)
    exact = exact_density(space, terms)
    rule = space.quadrature(12)
    values = exact.values(rule.points.reshape(-1, 2)).reshape(*rule.weights.shape, 3)
    mass = parallel.sum_all(comm, np.einsum("cq,cqk->k", rule.weights, values))
    rho = initial_density(space, terms)
    assert mass == pytest.approx(space.mass(rho), rel=1e-2)  # jumps, by a rule for smooth functions
    projected, again = density_and_exact(space, terms)
    assert np.array_equal(projected, rho)
    assert [factor for _, factor in again.terms] == pytest.approx([factor for _, factor in exact.terms], rel=1e-12)


def test_mass_outside_the_domain_is_scaled_away(comm: MPI.Comm) -> None:
    space = box_space(comm, 1, 40, 2, size=1.0)
    exact = exact_density(space, [GaussianTerm(mean=(0.9,), std=0.3)])
    rule = space.quadrature(12)
    values = exact.values(rule.points.reshape(-1, 1)).reshape(rule.weights.shape)
    assert parallel.sum_all(comm, np.array([np.vdot(rule.weights, values)]))[0] == pytest.approx(1.0, abs=1e-10)


@pytest.mark.one_process
def test_logarithms_are_those_of_the_values_and_go_on_where_these_underflow(comm: MPI.Comm, files: Path) -> None:  # noqa: F811
    space = box_space(comm, 2, 12, 1, 3)
    exact = exact_density(space, all_kinds(files))
    x = np.random.default_rng(0).uniform(-3.0, 3.0, (500, 2))
    with np.errstate(divide="ignore"):
        assert np.allclose(exact.log_values(x), np.log(exact.values(x)), rtol=1e-9, atol=1e-9)
    terms: list[Term] = [GaussianTerm(mean=(0.0,), std=0.1), UniformTerm(lower=(0.0,), upper=(1.0,), label=1)]
    narrow = exact_density(box_space(comm, 1, 60, 1, 2), terms)
    far = narrow.log_values(np.array([[2.9], [0.5]]))
    # The mean of both terms' masses, and the normal density's logarithm at 29 standard deviations.
    assert far[0, 0] == pytest.approx(np.log(0.5) - 0.5 * 29.0**2 - np.log(0.1 * np.sqrt(2.0 * np.pi)), rel=1e-12)
    assert far[0, 1] == -np.inf
    assert far[1, 1] == pytest.approx(np.log(0.5))


@pytest.mark.one_process
def test_kernel_estimates_have_tails(comm: MPI.Comm, files: Path) -> None:  # noqa: F811
    term = SamplesTerm(file=files / "data.csv", columns=("x", "y"), bandwidth=0.1)
    exact = exact_density(box_space(comm, 2, 30, 1), [term])
    x = np.concatenate([np.random.default_rng(1).uniform(-3.0, 3.0, (300, 2)), [[9.0, 9.0]]])
    profile = exact.terms[0][0].shape
    assert isinstance(profile, Samples)
    kernels = [Gaussian(sample, 0.01 * np.eye(2)).log_values(x) for sample in profile.samples]
    expected = np.logaddexp.reduce(kernels, axis=0) - np.log(len(kernels)) + np.log(exact.terms[0][1])
    assert np.allclose(exact.log_values(x)[:, 0], expected, rtol=1e-11, atol=1e-9)
