"""A descent in which something goes wrong: the reason is named, and the best iterate is kept."""

import json
import math
import re
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest

from eulerian import build, minimise
from eulerian.app import tasks
from eulerian.app.config import parse_config
from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError
from eulerian.control.control import ControlProblem

MODEL = """
[domain]
box = { lower = [-2.0], upper = [2.0], cells = [24] }
[[density.initial]]
kind = "gaussian"
mean = [-0.4]
std = 0.3
[field]
kind = "python"
object = "erring:field"
layers = 2
[objective]
kinetic = 0.5
[objective.terminal]
kind = "quadratic"
target = [0.5]
[optimiser]
max_iterations = 20
[output]
densities = 2
"""


class Erring:
    """v = a x + b; from a call on, and on the last rank only, something goes wrong."""

    def __init__(self, trouble: str, first: int = 0, here: bool = True) -> None:
        self.trouble, self.first, self.here = trouble, first, here
        self.values = self.slopes = 0

    def n_params(self, _dim: int) -> int:
        return 2

    def init(self, _rng: np.random.Generator) -> Floats:
        return np.zeros(2)

    def value(self, theta: Floats, x: Floats) -> Floats:
        v = theta[0] * x + theta[1]
        self.values += len(x) != 2  # not when it is tried out
        if self.here and self.values > self.first:
            if self.trouble == "velocity":
                v[:] = np.nan
            if self.trouble == "raises":
                raise FloatingPointError("the field's own trouble")
            if self.trouble == "far" and np.abs(theta).max() > 0.5:
                v[:] = np.inf
        return v

    def vjp(self, _theta: Floats, x: Floats, w: Floats) -> Floats:
        slope = np.array([np.sum(w * x), np.sum(w)])
        self.slopes += len(x) != 2
        if self.here and self.slopes > self.first:
            if self.trouble == "slope":
                slope[0] = np.nan
            if self.trouble == "uphill":
                return -slope
        return slope


def erring(comm: MPI.Comm, trouble: str, first: int) -> ControlProblem:
    linear = 'kind = "linear"\nfeatures = "affine"'
    config = parse_config(MODEL.replace('kind = "python"\nobject = "erring:field"', linear), Path())
    problem = build(config, comm)
    problem.layered.field = Erring(trouble, first, comm.rank == comm.size - 1 or trouble in ("uphill", "far"))
    return problem


@pytest.mark.parametrize(
    ("trouble", "first", "words"),
    [
        ("velocity", 12, "the velocity is not finite in layer 0"),
        ("raises", 12, "the field raised FloatingPointError.*: the field's own trouble"),
        ("slope", 7, "the gradient is not finite, first by parameter 0 of layer"),
        ("uphill", 5, "line search .*the gradient is wrong .`eulerian verify`"),
        ("far", 0, "at [0-9]+ of its trial points .the velocity is not finite"),
    ],
)
def test_the_reason_is_named_and_the_best_iterate_kept(comm: MPI.Comm, trouble: str, first: int, words: str) -> None:
    problem = erring(comm, trouble, first)
    result = minimise(problem)
    assert result.status == "failed"
    assert np.all(np.isfinite(result.theta))
    totals = [record.total for record in result.history]
    assert len(totals) >= 3
    assert result.value == min(totals) < totals[0]
    assert result.reason.endswith("the best iterate is kept")
    assert re.search(words, result.reason), result.reason


def test_at_the_start_it_is_an_error(comm: MPI.Comm) -> None:
    with pytest.raises(ComputationError, match="gradient is not finite"):
        minimise(erring(comm, "slope", 0))


def test_a_run_keeps_all_that_it_has(comm: MPI.Comm, tmp_path: Path) -> None:
    """Also where J cannot be evaluated any more: θ and J of the best iterate, the history, every key."""
    if comm.rank == 0:
        source = Path(__file__).read_text(encoding="utf-8")
        own = source[source.index("class Erring") : source.index("def erring")]
        text = f"import numpy as np\nfrom eulerian.base.arrays import Floats\n{own}\nfield = Erring('raises', 16)\n"
        (tmp_path / "erring.py").write_text(text, encoding="utf-8")
    comm.barrier()
    config = parse_config(MODEL, tmp_path, output=tmp_path / "run")
    document = tasks.run_train(config, comm)
    comm.barrier()
    assert document["status"] == "failed"
    assert "the field's own trouble" in document["reason"]
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()[1:]
    totals = [float(row.split(",")[1]) for row in rows]
    assert document["iterations"] == len(rows) - 1 >= 2
    objective = document["objective"]
    assert objective["total"] == min(totals)
    assert objective["terminal"] + objective["kinetic"] == pytest.approx(min(totals), rel=1e-12)
    text = (tmp_path / "run" / "result.json").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in result.json"))["mass"]["final"] is None
    with np.load(tmp_path / "run" / "theta.npz") as kept:
        assert np.all(np.isfinite(kept["theta"]))
        assert not math.isclose(float(np.abs(kept["theta"]).max()), 0.0)
