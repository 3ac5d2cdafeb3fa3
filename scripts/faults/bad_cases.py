"""Wrong configurations, made by rules: what is wrong, and what the message must name."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

BASE = """\
[domain]
box = { lower = [-2.0, -2.0], upper = [2.0, 2.0], cells = [6, 6] }
[density]
degree = 1
[[density.initial]]
kind = "gaussian"
mean = [-0.5, 0.3]
std = 0.6
[field]
kind = "mlp"
hidden = [4]
layers = 2
[objective]
kinetic = 0.5
[objective.terminal]
kind = "quadratic"
target = [0.5, 0.0]
[optimiser]
max_iterations = 1
[output]
directory = "run"
densities = 0
"""

type Content = bytes | str | Callable[[Path], object]


@dataclass(frozen=True, eq=False)
class Case:
    """One wrong input.

    Attributes:
        group: the kind of mistake.
        name: the mistake.
        arguments: of the command line; it is started in a folder of its own.
        names: the message must hold one of these: keys, options or files.
        files: what lies in the folder besides ``base.toml``: content, or what writes it.
        run: the folder ``old`` with a finished run is wanted too.
    """

    group: str
    name: str
    arguments: tuple[str, ...]
    names: tuple[str, ...]
    files: Mapping[str, Content] = field(default_factory=dict)
    run: bool = False


def config_cases() -> Iterator[Case]:
    """Values, tables and formulas that are wrong, without any file but the configuration."""
    yield from _syntax()
    yield from _types()
    yield from _ranges()
    yield from _unknown()
    yield from _contradictions()
    yield from _sizes()
    yield from _formulas()


def sets(group: str, *overrides: str, command: str = "solve", names: tuple[str, ...] = (), name: str = "") -> Case:
    """A wrong value by ``--set``; the last override is the wrong one, and its key is named."""
    key = overrides[-1].partition("=")[0]
    arguments = [command, "base.toml"]
    for override in overrides:
        arguments += ["--set", override]
    title = f"{command}: {overrides[-1]}" if command != "solve" else overrides[-1]
    return Case(group, name or title[:70], tuple(arguments), names or (f"{key}:", f"{key}."))


# -- syntax ------------------------------------------------------------------------------------------------------------

_BROKEN_TOML: dict[str, Content] = {
    "empty": "",
    "blanks": " \n\t\n",
    "open table": "[domain\n",
    "open list": BASE.replace("[6, 6]", "[6, 6"),
    "open text": BASE.replace('"gaussian"', '"gaussian'),
    "open inline table": "[domain]\nbox = {\n",
    "key twice": BASE.replace("layers = 2", "layers = 2\nlayers = 3"),
    "table twice": BASE + "[field]\nseed = 1\n",
    "two equals": BASE.replace("layers = 2", "layers = = 2"),
    "no value": BASE.replace("layers = 2", "layers ="),
    "no key": BASE + "= 3\n",
    "bare word": BASE.replace('"mlp"', "mlp"),
    "bad escape": BASE.replace('"mlp"', '"m\\qlp"'),
    "bad unicode escape": BASE.replace('"mlp"', '"\\ud800"'),
    "control character": BASE.replace('"mlp"', '"m\x01lp"'),
    "zero byte": BASE.replace("[field]", "\0[field]"),
    "underscores": BASE.replace("layers = 2", "layers = 1__0"),
    "leading zero": BASE.replace("layers = 2", "layers = 02"),
    "impossible date": BASE.replace("layers = 2", "layers = 2026-13-45"),
    "table and list of tables": BASE + "[[field]]\nkind = 'mlp'\n",
    "several lines": "[domain]\nbox = { lower = [0.0],\n  upper = 3 4 }\n",
    "yaml": "domain:\n  box:\n    lower: [0, 0]\n",
    "json": '{"domain": {"box": {}}}',
    "Python": "import os\nos.system('true')\n",
    "XML": "<?xml version='1.0'?><domain/>",
    "UTF-16": BASE.encode("utf-16"),
    "Latin-1": BASE.replace("[field]", "# é\n[field]").encode("latin-1"),
    "binary": bytes(range(256)) * 20,
    "integer of 10,000 digits": BASE.replace("layers = 2", f"layers = {'9' * 10_000}"),
    "100,000 brackets": "x = " + "[" * 100_000,
    "20,000 inline tables": "x = " + "{a=" * 20_000,
    "key of 100,000 parts": "x." * 100_000 + "x = 1\n",
    "header of 50,000 parts": "[" + "x." * 50_000 + "x]\n",
    "key of 30 parts": BASE + "[a.b.c]\n" + "d." * 28 + "d = 1\n",
    "5 MB of comments": BASE + "# nothing\n" * 500_000,
    "100,000 unknown keys": "".join(f"k{i} = {i}\n" for i in range(100_000)),
    "20,000 wrong terms": BASE.replace("[[density.initial]]", "[[density.initial]]\nkind = 7\n" * 20_000 + "[x]"),
}


def _syntax() -> Iterator[Case]:
    for name, content in _BROKEN_TOML.items():
        names = ("wrong.toml",)
        if name in ("empty", "blanks", "key of 30 parts", "100,000 unknown keys"):
            names = ("domain", "a:", "k0:")
        if name == "20,000 wrong terms":
            names = ("density.initial", "x:", "wrong.toml")
        yield Case("TOML", name, ("solve", "wrong.toml"), names, {"wrong.toml": content})
    yield Case("TOML", "missing", ("train", "nowhere.toml"), ("nowhere.toml",))
    yield Case("TOML", "a folder", ("train", "."), (".: is a folder",))
    yield Case("TOML", "name too long", ("train", "x" * 3000), ("xxx",))
    yield Case("TOML", "a device", ("solve", "/dev/zero"), ("/dev/zero",))
    huge = {"huge.toml": _sparse(2**40)}
    yield Case("TOML", "a terabyte", ("solve", "huge.toml"), ("huge.toml",), huge)


def _sparse(size: int) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(size)

    return write


# -- types, ranges, names ----------------------------------------------------------------------------------------------

_REALS = (
    "density.initial.0.std",
    "density.initial.0.weight",
    "field.horizon",
    "field.output_scale",
    "objective.kinetic",
    "objective.jacobian",
    "objective.parameters",
    "objective.parameters_h1",
    "objective.congestion",
    "objective.entropy",
    "objective.terminal.weight",
    "optimiser.gradient_tolerance",
    "solver.cfl",
    "solver.flux_smoothing",
    "ideal.gap_tolerance",
    "ideal.residual_tolerance",
    "particles.tolerance",
)
_WHOLES = (
    "domain.refine",
    "density.degree",
    "density.initial.0.label",
    "field.layers",
    "field.seed",
    "optimiser.max_iterations",
    "optimiser.levels",
    "solver.max_steps_per_layer",
    "ideal.layers",
    "ideal.max_iterations",
    "particles.count",
    "particles.seed",
    "particles.steps_per_layer",
    "particles.replicates",
    "output.densities",
    "output.checkpoint_every",
)
_FLAGS = ("field.label_dependent", "field.tied", "field.zero_init", "solver.limiter")
_LISTS = (
    "domain.box.lower",
    "domain.box.upper",
    "domain.box.cells",
    "density.initial.0.mean",
    "field.hidden",
    "objective.terminal.target",
)
_TABLES = (
    "domain",
    "domain.box",
    "density",
    "density.initial",
    "density.initial.0",
    "field",
    "objective",
    "objective.terminal",
    "optimiser",
    "solver",
    "ideal",
    "particles",
    "output",
)
_TEXTS = ("field.kind", "density.initial.0.kind", "objective.terminal.kind", "optimiser.method", "ideal.certificate")


def _types() -> Iterator[Case]:
    wrong = itertools.cycle(('"much"', "[1.0]", "{ a = 1 }", "true", "2026-11-28"))
    for key in _REALS:
        yield sets("types", f"{key}={next(wrong)}")
    wrong = itertools.cycle(("1.5", '"3"', "[3]", "true", "{}", "07:32:00"))
    for key in _WHOLES:
        yield sets("types", f"{key}={next(wrong)}")
    for key, value in zip(_FLAGS, ("1", '"yes"', "0.0", "[true]"), strict=True):
        yield sets("types", f"{key}={value}")
    for key, value in zip(_LISTS, ("3", '"0, 0"', "[6.5, 6]", "[true, 0]", "{}", '["a", "b"]'), strict=True):
        yield sets("types", f"{key}={value}")
    for key, value in zip(_TABLES, itertools.cycle(("3", '"x"', "[[1]]", "true")), strict=False):
        yield sets("types", f"{key}={value}", names=(key.rpartition(".")[2], key))
    for key, value in zip(_TEXTS, ("3", "[]", "{}", "true", "1.0"), strict=True):
        yield sets("types", f"{key}={value}")


def _ranges() -> Iterator[Case]:
    wrong = itertools.cycle(("nan", "inf", "-inf", "-1.0", "1e400"))
    for key in _REALS:
        yield sets("ranges", f"{key}={next(wrong)}")
    for key in _WHOLES:
        yield sets("ranges", f"{key}=-1")
        yield sets("ranges", f"{key}={2**63}", name=f"{key}=2^63")
    for key in _LISTS:
        if key not in ("field.hidden", "domain.box.cells"):
            yield sets("ranges", f"{key}=[nan, 0.0]")
            yield sets("ranges", f"{key}=[0.0, 1e999]", names=(key,))
        yield sets("ranges", f"{key}=[]")
    for override in (
        "domain.box.cells=[0, 6]",
        "domain.box.upper=[2.0, -2.0]",
        "domain.box.upper=[1e308, 2.0]",
        "domain.refine=11",
        "density.degree=3",
        "field.hidden=[4, 0]",
        "solver.cfl=1.01",
        "solver.memory=0 B",
        "solver.memory=9 EiB",
        "solver.memory=-1 GiB",
        "solver.disk=many",
        "particles.replicates=1",
        "particles.tolerance=2.0",
        "density.initial.0.mean=[1e300, 0.0]",
        "density.initial.0.std=1e-300",
        "density.initial.0.std=1e300",
        "field.horizon=1e308",
    ):
        yield sets("ranges", override, names=(override.partition("=")[0], "density.initial.0"))


def _unknown() -> Iterator[Case]:
    for table in _TABLES:
        if table != "density.initial":
            yield sets("unknown keys", f"{table}.frobnicate=1", names=(f"{table}.frobnicate",))
    yield sets("unknown keys", "frobnicate=1")
    for key in ("objective.kinetik", "feild.layers", "domain.box.cell", "field.features", "Solver.cfl", "field.Layers"):
        yield sets("unknown keys", f"{key}=1", names=(key, key.partition(".")[0]))
    for kind in ("mlpp", "", "MLP"):
        yield sets("unknown keys", f'field.kind="{kind}"')


def _contradictions() -> Iterator[Case]:
    flat = "{ kind = 'gaussian', mean = [0.0, 0.0], std = 0.5, label = LABEL }"
    for override, *names in (
        ("domain.file=mesh.msh", "domain"),
        ("domain={}", "domain"),
        ("domain.box.lower=[0.0]", "domain.box"),
        ("domain.box.cells=[6, 6, 6]", "domain.box.cells"),
        ("density.initial.0.covariance=[[1.0, 0.0], [0.0, 1.0]]", "density.initial.0"),
        ("density.initial.0.mean=[0.0]", "density.initial.0.mean"),
        ("density.initial.0.label=1", "density.initial"),
        (f"density.initial=[{flat.replace('LABEL', '0')}, {flat.replace('LABEL', '2')}]", "density.initial"),
        ("density.initial=[{ kind='gaussian', mean=[0.0, 0.0], covariance=[[1.0, 2.0], [2.0, 1.0]] }]", "covariance"),
        ("density.initial=[{ kind='gaussian', mean=[0.0, 0.0], covariance=[[1.0, 0.5], [0.4, 1.0]] }]", "covariance"),
        ("density.initial=[{ kind='uniform', lower=[5.0, 5.0], upper=[6.0, 6.0] }]", "density.initial.0"),
        ("density.initial=[{ kind='uniform', lower=[1.0, 1.0], upper=[0.0, 2.0] }]", "density.initial.0.upper"),
        ("density.initial=[{ kind='expression', value='-1' }]", "density.initial.0"),
        ("density.initial=[{ kind='expression', value='1/(x - x)' }]", "density.initial.0"),
        ("density.initial=[{ kind='expression', value='0' }]", "density.initial.0"),
        ("objective.terminal.targets=[[0.0, 0.0]]", "objective.terminal"),
        ("objective.terminal={ kind = 'quadratic', targets = [[0.0, 0.0], [1.0, 1.0]] }", "objective.terminal.targets"),
        ("objective.terminal={ kind = 'logistic', direction = [1.0, 0.0] }", "objective.terminal.kind"),
        ("objective.terminal={ kind = 'cross_entropy', weights = [[1.0, 0.0]] }", "objective.terminal.kind"),
        ("objective.terminal={ kind = 'kl', target = [] }", "objective.terminal.target"),
        (f"objective.terminal={{ kind = 'l2', target = [{flat.replace('LABEL', '1')}] }}", "objective.terminal.target"),
        ("field.theta=[[1.0, 2.0]]", "field.theta"),
        ("field.theta=[[1.0], [2.0], [3.0]]", "field.theta"),
        ("field.theta=ideal", "field.theta"),
        ("objective.potential=1/(x - x)", "objective.potential"),
        ("objective.potential=z", "objective.potential"),
        ("particles.columns=['a', 'b']", "particles.columns"),
        ("particles.count=3", "particles.count"),
    ):
        title = override.replace("density.initial=[{ kind='gaussian', mean=[0.0, 0.0], ", "")
        yield sets("contradictions", override, names=tuple(names), name=title[:70])
    yield sets("contradictions", "objective.kinetic=0.0", command="ideal", names=("objective.kinetic", "kinetic"))
    fixed = f"objective.terminal={{ kind = 'fixed', target = [{flat.replace('LABEL', '0')}] }}"
    yield sets("contradictions", fixed, names=("objective.terminal.kind",))
    on_particles = ("--method", "particles")
    for override in ("objective.congestion=1.0", "field={ kind = 'free' }", "objective.entropy=0.5"):
        case = sets("contradictions", override, names=(override.partition("=")[0], "field.kind"))
        yield Case(case.group, f"particles: {case.name}", (*case.arguments, *on_particles), case.names)
    training = sets("contradictions", "optimiser.levels=2", command="train")
    yield Case(training.group, "particles: levels", (*training.arguments, *on_particles), training.names)


# -- sizes -------------------------------------------------------------------------------------------------------------


def _sizes() -> Iterator[Case]:
    box = "domain.box.cells"
    for overrides in (
        (f"{box}=[2000000000, 2000000000]",),
        (f"{box}=[20000, 20000]",),
        (f"{box}=[9900, 9900]",),
        (f"{box}=[6000, 6000]", "density.degree=2"),
        ("domain.refine=10", f"{box}=[300, 300]"),
        (f"{box}=[200, 200]", "domain.refine=6"),
        (f"{box}=[100, 100]", "field.layers=100000"),
        (f"{box}=[100, 100]", "output.densities=100000"),
        ("field.hidden=[100000, 100000]",),
        (f"field.hidden=[{', '.join(['20000'] * 100)}]",),
        ("field.hidden=[60000]", "field.layers=100000"),
        ("field={ kind = 'linear', features = 'rbf', width = 100000, layers = 100000 }",),
        (f"{box}=[400, 400]", "field={ kind = 'free', layers = 20000 }"),
        ("field.layers=99999999999",),
        ("field.hidden=[2000000000]",),
        ("field={ kind = 'linear', features = 'random', width = 1000000 }",),
    ):
        sizes = (
            box,
            "domain",
            "density",
            "field.layers",
            "field.hidden",
            "field.width",
            "field.kind",
            "output.densities",
        )
        yield sets("sizes", *overrides, names=sizes, name=" ".join(overrides)[:70])
    for override in ("ideal.layers=100000", "field.layers=100000"):
        case = sets("sizes", "domain.box.cells=[100, 100]", override, command="ideal", names=("layers", "domain.box"))
        yield Case(case.group, f"ideal: {override}", case.arguments, case.names)
    base = ("solve", "base.toml", "--method", "particles", "--set")
    for count in (100_000_000, 10**12):
        name = f"{count} particles"
        yield Case("sizes", name, (*base, f"particles.count={count}"), ("particles.count",))
    compare = ("compare", "base.toml", "--set", "particles.count=100000000")
    yield Case("sizes", "compare: 10^8 particles", compare, ("particles.count",))
    for count in ("1000000000000", "99999999999999999999"):
        yield Case("sizes", f"sample: {count} points", ("sample", "old", "-n", count), ("-n",), run=True)
    for option, count in (("--frames", "1000000"), ("--particles", "1000000000"), ("--fps", "1e9")):
        arguments = ("plot", "old", "--animate", option, count)
        yield Case("sizes", f"plot: {option} {count}", arguments, (option,), run=True)


# -- formulas, code, options -------------------------------------------------------------------------------------------


def _formulas() -> Iterator[Case]:
    for text in (
        "",
        "x +",
        "(x",
        "x)",
        "x^2",
        "2 x",
        "sine(x)",
        "min(x)",
        "exp()",
        "x == 1",
        "x.real",
        "lambda: x",
        "x if x else y",
        "().__class__.__bases__[0].__subclasses__()",
        "1e999",
        "(" * 900 + "x" + ")" * 900,
        "-" * 1900 + "x",
        "x" + "+x" * 5000,
        "x**" * 600 + "x",
    ):
        value = f"objective.terminal={{ kind = 'expression', value = \"{text}\" }}"
        yield sets("formulas", value, names=("objective.terminal.value",), name=text[:40] or "nothing")
