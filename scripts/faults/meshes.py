"""Mesh files that other programs write, and domains of several parts: they are read and solved, or the reason is said.

Every fault is one command on a small file. What is right exits with 0 and says what it must; what is wrong with 1, and
one message that names it, without a traceback.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import Fault, Verdict, eulerian

_POINTS = ((0, 0), (1, 0), (1, 1), (0, 1))
_SECONDS = 240.0


@dataclass(frozen=True)
class Given:
    """A command, and what must come of it.

    Attributes:
        group: a row of the table.
        name: what is special about the file.
        write: puts the files into a folder.
        arguments: of the command line.
        code: its exit code.
        says: what it must say.
        ranks: how many run it.
        never: what it must not say.
    """

    group: str
    name: str
    write: Callable[[Path], object]
    arguments: tuple[str, ...]
    code: int
    says: tuple[str, ...]
    ranks: int = 1
    never: tuple[str, ...] = ("Traceback",)


def faults(quick: bool) -> Iterable[Fault]:
    """Files on one process, and parts on one and on two ranks."""
    given = [*_files(), *_parts()]
    return [Fault(each.group, each.name, partial(_judged, each)) for each in (given[::3] if quick else given)]


def _judged(given: Given, folder: Path) -> Verdict:
    given.write(folder)
    end = eulerian(folder, *given.arguments, ranks=given.ranks, limit=_SECONDS)
    text = end.out + end.err
    notes = [f"exit code {end.code}"] if end.code != given.code else []
    notes += [f"does not say {words!r}" for words in given.says if words not in text]
    notes += [f"says {words!r}" for words in given.never if words in text]
    note = "; ".join(notes) + (f" ({end.last_line})" if notes else "")
    return Verdict(not notes, note, hung=end.hung, traceback=end.traceback)


# -- files -------------------------------------------------------------------------------------------------------------


def gmsh41(groups: dict[tuple[int, int], tuple[int, ...]], first: int = 1, lines_only: bool = False) -> str:
    """A square of two triangles, one each on two surfaces, and its lower side, in gmsh's format 4.1."""
    entities = ["1 0 0 0 0"]
    for dim, entity in ((1, 1), (2, 1), (2, 2)):
        tags = groups.get((dim, entity), ())
        entities.append(f"{entity} 0 0 0 1 1 0 {' '.join(map(str, (len(tags), *tags)))} 0")
    numbers = range(first, first + 4)
    cells = [(1, 1, 1, numbers[:2]), (2, 1, 2, numbers[:3]), (2, 2, 2, [numbers[i] for i in (0, 2, 3)])]
    cells = cells[:1] if lines_only else cells
    blocks = [f"{dim} {entity} {kind} 1\n1 {' '.join(map(str, nodes))}" for dim, entity, kind, nodes in cells]
    return "\n".join(
        [
            "$MeshFormat\n4.1 0 8\n$EndMeshFormat\n$Entities\n1 1 2 0",
            *entities,
            f"$EndEntities\n$Nodes\n1 4 {first} {first + 3}\n2 1 0 4",
            *map(str, numbers),
            *(f"{x} {y} 0" for x, y in _POINTS),
            f"$EndNodes\n$Elements\n{len(blocks)} {len(blocks)} 1 {len(blocks)}",
            *blocks,
            "$EndElements\n",
        ]
    )


def _text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def _files() -> Iterator[Given]:
    mixtures: dict[str, dict[tuple[int, int], tuple[int, ...]]] = {
        "a group on one of two surfaces": {(2, 2): (5,)},
        "a group on the boundary only": {(1, 1): (7,)},
        "two groups on one surface": {(2, 1): (5, 6), (2, 2): (6,)},
        "a negative group": {(2, 1): (-5,)},
    }
    for name, groups in mixtures.items():
        says = tuple(f"tag {abs(tag)}: " for tags in groups.values() for tag in tags)
        yield Given("mesh files", name, _text("a.msh", gmsh41(groups)), ("mesh", "a.msh"), 0, ("2 triangles", *says))
    far = _text("a.msh", gmsh41({(2, 1): (5,)}, 10**12))
    yield Given("mesh files", "nodes numbered from 10¹²", far, ("mesh", "a.msh"), 0, ("2 triangles", "4 nodes"))
    lines = _text("a.msh", gmsh41({(1, 1): (7,)}, lines_only=True))
    yield Given("mesh files", "lines only", lines, ("mesh", "a.msh"), 0, ("only lines", "SaveAll"))
    wrong = _written({"a.msh": gmsh41({(1, 1): (7,)}, lines_only=True), "a.toml": _config("a.msh", (0.5,), (0.4,))})
    told = ("a.msh holds only lines", "SaveAll")
    yield Given("mesh files", "lines only, for a plane problem", wrong, ("train", "a.toml"), 1, told)
    cut = _text("a.msh", gmsh41({})[:-40])
    yield Given("mesh files", "a file that breaks off", cut, ("mesh", "a.msh"), 1, ("complete?",))
    text = gmsh41({}).replace("$Nodes\n1", "$Nodes\nx")
    bad = _text("a.msh", text)
    never = ("Traceback", "complete?")
    yield Given(
        "mesh files", "a file that is wrong and whole", bad, ("mesh", "a.msh"), 1, ("cannot read",), never=never
    )
    yield Given("mesh files", "version 2.2 of VTU", _text("a.vtu", _vtu()), ("mesh", "a.vtu"), 0, ("2 triangles",))


def _vtu() -> str:
    """As DOLFINx writes them."""

    def array(name: str, kind: str, text: str, more: str = "") -> str:
        return f'<DataArray type="{kind}" Name="{name}" {more} format="ascii">{text}</DataArray>'

    points = array("Points", "Float64", " ".join(f"{x} {y} 0" for x, y in _POINTS), 'NumberOfComponents="3"')
    cells = array("connectivity", "Int32", "0 1 2 0 2 3") + array("offsets", "Int32", "3 6")
    return (
        '<?xml version="1.0"?><VTKFile type="UnstructuredGrid" version="2.2"><UnstructuredGrid>'
        f'<Piece NumberOfPoints="4" NumberOfCells="2"><Points>{points}</Points>'
        f"<Cells>{cells}{array('types', 'Int8', '69 69')}</Cells></Piece></UnstructuredGrid></VTKFile>"
    )


# -- parts -------------------------------------------------------------------------------------------------------------


def _islands(corners: tuple[tuple[float, float], ...], n: int = 8) -> str:
    """Unit squares of 2 n² triangles each, in gmsh's format 2.2."""
    points, cells = [], []
    for left, low in corners:
        first = len(points) + 1
        points += [(left + i / n, low + j / n) for j in range(n + 1) for i in range(n + 1)]
        for j in range(n):
            for i in range(n):
                a = first + i + (n + 1) * j
                cells += [(a, a + 1, a + n + 2), (a, a + n + 2, a + n + 1)]
    nodes = "".join(f"{i} {x} {y} 0\n" for i, (x, y) in enumerate(points, 1))
    elements = "".join(f"{i} 2 2 0 1 {a} {b} {c}\n" for i, (a, b, c) in enumerate(cells, 1))
    return (
        f"$MeshFormat\n2.2 0 8\n$EndMeshFormat\n$Nodes\n{len(points)}\n{nodes}$EndNodes\n"
        f"$Elements\n{len(cells)}\n{elements}$EndElements\n"
    )


def _config(mesh: str, begin: tuple[float, ...], end: tuple[float, ...], kind: str = "fixed", more: str = "") -> str:
    """Equal masses around the points (x, 0.5), of which each moves on."""

    def terms(key: str, places: tuple[float, ...]) -> str:
        lines = '[[{key}]]\nkind = "gaussian"\nmean = [{x}, 0.5]\nstd = 0.12\nweight = {weight}\n'
        return "".join(lines.format(key=key, x=x, weight=1.0 / len(places)) for x in places)

    goal = terms("objective.terminal.target", end)
    return (
        f'[domain]\nfile = "{mesh}"\n{terms("density.initial", begin)}[field]\nkind = "mlp"\nhidden = [4]\nlayers = 2\n'
        f'[objective]\nkinetic = 1.0\n{more}[objective.terminal]\nkind = "{kind}"\n{goal}'
        '[optimiser]\nmax_iterations = 1\n[ideal]\nlayers = 8\n[output]\ndirectory = "run"\ndensities = 0\n'
    )


def _written(files: dict[str, str]) -> Callable[[Path], object]:
    return lambda folder: [(folder / name).write_text(text, encoding="utf-8") for name, text in files.items()]


def _parts() -> Iterator[Given]:
    apart, touching = _islands(((0, 0), (2, 0))), _islands(((0, 0), (1, 1)))
    command = ("ideal", "a.toml")
    for ranks in (1, 2):
        row = "parts of a domain" if ranks == 1 else f"parts of a domain, {ranks} ranks"
        for kind in ("fixed", "kl", "l2"):
            files = _written({"a.msh": apart, "a.toml": _config("a.msh", (0.5, 2.5), (0.4, 2.6), kind)})
            yield Given(row, f"each has its own mass, {kind}", files, command, 0, ("converged", "lower bound"), ranks)
        for name, begin, end in (
            ("all mass must change parts", (0.5,), (2.5,)),
            ("some mass must change parts", (0.5, 2.5), (0.4, 0.6, 2.5)),
        ):
            files = _written({"a.msh": apart, "a.toml": _config("a.msh", begin, end)})
            yield Given(row, name, files, command, 1, ("part 1", "part 2", "has mass"), ranks)
    moved = _config("a.msh", (0.5,), (0.5, 1.5)).replace("[1.5, 0.5]", "[1.5, 1.5]")
    files = _written({"a.msh": touching, "a.toml": moved})
    yield Given("parts of a domain", "parts that touch in a node", files, command, 1, ("not connected",))
