"""Points and pictures that mean something else than their bytes say at first sight, and mass that is not in the domain.

A file is read as the program that wrote it means it, or refused with its line; never read as something else. What is
lost because it lies outside the domain is told, on the terminal and in the result, with its share.
"""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness import Ended, Fault, Verdict, eulerian
from PIL import Image

CONFIG = """
[domain]
box = { lower = [-4.0, -4.0], upper = [4.0, 4.0], cells = [12, 12] }
[density]
degree = 1
[[density.initial]]
TERM
[field]
kind = "linear"
features = "affine"
theta = [[0, 0, 0, 0, 0, 0]]
layers = 1
[objective.terminal]
kind = "quadratic"
target = [0.0, 0.0]
[output]
directory = "run"
densities = 0
"""
SAMPLES = 'kind = "samples"\nfile = "data.csv"\ncolumns = ["x", "y"]\nbandwidth = 0.3'
PICTURE = 'kind = "image"\nlower = [-2.0, -2.0]\nupper = [2.0, 2.0]\nfile = '
LIMIT = 90.0

type Files = Mapping[str, str | bytes | Callable[[Path], object]]


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        term: of the initial density.
        files: that lie beside the configuration.
        mean: that ρ(T) must have; None if it is to be refused.
        said: what must be said: by the error, or by a warning in the result.
    """

    term: str
    files: Files = field(default_factory=dict)
    mean: tuple[float, float] | None = None
    said: str = ""


def faults(quick: bool) -> Iterable[Fault]:
    """Files of points, pictures, and mass outside; some on two ranks."""
    groups: dict[str, Mapping[str, Case]] = {
        "points as programs write them": {
            name: Case(_by_number(SAMPLES) if name.endswith("by number") else SAMPLES, {"data.csv": text}, (1.0, 2.0))
            for name, text in WRITTEN.items()
        },
        "points refused with their line": {
            name: Case(SAMPLES, {"data.csv": text}, said=said) for name, (text, said) in REFUSED.items()
        },
        "pictures": PICTURES,
        "mass outside the domain": OUTSIDE,
    }
    for group, cases in groups.items():
        for number, (name, case) in enumerate(cases.items()):
            if quick and number % 4:
                continue
            yield Fault(group, name, partial(_solved, case, 1))
            if number % 8 == 0:
                yield Fault(group, f"{name}, 2 ranks", partial(_solved, case, 2))
    for name, inject in (("classes of long numbers", _long_labels), ("points from a hole and from far", _pushed)):
        for ranks in (1,) if quick else (1, 3):
            yield Fault("points pushed", f"{name}, {ranks} ranks", partial(inject, ranks))


def _by_number(term: str) -> str:
    return term.replace('["x", "y"]', "[0, 1]")


# -- inputs ------------------------------------------------------------------------------------------------------------

WRITTEN: Mapping[str, str | bytes] = {
    "savetxt, by number": "5.0e-01 2.5e+00\n1.5e+00 1.5e+00\n",
    "savetxt with names": "# x,y\n5.0e-01,2.5e+00\n1.5e+00,1.5e+00\n",
    "savetxt with names of another separator": "# x,y\n5.0e-01 2.5e+00\n1.5e+00 1.5e+00\n",
    "pandas": ",x,y\n0,0.5,2.5\n1,1.5,1.5\n",
    "R's write.table": '"x" "y"\n"1" 0.5 2.5\n"2" 1.5 1.5\n',
    "R's write.table, by number": '"x" "y"\n"1" 0.5 2.5\n"2" 1.5 1.5\n',
    "R's write.table with commas": '"x","y"\n"1",0.5,2.5\n"2",1.5,1.5\n',
    "R's write.csv2": '"";"x";"y"\n"1";0,5;2,5\n"2";1,5;1,5\n',
    "German Excel": "\ufeffx;y\r\n0,5;2,5\r\n1,5;1,5\r\n",
    "Excel's separator": "sep=;\r\nx;y\r\n0,5;2,5\r\n1,5;1,5\r\n",
    "Excel's Unicode text": "x\ty\r\n0,5\t2,5\r\n1,5\t1,5\r\n".encode("utf-16"),
    "empty fields at the end of some lines": "x,y\n0.5,2.5,\n1.5,1.5\n,,\n",
    "old Mac": "x,y\r0.5,2.5\r1.5,1.5\r",
    "a comma in quotes": 'name,x,y\n"Doe, J.",0.5,2.5\n"Roe, R.",1.5,1.5\n',
}

REFUSED: Mapping[str, tuple[str, str]] = {
    "decimal commas between commas": ("x,y\n0,5,2,5\n1,5,1,5\n", "line 2 has 4 fields"),
    "a decimal comma in one line": ("x,y\n1,2\n1,5,2\n", "decimal comma"),
    "an unquoted comma": ("name,x,y\nDoe, J.,0.5,2.5\n", "comma inside an unquoted field"),
    "an unquoted comma in the last line": ("x,y,name\n0.5,2.5,Roe\n0.5,2.5,Doe, J.\n", "line 3 has 4 fields"),
    "points and commas": ("x;y\n1.000,5;2,5\n0,5;2,5\n", "decimal commas"),
    "thousands": ("x;y\n1,000;2,500\n", "thousands"),
    "a line cut off": ("x,y,z\n1,2,3\n1,2\n", "line 3 has 2 fields"),
    "an underscore": ("x,y\n1_0,2\n1,2\n", "line 2"),
    "NaN in the first line": ("x,y\nnan,2\n1,2\n", "line 2"),
    "a comment that names nothing": ("# made by me\n0.5,2.5\n1.5,1.5\n", "no such column"),
}


def _portrait(name: str, orientation: int) -> Callable[[Path], object]:
    """A picture that is dark at the lower left once it is turned, as a camera that was held otherwise leaves it."""

    def write(path: Path) -> None:
        shown = np.full((32, 64), 255, dtype=np.uint8)
        shown[16:, :32] = 0
        turned = {3: np.rot90(shown, 2), 6: np.rot90(shown, 1), 8: np.rot90(shown, -1)}[orientation]
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(np.ascontiguousarray(turned)).save(
            path, exif=exif, **({"lossless": True} if "webp" in name else {})
        )

    return write


def _grey(values: Sequence[Sequence[float]], dtype: type) -> Callable[[Path], object]:
    return lambda path: Image.fromarray(np.array(values, dtype=dtype)).save(path)


PICTURES: Mapping[str, Case] = {
    **{
        f"orientation {orientation}, {name}": Case(
            f'{PICTURE}"{name}"', {name: _portrait(name, orientation)}, mean=(-1.0, -1.0)
        )
        for orientation, name in ((3, "a.png"), (6, "a.jpg"), (8, "a.webp"), (6, "a.tif"))
    },
    "12 bits in 16": Case(f'{PICTURE}"a.png"', {"a.png": _grey([[0, 4095]] * 2, np.uint16)}, (0.0, 0.0), "0 to 4095"),
    "a mask of 0 and 1": Case(f'{PICTURE}"a.png"', {"a.png": _grey([[0, 1]] * 2, np.uint8)}, (0.0, 0.0), "0 to 1 only"),
    "floating-point numbers": Case(
        f'{PICTURE}"a.tif"', {"a.tif": _grey([[0, 7], [7, 0]], np.float32)}, (0.0, 0.0), "7, its largest value"
    ),
    "NaN": Case(f'{PICTURE}"a.tif"', {"a.tif": _grey([[0, np.nan]], np.float32)}, said="NaN"),
}


def _cloud(inside: int, outside: int, name: str = "a") -> str:
    rows = [f"{1 + 0.3 * (-1) ** i},{2 + 0.2 * (-1) ** i},{name}" for i in range(inside)]
    return "\n".join([*rows, *(f"{9 + i / 50},9,{name}" for i in range(outside))]) + "\n"


_NAMES = "x,y,c\n"

OUTSIDE: Mapping[str, Case] = {
    "samples": Case(SAMPLES, {"data.csv": _NAMES + _cloud(60, 40)}, (1.0, 2.0), "40 % of the samples"),
    "most samples": Case(SAMPLES, {"data.csv": _NAMES + _cloud(40, 60)}, said="60 % of the samples (60 of 100)"),
    "a class": Case(
        f'{SAMPLES}\nlabel_column = "c"',
        {"data.csv": _NAMES + _cloud(60, 0) + _cloud(0, 10, "far")},
        said="class 'far'",
    ),
    "a Gaussian": Case('kind = "gaussian"\nmean = [4.5, 0.0]\nstd = 0.3', said="% of its mass lies outside"),
    "a part of a Gaussian": Case(
        'kind = "gaussian"\nmean = [0.0, 3.0]\nstd = 1.0', said="15.9 % of the mass", mean=(0, 2.71)
    ),
    "a part of a box": Case(
        'kind = "uniform"\nlower = [0.0, 0.0]\nupper = [5.0, 1.0]', said="20 % of the mass", mean=(2.0, 0.5)
    ),
    "a part of a picture": Case(
        'kind = "image"\nlower = [2.0, 0.0]\nupper = [5.0, 1.0]\nfile = "a.png"',
        {"a.png": _grey([[0] * 3], np.uint8)},
        said="33.3 % of the mass",
        mean=(3.0, 0.5),
    ),
}


# -- judging -----------------------------------------------------------------------------------------------------------


def _prepare(folder: Path, config: str, files: Files) -> None:
    (folder / "c.toml").write_text(config)
    for name, content in files.items():
        if callable(content):
            content(folder / name)
        else:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def _solved(case: Case, ranks: int, folder: Path) -> Verdict:
    """Whether ρ₀ is where the file says, with the warning that is due; or the file is refused with the right words."""
    _prepare(folder, CONFIG.replace("TERM", case.term), case.files)
    done = eulerian(folder, "solve", "c.toml", ranks=ranks, limit=LIMIT)
    if case.mean is None:
        return _verdict(done, _refused(done, case.said, folder))
    wrong = _ended(done)
    if not wrong:
        result = json.loads((folder / "run" / "result.json").read_text())
        mean = result["moments"]["mean"][0]
        if not np.allclose(mean, case.mean, atol=0.06):
            wrong.append(f"the mean is {mean}")
        wrong += _told(case.said, result["warnings"], done)
    return _verdict(done, wrong)


def _ended(done: Ended, code: int = 0) -> list[str]:
    return [] if done.code == code and not done.hung else [f"exit code {done.code}"]


def _refused(done: Ended, said: str, folder: Path) -> list[str]:
    wrong = _ended(done, 1)
    if said not in done.err:
        wrong.append(f"{said!r} was not said")
    return [*wrong, "something was written"] if (folder / "run" / "result.json").exists() else wrong


def _told(said: str, warnings: Sequence[str], done: Ended) -> list[str]:
    """A warning stands once in the result and once on the terminal; without one there is none of the points."""
    warnings = [text for text in warnings if "nothing moves" not in text]  # these solves are of their beginning
    if not said:
        return [f"it warns: {warnings}"] if warnings else []
    wrong = [] if sum(said in text for text in warnings) == 1 else [f"{said!r} is not in {warnings}"]
    return wrong if (done.out + done.err).count(said) == 1 else [*wrong, f"{said!r} was not said once"]


def _verdict(done: Ended, wrong: Sequence[str]) -> Verdict:
    note = "; ".join(wrong) + (f" — {done.err.strip()[-400:]}" if wrong else "")
    return Verdict(not wrong and not done.traceback, note, hung=done.hung, traceback=done.traceback)


def _push(folder: Path, ranks: int) -> tuple[Ended, dict[str, Any], list[dict[str, str]]]:
    """Solve, and push ``new.csv``."""
    done = eulerian(folder, "solve", "c.toml", limit=LIMIT)
    if done.code == 0:
        done = eulerian(folder, "push", "run", "--samples", "new.csv", "--output", "p.csv", ranks=ranks, limit=LIMIT)
    if done.code:
        return done, {}, []
    with (folder / "p.csv").open() as file:
        return done, json.loads((folder / "p.json").read_text()), list(csv.DictReader(file))


def _long_labels(ranks: int, folder: Path) -> Verdict:
    """Names of seventeen digits are names; pushed points may write 7 as 7.0."""
    names = ("7", "10000000000000001", "10000000000000002")
    centres = ((-2.0, 0.0), (2.0, 0.0), (0.0, 2.0))
    rows = [
        (x + 0.2 * (i % 3 - 1), y + 0.2 * (i // 3 - 1), y_)
        for (x, y), y_ in zip(centres, names, strict=True)
        for i in range(9)
    ]
    text = _NAMES + "".join(f"{x},{y},{name}\n" for x, y, name in rows)
    term = f'{SAMPLES}\nlabel_column = "c"'
    _prepare(folder, CONFIG.replace("TERM", term), {"data.csv": text, "new.csv": text.replace(",7\n", ",7.0\n")})
    done, document, _ = _push(folder, ranks)
    wrong = _ended(done)
    if document and (document["classes"] != list(names) or document["accuracy"]["points"]["accuracy"] != 1.0):
        wrong.append(f"{document['classes']}, {document['accuracy']}")
    return _verdict(done, wrong)


def _pushed(ranks: int, folder: Path) -> Verdict:
    """Points that start in a hole or far away are counted, marked and left out; those that end outside are others."""
    mesh = Path(__file__).parents[2] / "meshes" / "square_with_hole.msh"
    config = CONFIG.replace("box = { lower = [-4.0, -4.0], upper = [4.0, 4.0], cells = [12, 12] }", f'file = "{mesh}"')
    term = 'kind = "gaussian"\nmean = [1.4, 1.4]\nstd = 0.1'
    config = config.replace("TERM", term).replace("[[0, 0, 0, 0, 0, 0]]", "[[0, 0, 0, 0, 0.5, 0]]")
    _prepare(folder, config, {"new.csv": "x,y\n1.8,0.8\n-0.8,0.6\n0.0,0.0\n30.0,0.0\n"})
    done, document, rows = _push(folder, ranks)
    wrong = _ended(done)
    if document:
        counts = [document[key] for key in ("points", "start_outside", "end_outside")]
        if counts != [4, 2, 1]:
            wrong.append(f"points, start_outside, end_outside are {counts}")
        if [row["outside"] for row in rows] != ["false", "false", "true", "true"]:
            wrong.append(f"outside is {[row['outside'] for row in rows]}")
        if "2 of 4 points start outside the domain" not in done.out:
            wrong.append("the summary does not say it")
    return _verdict(done, wrong)
