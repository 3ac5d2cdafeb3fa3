"""Errors on some ranks only: whatever happens, all ranks end soon, one of them tells, and no file is half written.

Broken fields of a user's, files that one rank cannot read, ranks that vanish, launchers of another MPI; full and
read-only disks are in ``disks``, compilers in ``compilers``.
"""

import os
import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import compilers
import disks
from harness import Fault, Verdict, command, run
from verdicts import LIMIT, MARK, TOLD_AT, judged, model, still_there, trained

# A field that behaves until a given call of a given method on a given rank. It is called by the loader first: value
# twice, the others once.
FIELD = """
import os, sys, time
import numpy as np

RANK = int(os.environ.get("PMI_RANK", "0"))
COUNTS = {}

def meddle(place, outcome):
    COUNTS[place] = COUNTS.get(place, 0) + 1
    wanted = RANK == int(os.environ["FAULT_RANK"]) and place == os.environ["FAULT_PLACE"]
    if wanted and COUNTS[place] >= int(os.environ["FAULT_CALL"]):
        open("fault.time", "w").write(str(time.time()))
        names = {"outcome": outcome}
        exec(compile(os.environ["FAULT_WHAT"], "fault", "exec"), globals(), names)
        outcome = names["outcome"]
    return outcome

def deeper():
    return deeper()

class Field:
    def n_params(self, dim):
        return meddle("n_params", 2)
    def init(self, rng):
        return meddle("init", np.array([0.1, 0.2]))
    def value(self, theta, x, label=None):
        return meddle("value", theta[0] * x + theta[1])
    def vjp(self, theta, x, w, label=None):
        return meddle("vjp", np.array([np.sum(w * x), np.sum(w)]))

meddle("import", None)
field = Field()
"""

RAISES = {
    "ValueError": 'raise ValueError("boom")',
    "sys.exit(3)": "sys.exit(3)",
    "sys.exit(0)": "sys.exit(0)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "MemoryError": "raise MemoryError",
    "RecursionError": "deeper()",
    "OSError": 'open("nowhere/at/all")',
}
RETURNS = {
    "NaN": "outcome = outcome * np.nan",
    "inf": "outcome = outcome + np.inf",
    "one number": "outcome = 1.0",
    "too many rows": "outcome = np.concatenate([outcome, outcome])",
    "complex": "outcome = outcome + 1j",
    "text": 'outcome = "fast"',
    "nothing": "outcome = None",
}
VANISHES = {
    "os._exit(3)": "os._exit(3)",
    "os._exit(0)": "os._exit(0)",
    "SIGKILL": "os.kill(os.getpid(), 9)",
    "SIGSEGV": "os.kill(os.getpid(), 11)",
}
LAUNCHERS = {
    "Open MPI's": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "Slurm's": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
}


def faults(quick: bool) -> Iterator[Fault]:
    """All of them; ``quick`` takes a few of each kind."""
    chosen = list(_fields())
    yield from chosen[::9] if quick else chosen
    for name, inject in _files():
        yield Fault("files that one rank cannot read", name, inject)
    vanishing = [
        Fault("ranks that vanish", f"{name} on rank {rank} of {ranks}", partial(_vanishing, what, rank, ranks))
        for name, what in VANISHES.items()
        for rank, ranks in ((0, 2), (1, 2), (1, 3))
    ]
    yield from vanishing[::5] if quick else vanishing
    for name, variables in LAUNCHERS.items():
        yield Fault("launchers of another MPI", name, partial(_foreign, *variables))
    yield from disks.faults(quick)
    yield from compilers.faults(quick)


# -- fields ----------------------------------------------------------------------------------------------------------


def _fields() -> Iterator[Fault]:
    places = (("import", 1), ("n_params", 1), ("value", 1), ("value", 3), ("value", 9), ("vjp", 1), ("vjp", 2))
    for name, what in RAISES.items():
        for place, call in places:
            for rank, ranks in ((0, 1), (1, 2)):
                yield _field_fault(name, what, place, call, rank, ranks)
        yield _field_fault(name, what, "vjp", 2, 2, 3)
    for name, what in RETURNS.items():
        for place, call in (("value", 3), ("value", 9), ("vjp", 2)):
            for rank, ranks in ((0, 1), (1, 2)):
                yield _field_fault(name, what, place, call, rank, ranks)
    slow = 'time.sleep(12.0); os.environ["FAULT_RANK"] = "-1"'
    yield Fault("fields of a user's", "slow on one rank", partial(_field, slow, "value", 3, 1, 2, (0,)))


def _field_fault(name: str, what: str, place: str, call: int, rank: int, ranks: int) -> Fault:
    codes = (1,) if call == 1 and name != "KeyboardInterrupt" else (1, 2)
    return Fault(
        "fields of a user's",
        f"{place} call {call}: {name} on rank {rank} of {ranks}",
        partial(_field, what, place, call, rank, ranks, codes),
    )


def broken_field(folder: Path, what: str, place: str, call: int, rank: int) -> tuple[list[str], dict[str, str]]:
    """Options and environment that put a broken field into a run of the small problem."""
    (folder / "broken.py").write_text(FIELD)
    extra = {"FAULT_RANK": str(rank), "FAULT_PLACE": place, "FAULT_CALL": str(call), "FAULT_WHAT": what}
    return ["--set", 'field={kind="python", object="broken:field", layers=2}'], extra


def _field(what: str, place: str, call: int, rank: int, ranks: int, codes: tuple[int, ...], folder: Path) -> Verdict:
    options, extra = broken_field(folder, what, place, call, rank)
    done = trained(folder, *options, ranks=ranks, extra=extra)
    if not (folder / TOLD_AT).exists():
        return Verdict(False, f"the fault did not happen: {done.err[-300:]}")
    return judged(done, folder, codes=codes, messages=0 if codes == (0,) else 1)


def _vanishing(what: str, rank: int, ranks: int, folder: Path) -> Verdict:
    options, extra = broken_field(folder, what, "value", 6, rank)
    done = trained(folder, *options, ranks=ranks, extra=extra)
    if what.startswith("os._exit(0)"):  # to the launcher that is a good end; the job must only come to one
        return Verdict(not done.hung and not still_there(folder, 3.0), "hung, or left somebody", hung=done.hung)
    return judged(done, folder, codes=[code for code in range(-64, 256) if code], messages=-1)


# -- files -----------------------------------------------------------------------------------------------------------

# Loaded by Python at its start: one rank is refused a file that is there, or the file is gone once it is looked at.
REFUSAL = """
import builtins, io, os
refused, rank = os.environ["FAULT_FILE"], os.environ["FAULT_RANK"]
if os.environ.get("PMI_RANK", "0") == rank:
    real = io.open
    def opened(file, *arguments, **keywords):
        if str(file).endswith(refused):
            raise OSError(int(os.environ["FAULT_ERRNO"]), os.strerror(int(os.environ["FAULT_ERRNO"])), str(file))
        return real(file, *arguments, **keywords)
    builtins.open = io.open = opened
"""


def refusal(folder: Path, file: str, rank: int, errno: int) -> dict[str, str]:
    """Environment in which one rank cannot open a file."""
    (folder / "python").mkdir()
    (folder / "python" / "sitecustomize.py").write_text(REFUSAL)
    paths = os.pathsep.join(filter(None, [str(folder / "python"), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": paths, "FAULT_FILE": file, "FAULT_RANK": str(rank), "FAULT_ERRNO": str(errno)}


def _files() -> Iterator[tuple[str, partial[Verdict]]]:
    samples = 'density.initial=[{kind="samples", file="points.csv", columns=["x"], bandwidth=0.3}]'
    mesh = 'domain={file="line.vtu"}'
    for name, options, file in (
        ("model", [], "model.toml"),
        ("samples", ["--set", samples], "points.csv"),
        ("mesh", ["--set", mesh], "line.vtu"),
        ("field", [], "broken.py"),
    ):
        yield f"{name} on rank 0", partial(_file, options, file, 0)
    yield "field on rank 1", partial(_file, [], "broken.py", 1)


def _file(options: list[str], file: str, rank: int, folder: Path) -> Verdict:
    if file == "broken.py":
        options, extra = broken_field(folder, "", "never", 1, -1)
        extra = {**extra, **refusal(folder, file, rank, 13)}
        # Python reads modules by another way than ``open``.
        (folder / "broken.py").write_text(f"import os\nopen({file!r})\n{FIELD}")
    else:
        extra = refusal(folder, file, rank, 2)
        (folder / "points.csv").write_text("x\n" + "\n".join(str(i / 20 - 0.5) for i in range(20)))
        (folder / "line.vtu").write_text("<VTKFile/>")
    return judged(trained(folder, *options, ranks=2, extra=extra), folder, codes=(1,), said=file)


# -- launchers -------------------------------------------------------------------------------------------------------


def _foreign(rank: str, size: str, folder: Path) -> Verdict:
    """A launcher whose ranks do not meet: without care they would race for one run folder."""
    launcher = folder / "mpirun"
    launcher.write_text(
        textwrap.dedent(f"""\
        #!/bin/sh
        {rank}=1 {size}=2 "$@" & other=$!
        {rank}=0 {size}=2 "$@"; mine=$?
        wait $other; theirs=$?
        [ $mine = $theirs ] && exit $mine
        exit 99
        """)
    )
    launcher.chmod(0o755)
    arguments = [str(launcher), *command("train", model(folder))]
    done = run(arguments, folder, LIMIT, {MARK: str(folder)}, parallel=True)
    if (folder / "run").exists():
        return Verdict(False, "a run was begun")
    return judged(done, folder, codes=(1,), said="mpirun")
