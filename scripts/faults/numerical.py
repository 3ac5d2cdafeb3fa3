"""Numbers that go wrong: NaN, overflow, step caps, searches that fail, descents that stand still, mass at the wall.

Every fault is a run of its own. Whatever happens, a run says how it ended and why in a ``result.json`` that is complete
and valid JSON, exits accordingly, keeps the lowest iterate that it has found, and has every iteration in its history
once.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from harness import Ended, Fault, Verdict, eulerian

GROUP = "numerical trouble"

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


FAILED, ENDED = ("failed",), ("converged", "max_iterations")
AFFINE = 'kind = "linear"\nfeatures = "affine"'
NEVER = (0.0, 0.0)


def _given() -> Iterable[Case]:
    """θ that is given."""
    for number in (math.nan, math.inf, -math.inf):
        yield Case(
            f"θ with {number}", None, ("field.theta", "not finite"), code=1, theta=[[number, 0.0]], quick=number < 0.0
        )
    for number in (1e308, -1e308, 1e160):
        yield Case(f"θ with {number:g}", FAILED, ("time steps", "max_steps_per_layer"), theta=[[0.0, number]])
        yield Case(f"θ with {number:g}, solve", FAILED, ("time steps",), theta=[[0.0, number]], command="solve")
    yield Case("θ of 1e-320", ENDED, theta=[[1e-320, 1e-320]], iterates=True)
    yield Case(
        "θ too fast for the step cap",
        FAILED,
        ("time steps", "max_steps_per_layer is 3"),
        {"solver": "max_steps_per_layer = 3"},
        theta=[[0.0, 2.0]],
        quick=True,
    )
    yield Case(
        "θ too fast for the step cap, 2 ranks",
        FAILED,
        ("time steps", "max_steps_per_layer is 3"),
        {"solver": "max_steps_per_layer = 3"},
        theta=[[0.0, 2.0]],
        ranks=2,
    )
    yield Case(
        "trial points above the step cap",
        (*ENDED, "failed"),
        (),
        {"solver": "max_steps_per_layer = 4", "terminal": 'kind = "quadratic"\ntarget = [2.5]', "parameters": 0.0},
        iterates=True,
    )


def _user() -> Iterable[Case]:
    """Fields of the user's own."""
    start = ("velocity is not finite", "layer")
    yield Case("NaN velocity from the start", FAILED, start, trouble=("nan", 0, None), quick=True)
    yield Case("NaN velocity from the start, solve", FAILED, start, trouble=("nan", 0, None), command="solve")
    yield Case("infinite velocity from the start", FAILED, start, trouble=("inf", 0, None))
    yield Case("NaN velocity far out", FAILED, start, trouble=("nan far out", 0, None))
    yield Case(
        "NaN velocity from the start on rank 1",
        None,
        ("field.object", "not the same on all ranks"),
        trouble=("nan", 0, 1),
        ranks=2,
        code=1,
    )
    for kind in ("nan", "inf"):
        yield Case(
            f"{kind} velocity from the 21st call on",
            FAILED,
            ("velocity is not finite", "kept"),
            trouble=(kind, 20, None),
            iterates=True,
            quick=kind == "nan",
        )
    yield Case(
        "NaN velocity from the 21st call on, rank 1 of 2",
        FAILED,
        ("velocity is not finite", "kept"),
        trouble=("nan", 20, 1),
        ranks=2,
        iterates=True,
    )
    for kind in ("nan", "fast"):
        yield Case(
            f"{kind} velocity for large θ",
            FAILED,
            ("of its trial points", "kept"),
            trouble=(f"{kind} for large theta", 0, None),
            iterates=True,
        )
    for kind in ("raises", "wrong shape"):
        words = ("FloatingPointError", "own trouble") if kind == "raises" else ("shape",)
        yield Case(
            f"field {kind} from the 21st call on", FAILED, (*words, "kept"), trouble=(kind, 20, None), iterates=True
        )
        yield Case(
            f"field {kind} from the 21st call on, rank 1 of 2",
            FAILED,
            (*words, "kept"),
            trouble=(kind, 20, 1),
            ranks=2,
            iterates=True,
        )
    for kind in ("nan", "inf"):
        slope = ("gradient is not finite", "layer")
        yield Case(f"{kind} slope from the start", FAILED, slope, trouble=(f"{kind} slope", 0, None), quick=True)
        yield Case(
            f"{kind} slope from the 9th call on",
            FAILED,
            (*slope, "kept"),
            trouble=(f"{kind} slope", 8, None),
            iterates=True,
            quick=kind == "nan",
        )
        yield Case(
            f"{kind} slope from the 9th call on, rank 1 of 2",
            FAILED,
            (*slope, "kept"),
            trouble=(f"{kind} slope", 8, 1),
            ranks=2,
            iterates=True,
        )
    yield Case(
        "slope raises from the 9th call on",
        FAILED,
        ("FloatingPointError", "kept"),
        trouble=("slope raises", 8, None),
        iterates=True,
    )
    for kind, first in (("uphill slope", 0), ("uphill slope", 8), ("slope of one sign", 8)):
        yield Case(
            f"{kind} from call {first + 1} on",
            FAILED,
            ("line search", "gradient", "kept"),
            trouble=(kind, first, None),
            iterates=True,
            quick=first == 0,
        )
    for rank in (None, 1):
        yield Case(
            f"NaN velocity on the second of two levels, {'all ranks' if rank is None else 'rank 1 of 2'}",
            FAILED,
            ("velocity is not finite", "kept"),
            {"optimiser": "levels = 2"},
            trouble=("nan on the finest mesh", 12, rank),
            ranks=1 if rank is None else 2,
        )
    yield Case(
        "NaN velocity at the start of the second of two levels",
        FAILED,
        ("velocity is not finite", "level 2 of 2", "kept"),
        {"optimiser": "levels = 2"},
        trouble=("nan on the finest mesh", 4, None),
    )
    for kind, words in (("nan", "not finite"), ("nan slope", "gradient is not finite")):
        yield Case(
            f"{kind} from the 201st call on, particles",
            FAILED,
            (words, "kept"),
            trouble=(kind, 200, None),
            command="train --method particles",
            iterates=True,
        )
    yield Case("noise in the velocity", (*ENDED, "failed"), (), trouble=("noise", 0, None), iterates=True)


def _objectives() -> Iterable[Case]:
    """Losses and costs."""
    for formula in ("exp(exp(3 * x**2))", "log(x)", "1 / (x - x)", "sqrt(x)", "-exp(exp(3 * x**2))"):
        yield Case(
            f"terminal loss {formula}",
            None,
            ("objective.terminal", "not finite"),
            {"terminal": f'kind = "expression"\nvalue = "{formula}"'},
            code=1,
            quick=formula == "log(x)",
        )
    big = {"terminal": 'kind = "expression"\nvalue = "1e300 * exp(x**2)"'}
    yield Case("terminal loss of 1e300", FAILED, ("norm of the gradient overflows", "weights"), big)
    yield Case(
        "parts of J whose sum overflows",
        FAILED,
        ("J is not finite", "sum"),
        {"terminal": 'kind = "expression"\nvalue = "1.7e308"', "running": 'potential = "1e308"'},
    )
    constant = {"terminal": 'kind = "expression"\nvalue = "0 * x + 3"'}
    yield Case("constant loss", ("converged",), ("gradient",), constant, iterates=True, quick=True)
    yield Case("zero loss", ("converged",), (), {"terminal": 'kind = "expression"\nvalue = "0"'}, iterates=True)
    for method in ("bncg", "blmvm"):
        optimiser = f'method = "{method}"'
        yield Case(f"constant loss, {method}", ("converged",), (), constant | {"optimiser": optimiser}, iterates=True)
    yield Case("nothing but the terminal loss", ENDED, (), {"kinetic": 0.0, "parameters": 0.0}, iterates=True)
    yield Case("nothing but a constant loss", ("converged",), (), constant | {"kinetic": 0.0, "parameters": 0.0})
    yield Case(
        "negative objective",
        ENDED,
        (),
        {"terminal": 'kind = "expression"\nvalue = "-exp(-(x - 1)**2)"'},
        iterates=True,
    )
    yield Case(
        "objective without a lower bound in θ",
        (*ENDED, "failed"),
        (),
        {"kinetic": 0.0, "parameters": 0.0, "terminal": 'kind = "expression"\nvalue = "-x"'},
        iterates=True,
        warned=True,
    )
    yield Case("entropy", ENDED, (), {"running": "entropy = 0.01"}, iterates=True)


def _densities() -> Iterable[Case]:
    """Densities that underflow, touch the wall or gather in a cell."""
    yield Case("density that underflows", ENDED, (), {"initial": "mean = [-0.5]\nstd = 0.03"}, iterates=True)
    yield Case(
        "density without limiter",
        ENDED,
        (),
        {"initial": "mean = [-0.5]\nstd = 0.05", "solver": "limiter = false"},
    )
    against = {"terminal": 'kind = "quadratic"\ntarget = [1.0]'}
    yield Case("mass against the wall", ("done",), (), against, theta=[[0.0, 5.0]], command="solve", warned=True)
    yield Case(
        "mass against the wall, 2 ranks",
        ("done",),
        (),
        against,
        theta=[[0.0, 5.0]],
        command="solve",
        warned=True,
        ranks=2,
        quick=True,
    )
    yield Case(
        "trained against the wall",
        ENDED,
        (),
        {"terminal": 'kind = "quadratic"\ntarget = [4.0]', "kinetic": 0.01},
        warned=True,
        iterates=True,
    )


def _optimisers() -> Iterable[Case]:
    """Options and budgets."""
    yield Case("one iteration", ("max_iterations",), ("limit of 1",), {"iterations": 1}, iterates=True)
    yield Case("no iteration", ("max_iterations",), ("limit of 0",), {"iterations": 0}, iterates=True)
    yield Case(
        "unknown option value",
        FAILED,
        ("optimiser.petsc_options",),
        {"optimiser": 'petsc_options = "-tao_ls_type nonsense"'},
        code=1,
    )
    yield Case(
        "one function value per search",
        (*ENDED, "failed"),
        (),
        {"optimiser": 'petsc_options = "-tao_ls_max_funcs 1"'},
        iterates=True,
    )
    yield Case(
        "few evaluations at most",
        ("max_iterations",),
        ("evaluations",),
        {"optimiser": 'petsc_options = "-tao_max_funcs 3"'},
        iterates=True,
    )
    yield Case(
        "unit steps that are far too long",
        (*ENDED, "failed"),
        (),
        {
            "optimiser": 'petsc_options = "-tao_ls_type unit"',
            "iterations": 6,
            "terminal": 'kind = "quadratic"\ntarget = [2.0]\nweight = 50.0',
        },
        iterates=True,
    )
    yield Case(
        "a tolerance of nothing: the descent stands still",
        (*ENDED,),
        (),
        {"optimiser": "gradient_tolerance = 1e-300", "iterations": 200},
        iterates=True,
    )
    for method in ("bncg", "blmvm", "cg", "bqnls"):
        yield Case(
            f"NaN velocity from the 21st call on, {method}",
            FAILED,
            ("velocity is not finite", "kept"),
            {"optimiser": f'method = "{method}"'},
            trouble=("nan", 20, None),
            iterates=True,
        )
        yield Case(
            f"NaN slope from the 9th call on, {method}",
            FAILED,
            ("gradient is not finite", "kept"),
            {"optimiser": f'method = "{method}"'},
            trouble=("nan slope", 8, None),
            iterates=True,
        )
    yield Case(
        "a method that minimises something else", FAILED, ("owlqn",), {"optimiser": 'method = "owlqn"'}, iterates=True
    )


def faults(quick: bool) -> Iterable[Fault]:
    """Every case, or the quick ones."""
    for cases in (_given, _user, _objectives, _densities, _optimisers):
        for case in cases():
            if case.quick or not quick:
                yield Fault(GROUP, case.name, case.inject)
