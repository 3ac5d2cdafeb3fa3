"""Functionals of the density that a user writes: of its values, of values at sensors, and as forms of UFL."""

import json
import math
from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Any

from mpi4py import MPI

import dolfinx
import numpy as np
import pytest
import ufl
from problems import box_space, random_density, random_rows, warped_mesh

from eulerian.analysis.characteristics import TrueObjective
from eulerian.analysis.characteristics import verify as verify_flow
from eulerian.analysis.verify import verify
from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.bounds.certificate import certify
from eulerian.control.control import ControlProblem
from eulerian.density.shapes import Gaussian
from eulerian.density.space import DensitySpace
from eulerian.fields.features import Linear
from eulerian.fields.mlp import Mlp
from eulerian.ideal.problem import IdealProblem
from eulerian.objective.cost_at import CostAt
from eulerian.objective.costs import Costs
from eulerian.objective.distances import KullbackLeibler, SquaredDistance
from eulerian.objective.form_loss import FormLoss
from eulerian.objective.terminal import Terminal, on_mesh
from eulerian.particles.problem import ParticleProblem
from eulerian.transport.time_grid import TimeGrid

jnp: Any = pytest.importorskip("jax.numpy")

from eulerian.jax import density_loss, sensor_loss  # noqa: E402

NOTHING = np.zeros(0)
SENSORS = [[0.0, 0.0], [0.5, 0.25], [-0.37, 0.11]]  # a vertex of a box mesh, a facet, and a point inside of a cell


def summed(space: DensitySpace, local: float) -> float:
    return float(parallel.sum_all(space.comm, np.array([local]))[0])


def slope(space: DensitySpace, derivative: Floats, change: Floats) -> float:
    return summed(space, float(np.vdot(derivative, change[: space.n_owned])))


def square_jumps(rho: Any) -> ufl.Form:
    """Terms on cells, inner facets and the boundary, of two labels."""
    return (
        ufl.avg(rho[1]) * ufl.jump(rho[0]) ** 2 * ufl.dS
        + rho[1] ** 3 * ufl.ds(domain=rho[1].function_space.mesh)
        + rho[0] ** 2 * ufl.SpatialCoordinate(rho[0].function_space.mesh)[0] * ufl.dx
    )


COSTS: dict[str, Callable[[], Any]] = {
    "values": lambda: density_loss(lambda x, rho: jnp.sin(x[0]) * rho[0] ** 2 + jnp.exp(-rho[0]) * rho[1]),
    "trained values": lambda: density_loss(lambda p, x, rho: (rho[0] - p[0] * x[0] - p[1]) ** 2, np.array([0.3, 0.1])),
    "sensors": lambda: sensor_loss(lambda values: jnp.sum(values[:, 0] * values[:, 1]) ** 2, SENSORS),
    "trained sensors": lambda: sensor_loss(lambda p, values: jnp.sum((values - p) ** 2), SENSORS, np.full((3, 2), 0.2)),
    "form": lambda: FormLoss(square_jumps),
}


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("kind", COSTS)
def test_derivatives(comm: MPI.Comm, kind: str, degree: int) -> None:
    """By the coefficients and by the parameters, against differences."""
    space = DensitySpace(warped_mesh(comm, 2), degree, 2)
    terminal = on_mesh(COSTS[kind](), space)
    # A density > 0, for the quadrature counts values below zero as zero.
    rho, change, readout = random_density(space, 2, 1), 1e-2 * random_rows(space, 2, 2), terminal.initial_readout()
    rho[:, 0] += 3.0
    rng = np.random.default_rng(5)
    by_readout = rng.standard_normal(readout.size)

    at = terminal.evaluate(rho, readout)

    assert at.density.shape == (space.n_owned, space.nd, 2)
    expected = slope(space, at.density, change) + float(at.readout @ by_readout)
    h = 5e-2

    def ahead(steps: float) -> float:
        return terminal.evaluate(rho + steps * h * change, readout + steps * h * by_readout).value

    found = (8.0 * (ahead(1.0) - ahead(-1.0)) - (ahead(2.0) - ahead(-2.0))) / (12.0 * h)
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-9)


# -- as the built-in ones --------------------------------------------------------------------------------------------


def plane(x: Any) -> Any:
    """A density on the square of side 4 that polynomials of degree 1 hold exactly."""
    return (2.0 + 0.3 * x[..., 0] - 0.2 * x[..., 1]) / 32.0


def same(space: DensitySpace, one: Terminal, other: Terminal, rtol: float) -> None:
    rho = space.project([Gaussian([-0.5, 0.3], std=0.6)]).coefficients
    mine, theirs = one.evaluate(rho, NOTHING), other.evaluate(rho, NOTHING)
    assert mine.value == pytest.approx(theirs.value, rel=rtol)
    np.testing.assert_allclose(mine.density, theirs.density, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("batched", [True, False])
def test_relative_entropy_as_a_function_of_the_density(comm: MPI.Comm, batched: bool) -> None:
    space = box_space(comm, 2, 8, 1, size=2.0)
    floor = space.floor

    def f(x: Any, rho: Any) -> Any:
        target, value = plane(x), rho[..., 0]
        return (value + floor) * (jnp.log(value + floor) - jnp.log(target + floor)) - value + target

    built_in = on_mesh(KullbackLeibler(lambda x: plane(x), form="density"), space)
    same(space, on_mesh(density_loss(f, batched=batched), space), built_in, 1e-11)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_squared_distance_as_a_form(comm: MPI.Comm, dim: int, degree: int) -> None:
    space = DensitySpace(warped_mesh(comm, dim), degree, 2)
    target = space.project({y: Gaussian([0.1 - 0.2 * y] * dim, std=0.5) for y in range(2)})
    functions = [target.to_function(label) for label in range(2)]
    built_in = on_mesh(SquaredDistance(target, form="density"), space)
    form = on_mesh(
        FormLoss(lambda rho: sum(0.5 * (a - b) ** 2 for a, b in zip(rho, functions, strict=True)) * ufl.dx), space
    )
    rho = random_density(space, 2, 3)
    mine, theirs = form.evaluate(rho, NOTHING), built_in.evaluate(rho, NOTHING)
    assert mine.value == pytest.approx(theirs.value, rel=1e-12)
    np.testing.assert_allclose(mine.density, theirs.density, rtol=1e-11, atol=1e-14)


def test_a_form_of_one_label_takes_a_function(comm: MPI.Comm) -> None:
    space = box_space(comm, 2, 8, 1, size=2.0)
    target = space.project(lambda x: plane(x))
    function = target.to_function()
    built_in = on_mesh(SquaredDistance(target, form="density"), space)
    same(space, on_mesh(FormLoss(lambda rho: 0.5 * (rho - function) ** 2 * ufl.dx), space), built_in, 1e-12)


def test_sensors_see_the_density(comm: MPI.Comm) -> None:
    """As the density itself answers at points; where cells meet, the mean of theirs."""
    space = box_space(comm, 2, 8, 2, size=2.0)
    rho = space.project(Gaussian([-0.2, 0.3], std=0.6))
    inside = np.random.default_rng(0).uniform(-1.9, 1.9, (40, 2))
    terminal = on_mesh(sensor_loss(lambda values: values[:, 0] @ jnp.arange(40.0), inside), space)
    assert terminal.evaluate(rho.coefficients, NOTHING).value == pytest.approx(rho(inside)[:, 0] @ np.arange(40.0))
    at_vertex = on_mesh(sensor_loss(lambda values: values[0, 0], [[0.0, 0.0]]), space)
    corners = space.vertex_values(rho.coefficients)[..., 0]
    there = np.all(np.abs(space.vertices) < 1e-12, axis=2)
    total, count = (summed(space, float(each)) for each in (corners[there].sum(), there.sum()))
    assert count >= 4
    assert at_vertex.evaluate(rho.coefficients, NOTHING).value == pytest.approx(total / count, rel=1e-12)


# -- in problems -----------------------------------------------------------------------------------------------------


def problem(space: DensitySpace, terminal: Any, **more: Any) -> ControlProblem:
    starts = {0: Gaussian([-0.5, 0.3], std=0.5), 1: Gaussian([0.4, 0.1], std=0.6)}
    rho0 = {label: starts[label] for label in range(space.n_labels)}
    labels = space.n_labels if more.get("label_dependent") else 0
    field = Mlp(2, (5,), n_labels=labels, zero_init=False)
    costs = Costs(kinetic=0.5, parameters=0.1)
    return ControlProblem(space, field, rho0, terminal, costs, TimeGrid(0.5, 2), **more)


@pytest.mark.parametrize("label_dependent", [True, False])
@pytest.mark.parametrize("kind", COSTS)
def test_gradients_are_exact(comm: MPI.Comm, kind: str, label_dependent: bool) -> None:
    space = box_space(comm, 2, 6, 1, 2, size=2.0)
    made = problem(space, COSTS[kind](), label_dependent=label_dependent)
    laws = verify(made, made.initial_theta, np.random.default_rng(0))
    assert len(laws.taylor_rates) >= 3
    assert min(laws.taylor_rates) >= 1.9, laws
    assert made.initial_theta.size == 2 * made.layer_shape[1] + made.terminal.initial_readout().size


STD, SCALE, SHIFT = (0.5, 0.6), (0.8, -0.3), (0.4, 0.2)


def affine_problem(
    space: DensitySpace, terminal: Any, label_dependent: bool, layers: int = 2, **more: Any
) -> tuple[ControlProblem, list[Gaussian]]:
    """v = A x + b with diagonal A, which keeps densities normal, and ρ(T), T = 1/4 of the number of layers."""
    labels = space.n_labels if label_dependent else 0
    rate = [np.array(SCALE) * (1.0 - 0.5 * label * label_dependent) for label in range(max(labels, 1))]
    theta = np.concatenate([np.concatenate([np.diag(each).ravel(), SHIFT]) for each in rate])
    means = [np.array([-0.5, 0.3]), np.array([0.4, 0.1])][: space.n_labels]
    rho0 = {label: Gaussian(mean, std=STD[label]) for label, mean in enumerate(means)}
    made = ControlProblem(
        space,
        Linear(2, "affine", n_labels=labels),
        rho0,
        terminal,
        Costs(),
        TimeGrid(0.25 * layers, layers),
        initial_theta=theta,
        label_dependent=label_dependent,
        **more,
    )
    ends = []
    for label, mean in enumerate(means):
        a = rate[label if label_dependent else 0]
        growth = np.exp(0.25 * layers * a)
        ends.append(Gaussian(growth * mean + (growth - 1.0) / a * SHIFT, np.diag((growth * STD[label]) ** 2)))
    return made, ends


@pytest.mark.two_ranks
@pytest.mark.parametrize("label_dependent", [True, False])
def test_the_true_value_is_known(comm: MPI.Comm, label_dependent: bool) -> None:
    """∫ρ_aρ_b of normal densities is a normal density at the distance of their means."""
    space = box_space(comm, 2, 14, 1, 2, size=4.0)

    def product(one: Gaussian, other: Gaussian) -> float:
        both = np.asarray(one.covariance) + np.asarray(other.covariance)
        return float(Gaussian(one.mean, both).values(np.asarray(other.mean)[None])[0])

    for f in (
        lambda x, rho: rho[0] * rho[1] + 0.5 * rho[1] ** 2 + 0.0 * x[0],
        lambda x, rho: rho[0] * rho[1] + 0.5 * rho[1] ** 2 + 1.0 + x[0] * rho[0],  # with a value where no mass is
    ):
        made, ends = affine_problem(space, density_loss(f), label_dependent)
        more = 64.0 + 0.5 * float(np.asarray(ends[0].mean)[0]) if f(np.zeros(2), np.zeros(2)) else 0.0
        expected = 0.25 * product(*ends) + 0.125 * product(ends[1], ends[1]) + more
        found = verify_flow(made, made.initial_theta)
        assert not found.reason
        assert found.objective["terminal"] == pytest.approx(expected, rel=2e-3)
        assert found.own_error < 5e-3
        again, why = TrueObjective(made).value(made.initial_theta)
        assert not why
        assert again == pytest.approx(expected, rel=1e-2)


@pytest.mark.two_ranks
@pytest.mark.parametrize("label_dependent", [True, False])
def test_the_true_value_at_sensors_is_known(comm: MPI.Comm, label_dependent: bool) -> None:
    space = box_space(comm, 2, 10, 1, 2, size=4.0)
    terminal = sensor_loss(lambda values: jnp.sum(values[:, 0] ** 2 + 3.0 * values[:, 1]), SENSORS)
    made, ends = affine_problem(space, terminal, label_dependent)
    values = [0.5 * end.values(np.array(SENSORS)) for end in ends]
    expected = float(np.sum(values[0] ** 2 + 3.0 * values[1]))
    found = verify_flow(made, made.initial_theta)
    assert not found.reason
    assert found.objective["terminal"] == pytest.approx(expected, rel=1e-4)
    assert TrueObjective(made).value(made.initial_theta)[0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.two_ranks
@pytest.mark.parametrize("label_dependent", [True, False])
def test_the_true_value_at_an_earlier_time_is_known(comm: MPI.Comm, label_dependent: bool) -> None:
    """As at the end of a flow that is as long; parameters of several costs stand in the order of time."""
    space = box_space(comm, 2, 10, 1, 2, size=4.0)
    costs = [
        density_loss(lambda p, x, rho: p * rho[0] * rho[1] + 0.1 * x[0] ** 2, 0.7),
        sensor_loss(lambda p, values: jnp.sum((values - p) ** 2), SENSORS, np.full(2, 0.2)),
    ]
    late = costs[::-1]
    for cost, last in zip(costs, late, strict=True):
        made, _ = affine_problem(space, last, label_dependent, at=[CostAt(0.25, cost, weight=2.0)])
        short, _ = affine_problem(space, cost, label_dependent, layers=1)
        found = verify_flow(made, made.initial_theta)
        expected = verify_flow(short, short.initial_theta).objective["terminal"]
        assert not found.reason
        assert found.objective["intermediate"] == pytest.approx(2.0 * expected, rel=1e-10)
        laws = verify(made, made.initial_theta, np.random.default_rng(0))
        assert min(laws.taylor_rates) >= 1.9


def test_of_a_form_no_true_value_is_known(comm: MPI.Comm) -> None:
    space = box_space(comm, 2, 6, 1, size=2.0)
    made = problem(space, FormLoss(lambda rho: rho**2 * ufl.dx))
    found = verify_flow(made, made.initial_theta)
    assert math.isnan(found.objective["terminal"])
    assert math.isfinite(found.objective["kinetic"])
    assert "terminal, because it is a form" in found.reason
    assert "form" in (TrueObjective(made).obstacle or "")


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["values", "sensors", "form"])
def test_who_cannot_have_them(comm: MPI.Comm, kind: str) -> None:
    space = box_space(comm, 2, 6, 1, 2, size=2.0)
    rho0 = space.project({0: Gaussian([-0.5, 0.3], std=0.5), 1: Gaussian([0.4, 0.1], std=0.6)})
    x = np.random.default_rng(0).standard_normal((20, 2))
    with pytest.raises(InputError, match="not how dense they are") as caught:
        ParticleProblem(x, Mlp(2, (4,)), COSTS[kind](), Costs(), TimeGrid(1.0, 2))
    assert caught.value.key == "terminal"
    assert caught.value.remedy
    with pytest.raises(InputError, match="conjugate"):
        IdealProblem(space, rho0, COSTS[kind](), 0.5)
    made = problem(space, COSTS[kind]())
    with pytest.raises(InputError, match="no bound is known"):
        certify(made, made.initial_theta)


def raising(_: Any) -> Any:
    raise ValueError("no such thing")


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "logarithm": (lambda: density_loss(lambda x, rho: rho[0] * jnp.log(rho[0]) + x[0]), "not finite where the density"),
    "root": (lambda: density_loss(lambda x, rho: jnp.sqrt(rho[0]) + x[0]), "no finite derivative where the density"),
    "pole": (lambda: density_loss(lambda x, rho: rho[0] / (rho[0] - 1.0 / 32.0) + x[0]), "not finite in the domain"),
    "all labels": (lambda: density_loss(lambda x, rho: rho + x[0]), "must return shape"),
    "mixing": (lambda: density_loss(lambda x, rho: rho[:, 0] * x.mean(), batched=True), "depend on that point only"),
    "one argument": (lambda: density_loss(lambda x: x[0]), "cannot be called"),
    "many values": (lambda: sensor_loss(lambda values: values[:, 0], SENSORS), "must return shape"),
    "raising": (lambda: sensor_loss(raising, SENSORS), "raised ValueError"),
    "outside": (lambda: sensor_loss(lambda values: values.sum(), [[0.0, 0.0], [5.0, 0.0]]), "outside the domain"),
    "coordinates": (lambda: sensor_loss(lambda values: values.sum(), [[0.0]]), "dimension 2"),
    "no points": (lambda: sensor_loss(lambda values: values.sum(), []), "shape"),
    "form that raises": (lambda: FormLoss(raising), "raised ValueError"),
    "no form": (lambda: FormLoss(lambda rho: rho[0]), "must return a form"),
    "no function": (lambda: FormLoss(3.0), "no function"),  # type: ignore[arg-type]
    "form with arguments": (
        lambda: FormLoss(lambda rho: ufl.TestFunction(rho[0].function_space) * rho[0] * ufl.dx),
        "test or trial",
    ),
    "form on another mesh": (
        lambda: FormLoss(
            lambda _: dolfinx.fem.Constant(dolfinx.mesh.create_unit_interval(MPI.COMM_WORLD, 9), 1.0) * ufl.dx
        ),
        "another mesh",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(comm: MPI.Comm, case: str) -> None:
    space = box_space(comm, 2, 6, 1, 2, size=2.0)
    make, words = WRONG[case]
    rho = random_density(space, 2, 0)
    with pytest.raises(InputError, match=words) as caught:
        on_mesh(make(), space).evaluate(rho, NOTHING)
    assert (caught.value.key or "").split(".")[0] in ("terminal", "points")
    assert caught.value.remedy


# -- on ranks --------------------------------------------------------------------------------------------------------

JOB = """
import json
from mpi4py import MPI
import numpy as np
import ufl
from jax import numpy as jnp
import eulerian as eu
from eulerian.jax import density_loss, point_loss, sensor_loss

comm = MPI.COMM_WORLD
space = eu.DensitySpace(eu.box_mesh([-2.0, -2.0], [2.0, 2.0], [6, 6]), 1, labels=2)
rho0 = space.project({0: eu.Gaussian([-0.5, 0.3], std=0.5), 1: eu.Gaussian([0.4, 0.1], std=0.6)})
costs = {
    "points": point_loss(lambda p, x, label: (1.0 + label) * jnp.sum((x - p) ** 2), np.array([1.0, 0.5])),
    "values": density_loss(lambda p, x, rho: (rho[0] - p * x[0]) ** 2 * (1.0 + rho[1]), 0.3),
    "sensors": sensor_loss(lambda p, v: jnp.sum((v - p) ** 2), [[0.0, 0.0], [0.5, 0.25], [-2.0, 2.0]], 0.2),
    "form": eu.FormLoss(lambda rho: ufl.jump(rho[0]) ** 2 * ufl.avg(rho[1]) * ufl.dS + rho[0] ** 2 * ufl.dx),
}
for name, cost in costs.items():
    field = eu.Mlp(2, [5], zero_init=False)
    problem = eu.ControlProblem(space, field, rho0, cost, eu.Costs(kinetic=0.5), eu.TimeGrid(0.5, 2))
    value, gradient = problem.value_and_gradient(problem.initial_theta)
    mine = (value, gradient.tobytes())
    assert all(other == mine for other in comm.allgather(mine)), "ranks differ"
    true = eu.verify(problem, problem.initial_theta).objective["terminal"]
    if comm.rank == 0:
        print("RESULT", json.dumps([value, gradient.ravel().tolist(), None if name == "form" else true]))
"""


@pytest.mark.mpi
def test_one_two_and_three_ranks_agree(mpirun: Callable[..., CompletedProcess[str]]) -> None:
    runs = []
    for ranks in (1, 2, 3):
        done = mpirun(ranks, JOB, timeout=240)
        assert done.returncode == 0, done.stderr
        runs.append([json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT")])
    assert len(runs[0]) == 4
    for other in runs[1:]:
        for (value, gradient, true), (its, slope_, real) in zip(runs[0], other, strict=True):
            assert its == pytest.approx(value, rel=1e-11)
            np.testing.assert_allclose(slope_, gradient, rtol=1e-9, atol=1e-11)
            assert (real is None) == (true is None)
            assert true is None or real == pytest.approx(true, rel=1e-9)
