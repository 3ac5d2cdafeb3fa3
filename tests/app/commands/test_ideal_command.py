"""`eulerian ideal`, a free field that starts from its solution, and the certificate that `eulerian train` ends with."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

from mpi4py import MPI

import meshio
import numpy as np
import pytest
from jobs import Here

from eulerian.app import tasks
from eulerian.app.build.network import build, build_ideal
from eulerian.app.config import Config, parse_config
from eulerian.app.runs.files import GAP_COLUMNS
from eulerian.app.runs.progress import Progress
from eulerian.base.errors import ComputationError, InputError
from eulerian.bounds import certificate

pytestmark = pytest.mark.two_ranks

# Ideal value: β/2 (|m0 − c|² + tr S0) with β = λκ/(λ + κT) = 1/3, so 0.9²/6 + 0.4²/6.
VALUE = (0.9**2 + 0.4**2) / 6
MODEL = """
[domain]
box = { lower = [-2.0], upper = [2.0], cells = [40] }
[[density.initial]]
kind = "gaussian"
mean = [-0.4]
std = 0.4
[field]
kind = "linear"
features = "affine"
layers = 6
[objective]
kinetic = 0.5
[objective.terminal]
kind = "quadratic"
target = [0.5]
[optimiser]
max_iterations = 4
[ideal]
gap_tolerance = 3e-3
residual_tolerance = 1e-3
[output]
densities = 3
"""
TWO = """density.initial=[{kind="gaussian", mean=[-0.4], std=0.4, weight=3.0},
                         {kind="gaussian", mean=[0.5], std=0.4, label=1}]"""
THERE = '{kind="gaussian", mean=[0.4], std=0.4'
FIXED = f'objective.terminal={{kind="fixed", target=[{THERE}}}]}}'


def configure(path: Path, *overrides: str, output: str = "run") -> Config:
    return parse_config(MODEL, path, [" ".join(text.split()) for text in overrides], output=path / output)


def result(path: Path, output: str = "run") -> dict[str, Any]:
    text = (path / output / "result.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    return json.loads(text)


def gaps(path: Path) -> list[dict[str, float]]:
    with (path / "run" / "gap.csv").open(newline="") as file:
        return [{name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(file)]


def vtu(path: Path) -> meshio.Mesh:
    """The first piece of the last snapshot."""
    return meshio.read(min((path / "run").glob("densities_000002*.vtu")))


# -- eulerian ideal --------------------------------------------------------------------------------------------------


def test_the_document(comm: MPI.Comm, tmp_path: Path) -> None:
    document = tasks.run_ideal(configure(tmp_path), comm)
    comm.barrier()
    assert result(tmp_path) == document
    ideal = document["ideal"]
    assert (document["status"], document["command"]) == ("converged", "ideal")
    assert ideal["hopf_lax"] == pytest.approx(VALUE, rel=1e-3)
    assert ideal["primal"] == document["objective"]["total"] == pytest.approx(VALUE, rel=0.03)
    assert 0.0 < ideal["gap"] == pytest.approx(ideal["primal"] - ideal["dual"])
    assert ideal["relative_gap"] <= 3e-3
    assert ideal["residual"] <= 1e-3
    assert ideal["iterations"] == document["iterations"] > 0
    assert ideal["layers"] == document["time"]["layers"] == 16
    parts = document["objective"]
    assert parts["terminal"] + parts["kinetic"] == pytest.approx(parts["total"])
    assert parts["jacobian"] == parts["parameters"] == 0.0
    assert document["mass"]["final"] == pytest.approx([1.0], rel=1e-10)
    assert document["mass"]["relative_error"] < 1e-10
    assert 0.0 <= document["mass"]["boundary"] < 1e-3
    assert document["density"]["min"] > -1e-14
    assert document["moments"]["mean"][0][0] == pytest.approx(-0.4 + 0.9 * 2 / 3, abs=0.02)
    assert document["mesh"]["cells"] == 40
    assert document["seconds"]["solve"] > 0.0
    assert document["gradient_norm"] is None


@pytest.mark.figures
def test_the_folder(comm: MPI.Comm, tmp_path: Path) -> None:
    document = tasks.run_ideal(configure(tmp_path, "ideal.layers=4"), comm)
    comm.barrier()
    rows = gaps(tmp_path)
    assert tuple(rows[0]) == GAP_COLUMNS
    assert (rows[-1]["primal"], rows[-1]["dual"]) == (document["ideal"]["primal"], document["ideal"]["dual"])
    assert [row["iteration"] for row in rows] == sorted(row["iteration"] for row in rows)
    assert rows[-1]["iteration"] == document["iterations"]
    assert document["ideal"]["layers"] == 4
    found = {str(file.relative_to(tmp_path / "run")) for file in (tmp_path / "run").rglob("*")}
    assert {"config.resolved.toml", "gap.csv", "theta.npz", "densities.pvd", "figures/snapshots.npz"} <= found
    assert {"figures/trajectories.npz", "figures/densities.png"} <= found
    mesh = vtu(tmp_path)
    x, data = mesh.points[:, 0], mesh.point_data
    assert set(data) == {"density_0", "velocity", "potential_0"}
    assert data["density_0"].min() > -1e-14
    # −φ(T) is −ℓ where there is mass, up to a cell: ∂φ = x − 0.5, and v = −∂φ/λ
    near = np.abs(x - 0.2) < 0.2
    if near.any():
        assert data["velocity"][near, 0] == pytest.approx((0.5 - x[near]) / 0.5, abs=0.25)
        assert np.ptp(data["potential_0"][near] - 0.5 * (x[near] - 0.5) ** 2) < 0.05
    tasks.run_solve(configure(tmp_path), comm, overwrite=True)
    comm.barrier()
    left = {file.name for file in (tmp_path / "run").rglob("*")}
    assert not {"gap.csv", "trajectories.npz"} & left


def test_its_theta_is_a_free_field(comm: MPI.Comm, tmp_path: Path) -> None:
    """As many layers as the field of the configuration has, whatever the slabs; its flow costs about as much."""
    ideal = tasks.run_ideal(configure(tmp_path, "ideal.layers=12"), comm)
    theta = f'field={{kind="free", layers=6, theta="{tmp_path / "run" / "theta.npz"}"}}'
    flow = tasks.run_solve(configure(tmp_path, theta, output="flow"), comm)
    assert flow["objective"]["total"] == pytest.approx(ideal["ideal"]["hopf_lax"], rel=0.05)
    by_name = 'field={kind="free", layers=6, theta="ideal"}'
    again = tasks.run_solve(configure(tmp_path, by_name, "ideal.layers=12", output="again"), comm)
    assert again["objective"]["total"] == pytest.approx(flow["objective"]["total"], rel=1e-6)
    still = tasks.run_solve(configure(tmp_path, 'field={kind="free", layers=6}', output="still"), comm)
    assert still["objective"]["total"] > 2 * flow["objective"]["total"]


def test_labels(comm: MPI.Comm, tmp_path: Path) -> None:
    targets = "objective.terminal={kind='quadratic', targets=[[0.5], [-0.4]]}"
    document = tasks.run_ideal(configure(tmp_path, TWO, targets), comm)
    comm.barrier()
    assert document["mass"]["final"] == pytest.approx([0.75, 0.25], rel=1e-10)
    assert document["ideal"]["hopf_lax"] == pytest.approx(VALUE, rel=1e-3)  # mirror images
    names = {"density_0", "density_1", "velocity_0", "velocity_1", "potential_0", "potential_1"}
    assert set(vtu(tmp_path).point_data) == names
    with np.load(tmp_path / "run" / "theta.npz") as data:
        theta = data["theta"]
    assert theta.shape == (6, 2 * 41)
    # label 0 sits at −0.4 and moves right, label 1 the other way
    assert theta[0, 16] > 0.5
    assert theta[0, 41 + 25] < -0.5
    field = f'field={{kind="free", layers=6, label_dependent=true, theta="{tmp_path / "run" / "theta.npz"}"}}'
    flow = tasks.run_solve(configure(tmp_path, TWO, targets, field, output="flow"), comm)
    assert flow["objective"]["total"] == pytest.approx(VALUE, rel=0.08)
    # a field that does not see the label starts from their common momentum, and pays for it
    blind = 'field={kind="free", layers=6, theta="ideal"}'
    shared = tasks.run_solve(configure(tmp_path, TWO, targets, blind, output="shared"), comm)
    assert shared["objective"]["total"] > 1.2 * VALUE


@pytest.mark.parametrize("kind", ["fixed", "kl", "l2"])
def test_targets(comm: MPI.Comm, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    config = configure(tmp_path, FIXED.replace("fixed", kind), "ideal.max_iterations=2000")
    document = tasks.run_ideal(config, comm, progress=Progress.of(comm))
    comm.barrier()
    assert document["ideal"]["hopf_lax"] is None
    bracket = document["ideal"]["continuous"]
    assert (bracket["origin"], bracket["is_bound"], bracket["reason"]) == ("transform", True, None)
    if comm.rank == 0:
        told = capsys.readouterr().out
        assert f"Continuous problem, lower ≤ J* ≤ upper: {bracket['lower']:.8g} … {bracket['upper']:.8g} ± " in told
    moved = 0.5 * 0.5 * 0.8**2  # λ/2 W², a translation
    assert 0.0 < bracket["lower"] - bracket["error"] <= moved
    assert bracket["upper"] + bracket["error"] > bracket["lower"]
    assert document["ideal"]["primal"] == pytest.approx(bracket["lower"], rel=0.05)
    assert document["objective"]["total"] <= moved * 1.05
    if kind == "fixed":
        assert document["objective"]["total"] == pytest.approx(moved, rel=0.05)
        # The tails beyond the walls are missing: 3e-5 of the mass.
        assert bracket["lower"] == pytest.approx(moved, rel=2e-3)
        assert bracket["upper"] == pytest.approx(moved, rel=2e-3)
        assert document["objective"]["terminal"] == 0.0
        assert document["moments"]["mean"][0][0] == pytest.approx(0.4, abs=1e-3)
    again = parse_config((tmp_path / "run" / "config.resolved.toml").read_text(), tmp_path)
    assert again == config


def test_no_more_iterations_than_allowed(comm: MPI.Comm, tmp_path: Path) -> None:
    document = tasks.run_ideal(configure(tmp_path, "ideal.max_iterations=10"), comm)
    assert (document["status"], document["iterations"]) == ("max_iterations", 10)
    assert document["ideal"]["primal"] > document["ideal"]["dual"]


def test_the_field_is_not_made(comm: MPI.Comm, tmp_path: Path) -> None:
    field = 'field={kind="python", object="no_such_module:field", horizon=2.0, layers=3}'
    problem = build_ideal(configure(tmp_path, field), comm)
    assert (problem.horizon, problem.slabs) == (2.0, 16)


def test_output_that_fails_keeps_the_numbers(comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ComputationError("disk full")

    monkeypatch.setattr("eulerian.app.tasks.ideal.draw_figures", fail)
    document = tasks.run_ideal(configure(tmp_path), comm)
    assert document["status"] == "failed"
    assert "disk full" in document["reason"]
    assert document["ideal"]["dual"] > 0.0


def test_a_solver_that_breaks_down_is_told(comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ComputationError("the linear solver broke down")

    monkeypatch.setattr("eulerian.app.tasks.ideal.solve_convex", fail)
    with pytest.raises(ComputationError, match="broke down"):
        tasks.run_ideal(configure(tmp_path), comm)
    comm.barrier()
    document = result(tmp_path)
    assert (document["status"], document["reason"]) == ("failed", "the linear solver broke down")
    assert document["mesh"]["cells"] == 40
    assert document["time"] == {"layers": 16, "steps_per_layer": None, "horizon": 1.0}


def test_running_costs_of_the_density(comm: MPI.Comm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = ("objective.congestion=0.3", "objective.entropy=0.1", 'objective.potential="x - 3"')
    document = tasks.run_ideal(configure(tmp_path, TWO, *costs), comm, progress=Progress.of(comm))
    comm.barrier()
    assert result(tmp_path) == document
    assert (document["status"], document["ideal"]["hopf_lax"]) == ("converged", None)
    assert "counted label by label" in document["reason"]
    parts = dict(document["objective"])
    assert parts.pop("total") == pytest.approx(sum(parts.values()), rel=1e-12)
    assert -4.0 < parts["potential"] < -2.0
    assert parts["congestion"] > 0.0
    assert parts["entropy"] != 0.0
    assert document["ideal"]["dual"] <= document["ideal"]["primal"] == document["objective"]["total"]
    if comm.rank == 0:
        told = capsys.readouterr().out
        assert "Continuous problem, an estimate of lower ≤ J* ≤ upper: " in told
        assert "(there are running costs of the density, under which the best paths are not straight)" in told
        for name in ("potential", "congestion", "entropy"):
            assert f"{name} " in told


# -- wrong input -----------------------------------------------------------------------------------------------------


def refusal(comm: MPI.Comm, tmp_path: Path, run: Any, *overrides: str) -> InputError:
    with pytest.raises(InputError) as caught:
        run(configure(tmp_path, *overrides), comm)
    comm.barrier()
    assert not (tmp_path / "run").exists()
    return caught.value


@pytest.mark.parametrize("run", [tasks.run_solve, tasks.run_train, tasks.run_verify])
def test_fixed_targets_are_for_ideal_only(comm: MPI.Comm, tmp_path: Path, run: Any) -> None:
    error = refusal(comm, tmp_path, run, FIXED)
    assert error.key == "objective.terminal.kind"
    assert "eulerian ideal" in str(error)


def test_without_kinetic_energy(comm: MPI.Comm, tmp_path: Path) -> None:
    error = refusal(comm, tmp_path, tasks.run_ideal, "objective.kinetic=0.0")
    assert error.key == "objective.kinetic"
    assert "the infimum of J is" in str(error)
    error = refusal(comm, tmp_path, tasks.run_ideal, "objective.kinetic=0.0", FIXED)
    assert "infimum" not in str(error)
    error = refusal(comm, tmp_path, build, "objective.kinetic=0.0", 'field={kind="free", theta="ideal"}')
    assert error.key == "field.theta"


def test_a_trained_readout_is_refused(comm: MPI.Comm, tmp_path: Path) -> None:
    readout = 'objective.terminal={kind="cross_entropy", trainable=true}'
    error = refusal(comm, tmp_path, tasks.run_ideal, TWO, readout)
    assert error.key == "objective.terminal.trainable"


def test_fixed_masses(comm: MPI.Comm, tmp_path: Path) -> None:
    """No flow turns one label into another. Weights that differ by a factor only are the same."""

    def to(kind: str, *weights: float) -> str:
        terms = [f"{THERE}, label={label}, weight={weight}}}" for label, weight in enumerate(weights)]
        return f'objective.terminal={{kind="{kind}", target=[{", ".join(terms)}]}}'

    error = refusal(comm, tmp_path, tasks.run_ideal, TWO, to("fixed", 1.0, 1.0))
    assert error.key == "objective.terminal.target"
    assert "0.75, 0.25" in str(error)
    build_ideal(configure(tmp_path, TWO, to("fixed", 0.3, 0.1)), comm)
    build_ideal(configure(tmp_path, TWO, to("l2", 1.0, 1.0)), comm)


def test_labels_of_the_target_from_a_file(comm: MPI.Comm, tmp_path: Path) -> None:
    if comm.rank == 0:
        rows = "".join(f"{0.1 * i},{'ab'[i % 2]}\n" for i in range(8))
        (tmp_path / "points.csv").write_text("x,class\n" + rows)
    comm.barrier()
    points = 'target=[{kind="samples", file="points.csv", columns=["x"], label_column="class", bandwidth=0.2}]'
    terminal = f'objective.terminal={{kind="fixed", {points}}}'
    error = refusal(comm, tmp_path, tasks.run_ideal, terminal)
    assert error.key == "objective.terminal.target"
    assert "label" in str(error)
    even = TWO.replace(", weight=3.0", "")
    build_ideal(configure(tmp_path, even, terminal), comm)


# -- the certificate of a training -----------------------------------------------------------------------------------


def test_a_training_ends_with_its_certificate(
    comm: MPI.Comm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tasks.run_train(configure(tmp_path), comm, progress=Progress.of(comm))
    comm.barrier()
    assert result(tmp_path) == document
    found, parts = document["certificate"], document["verified"]["objective"]
    assert (found["bound"], found["ideal"]) == ("hopf_lax", pytest.approx(VALUE, rel=1e-3))
    assert found["gap"] == pytest.approx(parts["terminal"] + parts["kinetic"] - found["ideal"])
    assert found["relative_gap"] == pytest.approx(found["gap"] / found["ideal"])
    assert document["seconds"]["certificate"] > 0.0
    if comm.rank == 0:
        assert capsys.readouterr().out.rstrip().endswith(found["statement"])


def test_a_convex_certificate_tells_how_it_proceeds(
    comm: MPI.Comm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tasks.run_train(configure(tmp_path, "ideal.certificate=convex"), comm, progress=Progress.of(comm))
    assert document["certificate"]["bound"] == "convex"
    assert document["certificate"]["ideal"] == pytest.approx(VALUE, rel=0.05)
    if comm.rank == 0:
        assert "estimate = " in capsys.readouterr().out


def test_no_certificate_on_request(comm: MPI.Comm, tmp_path: Path) -> None:
    document = tasks.run_train(configure(tmp_path, "ideal.certificate=none"), comm)
    assert not {"certificate", "no_certificate"} & set(document)


@pytest.mark.parametrize("error", [InputError("cannot be had"), ComputationError("cannot be had")])
def test_a_failing_certificate_is_told_and_nothing_else(
    comm: MPI.Comm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    def fail(*_: object, **__: object) -> None:
        comm.barrier()
        assert result(tmp_path)["status"] == "max_iterations", "the training is in the folder already"
        raise error

    monkeypatch.setattr(certificate, "certify", fail)
    document = tasks.run_train(configure(tmp_path), comm, progress=Progress.of(comm))
    comm.barrier()
    assert result(tmp_path) == document
    assert document["status"] == "max_iterations"
    assert document["no_certificate"] == "cannot be had"
    assert "certificate" not in document
    if comm.rank == 0:
        assert "is not known: cannot be had" in capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_the_unexpected_does_not_touch_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(certificate, "certify", fail)
    path = tmp_path / str(MPI.COMM_WORLD.rank)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            tasks.run_train(configure(path), MPI.COMM_SELF)
    else:
        assert "ZeroDivisionError" in tasks.run_train(configure(path), MPI.COMM_SELF)["no_certificate"]
    assert result(path)["status"] == "max_iterations"
    assert (path / "run" / "theta.npz").exists()


# -- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.one_process
def test_command_line(tmp_path: Path, here: Here) -> None:
    (tmp_path / "model.toml").write_text(MODEL)
    done = here("ideal", "model.toml", "--output", "run", "--set", "ideal.max_iterations=20")
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "40 cells in 1-D, density of degree 1, 1 label; any velocity, 16 time slabs; 1 rank"
    assert lines[1].startswith("iteration   10   estimate = ")
    assert "gap" not in lines[1]
    assert any(line.split() == ["convex", "Hopf–Lax"] for line in lines)
    assert any(line.startswith("Continuous problem, lower ≤ J* ≤ upper: 0.16") for line in lines)
    assert lines[-1] == "written to run: result.json, theta.npz, gap.csv, densities.pvd, figures"
    assert "--overwrite" in here("ideal", "model.toml", "--output", "run", code=1).stderr
    quiet = here("ideal", "model.toml", "--output", "run", "--overwrite", "--quiet")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    wrong = here("ideal", "model.toml", "--output", "new", "--set", "objective.kinetic=0.0", code=1)
    assert wrong.stderr.startswith("eulerian ideal: objective.kinetic: ")


@pytest.mark.mpi
def test_two_ranks_find_the_same(tmp_path: Path, here: Here, mpirun: Any) -> None:
    (tmp_path / "model.toml").write_text(MODEL)
    command = ["ideal", "model.toml", "--quiet", "--output"]
    here(*command, "on1")
    done = mpirun(2, [sys.executable, "-m", "eulerian", *command, "on2"])
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (result(tmp_path, f"on{ranks}") for ranks in (1, 2))
    assert two["ranks"] == 2
    assert two["ideal"]["hopf_lax"] == pytest.approx(one["ideal"]["hopf_lax"], rel=1e-10)
    assert two["ideal"]["primal"] == pytest.approx(one["ideal"]["primal"], rel=1e-5)
    with np.load(tmp_path / "on1" / "theta.npz") as first, np.load(tmp_path / "on2" / "theta.npz") as second:
        assert first["theta"] == pytest.approx(second["theta"], abs=1e-2)
