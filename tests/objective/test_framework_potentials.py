"""Potentials that a user writes in JAX or PyTorch, and their parameters, which are trained with θ."""

from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import box_space

from eulerian.analysis.characteristics import TrueObjective
from eulerian.analysis.characteristics import verify as verify_flow
from eulerian.analysis.verify import verify
from eulerian.base.errors import InputError
from eulerian.bounds.certificate import ideal_problem
from eulerian.control.control import ControlProblem
from eulerian.density.shapes import Gaussian
from eulerian.density.space import DensitySpace
from eulerian.fields.mlp import Mlp
from eulerian.ideal.problem import IdealProblem
from eulerian.objective.costs import Costs
from eulerian.objective.losses import CrossEntropyLoss, QuadraticLoss
from eulerian.optimise import minimise
from eulerian.particles.problem import ParticleProblem
from eulerian.particles.sample import ParticleSample
from eulerian.transport.time_grid import TimeGrid

pytestmark = pytest.mark.two_ranks

LIBRARIES = ("jax", "torch")
CENTRE = np.array([0.3, -0.2])
TIME = TimeGrid(0.5, 2)


def potentials(library: str) -> dict[str, Any]:
    """V(x) = |x − c|², c given or trained."""
    pytest.importorskip(library, reason=f'the extra "eulerian[{library}]" is not installed')
    if library == "jax":
        from jax import numpy as jnp

        from eulerian.jax import potential

        return {
            "plain": potential(lambda x: jnp.sum((x - CENTRE) ** 2)),
            "fixed": potential(lambda p, x: jnp.sum((x - p) ** 2), CENTRE, trained=False),
            "trained": potential(lambda p, x: jnp.sum((x - p) ** 2), CENTRE),
        }
    import torch

    from eulerian.torch import potential

    class Square(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centre = torch.nn.Parameter(torch.tensor(CENTRE))

        def forward(self, x: Any) -> Any:
            return ((x - self.centre) ** 2).sum(-1)

    return {
        "plain": potential(lambda x: ((x - torch.tensor(CENTRE)) ** 2).sum(-1)),
        "fixed": potential(Square(), trained=False),
        "trained": potential(Square()),
    }


@pytest.fixture(scope="module", params=LIBRARIES)
def given(request: pytest.FixtureRequest) -> dict[str, Any]:
    return potentials(request.param)


@pytest.fixture(scope="module")
def space(comm: MPI.Comm) -> DensitySpace:
    return box_space(comm, 2, 8, 1, 2, size=2.0)


START = {0: Gaussian([-0.5, 0.3], std=0.4), 1: Gaussian([0.4, 0.1], std=0.3)}
QUADRATIC = QuadraticLoss([[1.0, -0.5], [-0.25, 0.75]])
TRAINED = CrossEntropyLoss(np.array([[1.0, 0.3], [-0.4, 0.8]]), np.array([0.1, -0.2]), trained=True)


def on_mesh(space: DensitySpace, potential: Any, loss: Any = QUADRATIC, **more: Any) -> ControlProblem:
    costs = Costs(kinetic=0.5, parameters=0.1, potential=potential)
    field = Mlp(2, (5,), n_labels=2 if more.get("label_dependent") else 0, zero_init=False)
    return ControlProblem(space, field, space.project(START), loss, costs, TIME, **more)


def on_particles(potential: Any, loss: Any = QUADRATIC, method: Any = "rk4") -> ParticleProblem:
    x = np.random.default_rng(0).normal(0.0, 0.5, (60, 2))
    sample = ParticleSample.of(x, MPI.COMM_WORLD, (x[:, 0] > 0.0).astype(int))
    costs = Costs(kinetic=0.5, jacobian=0.1, parameters=0.1, potential=potential)
    return ParticleProblem(sample, Mlp(2, (5,), zero_init=False), loss, costs, TIME, method=method)


FORMULA = "(x - 0.3)**2 + (y + 0.2)**2"


@pytest.mark.parametrize("kind", ["plain", "fixed", "trained"])
def test_j_is_that_of_the_formula(space: DensitySpace, given: dict[str, Any], kind: str) -> None:
    for make in (lambda potential: on_mesh(space, potential), on_particles):
        one, other = make(given[kind]), make(FORMULA)
        theta, start = one.initial_theta, other.initial_theta
        value, gradient = one.value_and_gradient(theta)
        expected, slope = other.value_and_gradient(start)
        size = 0.1 * 0.5 * TIME.horizon * float(np.sum(theta.ravel()[start.size :] ** 2))
        assert value == pytest.approx(expected + size, rel=1e-12)
        np.testing.assert_allclose(gradient.ravel()[: start.size], slope.ravel(), rtol=1e-10, atol=1e-12)
        assert theta.size - start.size == (2 if kind == "trained" else 0)
    problem, reference = on_mesh(space, given[kind]), on_mesh(space, FORMULA)
    theirs = verify_flow(reference, reference.initial_theta)
    mine = verify_flow(problem, problem.initial_theta)
    assert mine.objective["potential"] == pytest.approx(theirs.objective["potential"], rel=1e-12)


@pytest.mark.parametrize("label_dependent", [False, True])
def test_laws_of_a_trained_potential_beside_a_trained_loss(
    space: DensitySpace, given: dict[str, Any], label_dependent: bool
) -> None:
    problem = on_mesh(space, given["trained"], TRAINED, label_dependent=label_dependent)
    assert problem.initial_theta.size == 2 * problem.layer_shape[1] + 6 + 2
    np.testing.assert_array_equal(problem.initial_theta[-2:], CENTRE)
    laws = verify(problem, problem.initial_theta, np.random.default_rng(0))
    assert min(laws.taylor_rates) >= 1.9
    # A loss that is given the parameters of both takes its own.
    reference = on_mesh(space, FORMULA, TRAINED, label_dependent=label_dependent)
    mine, theirs = (verify_flow(each, each.initial_theta).objective["terminal"] for each in (problem, reference))
    assert mine == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_particles_train_it_too(given: dict[str, Any], method: str) -> None:
    problem = on_particles(given["trained"], TRAINED, method)
    theta = problem.initial_theta
    value, gradient = problem.value_and_gradient(theta)
    steps = problem.steps
    for part in (slice(None), slice(-2, None)):
        change = np.zeros(theta.size)
        change[part] = np.random.default_rng(4).standard_normal(theta.size)[part]
        rest = [
            abs(problem.value_at_steps(theta + h * change, steps) - value - h * float(gradient @ change))
            for h in (2e-2, 1e-2, 5e-3)
        ]
        assert np.min(np.log2(np.array(rest[:-1]) / rest[1:])) >= 1.9, rest
    problem.value_and_gradient(theta)
    by_replicate = problem.gradient_by_replicate()
    np.testing.assert_allclose(by_replicate.mean(axis=0), gradient, atol=0.05)


def test_the_true_value_is_that_of_its_parameters(space: DensitySpace, given: dict[str, Any]) -> None:
    """At another θ than the first one, too; and the bound takes them as they are."""
    problem = on_mesh(space, given["trained"])
    theta = problem.initial_theta
    theta[-2:] += [0.4, 0.1]
    moved = on_mesh(space, "(x - 0.7)**2 + (y + 0.1)**2")
    for found in (problem.value(theta) - problem.parts["parameters"], TrueObjective(problem).value(theta)[0]):
        assert np.isfinite(found)
    here, there = verify_flow(problem, theta), verify_flow(moved, moved.initial_theta)
    assert here.objective["potential"] == pytest.approx(there.objective["potential"], rel=1e-12)
    again = TrueObjective(problem).value(theta)[0]
    assert again == pytest.approx(here.objective["total"], rel=5e-3)
    problem.value(theta)
    ideal, x = ideal_problem(problem), np.random.default_rng(0).standard_normal((5, 2))
    assert ideal.running is not None
    assert ideal.running.potential is not None
    np.testing.assert_allclose(ideal.running.potential(x), np.sum((x - theta[-2:]) ** 2, axis=1), rtol=1e-14)


def test_it_is_trained(space: DensitySpace, given: dict[str, Any]) -> None:
    problem = on_mesh(space, given["trained"])
    result = minimise(problem, max_iterations=10)
    assert np.linalg.norm(result.theta[-2:] - CENTRE) > 0.1
    with pytest.raises(InputError, match="not trained"):
        IdealProblem(space, space.project(START), QUADRATIC, 0.5, potential=given["trained"])
    assert IdealProblem(space, space.project(START), QUADRATIC, 0.5, potential=given["fixed"]).running is not None


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_does_not_fit_is_refused(space: DensitySpace, library: str) -> None:
    pytest.importorskip(library)
    import eulerian

    make = getattr(eulerian, library).potential
    for f, words in ((lambda x: x, "must return shape"), (lambda x: x[..., 0] * np.nan, "not finite")):
        with pytest.raises(InputError, match=words) as caught:
            on_mesh(space, make(f))
        assert caught.value.key == "costs.potential"
    with pytest.raises(InputError, match="another argument"):
        make(lambda x, label: x[..., 0] * label)
