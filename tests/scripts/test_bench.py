"""The benchmarks in ``scripts/bench``: goals and tables by themselves, and every measurement once at tiny sizes."""

import importlib
import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import environment, run_group
from paths import PACKAGE, SCRIPTS

from eulerian.fields.frame import Frame, NormalisedField
from eulerian.fields.mlp import Mlp
from eulerian.fields.piecewise import PiecewiseField

pytestmark = pytest.mark.mpi  # benchmarks start jobs of their own

BENCH = SCRIPTS / "bench"
needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None or importlib.util.find_spec("optax") is None, reason="needs JAX and optax"
)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """A function that imports a file of the benchmarks as they import one another."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module
    for path in BENCH.glob("*.py"):
        sys.modules.pop(path.stem, None)


def started(name: str, case: dict[str, Any], *, ranks: int = 1, **more: str) -> dict[str, Any]:
    """What a worker answers in a process of its own."""
    job = ["mpiexec", "-n", str(ranks)] if ranks > 1 else []
    command = [*job, sys.executable, "-m", "mpi4py", str(BENCH / f"{name}.py"), "--worker", json.dumps(case)]
    done = run_group(command, 120, BENCH, {**environment(), **more})
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("answer: "))
    found: dict[str, Any] = json.loads(line.removeprefix("answer: "))
    return found


# -- goals, rows, tables ---------------------------------------------------------------------------------------------


def test_verdicts(bench: Callable[[str], Any]) -> None:
    suite = bench("suite")
    few, many = suite.at_most(2.0), suite.at_least(10.0)
    assert [suite.Row("x", value, few).verdict for value in (1.9, 2.0, 2.1)] == ["met", "met", "not met"]
    assert [suite.Row("x", value, many).verdict for value in (9.9, 10.0)] == ["not met", "met"]
    assert suite.Row("x", 3.0).verdict == ""
    assert suite.Row("x", None, few).verdict == "not measured"
    assert suite.Row("x", None, few, missed=True).verdict == "not met"  # out of reach is no excuse


def test_rows_survive_json_and_the_table_shows_goals(
    bench: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    suite = bench("suite")
    rows = [
        suite.Row("speed", 1.5, suite.at_least(1.7), "×", "two ranks"),
        suite.Row("size", None, None, note="no file"),
    ]
    report = suite.Report()
    report.add("ratio", [3.0, 1.0, 1800.0], suite.at_most(2.0))
    rows += report.rows
    documents = json.loads(json.dumps([row.document() for row in rows]))
    assert [suite.Row.of(document) for document in documents] == rows
    suite.print_table(documents)
    lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["speed", "1.5 ×", "≥ 1.7", "not met", "two ranks"]
    assert "not measured" in lines[3]
    assert "| 3 (1 … 1,800) | ≤ 2 " in lines[4]  # the median, and the range


def test_actions_take_turns_and_ratios_are_taken_run_by_run(bench: Callable[[str], Any]) -> None:
    suite = bench("suite")
    order: list[str] = []
    seconds = suite.in_turns(2, lambda: order.append("a"), lambda: order.append("b"))
    assert order == ["a", "b"] * 3  # one that is not counted
    assert [len(each) for each in seconds] == [2, 2]
    assert suite.ratios([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]) == [2.0, 3.0, 4.0]
    assert suite.slope([1.0, 2.0, 4.0], [3.0, 12.0, 48.0]) == pytest.approx(2.0)


def test_a_worker_that_fails_becomes_a_row_with_its_reason(bench: Callable[[str], Any]) -> None:
    suite = bench("suite")
    report, runner = suite.Report(), suite.Runner(BENCH / "labels.py")
    case = {"cells": 4, "degree": 7, "labels": 2, "runs": 1}
    assert runner.attempt(report, "eight labels", case, suite.at_most(5.5)) == {}
    (row,) = report.rows
    assert (row.value, row.verdict) == (None, "not measured")
    assert "Error" in row.note


# -- the measurements, at sizes where their times mean nothing -------------------------------------------------------


@pytest.mark.parametrize(("dim", "degree", "cells"), [(2, 0, 16), (2, 1, 16), (2, 2, 8), (3, 1, 6)])
def test_step_counts_are_what_was_asked_for(bench: Callable[[str], Any], dim: int, degree: int, cells: int) -> None:
    problem = bench("cases").problem(cells, dim=dim, degree=degree, layers=2, steps=12)
    problem.value(problem.initial_theta)
    assert all(8 <= count <= 16 for count in problem.steps)


def test_gradient_and_a_busy_limiter(bench: Callable[[str], Any]) -> None:
    work = bench("gradient").work
    calm = work(cells=12, dim=2, degree=1, islands=False, runs=1, steps=4)
    busy = work(cells=12, dim=2, degree=1, islands=True, runs=1, steps=4)
    assert calm["dofs"] == 12 * 12 * 2 * 3
    assert calm["ratios"][0] > 1.0
    assert 0.3 < busy["limited"] < 1.0


def test_the_bare_products_are_the_operator(bench: Callable[[str], Any]) -> None:
    from eulerian.transport.operator import TransportOperator

    cases, product = bench("cases"), bench("product")
    problem = cases.problem(6, degree=1)
    space = problem.density_space
    operator = TransportOperator(space, problem.velocity_space, 1, problem.smoothing)
    operator.assemble(problem.layered.value(0, problem.initial_theta[0], problem.velocity_space.x))
    rho = np.random.default_rng(0).standard_normal(problem.initial_density.shape)
    expected = operator.apply(rho)
    for matrix in product.matrices(operator, space):
        x, y = matrix.createVecRight(), matrix.createVecLeft()
        x.array_w[:] = rho.ravel()
        matrix.mult(x, y)
        np.testing.assert_allclose(y.array_r, expected.ravel(), atol=1e-11)
        for thing in (matrix, x, y):
            thing.destroy()


def test_product_counts_bytes(bench: Callable[[str], Any]) -> None:
    found = bench("product").work(cells=6, dim=2, degree=1, runs=1, steps=4, triad_mib=1)
    cells, inner = 72, 3 * 72 - 24  # facets of cells that have a neighbour
    assert found["bytes"]["AIJ"] == 12 * 9 * (cells + inner) + 20 * 3 * cells
    assert found["bytes"]["BAIJ"] == (8 * 9 + 4) * (cells + inner) + 4 * cells + 16 * 3 * cells
    assert found["bytes"]["stage"] == cells * (8 * 3 * 2.25 + 3 * (16 * 2 + 4 * 2) + 8 * 2 * 3)
    assert all(found[key] > 0.0 for key in ("stage", "AIJ", "BAIJ", "apply", "triad_bytes_per_second"))


def test_layer_labels_and_memory(bench: Callable[[str], Any]) -> None:
    found = bench("layer").work(kind="operator", cells=6, dim=2, degree=1, runs=1, steps=4)
    assert 0.0 < found["shares"][0] < 100.0
    assert 0.0 < bench("layer").work(kind="network", cells=6, runs=1, layers=2)["shares"][0] < 100.0
    assert bench("labels").work(cells=6, degree=1, labels=3, runs=1)["gradient"][0] > 0.5
    size = {"cells": 8, "degree": 1, "steps": 64}
    everything = bench("memory").work(kind="stored", **size)
    found = bench("memory").work(kind="ratio", **size, memory=everything["bytes"] / 10, runs=1)
    assert found["same"]
    assert bench("memory").work(kind="alone", **size, memory=everything["bytes"] / 10)["kept"] < everything["bytes"] / 5


def test_a_large_gradient_in_small() -> None:
    case = {"cells": 6, "memory": 2.0**26, "steps": 4, "runs": 1, "triad_mib": 1}
    found = started("large", case, ranks=2)
    assert found["dofs"] == 6 * 6**3 * 4
    assert found["gradient"] > found["forward"] > 0.0
    assert found["moved"] > 8 * 3 * found["dofs"] * found["steps"]
    assert 0.0 < found["busy"] < 1.5
    tight = started("large", {**case, "steps": 32, "memory": 3 * found["all_bytes"]}, ranks=2)
    assert tight["again"] > 0


def test_messages_are_counted(bench: Callable[[str], Any], tmp_path: Path) -> None:
    ranks = bench("ranks")
    library = str(ranks.counter(tmp_path))
    case = {"kind": "count", "cells": 8, "dim": 2, "degree": 1}
    found = started("ranks", case, ranks=2, LD_PRELOAD=library, **{ranks.VARIABLE: library})
    assert found["neighbours"] == 1.0
    for sweep in ("forward", "reverse"):
        assert found[sweep]["step"]["messages"] == pytest.approx(found["stages"])  # one to the one neighbour
        assert found[sweep]["step"]["message_bytes"] >= 16 * found["stages"]
        assert found[sweep]["step"]["collectives"] == pytest.approx(0.0)


def test_a_counter_that_counts_nothing_is_refused(bench: Callable[[str], Any], tmp_path: Path) -> None:
    ranks = bench("ranks")
    library = str(ranks.counter(tmp_path))
    case = json.dumps({"kind": "count", "cells": 4, "dim": 2, "degree": 1})
    command = ["mpiexec", "-n", "2", sys.executable, "-m", "mpi4py", str(BENCH / "ranks.py"), "--worker", case]
    done = run_group(command, 60, BENCH, {**environment(), ranks.VARIABLE: library})  # not loaded before MPI
    assert done.returncode != 0
    assert "not in their way" in done.stderr


@pytest.mark.parametrize("degree", [1, 2])
def test_a_tape_of_forms_has_the_same_gradient(bench: Callable[[str], Any], degree: int) -> None:
    found = bench("adjoint").work(kind="tape", cells=4, degree=degree, layers=2, steps=3, runs=1)
    assert found["value_error"] < 1e-11
    assert found["gradient_error"] < 1e-10


@pytest.mark.skipif(importlib.util.find_spec("dolfinx_adjoint") is None, reason="needs dolfinx-adjoint")
def test_dolfinx_adjoint_has_the_same_gradient() -> None:
    case = {"kind": "dolfinx-adjoint", "cells": 4, "degree": 1, "layers": 2, "steps": 3, "runs": 1}
    assert started("adjoint", case)["gradient_error"] < 1e-10


def test_the_convex_solver(bench: Callable[[str], Any]) -> None:
    found = bench("ideal").work(vertices=9, slabs=5, repeats=1)
    assert found["status"] == "converged"
    assert found["primal"] >= found["dual"]
    assert found["sections"]["iterations"] > 0.0


def test_levels_are_compared_by_the_true_j(bench: Callable[[str], Any]) -> None:
    levels = bench("levels")
    rows = [{"total": total, "seconds": float(second)} for second, total in enumerate([3.0, 0.5, 2.0, 1.0])]
    assert levels.seconds_to(rows, 1.5) == 1.0
    assert levels.seconds_to(rows, 0.4) is None
    found = levels.work("Gaussian to a point", cells=16, iterations=4, levels=2)["rows"]
    assert {row["level"] for row in found} == {1, 2}
    assert {row["level"] for row in levels.on_finest(found)} == {2}
    assert found[0]["seconds"] > 0.0
    assert levels.lowest(found) < 1.0 < found[0]["total"]


# -- particles -------------------------------------------------------------------------------------------------------


@needs_jax
@pytest.mark.parametrize("layers", [0, 3])
def test_particles_cost_what_their_flow_costs(bench: Callable[[str], Any], layers: int) -> None:
    jax_particles, true_cost = bench("jax_particles"), bench("true_cost")
    import jax

    jax.config.update("jax_enable_x64", True)
    task = jax_particles.Task(means=((-0.5, 0.3),), std=0.5, targets=((1.0, -0.5),), layers=layers)
    theta = 0.7 * np.random.default_rng(0).standard_normal(task.start().shape)
    cost = jax_particles.cost_of(task, jax_particles.Setting("", "lbfgs", 1024, steps=24))
    z = jax_particles.normal_points(1024, seed=12345)[None]
    expected = true_cost.true_cost(task, theta, points=1024)
    assert float(cost(jax.numpy.array(theta), z)) == pytest.approx(expected, rel=5e-5)


@needs_jax
def test_two_ways_to_the_density_of_particles(bench: Callable[[str], Any]) -> None:
    particles = bench("jax_particles")
    import jax

    jax.config.update("jax_enable_x64", True)
    task = particles.Task(means=((0.0, 0.0),), std=0.5, congestion=1.0, kinetic=0.0, layers=2)
    rest, z = jax.numpy.zeros_like(task.start()), particles.normal_points(1024, seed=0)[None]
    values = {
        density: float(particles.cost_of(task, particles.Setting("", "lbfgs", 1024, density=density))(rest, z))
        for density in ("divergence", "kernels")
    }
    exact = 0.5 / (4.0 * math.pi * 0.25)  # ½∫ρ²
    assert values["divergence"] == pytest.approx(exact, rel=1e-2)
    assert values["kernels"] == pytest.approx(exact, rel=0.2)
    assert values["kernels"] < values["divergence"]  # a bandwidth smears


@needs_jax
def test_depth_behind_walls(bench: Callable[[str], Any]) -> None:
    particles, rooms = bench("jax_particles"), bench("density_costs").ROOMS
    points = np.array([[-2.0, 0.0], [0.0, 0.0], [0.0, 0.4], [0.0, 1.0], [3.5, 0.0], [2.0, 1.4]])
    depths = np.asarray(particles.depth(points, (rooms,)))
    np.testing.assert_allclose(depths, [0.0, 0.0, 0.15, 0.6, 0.5, 0.2], atol=1e-6)


@needs_jax
def test_tuned_particles_find_the_optimum() -> None:
    setting = {"name": "", "method": "lbfgs", "samples": 128}
    case = {"kind": "jax", "task": "Gaussian to a point", "layers": 4, "setting": setting, "seconds": 0.5}
    found = started("particles", case)
    assert found["lowest"] < 0.1
    assert found["gaps"][0][1] > found["lowest"] > -0.02


@needs_jax
def test_training_keeps_every_iterate(bench: Callable[[str], Any]) -> None:
    training, particles = bench("training"), bench("particles")
    task = particles.TASKS["Gaussian to a point"]
    config = training.configuration(task, training.box((-2.4, -2.4), (2.4, 2.4), 6), 1, 2, iterations=3)
    for section in (None, {"count": 64, "replicates": 2}):
        run = training.train(config, particles=section)
        assert len(run.trace) == 4
        assert [seconds for seconds, _ in run.trace] == sorted(seconds for seconds, _ in run.trace)
        gaps = [gap for _, gap in particles.gaps(task, run)["gaps"]]
        assert gaps[-1] < gaps[0]


@needs_jax
@pytest.mark.parametrize("labels", [1, 2])
def test_networks_in_a_box_and_in_plain_coordinates_are_the_same(bench: Callable[[str], Any], labels: int) -> None:
    training, jax_particles = bench("training"), bench("jax_particles")
    task = jax_particles.Task(means=((0.0, 0.0),) * labels, std=0.1, hidden=5, layers=3)
    frame = Frame.of_box([-0.2, 0.1], [1.2, 0.9], horizon=0.5)
    mlp = Mlp(2, hidden=(5,), n_labels=labels if labels > 1 else 0, zero_init=False)
    theta = np.array([mlp.init(np.random.default_rng(seed)) for seed in range(3)])
    plain = training.in_plain_coordinates(task, theta, frame)
    x, label = np.random.default_rng(1).standard_normal((7, 2)), None if labels == 1 else 1
    for framed, bare in zip(theta, plain, strict=True):
        expected = NormalisedField(mlp, frame).value(framed, x, label)
        np.testing.assert_allclose(mlp.value(bare, x, label), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(training.in_frame(task, plain, frame), theta, rtol=1e-12, atol=1e-14)


@needs_jax
def test_a_training_is_worth_what_it_says(bench: Callable[[str], Any]) -> None:
    name = "Gaussian to a point"
    found = bench("particles").on_mesh(name, cells=12, degree=2, layers=2, levels=1, iterations=12)
    assert 0.0 < found["lowest"] < 0.05


@needs_jax
def test_exact_values(bench: Callable[[str], Any]) -> None:
    particles, density_costs, true_cost = bench("particles"), bench("density_costs"), bench("true_cost")
    values = [true_cost.ideal_cost(task) for task in particles.TASKS.values()]
    np.testing.assert_allclose(values, [0.565, 0.1 * 2.0 / 2.1 / 2.0 * 0.18], rtol=1e-12)
    exact = density_costs.exact(density_costs.TASKS["KL to a Gaussian"])
    assert exact == pytest.approx(0.578910535, abs=1e-8)
    assert density_costs.exact(density_costs.TASKS["congestion"]) is None


@needs_jax
def test_densities_are_valued_on_a_finer_mesh(bench: Callable[[str], Any]) -> None:
    density_costs = bench("density_costs")
    found = density_costs.on_mesh("L² to five modes", cells=6, degree=1, levels=1, iterations=2, fine=8)
    values = [value for _, value in found["values"]]
    assert values[-1] < values[0]


# -- likelihood ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["moons", "8 Gaussians", "pinwheel", "checkerboard"])
def test_points_are_drawn_from_the_density_that_is_told(bench: Callable[[str], Any], name: str) -> None:
    kind = bench("point_sets").KINDS[name]
    x = kind.draw(20_000, 5)
    side = np.linspace(-8.0, 8.0, 802)[1:-1]  # not on the edges of the checkerboard's fields
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    near = (np.abs(grid) <= 1.1 * np.abs(x).max(axis=0)).all(axis=1)
    grid, area = grid[near], (side[1] - side[0]) ** 2
    logs = kind.log_density(grid)
    rho = area * np.exp(logs)
    assert rho.sum() == pytest.approx(1.0, abs=0.02)
    rho /= rho.sum()
    mean = rho @ grid
    covariance = (rho[:, None] * (grid - mean)).T @ (grid - mean)
    std = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=4.0 * std.max() / np.sqrt(len(x)))
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.03 * covariance.max())
    found = kind.log_density(x)  # its mean is the integral of ρ log ρ
    there = rho > 0.0
    assert np.mean(found) == pytest.approx(rho[there] @ logs[there], abs=4.0 * found.std() / np.sqrt(len(x)) + 2e-3)


def test_entropy_of_eight_gaussians(bench: Callable[[str], Any]) -> None:
    sets = bench("point_sets")
    variance = 0.125  # of Gaussians 6 standard deviations apart
    apart = np.log(8.0 * 2.0 * np.pi * variance) + 1.0  # the entropy if they did not overlap at all
    x = sets.draw_gaussians(20_000, 1)
    nll = -np.mean(sets.gaussians_log_density(x))
    assert apart - 0.03 < nll < apart + 0.03
    square = ((x[:, None] - sets.eight_centres()) ** 2).sum(axis=2).min(axis=1)
    nearest_alone = np.log(8.0 * 2.0 * np.pi * variance) + 0.5 * np.mean(square) / variance
    assert nearest_alone - 0.01 < nll < nearest_alone
    points = sets.point_set("8 Gaussians", 2000)
    np.testing.assert_allclose(points.train.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(points.train.std(axis=0), 1.0)
    scale = sets.draw_gaussians(2000, 0).std(axis=0)
    assert points.true_nll == pytest.approx(apart - np.log(scale).sum(), abs=0.06)


def test_moons_are_those_of_the_template(bench: Callable[[str], Any]) -> None:
    file = PACKAGE / "app" / "templates" / "moons" / "moons.csv"
    points = bench("point_sets").point_set("moons", 100)
    np.testing.assert_allclose(np.loadtxt(file, delimiter=",", skiprows=1)[:, :2], points.train, atol=1e-4)
    assert len(points.validation) == 600


def test_a_kernel_estimate_is_the_mean_of_its_kernels(bench: Callable[[str], Any]) -> None:
    sets = bench("point_sets")
    x, centres = np.random.default_rng(0).standard_normal((2, 5, 2))
    square = ((x[:, None] - centres) ** 2).sum(axis=2)
    expected = np.log(np.mean(np.exp(-0.5 * square / 0.09) / (2.0 * np.pi * 0.09), axis=1))
    np.testing.assert_allclose(sets.gaussian_mixture(x, centres, 0.3), expected, rtol=1e-12)
    far = sets.gaussian_mixture(x + 1e3, centres, 0.3)  # exp would be zero
    assert np.all(np.isfinite(far))
    assert np.all(far < -1e6)


def test_what_is_held_out_is_looked_at_where_validation_is_better(bench: Callable[[str], Any]) -> None:
    likelihood, sets = bench("likelihood"), bench("point_sets")
    one, two = np.zeros((1, 2)), np.zeros((2, 2))
    points = sets.PointSet(one, one, two, 0.0)
    seen = {"a": 3.0, "b": 1.0, "c": math.nan, "d": 2.0}
    kept = [(1.0, "a"), (2.0, "b"), (3.0, "c"), (4.0, "d")]
    trace = likelihood.valued(kept, points, lambda theta, x: seen[theta] + 10.0 * (len(x) - 1))
    assert trace == [[1.0, 3.0, 13.0], [2.0, 1.0, 11.0]]
    assert likelihood.geometric([0.0, 1.0, 2.0, 4.0, 8.0], 3) == [1, 2, 4]


def test_a_normal_density_that_is_pulled_back_has_mass_one(bench: Callable[[str], Any]) -> None:
    field = PiecewiseField.equal(Mlp(2, hidden=(8,), zero_init=False), 1.0, 2)
    theta = np.array([Mlp(2, hidden=(8,), zero_init=False).init(np.random.default_rng(seed)) for seed in (0, 1)])
    side = np.linspace(-12.0, 12.0, 241)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    log_density = bench("likelihood").pulled_back(field, theta, grid)
    assert np.exp(log_density).sum() * 0.1**2 == pytest.approx(1.0, abs=1e-3)
    normal = np.exp(-0.5 * (grid**2).sum(axis=1)) / (2.0 * np.pi)
    assert np.abs(np.exp(log_density) - normal).sum() * 0.1**2 > 0.1  # something moved


def test_a_flow_on_densities_gains_likelihood_and_the_chart_shows_it(
    bench: Callable[[str], Any], tmp_path: Path
) -> None:
    likelihood, chart = bench("likelihood"), bench("likelihood_chart")
    points = bench("point_sets").point_set("moons", 500)
    flow = likelihood.Flow(12, layers=2, hidden=8, iterations=6)
    kernels, found = likelihood.by_kernels(points), likelihood.by_eulerian(points, flow)
    assert kernels["bandwidth"] == found["bandwidth"]
    normal = np.mean(0.5 * (points.held_out**2).sum(axis=1)) + np.log(2.0 * np.pi)  # where nothing moves
    assert points.true_nll < kernels["trace"][-1][2] < found["trace"][-1][2] < normal - 0.05
    data = {"moons": {"true": points.true_nll, "results": {"kernel estimate": [kernels], "eulerian": [found]}}}
    table = likelihood.readme_table(data).splitlines()
    assert table[3].startswith("| eulerian | ")
    assert "**" in table[6]
    assert chart.draw(data, tmp_path / "likelihood.png").stat().st_size > 10_000


@pytest.mark.slow
@needs_jax
@pytest.mark.parametrize(("package", "kind"), [("flowjax", "spline"), ("diffrax", "cnf")])
def test_flows_of_others_are_densities(bench: Callable[[str], Any], package: str, kind: str) -> None:
    pytest.importorskip(package)
    likelihood = bench("maximum_likelihood")
    points = bench("point_sets").point_set("moons", 500)
    trained = likelihood.train(likelihood.Setting(kind, 1e-2, width=8, depth=1, layers=2), points.train, 0.3, 3)
    side = np.linspace(-6.0, 6.0, 241)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    assert np.exp(trained.log_density(trained.parameters[-1], grid)).sum() * 0.05**2 == pytest.approx(1.0, abs=0.01)
    first, last = (trained.log_density(trained.parameters[row], points.held_out).mean() for row in (0, -1))
    assert first < last < -points.true_nll
    assert sorted(trained.seconds) == trained.seconds


@needs_jax
def test_diffrax_has_the_same_gradient() -> None:
    pytest.importorskip("diffrax")
    found = started("diffrax_particles", {"samples": 8, "steps": 4, "repeats": 1, "runs": 1})
    assert found["ours"]["gradient_error"] < 1e-2
    assert found["diffrax, fixed"]["gradient_error"] < 1e-2
    assert found["diffrax, adaptive"]["gradient_error"] < 1e-5


# -- static optimal transport ----------------------------------------------------------------------------------------


def test_masses_in_squares_are_those_of_the_densities(bench: Callable[[str], Any]) -> None:
    static_ot = bench("static_ot")
    first, second = static_ot.masses(20)
    assert first.sum() == pytest.approx(1.0) == second.sum()
    assert first.reshape(20, 20)[::-1] == pytest.approx(second.reshape(20, 20))
    assert first.reshape(20, 20).sum(axis=1) @ static_ot.centres(20) == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("method", ["eulerian, convex solver", "eulerian, bounds"])
def test_static_transport_by_eulerian(bench: Callable[[str], Any], method: str) -> None:
    static_ot = bench("static_ot")
    lower, upper = static_ot.method_of(method, 12, None)()
    exact = static_ot.exact_value()
    assert lower <= upper < 1.01 * exact
    assert lower > 0.99 * exact


@pytest.mark.parametrize(
    ("method", "package", "epsilon", "error"),
    [
        ("POT, exact", "ot", None, 0.03),
        ("POT, Sinkhorn", "ot", 1e-2, 0.1),
        ("OTT-JAX, Sinkhorn", "ott", 1e-2, 0.1),
        ("OTT-JAX, debiased", "ott", 1e-2, 0.03),
    ],
)
def test_static_transport_by_others(method: str, package: str, epsilon: float | None, error: float) -> None:
    pytest.importorskip(package)
    found = started("static_ot", {"method": method, "side": 12, "epsilon": epsilon, "runs": 1})
    assert abs(found["errors"][0]) < error
    assert len(found["seconds"]) == 1


# -- the whole -------------------------------------------------------------------------------------------------------


def test_efficiency_falls_with_ranks_and_grows_with_cells(bench: Callable[[str], Any]) -> None:
    model = bench("weak_scaling")
    network = model.Network()
    for dim in (2, 3):
        small, large = (model.Part(dim, cells, 1e-8) for cells in (1_000, 100_000))
        efficiencies = [small.efficiency(ranks, network) for ranks in model.RANKS]
        assert efficiencies[0] == 1.0
        assert efficiencies == sorted(efficiencies, reverse=True)
        assert large.efficiency(10_000, network) > small.efficiency(10_000, network)
        half = model.Part(dim, small.smallest(10_000, network), 1e-8)
        assert half.efficiency(10_000, network) == pytest.approx(0.5, abs=0.03)
    assert model.Part(2, 200, 1e-8).facets == 40.0  # a square of 10 by 10
    assert model.Part(3, 6_000, 1e-8).facets == pytest.approx(1_200.0)  # a cube of 10 by 10 by 10


def test_the_batch_script_is_sound() -> None:
    subprocess.run(["bash", "-n", BENCH / "weak_scaling.sbatch"], check=True)


def test_every_benchmark_is_named_and_described(bench: Callable[[str], Any]) -> None:
    readme = (BENCH.parent / "README.md").read_text(encoding="utf-8")
    for name in (*bench("run").NAMES, "likelihood", "diffrax_particles", "static_ot"):
        assert f"`{name}.py`" in readme
        assert isinstance(bench(name).BENCHMARK, bench("suite").Benchmark)


def test_one_command_leaves_table_results_and_figure(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "run.py"), "--quick", "--only", "labels", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| 8 labels / 1 label, gradient, DG1, 2-D" in done.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["machine"]["cores"] >= 1
    assert results["versions"]["eulerian"]
    (labels,) = results["benchmarks"]
    assert [row["goal"]["bound"] for row in labels["rows"]] == [5.5] * 4
    assert (tmp_path / "bench.png").stat().st_size > 10_000


@needs_jax
def test_the_figure_shows_whatever_there_is(bench: Callable[[str], Any], tmp_path: Path) -> None:
    chart, suite = bench("chart"), bench("suite")
    race = {"eulerian": [{"gaps": [(0.1, 1.0), (1.0, 0.1)], "values": [(0.1, 2.0), (1.0, 1.0)]}]}
    sizes = {"DG1": [{"dofs": n, "steps": 4, "forward": n * 1e-8, "gradient": n * 3e-8} for n in (100, 1000)]}
    efficiency = [{"dimension": 2, "cells per rank": n, "P": 1.0 - 1.0 / n} for n in (10, 100)]
    history = [{"level": 1.0, "total": 2.0, "seconds": 1.0}, {"level": 1.0, "total": 1.0, "seconds": 2.0}]
    data = {
        "gradient": {"sizes": sizes},
        "product": {"kinds": [{"name": "DG1", "shares": {"stage": 0.5, "AIJ": 0.8, "BAIJ": 0.7}}]},
        "ideal": {"1 rank": [{"vertices": 9, "seconds": 1.0}, {"vertices": 17, "seconds": 4.0}]},
        "weak_scaling": {"2-D": {"efficiency": efficiency}},
        "levels": {"a": {"single": history, "levels": history}},
        "particles": {"b": {"results": race}},
        "density_costs": {"c": {"results": race, "best": 1.0, "rest": 3.0}},
    }
    rows = [suite.Row("x", 0.0, suite.at_most(0.0)), suite.Row("y", None, suite.at_least(3.0), missed=True)]
    benchmarks = [{"benchmark": name, "data": found, "rows": []} for name, found in data.items()]
    benchmarks[0]["rows"] = [row.document() for row in rows]
    assert chart.draw({"benchmarks": benchmarks}, tmp_path / "all.png").stat().st_size > 10_000
    assert chart.draw({"benchmarks": []}, tmp_path / "none.png").is_file()
