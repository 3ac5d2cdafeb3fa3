"""Fast sums of Gaussian kernels against sums over all pairs."""

import numpy as np
import pytest

from eulerian.base.errors import InputError
from eulerian.objective.lattice_sums import MOST_NODES, Lattice, LatticeSums


def all_pairs(x: np.ndarray, y: np.ndarray, masses: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Potential (n,) and its gradient (n, d) at x."""
    apart = x[:, None] - y
    kernel = np.exp(-0.5 * np.sum(apart**2, axis=2) / width**2) * masses
    return kernel.sum(axis=1), -np.einsum("nmi,nm->ni", apart, kernel) / width**2


@pytest.mark.parametrize("middle", [0.0, 1e4])
@pytest.mark.parametrize("width", [3.0, 0.5, 0.1])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_sums_are_those_over_all_pairs(dim: int, width: float, middle: float) -> None:
    rng = np.random.default_rng(0)
    side = 5.0 if dim < 3 else 2.0
    x, y = (middle + side * rng.uniform(-0.5, 0.5, (n, dim)) for n in (300, 500))
    x[0] = y[0] = y.min(axis=0)
    masses = rng.standard_normal(len(y))
    lattice = Lattice.of(np.minimum(x.min(axis=0), y.min(axis=0)), np.maximum(x.max(axis=0), y.max(axis=0)), width)
    sums, at = LatticeSums(lattice, y), LatticeSums(lattice, x)
    c = sums.sums(masses)
    potential, gradient = all_pairs(x, y, masses, width)
    total = np.abs(masses).sum()
    # Coordinates have lost digits where the origin is far.
    allowed = total * (1e-11 + 4e-16 * middle / width)
    np.testing.assert_allclose(at.potential(c), potential, rtol=0, atol=allowed)
    np.testing.assert_allclose(width * at.gradient(c), width * gradient, rtol=0, atol=10 * allowed)
    dual = rng.standard_normal(lattice.size)
    assert np.vdot(dual, sums.sums(masses)) == pytest.approx(np.vdot(masses, sums.potential(dual)), rel=1e-12)


def test_points_may_coincide_or_be_none() -> None:
    lattice = Lattice.of(np.array([1.0, 2.0]), np.array([1.0, 2.0]), 0.3)
    c = LatticeSums(lattice, np.full((5, 2), [1.0, 2.0])).sums(np.full(5, 0.2))
    assert float(c @ c) == pytest.approx(1.0, abs=1e-11)
    none = LatticeSums(lattice, np.zeros((0, 2)))
    assert not none.sums(np.zeros(0)).any()
    assert none.potential(c).shape == (0,)
    assert none.gradient(c).shape == (0, 2)


def test_a_lattice_has_an_end() -> None:
    with pytest.raises(InputError, match=rf"width: .*{MOST_NODES}"):
        Lattice.of(np.zeros(3), np.ones(3), 1e-3)


def test_sums_of_a_normal_density_are_known() -> None:
    """f_z has the integral that the lattice says: c of a density is that times the density, blurred."""
    lattice = Lattice.of(np.full(2, -6.0), np.full(2, 6.0), 0.7)
    x = np.stack(np.meshgrid(*[np.linspace(-6, 6, 241)] * 2), axis=-1).reshape(-1, 2)
    density = np.exp(-np.sum(x**2, axis=1)) / np.pi
    variance = 0.5 + lattice.blur**2
    blurred = np.exp(-0.5 * np.sum(lattice.nodes**2, axis=1) / variance) / (2 * np.pi * variance)
    found = LatticeSums(lattice, x).sums(density * 0.05**2)
    np.testing.assert_allclose(found, lattice.integral * blurred, rtol=0, atol=1e-10 * found.max())
