"""A training that faults are injected into, and what its run folder must be like whatever happens to it."""

import csv
import functools
import json
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import Ended, Verdict, eulerian

MODEL = """
[domain]
box = { lower = [-3.0, -3.0], upper = [3.0, 3.0], cells = [24, 24] }
[[density.initial]]
kind = "gaussian"
mean = [-0.5, 0.3]
std = 0.5
[field]
kind = "mlp"
hidden = [8]
layers = 4
[objective]
kinetic = 0.5
[objective.terminal]
kind = "quadratic"
target = [1.0, -0.5]
[optimiser]
max_iterations = 60
gradient_tolerance = 0.0
[ideal]
certificate = "none"
[output]
densities = 3
checkpoint_every = 2
"""

# By name, what else is set. A training of levels changes its mesh twice.
KINDS = {
    "one mesh": (),
    "levels": ("optimiser.levels=3",),
    "particles": ("particles.count=500",),
}


@dataclass(frozen=True)
class Training:
    """One of the kinds, in a folder of its own.

    Attributes:
        folder: where the configuration is; the run is in ``run``.
        kind: one of ``KINDS``.
        more: overrides of the configuration, as ``--set`` takes them.
    """

    folder: Path
    kind: str = "one mesh"
    more: tuple[str, ...] = ()

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    def arguments(self, *more: str) -> list[str]:
        """Of ``eulerian``."""
        (self.folder / "model.toml").write_text(MODEL, encoding="utf-8")
        overrides = [text for each in (*KINDS[self.kind], *self.more) for text in ("--set", each)]
        method = ["--method", "particles"] if self.kind == "particles" else []
        return ["train", "model.toml", "--output", "run", "--quiet", *overrides, *method, *more]

    def resume(self, ranks: int = 1, limit: float = 120.0) -> Ended:
        """Go on to the end."""
        return eulerian(self.folder, *self.arguments("--resume"), ranks=ranks, limit=limit)

    def history(self) -> list[dict[str, str]]:
        """Without the time that it took."""
        path = self.run / "history.csv"
        if not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)]

    def trouble(self) -> str:
        """What is wrong with the files of a run that was broken off, or nothing: each is whole, or not there."""
        checks = {
            "result.json": lambda path: json.loads(path.read_text(encoding="utf-8")),
            "config.resolved.toml": lambda path: tomllib.loads(path.read_text(encoding="utf-8")),
            "theta.npz": _load,
            "checkpoint/latest.npz": _load,
            "checkpoint/previous.npz": _load,
        }
        for name, check in checks.items():
            path = self.run / name
            try:
                if path.exists():
                    check(path)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it
                return f"{name} is damaged ({type(error).__name__}: {error})"
        return ""


def judged(training: Training, resumed: Ended, *, same: bool = True) -> Verdict:
    """The verdict on a training that was broken off, after it was gone on with.

    Args:
        training: with its run at its end.
        resumed: how the last part ended.
        same: the history must be that of a training that was never broken off, to the last bit; else every iteration
            must be there once.
    """
    if resumed.hung:
        return Verdict(False, "--resume did not end", hung=True)
    if resumed.code != 0:
        return Verdict(False, f"--resume ended with {resumed.code}: {resumed.last_line}", traceback=resumed.traceback)
    expected, found = reference(training.kind, training.more), training.history()
    wanted, there = ([(row["level"], row["iteration"]) for row in rows] for rows in (expected, found))
    if same:
        lost = len(set(wanted) - set(there)) + len(there) - len(set(there))
        if found != expected:
            return Verdict(False, f"the history differs, {lost} iterations lost or doubled", lost=lost)
    else:  # on other ranks the last bits differ, and so may the end
        numbers = [int(number) for _, number in there]
        lost = len(set(range(max(numbers) + 1)) - set(numbers)) + len(there) - len(set(there))
        if lost:
            return Verdict(False, f"{lost} iterations lost or doubled", lost=lost)
        last, best = float(found[-1]["total"]), float(expected[-1]["total"])
        if last > 1.01 * best:
            return Verdict(False, f"J ended at {last:.6g} instead of {best:.6g}")
    if json.loads((training.run / "result.json").read_text(encoding="utf-8"))["status"] not in (
        "converged",
        "max_iterations",
    ):
        return Verdict(False, "the result does not say that the training came to its end")
    return Verdict(True)


@functools.cache
def reference(kind: str, more: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """The history of a training that nothing happens to."""
    with tempfile.TemporaryDirectory(prefix="eulerian-fault-") as folder:
        training = Training(Path(folder), kind, more)
        done = eulerian(training.folder, *training.arguments(), limit=300.0)
        if done.code != 0:
            raise RuntimeError(f"the training without faults fails: {done.err}")
        return training.history()


def _load(path: Path) -> None:
    with np.load(path, allow_pickle=False) as data:
        for name in data.files:
            data[name]
