"""How long the command line takes to start: help, and a small forward solve from a warm cache.

    python scripts/bench/startup.py

Wall time from the start of the process to its end, imports included.
"""

import sys
import tempfile
from pathlib import Path

from suite import RUNS, Benchmark, BenchmarkError, Report, Runner, Table, at_most, main

HELP, SOLVE = at_most(0.3), at_most(1.5)


def work() -> Table:
    """Nothing: the programs are started as a user starts them."""
    return {}


def measure(runner: Runner) -> Report:
    """Medians of several starts, after one that warms all caches."""
    report = Report()
    eulerian = [str(Path(sys.executable).parent / "eulerian")]
    if not Path(eulerian[0]).exists():
        eulerian = [sys.executable, "-m", "eulerian"]
    runs = 3 if runner.quick else RUNS
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "gaussian.toml"
        runner.call([*eulerian, "init", "gaussian", scratch, "--quiet"])
        solve = [*eulerian, "solve", str(config), "--quiet", "--overwrite", "--output", str(Path(scratch) / "run")]
        kinds = (
            ("eulerian --help", [*eulerian, "--help"], HELP, "no mesh, no MPI"),
            ("python -c 'import eulerian'", [sys.executable, "-c", "import eulerian"], None, ""),
            (
                "import of dolfinx alone",
                [sys.executable, "-c", "from mpi4py import MPI; import dolfinx.fem.petsc"],
                None,
                "what nobody can save",
            ),
            ("small solve, files for ParaView", solve, SOLVE, "template gaussian"),
            ("small solve", [*solve, "--set", "output.densities=0"], SOLVE, "the same with output.densities = 0"),
        )
        for figure, command, goal, note in kinds:
            try:
                runner.call(command)
                seconds = [runner.call(command)[1] for _ in range(runs)]
            except BenchmarkError as error:
                report.add(figure, None, goal, note=error.sentence)
                continue
            report.add(figure, seconds, goal, unit="s", note=note)
            report.data[figure] = seconds
    return report


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
