"""The studies in ``scripts/``: their exact values and helpers by themselves, and every command once at small sizes."""

import csv
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from paths import SCRIPTS
from scipy.integrate import quad

pytestmark = pytest.mark.mpi  # studies are for one process to run

FOLDER = SCRIPTS / "studies"
STUDIES = (
    "universal_approximation",
    "linear_regime",
    "no_minimiser",
    "labels_keep_order",
    "densities_and_particles",
    "mesh_and_network",
    "obstacles",
    "geodesics",
    "reference_values",
    "bounds",
)


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import from ``scripts/`` as a script does."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("study", *STUDIES):
        sys.modules.pop(name, None)


# -- exact values ----------------------------------------------------------------------------------------------------


def test_ideal_values_are_those_of_the_literature_of_this_project() -> None:
    from study import KINKED, SMOOTH

    assert SMOOTH.ideal() == pytest.approx(0.139699239381, abs=3e-8)  # the interval cuts the tails off
    assert KINKED.ideal() == pytest.approx(0.108304028949, abs=1e-8)


def test_the_ideal_value_of_a_quadratic_loss_has_a_closed_form() -> None:
    from study import ideal_value

    alpha, kappa, target, mean, std = 0.7 / 1.5, 2.0, 1.3, -0.4, 0.6
    beta = alpha * kappa / (alpha + kappa)
    found = ideal_value(lambda z: 0.5 * kappa * (z - target) ** 2, alpha, mean, std, (-6.0, 6.0))
    assert found == pytest.approx(0.5 * beta * ((mean - target) ** 2 + std**2), rel=1e-8)


def test_the_search_finds_the_lower_of_two_minima() -> None:
    from study import least_cost

    x = np.linspace(-2.0, 2.0, 101)
    alpha, kappa = 0.5, 3.0
    beta = alpha * kappa / (alpha + kappa)
    found = least_cost(lambda z: 0.5 * kappa * np.minimum((z - 1.2) ** 2, (z + 1.2) ** 2), alpha, x, (-5.0, 5.0))
    np.testing.assert_allclose(found, 0.5 * beta * np.minimum((x - 1.2) ** 2, (x + 1.2) ** 2), atol=1e-10)


@pytest.mark.parametrize("name", ["SMOOTH", "KINKED"])
def test_losses_are_what_the_configuration_says(name: str) -> None:
    import study

    from eulerian.base.formula import Expression

    loss = getattr(study, name)
    x = np.linspace(-2.1, 2.3, 40)
    written = Expression.parse(loss.formula, ("x",), "value")({"x": x})
    np.testing.assert_allclose(loss.function(x), written, atol=1e-13)
    step = 1e-6
    difference = (loss.function(x + step) - loss.function(x - step)) / (2.0 * step)
    np.testing.assert_allclose(loss.slope(x), difference, atol=1e-7)


def test_the_best_pulse_beats_all_sharings() -> None:
    from no_minimiser import INFIMUM, exact_value, speed

    rng = np.random.default_rng(0)
    for layers in (1, 2, 4, 8, 32):
        value, spent = exact_value(layers)
        pulse = np.sqrt(spent * layers)
        assert value == pytest.approx(spent + (1.0 - speed(pulse) / layers) ** 2, abs=1e-12)
        theta = np.sqrt(layers * rng.dirichlet(np.full(layers, 0.2), 4000) * rng.uniform(0.0, 1.5, (4000, 1)))
        assert np.min(np.mean(theta**2, axis=1) + (1.0 - np.mean(speed(theta), axis=1)) ** 2) >= value - 1e-12
        assert value > INFIMUM
    assert exact_value(1e6)[0] - INFIMUM == pytest.approx(1e-6, rel=1e-3)


def test_the_pulse_keeps_the_protocol() -> None:
    from no_minimiser import Pulse

    field, x, w = Pulse(), np.array([[0.1], [0.7]]), np.array([[0.3], [-1.1]])
    for theta in (0.0, 0.4, -1.3, 5.0):
        step = 1e-6
        values = [np.vdot(w, field.value(np.array([theta + s]), x)) for s in (step, -step)]
        assert field.vjp(np.array([theta]), x, w)[0] == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-7)


def test_no_increasing_map_beats_the_best_one() -> None:
    import labels_keep_order as study

    best = study.best_increasing_map()
    x, n = np.linspace(*study.BOX, 4001), 4001
    weights = study.label_weights(n)

    def value(z: np.ndarray) -> float:
        loss = sum(w @ (z - c) ** 2 for w, c in zip(weights, study.TARGETS, strict=True))
        return 0.5 * study.LOSS_WEIGHT * loss + 0.5 * study.ALPHA * weights.sum(axis=0) @ (z - x) ** 2

    z = np.interp(x, best.points, best.destinations)
    assert value(z) == pytest.approx(best.value, rel=3e-6)
    rng = np.random.default_rng(1)
    for size in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(50):
            other = np.sort(z + size * rng.standard_normal() * np.cumsum(rng.standard_normal(n)) / 60.0)
            assert value(other) >= best.value - best.error
    assert study.ideal_value() < best.value - best.error
    assert best.value + best.error < study.value_at_rest()


def test_what_is_best_is_what_is_wanted_where_that_keeps_the_order() -> None:
    import labels_keep_order as study

    best = study.best_increasing_map()
    wanted = study.wanted(best)
    # The group on the right is wanted where it may go, all of it to the right of the others.
    right = (best.points > 1.2) & (best.points < 2.5)
    assert np.max(np.abs(best.destinations - wanted)[right]) < 2e-3
    pooled = (best.points > -1.6) & (best.points < 0.1)
    assert np.ptp(best.destinations[pooled]) == 0.0


def test_without_conflict_one_field_costs_what_two_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    import labels_keep_order as study

    monkeypatch.setattr(study, "GROUPS", ((1, -2.0), (0, 2.0)))  # each is already on its own side
    assert study.best_increasing_map().value == pytest.approx(study.ideal_value(), rel=1e-6)


# -- particles and continuation --------------------------------------------------------------------------------------


def test_particles_agree_with_the_mesh() -> None:
    import linear_regime as study
    from study import SMOOTH, cost_without_mesh, flow_cost, train, well_problem

    problem = well_problem(SMOOTH, study.linear_field("affine", 1), 200, 4, 1e-6)
    end = train(problem, None, 30)
    problem.value(end.theta)
    assert cost_without_mesh(problem, end.theta, SMOOTH) == pytest.approx(flow_cost(problem), rel=1e-4)


def test_a_trained_linear_field_is_optimal_and_its_start_is_not() -> None:
    import linear_regime as study
    from study import SMOOTH, train, well_problem

    problem = well_problem(SMOOTH, study.linear_field("affine", 1), 150, 4, 1e-8, box=study.BOX)
    end = train(problem, None, 40)
    assert study.optimality_distance(problem, end.theta, study.QUICK) < 1e-3
    assert study.optimality_distance(problem, 1.1 * end.theta, study.QUICK) > 0.05


def test_projecting_on_the_same_features_changes_nothing_that_mass_feels() -> None:
    import linear_regime as study
    from study import SMOOTH, well_problem

    problem = well_problem(SMOOTH, study.linear_field("rbf", 4), 40, 2, 1e-6, box=study.BOX)
    theta = np.random.default_rng(0).standard_normal(problem.layer_shape)
    again = study.projected(problem, problem, theta, replace(study.QUICK, epsilon=1e-12))
    x = np.linspace(-1.0, 1.5, 30)[:, None]
    for row, other in zip(theta, again, strict=True):
        np.testing.assert_allclose(problem.field.value(other, x), problem.field.value(row, x), atol=1e-5)


def test_a_widened_network_is_the_same_field() -> None:
    import universal_approximation as study
    from study import SMOOTH, well_problem

    narrow, wide = (well_problem(SMOOTH, study.network(width), 40, 2, 0.0) for width in (2, 4))
    theta = np.random.default_rng(0).standard_normal(narrow.layer_shape)
    start = study.widened(theta, wide.initial_theta)
    x = np.linspace(-3.0, 3.0, 20)[:, None]
    for row, wider in zip(theta, start, strict=True):
        np.testing.assert_allclose(wide.field.value(wider, x), narrow.field.value(row, x), atol=1e-14)
    assert np.any(start[:, 2:4])  # the new neurons are there, and only switched off


def test_simpson_and_runge_kutta_integrate_a_known_flow() -> None:
    import linear_regime as study
    from study import SMOOTH, particle_cost, trajectories, well_problem

    problem = well_problem(SMOOTH, study.linear_field("affine", 1), 40, 2, 0.0)
    theta = np.array([[0.5, 0.1], [-0.3, 0.2]])  # v = a x + b, T = 1
    x = np.array([0.7])
    halfway = (0.7 + 0.1 / 0.5) * np.exp(0.25) - 0.1 / 0.5
    end = (halfway - 0.2 / 0.3) * np.exp(-0.15) + 0.2 / 0.3
    assert trajectories(problem, theta, x)[-1][0] == pytest.approx(end, abs=1e-8)
    energy = quad(lambda t: (0.5 * 0.7 + 0.1) ** 2 * np.exp(1.0 * t), 0.0, 0.5)[0]
    energy += quad(lambda t: (0.2 - 0.3 * halfway) ** 2 * np.exp(-0.6 * t), 0.0, 0.5)[0]
    found = particle_cost(problem, theta, [(x, np.ones(1), lambda z: z**2, None)], 3.0)
    assert found == pytest.approx(end**2 + 1.5 * energy, abs=1e-8)


# -- bounds ----------------------------------------------------------------------------------------------------------


def solved(dual: float, **bracket: object) -> object:
    """What a study of bounds knows of a problem whose value is 2."""
    from types import SimpleNamespace

    from bounds import Solved

    from eulerian.bounds.continuous import ContinuousBounds

    known = {"lower": 2.0, "upper": 2.1, "error": 1e-3, "origin": "transform", "is_bound": True, "size": 2.0}
    return Solved(ContinuousBounds(**known | bracket), SimpleNamespace(dual=dual, primal=dual + 0.3), 0.0, 0.0)


def training(flow: float, theta: float) -> dict[str, dict[str, object]]:
    """The result of a training whose flow costs ``flow`` and whose parameters cost ``theta``."""
    from eulerian.objective.parts import part_names

    parts = dict.fromkeys(part_names(), 0.0) | {"terminal": flow, "parameters": theta, "total": flow + theta}
    return {"verified": {"objective": parts, "own_error": 1e-3}}


def test_distances_to_bounds_leave_out_what_parameters_cost() -> None:
    from bounds import distances

    found = distances(training(2.5, 10.0), solved(1.9), True)
    assert (found["above"], found["above_share"]) == pytest.approx((0.5, 0.25))
    assert (found["dual_over_lower"], found["dual_over_upper"]) == pytest.approx((-0.05, -0.1))


@pytest.mark.parametrize(
    ("dual", "bracket", "verdict"),
    [
        (1.9, {}, ""),
        (2.05, {}, ""),  # inside the bracket: nobody knows
        (2.1005, {}, ""),
        (2.102, {}, "dual above J*"),
        (2.102, {"is_bound": False}, ""),
        (1.5, {}, "primal below J*"),
        (1.5, {"origin": "monotone"}, None),  # another class of fields
    ],
)
def test_the_verdict_on_the_convex_solver_is_what_is_proved(
    dual: float, bracket: dict[str, object], verdict: str | None
) -> None:
    from bounds import solver_columns

    assert solver_columns(solved(dual, **bracket))["verdict"] == verdict


def test_a_bound_that_is_not_attained_or_no_measure_has_no_percentage() -> None:
    from bounds import distances

    unattained = distances(training(2.5, 0.0), solved(2.1), False)
    tiny = distances(training(2.5, 0.0), solved(2.1, lower=0.01, upper=0.01, size=0.01), True)
    for row in (unattained, tiny):
        assert row["above"] > 0.0
        assert row["above_share"] is None
    assert unattained["size"] == 2.0
    assert tiny["size"] is None  # and no place on the figure's scale


def test_a_network_below_its_bound_is_told_unless_errors_excuse_it() -> None:
    from bounds import broken

    row = {"problem": "a", "above": -2e-3, "error": 1e-3, "network_error": 5e-4}
    assert "a: 0.002 below the bound" in broken(row)
    assert not broken(row | {"network_error": 2e-3})
    assert not broken(row | {"above": 0.0})
    assert not broken(row | {"above": None})


# -- whole studies ---------------------------------------------------------------------------------------------------


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Run a study's command at sizes below the quick ones; the rows of its table."""
    module = __import__(name)
    short = {"seeds": 1, "trial": 5, "first": 10, "each": 10, "rung": 8, "free": 20}
    small = {
        "universal_approximation": {"cells": 32, "layers": 2, "widths": (2, 4), "ladder_width": 4, **short},
        "linear_regime": {"cells": 32, "layers": 2, "widths": (2, 4), "iterations": 10, "particles": 101},
        "no_minimiser": {"layers": (1, 4), "iterations": 25},
        "labels_keep_order": {"cells": 40, "layers": 2, "iterations": 20, "trial": 5},
    }[name]
    monkeypatch.setattr(module, "QUICK", replace(module.QUICK, **small))
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--output", str(folder / "run")])
    module.main()
    assert (folder / "run" / f"{name}.png").stat().st_size > 10_000
    with (folder / "run" / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_universal_approximation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run("universal_approximation", tmp_path, monkeypatch)
    assert {row["loss"] for row in rows} == {"smooth", "kinked"}
    for loss in ("smooth", "kinked"):
        widths = [float(row["total"]) for row in rows if (row["loss"], row["series"]) == (loss, "width")]
        ladder = [float(row["total"]) for row in rows if (row["loss"], row["series"]) == (loss, "epsilon")]
        assert widths == sorted(widths, reverse=True)
        assert ladder == sorted(ladder)  # from the smallest ε up
    assert all(float(row["particle_gap"]) > -1e-6 for row in rows if row["particle_gap"] != "nan")


def test_linear_regime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {(row["features"], row["width"]): row for row in run("linear_regime", tmp_path, monkeypatch)}
    assert len(rows) == 8
    affine = float(rows["affine", "1"]["flow"])
    assert all(float(rows[family, "4"]["flow"]) < affine for family in ("random", "rbf", "residual"))
    assert all(float(row["particle_gap"]) > -1e-6 for row in rows.values() if row["features"] != "free")


def test_no_minimiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, four = run("no_minimiser", tmp_path, monkeypatch)
    assert float(one["found"]) == pytest.approx(1.0, abs=1e-6)  # a single layer does not pay
    assert float(four["found"]) == pytest.approx(float(four["exact"]), abs=3e-4)
    assert float(four["largest_share"]) > 0.999


def test_labels_keep_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sees, blind = run("labels_keep_order", tmp_path, monkeypatch)
    assert float(sees["exact"]) < float(blind["exact"])
    assert float(sees["flow"]) < float(blind["exact"])  # better than anything that keeps the order
    assert float(blind["particle_gap"]) > 0.0
    assert float(sees["particle_gap"]) > 0.0


def test_densities_and_particles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import densities_and_particles as script

    from eulerian.app.tasks.study import StudyPlan

    plan = StudyPlan((1,), (-1, 0), (16, 64), replicates=2, reference_count=128, reference_replicates=2)
    monkeypatch.setattr(script, "QUICK", script.Sizes({2: 6, 3: 6}, 2, {2: plan, 3: plan}))
    monkeypatch.setattr(sys, "argv", ["densities_and_particles", "--quick", "--output", str(tmp_path)])
    script.main()
    assert (tmp_path / "densities_and_particles.png").is_file()
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["dimension"] for row in rows] == ["2"] * 6 + ["3"] * 6
    assert {row["ladder"] for row in rows} == {"mesh, degree 1", "random particles", "sobol particles"}
    assert all(0.0 < float(row["density_error"]) < 1.0 for row in rows)


def test_every_problem_of_bounds_has_an_ideal_problem(tmp_path: Path) -> None:
    import bounds

    for name in bounds.CASES:
        config = bounds.configuration(name, tmp_path / name, bounds.QUICK)
        assert not config.objective.at, f"{name}: the convex solver knows no costs at times between"


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import bounds

    def study(*names: str) -> dict[str, dict[str, str]]:
        bounds.main(["--quick", "--output", str(tmp_path), *(f"--only={name}" for name in names)])
        with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
            return {row["problem"]: row for row in csv.DictReader(file)}

    monkeypatch.setattr(bounds, "QUICK", replace(bounds.QUICK, iterations=2, cells=8))
    first = study("transport", "labels, one field")
    no_network, blind = first["transport"], first["labels, one field"]
    assert no_network["network"] == no_network["above"] == ""
    assert 0.0 < float(no_network["lower"]) <= float(no_network["upper"])
    assert no_network["verdict"] == "dual above J*"  # on a mesh of 8 × 8 squares what is called a bound is none
    assert (no_network["origin"], blind["origin"]) == ("transform", "monotone")
    assert float(blind["above"]) > 0.0
    assert float(blind["dual"]) < float(blind["lower"])  # the solver knows only fields that see the label
    assert (tmp_path / "bounds.png").stat().st_size > 10_000
    assert "BELOW" not in capsys.readouterr().out

    trained = (tmp_path / "labels, one field" / "run" / "result.json").read_bytes()
    again = study("labels, one field")
    assert again["transport"] == no_network  # its row was kept
    assert again["labels, one field"]["network"] == blind["network"]
    assert (tmp_path / "labels, one field" / "run" / "result.json").read_bytes() == trained  # not trained again
