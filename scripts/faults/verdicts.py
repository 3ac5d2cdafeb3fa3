"""What the faults of this folder expect of a run, and the small problem that they happen to."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import Ended, Verdict, eulerian

LIMIT = 60.0  # seconds for a run that takes three on an idle machine
SOON = 15.0  # seconds from the fault to the end of all ranks
MARK = "EULERIAN_FAULT"  # an environment variable by which processes of one fault are known
TOLD_AT = "fault.time"  # a file with the time at which something went wrong

MODEL = """
[domain]
box = { lower = [-2.0], upper = [2.0], cells = [24] }
[[density.initial]]
kind = "gaussian"
mean = [-0.4]
std = 0.5
[field]
kind = "linear"
features = "affine"
layers = 2
[objective]
kinetic = 0.5
[objective.terminal]
kind = "quadratic"
target = [0.5]
[optimiser]
max_iterations = 3
[output]
directory = "run"
densities = 2
checkpoint_every = 1
"""


def model(folder: Path) -> Path:
    """A configuration that takes a second; its run folder is ``run``."""
    file = folder / "model.toml"
    file.write_text(MODEL)
    return file


def trained(
    folder: Path, *options: object, ranks: int = 1, limit: float = LIMIT, extra: Mapping[str, str] | None = None
) -> Ended:
    """``eulerian train`` of the small problem."""
    file = model(folder)
    mark = {MARK: str(folder)} | dict(extra or {})
    return eulerian(folder, "train", file, *options, ranks=ranks, limit=limit, extra=mark)


def judged(
    done: Ended,
    folder: Path,
    *,
    codes: Sequence[int] = (2,),
    said: str = "",
    messages: int = 1,
    run: Path | None = None,
) -> Verdict:
    """Whether a run ended as promised: soon, told once, with nothing half written and nobody left.

    Args:
        done: the run.
        folder: where it happened.
        codes: exit codes that are right.
        said: a part of the message.
        messages: how many there must be; negative for any number.
        run: the run folder, ``run`` if not given.
    """
    wrong = [
        *_wrong_end(done, folder, codes),
        *_wrong_words(done, said, messages),
        *_wrong_files(run or folder / "run", failed=done.code != 0),
    ]
    told = done.traceback and messages >= 0
    if told:
        wrong.append("a traceback")
    note = "; ".join(wrong) + (f" — {done.err.strip()[-600:]}" if wrong else "")
    return Verdict(not wrong, note, hung=done.hung, traceback=told)


def _wrong_end(done: Ended, folder: Path, codes: Sequence[int]) -> list[str]:
    wrong = ["hung"] if done.hung else []
    if done.code not in codes:
        wrong.append(f"exit code {done.code}")
    told_at = folder / TOLD_AT
    if told_at.exists() and (late := time.time() - float(told_at.read_text())) > SOON and done.code:
        wrong.append(f"ended {late:.0f} s after the fault")
    left = still_there(folder, 3.0)  # one that was killed takes a moment to die
    return [*wrong, f"{left} processes are left"] if left else wrong


def still_there(folder: Path, seconds: float) -> int:
    """How many processes of a fault are there, after so many seconds at most for them to go."""
    since = time.monotonic()
    while left := sum(pid.isdecimal() and _belongs(pid, folder) for pid in os.listdir("/proc")):
        if time.monotonic() - since > seconds:
            break
        time.sleep(0.1)
    return left


def _belongs(pid: str, folder: Path) -> bool:
    try:
        return f"{MARK}={folder}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _wrong_words(done: Ended, said: str, messages: int) -> list[str]:
    wrong = []
    count = sum(line.startswith("eulerian train: ") for line in done.err.splitlines())
    if messages >= 0 and count != messages:
        wrong.append(f"{count} messages")
    if said and said not in done.err:
        wrong.append(f"{said!r} was not said")
    return wrong


def _wrong_files(run: Path, *, failed: bool) -> list[str]:
    """What is wrong with the files that a run left."""
    wrong = [f"{file.name} is left" for file in run.rglob(".*.part")]
    result = run / "result.json"
    if result.exists():
        try:
            status = json.loads(result.read_text())["status"]
        except (ValueError, KeyError) as error:
            return [*wrong, f"result.json: {error}"]
        if (status == "failed") != failed:
            wrong.append(f"result.json says {status}")
    elif not failed:
        wrong.append("no result.json")
    history = run / "history.csv"
    if history.exists():
        lines = history.read_text().split("\n")
        if lines[-1] or len({line.count(",") for line in lines[:-1]}) != 1:
            wrong.append("half a line in history.csv")
    return wrong
