"""The inner product of a descent: what any of them is, and that of velocities against integrals over the densities."""

import dataclasses
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import LABELLINGS, control_problem, problem_config, theta_with_layers

from eulerian.app.build.network import build, build_particles
from eulerian.app.config import parse_config
from eulerian.base.arrays import Floats
from eulerian.control import velocity_probes as probes
from eulerian.control.control import ControlProblem
from eulerian.fields.features import Affine
from eulerian.optimise import Curvature
from eulerian.optimise.metric import DAMPING, LowRankScaling, Metric, low_rank_scaling, velocity_metric
from eulerian.optimise.segment import scaled_to_first_step, scaled_to_last_pair

RNG = np.random.default_rng(0)


def some_metric() -> Metric:
    """Three rows with scalings of five parameters each, and two more that are only scaled."""
    rows = tuple(low_rank_scaling(np.random.default_rng(n).standard_normal((n, 5)), 0.3) for n in (1, 4, 9))
    return Metric(np.repeat([0.5, 2.0], [15, 2]), rows)


METRICS = {"low rank": some_metric(), "scaled": Metric(np.linspace(0.5, 2.0, 17))}


@pytest.mark.one_process
@pytest.mark.parametrize("kind", METRICS)
def test_a_variable_and_its_theta(kind: str) -> None:
    metric, theta = METRICS[kind], RNG.standard_normal(17)
    np.testing.assert_allclose(metric.theta(metric.variable(theta)), theta, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(metric.variable(metric.theta(theta)), theta, rtol=1e-12, atol=1e-13)


@pytest.mark.one_process
@pytest.mark.parametrize("kind", METRICS)
def test_a_gradient_tells_the_same_change_of_j(kind: str) -> None:
    """It is a covector: its product with a step does not depend on the variable."""
    metric, gradient, step = METRICS[kind], *RNG.standard_normal((2, 17))
    assert metric.gradient(gradient) @ metric.variable(step) == pytest.approx(gradient @ step, rel=1e-12)
    assert metric.norm(gradient) == pytest.approx(np.linalg.norm(metric.gradient(gradient)), rel=1e-14)


@pytest.mark.one_process
@pytest.mark.parametrize("kind", METRICS)
def test_another_unit(kind: str) -> None:
    metric, theta = METRICS[kind], RNG.standard_normal(17)
    np.testing.assert_allclose(metric.times(3.0).variable(theta), 3.0 * metric.variable(theta), rtol=1e-14)
    assert metric.times(3.0).norm(theta) == pytest.approx(metric.norm(theta) / 3.0, rel=1e-14)


@pytest.mark.one_process
@pytest.mark.parametrize("damping", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("m", [0, 1, 3, 6, 40], ids="{} rows".format)
def test_a_low_rank_scaling_is_the_root_of_its_matrix(m: int, damping: float) -> None:
    rows = np.random.default_rng(m).standard_normal((m, 6))
    if m > 1:
        rows[1] = rows[0]  # of less than full rank
    scaling = low_rank_scaling(rows, damping)
    matrix = rows.T @ rows / damping + np.eye(6)
    twice = np.array([scaling.apply(scaling.apply(z)) for z in np.eye(6)])
    # Eigenvalues below 1e-4 of the damping are left out, in the other case they count: 1e-4 of I at most.
    np.testing.assert_allclose(twice, matrix, rtol=1e-9, atol=1e-4)
    once = np.array([scaling.apply(z) for z in np.eye(6)])
    np.testing.assert_allclose(once, once.T, atol=1e-12 * np.abs(once).max())
    z = RNG.standard_normal(6)
    np.testing.assert_allclose(scaling.undo(scaling.apply(z)), z, rtol=1e-9, atol=1e-9)


# -- its unit --------------------------------------------------------------------------------------------------------


@pytest.mark.one_process
def test_the_unit_that_was_learnt() -> None:
    """In it the curvature along the last step is one: the slope is as long as the step would be with a unit matrix."""
    metric, hessian = some_metric(), np.diag(np.linspace(1.0, 9.0, 17))
    steps = RNG.standard_normal((3, 17))
    found = scaled_to_last_pair(metric, Curvature(steps, steps @ hessian))
    assert found.norm(steps[-1] @ hessian) ** 2 == pytest.approx(steps[-1] @ hessian @ steps[-1], rel=1e-12)
    ratio = found.variable(steps[0]) / metric.variable(steps[0])
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)  # only the unit has changed


@pytest.mark.two_ranks
@pytest.mark.parametrize("factor", [0.01, 10.0, 100.0])
def test_the_unit_of_a_first_step(comm: MPI.Comm, factor: float) -> None:
    """The step downhill would halve a quadratic of minimum zero, or change the velocity by one crossing of the box."""
    problem = control_problem(comm, 1, 1)
    theta = problem.initial_theta
    value, gradient = problem.value_and_gradient(theta)
    metric = scaled_to_first_step(problem, Metric(problem.scaling), theta, factor * value, gradient)
    step = -metric.theta(metric.gradient(gradient.ravel()))
    crossing = problem.extent / problem.horizon
    crossings = problem.velocity_change(theta, step) / crossing
    if factor == 0.01:
        assert gradient.ravel() @ step == pytest.approx(-2.0 * factor * value, rel=1e-10)
        assert crossings <= 1.0
    else:  # for such a J the step would be much too long
        assert crossings == pytest.approx(1.0, rel=0.5)  # the network is not linear in θ
        assert -2.0 * factor * value < gradient.ravel() @ step < 0.0
    again = scaled_to_first_step(problem, Metric(problem.scaling).times(7.0), theta, factor * value, gradient)
    np.testing.assert_allclose(again.scaling, metric.scaling, rtol=1e-10)


@pytest.mark.two_ranks
def test_the_unit_where_there_is_nothing_to_go_by(comm: MPI.Comm) -> None:
    problem = control_problem(comm, 1, 1)
    theta = problem.initial_theta
    for value, gradient in ((1.0, np.zeros_like(theta)), (0.0, np.ones_like(theta)), (0.0, np.zeros_like(theta))):
        metric = scaled_to_first_step(problem, Metric(problem.scaling), theta, value, gradient)
        step = metric.theta(metric.gradient(gradient.ravel()))
        assert np.all(np.isfinite(step))
        assert np.all(metric.scaling > 0.0)


# -- the metric of velocities ----------------------------------------------------------------------------------------


def quiet_problem(comm: MPI.Comm, dim: int, labelling: str, cells: int, **field: Any) -> ControlProblem:
    """A problem evaluated at a θ that differs from layer to layer."""
    problem = control_problem(comm, dim, 1, labelling, cells, field=field)
    problem.value(theta_with_layers(problem))
    return problem


def change(problem: ControlProblem, layer: int, step: Floats, x: Floats, label: int) -> Floats:
    """What a small step of θ changes in a layer's velocity at points x (n, dim), relative to the step."""
    row, h = problem.split(problem.theta)[0][layer], 1e-6
    ahead, behind = (problem.layered.value(layer, row + s * step, x, label) for s in (h, -h))
    return np.asarray((ahead - behind) / (2.0 * h))


def integral(problem: ControlProblem, step: Floats) -> float:
    """∫∫|δv|² ρ for a step of θ (flat), by quadrature of a high degree in space and the trapezium rule in time."""
    space, total = problem.density_space, 0.0
    rule = space.quadrature(8)
    points = rule.points.reshape(-1, space.dim)
    for layer, row in enumerate(problem.split(step)[0]):
        for number, group in enumerate(problem.groups):
            delta = change(problem, layer, row, points, group[0])
            square = np.sum(delta**2, axis=1).reshape(*rule.weights.shape, 1)
            ends = [problem.sweep.start(at)[number] for at in (layer, layer + 1)]
            for rho in ends:
                table = np.einsum("qi,cik->cqk", rule.basis, rho[: space.n_owned])
                total += 0.5 * float(np.einsum("cqm,cqk,cq->", square, table, rule.weights))
    return float(problem.comm.allreduce(total)) * problem.horizon / problem.n_layers


def scaled_length(problem: ControlProblem, metric: Metric, step: Floats) -> float:
    """|δθ|² in the metric, without its damping, in units of the damping."""
    plain = problem.scaling * problem.units.relative(step)
    variable = metric.variable(step)
    return float(variable @ variable - plain @ plain)


def damping(problem: ControlProblem) -> float:
    """DAMPING times the mean over the rows of the trace of the integral's matrix, per unit of time."""
    units = np.eye(problem.n_params)[: int(np.prod(problem.layer_shape))]
    units = np.array([problem.units.absolute(unit) for unit in units])
    rows = problem.layer_shape[0]
    return DAMPING * sum(integral(problem, unit) for unit in units) / rows / (problem.horizon / rows)


# Few enough cells that each of them is a probe. A cell's midpoint stands for the cell: on |δv|² of a field that bends
# little over a cell of width h that costs some h²|∇δv|², relative to |δv|²; nothing for a translation.
EXACT = {
    "translation": (2, LABELLINGS[0], 5, {"kind": "linear", "features": "translation"}, 1e-8),
    "affine": (1, LABELLINGS[0], 100, {"kind": "linear", "features": "affine"}, 3e-3),
    "network": (1, LABELLINGS[0], 100, {}, 1e-2),
    "network, tied": (1, LABELLINGS[0], 100, {"tied": True}, 1e-2),
    "two labels": (1, LABELLINGS[1], 100, {}, 1e-2),
    "a field per label": (1, LABELLINGS[2], 100, {}, 1e-2),
    "a block per label": (1, LABELLINGS[2], 100, {"kind": "linear", "features": "affine"}, 3e-3),
}


def with_field(comm: MPI.Comm, dim: int, labelling: str, cells: int, field: dict[str, Any]) -> ControlProblem:
    table = problem_config(dim, 1, labelling, cells)
    if dim == 3:  # a narrow density takes its time on large cells
        for term in table["density"]["initial"]:
            term["std"] = 0.6
    own = {"layers": 2, "horizon": 0.6, "label_dependent": labelling == LABELLINGS[2], **field}
    table["field"] = own if "kind" in own else {**table["field"], **own}
    problem = build(parse_config(table), comm)
    problem.value(theta_with_layers(problem))
    return problem


@pytest.mark.parametrize("case", EXACT)
def test_it_is_the_integral_of_the_velocity_that_changes(comm: MPI.Comm, case: str) -> None:
    *what, tolerance = EXACT[case]
    problem = with_field(comm, *what)
    metric = velocity_metric(problem)
    assert metric is not None
    unit = damping(problem)
    for step in np.random.default_rng(1).standard_normal((4, problem.n_params)):
        found = unit * scaled_length(problem, metric, step)
        assert found == pytest.approx(integral(problem, step), rel=tolerance)


def test_probes_of_many_cells_are_a_fair_sample(comm: MPI.Comm) -> None:
    """1152 cells, 128 probes: some 1/√128 = 9 % of error, and no more than four times that."""
    problem = with_field(comm, 2, LABELLINGS[0], 24, {"kind": "linear", "features": "affine"})
    metric = velocity_metric(problem)
    assert metric is not None
    unit = damping(problem)
    steps = np.random.default_rng(1).standard_normal((6, problem.n_params))
    errors = [unit * scaled_length(problem, metric, step) / integral(problem, step) - 1.0 for step in steps]
    assert 1e-4 < np.max(np.abs(errors)) < 0.36  # it is a sample
    assert abs(np.mean(errors)) < 0.2


@pytest.mark.parametrize("labelling", [LABELLINGS[0], LABELLINGS[2]])
@pytest.mark.parametrize(("dim", "cells"), [(1, 200), (2, 12), (3, 3)])
def test_the_same_on_any_number_of_ranks(comm: MPI.Comm, dim: int, cells: int, labelling: str) -> None:
    """More cells than probes, so that the draw matters; the ranks agree to the last bit."""
    together, alone = (velocity_metric(with_field(each, dim, labelling, cells, {})) for each in (comm, MPI.COMM_SELF))
    assert together is not None
    assert alone is not None
    assert len(together.rows) == 2
    steps = np.random.default_rng(1).standard_normal((3, alone.scaling.size))
    mine = [together.variable(step) for step in steps]
    assert len(set(comm.allgather(np.array(mine).tobytes()))) == 1
    np.testing.assert_allclose(mine, [alone.variable(step) for step in steps], rtol=1e-8, atol=1e-8)


def test_layers_are_probed_at_points_of_their_own(comm: MPI.Comm) -> None:
    """With one density and one θ for all layers their matrices still are different samples."""
    problem = control_problem(comm, 2, 1, cells=12, field={"zero_init": True})
    problem.value(np.tile(problem.initial_theta[0], (3, 1)))
    metric = velocity_metric(problem)
    assert metric is not None
    step = np.ones(problem.layer_shape[1])
    lengths = [np.linalg.norm(row.apply(step)) for row in metric.rows]
    assert np.min(np.diff(sorted(lengths))) > 1e-6 * lengths[0]
    assert np.ptp(lengths) < 0.3 * lengths[0]


@pytest.mark.one_process
def test_probes_estimate_the_mass_of_any_region() -> None:
    """Without bias: over 400 draws of 16 of 200 cells, whose masses spread over orders of magnitude."""
    rng = np.random.default_rng(0)
    cells, x = np.arange(200, dtype=np.uint64), rng.uniform(-1.0, 1.0, (200, 2))
    mass = np.exp(3.0 * rng.standard_normal(200))
    mass[np.argmax(mass)], mass[:3] = 0.2 * mass.sum(), 0.0
    regions = (np.full(200, True), x[:, 0] < 0.0, mass < np.median(mass))
    found: list[list[float]] = [[], [], []]
    for layer in range(400):
        probe = probes._drawn(probes._foremost(mass, cells, x, layer, 16), 16)
        assert probe.weights.shape == (16,)
        assert np.all(probe.weights > 0.0)
        for sums, region in zip(found, regions, strict=True):
            sums.append(probe.weights[np.isin(probe.x[:, 0], x[region, 0])].sum())
    for sums, region in zip(found, regions, strict=True):
        error = np.std(sums) / np.sqrt(len(sums))
        assert error < 0.5 * mass[region].sum()
        assert abs(np.mean(sums) - mass[region].sum()) < 4.0 * error


def test_a_readout_is_only_scaled(comm: MPI.Comm) -> None:
    terminal = {"kind": "cross_entropy", "trainable": True}
    problem = control_problem(comm, 1, 1, LABELLINGS[1], objective={"terminal": terminal})
    problem.value(problem.initial_theta)
    metric = velocity_metric(problem)
    assert metric is not None
    step = np.zeros(problem.n_params)
    step[-4:] = [1.0, 2.0, 3.0, 4.0]
    relative = problem.units.relative(step)
    np.testing.assert_allclose(metric.variable(step), problem.scaling * relative, rtol=1e-14)


@dataclasses.dataclass(frozen=True)
class Twice(Affine):
    """A field with a velocity of its own, so that the derivatives by θ that it inherits are not its own."""

    def value(self, theta: Floats, x: Floats, label: int | None = None) -> Floats:
        return 2.0 * super().value(theta, x, label)

    def vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        return 2.0 * super().vjp(theta, x, w, label)


def test_fields_that_do_not_tell_their_derivatives_have_none(comm: MPI.Comm) -> None:
    config = parse_config(problem_config(2, 1))
    for field, told in ((Affine(2), True), (Twice(2), False)):
        problem = build(config, comm, field)
        problem.value(problem.initial_theta)
        assert (velocity_metric(problem) is not None) == told


def test_a_free_field_has_none(comm: MPI.Comm) -> None:
    table = {**problem_config(2, 1), "field": {"kind": "free", "layers": 2}}
    problem = build(parse_config(table), comm)
    problem.value(problem.initial_theta)
    assert velocity_metric(problem) is None


def test_particles_have_none(comm: MPI.Comm) -> None:
    table = problem_config(1, 1, objective={"congestion": 0.0, "entropy": 0.0}, particles={"count": 16})
    problem = build_particles(parse_config(table), comm)
    problem.value(problem.initial_theta)
    assert velocity_metric(problem) is None


def test_large_networks_have_fewer_probes_and_very_large_ones_none(
    comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = quiet_problem(comm, 2, LABELLINGS[2], 12)
    whole = velocity_metric(problem)
    point = 8 * 2 * 2 * problem.n_params  # bytes of the derivatives at one point
    monkeypatch.setattr(probes, "_LARGEST", 16 * point)
    few = velocity_metric(problem)
    assert whole is not None
    assert few is not None
    assert not np.allclose(whole.variable(np.ones(problem.n_params)), few.variable(np.ones(problem.n_params)))
    # 16 probes × 2 components × 2 labels span fewer directions than there are parameters.
    assert max(row.factors.size for row in few.rows) <= 64
    monkeypatch.setattr(probes, "_LARGEST", 16 * point - 1)
    assert velocity_metric(problem) is None


@pytest.mark.one_process
def test_a_scaling_without_directions_does_nothing() -> None:
    z = RNG.standard_normal(4)
    scaling = LowRankScaling(np.empty((4, 0)), np.empty(0))
    np.testing.assert_array_equal(scaling.apply(z), z)
    np.testing.assert_array_equal(scaling.undo(z), z)
