"""A long run, watched from outside: ``python scripts/faults/soak.py [--ranks 4] [--quick]``.

300 iterations of a training with 101 400 degrees of freedom. While it runs, every line that it tells is held against
what is on disk, and every rank's memory and open files are read. Afterwards it is said, with figures, whether

* memory and open files stayed flat after the tenth iteration,
* PETSc objects that training makes were destroyed, and no communicators are left,
* an iteration took as long at the end as at the beginning,
* ``history.csv`` had every iteration as soon as it was told, with the same numbers, and the checkpoint was there,
* every line of the log came once, on however many ranks.

Exit status 0 if so.
"""

import argparse
import contextlib
import csv
import gc
import itertools
import json
import os
import re
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONFIG = """
[domain]
box = {{ lower = [-3.0, -3.0], upper = [3.0, 3.0], cells = [{cells}, {cells}] }}
[density]
degree = 1
[[density.initial]]
kind = "gaussian"
mean = [-0.3, 0.2]
std = 0.5
[field]
kind = "mlp"
hidden = [16, 16]
layers = 2
horizon = 1.0
[objective]
kinetic = 0.5
parameters = 1e-6
[objective.terminal]
kind = "expression"
value = "0.2 * sin(4 * x) * cos(3 * y) + 0.05 * (x**2 + y**2)"
[optimiser]
max_iterations = {iterations}
gradient_tolerance = 1e-12
[ideal]
certificate = "none"
[output]
densities = 2
checkpoint_every = 10
directory = "run"
"""

PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 2**20
TENTH = 10  # iterations until everything has found its place

# What may be left of growth after the tenth iteration: the history and what an optimiser learns are kept, and memory
# comes from the system in pieces.
GROWTH_MIB, GROWTH_SHARE = 8.0, 0.03
SLOWER = 1.25  # a time step at the end, over one before
MEASURABLE = 2e-4  # seconds of a time step: below, clocks are too coarse to compare

_GARBAGE = re.compile(r".*Total entries: (\d+)")
_STEPS = re.compile(r"evaluation \d+: (\d+) steps")
_LINE = re.compile(r"iteration +(\d+) +J = (\S+) .* (\d+) evaluations")

# Objects of these PETSc classes are made anew while a training goes on; most others live as long as the problem.
MADE_ANEW = ("Tao", "TaoLineSearch", "Krylov Solver", "Viewer")


@dataclass
class Sample:
    """What was seen when an iteration was told.

    Attributes:
        iteration: its number.
        resident: MiB of memory of each rank.
        files: open files of each rank.
        seconds: of processor time of each rank so far; waiting in MPI counts.
        evaluations: of J so far.
        steps: time steps of one evaluation.
        flushed: ``history.csv`` had it, with the same J.
        checkpoint: there was one on disk, if it was time for one.
    """

    iteration: int
    resident: list[float]
    files: list[int]
    seconds: list[float]
    evaluations: int
    steps: int
    flushed: bool
    checkpoint: bool


@dataclass
class Watched:
    """A run that has been watched.

    Attributes:
        code: its exit code.
        samples: one per iteration.
        lines: of its log.
        complaints: what it said on the other channel.
    """

    code: int
    samples: list[Sample] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    complaints: str = ""


def main() -> int:
    """Run, watch, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small mesh and few iterations, some seconds")
    parser.add_argument("--ranks", type=int, default=1, help="ranks of the watched run")
    parser.add_argument("--iterations", type=int, help="of the training")
    parser.add_argument("--cells", type=int, help="squares along a side, of two triangles each")
    parser.add_argument("--output", type=Path, default=Path("runs/soak"), help="where everything goes")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        return inside()
    cells = options.cells or (24 if options.quick else 130)
    iterations = options.iterations or (40 if options.quick else 300)
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "soak.toml").write_text(CONFIG.format(cells=cells, iterations=iterations), encoding="utf-8")
    print(f"{6 * cells**2} degrees of freedom, {iterations} iterations, {options.ranks} rank(s)", flush=True)
    watched = observer(folder, options.ranks)
    failures = judge(watched, folder, iterations)
    print("\n".join(f"FAILED  {failure}" for failure in failures) or "flat, flushed and told once")
    return int(bool(failures))


# -- inside of the watched run -----------------------------------------------------------------------------------------


def inside() -> int:
    """One rank of the watched run: the command's own work, and what is left of it. Collective."""
    from eulerian.app import tasks
    from eulerian.app.build.network import build
    from eulerian.app.config import read_config
    from eulerian.app.runs.progress import Progress

    # isort: split
    from mpi4py import MPI

    from petsc4py import PETSc

    comm = MPI.COMM_WORLD
    build(read_config(Path("soak.toml")), comm)  # of some communicators libraries keep one for good
    gc.collect()
    before = free_communicators(comm)
    progress = with_steps(Progress.of(comm))
    document = tasks.run_train(read_config(Path("soak.toml")), comm, overwrite=True, progress=progress)
    gc.collect()
    left = before - free_communicators(comm)
    if comm.rank == 0:
        Path("communicators.json").write_text(json.dumps(left), encoding="utf-8")
    PETSc.garbage_view(comm)  # objects that were dropped instead of destroyed, in parallel; said on rank 0
    return 2 if document["status"] == "failed" else 0


def with_steps(progress: Any) -> Any:
    """Progress that also tells the time steps of every iteration, before its line.

    A command does not hand out its problem: it is found among all living objects.
    """
    from eulerian.control.control import ControlProblem

    class WithSteps(type(progress)):
        @contextlib.contextmanager
        def iterations(self, *limits: Any) -> Iterator[Any]:
            problem = next(each for each in gc.get_objects() if isinstance(each, ControlProblem))
            with super().iterations(*limits) as observer:

                def tell(record: Any) -> None:
                    if self.speaks:
                        print(f"evaluation {record.evaluations}: {sum(problem.steps)} steps", flush=True)
                    observer(record)

                yield tell

    return WithSteps(progress.speaks, progress.terminal)


def free_communicators(comm: Any) -> int:
    """How many more communicators MPI would make for one process; among several that would take too long."""
    made = []
    with contextlib.suppress(Exception):
        while comm.size == 1 and len(made) < 1 << 14:
            made.append(comm.Dup())
    for each in made:
        each.Free()
    return len(made)


# -- outside -----------------------------------------------------------------------------------------------------------


def observer(folder: Path, ranks: int) -> Watched:
    """Start the run and look at it whenever it tells an iteration."""
    program = [sys.executable, str(Path(__file__).resolve()), "--inside"]
    launcher = Path(sysconfig.get_path("scripts")) / "mpiexec"
    command = program if ranks == 1 else [str(launcher if launcher.exists() else "mpiexec"), "-n", str(ranks), *program]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment["PETSC_OPTIONS"] = f"{os.environ.get('PETSC_OPTIONS', '')} -log_view :{folder / 'petsc.log'}"
    with (folder / "complaints").open("w+", encoding="utf-8") as complaints:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=complaints, text=True, bufsize=1
        )
        watched, steps = Watched(0), 1
        try:
            assert process.stdout is not None
            for line in process.stdout:
                watched.lines.append(line.rstrip("\n"))
                if found := _STEPS.match(line):
                    steps = int(found[1])
                if found := _LINE.match(line):
                    watched.samples.append(look(folder, found, steps, ranks_of(process.pid, ranks)))
            watched.code = process.wait()
        finally:
            process.terminate()
            process.wait()
        complaints.seek(0)
        watched.complaints = complaints.read()
    return watched


def ranks_of(pid: int, ranks: int) -> list[int]:
    """The processes of the ranks: the one that was started, or descendants of the launcher."""
    if ranks == 1:
        return [pid]
    family, found = {pid}, []
    for entry in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        try:
            parent = int(Path(f"/proc/{entry}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            words = Path(f"/proc/{entry}/cmdline").read_text(encoding="utf-8").split("\0")
        except OSError:
            continue
        if parent in family:
            family.add(entry)
            if "--inside" in words and "-n" not in words and Path(words[0]).name.startswith("python"):
                found.append(entry)
    return found


def look(folder: Path, told: re.Match[str], steps: int, pids: list[int]) -> Sample:
    """What there is when an iteration has just been told."""
    run, iteration = folder / "run", int(told[1])
    resident, files, seconds = [], [], []
    for pid in pids:
        try:
            resident.append(int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * PAGE / MIB)
            files.append(len(os.listdir(f"/proc/{pid}/fd")))
            ticks = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
            seconds.append(sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"))
        except OSError:
            continue
    try:
        with (run / "history.csv").open(newline="", encoding="utf-8") as file:
            rows = {int(row["iteration"]): float(row["total"]) for row in csv.DictReader(file)}
        flushed = f"{rows[iteration]:.8g}" == f"{float(told[2]):.8g}"
    except (OSError, KeyError, ValueError):
        flushed = False
    checkpoints = [path for path in (run / "checkpoint").glob("*.npz") if path.stat().st_size > 0]
    kept = bool(checkpoints) or iteration < TENTH
    return Sample(iteration, resident, files, seconds, int(told[3]), steps, flushed, kept)


def judge(watched: Watched, folder: Path, iterations: int) -> list[str]:
    """Print the figures; what is not as promised."""
    failures: list[str] = []
    by_iteration = {sample.iteration: sample for sample in watched.samples}
    if watched.code != 0 or watched.complaints.strip():
        failures.append(f"exit code {watched.code}: {watched.complaints.strip()[:500]}")
    if sorted(by_iteration) != list(range(iterations + 1)):
        failures.append(f"iterations up to {max(by_iteration, default=None)} were told, not {iterations}")
    if TENTH not in by_iteration or not by_iteration[TENTH].resident:
        return [*failures, "nothing could be watched"]
    failures += list(judge_growth(watched, by_iteration))
    failures += list(judge_time(by_iteration))
    failures += list(judge_objects(folder, len(by_iteration[TENTH].resident), watched.lines))
    unflushed = [sample.iteration for sample in watched.samples if not sample.flushed]
    late = [sample.iteration for sample in watched.samples if not sample.checkpoint]
    count = len(watched.samples)
    print(f"history.csv: {count - len(unflushed)} of {count} iterations were on disk when told")
    print(f"checkpoint:  missing at {len(late)} of {count} iterations")
    failures += [f"not flushed: iterations {unflushed[:5]}"] if unflushed else []
    failures += [f"no checkpoint at iterations {late[:5]}"] if late else []
    twice = [line for line, count in Counter(watched.lines).items() if count > 1 and line.strip()]
    print(f"log:         {len(watched.lines)} lines, {len(twice)} of them more than once")
    failures += [f"told more than once: {twice[:3]}"] if twice else []
    return failures


def judge_growth(watched: Watched, by_iteration: dict[int, Sample]) -> Iterator[str]:
    """Memory and files after the tenth iteration."""
    last = max(by_iteration)
    shown = [i for i in (1, TENTH, 50, 100, 200, 300) if i in by_iteration and i < last] + [last]
    print(f"{'iteration':>10}  resident memory of every rank / MiB; open files")
    for i in shown:
        sample = by_iteration[i]
        print(f"{i:10}  {' '.join(f'{size:9.1f}' for size in sample.resident)}; {sample.files}")
    tenth, end = by_iteration[TENTH], by_iteration[last]
    growth = [after - before for before, after in zip(tenth.resident, end.resident, strict=True)]
    print(f"growth after the tenth: {', '.join(f'{each:+.1f}' for each in growth)} MiB")
    for rank, (each, before) in enumerate(zip(growth, tenth.resident, strict=True)):
        if each > max(GROWTH_MIB, GROWTH_SHARE * before):
            yield f"rank {rank} grew by {each:.1f} MiB"
    most = max(max(sample.files) for sample in watched.samples if sample.iteration >= TENTH and sample.files)
    if most > max(tenth.files) + 2:
        yield f"open files went from {max(tenth.files)} to {most}"


def judge_time(by_iteration: dict[int, Sample]) -> Iterator[str]:
    """Processor time per time step, forth and back, in the second and in the last fifth.

    The least of all iterations is taken, when nothing else disturbed. The number of steps changes with the velocities.
    """
    last = max(by_iteration)
    part = max(last // 5, 1)
    rates = []
    for first, end in ((part, 2 * part), (last - part, last)):
        told = [by_iteration[i] for i in range(first, end + 1) if i in by_iteration]
        each = [
            (max(after.seconds) - max(before.seconds)) / max(after.evaluations - before.evaluations, 1) / after.steps
            for before, after in itertools.pairwise(told)
        ]
        rates.append(min(each))
        mean, steps = sum(each) / len(each), [sample.steps for sample in told]
        print(
            f"iterations {first} … {end}: {1e3 * rates[-1]:.3f} ms per time step at least, {1e3 * mean:.3f} ms in the "
            f"mean; {min(steps)} … {max(steps)} steps"
        )
    if rates[0] > MEASURABLE and rates[1] > SLOWER * rates[0]:
        yield f"a time step took {1e3 * rates[1]:.3f} ms at the end and {1e3 * rates[0]:.3f} ms before"


def judge_objects(folder: Path, ranks: int, lines: list[str]) -> Iterator[str]:
    """PETSc objects and communicators."""
    text = (
        (folder / "petsc.log").read_text(encoding="utf-8", errors="replace") if (folder / "petsc.log").exists() else ""
    )
    table = re.findall(r"^ *([A-Z][A-Za-z ]+?) +(\d+) +(\d+)$", text.partition("Object Type")[2], re.MULTILINE)
    print("PETSc objects made, destroyed: " + (", ".join(f"{name} {a}, {b}" for name, a, b in table) or "unknown"))
    for name, made, destroyed in table:
        left = int(made) - int(destroyed)
        if left > (0 if name in MADE_ANEW[:3] else TENTH):
            yield f"{left} PETSc objects of the class {name} are left"
    counts = folder / "communicators.json"
    if ranks == 1 and counts.exists():
        left = json.loads(counts.read_text(encoding="utf-8"))
        print(f"communicators: {left} are left")
        if left > 0:
            yield f"{left} communicators are left"
    dropped = [int(found[1]) for line in lines if (found := _GARBAGE.match(line))]
    if ranks > 1:
        print(f"PETSc objects that were dropped and not destroyed: {sum(dropped) if dropped else 'unknown'}")
        if sum(dropped) > TENTH:
            yield f"{sum(dropped)} PETSc objects were dropped and not destroyed"


if __name__ == "__main__":
    started = time.perf_counter()
    if "--inside" in sys.argv:
        from eulerian.base.parallel import guarded

        guarded(main)
    status = main()
    print(f"{time.perf_counter() - started:.0f} s")
    sys.exit(status)
