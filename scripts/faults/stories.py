"""What a user does in a row, and what must be true after each step."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness import Ended, Fault, Verdict, eulerian

GROUP = "stories of several commands"

CONFIG = """
[domain]
box = { lower = [-2.0, -2.0], upper = [2.0, 2.0], cells = [10, 10] }
[density]
degree = 1
[[density.initial]]
kind = "gaussian"
mean = [-0.4, 0.1]
std = 0.3
[field]
kind = "mlp"
hidden = [5]
layers = 2
[objective]
kinetic = 0.5
parameters = 1e-4
[objective.terminal]
kind = "quadratic"
target = [0.3, -0.2]
[optimiser]
max_iterations = 4
[particles]
count = 200
[ideal]
max_iterations = 60
[output]
densities = 0
"""

CLASSES = """
[domain]
box = { lower = [-2.0], upper = [2.0], cells = [32] }
[[density.initial]]
kind = "gaussian"
mean = [-0.3]
std = 0.25
label = 0
[[density.initial]]
kind = "gaussian"
mean = [0.3]
std = 0.25
label = 1
[field]
kind = "mlp"
hidden = [4]
layers = 2
tied = true
[objective]
kinetic = 0.5
[objective.terminal]
kind = "cross_entropy"
trainable = true
[optimiser]
max_iterations = 4
[output]
densities = 0
"""


@dataclass(frozen=True)
class Step:
    """One command of a story, in which it is ``name``.

    Attributes:
        arguments: of ``eulerian``.
        ranks: that it runs on.
        code: that it must end with.
        status: of the result in the folder ``name``; None where none may be written.
        said: what it must say.
        unsaid: what it must not.
        holds: what else must be true: told all results so far by name, with this one; None where it is.
    """

    arguments: tuple[str, ...]
    ranks: int = 1
    code: int = 0
    status: str | None = "done"
    said: tuple[str, ...] = ()
    unsaid: tuple[str, ...] = ("nothing moves",)
    holds: Callable[[Mapping[str, Any]], str | None] = field(default=lambda _: None)


type Story = Mapping[str, Step]

REST = ("nothing moves at this θ", "--theta RUN")


def faults(quick: bool) -> Iterable[Fault]:
    """Stories; where several ranks take part, the results must be those of one."""
    chosen = {"a trained flow is looked at": _looked_at(1)}
    if not quick:
        chosen |= {
            "a trained flow is looked at on 2 ranks": _looked_at(2),
            "a readout goes along": _classes(),
            "ideal velocities are solved with": _ideal(),
            "what does not fit is refused": _refused(),
            "a solve at a trained flow is gone on with": _gone_on_with(),
        }
    for name, story in chosen.items():
        yield Fault(GROUP, name, partial(_told, story=story))


def _looked_at(ranks: int) -> Story:
    """Train, then solve, verify and compare at that θ and at the start."""
    theta = ("a.toml", "--theta", "trained")
    again = ("theta of another folder", ("a.toml", "--theta", "solve"))
    return {
        "start": Step(("solve", "a.toml"), ranks, said=REST, unsaid=()),
        "laws at the start": Step(("verify", "a.toml"), ranks, said=REST, unsaid=(), holds=_nearby),
        "trained": Step(("train", "a.toml"), ranks, status="max_iterations", unsaid=("nothing moves", "θ₀")),
        "solve": Step(("solve", *theta), ranks, said=("θ of trained",), holds=_same("solve", "trained")),
        "laws": Step(("verify", *theta), 3 - ranks, holds=_same("laws", "trained")),
        "both": Step(("compare", *theta), ranks, holds=_same("both", "trained")),
        "particles": Step(("solve", *theta, "--method", "particles"), 3 - ranks, said=("θ of trained",)),
        again[0]: Step(("solve", *again[1]), ranks, holds=_same(again[0], "trained")),
    }


def _classes() -> Story:
    theta = ("classes.toml", "--theta", "trained")
    return {
        "trained": Step(("train", "classes.toml"), status="max_iterations", holds=_no_share),
        "solve": Step(("solve", *theta), holds=_same("solve", "trained")),
        "laws": Step(("verify", *theta), 2, holds=_same("laws", "trained")),
        "repeated": Step(("solve", "solve/config.resolved.toml"), holds=_same("repeated", "trained")),
    }


def _ideal() -> Story:
    free = ("--set", 'field={kind="free", layers=2}')
    return {
        "best": Step(("ideal", "a.toml"), status="max_iterations", unsaid=()),
        "solve": Step(("solve", "a.toml", *free, "--theta", "best")),
        "network": Step(("solve", "a.toml", "--theta", "best"), code=1, status=None, said=("free", "field=")),
        "finer": Step(
            ("solve", "a.toml", *free, "--set", "domain.box.cells=[12, 12]", "--theta", "best"),
            code=1,
            status=None,
            said=("--theta", "domain.box.cells"),
        ),
    }


def _refused() -> Story:
    changes = {
        "layers": "field.layers=3",
        "width": "field.hidden=[6]",
        "activation": 'field.activation="relu"',
        "labels": "field.label_dependent=true",
    }
    story = {"trained": Step(("train", "a.toml"), status="max_iterations", unsaid=())}
    for (name, change), command in zip(changes.items(), ("solve", "verify", "compare", "solve"), strict=True):
        arguments = (command, "a.toml", "--set", change, "--theta", "trained")
        said = ("--theta", change.partition("=")[0])
        story[f"{command} with another {name}"] = Step(arguments, code=1, status=None, said=said)
    story["nowhere"] = Step(("solve", "a.toml", "--theta", "nowhere"), code=1, status=None, said=("nowhere",))
    story["a text"] = Step(("verify", "a.toml", "--theta", "a.toml"), code=1, status=None, said=("--theta",))
    return story


def _gone_on_with() -> Story:
    theta = ("a.toml", "--theta", "trained")
    return {
        "trained": Step(("train", "a.toml"), status="max_iterations", unsaid=()),
        "solve": Step(("solve", *theta), holds=_same("solve", "trained")),
        "restarted": Step(("solve", *theta, "--restart", "solve"), 2, holds=_same("restarted", "trained")),
        "other": Step(("solve", "a.toml", "--restart", "solve"), code=1, status=None, said=("field.theta",)),
    }


def _same(name: str, other: str) -> Callable[[Mapping[str, Any]], str | None]:
    """J and its parts are those of another result."""

    def check(results: Mapping[str, Any]) -> str | None:
        here, there = (list(results[each]["objective"].values()) for each in (name, other))
        return None if np.allclose(here, there, rtol=1e-9, atol=1e-12) else f"J is {here[0]!r}, not {there[0]!r}"

    return check


def _nearby(results: Mapping[str, Any]) -> str | None:
    found = results["laws at the start"]["verify"]["nearby"]
    return None if found and min(found["taylor_rates"]) > 1.8 else "the gradient was not checked where something moves"


def _no_share(results: Mapping[str, Any]) -> str | None:
    """A field that does not see labels does not attain the bound."""
    found = results["trained"]["certificate"]
    told = found["relative_gap"] is not None or "%" in found["statement"]
    return "a percentage of a bound that is not attained" if told else None


def _told(folder: Path, story: Story) -> Verdict:
    """Do one step after another."""
    (folder / "a.toml").write_text(CONFIG, encoding="utf-8")
    (folder / "classes.toml").write_text(CLASSES, encoding="utf-8")
    results: dict[str, Any] = {}
    for name, step in story.items():
        end = eulerian(folder, *step.arguments, "--output", name, ranks=step.ranks, limit=120.0)
        wrong = _wrong(step, end, folder / name)
        if wrong is None and step.status is not None:
            results[name] = json.loads((folder / name / "result.json").read_text(encoding="utf-8"))
            wrong = step.holds(results)
        if wrong is not None:
            return Verdict(False, f"{name}: {wrong}", hung=end.hung, traceback=end.traceback)
    return Verdict(True)


def _wrong(step: Step, end: Ended, run: Path) -> str | None:
    """What is wrong with a step, or None."""
    said = end.out + end.err
    if end.hung or end.code != step.code or end.traceback:
        return f"exit code {end.code}: {end.last_line}"
    missing = [text for text in step.said if text not in said] + [text for text in step.unsaid if text in said]
    if missing:
        return f"about {missing[0]!r} it said: {said}"
    if step.status is None:
        return f"{run.name} was left" if run.exists() else None
    status = json.loads((run / "result.json").read_text(encoding="utf-8"))["status"]
    return None if status == step.status else f"the status is {status!r}"
