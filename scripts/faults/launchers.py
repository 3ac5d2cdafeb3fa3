"""Commands of one process under a launcher, and settings for Matplotlib that are none of this program's."""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from harness import Ended, Fault, Verdict, eulerian

UNDER_LAUNCHERS = "commands of one process under a launcher"
RESUMED = "finished runs gone on with"
SETTINGS = "the user's settings for Matplotlib"

SMALL = ("--set", "domain.box.cells=[8,8]", "--set", "ideal.certificate=none", "--set", "output.densities=0")
TRAIN = ("train", "gaussian.toml", "--output", "run", *SMALL, "--set")

# Command, its exit code, and lines that it says in all; -1 where these depend on the machine.
COMMANDS: tuple[tuple[tuple[str, ...], int, int], ...] = (
    (("plot", "run"), 0, 2),
    (("plot", "run", "--format", "pdf"), 0, 2),
    (("plot", "run", "--format", "svg", "--quiet"), 0, 0),
    (("plot", "nowhere"), 1, 1),
    (("mesh", "disk.msh"), 0, -1),
    (("mesh", "disk.msh", "--convert", "disk.vtu", "--quiet"), 0, 0),
    (("mesh", "nowhere.msh"), 1, 1),
    (("doctor",), 0, -1),
    (("doctor", "gaussian.toml"), 0, -1),
    (("init", "--list"), 0, -1),
    (("init", "moons"), 0, 2),
    (("init", "cheese"), 1, 1),
    (("--version",), 0, 1),
    (("train", "--help"), 0, -1),
    (("train", "gaussian.toml", "--wrong"), 1, -1),
)

BAD = b"\xff\xfe no text"
STRANGE = b"text.usetex: True\nfont.family: Nowhere Sans\nlines.linewidth: 9\naxes.grid: maybe\nnonsense: 3\n"
GIVEN: tuple[tuple[str, dict[str, str], dict[str, bytes]], ...] = (
    ("backend of a notebook", {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, {}),
    ("no such backend", {"MPLBACKEND": "nonsense"}, {}),
    ("backend of a screen", {"MPLBACKEND": "QtAgg"}, {}),
    ("LaTeX, a font that is missing, wrong keys", {"MATPLOTLIBRC": "mine"}, {"mine": STRANGE}),
    ("the same in the working folder", {}, {"matplotlibrc": STRANGE}),
    ("no text", {"MATPLOTLIBRC": "mine"}, {"mine": BAD}),
    ("no text in the working folder", {}, {"matplotlibrc": BAD}),
    ("a folder that cannot be written", {"MPLCONFIGDIR": "/proc/none"}, {}),
    ("a style that is no text", {"MPLCONFIGDIR": "mine"}, {"mine/stylelib/a.mplstyle": BAD}),
)


def faults(quick: bool) -> Iterable[Fault]:
    """Every command on 2 and 3 ranks; every end of a run on every number of ranks; every setting."""
    for ranks in (2,) if quick else (2, 3):
        for arguments, code, lines in COMMANDS[:4] if quick else COMMANDS:
            name = f"{' '.join(arguments)} on {ranks} ranks"
            work = partial(_alone, arguments=arguments, code=code, lines=lines, ranks=ranks)
            yield Fault(UNDER_LAUNCHERS, name, work)
    for method in ("densities",) if quick else ("densities", "particles"):
        for before, after in ((1, 2),) if quick else ((1, 1), (1, 2), (2, 1), (2, 3)):
            for limit in (2, 4):
                name = f"4 iterations of {method} on {before}, gone on with to {limit} on {after}"
                work = partial(_resumed, before=before, after=after, limit=limit, method=method)
                yield Fault(RESUMED, name, work)
    for name, variables, files in GIVEN[:2] if quick else GIVEN:
        yield Fault(SETTINGS, name, partial(_set, variables=variables, files=files))


def _train(folder: Path, limit: int, *more: str, ranks: int = 1, extra: Mapping[str, str] | None = None) -> Ended:
    return eulerian(folder, *TRAIN, f"optimiser.max_iterations={limit}", *more, ranks=ranks, limit=120, extra=extra)


def _alone(folder: Path, arguments: tuple[str, ...], code: int, lines: int, ranks: int) -> Verdict:
    eulerian(folder, "init", "gaussian", "--quiet")
    if "run" in arguments:
        _train(folder, 1)
    if "disk.msh" in arguments:
        eulerian(folder, "init", "wine", "--quiet")
    done = eulerian(folder, *arguments, ranks=ranks, limit=180)
    said = (done.out + done.err).count("\n")
    good = done.code == code and lines in (-1, said) and not done.traceback
    return Verdict(
        good and not done.hung, f"exit {done.code}, {said} lines: {done.last_line}", done.hung, done.traceback
    )


def _resumed(folder: Path, before: int, after: int, limit: int, method: str) -> Verdict:
    """A limit that has been passed is refused, one that has been reached is the end; nothing is touched."""
    eulerian(folder, "init", "gaussian", "--quiet")
    options = ("--method", method, "--set", "particles.count=64")
    first = _train(folder, 4, *options, ranks=before)
    if first.code:
        return Verdict(False, f"the run itself: {first.last_line}", first.hung, first.traceback)
    kept = _files(folder / "run")
    done = _train(folder, limit, *options, "--resume", ranks=after)
    good = done.code == int(limit < 4) and _files(folder / "run") == kept and not done.traceback
    return Verdict(good and not done.hung, f"exit {done.code}: {done.last_line}", done.hung, done.traceback)


def _files(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def _set(folder: Path, variables: Mapping[str, str], files: Mapping[str, bytes]) -> Verdict:
    """The run and its figures are those of a user without settings."""
    eulerian(folder, "init", "gaussian", "--quiet")
    _train(folder, 1)
    expected = _figures(folder)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for done in (
        _train(folder, 1, "--overwrite", extra=variables),
        eulerian(folder, "plot", "run", "--quiet", extra=variables),
    ):
        good = (done.code, done.err) == (0, "") and _figures(folder).keys() == expected.keys()
        if not good or done.hung:
            return Verdict(False, f"exit {done.code}: {done.last_line}", done.hung, done.traceback)
    warnings = json.loads((folder / "run" / "result.json").read_text())["warnings"]
    same = _figures(folder)["densities.png"] == expected["densities.png"]
    return Verdict(same and not warnings, f"the same figure: {same}; warnings: {warnings}")


def _figures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "run" / "figures").glob("*.png")}
