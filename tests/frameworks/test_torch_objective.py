"""J as a function of PyTorch: the problem's bits, in every form of θ, in both arguments, trained by its optimisers."""

import copy
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import LABELLINGS, control_problem, theta_with_layers

import eulerian as eu
from eulerian.base.errors import InputError

torch = pytest.importorskip("torch", reason='the extra "eulerian[torch]" is not installed')

from torch import nn  # noqa: E402

TRAINED = {"kind": "cross_entropy", "trainable": True}
LAYERS = 3


def mlp(seed: int = 0) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2)).double()


def problem_of(comm: MPI.Comm, module: Any) -> eu.ControlProblem:
    space = eu.DensitySpace(eu.box_mesh([-2.0, -2.0], [2.0, 2.0], [6, 6], comm=comm), degree=1)
    rho = space.project(eu.Gaussian([-0.5, 0.3], std=0.4))
    costs, time = eu.Costs(kinetic=0.3, congestion=0.1, parameters=1e-3), eu.TimeGrid(0.5, LAYERS)
    field = eu.torch.torch_field(module, normalised=False)
    return eu.ControlProblem(space, field, rho, eu.QuadraticLoss([1.0, -0.5]), costs, time)


def tensor(array: Any) -> Any:
    return torch.from_numpy(np.array(array)).requires_grad_()


@pytest.mark.parametrize("labelling", LABELLINGS[:2])
def test_the_problems_own_bits(comm: MPI.Comm, labelling: str) -> None:
    tables = {"objective": {"terminal": TRAINED}} if labelling == LABELLINGS[1] else {}
    problem = control_problem(comm, 2, 1, labelling, cells=4, **tables)
    J, theta, rho = eu.torch.objective(problem), tensor(theta_with_layers(problem)), tensor(problem.initial.to_array())
    value, gradient = problem.value_and_gradient(theta.detach().numpy())
    found = J(theta)
    (3.0 * found).backward()
    assert found.item() == value
    np.testing.assert_array_equal(theta.grad.numpy(), 3.0 * gradient)
    value, *both = problem.value_and_gradients(theta.detach().numpy(), rho.detach().numpy())
    found = J(theta, rho)
    by_theta, by_rho = torch.autograd.grad(found, (theta, rho))
    assert found.item() == value
    np.testing.assert_array_equal(by_theta.numpy(), both[0])
    np.testing.assert_array_equal(by_rho.numpy(), both[1])
    assert J(theta.detach(), rho.float().detach()).item() == pytest.approx(value, rel=1e-5)
    if labelling == LABELLINGS[1]:
        start = J.initial_theta
        np.testing.assert_array_equal(torch.cat([start["layers"].ravel(), start["readout"]]), problem.initial_theta)
        parts = {"layers": start["layers"], "readout": [start["readout"][:4].reshape(2, 2), start["readout"][4:]]}
        assert J(parts).item() == problem.value(problem.initial_theta)
        np.testing.assert_array_equal(J.theta(parts), problem.initial_theta)


def test_modules_and_their_parameters(comm: MPI.Comm) -> None:
    """One module per layer, parameters by name with an axis of layers, a tensor: the same J and gradient."""
    problem = problem_of(comm, mlp())
    J, layers = eu.torch.objective(problem), nn.ModuleList(mlp(seed) for seed in range(LAYERS))
    theta = np.stack([eu.torch.torch_field(each).init(np.random.default_rng()) for each in layers])
    value, gradient = problem.value_and_gradient(theta)
    found = J(layers)
    found.backward()
    assert found.item() == value
    rows = [np.concatenate([p.grad.numpy().ravel() for p in each.parameters()]) for each in layers]
    np.testing.assert_array_equal(np.stack(rows), gradient)
    stacked, _ = torch.func.stack_module_state(list(layers))
    slopes = torch.func.grad(J)({name: p.detach() for name, p in stacked.items()})
    np.testing.assert_array_equal(slopes["0.weight"].reshape(LAYERS, -1).numpy(), gradient[:, :12])
    assert J([dict(each.named_parameters()) for each in layers]).item() == value
    assert J(J.initial_theta).item() == problem.value(problem.initial_theta)
    for form in (layers, stacked, torch.from_numpy(theta)):
        np.testing.assert_array_equal(J.theta(form), theta)
    np.testing.assert_array_equal(J.theta(J.initial_theta), problem.initial_theta)
    with torch.no_grad():
        assert not J(layers).requires_grad
    rows = torch.stack([torch.from_numpy(f * theta) for f in (1.0, 0.5)])
    np.testing.assert_array_equal(torch.func.vmap(J)(rows), [problem.value(row) for row in rows.numpy()])


@pytest.mark.two_ranks
@pytest.mark.parametrize("optimiser", ["Adam", "LBFGS"])
def test_optimisers_of_torch_train(comm: MPI.Comm, optimiser: str) -> None:
    problem = problem_of(comm, mlp())
    J, layers = eu.torch.objective(problem), nn.ModuleList(copy.deepcopy(mlp()) for _ in range(LAYERS))
    settings: dict[str, Any] = {"lr": 3e-2} if optimiser == "Adam" else {"line_search_fn": "strong_wolfe"}
    descent = getattr(torch.optim, optimiser)(layers.parameters(), **settings)
    first = J(layers).item()

    def closure() -> Any:
        descent.zero_grad()
        value = J(layers)
        value.backward()
        return value

    for _ in range(25 if optimiser == "Adam" else 1):
        descent.step(closure)
    best = eu.minimise(problem, max_iterations=20).value
    assert J(layers).item() < best + 0.5 * (first - best)


def test_where_j_cannot_be_evaluated(comm: MPI.Comm) -> None:
    problem = control_problem(comm, 2, 1, cells=4)
    theta = tensor(1e9 * theta_with_layers(problem))
    value = eu.torch.objective(problem)(theta)
    value.backward()
    assert value.item() == np.inf
    assert not theta.grad.any()


def test_second_derivatives_are_an_error(comm: MPI.Comm) -> None:
    problem = control_problem(comm, 2, 1, cells=4)
    J, theta = eu.torch.objective(problem), tensor(theta_with_layers(problem))

    def slope_of_square(t: Any) -> Any:
        return torch.autograd.grad(J(t) ** 2, t, create_graph=True)[0]

    for twice in (
        lambda: torch.autograd.functional.hessian(J, theta.detach()),
        lambda: torch.autograd.grad(slope_of_square(theta).sum(), theta),
        lambda: torch.func.grad(lambda t: torch.func.grad(J)(t).sum())(theta.detach()),
    ):
        with pytest.raises(InputError, match="J has no second derivatives"):
            twice()


def test_what_is_no_theta_or_density_is_refused(comm: MPI.Comm) -> None:
    problem = problem_of(comm, mlp())
    J, theta = eu.torch.objective(problem), torch.from_numpy(problem.initial_theta)
    for wrong, message in (
        (theta[1:], "3 layers of 32 parameters are needed"),
        ({"layers": theta, "readout": torch.zeros(2)}, "3 layers of 32 parameters are needed"),
        ([mlp()] * 2, "3 layers of 32 parameters are needed"),
        (dict(mlp().named_parameters()), "the parameter 0.weight needs an axis of layers"),
        ({"weights": theta}, "the module has no parameter 0.bias"),
        ("theta", "must be a tensor"),
    ):
        with pytest.raises(InputError, match=f"theta: {message}"):
            J(wrong)
    with pytest.raises(InputError, match="rho0: coefficients of all cells"):
        J(theta, torch.zeros(3, 3, 1))


def test_particles(comm: MPI.Comm) -> None:
    x = np.random.default_rng(0).normal(0.0, 0.5, (40, 2))
    time, loss = eu.TimeGrid(1.0, 2), eu.QuadraticLoss([1.0, -0.5])
    problem = eu.ParticleProblem(x, eu.Mlp(2, [4]), loss, eu.Costs(kinetic=0.5), time, comm=comm)
    J, theta = eu.torch.objective(problem), tensor(problem.initial_theta)
    value = J(theta)
    value.backward()
    assert value.item() == problem.value(problem.initial_theta)
    np.testing.assert_array_equal(theta.grad.numpy(), problem.value_and_gradient(problem.initial_theta)[1])
    with pytest.raises(InputError, match="rho0: this problem starts from particles"):
        J(theta, torch.zeros(3, 3, 1))
