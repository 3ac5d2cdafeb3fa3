"""J for other libraries: threads that ask in any order get what they asked for, on all ranks."""

import threading
from collections.abc import Callable
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import control_problem, theta_with_layers

import eulerian as eu
from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError, InputError, RejectedEvaluation
from eulerian.control import evaluations
from eulerian.control.evaluations import Evaluations, Outcome


def in_threads(work: list[Callable[[], Any]]) -> list[Any]:
    """What each of them returns or raises; they start in this order, and run together."""
    found: list[Any] = [None] * len(work)

    def run(index: int) -> None:
        try:
            found[index] = work[index]()
        except Exception as error:  # noqa: BLE001 - looked at by the test
            found[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_threads_in_any_order(comm: MPI.Comm) -> None:
    """Every rank starts its threads in an order of its own, which no rank knows of the others."""
    problem = control_problem(comm, 2, 1, cells=4)
    theta, rho = theta_with_layers(problem), problem.initial.to_array()
    evaluate, other = Evaluations(problem), Evaluations(problem)
    factors = [1.0, 0.9, 0.8, 0.7]
    wanted = [problem.value_and_gradient(f * theta) for f in factors]
    wanted_from = [problem.value_and_gradients(f * theta, f * rho) for f in factors]

    work: list[Callable[[], Outcome]] = []
    for f in factors:
        work += [lambda f=f: evaluate(f * theta), lambda f=f: other(f * theta, f * rho)]  # type: ignore[misc]
    for repeat in range(3):
        order = np.random.default_rng([comm.rank, repeat]).permutation(len(work))
        found = dict(zip(order.tolist(), in_threads([work[index] for index in order]), strict=True))
        for index, outcome in found.items():
            assert isinstance(outcome, Outcome), outcome
            if index % 2 == 0:
                value, gradient = wanted[index // 2]
                assert outcome.by_rho0 is None
            else:
                value, gradient, by_rho = wanted_from[index // 2]
                np.testing.assert_array_equal(outcome.by_rho0, by_rho)
            assert outcome.value == value
            assert outcome.gradient is not None
            np.testing.assert_array_equal(outcome.gradient, gradient.ravel())


def test_several_problems_at_once(comm: MPI.Comm) -> None:
    """They share a communicator, so that their evaluations must not mix."""
    problems = [control_problem(comm, 2, degree, cells=4) for degree in (0, 1, 2)]
    thetas = [theta_with_layers(problem) for problem in problems]
    wanted = [problem.value_and_gradient(theta) for problem, theta in zip(problems, thetas, strict=True)]
    work = [
        lambda evaluate=evaluate, f=f, theta=theta: evaluate(f * theta)
        for evaluate, theta in zip(map(Evaluations, problems), thetas, strict=True)
        for f in (1.0, 0.9)
    ]
    for repeat in range(3):
        order = np.random.default_rng([comm.rank, repeat]).permutation(len(work))
        found = dict(zip(order.tolist(), in_threads([work[index] for index in order]), strict=True))
        for index, (value, gradient) in enumerate(wanted):
            outcome = found[2 * index]
            assert isinstance(outcome, Outcome), outcome
            assert outcome.value == value
            assert outcome.gradient is not None
            np.testing.assert_array_equal(outcome.gradient, gradient.ravel())


def test_an_error_belongs_to_the_thread_that_asked_for_it(comm: MPI.Comm) -> None:
    problem = control_problem(comm, 2, 1, cells=4)
    theta, evaluate = theta_with_layers(problem), Evaluations(problem)
    work: list[Callable[[], Outcome]] = [lambda: evaluate(theta[1:]), lambda: evaluate(theta, derivatives=False)]
    found = in_threads(work if comm.rank % 2 == 0 else work[::-1])
    wrong, value = found if comm.rank % 2 == 0 else found[::-1]
    assert isinstance(wrong, InputError)
    assert value == Outcome(problem.value(theta))


def test_rounding_between_ranks_does_not_matter(comm: MPI.Comm) -> None:
    problem = control_problem(comm, 2, 1, cells=4)
    theta = theta_with_layers(problem)
    found = Evaluations(problem)(theta * (1.0 + 1e-12 * comm.rank))
    assert found.value == problem.value(theta)


def test_who_asks_for_something_else_is_told(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank whose θ is not that of rank 0 does not wait for ever."""
    monkeypatch.setattr(evaluations, "_SECONDS", 0.2)
    problem = control_problem(comm, 2, 1, cells=4)
    theta, evaluate = theta_with_layers(problem), Evaluations(problem)
    if comm.rank == 0:
        assert evaluate(theta).value == problem.value(theta)
    else:
        with pytest.raises(ComputationError, match="asks for J at another θ than rank 0"):
            evaluate(2.0 * theta)
    comm.barrier()  # all have given up
    assert evaluate(3.0 * theta).value == problem.value(3.0 * theta)


@pytest.mark.one_process
def test_what_is_no_problem_is_refused() -> None:
    with pytest.raises(InputError, match="problem: must be a ControlProblem or a ParticleProblem"):
        Evaluations(3)


# -- SciPy -------------------------------------------------------------------------------------------------------------


def particles() -> eu.ParticleProblem:
    x = np.random.default_rng(0).normal(0.0, 0.5, (40, 2))
    costs, time = eu.Costs(kinetic=0.5, parameters=1e-3), eu.TimeGrid(1.0, 2)
    return eu.ParticleProblem(x, eu.Mlp(2, [4]), eu.QuadraticLoss([1.0, -0.5]), costs, time)


@pytest.mark.two_ranks
@pytest.mark.parametrize("method", ["L-BFGS-B", "CG", "trust-constr"])
def test_scipy_minimises(comm: MPI.Comm, method: str) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    problem = particles() if method == "CG" else control_problem(comm, 2, 1, cells=4)
    J = eu.scipy.objective(problem)
    value, gradient = J(J.x0)
    expected, slope = problem.value_and_gradient(problem.initial_theta)
    assert value == expected
    np.testing.assert_array_equal(gradient, slope.ravel())
    found = optimize.minimize(J, J.x0, jac=True, method=method, options={"maxiter": 12})
    assert found.fun < value - 0.5 * (value - eu.minimise(problem, max_iterations=12).value)
    assert problem.value(J.theta(found.x)) == found.fun
    assert all(x == found.x.tobytes() for x in comm.allgather(found.x.tobytes()))


@pytest.mark.two_ranks
@pytest.mark.parametrize("method", ["L-BFGS-B", "CG", "trust-constr"])
def test_a_rejected_evaluation_shortens_the_step(comm: MPI.Comm, method: str) -> None:
    """Steps that are far too long at first lead to where J is +∞; who starts there is told why."""
    optimize = pytest.importorskip("scipy.optimize")
    problem = control_problem(comm, 2, 1, cells=4, solver={"max_steps_per_layer": 3})
    J = eu.scipy.objective(problem)
    start, unit = problem.value(problem.initial_theta), 50.0

    def in_small_units(y: Floats) -> tuple[float, Floats]:
        value, gradient = J(unit * y)
        return value, unit * gradient

    found = optimize.minimize(in_small_units, J.x0 / unit, jac=True, method=method, options={"maxiter": 12})
    assert J.rejected == problem.rejected_evaluations > 0
    assert found.fun < 0.8 * start
    assert problem.value(J.theta(unit * found.x)) == found.fun
    with pytest.raises(RejectedEvaluation):
        eu.scipy.objective(problem)(1e9 * J.x0)


def test_particles_have_no_density_to_start_from(comm: MPI.Comm) -> None:
    problem = particles()
    for act in (problem.value_from, problem.value_and_gradients, Evaluations(problem)):
        with pytest.raises(InputError, match="rho0: this problem starts from particles"):
            act(problem.initial_theta, np.zeros((3, 3, 1)))
    assert comm.allreduce(Evaluations(problem)(problem.initial_theta).value == problem.value(problem.initial_theta))
