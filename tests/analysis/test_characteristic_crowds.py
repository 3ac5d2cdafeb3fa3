"""True values of costs that are quadratic in the density: closed forms of normal densities that a known flow moves."""

from mpi4py import MPI

import numpy as np
import pytest

import eulerian as eu
from eulerian.analysis.characteristics import TrueObjective

WIDTH, STD, RATES = 0.7, 0.5, (0.6, -0.3)
SHIFT = np.array([0.4, -0.2])


def between(mean: np.ndarray, variance: float) -> float:
    """∬ exp(−|x − y|²/(2 width²)) of normal densities whose difference has this mean and this variance by axis."""
    total = variance + WIDTH**2
    return float((WIDTH**2 / total) ** (len(mean) / 2) * np.exp(-0.5 * mean @ mean / total))


def dilated(comm: MPI.Comm, degree: int = 1) -> tuple[eu.ControlProblem, np.ndarray]:
    """V = a x with another a in each of two layers: mean and deviation are multiplied by exp(∫a dt)."""
    space = eu.DensitySpace(eu.box_mesh([-4, -4], [4, 4], [24, 24], comm=comm), degree)
    problem = eu.ControlProblem(
        space,
        eu.Linear(2, "affine"),
        eu.Gaussian(SHIFT, std=STD),
        eu.MaximumMeanDiscrepancy(eu.Gaussian([0.0, 0.3], std=0.6), WIDTH, weight=3.0),
        eu.Costs(interaction=[eu.QuadraticInteraction(0.9), eu.GaussianInteraction(1.2, WIDTH)]),
        eu.TimeGrid(1.0, 2),
        at=[eu.CostAt(0.5, eu.InteractionEnergy(eu.GaussianInteraction(-1.5, WIDTH)), weight=2.0)],
    )
    field = problem.field
    rows = []
    for rate in RATES:  # θ are given in the units of the domain's box, which is twice as large as the field's own
        theta = np.zeros(field.n_params(2))
        theta[[0, 3]] = 1.0
        x = np.array([[1.0, 0.0]])
        rows.append(theta * rate / float(problem.layered.value(0, theta, x)[0, 0]))
    return problem, np.array(rows)


def closed_forms() -> dict[str, float]:
    def growth(t: np.ndarray) -> np.ndarray:
        return np.exp(np.where(t < 0.5, RATES[0] * t, 0.5 * RATES[0] + RATES[1] * (t - 0.5)))

    halves = [np.polynomial.legendre.leggauss(20)[0] * 0.25 + middle for middle in (0.25, 0.75)]
    times, weights = np.concatenate(halves), np.tile(np.polynomial.legendre.leggauss(20)[1] * 0.25, 2)
    zero, variances = np.zeros(2), (STD * growth(times)) ** 2
    running = 0.5 * 0.9 * 2 * variances + 0.5 * 1.2 * np.array([between(zero, 2 * each) for each in variances])
    end, half = growth(np.array([1.0, 0.5]))
    own = (STD * end) ** 2
    mmd = between(zero, 2 * own) + between(zero, 2 * 0.6**2)
    mmd -= 2 * between(end * SHIFT - np.array([0.0, 0.3]), own + 0.6**2)
    return {
        "interaction": float(weights @ running),
        "intermediate": -1.5 * between(zero, 2 * (STD * half) ** 2),
        "terminal": 1.5 * mmd,
    }


def test_true_values_are_those_of_the_closed_forms(comm: MPI.Comm) -> None:
    problem, theta = dilated(comm)
    verified = eu.verify(problem, theta)
    expected = closed_forms()
    for part, value in expected.items():
        assert verified.objective[part] == pytest.approx(value, rel=2e-5), part
    total = sum(expected.values())
    assert verified.objective["total"] == pytest.approx(total, rel=2e-5)
    # Its error is told, on the safe side.
    assert abs(verified.objective["total"] - total) <= verified.own_error * abs(total) < 1e-3
    assert not verified.reason
    (at,) = verified.at
    assert 2.0 * at.value == pytest.approx(expected["intermediate"], rel=2e-5)


def test_the_mesh_comes_close_to_them(comm: MPI.Comm) -> None:
    problem, theta = dilated(comm, degree=2)
    problem.value(theta)
    for part, value in closed_forms().items():
        assert problem.parts[part] == pytest.approx(value, rel=5e-4), part


def test_one_theta_after_another(comm: MPI.Comm) -> None:
    """By the coarser rule alone; the field needs no density along its paths."""
    problem, theta = dilated(comm)
    found = TrueObjective(problem)
    assert found.obstacle is None
    value, reason = found.value(theta)
    assert not reason
    assert value == pytest.approx(sum(closed_forms().values()), rel=1e-3)


@pytest.mark.two_ranks
def test_ranks_change_nothing(comm: MPI.Comm) -> None:
    (together, theta), (alone, _) = dilated(comm), dilated(MPI.COMM_SELF)
    found, expected = eu.verify(together, theta), eu.verify(alone, theta)
    for part, value in expected.objective.items():
        assert found.objective[part] == pytest.approx(value, rel=1e-11), part
