"""Wasserstein distances against the few that are known in closed form."""

import subprocess
import sys

import numpy as np
import pytest

from eulerian.analysis import wasserstein
from eulerian.analysis.wasserstein import (
    LabelledPoints,
    distance_by_label,
    sliced_wasserstein2,
    wasserstein2,
)

pytestmark = [
    pytest.mark.skipif(not wasserstein.available(), reason="needs POT"),
    pytest.mark.one_process,
]


def sample(n: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, dim)), rng.uniform(0.5, 1.5, n)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_translation_costs_its_length(dim: int) -> None:
    x, weights = sample(60, dim)
    shift = np.linspace(0.5, -0.3, dim)
    assert wasserstein2(x, x + shift, weights, 7.0 * weights) == pytest.approx(np.linalg.norm(shift), rel=1e-12)
    assert wasserstein2(x, x, weights, weights) == pytest.approx(0.0, abs=1e-7)


def test_labels_on_the_line_are_sorted() -> None:
    """Unequal weights: the quantile functions are 0, 0, 1 and 0, 2, 2 on thirds."""
    x, y = np.array([[1.0], [0.0]]), np.array([[0.0], [2.0]])
    found = wasserstein2(x, y, np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert found == pytest.approx(np.sqrt((0.0 + 4.0 + 1.0) / 3.0))


def test_the_exact_plan_beats_the_sliced_distance() -> None:
    """Every projection shortens distances; a translation is shortened by |cos|, whose mean square is 1/d."""
    x, weights = sample(200, 2)
    shift = np.array([0.8, 0.6])
    sliced = sliced_wasserstein2(x, x + shift, weights, weights, directions=4000)
    assert sliced == pytest.approx(np.sqrt(0.5), rel=0.03)
    y, others = sample(150, 2, seed=1)
    assert sliced_wasserstein2(x, y, weights, others) < wasserstein2(x, y, weights, others)
    line, same = x[:, :1], x[:, :1] ** 3
    assert sliced_wasserstein2(line, same, weights, weights) == wasserstein2(line, same, weights, weights)


def test_labels_do_not_change() -> None:
    """Two labels that only swap their places: nothing moves in the sum of all points, but every label does."""
    x = np.array([[0.0, 0.0], [3.0, 0.0], [9.0, 0.0]])
    one = LabelledPoints(x, np.array([0, 1, 2]), np.array([0.25, 0.75, 0.0]))
    other = LabelledPoints(x, np.array([1, 0, 0]), np.array([0.5, 0.5, 0.0]))
    found = distance_by_label(one, other, 3, wasserstein2)
    assert found.by_label[:2] == pytest.approx([3.0, 3.0])
    assert np.isnan(found.by_label[2])
    assert found.total == pytest.approx(3.0)
    nothing = distance_by_label(one, LabelledPoints(x[:0], np.zeros(0, int), np.zeros(0)), 3, wasserstein2)
    assert np.isnan(nothing.total)


def test_masses_of_the_first_measure_weigh_the_labels() -> None:
    one = LabelledPoints(np.array([[0.0], [0.0]]), np.array([0, 1]), np.array([0.1, 0.3]))
    other = LabelledPoints(np.array([[1.0], [2.0]]), np.array([0, 1]), np.array([0.5, 0.5]))
    assert distance_by_label(one, other, 2, wasserstein2).total == pytest.approx(np.sqrt((1.0 + 3.0 * 4.0) / 4.0))


def test_thinned_points_are_some_of_the_points() -> None:
    x, weights = sample(50, 2)
    points = LabelledPoints(x, np.arange(50), weights)
    few = points.thinned(20, seed=3)
    assert len(few.x) == len(set(few.labels.tolist())) == 20
    assert np.array_equal(few.x, x[few.labels])
    assert np.array_equal(few.weights, weights[few.labels])
    assert points.thinned(50, seed=3) is points


def test_pot_comes_alone() -> None:
    """POT imports every array library that it finds; a command line does not wait for them."""
    source = (
        "import sys, numpy as np\nfrom eulerian.analysis.wasserstein import wasserstein2\n"
        "assert 'ot' not in sys.modules\nx = np.zeros((2, 2))\nwasserstein2(x, x, np.ones(2), np.ones(2))\n"
        "assert 'ot' in sys.modules\nassert not {'jax', 'torch', 'tensorflow', 'cupy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60)


@pytest.mark.parametrize("distance", [wasserstein2, sliced_wasserstein2])
def test_distances_keep_their_digits_far_from_the_origin(distance) -> None:
    x, weights = sample(80, 2)
    y, others = sample(60, 2, seed=1)
    near, far = (distance(x + offset, y + offset, weights, others) for offset in (0.0, 1e7))
    assert far == pytest.approx(near, rel=1e-7)
