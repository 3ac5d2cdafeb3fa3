"""Losses at points that a user writes in JAX or PyTorch: as the built-in ones, with derivatives to rounding."""

from collections.abc import Callable
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import box_space

from eulerian.analysis.characteristics import verify as verify_flow
from eulerian.analysis.verify import verify
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.control.control import ControlProblem
from eulerian.density.shapes import Gaussian
from eulerian.density.space import DensitySpace
from eulerian.fields.features import Affine
from eulerian.fields.mlp import Mlp
from eulerian.objective.costs import Costs
from eulerian.objective.framework import FrameworkLoss
from eulerian.objective.losses import QuadraticLoss
from eulerian.optimise import minimise
from eulerian.particles.problem import ParticleProblem
from eulerian.particles.sample import ParticleSample
from eulerian.transport.time_grid import TimeGrid

pytestmark = pytest.mark.two_ranks

TARGETS = np.array([[1.0, -0.5], [-0.25, 0.75]])
LIBRARIES = ("jax", "torch")
TIME = TimeGrid(0.5, 2)

type Losses = dict[str, FrameworkLoss]


def jax_losses() -> Losses:
    """The quadratic loss to the first target, or to one for each label, in many ways."""
    equinox = pytest.importorskip("equinox")
    from jax import numpy as jnp

    from eulerian.jax import point_loss

    class Distance(equinox.Module):
        targets: Any
        power: int = 2

        def __call__(self, x: Any, label: Any) -> Any:
            return 0.5 * jnp.sum((x - self.targets[label]) ** self.power)

    targets = TARGETS.astype(np.float32)
    return {
        "plain": point_loss(lambda x: 0.5 * jnp.sum((x - TARGETS[0]) ** 2)),
        "batched": point_loss(lambda x: 0.5 * jnp.sum((x - TARGETS[0]) ** 2, axis=-1), batched=True),
        "by label": point_loss(lambda x, label: 0.5 * jnp.sum((x - jnp.asarray(TARGETS)[label]) ** 2)),
        "fixed": point_loss(
            lambda p, x, label: 0.5 * p["w"] * jnp.sum((x - p["t"][label]) ** 2),
            {"t": targets, "w": 1.0},
            trained=False,
        ),
        "trained": point_loss(
            lambda p, x, label: 0.5 * p["w"] * jnp.sum((x - p["t"][label]) ** 2), {"t": targets, "w": 1.0}
        ),
        "module": point_loss(Distance(jnp.asarray(targets))),
    }


def torch_losses() -> Losses:
    torch = pytest.importorskip("torch", reason='the extra "eulerian[torch]" is not installed')
    from eulerian.torch import point_loss

    targets = torch.tensor(TARGETS)

    class Distance(torch.nn.Module):
        def __init__(self, *, weighted: bool) -> None:
            super().__init__()
            self.targets = torch.nn.Parameter(targets.float())
            self.weight = torch.nn.Parameter(torch.tensor(1.0), requires_grad=weighted)

        def forward(self, x: Any, label: int) -> Any:
            return 0.5 * self.weight * ((x - self.targets[label]) ** 2).sum(-1)

    return {
        "plain": point_loss(lambda x: 0.5 * ((x - targets[0]) ** 2).sum(-1)),
        "batched": point_loss(lambda x: 0.5 * ((x - targets[0]) ** 2).sum(), batched=False),
        "by label": point_loss(lambda x, label: 0.5 * ((x - targets[label]) ** 2).sum(-1)),
        "fixed": point_loss(Distance(weighted=True), trained=False),
        "trained": point_loss(Distance(weighted=True)),
        "module": point_loss(Distance(weighted=False)),
    }


@pytest.fixture(scope="module", params=LIBRARIES)
def losses(request: pytest.FixtureRequest) -> Losses:
    return {"jax": jax_losses, "torch": torch_losses}[request.param]()


KINDS = ("plain", "batched", "by label", "fixed", "trained", "module")
TRAINED = ("trained", "module")


@pytest.mark.one_process
@pytest.mark.parametrize("kind", KINDS)
def test_a_quadratic_loss_is_the_built_in_one(losses: Losses, kind: str) -> None:
    """Also of no points, and of more than are computed at a time."""
    loss = losses[kind].bind(2, 2)
    one = kind in ("plain", "batched")
    built_in = QuadraticLoss(TARGETS[0] if one else TARGETS).bind(2, 2)
    for n in (0, 1, 2, 5000):
        x, w = np.random.default_rng(n).standard_normal((n, 2)), np.random.default_rng(n + 1).standard_normal((n, 2))
        readout = loss.initial_readout()
        np.testing.assert_allclose(loss.value(x, readout), built_in.value(x, readout), rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(loss.gradient(x, readout), built_in.gradient(x, readout), rtol=1e-14, atol=1e-14)
        assert loss.readout_vjp(x, readout, w).shape == (loss.n_readout,)
    assert loss.n_readout == {"trained": 5, "module": 4}.get(kind, 0)


@pytest.mark.one_process
@pytest.mark.parametrize("kind", TRAINED)
def test_derivatives_by_the_parameters(losses: Losses, kind: str) -> None:
    """The loss is a polynomial of degree 3 in them: differences of fourth order have no error but rounding."""
    loss, rng = losses[kind].bind(2, 2), np.random.default_rng(0)
    x, w = rng.standard_normal((9, 2)), rng.standard_normal((9, 2))
    readout = loss.initial_readout() + rng.standard_normal(loss.n_readout)

    slope = loss.readout_vjp(x, readout, w)

    def cost(shift: Floats) -> float:
        return float(np.vdot(w, loss.value(x, readout + shift)))

    for k, step in enumerate(0.1 * np.eye(loss.n_readout)):
        expected = (8.0 * (cost(step) - cost(-step)) - (cost(2.0 * step) - cost(-2.0 * step))) / 1.2
        assert slope[k] == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_parameters_come_back_in_the_users_form(losses: Losses) -> None:
    function: Any = losses["module"].function
    numbers = np.arange(4.0)
    module = function.params(numbers) if hasattr(function, "params") else function.module(numbers)
    assert module.targets.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert str(module.targets.dtype).endswith("float32")


# -- in problems -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def space(comm: MPI.Comm) -> DensitySpace:
    return box_space(comm, 2, 8, 1, 2, size=2.0)


START = {0: Gaussian([-0.5, 0.3], std=0.4), 1: Gaussian([0.4, 0.1], std=0.3)}


def on_mesh(space: DensitySpace, loss: Any, **more: Any) -> ControlProblem:
    costs = Costs(kinetic=0.5, parameters=0.1)
    return ControlProblem(space, Mlp(2, (5,), zero_init=False), space.project(START), loss, costs, TIME, **more)


def on_particles(loss: Any) -> ParticleProblem:
    x = np.random.default_rng(0).normal(0.0, 0.5, (60, 2))
    sample = ParticleSample.of(x, MPI.COMM_WORLD, (x[:, 0] > 0.0).astype(int))
    return ParticleProblem(sample, Mlp(2, (5,), zero_init=False), loss, Costs(kinetic=0.5, parameters=0.1), TIME)


@pytest.mark.parametrize("kind", ["plain", "by label", "trained"])
def test_j_is_that_of_the_built_in_loss(space: DensitySpace, losses: Losses, kind: str) -> None:
    """On meshes, on particles, and along characteristics; parameters count in the cost of θ's size."""
    built_in = QuadraticLoss(TARGETS[0] if kind == "plain" else TARGETS)
    for make in (lambda loss: on_mesh(space, loss), on_particles):
        one, other = make(losses[kind]), make(built_in)
        theta, start = one.initial_theta, other.initial_theta
        value, gradient = one.value_and_gradient(theta)
        expected, slope = other.value_and_gradient(start)
        readout = theta.ravel()[start.size :]
        size = 0.1 * 0.5 * TIME.horizon * float(np.sum(readout**2))
        assert value == pytest.approx(expected + size, rel=1e-12)
        np.testing.assert_allclose(gradient.ravel()[: start.size], slope.ravel(), rtol=1e-10, atol=1e-12)
    problem, reference = on_mesh(space, losses[kind]), on_mesh(space, built_in)
    mine = verify_flow(problem, problem.initial_theta)
    theirs = verify_flow(reference, reference.initial_theta)
    assert mine.objective["terminal"] == pytest.approx(theirs.objective["terminal"], rel=1e-12)
    assert not mine.reason


@pytest.mark.parametrize("kind", ["plain", "trained", "module"])
def test_gradients_are_exact_in_theta_and_in_the_parameters(space: DensitySpace, losses: Losses, kind: str) -> None:
    for problem in (on_mesh(space, losses[kind]), on_particles(losses[kind])):
        theta = problem.initial_theta
        for part in (slice(None), slice(theta.size - losses[kind].n_readout, None)):
            if part.start == theta.size:
                continue
            _, gradient = problem.value_and_gradient(theta)
            step = np.zeros(theta.size)
            step[part] = np.random.default_rng(4).standard_normal(theta.size)[part]
            rest = []
            for h in (2e-2, 1e-2, 5e-3):
                fixed = problem.steps
                moved = theta + (h * step).reshape(theta.shape)
                ahead = problem.value_at_steps(moved, fixed)
                base, _ = problem.value_and_gradient(theta)
                rest.append(abs(ahead - base - h * float(np.vdot(gradient, step))))
            assert np.min(np.log2(np.array(rest[:-1]) / rest[1:])) >= 1.9, rest


def test_laws_of_a_trained_loss(space: DensitySpace, losses: Losses) -> None:
    problem = on_mesh(space, losses["trained"], label_dependent=False)
    laws = verify(problem, problem.initial_theta, np.random.default_rng(0))
    assert min(laws.taylor_rates) >= 1.9


def test_parameters_are_trained(space: DensitySpace, losses: Losses) -> None:
    """Beside a field with units of its own, too: the box's are those of affine readouts only."""
    costs = Costs(kinetic=0.5, parameters=1e-3)
    for field in (Mlp(2, (5,)), Affine(2)):
        problem = ControlProblem(space, field, space.project(START), losses["module"], costs, TIME)
        start = problem.value(problem.initial_theta)
        result = minimise(problem, max_iterations=15)
        assert result.value < 0.5 * start
        # The targets go to where the labels are.
        readout = result.theta.ravel()[-4:].reshape(2, 2)
        means = problem.statistics.mean
        assert np.linalg.norm(readout - means) < 0.5 * np.linalg.norm(TARGETS - [[-0.5, 0.3], [0.4, 0.1]])


# -- refusals --------------------------------------------------------------------------------------------------------


def raising(_: Any) -> Any:
    raise ValueError("no such point")


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "raises": (lambda: raising, "raised ValueError: no such point"),
    "vector": (lambda: lambda x: x, "must return shape"),
    "nothing": (lambda: lambda _: None, "it returned NoneType"),
    "integers": (lambda: lambda x: x[..., 0] > 0, "floating-point"),
    "not finite": (lambda: lambda x: x[..., 0] * np.nan, "not finite"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("library", LIBRARIES)
def test_what_a_function_returns_is_looked_at(space: DensitySpace, library: str, case: str) -> None:
    pytest.importorskip(library)
    import eulerian

    function, words = WRONG[case]
    with pytest.raises(InputError, match=words) as caught:
        on_mesh(space, getattr(eulerian, library).point_loss(function()))
    assert caught.value.key == "terminal"
    assert caught.value.remedy


@pytest.mark.parametrize("library", LIBRARIES)
def test_points_must_not_influence_one_another(space: DensitySpace, library: str) -> None:
    pytest.importorskip(library)
    import eulerian

    with pytest.raises(InputError, match="depend on that point only"):
        on_mesh(space, getattr(eulerian, library).point_loss(lambda x: x[:, 0] - x[:, 0].mean(), batched=True))


@pytest.mark.one_process
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("f", [3.0, lambda: 0.0, lambda x, label, more: x + label + more])
def test_what_is_no_function_of_points(library: str, f: Any) -> None:
    pytest.importorskip(library)
    import eulerian

    with pytest.raises(InputError):
        getattr(eulerian, library).point_loss(f)


@pytest.mark.one_process
def test_parameters_of_jax_are_floating_point() -> None:
    pytest.importorskip("jax")
    from eulerian.jax import point_loss

    for params in ({"power": 2}, np.arange(3), np.array([np.nan])):
        with pytest.raises(InputError) as caught:
            point_loss(lambda p, x: p * x[0], params)
        assert caught.value.key == "params"
        assert caught.value.remedy


@pytest.mark.one_process
def test_a_function_that_leaves_pytorch_is_refused() -> None:
    pytest.importorskip("torch")
    import torch

    from eulerian.torch import point_loss

    loss = point_loss(lambda x: torch.tensor(x.detach().numpy()[:, 0] ** 2)).bind(2, 1)
    with pytest.raises(InputError, match="leaves PyTorch"):
        loss.gradient(np.random.default_rng(0).standard_normal((4, 2)), np.zeros(0))


@pytest.mark.one_process
def test_the_bound_of_a_trained_loss_is_that_of_its_parameters(space: DensitySpace, losses: Losses) -> None:
    from eulerian.ideal.problem import IdealProblem

    with pytest.raises(InputError, match="not trained"):
        IdealProblem(space, space.project(START), losses["trained"], 0.5)
    problem = IdealProblem(space, space.project(START), losses["fixed"], 0.5)
    assert problem.functional.loss is not None
