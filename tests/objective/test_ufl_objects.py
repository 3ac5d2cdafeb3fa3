"""What somebody who knows UFL tries: forms and expressions where functions are wanted, and forms without a value."""

from collections.abc import Callable
from typing import Any

from mpi4py import MPI

import pytest
import ufl
from problems import box_space

from eulerian.analysis.characteristics import verify
from eulerian.base.errors import InputError
from eulerian.bounds.certificate import certify
from eulerian.control.control import ControlProblem
from eulerian.density.shapes import Gaussian
from eulerian.density.space import DensitySpace
from eulerian.fields.mlp import Mlp
from eulerian.objective.cost_at import CostAt
from eulerian.objective.costs import Costs
from eulerian.objective.form_loss import FormLoss
from eulerian.objective.losses import FunctionLoss, QuadraticLoss
from eulerian.objective.terminal import on_mesh
from eulerian.optimise import OptimiseResult, minimise
from eulerian.transport.time_grid import TimeGrid


def square(rho: Any) -> ufl.Form:
    return rho**2 * ufl.dx


def entropy(rho: Any) -> ufl.Form:
    return rho * ufl.ln(rho) * ufl.dx


def x(space: DensitySpace) -> Any:
    return ufl.SpatialCoordinate(space.mesh)


def made(space: DensitySpace, terminal: Any, **costs: Any) -> ControlProblem:
    rho0 = Gaussian([-0.5, 0.3], std=0.4)
    return ControlProblem(space, Mlp(2, (4,)), rho0, terminal, Costs(kinetic=0.5, **costs), TimeGrid(1.0, 2))


UFL: dict[str, Callable[[DensitySpace], Any]] = {
    "expression": lambda space: x(space)[0] ** 2,
    "form": lambda space: x(space)[0] * ufl.dx,
    "function of DOLFINx": lambda space: space.project(Gaussian([0.0, 0.0], std=0.5)).to_function(),
    "function that returns a form": lambda _: lambda r: 0.5 * r**2 * ufl.dx,
    "function that returns an expression": lambda space: lambda _: x(space)[0],
    "function that calls UFL": lambda _: lambda r: ufl.ln(r),
}


@pytest.mark.parametrize("kind", UFL)
def test_ufl_where_a_function_is_wanted(comm: MPI.Comm, kind: str) -> None:
    space = box_space(comm, 2, 6, 1, size=2.0)
    for key, problem in {
        "terminal": lambda what: made(space, what),
        "terminal.loss": lambda what: on_mesh(FunctionLoss(what), space, key="terminal.loss"),
        "costs.potential": lambda what: made(space, QuadraticLoss([0.0, 0.0]), potential=what),
        "terminal.at": lambda what: on_mesh(what, space, key="terminal.at"),
    }.items():
        with pytest.raises(InputError) as caught:
            problem(UFL[kind](space))
        assert caught.value.key == key
        assert "eu.FormLoss(lambda rho" in (caught.value.remedy or "")
        assert "points x (n, dim)" in (caught.value.remedy or "")


def test_ufl_as_a_running_cost() -> None:
    for wrong in (square, 3.0):
        with pytest.raises(InputError, match="is no functional of densities") as caught:
            Costs(running=wrong)  # type: ignore[arg-type]
        assert "eu.FormLoss(lambda rho" in (caught.value.remedy or "")


def test_another_fault_is_that_of_the_function(comm: MPI.Comm) -> None:
    def wrong(_: Any) -> Any:
        raise ValueError("no such thing")

    with pytest.raises(InputError, match="fault is in the function itself"):
        made(box_space(comm, 2, 6, 1, size=2.0), wrong)


@pytest.mark.parametrize("kind", ["form", "expression"])
def test_form_loss_wants_a_function(comm: MPI.Comm, kind: str) -> None:
    space = box_space(comm, 2, 6, 1, size=2.0)
    with pytest.raises(InputError, match="is no function"):
        on_mesh(FormLoss(UFL[kind](space)), space)


def test_a_form_without_the_density(comm: MPI.Comm) -> None:
    space = box_space(comm, 2, 6, 1, size=2.0)
    with pytest.raises(InputError, match="does not occur in the form") as caught:
        made(space, FormLoss(lambda _: x(space)[0] * ufl.dx))
    assert caught.value.key == "terminal"


@pytest.mark.parametrize("key", ["terminal", "costs.running"])
def test_a_form_that_has_no_value_at_the_start(comm: MPI.Comm, key: str) -> None:
    """The field is not to blame, and a slower one does not help."""
    space, loss = box_space(comm, 2, 6, 1, size=2.0), QuadraticLoss([0.0, 0.0])
    form = FormLoss(entropy)
    problem = made(space, form) if key == "terminal" else made(space, loss, running=form)
    with pytest.raises(InputError, match="not finite for the density at the start") as caught:
        minimise(problem)
    assert caught.value.key == key
    assert "ufl.max_value(rho, 1e-12)" in (caught.value.remedy or "")
    assert "slower" not in str(caught.value)


def test_no_bound_is_known_for_a_form(comm: MPI.Comm) -> None:
    problem = made(box_space(comm, 2, 6, 1, size=2.0), FormLoss(square))
    with pytest.raises(InputError, match="no bound is known for a form: ") as caught:
        certify(problem, problem.initial_theta)
    assert "FormFunctional" not in str(caught.value)


def test_a_verification_says_each_reason_once(comm: MPI.Comm) -> None:
    space, form = box_space(comm, 2, 6, 1, size=2.0), FormLoss(square)
    costs = Costs(kinetic=0.5, running=form)
    at = [CostAt(0.5, form), CostAt(1.0, form)]
    problem = ControlProblem(space, Mlp(2, (4,)), Gaussian([0.0, 0.0], std=0.4), form, costs, TimeGrid(1.0, 2), at=at)
    found = verify(problem, problem.initial_theta)
    assert found.reason.count("what is not known") == 1
    names = ("terminal", "intermediate", "running")
    assert [found.reason.count(f"{name}, ") for name in names] == [1, 1, 1]
    assert found.reason.count("known of the density on the mesh only") == 1
    # It shows itself as its statement, in a line.
    assert repr(found) == f"Verification({' '.join(found.statement.split())})"
    assert "{" not in repr(found)


def test_what_stops_a_fast_start_has_its_names_in_python_too(comm: MPI.Comm) -> None:
    space = box_space(comm, 2, 6, 1, size=2.0)
    field = Mlp(2, (4,), zero_init=False)
    rho0, loss = Gaussian([0.0, 0.0], std=0.4), QuadraticLoss([0.0, 0.0])
    problem = ControlProblem(space, field, rho0, loss, Costs(kinetic=0.5), TimeGrid(1.0, 2, max_steps=3))
    with pytest.raises(InputError, match=r"solver\.max_steps_per_layer is 3") as caught:
        minimise(problem, 50.0 * problem.initial_theta)
    for name in ("TimeGrid(max_steps=", "eu.Mlp(max_speed=", "Costs(parameters=", "field.max_speed"):
        assert name in str(caught.value)


def test_a_failed_result_shows_its_reason() -> None:
    failed = OptimiseResult(0.0, 1.5, 0.1, 8, "failed", "the line search\nfailed")  # type: ignore[arg-type]
    assert repr(failed) == "OptimiseResult(J = 1.5, failed after 8 iterations, 0 s: the line search failed)"
