"""An error on one rank is an error on all ranks, once; serially the last rank is the first."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from configurations import small

from eulerian import build
from eulerian.app.config import parse_config
from eulerian.app.tasks import run_train
from eulerian.base.errors import ComputationError, InputError
from eulerian.base.parallel import agreed, on_root
from eulerian.control.control import ControlProblem


class Field:
    """v = a x + b; on the last rank ``meddle`` has its way with what the method ``place`` returns."""

    def __init__(self, comm: MPI.Comm, place: str, meddle: Callable[[np.ndarray], object]) -> None:
        self.place = place if comm.rank == comm.size - 1 else ""
        self.meddle = meddle

    def returned(self, place: str, outcome: np.ndarray) -> np.ndarray:
        return self.meddle(outcome) if place == self.place else outcome

    def n_params(self, _dim: int, /) -> int:
        return 2

    def init(self, _rng: np.random.Generator, /) -> np.ndarray:
        return np.array([0.1, 0.2])

    def value(self, theta, x):
        return self.returned("value", theta[0] * x + theta[1])

    def vjp(self, _theta, x, w, /):
        return self.returned("vjp", np.array([np.sum(w * x), np.sum(w)]))


def raising(error: BaseException) -> Callable[[np.ndarray], object]:
    def meddle(_outcome: np.ndarray) -> object:
        raise error

    return meddle


def problem_of(comm: MPI.Comm, place: str, meddle: Callable[[np.ndarray], object]) -> ControlProblem:
    return build(parse_config(small()), comm, Field(comm, place, meddle))


@pytest.mark.parametrize("place", ["value", "vjp"])
@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(3), MemoryError(), RecursionError("too deep")])
def test_a_field_that_raises(comm: MPI.Comm, place: str, error: BaseException) -> None:
    problem = problem_of(comm, place, raising(error))
    where = f" on rank {comm.size - 1}" if comm.size > 1 else ""
    with pytest.raises(ComputationError, match=f"the field raised {type(error).__name__}{where}") as caught:
        problem.value_and_gradient(problem.initial_theta)
    if isinstance(error, ValueError):  # the place is the user's, not ours
        assert Path(__file__).name in str(caught.value)


@pytest.mark.parametrize(
    "meddle",
    [
        lambda _: 1.0,
        lambda outcome: np.concatenate([outcome, outcome]),
        lambda outcome: outcome + 1j,
        lambda _: "fast",
        lambda _: None,
    ],
)
@pytest.mark.parametrize("place", ["value", "vjp"])
def test_a_field_that_returns_something_else(comm: MPI.Comm, place: str, meddle) -> None:
    problem = problem_of(comm, place, meddle)
    with pytest.raises(InputError, match=f"field: {place} must return an array of"):
        problem.value_and_gradient(problem.initial_theta)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_velocity_that_is_not_finite(comm: MPI.Comm, wrong: float) -> None:
    """MPI's maximum of NaN and a number is one or the other."""
    problem = problem_of(comm, "value", lambda outcome: np.where(np.arange(outcome.size)[:, None] == 3, wrong, outcome))
    assert problem.value(problem.initial_theta) == np.inf
    assert problem.rejection is not None
    assert problem.rejection.startswith("the velocity is not finite in layer 0, at 1 of ")


@pytest.mark.parametrize("error", [SystemExit(3), MemoryError(), OSError(5, "Input/output error", "some/file")])
def test_work_on_rank_0_fails_everywhere(comm: MPI.Comm, error: BaseException) -> None:
    with pytest.raises(ComputationError, match=type(error).__name__) as caught:
        on_root(comm, lambda: raising(error)(np.zeros(1)))
    if isinstance(error, OSError):
        assert str(caught.value).endswith("Input/output error: some/file")


def test_an_interruption_of_one_rank_is_one_of_all(comm: MPI.Comm) -> None:
    def work() -> None:
        if comm.rank == comm.size - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), agreed(comm):
        work()


def test_a_run_whose_field_fails_leaves_a_result(comm: MPI.Comm, tmp_path: Path) -> None:
    (tmp_path / "broken_field.py").write_text(
        f"import numpy as np\nfrom mpi4py import MPI\nfrom {Path(__file__).stem} import Field, raising\n"
        "class Late(Field):\n"
        "    calls = 0\n"
        "    def value(self, theta, x):\n"
        "        self.calls += 1\n"
        "        return super().value(theta, x) if self.calls < 5 else self.returned('late', x)\n"
        "field = Late(MPI.COMM_WORLD, 'late', raising(SystemExit(7)))\n"
    )
    comm.barrier()
    config = small(field={"kind": "python", "object": "broken_field:field", "layers": 2})
    config["output"] = {"directory": str(tmp_path / "run")}
    with pytest.raises(ComputationError, match="SystemExit"):
        run_train(parse_config(config, tmp_path), comm)
    comm.barrier()
    document = json.loads((tmp_path / "run" / "result.json").read_text())
    assert document["status"] == "failed"
    assert "SystemExit" in document["reason"]
    assert not list((tmp_path / "run").rglob(".*"))


@pytest.mark.mpi
def test_a_rank_alone_with_an_unexpected_error(tmp_path: Path, mpirun) -> None:
    """The others wait in a collective call; the rank that failed tells, leaves a result and ends the job."""
    (tmp_path / "model.toml").write_text(parse_config(small()).to_toml())
    source = """
import sys
from eulerian.app import cli
from eulerian.base import parallel
from eulerian.app.tasks import train
def work(context, **_):
    if context.folder.comm.rank == 1:
        raise ZeroDivisionError("nobody expected this")
    context.folder.comm.barrier()
train._train = work
parallel.SECONDS_TO_MEET = 0.5
sys.argv = ["eulerian", "train", "model.toml"]
cli.entry()
"""
    done = mpirun(2, source, timeout=30)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("ZeroDivisionError: nobody expected this") == 1
    assert done.stderr.count("an unexpected error on rank 1") == 1
    [result] = tmp_path.rglob("result.json")
    document = json.loads(result.read_text())
    assert document["status"] == "failed"
    assert "nobody expected this" in document["reason"]


@pytest.mark.mpi
def test_the_command_line_tells_once(tmp_path: Path, mpirun) -> None:
    """A field that ends the process on one rank, when the training is under way."""
    (tmp_path / "broken.py").write_text(
        "import sys, numpy as np\nfrom mpi4py import MPI\n"
        "class Field:\n"
        "    calls = 0\n"
        "    def n_params(self, dim): return 1\n"
        "    def init(self, rng): return np.zeros(1)\n"
        "    def value(self, theta, x, label=None): return theta * np.ones_like(x)\n"
        "    def vjp(self, theta, x, w, label=None):\n"
        "        self.calls += 1\n"
        "        if MPI.COMM_WORLD.rank == 1 and self.calls > 3: sys.exit(0)\n"
        "        return np.array([np.sum(w)])\n"
        "field = Field()\n"
    )
    config = small(field={"kind": "python", "object": "broken:field", "layers": 2})
    (tmp_path / "model.toml").write_text(parse_config(config, tmp_path).to_toml())
    done = mpirun(2, [sys.executable, "-m", "eulerian", "train", "model.toml", "--output", "run"], timeout=40)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("eulerian train: ") == 1
    assert "the field raised SystemExit on rank 1" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"
