"""Inject faults and count what survives them: ``python scripts/faults/run.py``.

One row per kind of fault: how many were injected, how many were survived, hangs, tracebacks shown for wrong input, and
iterations lost. Exit status 0 when everything survived. ``--quick`` injects a few of every kind.
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from harness import Fault, Verdict

# Modules of this folder, each with ``faults(quick) -> Iterable[Fault]``.
MODULES = (
    "bad_input",
    "points",
    "meshes",
    "units",
    "collective",
    "numerical",
    "signals",
    "kills",
    "restarts",
    "launchers",
    "stories",
)


def main() -> int:
    """Inject, print the table, and leave ``results.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few of every kind")
    parser.add_argument("--only", action="append", choices=MODULES, help="one kind; may be repeated")
    parser.add_argument("--match", metavar="TEXT", default="", help="only faults whose name contains TEXT")
    parser.add_argument("--output", type=Path, default=Path("runs/faults"), help="where results.json goes")
    options = parser.parse_args()
    found: list[tuple[Fault, Verdict, float]] = []
    for name in options.only or MODULES:
        faults: Iterable[Fault] = importlib.import_module(name).faults(options.quick)
        for fault in faults:
            if options.match not in fault.name:
                continue
            since = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="eulerian-fault-", ignore_cleanup_errors=True) as folder:
                verdict = fault.inject(Path(folder))
            seconds = time.monotonic() - since
            found.append((fault, verdict, seconds))
            if not verdict.survived:
                print(f"NOT SURVIVED  {fault.group}: {fault.name}: {verdict.note}", flush=True)
        keep(found, options.output)
    print(table(found))
    return int(not all(verdict.survived for _, verdict, _ in found))


def keep(found: list[tuple[Fault, Verdict, float]], folder: Path) -> None:
    """Leave ``results.json``, a line for each."""
    folder.mkdir(parents=True, exist_ok=True)
    document = [
        {"group": fault.group, "name": fault.name, "seconds": round(seconds, 2), **asdict(verdict)}
        for fault, verdict, seconds in found
    ]
    (folder / "results.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def table(found: list[tuple[Fault, Verdict, float]]) -> str:
    """One row per kind of fault, and the sum."""
    names = ("injected", "survived", "hangs", "tracebacks", "lost iterations", "seconds")
    lines = [f"{'':44}" + "".join(f"{name:>16}" for name in names)]
    groups = list(dict.fromkeys(fault.group for fault, _, _ in found))
    for group in [*groups, ""]:
        mine = [(verdict, seconds) for fault, verdict, seconds in found if group in ("", fault.group)]
        counts = (
            len(mine),
            sum(verdict.survived for verdict, _ in mine),
            sum(verdict.hung for verdict, _ in mine),
            sum(verdict.traceback for verdict, _ in mine),
            sum(verdict.lost for verdict, _ in mine),
        )
        seconds = sum(each for _, each in mine)
        lines.append(f"{group or 'all':44}" + "".join(f"{count:16}" for count in counts) + f"{seconds:16.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
