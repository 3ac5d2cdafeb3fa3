"""The house keeps its shape: small files, short functions, nobody asks for kinds, public names say what they are.

Where a law does not hold everywhere yet, the table of today stands beside it: it may only shrink.
"""

import ast
import statistics
from collections import Counter
from collections.abc import Iterator

import grimp
import pytest
from paths import PACKAGE

pytestmark = pytest.mark.one_process

FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {str(file.relative_to(PACKAGE)): ast.parse(file.read_text(encoding="utf-8")) for file in FILES}

LONGEST_FILE = 400
LONGER_FILES: dict[str, int] = {}

LONGEST_FUNCTION = 60
LONGER_FUNCTIONS: dict[str, int] = {}

INITS = [file for file in FILES if file.name == "__init__.py"]
NAMED_BY_A_TUPLE = ("eulerian.app.commands.", "eulerian.app.figures.")

MOST_SPLITS = 12
MOST_WITH_ONE_IMPORTER = 35

# Where classes of kinds are made: a class of these files, or a problem, is not to be asked for elsewhere.
KINDS = (
    "app/config/field.py",
    "app/config/density.py",
    "app/config/functionals.py",
    "app/config/interactions.py",
    "app/config/losses.py",
    "app/config/objective.py",
    "density/image.py",
    "density/shapes.py",
    "fields/",
    "objective/losses.py",
    "objective/terminal.py",
    "objective/distances.py",
    "objective/interactions.py",
    "objective/kernels.py",
    "ideal/functionals.py",
    "particles/kl.py",
)
PROBLEMS = {"ControlProblem", "ParticleProblem", "IdealProblem", "SampledProblem", "ReducedProblem"}
ASKED: dict[str, int] = {}
"""How often a file asks for a kind or a problem; wanted: never."""


def functions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Name and lines of every function: from its ``def`` to its end, without its docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first, lines = node.body[0], node.end_lineno - node.lineno + 1
            if ast.get_docstring(node, clean=False) is not None:
                lines -= first.end_lineno - first.lineno + 1
            yield node.name, lines


def test_the_root_holds_rooms_only() -> None:
    assert {file.name for file in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_files_are_short() -> None:
    lines = {str(file.relative_to(PACKAGE)): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    long = {name: n for name, n in lines.items() if n > LONGER_FILES.get(name, LONGEST_FILE)}
    assert not long


def test_functions_are_short() -> None:
    found = {f"{name}:{function}": n for name, tree in TREES.items() for function, n in functions(tree)}
    lengths = [n for tree in TREES.values() for _, n in functions(tree)]
    assert statistics.median(lengths) <= 8
    assert statistics.quantiles(lengths, n=20)[-1] <= 30
    assert not {name: n for name, n in found.items() if n > LONGER_FUNCTIONS.get(name, LONGEST_FUNCTION)}


def test_imports_are_rarely_split() -> None:
    """``# isort: split`` keeps MPI in front of DOLFINx; most rooms start it in their ``__init__``."""
    assert sum(file.read_text(encoding="utf-8").count("# isort: split") for file in FILES) <= MOST_SPLITS


def kinds() -> dict[str, set[str]]:
    """The files that define each class that is not to be asked for."""
    found: dict[str, set[str]] = {name: set() for name in PROBLEMS}
    for file, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and (file.startswith(KINDS) or node.name in PROBLEMS):
                found.setdefault(node.name, set()).add(file)
    return found


def asked_for(tree: ast.Module) -> Iterator[str]:
    """Names of classes in ``isinstance`` and ``case``; "kind" for comparisons of an attribute of this name."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="isinstance"), args=[_, classes]):
                yield from (part.id for part in ast.walk(classes) if isinstance(part, ast.Name))
                yield from (part.attr for part in ast.walk(classes) if isinstance(part, ast.Attribute))
            case ast.MatchClass(cls=ast.Name(id=name) | ast.Attribute(attr=name)):
                yield name
            case ast.Compare(left=ast.Attribute(attr="kind", value=owner), comparators=[ast.Constant(value=str())]):
                if ast.unparse(owner).rpartition(".")[2] not in ("dtype", "token"):  # NumPy's, and those of formulas
                    yield "kind"


def test_nobody_asks_for_kinds() -> None:
    """What a kind can do, it says itself; only the configuration, and the file of a class, know classes of kinds."""
    defined = kinds()
    found: Counter[str] = Counter()
    for file, tree in TREES.items():
        if not file.startswith("app/config/"):
            names = [n for n in asked_for(tree) if n == "kind" or (n in defined and file not in defined[n])]
            found[file] += len(names)
    more = {file: n for file, n in found.items() if n > ASKED.get(file, 0)}
    assert not more


def test_modules_are_shared() -> None:
    """A module that a single other one imports should have an idea of its own, so there are few.

    Not counted are an ``__init__``, what an ``__init__`` or the root hands on, and commands and figures, which one
    tuple names.
    To import is to import anywhere: at the top, in a function, or for type checking.
    """
    graph = grimp.build_graph("eulerian", cache_dir=None)
    rooms = {"eulerian", *(f"eulerian.{'.'.join(f.relative_to(PACKAGE).parent.parts)}" for f in INITS)}
    single = {}
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    public = {f"eulerian.{node.module}" for node in stub.body if isinstance(node, ast.ImportFrom)}
    for module in graph.modules - rooms - public:
        importers = graph.find_modules_that_directly_import(module)
        if len(importers) == 1 and not importers & rooms and not module.startswith(NAMED_BY_A_TUPLE):
            single[module] = importers
    assert len(single) <= MOST_WITH_ONE_IMPORTER, "\n".join(f"{name} <- {who}" for name, who in sorted(single.items()))
