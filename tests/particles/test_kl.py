"""Targets of the relative entropy: values against densities that are known, gradients against differences."""

import numpy as np
import pytest
from particle_problems import N_LABELS, relative_entropy
from scipy.stats import multivariate_normal

from eulerian.base.formula import Expression
from eulerian.density.shapes import Samples
from eulerian.particles.kl import Component, KlLoss, LogFormula, LogGaussian, LogKernels, LogShape

pytestmark = pytest.mark.one_process

RNG = np.random.default_rng(6)
MEAN, COVARIANCE = np.array([0.3, -0.4]), np.array([[0.5, 0.2], [0.2, 0.8]])
SAMPLES, BANDWIDTH = RNG.standard_normal((40, 2)), np.array([0.4, 0.7])
NONE = np.zeros(0)


def test_gaussian() -> None:
    x = RNG.standard_normal((9, 2))
    np.testing.assert_allclose(LogGaussian(MEAN, COVARIANCE).log(x)[0], multivariate_normal(MEAN, COVARIANCE).logpdf(x))


def test_kernels_also_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    x = RNG.standard_normal((9, 2))
    shape = LogKernels(SAMPLES, BANDWIDTH)
    np.testing.assert_allclose(shape.log(x)[0], np.log(Samples(SAMPLES, BANDWIDTH).values(x)))
    far, slope = shape.log(np.array([[300.0, 0.0]]))
    assert -400_000 < far[0] < -250_000
    assert slope[0, 0] == pytest.approx(-(300 - SAMPLES[:, 0].max()) / 0.16, rel=0.01)
    monkeypatch.setattr("eulerian.particles.kl._PAIRS", 100)  # block by block
    np.testing.assert_allclose(shape.log(x)[0], np.log(Samples(SAMPLES, BANDWIDTH).values(x)))


def test_formula_is_divided_by_its_mass() -> None:
    shape = LogFormula(Expression.parse("x*y", ("x", "y"), "test"), ("x", "y"), 4.0)
    value, slope = shape.log(np.array([[2.0, 3.0], [-1.0, 3.0]]))
    assert value[0] == pytest.approx(np.log(6.0 / 4.0))
    np.testing.assert_allclose(slope[0], [1 / 2, 1 / 3])
    assert np.isnan(value[1])


@pytest.mark.parametrize("shape", [component.shape for component in relative_entropy().components])
def test_gradient_of_a_shape(shape: LogShape) -> None:
    x, e = RNG.standard_normal((9, 2)), 1e-5
    for i, axis in enumerate(np.eye(2)):
        difference = (shape.log(x + e * axis)[0] - shape.log(x - e * axis)[0]) / (2 * e)
        np.testing.assert_allclose(shape.log(x)[1][:, i], difference, atol=1e-8)


def test_mixture_of_labels() -> None:
    loss, x, e = relative_entropy(), RNG.standard_normal((9, 2)), 1e-5
    gaussian, kernels, broad = loss.components
    first = 0.3 * np.exp(gaussian.shape.log(x)[0]) + 0.2 * np.exp(kernels.shape.log(x)[0])
    expected = [-np.log(first), -np.log(0.5) - broad.shape.log(x)[0]]
    np.testing.assert_allclose(loss.value(x, NONE), np.stack(expected, axis=1))
    assert loss.gradient(x, NONE).shape == (9, N_LABELS, 2)
    for i, axis in enumerate(np.eye(2)):
        difference = (loss.value(x + e * axis, NONE) - loss.value(x - e * axis, NONE)) / (2 * e)
        np.testing.assert_allclose(loss.gradient(x, NONE)[..., i], difference, atol=1e-8)


def test_terms_that_vanish_somewhere_do_not_disturb_the_others() -> None:
    half = LogFormula(Expression.parse("max(x, 0)", ("x", "y"), "test"), ("x", "y"), 1.0)
    loss = KlLoss((Component(half, 0.5, 0), Component(LogGaussian(MEAN, COVARIANCE), 0.5, 0)), 1)
    alone = KlLoss((Component(LogGaussian(MEAN, COVARIANCE), 0.5, 0),), 1)
    x = np.array([[-1.0, 0.2]])
    np.testing.assert_allclose(loss.value(x, NONE), alone.value(x, NONE))
    np.testing.assert_allclose(loss.gradient(x, NONE), alone.gradient(x, NONE))
