"""The density along characteristics against flows whose density is known."""

from mpi4py import MPI

import numpy as np
import pytest
from problems import projected, warped_mesh
from scipy.stats import norm

from eulerian.analysis.pushed_density import PushedDensity, density_values, distance_rule, l1_distance
from eulerian.base.arrays import Floats
from eulerian.density.gathered import GatheredDensity
from eulerian.density.space import DensitySpace


def stretch(x: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """The flow x ↦ 2^(label + 1) x backwards."""
    factor = 2.0 ** (labels + 1.0)
    return x / factor[:, None], -x.shape[1] * np.log(factor)


def constant(space: DensitySpace) -> GatheredDensity:
    """ρ_y = y + 1 on the whole domain."""
    rule = space.quadrature(2)
    values = np.broadcast_to(np.arange(1.0, space.n_labels + 1), (*rule.weights.shape, space.n_labels))
    return GatheredDensity.gather(space, projected(space, values, rule))


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("label_dependent", [False, True])
def test_a_stretched_density_thins_out(comm: MPI.Comm, dim: int, label_dependent: bool) -> None:
    space = DensitySpace(warped_mesh(comm, dim), 1, 2)
    pushed = PushedDensity(constant(space), stretch, label_dependent)
    x = np.array([[0.3] * dim, [0.9] * dim])
    thinner = [2.0**-dim, 2.0 ** (-2 * dim if label_dependent else -dim)]
    assert pushed.values(x) == pytest.approx(np.tile([1.0 * thinner[0], 2.0 * thinner[1]], (2, 1)))
    found = pushed.at(space)
    assert found.shape == (*distance_rule(space).weights.shape, 2)
    assert found == pytest.approx(np.broadcast_to([1.0 * thinner[0], 2.0 * thinner[1]], found.shape))


def test_nothing_comes_from_outside_or_from_nowhere(comm: MPI.Comm) -> None:
    space = DensitySpace(warped_mesh(comm, 2), 1, 1)

    def pull(x: Floats, labels: Floats) -> tuple[Floats, Floats]:
        return np.where(x < 0.0, np.nan, 3.0 * x), np.where(x[:, 0] > 5.0, np.inf, 0.0) + 0.0 * labels

    values = PushedDensity(constant(space), pull, False).values(np.array([[0.1, 0.1], [0.6, 0.1], [-0.1, 0.1]]))
    assert values[:, 0] == pytest.approx([1.0, 0.0, 0.0])


def test_distances_are_integrals_over_the_domain(comm: MPI.Comm) -> None:
    """‖N(0, s²) − N(m, s²)‖₁ = 2(2Φ(|m|/2s) − 1); and of constants the length."""
    space = DensitySpace(warped_mesh(comm, 1, 200), 2, 2)
    rule = distance_rule(space)
    one = np.stack([norm.pdf(rule.points[..., 0], mean, 0.1) for mean in (0.0, -0.2)], axis=2)
    other = np.stack([norm.pdf(rule.points[..., 0], mean, 0.1) for mean in (0.15, -0.2)], axis=2)
    expected = [2.0 * (2.0 * norm.cdf(0.75) - 1.0), 0.0]
    assert l1_distance(space, one, other) == pytest.approx(expected, abs=1e-4)
    rho = projected(space, one, rule)
    assert l1_distance(space, density_values(space, rho), one) == pytest.approx([0.0, 0.0], abs=2e-3)
    length = comm.allreduce(rule.weights.sum())
    assert l1_distance(space, one + 3.0, one) == pytest.approx(np.full(2, 3.0 * length))
