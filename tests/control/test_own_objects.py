"""Problems made in Python of what a user has in hand, without a configuration."""

from collections.abc import Callable
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import box_space, control_problem

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.control.control import ControlProblem
from eulerian.density.density import Density
from eulerian.density.shapes import Gaussian
from eulerian.density.space import DensitySpace
from eulerian.fields.features import Translation
from eulerian.fields.mlp import Mlp
from eulerian.objective.costs import Costs
from eulerian.objective.distances import FixedDensity, KullbackLeibler, SquaredDistance
from eulerian.objective.losses import QuadraticLoss
from eulerian.transport.time_grid import TimeGrid

TIME = TimeGrid(0.5, 2)
TARGET = np.array([0.5, -0.25])


@pytest.fixture(scope="module")
def space(comm: MPI.Comm) -> DensitySpace:
    return box_space(comm, 2, 10, 1)


def start(space: DensitySpace) -> Density:
    return Density.of(space, Gaussian([-0.5, 0.3], std=0.5))


def quadratic(x: Floats) -> Floats:
    return np.asarray(0.5 * ((x - TARGET) ** 2).sum(axis=1))


def test_a_function_costs_what_the_loss_does(space: DensitySpace) -> None:
    """Also where the rest is given in other ways: shapes, functions, formulas."""
    potential: dict[str, Any] = {"potential": lambda x: x[:, 0] ** 2}
    field = Mlp(2, (6,), zero_init=False)
    one = ControlProblem(space, field, start(space), quadratic, Costs(kinetic=0.5, **potential), TIME)
    shape = Gaussian([-0.5, 0.3], std=0.5)
    other = ControlProblem(space, field, shape, QuadraticLoss(TARGET), Costs(kinetic=0.5, potential="x**2"), TIME)

    value, gradient = one.value_and_gradient(one.initial_theta)

    expected, slope = other.value_and_gradient(other.initial_theta)
    assert value == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(gradient, slope, rtol=1e-10, atol=1e-13)
    assert one.parts["potential"] > 0.0
    assert one.describe()["mesh"]["dimension"] == 2
    assert one.headline.startswith("200 cells in 2-D, density of degree 1, 1 label; Mlp field, 2 layers")
    assert repr(one) == f"ControlProblem({one.headline})"
    assert repr(space) == "DensitySpace(200 cells in 2-D, degree 1, 1 label)"


def test_labels_have_losses_of_their_own(comm: MPI.Comm) -> None:
    line = box_space(comm, 1, 20, 1, 2)
    rho0 = Density.of(line, {0: Gaussian([-1.0], std=0.4), 1: Gaussian([1.0], std=0.4)}, masses=[0.7, 0.3])
    goals = (1.0, -1.0)
    function = ControlProblem(line, Mlp(1, (4,)), rho0, lambda x, label: 0.5 * (x[:, 0] - goals[label]) ** 2)
    loss = ControlProblem(line, Mlp(1, (4,)), rho0, QuadraticLoss([[goal] for goal in goals]))
    assert function.value(function.initial_theta) == pytest.approx(loss.value(loss.initial_theta), rel=1e-13)


def test_a_field_starts_at_random_the_same_everywhere(space: DensitySpace) -> None:
    """Every layer alike, as configurations have it."""
    field = Mlp(2, (6,), zero_init=False)
    problem = ControlProblem(space, field, start(space), quadratic, Costs(), TIME, seed=5)
    expected = field.init(np.random.default_rng(5))
    np.testing.assert_array_equal(problem.initial_theta, [expected, expected])
    assert ControlProblem(space, field, start(space), quadratic, time=TIME, tied=True).initial_theta.shape[0] == 1
    given = ControlProblem(space, Translation(2), start(space), quadratic, time=TIME, initial_theta=[0.1, 0.2])
    np.testing.assert_array_equal(given.initial_theta, [[0.1, 0.2], [0.1, 0.2]])


@pytest.mark.parametrize("distance", [KullbackLeibler, SquaredDistance])
@pytest.mark.parametrize("by_flow", [True, False])
def test_distances_from_a_density(space: DensitySpace, distance: Any, by_flow: bool) -> None:
    """Nothing moves, so little is missed of the distance from itself: what diffusion does in the smoothed flux."""
    terminal = distance(Gaussian([-0.5, 0.3], std=0.5)) if by_flow else distance(start(space), "density")
    problem = ControlProblem(space, Translation(2), start(space), terminal, Costs(), TIME)
    assert problem.value(problem.initial_theta) == pytest.approx(0.0, abs=5e-2 if by_flow else 1e-4)
    assert problem.terminal.logarithmic == (distance is KullbackLeibler)


def test_a_density_without_a_past_is_taken_as_it_is(space: DensitySpace) -> None:
    bare = Density(space, start(space).coefficients)
    costs = Costs(congestion=0.1, entropy=0.1)
    known, unknown = (
        ControlProblem(space, Translation(2), rho, quadratic, costs, TIME) for rho in (start(space), bare)
    )
    assert unknown.value(unknown.initial_theta) == pytest.approx(known.value(known.initial_theta), rel=2e-2)


Wrong = dict[str, tuple[Callable[[DensitySpace], dict[str, Any]], str, str]]

WRONG: Wrong = {
    "field of another dimension": (lambda _: {"field": Mlp(3, (4,))}, "field", "dimension 3"),
    "no field": (lambda _: {"field": "mlp"}, "field", "is no VectorField"),
    "labels of the field": (lambda _: {"field": Mlp(2, (4,), n_labels=2)}, "field", "2 labels"),
    "density of another space": (lambda s: {"rho0": start(box_space(s.comm, 2, 4, 1))}, "rho0", "another space"),
    "labels of the density": (lambda _: {"rho0": {1: Gaussian([0.0, 0.0], std=1.0)}}, "rho0", "label"),
    "no density": (lambda _: {"rho0": 3.0}, "rho0", "density"),
    "no terminal cost": (lambda _: {"terminal": 3.0}, "terminal", "terminal cost"),
    "target of another dimension": (lambda _: {"terminal": QuadraticLoss([0.0])}, "terminal.target", "dimension 2"),
    "a constraint": (lambda s: {"terminal": FixedDensity(start(s))}, "terminal.kind", "exactly"),
    "infinite loss": (lambda _: {"terminal": lambda x: np.full(len(x), np.inf)}, "terminal", "not finite"),
    "costs of another kind": (lambda _: {"costs": {"kinetic": 1.0}}, "costs", "Costs"),
    "infinite potential": (
        lambda _: {"costs": Costs(potential=lambda x: np.full(len(x), np.nan))},
        "costs.potential",
        "not finite",
    ),
    "no potential": (lambda _: {"costs": Costs(potential=3.0)}, "costs.potential", "neither a formula"),  # type: ignore[arg-type]
    "no time": (lambda _: {"time": 1.0}, "time", "TimeGrid"),
    "form": (lambda _: {"entropy_form": "exact"}, "entropy_form", "not known"),
    "θ of another size": (lambda _: {"initial_theta": np.zeros((3, 2))}, "initial_theta", r"\(2, 2\)"),
    "θ that is not finite": (lambda _: {"initial_theta": [np.nan, 0.0]}, "initial_theta", "not finite"),
    "tied rows that differ": (lambda _: {"initial_theta": [[0, 0], [1, 0]], "tied": True}, "initial_theta", "differ"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_everywhere(space: DensitySpace, case: str) -> None:
    change, key, words = WRONG[case]
    given = {"field": Translation(2), "rho0": start(space), "terminal": quadratic, "time": TIME} | change(space)
    with pytest.raises(InputError, match=words) as caught:
        ControlProblem(space, **given)
    assert (caught.value.key or "").startswith(key)


@pytest.mark.parametrize("weight", [-1.0, np.inf, np.nan, "much"])
def test_weights_are_numbers(weight: Any) -> None:
    with pytest.raises(InputError) as caught:
        Costs(kinetic=weight)
    assert caught.value.key == "costs.kinetic"


def test_a_configuration_goes_through_the_same_door(comm: MPI.Comm) -> None:
    """What it names differently it is told by its own names."""
    with pytest.raises(InputError, match="not finite") as caught:
        control_problem(comm, 2, 1, objective={"potential": "log(x)"})
    assert caught.value.key == "objective.potential"
    with pytest.raises(InputError, match="not finite") as caught:
        control_problem(comm, 2, 1, objective={"terminal": {"kind": "expression", "value": "log(x)"}})
    assert caught.value.key == "objective.terminal"
