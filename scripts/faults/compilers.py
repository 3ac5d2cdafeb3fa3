"""Compilers that are missing, fail, hang or lie, and a cache that was damaged: the next run must not suffer."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from harness import Fault, Verdict, command, ended, started
from verdicts import LIMIT, MARK, judged, model, still_there, trained

GROUP, CACHE = "compilers", "kernel cache"

_EACH = 'for o in "$@"; do case $o in *.so)'

# What a compiler may do instead of its work; $REAL is one that works.
BROKEN = {
    "fails": ('echo "out of order" >&2; exit 1', "out of order"),
    "says nothing": ("exit 1", "does not say why"),
    "is killed": ("kill -9 $$", "Killed"),
    "hangs": ("sleep 1000", "EULERIAN_COMPILE_SECONDS"),
    "makes no file": ("exit 0", "no library"),
    "makes half a file": (
        '$REAL "$@" && for o in "$@"; do case $o in *.so) truncate -s 3000 "$o";; esac; done',
        "no lib",
    ),
    "makes an empty file": ('for o in "$@"; do case $o in *.so) : > "$o";; esac; done', "no library"),
}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut in half": lambda content: content[: len(content) // 2],
    "one page": lambda content: content[:4096],
    "zeros": lambda content: bytes(len(content)),
    "another byte": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
}


def faults(quick: bool) -> Iterator[Fault]:
    """All of them; every third kind of damage for ``quick``."""
    yield Fault(GROUP, "none", _none)
    for name, (text, said) in BROKEN.items():
        yield Fault(GROUP, name, partial(_broken, text, said))
    for name, damage in list(DAMAGES.items())[:: 3 if quick else 1]:
        yield Fault(CACHE, f"a library is damaged: {name}", partial(_damaged, damage))
    yield Fault(CACHE, "killed while it compiles", _killed)
    yield Fault(CACHE, "two runs at once", _race)


def _cache(folder: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(folder / "cache")}


def _fake(folder: Path, text: str) -> dict[str, str]:
    """Environment with a compiler that does this."""
    compiler = folder / "fake-cc"
    compiler.write_text(f"#!/bin/sh\nREAL={shutil.which('gcc') or shutil.which('cc')}\n{text}\n")
    compiler.chmod(0o755)
    return {"CC": str(compiler), "EULERIAN_COMPILE_SECONDS": "3", **_cache(folder)}


def _scratch(folder: Path) -> list[Path]:
    return list((folder / "cache").rglob(".compile-*"))


def _none(folder: Path) -> Verdict:
    (folder / "empty").mkdir()
    extra = {"PATH": str(folder / "empty"), "CC": "/nonexistent/cc", **_cache(folder)}
    return judged(trained(folder, ranks=1, extra=extra), folder, said="no C compiler")


def _broken(text: str, said: str, folder: Path) -> Verdict:
    verdict = judged(trained(folder, ranks=2, extra=_fake(folder, text)), folder, said=said)
    if verdict.survived and (_scratch(folder) or list((folder / "cache").rglob("*.so"))):
        return Verdict(False, "something is left in the cache")
    return verdict


def _value(folder: Path) -> float:
    return float(json.loads((folder / "run" / "result.json").read_text())["objective"]["total"])


def _damaged(damage: Callable[[bytes], bytes], folder: Path) -> Verdict:
    """Every library is damaged; the next run compiles it again, and finds the same."""
    if trained(folder, extra=_cache(folder)).code:
        return Verdict(False, "a healthy run failed")
    before = _value(folder)
    for library in (folder / "cache").rglob("*.so"):
        library.write_bytes(damage(library.read_bytes()))
    verdict = judged(trained(folder, "--overwrite", ranks=2, extra=_cache(folder)), folder, codes=(0,), messages=0)
    if verdict.survived and abs(_value(folder) - before) > 1e-10:
        return Verdict(False, "another result")
    return verdict


def _killed(folder: Path) -> Verdict:
    """A run is killed with everything while its compiler is at work; what that leaves is deleted by a later one."""
    slow = _fake(folder, 'touch "$(dirname "$0")/begun"; sleep 2; exec $REAL "$@"')
    slow |= {MARK: str(folder), "EULERIAN_COMPILE_SECONDS": "60"}
    with started(command("train", model(folder)), folder, slow) as process:
        since = time.monotonic()
        while not (folder / "begun").exists() and time.monotonic() - since < LIMIT:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        ended(process, LIMIT)
    left = _scratch(folder)
    if not left:
        return Verdict(False, "the fault did not happen: nothing is left of the compilation")
    still_there(folder, LIMIT)  # the compiler itself may live on for a while, and write
    first = judged(trained(folder, extra=_cache(folder)), folder, codes=(0,), messages=0)
    if not first.survived:
        return first
    for library in (folder / "cache").rglob("*.so"):
        library.unlink()
    for path in _scratch(folder):
        os.utime(path, (time.time() - 7200.0,) * 2)
    second = judged(trained(folder, "--overwrite", extra=_cache(folder)), folder, codes=(0,), messages=0)
    return Verdict(False, "old scratch is left") if second.survived and _scratch(folder) else second


def _race(folder: Path) -> Verdict:
    """Two processes that compile the same, at once."""
    file = model(folder)
    extra = {MARK: str(folder), **_cache(folder)}
    with (
        started(command("train", file, "--output", "a"), folder, extra) as one,
        started(command("train", file, "--output", "run"), folder, extra) as other,
    ):
        both = [ended(process, LIMIT) for process in (one, other)]
    broken = next((done for done in both if done.code), both[0])
    return judged(broken, folder, codes=(0,), messages=0)
