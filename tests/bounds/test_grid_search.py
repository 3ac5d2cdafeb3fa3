"""Nearest places on a line, against all of them."""

import numpy as np
import pytest

from eulerian.base.arrays import Floats
from eulerian.bounds.grid_search import min_plus

pytestmark = pytest.mark.one_process


def lines(kind: str, rng: np.random.Generator) -> Floats:
    """Values on 30 lines of 60 points, where some have none."""
    values = rng.standard_normal((30, 60)) * {"rough": 10.0, "faint": 1e-3, "flat": 0.0}[kind]
    values[rng.random(values.shape) < 0.3] = np.inf
    values[3] = np.inf
    return values


@pytest.mark.parametrize("kind", ["rough", "faint", "flat"])
@pytest.mark.parametrize("half", [0.0, 1e-9, 0.3, 5.0, 1e6])
def test_min_plus_is_the_minimum_over_all_places(kind: str, half: float) -> None:
    rng = np.random.default_rng(7)
    z, x, values = np.sort(rng.standard_normal(60)), np.linspace(-3.0, 3.0, 41), lines(kind, rng)
    minima, chosen = min_plus(values, z, x, half)
    every = values[:, None] + half * (x[:, None] - z) ** 2
    known = np.isfinite(minima)
    assert np.array_equal(known, np.isfinite(every.min(axis=2)))
    np.testing.assert_allclose(minima[known], every.min(axis=2)[known], rtol=1e-13, atol=1e-15 * half)
    at_chosen = np.take_along_axis(every, chosen[..., None], axis=2)[..., 0]
    np.testing.assert_allclose(at_chosen[known], minima[known], rtol=1e-13, atol=1e-15 * half)
    assert not chosen[~known].any()
