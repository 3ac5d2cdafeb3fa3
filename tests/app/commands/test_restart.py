"""A forward solve that is interrupted and gone on with, from other folders and on other numbers of ranks too."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpi4py import MPI

import h5py
import numpy as np
import pytest
from jobs import Here, environment
from paths import MESHES
from problems import LABELLINGS, problem_config

from eulerian.app import tasks
from eulerian.app.build.network import build
from eulerian.app.config import Config, parse_config
from eulerian.app.runs import solve_checkpoint
from eulerian.app.runs.solve_checkpoint_file import Header, read_header
from eulerian.app.tasks.density_observer import DensityObserver
from eulerian.base.errors import InputError
from eulerian.transport.observer import SweepState
from eulerian.transport.time_grid import TimeSteps

pytestmark = pytest.mark.one_process


# Three labels that move together leave lanes of the compiled loops empty.
THREE = [
    {"kind": "gaussian", "mean": [0.2 * y - 0.3, 0.1], "std": 0.2, "label": y, "weight": 1.0 + y} for y in range(3)
]


class Killed(BaseException):
    """Nothing catches it."""


def configure(folder: Path, *overrides: str, output: str = "run", labelling: str = LABELLINGS[0]) -> Config:
    """Every term of J, three layers of a few steps, snapshots between the steps."""
    table = problem_config(2, 1, labelling, 4, solver={"cfl": 0.15}, output={"densities": 5})
    if labelling == LABELLINGS[1]:
        table["density"]["initial"] = THREE
        table["objective"]["terminal"] = {"kind": "quadratic", "target": [0.4, 0.2]}
    return parse_config(table, folder, overrides, output=folder / output)


def stop_after(monkeypatch: pytest.MonkeyPatch, passed: int) -> None:
    """The next solve ends for good once it has come past that many places."""
    at, count = DensityObserver.at, 0

    def counted(self: DensityObserver, state: SweepState) -> None:
        nonlocal count
        at(self, state)
        count += 1
        if count == passed:
            raise Killed

    monkeypatch.setattr(DensityObserver, "at", counted)


def interrupted(config: Config, passed: int) -> None:
    """Leave a solve that was killed."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, passed)
        with pytest.raises(Killed):
            tasks.run_solve(config)
    assert not (config.output.directory / "result.json").exists()


def products(folder: Path, pattern: str = "**/*") -> dict[str, bytes]:
    """All files of a run but for those that tell folders and times."""
    names = sorted(path for path in folder.glob(pattern) if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in names
        if path.suffix not in (".json", ".toml", ".png", ".h5", ".log")
    }


def densities(folder: Path) -> dict[str, dict[str, Any]]:
    """All that is in the kept densities but for the configuration."""
    found = {}
    for path in sorted((folder / "checkpoint").glob("*.h5")):
        with h5py.File(path) as file:
            arrays = {name: file[name][()].tobytes() for name in file if name != "config"}
            found[path.name] = arrays | {name: str(value) for name, value in file.attrs.items()}
    return found


def numbers(document: dict[str, Any]) -> dict[str, Any]:
    verified = document["verified"] and {**document["verified"], "seconds": 0.0}
    kept = {key: value for key, value in document.items() if key not in ("seconds", "warnings", "theta")}
    return {**kept, "verified": verified}


def require_same(folder: Path, other: Path) -> None:
    """Two runs left the same, to the last bit."""
    results = [numbers(json.loads((each / "result.json").read_text())) for each in (folder, other)]
    assert results[0] == results[1]
    assert products(folder) == products(other)
    assert densities(folder) == densities(other)
    assert "densities_000004.vtu" in products(folder)


@pytest.mark.parametrize("labelling", LABELLINGS)
def test_an_observer_changes_nothing(labelling: str) -> None:
    """J, its gradient and the snapshots; the observer's stops are at every step."""

    class Everywhere:
        steps, seconds = None, 0.0

        def begin(self, steps: TimeSteps) -> range:
            return range(steps.ends[-1])

        def restore(self, _step: int) -> None:
            return None

        def at(self, state: SweepState) -> None:
            pass

    config = configure(Path(), labelling=labelling)
    problem, observed = build(config), build(config)
    theta = problem.initial_theta
    assert sum(problem.steps) == 0 < problem.value(theta) == observed.value_observed(theta, Everywhere())
    assert min(problem.steps) > 2
    assert problem.parts == observed.parts
    for ours, theirs in zip(problem.snapshots(theta, 7), observed.snapshots(theta, 7), strict=True):
        np.testing.assert_array_equal(ours[1], theirs[1])
    assert np.array_equal(problem.value_and_gradient(theta)[1], observed.value_and_gradient(theta)[1])
    assert observed.evaluations == 2, "a gradient needs another forward solve"


@pytest.mark.parametrize("labelling", LABELLINGS)
def test_a_solve_goes_on_as_if_it_had_never_stopped(tmp_path: Path, labelling: str) -> None:
    whole = configure(tmp_path, output="whole", labelling=labelling)
    tasks.run_solve(whole)
    count = len(densities(whole.output.directory))
    assert count > 6
    for passed in (1, 2, 4, count):
        config = configure(tmp_path, labelling=labelling)
        shutil.rmtree(config.output.directory, ignore_errors=True)
        interrupted(config, passed)
        assert len(densities(config.output.directory)) == passed
        computed = tasks.run_solve(config, resume=True)
        require_same(config.output.directory, whole.output.directory)
        assert computed["evaluations"] == 1
    before = {path: path.stat().st_mtime_ns for path in config.output.directory.rglob("*")}
    assert tasks.run_solve(config, resume=True) == computed  # of a solve that is complete
    assert before == {path: path.stat().st_mtime_ns for path in config.output.directory.rglob("*")}


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def turn_a_bit(path: Path) -> None:
    with h5py.File(path) as file:
        place = file["density"].id.get_offset() + 83
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def put_something_else(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["density"] = np.zeros(3)


def put_another_time(path: Path) -> None:
    shutil.copy(sorted(path.parent.glob("*.h5"))[-2], path)


def make_newer(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 99


DAMAGES: list[Callable[[Path], None]] = [
    cut,
    turn_a_bit,
    put_something_else,
    put_another_time,
    make_newer,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200)),
    Path.unlink,
]


def test_damaged_densities_are_computed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the last file, of one in the middle and of the first; what is said names the file."""
    whole = configure(tmp_path, output="whole")
    tasks.run_solve(whole)
    stopped = configure(tmp_path)
    interrupted(stopped, 5)
    folder = stopped.output.directory
    shutil.copytree(folder, tmp_path / "kept")
    for number, damage in enumerate(DAMAGES):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "kept", folder)
        place = (-1, 2, 0)[number % 3] if damage is not put_another_time else 2
        path = sorted((folder / "checkpoint").glob("*.h5"))[place]
        damage(path)
        tasks.run_solve(stopped, resume=True, progress=tasks.solve.Progress(speaks=True))
        require_same(folder, whole.output.directory)
        assert damage is Path.unlink or path.name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("field.seed=2", "field.seed"),
        ("field.horizon=0.7", "field.horizon"),
        ("field.layers=4", "field.layers"),
        ("solver.cfl=0.6", "solver.cfl"),
        ("solver.limiter=false", "solver.limiter"),
        ("domain.box.cells=[4, 5]", "domain.box.cells"),
        ("domain.refine=1", "domain.refine"),
        ("density.degree=2", "density.degree"),
        ("density.initial.0.std=0.21", "density.initial.0.std"),
        ("objective.kinetic=0.4", "objective.kinetic"),
        ("field.theta=[[0.0]]", "field.theta"),
    ],
)
def test_another_problem_is_refused(stopped: Config, change: str, key: str) -> None:
    table = problem_config(2, 1, LABELLINGS[0], 4, solver={"cfl": 0.15}, output={"densities": 5})
    other = parse_config(table, Path(), [change], output=stopped.output.directory)
    before = {path: path.stat().st_mtime_ns for path in stopped.output.directory.rglob("*")}
    for resume in (True, False):
        config = other if resume else parse_config(table, Path(), [change], output=stopped.output.directory / "x")
        with pytest.raises(InputError) as caught:
            tasks.run_solve(config, resume=resume, restart=None if resume else stopped.output.directory)
        assert caught.value.key == key
    assert before == {path: path.stat().st_mtime_ns for path in stopped.output.directory.rglob("*")}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A solve that was killed."""
    config = configure(tmp_path_factory.mktemp("stopped"))
    interrupted(config, 3)
    return config


def test_files_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    """A mesh, samples and θ: other files of the same contents are as good, other contents are not."""
    rng = np.random.default_rng(1)
    np.savetxt(tmp_path / "samples.csv", rng.normal(0.0, 0.2, (50, 2)), delimiter=",", header="a,b", comments="")
    np.savez(tmp_path / "theta.npz", theta=[[0.3, 0.2, -0.1, 0.4, 0.0, 0.1]])
    shutil.copy(MESHES / "l_shape.msh", tmp_path / "mesh.msh")
    samples = {"kind": "samples", "columns": ["a", "b"], "bandwidth": 0.15}

    def configured(mesh: str = "mesh.msh", data: str = "samples.csv", theta: str = "theta.npz") -> Config:
        table: dict[str, Any] = {
            "domain": {"file": mesh},
            "density": {"degree": 1, "initial": [samples | {"file": data}]},
            "field": {"kind": "linear", "features": "affine", "layers": 2, "theta": theta},
            "objective": {"kinetic": 0.5, "terminal": {"kind": "quadratic", "target": [0.1, 0.2]}},
            "output": {"densities": 0},
        }
        return parse_config(table, tmp_path, output=tmp_path / "run")

    first = tasks.run_solve(configured())
    for name in ("mesh.msh", "samples.csv", "theta.npz"):
        shutil.copy(tmp_path / name, tmp_path / f"same_{name}")
    same = configured("same_mesh.msh", "same_samples.csv", "same_theta.npz")
    assert numbers(tasks.run_solve(same, resume=True)) == numbers(first)
    np.savetxt(tmp_path / "other.csv", rng.normal(0.0, 0.2, (50, 2)), delimiter=",", header="a,b", comments="")
    np.savez(tmp_path / "other.npz", theta=[[0.3, 0.2, -0.1, 0.4, 0.0, 0.2]])
    shutil.copy(MESHES / "disk.msh", tmp_path / "other.msh")
    for names, key in (
        ({"mesh": "other.msh"}, "domain.file"),
        ({"data": "other.csv"}, "density.initial"),
        ({"theta": "other.npz"}, "field.theta"),
    ):
        with pytest.raises(InputError, match=r"than (that|those) of") as caught:
            tasks.run_solve(configured(**names), resume=True)
        assert caught.value.key == key
    assert numbers(json.loads((tmp_path / "run" / "result.json").read_text())) == numbers(first)


def test_restart_from_another_run(tmp_path: Path, stopped: Config) -> None:
    """At any time, with other snapshots too."""
    source = stopped.output.directory
    headers = [read_header(path) for path in sorted((source / "checkpoint").glob("*.h5"))]
    more = ["output.densities=9", "optimiser.method=bncg", 'solver.memory="1 GiB"']
    whole = configure(tmp_path, *more, output="whole")
    tasks.run_solve(whole)
    for at, last in ((None, 2), (headers[1].time, 1), (0.99 * headers[1].time, 0), (0.0, 0)):
        config = configure(tmp_path, *more, output=f"at {at}")
        known: set[int] = set()
        with pytest.MonkeyPatch.context() as patch:
            read = solve_checkpoint.SolveCheckpoint.read

            def counted(self: Any, header: Header, read: Any = read, known: set[int] = known) -> SweepState:
                known.add(header.step)
                return read(self, header)

            patch.setattr(solve_checkpoint.SolveCheckpoint, "read", counted)
            tasks.run_solve(config, restart=source, at=at)
        assert known == {header.step for header in headers[: last + 1]}
        assert products(config.output.directory) == products(whole.output.directory)
        assert set(densities(config.output.directory)) >= set(densities(whole.output.directory))


def test_what_cannot_be_gone_on_with(tmp_path: Path, stopped: Config) -> None:
    source, config = stopped.output.directory, configure(tmp_path)
    for options, key in (
        ({"resume": True}, "--resume"),  # there is no run
        ({"resume": True, "overwrite": True}, "--resume"),
        ({"resume": True, "restart": source}, "--resume"),
        ({"restart": tmp_path / "none"}, "--restart"),
        ({"at": 0.1}, "--at"),
        ({"restart": source, "at": -1.0}, "--at"),
        ({"restart": source, "at": float("nan")}, "--at"),
    ):
        with pytest.raises(InputError) as caught:
            tasks.run_solve(config, **options)
        assert caught.value.key == key
        assert not config.output.directory.exists()
    with pytest.raises(InputError, match="--resume"):
        tasks.run_solve(stopped, restart=source)
    # A run that keeps nothing, and one of another command
    nothing = configure(tmp_path, "output.checkpoint_every=0")
    first = tasks.run_solve(nothing)
    assert not (tmp_path / "run" / "checkpoint").exists()
    with pytest.raises(InputError, match="no densities"):
        tasks.run_solve(configure(tmp_path, output="other"), restart=tmp_path / "run")
    assert numbers(tasks.run_solve(nothing, resume=True)) == numbers(first)
    (tmp_path / "run" / "result.json").write_text('{"command": "train"}')
    with pytest.raises(InputError, match="another command"):
        tasks.run_solve(nothing, resume=True)


def test_densities_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """J is computed all the same, and the run goes on once there is room."""
    whole = configure(tmp_path, output="whole")
    total = tasks.run_solve(whole)["objective"]["total"]
    write, count = solve_checkpoint.write_densities, 0

    def full(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count > 3:
            raise OSError(28, "No space left on device")
        write(*arguments)

    config = configure(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(solve_checkpoint, "write_densities", full)
        document = tasks.run_solve(config)
    assert document["status"] == "failed"
    assert "No space left" in document["reason"]
    assert document["objective"]["total"] == total
    assert count == 4, "it is not tried again"
    tasks.run_solve(config, resume=True)
    require_same(config.output.directory, whole.output.directory)


def test_killed_and_resumed(tmp_path: Path, here: Here) -> None:
    """By the system, from the command line."""
    config = configure(tmp_path, "domain.box={lower=[-1, -1], upper=[1, 1], cells=[40, 40]}", "density.degree=2")
    (tmp_path / "a.toml").write_text(config.to_toml(), encoding="utf-8")
    solve = [sys.executable, "-m", "eulerian", "solve", "a.toml", "--quiet", "--output"]
    run = tmp_path / "run"
    process = subprocess.Popen([*solve, str(run)], cwd=tmp_path, env=environment())
    deadline = time.monotonic() + 60
    while len(list((run / "checkpoint").glob("*.h5"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (run / "result.json").exists()
    here("solve", "a.toml", "--quiet", "--output", "whole")
    resume = [*solve, str(run), "--resume"]
    ended = subprocess.run(resume, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    refused = here("solve", "a.toml", "--quiet", "--output", "run", "--resume", "--method", "particles", code=1)
    assert "--resume" in refused.stderr
    require_same(run, tmp_path / "whole")
    assert not list(run.rglob(".*.part"))


# -- numbers of ranks --------------------------------------------------------------------------------------------------

RANKS = """
import sys
from pathlib import Path
from mpi4py import MPI
sys.path[:0] = [{tests!r}, {here!r}]
import test_restart
test_restart.on_any_ranks(MPI.COMM_WORLD, Path({folder!r}), {reads!r}, {writes!r})
"""


def cases() -> list[dict[str, Any]]:
    """Boxes and files, refined too, in one, two and three dimensions; degrees; labels together and apart."""
    boxes = [
        problem_config(dim, degree, labelling, domain={"refine": int(dim == 2)})
        for dim, degree, labelling in ((1, 2, LABELLINGS[1]), (2, 1, LABELLINGS[2]), (3, 0, LABELLINGS[0]))
    ]
    files = []
    for name, refine, degree in (("l_shape", 1, 2), ("interval", 0, 1), ("ball", 0, 1)):
        table = problem_config({"interval": 1, "ball": 3}.get(name, 2), degree, LABELLINGS[1])
        table["domain"] = {"file": str(MESHES / f"{name}.msh"), "refine": refine}
        table["density"]["initial"] = [{"kind": "expression", "value": "1", "label": y} for y in range(2)]
        files.append(table)
    boxes[1]["density"]["initial"] = THREE
    boxes[1]["objective"]["terminal"] = {"kind": "quadratic", "target": [0.4, 0.2]}
    return [*boxes, *files]


def on_any_ranks(comm: MPI.Comm, folder: Path, reads: list[str], writes: str) -> None:
    """Random densities are read as they were written by others, ghosts included, and written for others. Collective."""
    for number, table in enumerate(cases()):
        problem = build(parse_config(table), comm)
        space, layouts = problem.density_space, [stepper.layout for stepper in problem.trajectory.steppers]
        cells = space.mesh.topology.original_cell_index[: space.n_cells]
        rng = np.random.default_rng(number)
        total = space.mesh.topology.index_map(space.dim).size_global
        density = rng.standard_normal((total, space.nd, space.n_labels))[cells]
        orders = problem.trajectory.orders
        sums = rng.standard_normal((total, space.nd, len(layouts), orders, layouts[0].shares))[cells[: space.n_owned]]
        powers = [stepper.layout for stepper in problem.trajectory.power_steppers]
        squares = [rng.standard_normal((total, space.nd, p.columns))[cells] for p in powers]
        totals = [rng.standard_normal((total, space.nd, orders, p.shares))[cells[: space.n_owned]] for p in powers]
        store = solve_checkpoint.SolveCheckpoint(folder / f"case{number}", problem)
        header = Header(0, 0.0, (1,), 1.0, total, space.degree, space.n_labels, store.mesh, "", "")
        for name in reads:
            there = solve_checkpoint.SolveCheckpoint(folder / f"case{number}-{name}", problem)
            known = read_header(there.folder / header.name)
            assert known == header, "also of the same mesh"
            found = there.read(known)
            for g, (layout, group) in enumerate(zip(layouts, problem.groups, strict=True)):
                assert np.array_equal(found.densities[g], layout.pack_nodes(density[:, :, group], fill=1.0))
                for order in range(orders):
                    assert np.array_equal(layout.split_totals(found.occupation[g][order]), sums[:, :, g, order])
            for p, layout in enumerate(powers):
                g = len(layouts) + p
                assert np.array_equal(found.densities[g], layout.pack_nodes(squares[p], fill=1.0))
                for order in range(orders):
                    assert np.array_equal(layout.split_totals(found.occupation[g][order]), totals[p][:, :, order])
            assert comm.allreduce(found.charged[1]) == 7.0
        store.folder = folder / f"case{number}-{writes}"
        position = SweepState(
            0,
            [
                *(
                    layout.pack_nodes(density[:, :, group])
                    for layout, group in zip(layouts, problem.groups, strict=True)
                ),
                *(layout.pack_nodes(q) for layout, q in zip(powers, squares, strict=True)),
            ],
            [
                np.stack([layout.join_totals(each[:, :, order]) for order in range(orders)])
                for layout, each in [
                    *((layout, sums[:, :, g]) for g, layout in enumerate(layouts)),
                    *zip(powers, totals, strict=True),
                ]
            ],
            np.array([0.0, 7.0 if comm.rank == comm.size - 1 else 0.0]),
        )
        if comm.rank == 0:
            store.folder.mkdir()
        store.write(header, position)
    resumed = tasks.run_solve(configure(folder, output=f"stopped-{writes}"), comm, resume=True)
    expected = json.loads((folder / "whole" / "result.json").read_text())
    assert resumed["time"] == expected["time"]
    for name, part in expected["objective"].items():
        np.testing.assert_allclose(resumed["objective"][name], part, rtol=1e-12)
    np.testing.assert_allclose(resumed["moments"]["covariance"], expected["moments"]["covariance"], rtol=1e-11)


@pytest.mark.mpi
def test_any_number_of_ranks(tmp_path: Path, mpirun: Callable[..., Any]) -> None:
    """Written on 1, 2 and 3 ranks, read on 2, 3 and 1."""
    here = Path(__file__).parent
    tasks.run_solve(configure(tmp_path, output="whole"))
    for name in "123":
        interrupted(configure(tmp_path, output=f"stopped-{name}"), 4)
    on_any_ranks(MPI.COMM_WORLD, tmp_path, [], "1")
    for ranks, reads in ((2, ["1"]), (3, ["2"])):
        values = {"tests": str(here.parents[1]), "here": str(here), "folder": str(tmp_path), "reads": reads}
        done = mpirun(ranks, RANKS.format(**values, writes=str(ranks)))
        assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "stopped-1")
    interrupted(configure(tmp_path, output="stopped-last"), 4)
    on_any_ranks(MPI.COMM_WORLD, tmp_path, ["2", "3"], "last")
