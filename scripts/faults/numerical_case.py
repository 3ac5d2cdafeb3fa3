"""A run in which numbers go wrong, and how it is judged.

Whatever happens, a run says how it ended and why in a ``result.json`` that is complete and valid JSON, exits
accordingly, keeps the lowest iterate that it has found, and has every iteration in its history once.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from harness import Ended, Verdict, eulerian

# Every key that the interface promises, whatever happened.
KEYS: Mapping[str, tuple[str, ...]] = {
    "objective": ("total", "terminal", "kinetic", "jacobian", "parameters"),
    "mass": ("initial", "final", "relative_error", "boundary"),
    "density": ("min", "max"),
    "moments": ("mean", "covariance"),
    "time": ("layers", "steps_per_layer", "horizon"),
    "mesh": ("dimension", "cells", "dofs", "h_min", "h_max"),
    "seconds": ("setup", "solve", "forward", "gradient"),
    "versions": ("eulerian", "dolfinx"),
}
SCALARS = (
    "status",
    "reason",
    "command",
    "iterations",
    "evaluations",
    "rejected_evaluations",
    "gradient_norm",
    "ranks",
    "warnings",
)

CONFIG = """
[domain]
box = {{ lower = [-3.0], upper = [3.0], cells = [40] }}
[density]
degree = 1
[[density.initial]]
kind = "{density}"
{initial}
[field]
{field}
layers = 2
horizon = {horizon}
[objective]
kinetic = {kinetic}
parameters = {parameters}
{running}
[objective.terminal]
{terminal}
[optimiser]
max_iterations = {iterations}
{optimiser}
[solver]
{solver}
[output]
densities = 2
directory = "run"
"""
DEFAULTS: dict[str, object] = {
    "density": "gaussian",
    "initial": "mean = [-0.5]\nstd = 0.4",
    "field": 'kind = "linear"\nfeatures = "affine"',
    "horizon": 1.0,
    "kinetic": 0.5,
    "parameters": 1e-4,
    "running": "",
    "terminal": 'kind = "quadratic"\ntarget = [1.0]',
    "iterations": 12,
    "optimiser": "",
    "solver": "",
}

# v = a x + b, until something goes wrong; what that is stands in TROUBLE, from which call on in FROM.
USER_FIELD = """
import numpy as np
from mpi4py import MPI

TROUBLE, FROM, ONLY_RANK = {trouble!r}, {first!r}, {rank!r}


class Affine:
    def __init__(self):
        self.values = self.slopes = self.fine = self.most = 0

    def n_params(self, dim):
        return 2

    def init(self, rng):
        return np.zeros(2)

    def here(self, count):
        return count > FROM and ONLY_RANK in (None, MPI.COMM_WORLD.rank)

    def value(self, theta, x):
        v = theta[0] * x + theta[1]
        if len(x) < 3:  # tried out when the problem is built
            return v
        self.values += 1
        self.most = max(self.most, len(x))
        self.fine += len(x) == self.most  # the finest mesh is the first
        if TROUBLE == "nan on the finest mesh" and self.here(self.fine) and len(x) == self.most:
            return np.full_like(v, np.nan)
        if not self.here(self.values):
            return v
        if TROUBLE in ("nan", "inf"):
            v[len(v) // 2] = float(TROUBLE)
        elif TROUBLE == "nan far out":
            v = np.where(np.abs(x) > 2.5, np.nan, v)
        elif TROUBLE == "nan for large theta" and np.abs(theta).max() > 0.4:
            v = np.full_like(v, np.nan)
        elif TROUBLE == "fast for large theta" and np.abs(theta).max() > 0.4:
            v = v * 1e6
        elif TROUBLE == "raises":
            raise FloatingPointError("the user's own trouble")
        elif TROUBLE == "wrong shape":
            return v[:-1]
        elif TROUBLE == "noise":
            v = v + 1e-3 * np.random.default_rng(self.values).standard_normal()
        return v

    def vjp(self, theta, x, w):
        slope = np.array([np.sum(w * x), np.sum(w)])
        if len(x) < 3:
            return slope
        self.slopes += 1
        if not self.here(self.slopes):
            return slope
        if TROUBLE == "nan slope":
            slope[0] = np.nan
        elif TROUBLE == "inf slope":
            slope[1] = np.inf
        elif TROUBLE == "uphill slope":
            slope = -slope
        elif TROUBLE == "slope of one sign":
            slope = np.abs(slope) + 1.0
        elif TROUBLE == "slope raises":
            raise FloatingPointError("the user's own trouble")
        return slope

    def jacobian(self, theta, x):
        return np.full((len(x), 1, 1), theta[0])

    def jacobian_vjp(self, theta, x, w):
        return np.array([np.sum(w), 0.0])

    def jacobian_vjp_x(self, theta, x, w):
        return np.zeros_like(x)


field = Affine()
"""
USER = 'kind = "python"\nobject = "trouble:field"'


@dataclass(frozen=True)
class Case:
    """A run with something wrong in it, and how it has to end.

    Attributes:
        name: what goes wrong.
        status: the statuses of ``result.json`` that are right; None where there must be no run folder.
        code: the exit code that is right; None for the one of the status.
        words: pieces of the reason, or of the complaint, each of which must be there.
        settings: what is other than in ``DEFAULTS``.
        trouble: of ``USER_FIELD``, from which call on, and on which rank only.
        command: what is run, with its options.
        ranks: how many.
        iterates: the run must have kept the lowest of its iterates.
        warned: whether a warning must be there.
        quick: belongs to the few.
    """

    name: str
    status: tuple[str, ...] | None
    words: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    trouble: tuple[str, int, int | None] | None = None
    code: int | None = None
    command: str = "train"
    ranks: int = 1
    iterates: bool = False
    warned: bool = False
    quick: bool = False
    theta: Any = None

    def inject(self, folder: Path) -> Verdict:
        """Run it and judge."""
        settings = {**DEFAULTS, **self.settings}
        if self.trouble is not None:
            settings["field"] = USER
            trouble, first, rank = self.trouble
            source = USER_FIELD.format(trouble=trouble, first=first, rank=rank)
            (folder / "trouble.py").write_text(source, encoding="utf-8")
        if self.theta is not None:
            np.savez(folder / "given.npz", theta=np.array(self.theta, dtype=float))
            settings["field"] = f'{settings["field"]}\ntheta = "given.npz"'
        (folder / "case.toml").write_text(CONFIG.format(**settings), encoding="utf-8")
        ended = eulerian(folder, *self.command.split(), "case.toml", ranks=self.ranks, limit=120.0)
        problems = list(self._problems(ended, folder / "run"))
        lost = sum(problem.startswith("history") for problem in problems)
        return Verdict(not problems, "; ".join(problems), ended.hung, ended.traceback, lost)

    def _problems(self, ended: Ended, run: Path) -> Iterable[str]:
        if ended.hung:
            yield "hung"
            return
        if ended.traceback:
            yield "a traceback was shown"
        if self.code is not None and ended.code != self.code:
            yield f"exit code {ended.code} instead of {self.code}: {ended.last_line}"
        told = sum(line.startswith(f"eulerian {self.command.split()[0]}: ") for line in ended.err.splitlines())
        if told != (ended.code != 0):
            yield f"told {told} times: {ended.err!r}"
        if self.status is None:
            if run.exists():
                yield "a run folder was left"
            yield from self._wordless(ended.err)
        else:
            yield from self._misjudged(ended, run)

    def _misjudged(self, ended: Ended, run: Path) -> Iterable[str]:
        """What is wrong with the run folder."""
        try:
            document = json.loads((run / "result.json").read_text(encoding="utf-8"), parse_constant=_refuse)
        except (OSError, ValueError) as error:
            yield f"result.json is missing or no JSON ({error}): {ended.last_line}"
            return
        yield from _missing(document)
        if document.get("status") not in (self.status or ()):
            yield f"status {document.get('status')!r}: {document.get('reason')}"
        if self.code is None and ended.code != 2 * (document.get("status") == "failed"):
            yield f"exit code {ended.code} with the status {document.get('status')!r}: {ended.last_line}"
        yield from self._wordless(str(document.get("reason")))
        if bool(document.get("warnings")) != self.warned:
            yield f"warnings: {document.get('warnings')}"
        if self.iterates:
            yield from _iterates(run, document)

    def _wordless(self, text: str) -> Iterable[str]:
        for word in self.words:
            if word.lower() not in text.lower():
                yield f"{word!r} is not said: {text!r}"


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} appears")


def _missing(document: Mapping[str, Any]) -> Iterable[str]:
    """Keys of the interface that are not there."""
    for name in SCALARS:
        if name not in document:
            yield f"no {name} in result.json"
    for name, inner in KEYS.items():
        for key in inner:
            if key not in (document.get(name) or {}):
                yield f"no {name}.{key} in result.json"


def _iterates(run: Path, document: Mapping[str, Any]) -> Iterable[str]:
    """Whether θ and J are those of the lowest iterate, and the history has every iterate once."""
    if not (run / "history.csv").is_file():
        yield "history: there is none"
        return
    with (run / "history.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    numbers = [int(row["iteration"]) for row in rows]
    if numbers != list(range(document["iterations"] + 1)):
        yield f"history: iterations {numbers}, the result says {document['iterations']}"
    if any(not row["total"] or not math.isfinite(float(row["total"])) for row in rows):
        yield "history: a value is missing"
        return
    lowest = min(float(row["total"]) for row in rows)
    total = document["objective"]["total"]
    if total is None or total != lowest:
        yield f"the result has J = {total}, the lowest iterate {lowest}"
    if not (run / "theta.npz").is_file():
        yield "no theta.npz"
        return
    with np.load(run / "theta.npz") as kept:
        if not np.all(np.isfinite(kept["theta"])):
            yield "theta.npz is not finite"
