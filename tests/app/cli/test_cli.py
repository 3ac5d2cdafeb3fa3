"""The command line as its users meet it: exit codes, messages, files."""

import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from jobs import Here, run_group
from paths import PACKAGE

from eulerian import __version__
from eulerian.app import tasks
from eulerian.app.tasks.study import StudyPlan

MODEL = """
[domain]
box = { lower = [-1.0], upper = [1.0], cells = [24] }
[[density.initial]]
kind = "gaussian"
mean = [-0.2]
std = 0.3
[field]
kind = "linear"
features = "translation"
layers = 2
theta = [[0.3]]
[objective]
kinetic = 0.5
[objective.terminal]
kind = "quadratic"
target = [0.2]
[optimiser]
max_iterations = 2
[output]
densities = 2
"""

pytestmark = pytest.mark.one_process

FIGURES = ("densities.png", "boundary.png", "animation.gif")  # of a solve; its box is small, so that it is quick

COMMANDS = (
    "solve",
    "train",
    "ideal",
    "verify",
    "compare",
    "sweep",
    "push",
    "sample",
    "runs",
    "mesh",
    "plot",
    "doctor",
    "init",
    "schema",
    "completion",
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.toml"
    path.write_text(MODEL)
    return path


def eulerian(cwd: Path, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = run_group([sys.executable, "-m", "eulerian", *map(str, arguments)], 60, cwd)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


# -- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_is_cheap(tmp_path: Path, arguments: list[str]) -> None:
    source = (
        "import sys\nfrom eulerian.app import cli\n"
        "try:\n    cli.entry()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print([m for m in ('mpi4py', 'petsc4py', 'dolfinx', 'pydantic', 'matplotlib', 'numpy') if m in sys.modules])"
    )
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = run_group([sys.executable, "-c", source, *arguments], 60, tmp_path)
        seconds.append(time.perf_counter() - started)
        assert done.stdout.endswith("[]\n"), done.stdout + done.stderr
        if min(seconds) < 0.3:
            break
    assert min(seconds) < 0.3


def test_help_names_every_command_and_gives_examples(here: Here) -> None:
    text = here("--help").stdout
    for name in COMMANDS:
        assert re.search(rf"^ +{name} ", text, re.MULTILINE)
        assert f"examples:\n  eulerian {name}" in here(name, "--help").stdout


def shrink(configuration: Path) -> None:
    """Few cells, layers, iterations and particles."""
    text = re.sub(r"cells = \[\d+, \d+\]", "cells = [8, 8]", configuration.read_text())
    text = re.sub(r"(?m)^count = \d+", "count = 200", text)
    configuration.write_text(re.sub(r"(?m)^(layers|max_iterations) = \d+", r"\1 = 2", text))


@pytest.fixture
def prepared(tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the examples of the help are about, small: a mesh, points, configurations and their runs."""
    (tmp_path / "new.csv").write_text("pc1,pc2,class\n0.1,0.2,0\n-0.3,0.1,2\n")
    for name in ("gaussian", "wine", "crowds", "moons"):
        here("init", name)
        shrink(tmp_path / f"{name}.toml")
        here("train", f"{name}.toml", "--set", 'ideal.certificate="none"', "--set", "output.densities=0")
    plan = partial(StudyPlan, halvings=(-1, 0), counts=(64,), replicates=2, reference_count=64, reference_replicates=2)
    monkeypatch.setattr(tasks, "StudyPlan", plan)


@pytest.mark.slow
@pytest.mark.usefixtures("prepared")
def test_the_examples_of_the_help_run_and_move_something(tmp_path: Path, here: Here) -> None:
    texts = [here("--help").stdout, *(here(name, "--help").stdout for name in COMMANDS)]
    found = [line for text in texts for line in re.findall(r"(?m)^  (.*\beulerian .*)$", text.split("examples:")[1])]
    lines = [re.split(r" {2,}", line)[0].partition("eulerian ")[2] for line in found]  # two blanks: what it does
    assert len(lines) > 20
    for line in dict.fromkeys(lines):
        words = line.split()
        if words[0] == "doctor":  # looks at this machine: see test_doctor.py
            continue
        if words[0] not in ("plot", "runs", "completion") and "--list" not in words and "--overwrite" not in words:
            words.append("--overwrite")
        if "--animate" in words:  # a film of few pictures, the last number that is given counts
            words += ["--frames", "3"]
        done = here(*words)
        assert "nothing moves" not in done.stdout, line
        if words[0] == "init":  # it has written over what was small
            for configuration in tmp_path.glob("*.toml"):
                shrink(configuration)


def test_version(tmp_path: Path) -> None:
    assert eulerian(tmp_path, "--version").stdout == f"eulerian {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["trian", "model.toml"], "invalid choice: 'trian'"),
        (["train"], "CONFIG.toml"),
        (["train", "model.toml", "--ouput", "x"], "--ouput"),
        (["train", "model.toml", "--set"], "--set"),
    ],
)
def test_wrong_usage_is_wrong_input(arguments: list[str], said: str, here: Here) -> None:
    done = here(*arguments, code=1)
    assert said in done.stderr
    assert not done.stdout


def test_a_wrong_option_of_a_command_shows_its_own_usage(here: Here) -> None:
    for arguments in (["train", "a.toml", "--ouput", "x"], ["plot", "run", "--animat"], ["init", "a", "b", "c"]):
        said = here(*arguments, code=1).stderr
        assert said.startswith(f"usage: eulerian {arguments[0]} ")
        assert f"eulerian {arguments[0]}: unrecognized arguments" in said
    assert here("--wrong", "init", code=1).stderr.startswith("usage: eulerian [-h]")


def test_short_names_of_options(model: Path, here: Here) -> None:
    assert here("-V").stdout == here("--version").stdout
    done = here("solve", model.name, "-q")
    assert done.stdout + done.stderr == ""
    assert "not allowed with" in here("solve", model.name, "-q", "-v", code=1).stderr


def test_more_words(model: Path, here: Here) -> None:
    said = here("train", model.name, "-v").stdout
    for words in ("iteration    2", "time: setup ", "evaluations of J: ", "versions: eulerian "):
        assert words in said
    assert "versions: " not in here("train", model.name, "--overwrite").stdout


def test_more_words_tell_where_an_error_comes_from(tmp_path: Path, model: Path) -> None:
    for arguments in (["solve", model, "-v", "--set", "field.layers=0"], ["plot", "nowhere", "-v"]):
        done = run_group([sys.executable, "-m", "eulerian", *map(str, arguments)], 60, tmp_path)
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert done.stderr.startswith(f"eulerian {arguments[0]}: ")


def test_only_rank_0_explains_the_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_RANK", "1")
    assert eulerian(tmp_path, "train", code=1).stderr == ""
    assert eulerian(tmp_path, "--help").stdout == ""
    assert eulerian(tmp_path, "init", "gaussian").stdout == ""
    assert not (tmp_path / "gaussian.toml").exists()


# -- solve, train, verify --------------------------------------------------------------------------------------------


def test_solve_train_verify(tmp_path: Path, model: Path, here: Here) -> None:
    for command, run in (("solve", partial(eulerian, tmp_path)), ("train", here), ("verify", here)):
        done = run(command, model.name, "--output", "run", "--overwrite")
        document = json.loads((tmp_path / "run" / "result.json").read_text())
        assert document["command"] == command
        assert f"{document['status']}: {document['reason']}" in done.stdout
        assert "written to run: result.json" in done.stdout
        assert not done.stderr


def test_training_says_what_it_does(tmp_path: Path, model: Path, here: Here) -> None:
    lines = here("train", model.name).stdout.splitlines()
    assert lines[0].startswith(
        "24 cells in 1-D, density of degree 1, 1 label; linear field, 2 layers of 1 parameter; 1 rank"
    )
    assert [line.split()[:2] for line in lines if line.startswith("iteration")] == [
        ["iteration", str(i)] for i in range(3)
    ]
    assert any(re.match(r" +start +end$", line) for line in lines)
    for part in ("J", "  terminal", "  kinetic"):
        assert any(re.match(rf"{part} +\S+ +\S+$", line) for line in lines)
    assert (tmp_path / "runs" / "run" / "result.json").exists()


def test_quiet(model: Path, here: Here) -> None:
    done = here("train", model.name, "--quiet")
    assert done.stdout + done.stderr == ""


def test_overrides(tmp_path: Path, model: Path, here: Here) -> None:
    options = ["--set", "objective.kinetic=2.0", "--set", "field.layers=3", "--output", "elsewhere"]
    here("solve", model.name, *options)
    document = json.loads((tmp_path / "elsewhere" / "result.json").read_text())
    assert document["time"]["layers"] == 3
    assert document["objective"]["kinetic"] == pytest.approx(0.09, rel=1e-9)  # λ/2 |v|² T


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "objective.kinetik=1.0"], "kinetik"),
        (["--set", "objective.kinetic=-1.0"], "objective.kinetic"),
        (["--set", "objective.terminal.target=[1.0,2.0,3.0]"], "objective.terminal.target"),
        (["--set", "domain={file='nowhere.msh'}"], "nowhere.msh"),
        (["--output", "model.toml"], "output.directory"),
        (["--set", "density.initial.0.mean=[90.0]"], "density.initial.0"),
    ],
)
def test_wrong_input(tmp_path: Path, model: Path, options: list[str], said: str, here: Here) -> None:
    done = here("train", model.name, *options, code=1)
    assert done.stderr.startswith("eulerian train: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["model.toml"]


def test_a_missing_configuration(tmp_path: Path) -> None:
    assert "nowhere.toml" in eulerian(tmp_path, "train", "nowhere.toml", code=1).stderr


def test_a_run_is_kept(model: Path, here: Here) -> None:
    here("solve", model.name)
    assert "--overwrite" in here("solve", model.name, code=1).stderr


def test_a_failed_computation(tmp_path: Path, model: Path) -> None:
    options = ["--set", "field.theta=[[1e6]]", "--output", "run"]
    done = eulerian(tmp_path, "solve", model.name, *options, code=2)
    assert "solver.max_steps_per_layer" in done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"


def test_a_status_of_failure_is_told(tmp_path: Path, model: Path) -> None:
    source = (
        "from eulerian.app import cli, tasks\n"
        "tasks.run_train = lambda *_, **__: {'status': 'failed', 'reason': 'the line search gave up'}\n"
        "cli.entry()"
    )
    done = run_group([sys.executable, "-c", source, "train", str(model)], 60, tmp_path)
    assert (done.returncode, done.stderr) == (2, "eulerian train: the line search gave up\n")


def test_an_unexpected_error_has_a_traceback(tmp_path: Path, model: Path) -> None:
    source = "from eulerian.app import cli, tasks\ntasks.run_train = None\ncli.entry()"
    done = run_group([sys.executable, "-c", source, "train", str(model)], 60, tmp_path)
    assert done.returncode == 2
    assert "TypeError" in done.stderr


# -- mesh, plot, init ------------------------------------------------------------------------------------------------


def test_mesh(tmp_path: Path, here: Here) -> None:
    disk = next(PACKAGE.rglob("disk.msh"))
    assert "triangles" in here("mesh", disk).stdout
    here("mesh", disk, "--convert", "disk.vtu", "--quiet")
    assert (tmp_path / "disk.vtu").exists()
    assert "disk.vtu" in here("mesh", disk, "--convert", "disk.vtu", code=1).stderr
    here("mesh", disk, "--convert", "disk.vtu", "--overwrite")
    assert here("mesh", "nowhere.msh", code=1).stderr.startswith("eulerian mesh: nowhere.msh: ")


@pytest.mark.figures
def test_plot_draws_again(tmp_path: Path, model: Path, here: Here) -> None:
    here("train", model.name, "--output", "run")
    model.unlink()  # nothing but the run folder is needed
    names = ["run/figures/densities.png", "run/figures/boundary.png", "run/figures/history.png"]
    before = [(tmp_path / name).read_bytes() for name in names]
    for name in names:
        (tmp_path / name).unlink()
    assert here("plot", "run").stdout.split() == names
    assert [(tmp_path / name).read_bytes() for name in names] == before


def test_push_and_sample_use_a_run(tmp_path: Path, model: Path, here: Here) -> None:
    here("solve", model.name, "--output", "run")
    model.unlink()  # nothing but the run folder is needed
    assert "12 sobol points" in here("sample", "run", "-n", 12, "--method", "sobol", "--seed", 3).stdout
    lines = (tmp_path / "run/sampled.csv").read_text().splitlines()
    assert lines[0] == "x,label,log_density"
    done = here("push", "run", "--samples", "run/sampled.csv", "--columns", "0", "--output", "out.csv")
    assert done.stdout.startswith("12 points moved; 0 of those")
    assert "out.csv" in done.stdout
    moved = (tmp_path / "out.csv").read_text().splitlines()
    assert float(moved[1].split(",")[0]) == pytest.approx(float(lines[1].split(",")[0]) + 0.3, abs=1e-12)
    assert (tmp_path / "out.json").exists()
    again = ["push", "run", "--samples", "run/sampled.csv", "--output", "out.csv"]
    assert "--overwrite" in here(*again, code=1).stderr
    assert here(*again, "--overwrite", "--quiet").stdout == ""
    assert here(*again, "--columns", "a", "--overwrite", code=1).stderr.startswith("eulerian push: ")
    assert "--output: exists already" in here("sample", "run", "-n", 5, code=1).stderr
    assert "is no run folder" in here("sample", ".", "-n", 5, code=1).stderr
    assert "-n" in here("sample", "run", "-n", "many", code=1).stderr


@pytest.mark.mpi
def test_two_ranks_push_together(tmp_path: Path, model: Path, here: Here, mpirun) -> None:
    here("solve", model.name, "--output", "run", "--quiet")
    command = [sys.executable, "-m", "eulerian"]
    done = mpirun(2, [*command, "sample", "run", "-n", "5"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("5 random points") == 1
    done = mpirun(2, [*command, "push", "run", "--samples", "run/sampled.csv"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("5 points moved") == 1
    done = mpirun(2, [*command, "push", "run", "--samples", "none.csv"], cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("eulerian push: ") == 1


def test_plot_for_a_paper(tmp_path: Path, model: Path, here: Here) -> None:
    here("solve", model.name, "--output", "run")
    names = ["run/figures/densities.pdf", "run/figures/boundary.pdf"]
    assert here("plot", "run", "--format", "pdf").stdout.split() == names
    assert (tmp_path / "run" / "figures" / "densities.pdf").read_bytes().startswith(b"%PDF")
    assert "'gif'" in here("plot", "run", "--format", "gif", code=1).stderr


def test_plot_by_characteristics(tmp_path: Path, model: Path, here: Here) -> None:
    here("solve", model.name, "--output", "run")
    model.unlink()  # nothing but the run folder is needed
    names = here("plot", "run", "--exact", "--format", "svg").stdout.split()
    assert names[:2] == ["run/figures/densities.svg", "run/figures/densities_exact.svg"]
    assert "by characteristics" in (tmp_path / "run" / "figures" / "densities_exact.svg").read_text()
    assert here("plot", "run", "--format", "svg").stdout.split() == names  # they are kept


def test_a_run_may_go_without_figures(tmp_path: Path, model: Path, here: Here) -> None:
    here("solve", model.name, "--output", "run", "--set", "output.figures=false")
    assert not (tmp_path / "run" / "figures").exists()
    assert (tmp_path / "run" / "result.json").is_file()
    assert "no figures" in here("plot", "run", "--exact", code=1).stderr


def test_plot_animates(tmp_path: Path, model: Path, here: Here) -> None:
    here("solve", model.name, "--output", "run")
    model.unlink()  # nothing but the run folder is needed
    options = ["--frames", "4", "--particles", "5", "--fps", "10"]
    done = here("plot", "run", "--animate", *options)
    assert done.stdout.split() == [f"run/figures/{name}" for name in FIGURES]
    assert (tmp_path / "run" / "figures" / "animation.gif").read_bytes().startswith(b"GIF89a")
    assert "--animate" in here("plot", "run", "--frames", "4", code=1).stderr
    assert "--frames" in here("plot", "run", "--animate", "--frames", "1", code=1).stderr
    assert "is no run folder" in here("plot", tmp_path, "--animate", code=1).stderr
    (tmp_path / "run" / "theta.npz").unlink()
    assert "theta.npz" in here("plot", "run", "--animate", code=1).stderr


@pytest.mark.mpi
def test_two_ranks_animate_together(model: Path, here: Here, mpirun) -> None:
    here("solve", model.name, "--output", "run")
    done = mpirun(2, [sys.executable, "-m", "eulerian", "plot", "run", "--animate", "--frames", "3"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"run/figures/{name}" for name in FIGURES]


def test_a_figure_that_fails_does_not_hide_others(
    tmp_path: Path, model: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    here("train", model.name, "--output", "run")

    def broken(*_: object) -> None:
        raise RuntimeError("no latex here")

    with monkeypatch.context() as patch:
        patch.setattr("eulerian.app.figures.densities.density_curves", broken)
        patch.setattr("eulerian.app.figures.animation.animated_figure", broken)
        done = here("plot", "run", code=2)
        assert done.stdout.split() == ["run/figures/boundary.png", "run/figures/history.png"]
        assert done.stderr.startswith("eulerian plot: run/figures/densities.png could not be drawn: RuntimeError: no l")
        assert done.stderr.count("\n") == 1
        done = here("plot", "run", "--animate", "--frames", "3", "--particles", "3", code=2)
        assert done.stdout.split() == ["run/figures/boundary.png", "run/figures/history.png"]
        assert done.stderr.count("could not be drawn") == 2
    (tmp_path / "run" / "history.csv").write_text("rubbish\n1\n")
    done = here("plot", "run", code=1)
    assert "history.png could not be drawn" in done.stderr
    assert "run/figures/densities.png" in done.stdout


def test_plot_of_nothing(tmp_path: Path, model: Path, here: Here) -> None:
    assert "is no run folder" in here("plot", tmp_path, code=1).stderr
    here("verify", model.name, "--output", "run")
    assert "nothing to draw" in here("plot", "run", code=1).stderr


def test_init(tmp_path: Path, here: Here) -> None:
    listed = [line.split(maxsplit=1) for line in here("init", "--list").stdout.splitlines()]
    assert {"dumbbell", "gaussian", "wine"} <= {name for name, _ in listed}
    assert all(len(text) > 30 and text.endswith((".", ")")) for _, text in listed)
    assert "eulerian train gaussian.toml" in here("init").stdout
    assert (tmp_path / "gaussian.toml").exists()
    assert "overwritten" in here("init", code=1).stderr
    here("init", "gaussian", "--overwrite", "--quiet")
    here("init", "wine", "deep/er")
    assert (tmp_path / "deep" / "er" / "wine.toml").exists()
    assert "eulerian ideal transport.toml" in here("init", "transport").stdout
    assert "cheese" in here("init", "cheese", code=1).stderr


def test_a_reader_that_leaves(tmp_path: Path) -> None:
    """`eulerian init --list | true`."""
    command = [sys.executable, "-u", "-m", "eulerian", "init", "--list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


# -- both methods ----------------------------------------------------------------------------------------------------


def test_compare(tmp_path: Path, model: Path, here: Here) -> None:
    small = ["--set", "particles.count=64", "--set", "output.densities=0"]
    here("solve", model.name, "--output", "run", "--quiet")
    done = here("compare", model.name, *small, "--theta", "run", "--output", "both")
    assert "Gradients: the two differ by" in done.stdout
    document = json.loads((tmp_path / "both" / "result.json").read_text())
    assert document["command"] == "compare"
    assert document["compare"]["particles"] == 64
    assert document["compare"]["parts"]["kinetic"] == pytest.approx(document["objective"]["kinetic"])
    refused = here("compare", model.name, "--degrees", "1", code=1)
    assert "--study" in refused.stderr
    missing = here("compare", model.name, "--theta", "nowhere.npz", "--output", "other", code=1)
    assert "nowhere.npz" in missing.stderr
    assert not (tmp_path / "other").exists()


# -- several ranks ---------------------------------------------------------------------------------------------------


@pytest.mark.mpi
def test_two_ranks_train_together(tmp_path: Path, model: Path, here: Here, mpirun) -> None:
    command = [sys.executable, "-m", "eulerian", "train", str(model), "--output", "run"]
    done = mpirun(2, command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("written to run") == 1
    document = json.loads((tmp_path / "run" / "result.json").read_text())
    assert document["ranks"] == 2
    here("train", model.name, "--output", "alone")
    alone = json.loads((tmp_path / "alone" / "result.json").read_text())
    assert document["objective"]["total"] == pytest.approx(alone["objective"]["total"], rel=1e-10)


@pytest.mark.mpi
def test_what_one_process_does_ends_under_a_launcher(model: Path, here: Here, mpirun) -> None:
    """Though it imports what starts MPI; it is told once, and a failure is everybody's."""
    here("train", model.name, "--output", "run", "--quiet")
    disk = next(PACKAGE.rglob("disk.msh"))
    for ranks, code, lines, arguments in (
        (2, 0, 3, ["plot", "run"]),
        (3, 0, 3, ["plot", "run", "--format", "pdf"]),
        (2, 0, 9, ["mesh", disk, "--convert", "disk.vtu"]),
        (2, 0, 2, ["init", "gaussian"]),
        (2, 0, 3, ["runs", "run"]),
        (2, 1, 1, ["runs", "nowhere"]),
        (2, 0, 1, ["--version"]),
        (2, 1, 1, ["init", "cheese"]),
        (2, 1, 1, ["plot", "nowhere"]),
        (3, 1, 1, ["plot", "nowhere"]),
    ):
        done = mpirun(ranks, [sys.executable, "-m", "eulerian", *arguments], timeout=60)
        assert done.returncode == code, done.stderr
        assert (done.stdout + done.stderr).count("\n") == lines


@pytest.mark.mpi
def test_more_ranks_than_cores(tmp_path: Path, model: Path, mpirun) -> None:
    """Bound to one core, two ranks are too many; the doctor says so before."""
    bound = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    train = [*bound, sys.executable, "-m", "eulerian", "train", str(model), "--output", "run"]
    done = mpirun(2, train)
    assert done.returncode == 0, done.stderr
    (warning,) = (
        text for text in json.loads((tmp_path / "run" / "result.json").read_text())["warnings"] if "share" in text
    )
    assert warning.startswith("2 ranks share 1 core of a node")
    assert done.stdout.count(f"Warning: {warning}") == 1


@pytest.mark.mpi
@pytest.mark.parametrize(("cells", "advice"), [(300, "one rank is as fast"), (401, None)])
def test_few_cells_for_many_ranks(tmp_path: Path, model: Path, mpirun, cells: int, advice: str | None) -> None:
    solve = [sys.executable, "-m", "eulerian", "solve", str(model), "--output", "run"]
    done = mpirun(2, [*solve, "--set", f"domain.box.cells=[{cells}]"])
    assert done.returncode == 0, done.stderr
    warnings = json.loads((tmp_path / "run" / "result.json").read_text())["warnings"]
    found = [text for text in warnings if "ranks" in text]
    assert [text.rpartition(": ")[2] for text in found] == ([] if advice is None else [advice])


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("options", "said"),
    [(["--set", "objective.kinetik=1.0"], "kinetik"), (["--set", "domain={file='nowhere.msh'}"], "nowhere.msh")],
)
def test_two_ranks_tell_wrong_input_once(tmp_path: Path, model: Path, mpirun, options: list[str], said: str) -> None:
    done = mpirun(2, [sys.executable, "-m", "eulerian", "train", str(model), *options], timeout=30)
    assert done.returncode == 1
    assert done.stderr.count("eulerian train:") == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.mpi
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_alone_with_its_error_ends_the_job(model: Path, mpirun, rank: int) -> None:
    source = f"""
import sys
from eulerian.app import cli, tasks
from eulerian.base import errors, parallel
def train(config, comm, **_):
    if comm.rank == {rank}:
        raise errors.InputError("only here", key="some.key")
    comm.barrier()
tasks.run_train = train
parallel.SECONDS_TO_MEET = 0.5
sys.argv = ["eulerian", "train", {str(model)!r}]
cli.entry()
"""
    done = mpirun(2, source, timeout=30)
    assert done.returncode == 1
    assert done.stderr.count("eulerian train: some.key: only here") == 1


def test_a_quiet_mesh_command_reads_the_file(here: Here) -> None:
    here("mesh", "nowhere.msh", "--quiet", code=1)


def test_a_reader_that_leaves_does_not_stop_the_computation(tmp_path: Path, model: Path) -> None:
    command = f"{sys.executable} -m eulerian solve {model} --output run | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").is_file()
