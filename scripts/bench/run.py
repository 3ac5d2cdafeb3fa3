"""Every benchmark, one after the other: one table, one file of results, one figure.

    python scripts/bench/run.py
    python scripts/bench/run.py --only gradient --only ranks --output runs/bench
    python scripts/bench/run.py --quick
    python scripts/bench/run.py --rivals FOLDER

Leaves ``results.json`` (machine, versions, every row with its goal, all series) and ``bench.png`` in the output folder,
and one file per benchmark, which may also be run by itself. Nothing else should run on the machine meanwhile.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from chart import draw
from suite import HERE, Row, Table, arguments, print_table, write_json

NAMES = (
    "startup",
    "gradient",
    "product",
    "layer",
    "labels",
    "memory",
    "large",
    "ranks",
    "levels",
    "adapt",
    "ideal",
    "adjoint",
    "particles",
    "density_costs",
    "weak_scaling",
)
PACKAGES = ("eulerian", "dolfinx-solver-real", "fenics-dolfinx", "numpy", "mpi4py", "jax", "dolfinx-adjoint")


def main(words: Sequence[str] | None = None) -> int:
    """Run what is asked for; 1 if a benchmark broke down."""
    parser = arguments(__doc__)
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help=f"one of {', '.join(NAMES)}")
    options = parser.parse_args(words)
    options.output.mkdir(parents=True, exist_ok=True)
    more = [*(["--quick"] if options.quick else []), *(["--rivals", str(options.rivals)] if options.rivals else [])]
    started = time.perf_counter()
    found, broken = [], []
    for name in NAMES:
        if options.only and name not in options.only:
            continue
        print(f"{name} …", flush=True)
        target = options.output / f"{name}.json"
        target.unlink(missing_ok=True)
        command = [sys.executable, str(HERE / f"{name}.py"), "--output", str(options.output), *more]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # what it says goes to our stderr
        if done.returncode or not target.exists():
            broken.append(name)
            print(f"{name} broke down with status {done.returncode}", file=sys.stderr, flush=True)
            continue
        found.append(json.loads(target.read_text(encoding="utf-8")))
    results = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "machine": machine(),
        "versions": versions(options.rivals),
        "seconds": round(time.perf_counter() - started, 1),
        "broken": broken,
        "benchmarks": found,
    }
    show(results)
    write_json(options.output / "results.json", results)
    if found:
        print(draw(results, options.output / "bench.png"))
    return 1 if broken else 0


def show(results: Table) -> None:
    """The table of everything, and how many goals were met."""
    rows = [row for each in results["benchmarks"] for row in each["rows"]]
    print()
    print_table(rows)
    verdicts = [Row.of(row).verdict for row in rows if row["goal"] is not None]
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in ("met", "not met", "not measured"))
    print(f"\n{len(verdicts)} goals: {counts}. {results['machine']['processor']}, {results['date'][:10]}.")
    if results["broken"]:
        print(f"Broken down: {', '.join(results['broken'])}.")


def machine() -> Table:
    """Processor, cores and memory."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        models = []
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def versions(rivals: Path | None) -> dict[str, str]:
    """Of what takes part."""
    found = {}
    path = [*([str(rivals)] if rivals else []), *sys.path]
    for distribution in importlib.metadata.distributions(path=path):
        name = distribution.metadata["Name"]
        if name in PACKAGES:
            found.setdefault(name, distribution.version)
    return found


if __name__ == "__main__":
    sys.exit(main())
