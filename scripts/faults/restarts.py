"""Forward solves that are killed, on one number of ranks, and gone on with on another; densities that are damaged."""

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from harness import Ended, Fault, Verdict, command, ended, eulerian, started, turn

GROUP = "forward solves killed and gone on with"

CONFIG = """
[domain]
box = { lower = [-1.0, -1.0], upper = [1.0, 1.0], cells = [28, 28] }
[density]
degree = 1
[[density.initial]]
kind = "gaussian"
mean = [-0.3, 0.1]
std = 0.2
label = 0
[[density.initial]]
kind = "gaussian"
mean = [0.0, 0.1]
std = 0.2
label = 1
[[density.initial]]
kind = "gaussian"
mean = [0.3, -0.1]
std = 0.2
label = 2
[field]
kind = "mlp"
hidden = [8]
layers = 4
horizon = 1.0
zero_init = false
output_scale = 2.0
[objective]
kinetic = 0.5
congestion = 0.1
entropy = 0.05
[objective.terminal]
kind = "quadratic"
target = [0.4, 0.2]
[solver]
cfl = 0.2
[output]
densities = 9
"""

# Files that are kept before the solve is killed.
MOMENTS = (0, 1, 3, 6, 10)
RANKS = ((1, 1), (1, 2), (2, 1), (2, 3), (3, 2))


def faults(quick: bool) -> Iterable[Fault]:
    """Every pair of numbers of ranks at every moment; every damage to the first, a middle and the last file."""
    for before, after in RANKS[:2] if quick else RANKS:
        for moment in MOMENTS[2:3] if quick else MOMENTS:
            name = f"SIGKILL on {before} with {moment} files kept, gone on with on {after}"
            yield Fault(GROUP, name, partial(_killed, before=before, after=after, moment=moment))
    for damage in (_cut, _garbled) if quick else (_cut, _garbled, _emptied, _removed, _foreign):
        for place in (-1,) if quick else (0, 2, -1):
            name = f"densities {damage.__name__[1:]}, file {place}"
            yield Fault("densities of a solve damaged", name, partial(_damaged, damage=damage, place=place))


def _killed(folder: Path, before: int, after: int, moment: int) -> Verdict:
    failure = _kill(folder, before, moment)
    return failure or _gone_on_with(folder, after, exact=before == after == 1)


def _damaged(folder: Path, damage: Any, place: int) -> Verdict:
    failure = _kill(folder, 1, 6)
    if failure is None:
        damage(sorted((folder / "run" / "checkpoint").glob("*.h5"))[place])
    return failure or _gone_on_with(folder, 1, exact=True)


def _kill(folder: Path, ranks: int, moment: int) -> Verdict | None:
    """Leave a solve that was killed in ``run``; what went wrong with that, or nothing."""
    (folder / "a.toml").write_text(CONFIG, encoding="utf-8")
    arguments = command("solve", "a.toml", "--output", "run", "--quiet", ranks=ranks)
    config, kept = folder / "run" / "config.resolved.toml", folder / "run" / "checkpoint"
    with turn(ranks > 1), started(arguments, folder) as process:
        deadline = time.monotonic() + 60.0
        while process.poll() is None and time.monotonic() < deadline:
            if config.exists() and len(list(kept.glob("*.h5"))) >= moment:
                break
            time.sleep(0.0005)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        end = ended(process, 10.0)
    if end.code == 0:  # it was faster: then going on must do no harm
        return None
    if end.code != -signal.SIGKILL:
        return Verdict(False, f"it ended before it was killed: {end.last_line}", hung=end.hung)
    if (folder / "run" / "result.json").exists():
        return Verdict(False, "a result is there although the solve was killed")
    return None


def _gone_on_with(folder: Path, ranks: int, *, exact: bool) -> Verdict:
    """Resume, and compare with a solve that was never interrupted."""
    resumed = eulerian(folder, "solve", "a.toml", "--output", "run", "--resume", "--quiet", ranks=ranks)
    whole = eulerian(folder, "solve", "a.toml", "--output", "whole", "--quiet")
    for end in (resumed, whole):
        if end.code != 0:
            return _ended_badly(end)
    documents = [json.loads((folder / name / "result.json").read_text()) for name in ("run", "whole")]
    for document in documents:
        del document["seconds"]
    if exact and documents[0] != documents[1]:
        return Verdict(False, "the results differ")
    parts = [list(document["objective"].values()) for document in documents]
    if not np.allclose(*parts, rtol=1e-11, atol=0.0):
        return Verdict(False, f"J is {parts[0][0]!r}, not {parts[1][0]!r}")
    ends = [sorted((folder / name / "checkpoint").glob("*.h5"))[-1] for name in ("run", "whole")]
    densities = [_density(path) for path in ends]
    if exact and not np.array_equal(*densities):
        return Verdict(False, "the densities differ")
    if not np.allclose(*densities, rtol=0.0, atol=1e-11 * densities[1].max()):
        return Verdict(False, "the densities differ by more than rounding")
    return Verdict(True)


def _ended_badly(end: Ended) -> Verdict:
    return Verdict(False, f"exit code {end.code}: {end.last_line}", hung=end.hung, traceback=end.traceback)


def _density(path: Path) -> Any:
    with h5py.File(path) as file:
        return file["density"][()]


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def _garbled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 16] = bytes(byte ^ 0x55 for byte in data[middle : middle + 16])
    path.write_bytes(data)


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _removed(path: Path) -> None:
    path.unlink()


def _foreign(path: Path) -> None:
    shutil.copy(__file__, path)
