"""Costs that are quadratic in the density, on meshes: closed forms, exact gradients, and any number of ranks."""

from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from thinning import thinned

import eulerian as eu
from eulerian.analysis.verify import taylor_rates, taylor_remainders
from eulerian.base.errors import InputError

TARGET = {0: eu.Gaussian([0.0, 0.5], std=0.5), 1: eu.Gaussian([0.4, 0.1], std=0.6)}
KERNELS = [eu.GaussianInteraction(0.8, 0.4), eu.QuadraticInteraction(-0.5)]
MMD = eu.MaximumMeanDiscrepancy(TARGET, 0.5, 2.0)
ENERGY = eu.InteractionEnergy(*KERNELS)
# Parts of J that are not to be zero, and what the problem has.
CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "on the way": (["interaction"], {"costs": eu.Costs(kinetic=0.5, interaction=KERNELS)}),
    "labels apart": (
        ["interaction"],
        {"costs": eu.Costs(interaction=KERNELS[0], congestion=0.3), "label_dependent": True},
    ),
    "mmd": (["terminal"], {"terminal": MMD}),
    "mmd, labels apart": (["terminal"], {"terminal": MMD, "label_dependent": True}),
    "everything": (
        ["terminal", "intermediate", "interaction"],
        {
            "terminal": ENERGY,
            "at": [eu.CostAt(0.5, MMD, 1.5), eu.CostAt(1.0, eu.QuadraticLoss([1.0, 0.0]))],
            "costs": eu.Costs(interaction=KERNELS, entropy=0.2),
        },
    ),
}


def in_the_plane(comm: MPI.Comm, degree: int, case: str, **more: Any) -> eu.ControlProblem:
    space = eu.DensitySpace(eu.box_mesh([-2, -2], [2, 2], [8, 8], comm=comm), degree, labels=2)
    rho0 = {0: eu.Gaussian([-0.5, 0.3], std=0.4), 1: eu.Gaussian([0.5, 0.3], std=0.4)}
    given = {"terminal": eu.QuadraticLoss([1.0, -0.5]), "costs": eu.Costs(kinetic=0.5), **CASES[case][1], **more}
    return eu.ControlProblem(space, eu.Mlp(2, [6]), rho0, time=eu.TimeGrid(1.0, 4), **given)


def moving(problem: eu.ControlProblem) -> np.ndarray:
    theta = problem.initial_theta
    return theta + 0.3 * np.random.default_rng(3).standard_normal(theta.shape)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("degree", thinned([0, 1, 2], {2}))
def test_the_gradient_is_exact(comm: MPI.Comm, degree: int, case: str) -> None:
    problem = in_the_plane(comm, degree, case)
    theta = moving(problem)

    assert problem.value(theta) == pytest.approx(sum(problem.parts.values()), rel=1e-13)
    for part in CASES[case][0]:
        assert abs(problem.parts[part]) > 1e-3
    assert min(taylor_rates(taylor_remainders(problem, theta, np.random.default_rng(1)))) >= 1.9


@pytest.mark.two_ranks
@pytest.mark.parametrize("case", CASES)
def test_ranks_change_nothing(comm: MPI.Comm, case: str) -> None:
    together, alone = in_the_plane(comm, 1, case), in_the_plane(MPI.COMM_SELF, 1, case)
    theta = moving(alone)
    value, gradient = together.value_and_gradient(theta)
    expected, exact = alone.value_and_gradient(theta)
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradient, exact, rtol=0, atol=1e-11 * np.linalg.norm(exact))


def test_little_memory_changes_nothing(comm: MPI.Comm) -> None:
    roomy, tight = in_the_plane(comm, 2, "everything"), in_the_plane(comm, 2, "everything", memory=1.6e6)
    theta = 3.0 * moving(roomy)
    value, gradient = roomy.value_and_gradient(theta)
    again, gradient_again = tight.value_and_gradient(theta)

    assert tight.sweep.recomputed > roomy.sweep.recomputed == 0
    assert again == value
    np.testing.assert_array_equal(gradient_again, gradient)


def between(mean: np.ndarray, variance: float, width: float) -> float:
    """∬ exp(−|x − y|²/(2 width²)) of normal densities whose difference has this mean and this variance by axis."""
    total = variance + width**2
    return float((width**2 / total) ** (len(mean) / 2) * np.exp(-0.5 * mean @ mean / total))


# Cells along an axis, by dimension and degree, and how close values are then.
RESOLUTION = {(1, 1): (64, 3e-6), (1, 2): (64, 3e-8), (2, 1): (48, 1e-5), (2, 2): (24, 1e-6), (3, 2): (10, 2e-3)}


@pytest.mark.parametrize(("dim", "degree"), thinned(list(RESOLUTION), {(3, 2)}))
def test_closed_forms_between_normal_densities(comm: MPI.Comm, dim: int, degree: int) -> None:
    cells, close = RESOLUTION[dim, degree]
    space = eu.DensitySpace(eu.box_mesh([-4.0] * dim, [4.0] * dim, [cells] * dim, comm=comm), degree)
    m0, m1, s0, s1, width = np.array([0.3, -0.2, 0.1])[:dim], np.array([-0.2, 0.4, 0.2])[:dim], 0.6, 0.7, 0.8
    zero = np.zeros(dim)
    itself = 0.5 * between(zero, 2 * s0**2, width)
    expected = {
        "terminal": itself + 0.5 * between(zero, 2 * s1**2, width) - between(m0 - m1, s0**2 + s1**2, width),
        "intermediate": -1.5 * itself,
        "interaction": 0.5 * (0.3 * dim * s0**2),
    }
    problem = eu.ControlProblem(
        space,
        eu.Linear(dim, "affine"),
        eu.Gaussian(m0, std=s0),
        eu.MaximumMeanDiscrepancy(eu.Gaussian(m1, std=s1), width),
        eu.Costs(interaction=eu.QuadraticInteraction(0.3)),
        eu.TimeGrid(1.0, 2),
        at=[eu.CostAt(0.5, eu.InteractionEnergy(eu.GaussianInteraction(-1.5, width)))],
    )
    problem.value(np.zeros_like(problem.initial_theta))
    for part, value in expected.items():
        assert problem.parts[part] == pytest.approx(value, rel=close), part


def test_the_optimum_is_that_of_quadratic_attraction(comm: MPI.Comm) -> None:
    """The mean moves as without it, the fluctuation follows P' = P²/λ − w, P(T) = κ."""
    space = eu.DensitySpace(eu.box_mesh([-4.0], [4.0], [120], comm=comm), degree=2)
    found = []
    for layers in (8, 16):
        problem = eu.ControlProblem(
            space,
            eu.Linear(1, "affine"),
            eu.Gaussian([-0.4], std=0.6),
            eu.QuadraticLoss([1.3], 2.0),
            eu.Costs(kinetic=0.7, interaction=eu.QuadraticInteraction(0.9)),
            eu.TimeGrid(1.5, layers),
        )
        found.append(eu.minimise(problem, max_iterations=60).value / 0.69379791554 - 1.0)
    # Velocities that are constant in a layer cost a little more than any, of second order.
    assert 0.0 < found[1] < 1.3e-3
    assert found[1] == pytest.approx(found[0] / 4, rel=0.15)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"costs": eu.Costs(interaction=eu.GaussianInteraction(1.0, 1e-3))}, r"costs\.interaction\.width"),
        ({"terminal": eu.MaximumMeanDiscrepancy(TARGET, 1e-3)}, r"terminal\.width"),
        ({"terminal": eu.MaximumMeanDiscrepancy(eu.Gaussian([0, 0], std=1.0))}, r"terminal\.target"),
        ({"at": [eu.CostAt(0.5, eu.MaximumMeanDiscrepancy(TARGET, 1e-3))]}, r"at\[0\]\.width"),
    ],
)
def test_what_does_not_fit_is_named(comm: MPI.Comm, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError, match=key):
        in_the_plane(comm, 1, "mmd", **changes)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: eu.GaussianInteraction(1.0, 0.0), "width"),
        (lambda: eu.GaussianInteraction(np.nan, 1.0), "weight"),
        (lambda: eu.QuadraticInteraction("strong"), "weight"),
        (lambda: eu.MaximumMeanDiscrepancy(TARGET, -1.0), "width"),
        (lambda: eu.MaximumMeanDiscrepancy(TARGET, 1.0, -1.0), "weight"),
        (lambda: eu.InteractionEnergy(3), "terminal"),
        (lambda: eu.InteractionEnergy(), "terminal"),
        (lambda: eu.Costs(interaction=0.3), r"costs\.interaction"),
        (lambda: eu.Costs(interaction=[]), r"costs\.interaction"),
    ],
)
def test_numbers_have_a_range(make: Any, key: str) -> None:
    with pytest.raises(InputError, match=key):
        make()


def test_no_bound_is_known(comm: MPI.Comm) -> None:
    space = eu.DensitySpace(eu.box_mesh([-2.0], [2.0], [8], comm=comm))
    rho0, loss = eu.Gaussian([0.0], std=0.5), eu.QuadraticLoss([0.5])
    kernel = eu.GaussianInteraction(1.0, 0.5)
    with pytest.raises(InputError, match=r"interaction: no bound is known where points of the density interact"):
        eu.IdealProblem(space, rho0, loss, 1.0, interaction=kernel)
    for terminal, words in ((eu.InteractionEnergy(kernel), "interact"), (eu.MaximumMeanDiscrepancy(rho0), "distance")):
        with pytest.raises(InputError, match=words):
            eu.IdealProblem(space, rho0, terminal, 1.0)
    for terminal, costs in ((loss, eu.Costs(kinetic=1.0, interaction=kernel)), (ENERGY, eu.Costs(kinetic=1.0))):
        problem = eu.ControlProblem(space, eu.Linear(1, "affine"), rho0, terminal, costs)
        with pytest.raises(InputError, match="no bound is known"):
            eu.certify(problem, problem.initial_theta)
