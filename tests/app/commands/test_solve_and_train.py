"""Solve, train and verify as functions: what a run folder holds afterwards, also when things go wrong."""

import csv
import json
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest

from eulerian.analysis.verify import Verification
from eulerian.app import tasks
from eulerian.app.config import Config, parse_config
from eulerian.app.runs.folder import RunFolder
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.snapshots import Snapshots
from eulerian.base.errors import ComputationError, InputError, RejectedEvaluation
from eulerian.base.parallel import warn
from eulerian.optimise import Descent, stages

pytestmark = pytest.mark.two_ranks

MODEL = """
[domain]
box = { lower = [-2.0], upper = [2.0], cells = [24] }
[[density.initial]]
kind = "gaussian"
mean = [-0.4]
std = 0.4
[field]
kind = "linear"
features = "affine"
layers = 3
theta = [[0.1, 0.2]]
[objective]
kinetic = 0.5
[objective.terminal]
kind = "quadratic"
target = [0.5]
[optimiser]
max_iterations = 4
[output]
densities = 3
"""


def configure(path: Path, *overrides: str) -> Config:
    return parse_config(MODEL, path, overrides, output=path / "run")


def result(path: Path) -> dict[str, Any]:
    text = (path / "run" / "result.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    return json.loads(text)


def names(path: Path, pattern: str = "*") -> set[str]:
    return {str(file.relative_to(path / "run")) for file in (path / "run").glob(pattern)}


@pytest.mark.figures
def test_solve(comm: MPI.Comm, tmp_path: Path) -> None:
    document = tasks.run_solve(configure(tmp_path), comm)
    comm.barrier()
    assert result(tmp_path) == document
    assert (document["status"], document["command"], document["iterations"]) == ("done", "solve", 0)
    assert document["gradient_norm"] is None
    assert document["objective"]["total"] == pytest.approx(sum(list(document["objective"].values())[1:]))
    assert document["mesh"]["dofs"] == 48
    assert {"config.resolved.toml", "theta.npz", "densities.pvd", "figures"} <= names(tmp_path)
    assert names(tmp_path, "figures/*") == {
        f"figures/{name}" for name in ("densities.png", "snapshots.npz", "targets.npz")
    }
    assert len(names(tmp_path, "densities_*.*vtu")) == (3 if comm.size == 1 else 3 + 3 * comm.size)
    with np.load(tmp_path / "run" / "theta.npz") as data:
        assert np.array_equal(data["theta"], [[0.1, 0.2]] * 3)


@pytest.mark.figures
def test_train(comm: MPI.Comm, tmp_path: Path) -> None:
    document = tasks.run_train(configure(tmp_path), comm)
    comm.barrier()
    assert result(tmp_path) == document
    assert document["status"] == "max_iterations"
    assert document["iterations"] == 4
    with (tmp_path / "run" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["iteration"]) for row in rows] == [0, 1, 2, 3, 4]
    assert float(rows[0]["total"]) > float(rows[-1]["total"]) == document["objective"]["total"]
    assert float(rows[-1]["gradient_norm"]) == document["gradient_norm"]
    assert names(tmp_path, "figures/*.png") == {"figures/densities.png", "figures/history.png"}
    # θ is what the numbers belong to, and a configuration of its own for the next run
    theta = f'field.theta="{tmp_path / "run" / "theta.npz"}"'
    again = tasks.run_solve(parse_config(MODEL, tmp_path, [theta], output=tmp_path / "again"), comm)
    assert again["objective"]["total"] == pytest.approx(document["objective"]["total"], rel=1e-13)


def test_checkpoints_can_be_started_from(comm: MPI.Comm, tmp_path: Path) -> None:
    """The last checkpoint is θ of its iteration, and a run with --overwrite removes it."""
    config = configure(tmp_path, "output.checkpoint_every=2", "optimiser.max_iterations=3")
    tasks.run_train(config, comm)
    with (tmp_path / "run" / "history.csv").open() as file:
        second = float(list(csv.DictReader(file))[2]["total"])
    checkpoint = tmp_path / "run" / "checkpoint" / "previous.npz"  # the last one is of the end
    again = parse_config(MODEL, tmp_path, [f"field.theta={checkpoint}"], output=tmp_path / "again")
    assert tasks.run_solve(again, comm)["objective"]["total"] == pytest.approx(second, rel=1e-13)
    tasks.run_solve(configure(tmp_path), comm, overwrite=True)
    assert not checkpoint.exists()


def test_the_resolved_configuration_gives_the_same_run(comm: MPI.Comm, tmp_path: Path) -> None:
    first = tasks.run_solve(configure(tmp_path, "density.degree=2"), comm)
    comm.barrier()
    text = (tmp_path / "run" / "config.resolved.toml").read_text()
    second = tasks.run_solve(parse_config(text, tmp_path), comm, overwrite=True)
    assert second["objective"] == first["objective"]


def test_verify(comm: MPI.Comm, tmp_path: Path) -> None:
    document = tasks.run_verify(configure(tmp_path), comm)
    comm.barrier()
    assert result(tmp_path) == document
    assert document["status"] == "done"
    assert {"taylor_rates", "dot_error", "mass_error", "min_density"} <= set(document["verify"])
    assert min(document["verify"]["taylor_rates"]) > 1.9
    solved = tasks.run_solve(configure(tmp_path), comm, overwrite=True)
    assert document["objective"]["total"] == solved["objective"]["total"]
    assert document["gradient_norm"] > 0.0


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"taylor_rates": [2.0, 1.1]}, "Taylor rate"),
        ({"taylor_rates": [float("nan")]}, "Taylor rate"),
        ({"dot_error": 1e-3}, "dot product"),
        ({"mass_error": 1e-3}, "mass"),
        ({"min_density": -0.1}, "density"),
        ({"min_density": float("nan")}, "density"),
    ],
)
def test_a_broken_law_is_a_failure(
    comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: dict[str, Any], named: str
) -> None:
    sound = {"taylor_rates": [2.0], "dot_error": 0.0, "mass_error": 0.0, "min_density": 0.0, "taylor_remainders": [0.0]}
    monkeypatch.setattr("eulerian.app.tasks.verify.verify_laws", lambda *_: Verification(**{**sound, **broken}))
    document = tasks.run_verify(configure(tmp_path), comm)
    assert document["status"] == "failed"
    assert named in document["reason"]


@pytest.mark.parametrize("command", [tasks.run_solve, tasks.run_train, tasks.run_verify])
def test_too_many_steps_are_a_failure_with_a_reason(comm: MPI.Comm, tmp_path: Path, command: Any) -> None:
    config = configure(tmp_path, "field.theta=[[0.0, 1000.0]]", "solver.max_steps_per_layer=5")
    with pytest.raises(RejectedEvaluation, match="max_steps_per_layer"):
        command(config, comm)
    comm.barrier()
    document = result(tmp_path)
    assert document["status"] == "failed"
    assert "max_steps_per_layer" in document["reason"]
    assert document["rejected_evaluations"] == 1
    assert document["objective"]["total"] is None
    assert document["mesh"]["cells"] == 24


def test_wrong_input_leaves_no_folder(comm: MPI.Comm, tmp_path: Path) -> None:
    config = configure(tmp_path, "density.initial.0.mean=[9.0]")
    with pytest.raises(InputError, match="100 % of its mass lies outside"):
        tasks.run_solve(config, comm)
    comm.barrier()
    assert not (tmp_path / "run").exists()


def test_wrong_input_leaves_the_last_run_alone(comm: MPI.Comm, tmp_path: Path) -> None:
    before = tasks.run_solve(configure(tmp_path), comm)
    with pytest.raises(InputError, match="100 % of its mass lies outside"):
        tasks.run_solve(configure(tmp_path, "density.initial.0.mean=[9.0]"), comm, overwrite=True)
    with pytest.raises(InputError, match="already holds a run"):
        tasks.run_solve(configure(tmp_path), comm)
    comm.barrier()
    assert result(tmp_path) == before


def test_a_failed_build_is_told_in_the_folder(comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ComputationError("no C compiler")

    monkeypatch.setattr("eulerian.app.tasks.train.build_on_own_mesh", fail)
    with pytest.raises(ComputationError, match="no C compiler"):
        tasks.run_train(configure(tmp_path), comm)
    comm.barrier()
    assert (result(tmp_path)["status"], result(tmp_path)["reason"]) == ("failed", "no C compiler")


def test_an_optimiser_that_gives_up_keeps_its_best_iterate(
    comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Descent, "_outcome", lambda *_: ("failed", "no lower value"))
    document = tasks.run_train(configure(tmp_path), comm)
    comm.barrier()
    assert (document["status"], document["reason"]) == ("failed", "no lower value")
    best = min(history(tmp_path), key=lambda row: float(row["total"]))
    assert document["objective"]["total"] == float(best["total"])
    theta = f'field.theta="{tmp_path / "run" / "theta.npz"}"'
    again = tasks.run_solve(parse_config(MODEL, tmp_path, [theta], output=tmp_path / "again"), comm)
    assert again["objective"]["total"] == pytest.approx(float(best["total"]), rel=1e-13)


def history(path: Path) -> list[dict[str, str]]:
    with (path / "run" / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_levels(comm: MPI.Comm, tmp_path: Path) -> None:
    """From coarse to fine in one run folder; θ is that of the finest level in every file."""
    overrides = ["optimiser.levels=3", "optimiser.max_iterations=8", "optimiser.gradient_tolerance=0.0"]
    config = configure(tmp_path, *overrides, "output.checkpoint_every=1")
    document = tasks.run_train(config, comm)
    comm.barrier()
    assert result(tmp_path) == document
    rows = history(tmp_path)
    assert [int(row["level"]) for row in rows] == sorted(int(row["level"]) for row in rows)
    assert {row["level"] for row in rows} == {"1", "2", "3"}
    assert int(rows[-1]["iteration"]) == document["iterations"] <= 12  # half of the eight on each of three levels
    found = document["levels"]
    keys = {"level", "cells", "degree", "layers", "iterations", "evaluations", "total", "seconds"}
    assert [set(each) for each in found] == [keys] * 3
    assert [each["level"] for each in found] == [1, 2, 3]
    assert [(each["cells"], each["degree"]) for each in found] == [(4, 2), (6, 2), (24, 1)]
    assert found[-1]["layers"] == 3
    assert sum(each["iterations"] for each in found) == document["iterations"]
    for each in found:
        assert each["total"] == min(float(row["total"]) for row in rows if int(row["level"]) == each["level"])
    assert document["objective"]["total"] == found[-1]["total"]
    assert document["mesh"]["cells"] == 24
    assert document["evaluations"] >= int(rows[-1]["evaluations"])
    for name in ("theta.npz", "checkpoint/latest.npz"):
        with np.load(tmp_path / "run" / name) as data:
            assert data["theta"].shape == (3, 2)
    again = configure(tmp_path / "again", f'field.theta="{tmp_path / "run" / "theta.npz"}"')
    solved = tasks.run_solve(again, comm)
    assert solved["objective"]["total"] == pytest.approx(document["objective"]["total"], rel=1e-12)


def test_one_level_is_not_told(comm: MPI.Comm, tmp_path: Path) -> None:
    document = tasks.run_train(configure(tmp_path), comm)
    comm.barrier()
    assert "levels" not in document
    assert {row["level"] for row in history(tmp_path)} == {"1"}


def test_a_checkpoint_on_a_coarse_level_is_one_of_the_finest(
    comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is interrupted there can go on with it."""
    descent = stages.Descent
    calls: list[int] = []

    def once(*arguments: Any, **options: Any) -> Descent:
        calls.append(1)
        if len(calls) > 1:
            raise ComputationError("interrupted")
        return descent(*arguments, **options)

    monkeypatch.setattr(stages, "Descent", once)
    overrides = ["optimiser.levels=2", "optimiser.max_iterations=8", "output.checkpoint_every=1"]
    free = 'field={kind="free", layers=4}'
    document = tasks.run_train(configure(tmp_path, *overrides, free), comm)
    comm.barrier()
    assert document["status"] == "failed"
    assert "level 2 of 2 failed at its start: interrupted; the best iterate of the one before" in document["reason"]
    assert {row["level"] for row in history(tmp_path)} == {"1"}
    checkpoint = tmp_path / "run" / "checkpoint" / "latest.npz"
    with np.load(checkpoint) as data:
        assert data["theta"].shape == (4, 25)  # 24 cells have 25 nodes
    again = configure(tmp_path / "again", free, f"field.theta={checkpoint}")
    found = tasks.run_solve(again, comm)["objective"]["total"]
    start = tasks.run_solve(configure(tmp_path / "start", free), comm)["objective"]["total"]
    assert found < 0.9 * start
    assert found == pytest.approx(float(history(tmp_path)[-1]["total"]), rel=0.05)  # J of the coarse mesh


def test_the_true_j_needs_a_mesh(comm: MPI.Comm, tmp_path: Path) -> None:
    config = configure(tmp_path, 'optimiser.stop="verified"', "particles.count=20")
    with pytest.raises(InputError, match="no mesh whose error") as caught:
        tasks.run_train_particles(config, comm)
    assert (caught.value.key, caught.value.value) == ("optimiser.stop", "verified")
    comm.barrier()
    assert not (tmp_path / "run").exists()


def test_levels_need_a_mesh(comm: MPI.Comm, tmp_path: Path) -> None:
    """Particles cannot be trained so; that J on them is asked for does no harm."""
    config = configure(tmp_path, "optimiser.levels=2", "particles.count=20")
    with pytest.raises(InputError, match="no mesh") as caught:
        tasks.run_train_particles(config, comm)
    assert caught.value.key == "optimiser.levels"
    comm.barrier()
    assert not (tmp_path / "run").exists()
    assert tasks.run_solve_particles(config, comm)["status"] == "done"
    assert tasks.run_compare(config, comm, overwrite=True)["status"] == "done"


def test_solve_leaves_the_densities_that_the_training_left(comm: MPI.Comm, tmp_path: Path) -> None:
    """Byte by byte: ParaView's files, and what the figures are drawn from."""
    tasks.run_train(configure(tmp_path), comm)
    tasks.run_solve(configure(tmp_path / "again"), comm, theta=tmp_path / "run")
    comm.barrier()
    folders = [tmp_path / "run", tmp_path / "again" / "run"]
    names = [sorted(file.name for file in folder.glob("densities*")) for folder in folders]
    assert names[0] == names[1]
    assert len(names[0]) > 2
    for name in names[0]:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    one, other = (Snapshots.load(folder / "figures" / "snapshots.npz") for folder in folders)
    np.testing.assert_array_equal(one.density, other.density)
    np.testing.assert_array_equal(one.velocity, other.velocity)


def test_every_figure_is_drawn_once(comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history last, when its certificate is known; a figure that fails is a warning in the result all the same."""
    drawn: list[tuple[Any, Any, bool]] = []

    def draw(folder: Path, only: Any, without: Any) -> list[str]:
        certified = "certificate" in json.loads((folder / "result.json").read_text()) if only else False
        drawn.append((tuple(only), tuple(without), certified))
        return ["history.png could not be drawn"] if only else []

    monkeypatch.setattr("eulerian.app.tasks.drawing._failures_of_drawing", draw)
    document = tasks.run_train(configure(tmp_path), comm)
    if comm.rank == 0:
        assert drawn == [((), ("history",), False), (("history",), (), True)]
    assert any("history.png could not be drawn" in text for text in document["warnings"])
    comm.barrier()
    assert result(tmp_path)["warnings"] == document["warnings"]


@pytest.mark.parametrize(
    ("run", "place"),
    [
        (tasks.run_solve, "density_observer.DensityWriter.write"),
        (tasks.run_solve, "density_observer.draw_figures"),
        (tasks.run_train, "density_observer.draw_figures"),
    ],
)
def test_output_that_fails_keeps_the_numbers(
    comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any, place: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ComputationError("disk full")

    monkeypatch.setattr(f"eulerian.app.tasks.{place}", fail)
    document = run(configure(tmp_path), comm)
    comm.barrier()
    assert result(tmp_path)["status"] == "failed"
    assert "disk full" in document["reason"]
    assert document["objective"]["total"] > 0.0
    assert (tmp_path / "run" / "theta.npz").exists()


@pytest.mark.parametrize(("error", "reason"), [(KeyboardInterrupt, "interrupted"), (ZeroDivisionError, "ZeroDivision")])
def test_an_unexpected_end_is_told_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], reason: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("eulerian.optimise.stages.Descent", fail)
    path = tmp_path / str(MPI.COMM_WORLD.rank)
    with pytest.raises(error):
        tasks.run_train(configure(path), MPI.COMM_SELF)
    assert result(path)["status"] == "failed"
    assert reason in result(path)["reason"]


def test_result_is_the_last_file(comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    write = RunFolder.write_result

    def spy(run: RunFolder, document: dict[str, Any]) -> None:
        comm.barrier()
        seen.append(names(tmp_path))
        comm.barrier()
        write(run, document)

    monkeypatch.setattr(RunFolder, "write_result", spy)
    tasks.run_train(configure(tmp_path), comm)
    comm.barrier()
    assert names(tmp_path) - seen[0] == {"result.json"}


def test_labels_and_a_trained_readout(comm: MPI.Comm, tmp_path: Path) -> None:
    config = configure(
        tmp_path,
        'density.initial=[{kind="gaussian", mean=[-0.5], std=0.3}, {kind="gaussian", mean=[0.5], std=0.3, label=1}]',
        'objective.terminal={kind="cross_entropy", trainable=true, weights=[[-1.0],[1.0]], bias=[0.0,0.0]}',
    )
    document = tasks.run_train(config, comm)
    comm.barrier()
    assert len(document["mass"]["initial"]) == len(document["moments"]["mean"]) == 2
    shares = document["classification"]
    assert shares["initial"]["accuracy"] == pytest.approx(0.95221, abs=1e-3)  # Φ(0.5/0.3)
    assert len(shares["final"]["correct"]) == 2
    with np.load(tmp_path / "run" / "theta.npz") as data:
        assert data["theta"].shape == (3, 2)
        assert data["readout"].shape == (4,)
    assert (tmp_path / "run" / "figures" / "classes.npz").exists()


def test_targets_by_label_are_no_classes(comm: MPI.Comm, tmp_path: Path) -> None:
    """How much of each label comes to its own target is told, but there is no figure of classes."""
    config = configure(
        tmp_path,
        'density.initial=[{kind="gaussian", mean=[-0.5], std=0.3}, {kind="gaussian", mean=[0.5], std=0.3, label=1}]',
        'objective.terminal={kind="quadratic", targets=[[-0.5], [0.5]]}',
    )
    assert tasks.run_solve(config, comm)["classification"]["final"]["accuracy"] > 0.9
    comm.barrier()
    assert (tmp_path / "run" / "figures" / "targets.npz").exists()
    assert not (tmp_path / "run" / "figures" / "classes.npz").exists()


@pytest.mark.figures
def test_three_dimensions_are_seen_from_two_sides(comm: MPI.Comm, tmp_path: Path) -> None:
    config = configure(
        tmp_path,
        "domain.box={lower=[-1.0,-1.0,-1.0], upper=[1.0,1.0,1.0], cells=[3,3,3]}",
        "density.initial.0.mean=[0.0,0.0,0.0]",
        "objective.terminal.target=[0.0,0.0,0.0]",
        "field.features=translation",
        "field.theta=[[0.1,0.0,0.0]]",
    )
    assert tasks.run_solve(config, comm)["status"] == "done"
    comm.barrier()
    assert {"figures/densities.png", "figures/sights.npz"} <= names(tmp_path, "figures/*")
    assert "densities.pvd" in names(tmp_path)


def test_no_densities_on_request(comm: MPI.Comm, tmp_path: Path) -> None:
    tasks.run_solve(configure(tmp_path, "output.densities=0"), comm)
    comm.barrier()
    assert not names(tmp_path, "densities*")


def test_mass_outside_the_domain_is_in_the_result(comm: MPI.Comm, tmp_path: Path) -> None:
    """Of initial densities and of targets."""
    term = '{kind = "gaussian", mean = [1.5], std = 0.5}'
    target = f'objective.terminal={{kind = "l2", target = [{term}]}}'
    found = tasks.run_solve(configure(tmp_path, f"density.initial=[{term}]", target), comm)["warnings"]
    assert [text.split(" lies outside the domain")[0] for text in found if "outside" in text] == [
        "15.8 % of the mass of density.initial.0",
        "15.8 % of the mass of objective.terminal.target.0",
    ]
    comm.barrier()
    assert result(tmp_path)["warnings"] == found


def test_warnings_reach_the_terminal_and_the_result(
    comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from eulerian.app.tasks import solve

    build = solve.build_on_own_mesh

    def warning_twice(config: Config, comm: MPI.Comm, run: Path | None = None) -> Any:
        for _ in range(2):
            warn(comm, "40 % of it is elsewhere")
        return build(config, comm, run)

    monkeypatch.setattr(solve, "build_on_own_mesh", warning_twice)
    document = tasks.run_solve(configure(tmp_path), comm, progress=Progress.of(comm))
    assert document["warnings"] == ["40 % of it is elsewhere"]  # on every rank
    comm.barrier()
    assert result(tmp_path)["warnings"] == document["warnings"]
    assert capsys.readouterr().out.count("Warning: 40 % of it is elsewhere") == (comm.rank == 0)
