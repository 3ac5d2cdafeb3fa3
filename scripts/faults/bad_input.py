"""Bad input: it never gets in. Exit code 1 and one message that names what is wrong, soon, on one rank and on two.

Most cases run in one process after another, through the function behind the command line, which costs a tenth of a
start; some of every kind are also started as users do. ``python bad_input.py --worker CASES`` runs a list of them.
"""

import argparse
import atexit
import contextlib
import io
import json
import os
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from bad_cases import BASE, Case, config_cases
from bad_commands import command_cases
from bad_files import file_cases
from harness import Fault, Verdict, end_group, eulerian, launcher, started, turn

SECONDS = 10.0
_STARTS = 60.0  # for imports, on a busy machine
_MEMORY = 8 * 2**30  # bytes that each rank of a batch may use
_OWN_START = 2  # so many of every kind are started by themselves, too


@dataclass(frozen=True)
class Outcome:
    """What a command said and how it ended, on one rank."""

    code: int
    said: str
    seconds: float
    hung: bool = False


def faults(quick: bool) -> Iterable[Fault]:
    """Every case in one process, every case on two ranks, and some that are started by themselves."""
    cases = corpus(quick)
    for ranks in (1, 2):
        for number, case in enumerate(cases):
            yield Fault(_row(case, ranks), case.name, partial(_judged_in_batch, quick, ranks, number))
    for ranks in (1, 2):
        for case in _representatives(cases, 1 if quick else _OWN_START):
            yield Fault(f"started: {_row(case, ranks)}", case.name, partial(_judged_alone, case, ranks))


@cache
def corpus(quick: bool = False) -> tuple[Case, ...]:
    """All cases; quick: every seventh."""
    cases = [*config_cases(), *command_cases(), *file_cases()]
    return tuple(cases[::7] if quick else cases)


def _row(case: Case, ranks: int) -> str:
    return f"bad {case.group}" if ranks == 1 else f"bad {case.group}, 2 ranks"


def _representatives(cases: Iterable[Case], each: int) -> Iterator[Case]:
    """The first and the last of every group."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)
    for members in groups.values():
        yield from members[:1] + members[-1:] if each > 1 and len(members) > 1 else members[:1]


# -- judging -----------------------------------------------------------------------------------------------------------


def judge(case: Case, outcomes: list[Outcome], folder: Path) -> Verdict:
    """Whether a wrong input was refused as promised, on all ranks."""
    first = outcomes[0]
    text = "".join(outcome.said for outcome in outcomes)
    notes = []
    if any(outcome.hung for outcome in outcomes):
        return Verdict(False, f"more than {SECONDS:.0f} s", hung=True)
    codes = [outcome.code for outcome in outcomes]
    if any(code != 1 for code in codes):
        notes.append(f"exit code {codes}")
    if first.seconds > SECONDS:
        notes.append(f"{first.seconds:.1f} s")
    told = len(re.findall(r"^eulerian( \w+)?: ", text, re.MULTILINE))
    if told != 1:
        notes.append(f"{told} messages")
    if not any(name in text for name in case.names):
        notes.append(f"names none of {', '.join(case.names)}")
    if not re.search(r"\.\s+\S|^usage:", text):
        notes.append("no remedy")
    if (folder / "executed").exists():
        notes.append("code was run")
    seen = "Traceback" in text
    return Verdict(not (notes or seen), f"{'; '.join(notes)}: {text.strip()[-300:]}" if notes else "", traceback=seen)


def _judged_alone(case: Case, ranks: int, folder: Path) -> Verdict:
    """Start ``eulerian`` as users do."""
    here = prepare(case, folder, finished_run() if case.run else None)
    ended = eulerian(here, *case.arguments, ranks=ranks, limit=SECONDS + _STARTS)
    # Its start is not the case's; on a machine that is busy with other jobs it takes long.
    return judge(case, [Outcome(ended.code, ended.err, ended.seconds - 5.0 * ranks, ended.hung)], here)


def _judged_in_batch(quick: bool, ranks: int, number: int, _: Path) -> Verdict:
    return run_batch(corpus(quick), ranks)[number]


def prepare(case: Case, folder: Path, run: Path | None) -> Path:
    """The folder of a case with its files."""
    folder.mkdir(parents=True, exist_ok=True)
    if run is not None:
        shutil.copytree(run, folder / "old")
    for name, content in {"base.toml": BASE, **case.files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        elif isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        else:
            path.write_bytes(content)
    return folder


@cache
def finished_run() -> Path:
    """A run that was made for this process's cases."""
    folder = Path(tempfile.mkdtemp(prefix="eulerian-run-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "base.toml").write_text(BASE, encoding="utf-8")
    ended = eulerian(folder, "solve", "base.toml", limit=120.0)
    if ended.code != 0:
        raise RuntimeError(ended.err)
    return folder / "run"


# -- many in one process -----------------------------------------------------------------------------------------------


@cache
def run_batch(cases: tuple[Case, ...], ranks: int) -> list[Verdict]:
    """Verdicts on all cases, run one after the other on as many ranks; a worker that hangs or dies is replaced."""
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="eulerian-bad-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for number, case in enumerate(cases):
            prepare(case, folder / str(number), finished_run() if case.run else None)
        while len(verdicts) < len(cases):
            begun = len(verdicts)
            verdicts += _worked(cases, begun, ranks, folder)
            if len(verdicts) < len(cases):
                verdicts.append(Verdict(False, "the process hung or died", hung=True))
    return verdicts


def _worked(cases: tuple[Case, ...], begun: int, ranks: int, folder: Path) -> Iterator[Verdict]:
    """Verdicts on the cases from number ``begun`` on, until a worker ends or hangs."""
    todo = folder / "cases.json"
    pairs = [[str(folder / str(number)), cases[number].arguments] for number in range(begun, len(cases))]
    todo.write_text(json.dumps(pairs), encoding="utf-8")
    worker = [sys.executable, __file__, "--worker", str(todo)]
    arguments = worker if ranks == 1 else [launcher(), "-n", str(ranks), *worker]
    with turn(ranks > 1), started(arguments, folder) as process, process:
        for number in range(begun, len(cases)):
            files = [folder / str(number) / f"outcome{rank}.json" for rank in range(ranks)]
            patience = time.monotonic() + SECONDS + _STARTS
            while not all(file.exists() for file in files) and time.monotonic() < patience and process.poll() is None:
                time.sleep(0.02)
            if not all(file.exists() for file in files):
                end_group(process)
                return
            outcomes = [Outcome(**json.loads(file.read_text(encoding="utf-8"))) for file in files]
            yield judge(cases[number], outcomes, folder / str(number))
            shutil.rmtree(folder / str(number), ignore_errors=True)


def work(todo: Path) -> None:
    """Run cases one after the other through what is behind the command line. Collective."""

    # isort: split
    from mpi4py import MPI

    # Nobody listens: what is said is caught, case by case.
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    # So that it does not depend on the machine what is too large for it.
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    comm = MPI.COMM_WORLD
    for name, arguments in json.loads(todo.read_text(encoding="utf-8")):
        folder = Path(name)
        os.chdir(folder)
        outcome = _run(arguments)
        part = folder / f"outcome{comm.rank}.part"
        part.write_text(json.dumps(vars(outcome)), encoding="utf-8")
        part.rename(part.with_suffix(".json"))
        comm.barrier()


def _run(arguments: list[str]) -> Outcome:
    """One command in this process."""
    from eulerian.app.cli.launch import alone, together
    from eulerian.app.cli.parser import build_parser

    said, since = io.StringIO(), time.monotonic()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            options = build_parser().parse_args(arguments)
            code = (alone if options.serial else together)(options.command, options)
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:  # noqa: BLE001 - whatever a user would be shown
            traceback.print_exc()
            code = 2
    # Ranks of a serial command have nothing to say, and nothing to complain about.
    silent = not said.getvalue() and code == 0 and os.environ.get("PMI_RANK", "0") != "0"
    return Outcome(1 if silent else code, said.getvalue(), time.monotonic() - since)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", type=Path, required=True)
    work(parser.parse_args().worker)
