"""Targets of the relative entropy: values against densities that are known, gradients against differences."""

import numpy as np
import pytest
from particle_problems import N_LABELS, relative_entropy
from scipy.stats import multivariate_normal

from eulerian.base.errors import InputError
from eulerian.density.shape import DensityShape, LabelledShape
from eulerian.density.shapes import Formula, FunctionShape, Gaussian, Samples, Uniform
from eulerian.particles.kl import KlLoss

pytestmark = pytest.mark.one_process

RNG = np.random.default_rng(6)
MEAN, COVARIANCE = np.array([0.3, -0.4]), np.array([[0.5, 0.2], [0.2, 0.8]])
SAMPLES, BANDWIDTH = RNG.standard_normal((40, 2)), np.array([0.4, 0.7])
NONE = np.zeros(0)


def test_gaussian() -> None:
    x = RNG.standard_normal((9, 2))
    expected = multivariate_normal(MEAN, COVARIANCE).logpdf(x)
    np.testing.assert_allclose(Gaussian(MEAN, COVARIANCE).log_and_gradient(x)[0], expected)


def test_kernels_also_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    x = RNG.standard_normal((9, 2))
    shape = Samples(SAMPLES, BANDWIDTH)
    np.testing.assert_allclose(shape.log_and_gradient(x)[0], np.log(shape.values(x)))
    far, slope = shape.log_and_gradient(np.array([[300.0, 0.0]]))
    assert -400_000 < far[0] < -250_000
    assert slope[0, 0] == pytest.approx(-(300 - SAMPLES[:, 0].max()) / 0.16, rel=0.01)
    monkeypatch.setattr("eulerian.density.shapes._PAIRS", 100)  # block by block
    np.testing.assert_allclose(shape.log_and_gradient(x)[0], np.log(shape.values(x)))


def test_formula_is_divided_by_its_mass() -> None:
    loss = KlLoss.of([LabelledShape(Formula("x*y"))], [4.0], 1)
    x = np.array([[2.0, 3.0], [-1.0, 3.0]])
    np.testing.assert_allclose(loss.value(x, NONE)[:, 0], [-np.log(6.0 / 4.0), np.inf])
    np.testing.assert_allclose(loss.gradient(x[:1], NONE)[0, 0], [-1 / 2, -1 / 3])


@pytest.mark.parametrize("shape", [Uniform([0.0, 0.0], [1.0, 1.0]), FunctionShape(lambda x: np.ones(len(x)))])
def test_shapes_without_a_gradient_say_so(shape: DensityShape) -> None:
    with pytest.raises(InputError, match="no gradient"):
        shape.log_and_gradient(np.zeros((1, 2)))


@pytest.mark.parametrize("shape", [term.shape for term, _ in relative_entropy().terms])
def test_gradient_of_a_shape(shape: DensityShape) -> None:
    x, e = RNG.standard_normal((9, 2)), 1e-5
    for i, axis in enumerate(np.eye(2)):
        difference = (shape.log_and_gradient(x + e * axis)[0] - shape.log_and_gradient(x - e * axis)[0]) / (2 * e)
        np.testing.assert_allclose(shape.log_and_gradient(x)[1][:, i], difference, atol=1e-8)


def test_mixture_of_labels() -> None:
    loss, x, e = relative_entropy(), RNG.standard_normal((9, 2)), 1e-5
    gaussian, kernels, broad = (term.shape for term, _ in loss.terms)
    first = 0.3 * gaussian.values(x) + 0.2 * kernels.values(x)
    expected = [-np.log(first), -np.log(0.5 / 5.0) - np.log(broad.values(x))]
    np.testing.assert_allclose(loss.value(x, NONE), np.stack(expected, axis=1))
    assert loss.gradient(x, NONE).shape == (9, N_LABELS, 2)
    for i, axis in enumerate(np.eye(2)):
        difference = (loss.value(x + e * axis, NONE) - loss.value(x - e * axis, NONE)) / (2 * e)
        np.testing.assert_allclose(loss.gradient(x, NONE)[..., i], difference, atol=1e-8)


def test_terms_that_vanish_somewhere_do_not_disturb_the_others() -> None:
    gaussian, half = LabelledShape(Gaussian(MEAN, COVARIANCE), 0, 0.5), LabelledShape(Formula("max(x, 0)"), 0, 0.5)
    loss, alone = KlLoss.of([half, gaussian], [1.0, 1.0], 1), KlLoss(((gaussian, 0.5),), 1)
    x = np.array([[-1.0, 0.2]])
    np.testing.assert_allclose(loss.value(x, NONE), alone.value(x, NONE))
    np.testing.assert_allclose(loss.gradient(x, NONE), alone.gradient(x, NONE))
