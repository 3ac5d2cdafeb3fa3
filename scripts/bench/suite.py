"""What the benchmarks in this folder share: goals, measurements in processes of their own, one table and one file.

A benchmark is one file with one command. The process that was started asks the questions (``measure``) and lets other
processes, serial or under ``mpiexec``, find the answers (``work``): what is compiled, cached or allocated for one
measurement is not there for the next. Ratios are of times taken in turns by one process, or by processes in turns.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

type Table = dict[str, Any]

HERE = Path(__file__).resolve().parent
ANSWER = "answer: "  # what a worker prints before its JSON, on a line of its own
TIME_LIMIT = 900.0  # seconds for one process
RUNS = 10  # of what is told with a range


class BenchmarkError(Exception):
    """A measurement did not come about."""

    @property
    def sentence(self) -> str:
        """The line that says why."""
        lines = [line.strip() for line in str(self).splitlines() if line.strip()]
        return next((line for line in reversed(lines) if "Error" in line), lines[-1])[-200:]


@dataclass(frozen=True)
class Goal:
    """A bound on a figure."""

    bound: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Whether the value is on the right side."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


def at_most(bound: float) -> Goal:
    """A goal that is met by what is small."""
    return Goal(bound)


def at_least(bound: float) -> Goal:
    """A goal that is met by what is large."""
    return Goal(bound, at_least=True)


@dataclass(frozen=True)
class Row:
    """One figure of the table.

    Attributes:
        figure: what was measured.
        value: the result; None where it did not come about, and ``note`` says why.
        goal: its bound, if there is one.
        unit: of the value, if it has one.
        note: sizes, and what else one should know.
        missed: there is no value because the goal was out of reach.
        lowest, highest: of the runs whose median the value is, where it is one.
    """

    figure: str
    value: float | None
    goal: Goal | None = None
    unit: str = ""
    note: str = ""
    missed: bool = False
    lowest: float | None = None
    highest: float | None = None

    @property
    def verdict(self) -> str:
        """``met``, ``not met``, ``not measured``, or nothing where there is no goal."""
        if self.value is None:
            return "not met" if self.missed and self.goal is not None else "not measured"
        if self.goal is None:
            return ""
        return "met" if self.goal.met(self.value) else "not met"

    def document(self) -> Table:
        """As JSON."""
        goal = None if self.goal is None else asdict(self.goal)
        return {**asdict(self), "goal": goal, "verdict": self.verdict}

    @staticmethod
    def of(document: Table) -> "Row":
        """From JSON."""
        kept = {name: value for name, value in document.items() if name != "verdict"}
        return Row(**{**kept, "goal": None if kept["goal"] is None else Goal(**kept["goal"])})


@dataclass
class Report:
    """What one benchmark found: rows of the table, and data for figures and readers."""

    rows: list[Row] = field(default_factory=list)
    data: Table = field(default_factory=dict)

    def add(self, figure: str, value: float | Sequence[float] | None, goal: Goal | None = None, **rest: Any) -> None:
        """One more row; ``rest`` as in ``Row``. Of several runs it tells the median and the range."""
        if isinstance(value, Sequence):
            rest |= {"lowest": min(value), "highest": max(value)} if len(value) > 1 else {}
            value = statistics.median(value)
        self.rows.append(Row(figure, value, goal, **rest))


@dataclass(frozen=True)
class Runner:
    """Starts measurements.

    Attributes:
        script: the benchmark's file.
        quick: small sizes.
        rivals: a folder with packages of others, or None.
    """

    script: Path
    quick: bool = False
    rivals: Path | None = None

    @property
    def runs(self) -> int:
        """Of what is told with a range."""
        return 1 if self.quick else RUNS

    def run(self, case: Table, *, ranks: int = 1, environment: Mapping[str, str] | None = None) -> Table:
        """``work(**case)`` on that many ranks: its result, and ``peak_memory`` of all ranks in bytes.

        Raises:
            BenchmarkError: it failed, with the end of what it said.
        """
        command = [sys.executable, "-m", "mpi4py", str(self.script), "--worker", json.dumps(case)]
        if ranks > 1:
            command = [str(Path(sysconfig.get_path("scripts")) / "mpiexec"), "-n", str(ranks), *command]
        words = ", ".join(str(value) for value in case.values() if not isinstance(value, dict))
        print(f"  {self.script.stem} on {ranks}: {words} …", file=sys.stderr, flush=True)
        out, _ = self.call(command, environment=environment)
        for line in reversed(out.splitlines()):
            if line.startswith(ANSWER):
                answer: Table = json.loads(line.removeprefix(ANSWER))
                return answer
        raise BenchmarkError(f"{self.script.name} gave no answer: {out[-500:]}")

    def attempt(self, report: Report, figure: str, case: Table, goal: Goal | None = None, **options: Any) -> Table:
        """``run``, but a failure becomes a row that says so, and the result is empty."""
        try:
            return self.run(case, **options)
        except BenchmarkError as error:
            report.add(figure, None, goal, note=error.sentence)
            return {}

    def call(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> tuple[str, float]:
        """What a program printed, and its seconds from start to end.

        Raises:
            BenchmarkError: it failed or took too long.
        """
        started = time.perf_counter()
        try:
            done = subprocess.run(
                list(command),
                env=self.environment(environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIME_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"{Path(command[0]).name} took more than {TIME_LIMIT:g} s") from error
        if done.returncode != 0:
            raise BenchmarkError(f"status {done.returncode}: {(done.stderr or done.stdout)[-2000:]}")
        return done.stdout, time.perf_counter() - started

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """One thread per process, and the packages of others behind our own."""
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        paths = [os.environ.get("PYTHONPATH", ""), "" if self.rivals is None else str(self.rivals)]
        return {**os.environ, **one, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **(more or {})}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        about: what it measures, in a sentence.
        measure: asks the questions, in the process that was started.
        work: answers one, in a process of its own, on every rank; rank 0's answer counts.
    """

    about: str
    measure: Callable[[Runner], Report]
    work: Callable[..., Table]


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks have, and the command for all of them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: whether all runs, not the result")
    parser.add_argument("--output", type=Path, default=Path("runs/bench"), help="folder (default runs/bench)")
    parser.add_argument("--rivals", type=Path, help="folder with the packages of others (see scripts/README.md)")
    return parser


def main(benchmark: Benchmark, script: str, words: Sequence[str] | None = None) -> Path | None:
    """The command of one benchmark: a table, and ``NAME.json`` in the output folder, which is returned if written."""
    parser = arguments(benchmark.about)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.worker is not None:
        answer(benchmark.work, json.loads(options.worker))
        return None
    path = Path(script).resolve()
    rivals = None if options.rivals is None else options.rivals.resolve()
    document = perform(path.stem, benchmark, Runner(path, options.quick, rivals))
    print_table(document["rows"])
    target: Path = options.output / f"{path.stem}.json"
    write_json(target, document)
    return target


def perform(name: str, benchmark: Benchmark, runner: Runner) -> Table:
    """Rows and data of one benchmark."""
    started = time.perf_counter()
    report = benchmark.measure(runner)
    return {
        "benchmark": name,
        "about": benchmark.about.strip().splitlines()[0],
        "quick": runner.quick,
        "seconds": round(time.perf_counter() - started, 1),
        "rows": [row.document() for row in report.rows],
        "data": report.data,
    }


def answer(work: Callable[..., Table], case: Table) -> None:
    """Do a piece of work and print the result with its memory. Collective."""
    from mpi4py import MPI

    try:
        result = work(**case)
    except BenchmarkError as error:
        print(error.sentence, file=sys.stderr, flush=True)
        raise
    peak = MPI.COMM_WORLD.allreduce(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    if MPI.COMM_WORLD.rank == 0:
        print(f"\n{ANSWER}{json.dumps({**result, 'peak_memory': peak})}", flush=True)


# -- time ------------------------------------------------------------------------------------------------------------


def in_turns(runs: int, *actions: Callable[[], object], warm: int = 1) -> list[list[float]]:
    """Seconds of every action, by action and run; they take turns, so that what slows one run slows all of them.

    Collective if the actions are: all ranks start together, and the slowest counts.
    """
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    seconds: list[list[float]] = [[] for _ in actions]
    for run in range(warm + runs):
        for mine, action in zip(seconds, actions, strict=True):
            comm.barrier()
            started = time.perf_counter()
            action()
            spent = comm.allreduce(time.perf_counter() - started, MPI.MAX)
            if run >= warm:
                mine.append(spent)
    return seconds


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Run by run."""
    return [a / b for a, b in zip(above, below, strict=True)]


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least-squares slope of log y over log x."""
    import numpy as np

    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


# -- output ----------------------------------------------------------------------------------------------------------


def shown(row: Row) -> str:
    """The value, the range of its runs in brackets, and the unit."""
    if row.value is None:
        return "—"
    found = digits(row.value)
    if row.lowest is not None and row.highest is not None:
        found += f" ({digits(row.lowest)} … {digits(row.highest)})"
    return f"{found} {row.unit}".strip()


def digits(value: float) -> str:
    """Three of them, or all in front of the point."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def print_table(rows: Sequence[Table], title: str = "figure") -> None:
    """Every figure beside its goal, as Markdown with aligned columns."""
    lines = [[title, "measured", "goal", "", "note"]]
    for document in rows:
        row = Row.of(document)
        lines.append([row.figure, shown(row), "" if row.goal is None else str(row.goal), row.verdict, row.note])
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    lines.insert(1, ["-" * width for width in widths] + ["----"])
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)]
        print(f"| {' | '.join(cells)} |")


def write_json(path: Path, document: Table) -> None:
    """Write beside the target, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)
    print(path)
