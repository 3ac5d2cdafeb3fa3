"""Terminal losses: closed forms, derivatives, refusals."""

import math
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import random_density, random_rows, warped_mesh
from pydantic import TypeAdapter

from eulerian.app import config
from eulerian.app.build.mesh import create_mesh
from eulerian.app.build.mixture import initial_density
from eulerian.app.config import Box, Domain, GaussianTerm, UniformTerm
from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.density.space import DensitySpace
from eulerian.objective.losses import QuadraticLoss, log_softmax
from eulerian.objective.terminal import LinearLoss, Terminal, on_mesh

MEANS, STD, WEIGHTS = ((-0.4, 0.3), (0.5, -0.2)), 0.25, (1.0, 3.0)
LOSSES: dict[str, dict[str, Any]] = {
    "quadratic": {"kind": "quadratic", "targets": [[1.0, 0.5], [-0.5, 0.2]], "weight": 1.5},
    "expression": {"kind": "expression", "value": "(1 + label)*sin(x)*y + x**2"},
    "logistic": {"kind": "logistic", "direction": [2.0, -1.0], "offset": 0.3},
    "cross_entropy": {"kind": "cross_entropy", "weights": [[1.0, 0.5], [-0.3, 0.2]], "bias": [0.2, -0.1]},
    "trained": {"kind": "cross_entropy", "weights": [[1.0, 0.5], [-0.3, 0.2]], "bias": [0.2, -0.1], "trainable": True},
}


def parsed(table: dict[str, Any]) -> config.Terminal:
    kinds = {
        "quadratic": config.QuadraticTerminal,
        "expression": config.ExpressionTerminal,
        "logistic": config.LogisticTerminal,
        "cross_entropy": config.CrossEntropyTerminal,
    }
    return TypeAdapter(kinds[table["kind"]]).validate_python(table, context={})


def loss(space: DensitySpace, **table: Any) -> Terminal:
    return on_mesh(parsed(table).loss(), space)


def value(terminal: Terminal, rho: Floats) -> float:
    return terminal.evaluate(rho, terminal.initial_readout()).value


@pytest.fixture(scope="module")
def normals(comm: MPI.Comm) -> tuple[DensitySpace, Floats]:
    """Two labels with normal densities, masses 1/4 and 3/4, well inside of the box."""
    box = Box(lower=(-2.5, -2.5), upper=(2.5, 2.5), cells=(30, 30))
    space = DensitySpace(create_mesh(comm, Domain(box=box)), 2, 2)
    terms = [
        GaussianTerm(mean=m, std=STD, weight=w, label=y) for y, (m, w) in enumerate(zip(MEANS, WEIGHTS, strict=True))
    ]
    return space, initial_density(space, terms)


def expectation(integrand: Any) -> float:
    """Σ_y mass_y E[ℓ(X_y, y)] by a fine product rule: independent of the mesh."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    x, y = np.meshgrid(nodes, nodes, indexing="ij")
    w = np.outer(weights, weights) / (2.0 * math.pi)
    return sum(
        mass / sum(WEIGHTS) * float(np.sum(w * integrand(mean[0] + STD * x, mean[1] + STD * y, label)))
        for label, (mean, mass) in enumerate(zip(MEANS, WEIGHTS, strict=True))
    )


def test_quadratic_of_normal_densities(normals: tuple[DensitySpace, Floats]) -> None:
    space, rho = normals
    targets = np.array([[1.0, 0.5], [-0.5, 0.2]])
    spread = 2 * STD**2
    distance = np.sum((np.array(MEANS) - targets) ** 2, axis=1) + spread
    expected = 0.5 * 1.5 * (0.25 * distance[0] + 0.75 * distance[1])
    assert value(loss(space, **LOSSES["quadratic"]), rho) == pytest.approx(expected, rel=2e-5)
    one = loss(space, kind="quadratic", target=[1.0, 0.5])
    distance = np.sum((np.array(MEANS) - targets[0]) ** 2, axis=1) + spread
    assert value(one, rho) == pytest.approx(0.5 * (0.25 * distance[0] + 0.75 * distance[1]), rel=2e-5)


def test_expression_of_normal_densities(normals: tuple[DensitySpace, Floats]) -> None:
    space, rho = normals
    expected = expectation(lambda x, y, label: (1 + label) * np.sin(x) * y + x**2)
    assert value(loss(space, **LOSSES["expression"]), rho) == pytest.approx(expected, rel=5e-5)


def test_logistic_of_normal_densities(normals: tuple[DensitySpace, Floats]) -> None:
    """Label 0 has the sign -1, label 1 the sign +1."""
    space, rho = normals
    expected = expectation(lambda x, y, label: np.log1p(np.exp(-(2 * label - 1) * (2 * x - y + 0.3))))
    assert value(loss(space, **LOSSES["logistic"]), rho) == pytest.approx(expected, rel=5e-5)


@pytest.mark.parametrize("kind", ["cross_entropy", "trained"])
def test_cross_entropy_of_normal_densities(normals: tuple[DensitySpace, Floats], kind: str) -> None:
    """Of two labels it is the logistic loss of the difference of the scores."""
    space, rho = normals
    expected = expectation(lambda x, y, label: np.log1p(np.exp((1 - 2 * label) * -(1.3 * x + 0.3 * y + 0.3))))
    assert value(loss(space, **LOSSES[kind]), rho) == pytest.approx(expected, rel=5e-5)


def test_losses_of_a_uniform_density(comm: MPI.Comm) -> None:
    """Polynomials up to the rule's degree are integrated exactly, on every cell."""
    for dim in (1, 2, 3):
        box = Box(lower=(-1.0,) * dim, upper=(2.0,) * dim, cells=(3,) * dim)
        space = DensitySpace(create_mesh(comm, Domain(box=box)), 1)
        rho = initial_density(space, [UniformTerm(lower=(-1.0,) * dim, upper=(2.0,) * dim)])
        quadratic = value(loss(space, kind="quadratic", target=[0.5] * dim), rho)
        assert quadratic == pytest.approx(0.5 * dim * 9.0 / 12.0, rel=1e-12)
        n = space.objective_degree - space.degree
        power = value(loss(space, kind="expression", value=f"x**{n}"), rho)
        assert power == pytest.approx((2.0 ** (n + 1) - (-1.0) ** (n + 1)) / (3.0 * (n + 1)), rel=1e-12)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_derivatives(comm: MPI.Comm, degree: int, kind: str) -> None:
    """In ρ the losses are linear; in the readout differences tell."""
    space = DensitySpace(warped_mesh(comm, 2), degree, 2)
    terminal = loss(space, **LOSSES[kind])
    rho, change = random_density(space, 2, 1), random_rows(space, 2, 2)
    readout = terminal.initial_readout()

    at = terminal.evaluate(rho, readout)

    assert at.density.shape == (space.n_owned, space.nd, 2)
    assert readout.size == at.readout.size == (6 if kind == "trained" else 0)
    slope = float(parallel.sum_all(comm, np.array([np.vdot(at.density, change[: space.n_owned])]))[0])
    assert terminal.evaluate(rho + change, readout).value - at.value == pytest.approx(slope, rel=1e-10)
    h = 1e-5
    for k in range(readout.size):
        step = h * np.eye(readout.size)[k]
        ahead, behind = (terminal.evaluate(rho, readout + s * step).value for s in (1.0, -1.0))
        assert at.readout[k] == pytest.approx((ahead - behind) / (2 * h), rel=1e-6, abs=1e-8)


def test_a_readout_starts_where_it_is_told(comm: MPI.Comm) -> None:
    space = DensitySpace(warped_mesh(comm, 2), 1, 2)
    given = loss(space, **LOSSES["trained"])
    np.testing.assert_array_equal(given.initial_readout(), [1.0, 0.5, -0.3, 0.2, 0.2, -0.1])
    plain = loss(space, kind="cross_entropy", trainable=True)
    np.testing.assert_array_equal(plain.initial_readout(), np.zeros(6))
    # Zero scores know nothing: the loss is log K times the mass.
    rho = random_density(space, 2, 1)
    assert value(plain, rho) == pytest.approx(math.log(2.0) * space.mass(rho).sum(), rel=1e-12)


def test_log_softmax_of_large_scores() -> None:
    values = log_softmax(np.array([[1e4, -1e4, 0.0], [3.0, 3.0, 3.0]]))
    np.testing.assert_allclose(values, [[0.0, -2e4, -1e4], [-math.log(3.0)] * 3], rtol=1e-14)


def test_a_logistic_loss_does_not_overflow(comm: MPI.Comm) -> None:
    space = DensitySpace(warped_mesh(comm, 1), 1, 2)
    terminal = loss(space, kind="logistic", direction=[1e6], offset=0.0)
    assert math.isfinite(value(terminal, random_density(space, 2, 1)))


@pytest.mark.parametrize("formula", ["log(x)", "1/(label - 1)", "sqrt(x)", "exp(1e6*x**2)"])
def test_a_loss_that_is_not_finite_is_refused(comm: MPI.Comm, formula: str) -> None:
    space = DensitySpace(warped_mesh(comm, 2), 1, 2)
    with pytest.raises(InputError, match=r"^terminal: the loss"):
        loss(space, kind="expression", value=formula)


def test_a_loss_that_fails_on_one_rank_fails_on_all(comm: MPI.Comm) -> None:
    space = DensitySpace(warped_mesh(comm, 2), 1)
    with pytest.raises(InputError):
        LinearLoss(space, QuadraticLoss(np.full((1, 2), np.nan if comm.rank == comm.size - 1 else 1.0), 1.0))
