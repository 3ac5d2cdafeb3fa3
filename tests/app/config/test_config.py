"""Configurations that are right: what is read, overridden, resolved and written back."""

import math
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eulerian.app.config import (
    Box,
    Config,
    CrossEntropyTerminal,
    Density,
    Domain,
    ExpressionTerm,
    ExpressionTerminal,
    FixedTerminal,
    FreeField,
    GaussianTerm,
    Ideal,
    ImageTerm,
    KlTerminal,
    L2Terminal,
    LinearField,
    LogisticTerminal,
    MlpField,
    Objective,
    PythonField,
    QuadraticTerminal,
    SamplesTerm,
    UniformTerm,
    check_dimension,
    parse_config,
    read_config,
)
from eulerian.app.config.toml import dump_toml

pytestmark = pytest.mark.one_process

repeatable = settings(derandomize=True, deadline=None, max_examples=100)

MINIMAL = """
[domain]
box = { lower = [-3.0, -3.0], upper = [3.0, 3.0], cells = [8, 8] }
[[density.initial]]
kind = "gaussian"
mean = [-0.5, 0.3]
std = 0.5
[field]
kind = "mlp"
[objective.terminal]
kind = "quadratic"
target = [1.0, -0.5]
"""

TWO_LABELS = """
[domain]
box = { lower = [-6], upper = [6.0], cells = [240] }
[density]
degree = 2
[[density.initial]]
kind = "expression"
value = "exp(-x**2/2)*heaviside(-x)"
[[density.initial]]
kind = "expression"
value = "exp(-x**2/2)*heaviside(x)"
label = 1
weight = 2
[field]
kind = "linear"
features = "affine"
layers = 3
[objective]
kinetic = 1
[objective.terminal]
kind = "logistic"
direction = [1.0]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that configurations below name."""
    for name in ("mesh.msh", "data.csv", "shape.png", "start.npz"):
        (tmp_path / name).touch()
    return tmp_path


def test_defaults() -> None:
    config = parse_config(MINIMAL)
    assert config.domain == Domain(box=Box(lower=(-3.0, -3.0), upper=(3.0, 3.0), cells=(8, 8)))
    assert config.density.degree == 1
    assert config.density.initial == (GaussianTerm(mean=(-0.5, 0.3), std=0.5, weight=1.0, label=0),)
    assert config.field == MlpField(
        hidden=(32, 32), activation="tanh", output_scale=1.0, layers=8, horizon=1.0, seed=0, zero_init=True
    )
    assert not config.field.label_dependent
    assert config.field.theta is None
    assert (config.objective.kinetic, config.objective.jacobian) == (0.0, 0.0)
    assert (config.objective.parameters, config.objective.parameters_h1) == (0.0, 0.0)
    assert config.objective.terminal == QuadraticTerminal(target=(1.0, -0.5), weight=1.0)
    assert (config.optimiser.method, config.optimiser.petsc_options) == ("lmvm", "")
    assert (config.optimiser.max_iterations, config.optimiser.gradient_tolerance) == (100, 1e-6)
    assert (config.solver.cfl, config.solver.max_steps_per_layer, config.solver.limiter) == (0.9, 2000, True)
    assert (config.solver.memory, config.solver.memory_bytes) == ("4 GiB", 4 * 1024**3)
    assert (config.solver.disk, config.solver.disk_bytes, config.solver.disk_directory) == (None, 0, None)
    assert config.solver.flux_smoothing == 1e-3
    assert (config.output.directory, config.output.densities) == (Path("runs/run"), 11)
    assert config.output.checkpoint_every == 10
    assert config.ideal == Ideal(gap_tolerance=1e-3, residual_tolerance=1e-4, max_iterations=5000, certificate="auto")
    assert config.ideal.layers is None
    assert config.n_labels == 1


# Each row is one of the kinds, with the model that it must become.
TERMS: list[tuple[str, type, int | None]] = [
    ('{ kind = "gaussian", mean = [0, 0], covariance = [[1e-4, 0], [0, 1e4]] }', GaussianTerm, 1),
    ('{ kind = "uniform", lower = [-1, -1], upper = [1, 1], weight = 0.1 }', UniformTerm, 1),
    ('{ kind = "expression", value = "exp(-x**2 - y**2)" }', ExpressionTerm, 1),
    ('{ kind = "samples", file = "data.csv", columns = ["a", "b"] }', SamplesTerm, 1),
    ('{ kind = "samples", file = "data.csv", columns = [0, 1], label_column = 2, bandwidth = 1 }', SamplesTerm, None),
    ('{ kind = "samples", file = "data.csv", columns = ["a", 3], label_column = "c" }', SamplesTerm, None),
    ('{ kind = "image", file = "shape.png", lower = [0, 0], upper = [1, 2] }', ImageTerm, 1),
]
FIELDS: list[tuple[str, type]] = [
    *[(f'{{ kind = "linear", features = "{name}", width = 5 }}', LinearField) for name in ("affine", "translation")],
    *[(f'{{ kind = "linear", features = "{name}" }}', LinearField) for name in ("random", "rbf", "residual")],
    *[(f'{{ kind = "mlp", hidden = [4], activation = "{name}" }}', MlpField) for name in ("tanh", "softplus", "relu")],
    ('{ kind = "mlp", hidden = [1, 2, 3, 4], output_scale = 0, zero_init = false, seed = 5 }', MlpField),
    ('{ kind = "free", layers = 31, label_dependent = true }', FreeField),
    ('{ kind = "python", object = "package.module:make.field" }', PythonField),
    ('{ kind = "linear", features = "translation", layers = 2, theta = [[0, 1]] }', LinearField),
    ('{ kind = "linear", features = "translation", layers = 2, theta = [[0, 1.5], [1e-7, -3]] }', LinearField),
    ('{ kind = "mlp", theta = "start.npz" }', MlpField),
    ('{ kind = "free", theta = "ideal" }', FreeField),
]
TERMINALS: list[tuple[str, type]] = [
    ('{ kind = "quadratic", target = [0, 1], weight = 0 }', QuadraticTerminal),
    ('{ kind = "quadratic", targets = [[0, 1]] }', QuadraticTerminal),
    ('{ kind = "expression", value = "max(x, y) + label" }', ExpressionTerminal),
    ('{ kind = "fixed", target = [{ kind = "gaussian", mean = [0, 0], std = 0.1 }] }', FixedTerminal),
    ('{ kind = "kl", target = [{ kind = "image", file = "shape.png", lower = [0, 0], upper = [1, 1] }] }', KlTerminal),
    *[(f'{{ kind = "l2", target = [{", ".join([term] * 2)}] }}', L2Terminal) for term, *_ in TERMS],
]
CLASSIFIERS: list[tuple[str, type]] = [
    ('{ kind = "logistic", direction = [1], offset = -2 }', LogisticTerminal),
    ('{ kind = "cross_entropy", weights = [[1], [-1]] }', CrossEntropyTerminal),
    ('{ kind = "cross_entropy", weights = [[1], [-1]], bias = [0, 1], trainable = true }', CrossEntropyTerminal),
    ('{ kind = "cross_entropy", trainable = true }', CrossEntropyTerminal),
    ('{ kind = "quadratic", targets = [[0], [1]] }', QuadraticTerminal),
]


def round_trip(config: Config, folder: Path) -> None:
    """Written elsewhere and read again it is the same, down to the last bit."""
    elsewhere = folder / "runs" / "deep"
    elsewhere.mkdir(parents=True)
    (elsewhere / "config.resolved.toml").write_text(config.to_toml(), encoding="utf-8")
    again = read_config(elsewhere / "config.resolved.toml")
    assert again == config
    assert again.to_toml() == config.to_toml()


@pytest.mark.parametrize(("term", "model", "n_labels"), TERMS)
def test_terms(term: str, model: type, n_labels: int | None, folder: Path) -> None:
    config = parse_config(MINIMAL, folder, [f"density.initial=[{term}]"])
    assert type(config.density.initial[0]) is model
    assert config.n_labels == n_labels
    round_trip(config, folder)


@pytest.mark.parametrize(("field", "model"), FIELDS)
def test_fields(field: str, model: type, folder: Path) -> None:
    config = parse_config(MINIMAL, folder, [f"field={field}"])
    assert type(config.field) is model
    round_trip(config, folder)


@pytest.mark.parametrize(
    ("text", "terminal", "model"),
    [(MINIMAL, *row) for row in TERMINALS] + [(TWO_LABELS, *row) for row in CLASSIFIERS],
)
def test_terminals(text: str, terminal: str, model: type, folder: Path) -> None:
    config = parse_config(text, folder, [f"objective.terminal={terminal}"])
    assert type(config.objective.terminal) is model
    round_trip(config, folder)


def test_labels_and_whole_numbers_as_reals() -> None:
    config = parse_config(TWO_LABELS)
    assert config.n_labels == 2
    assert [term.weight for term in config.density.initial] == [1.0, 2.0]
    assert isinstance(config.objective.kinetic, float)
    assert config.domain.box is not None
    assert config.domain.box.lower == (-6.0,)


def test_configurations_are_values() -> None:
    one, two = parse_config(MINIMAL), parse_config(MINIMAL)
    assert one == two
    assert hash(one) == hash(two)
    with pytest.raises(Exception, match="frozen"):
        one.objective.kinetic = 2.0


def test_built_in_python() -> None:
    config = Config(
        domain=Domain(box=Box(lower=[0], upper=[1], cells=[4])),  # lists serve as well as tuples
        density=Density(initial=[GaussianTerm(mean=[0.5], std=0.1)]),
        field=FreeField(),
        objective=Objective(terminal=QuadraticTerminal(target=[0.7])),
    )
    check_dimension(config, 1)
    assert parse_config(config.to_toml()) == config


def test_paths_are_relative_to_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = folder / "configs"
    inner.mkdir()
    text = MINIMAL.replace(
        "std = 0.5", 'std = 0.5\n[[density.initial]]\nkind = "samples"\nfile = "../data.csv"\ncolumns = [0, 1]'
    )
    box = text.index("box"), text.index("\n", text.index("box"))
    text = text[: box[0]] + 'file = "../mesh.msh"' + text[box[1] :]
    (inner / "a.toml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(folder)
    for path in ("configs/a.toml", inner / "a.toml", Path("configs") / ".." / "configs" / "a.toml"):
        config = read_config(path, ["field.theta=../start.npz", "output.directory=runs/a"])
        assert config.domain.file == folder / "mesh.msh"
        assert isinstance(config.density.initial[1], SamplesTerm)
        assert config.density.initial[1].file == folder / "data.csv"
        assert config.field.theta == folder / "start.npz"
        assert config.output.directory == Path("runs/a")
    config = read_config(inner / "a.toml", ['field={kind="python", object="m:f"}'])
    assert isinstance(config.field, PythonField)
    assert config.field.folder == inner
    absolute = read_config(inner / "a.toml", [f"domain.file={folder / 'mesh.msh'}"])
    assert absolute.domain.file == folder / "mesh.msh"


def test_targets_are_density_terms(folder: Path) -> None:
    samples = '{ kind = "samples", file = "data.csv", columns = ["a", "b"], label_column = "c" }'
    config = parse_config(MINIMAL, folder, [f'objective.terminal={{kind="kl",target=[{samples}]}}'])
    assert isinstance(config.objective.terminal, KlTerminal)
    term = config.objective.terminal.target[0]
    assert isinstance(term, SamplesTerm)
    assert term.file == folder / "data.csv"
    assert config.objective.terminal.n_labels is None
    assert config.to_toml().count("[[objective.terminal.target]]") == 1


def test_output_option(folder: Path) -> None:
    (folder / "a.toml").write_text(MINIMAL, encoding="utf-8")
    config = read_config(folder / "a.toml", ["output.directory=b", "output.densities=0"], output="runs/c")
    assert (config.output.directory, config.output.densities) == (Path("runs/c"), 0)
    assert parse_config(MINIMAL, output=Path("d")).output.directory == Path("d")


def test_byte_order_mark_and_windows_lines(folder: Path) -> None:
    (folder / "a.toml").write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert read_config(folder / "a.toml") == parse_config(MINIMAL)


@pytest.mark.parametrize(
    ("override", "keys", "value"),
    [
        ("objective.kinetic=0.1", ("objective", "kinetic"), 0.1),
        ("objective.kinetic = 1", ("objective", "kinetic"), 1.0),
        ("objective.kinetic=1e-3 # a comment", ("objective", "kinetic"), 1e-3),
        ("density.initial.0.std=0.3", ("density", "initial", 0, "std"), 0.3),
        ("density.initial.0.mean.1=-2", ("density", "initial", 0, "mean"), (-0.5, -2.0)),
        ("domain.box.cells=[20,21]", ("domain", "box", "cells"), (20, 21)),
        ("domain.box.cells.0=5", ("domain", "box", "cells"), (5, 8)),
        ("field.activation=relu", ("field", "activation"), "relu"),
        ("field.activation='relu'", ("field", "activation"), "relu"),
        ("field.zero_init=false", ("field", "zero_init"), False),
        ("solver.limiter=false", ("solver", "limiter"), False),
        ("solver.memory=500 MB", ("solver", "memory"), "500 MB"),
        ("solver.disk=20 GiB", ("solver", "disk_bytes"), 20 * 2**30),
        ("solver.disk_directory=/tmp/x", ("solver", "disk_directory"), Path("/tmp/x")),
        ("optimiser.petsc_options=-tao_ls_type armijo", ("optimiser", "petsc_options"), "-tao_ls_type armijo"),
        ("output.directory=runs/a=b", ("output", "directory"), Path("runs/a=b")),
        ('objective.terminal={kind="expression",value="x*y"}', ("objective", "terminal", "value"), "x*y"),
    ],
)
def test_overrides(override: str, keys: tuple[str | int, ...], value: object) -> None:
    found: Any = parse_config(MINIMAL, overrides=[override])
    for key in keys:
        found = found[key] if isinstance(key, int) else getattr(found, key)
    assert found == value
    assert type(found) is type(value) or isinstance(value, Path)


def test_overrides_apply_in_order_and_leave_their_source_alone() -> None:
    source = tomllib.loads(MINIMAL)
    config = parse_config(source, overrides=["field.seed=1", "density.initial.0.std=0.2", "field.seed=2"], output="x")
    assert (config.field.seed, config.density.initial[0].std) == (2, 0.2)  # type: ignore[union-attr]
    assert source == tomllib.loads(MINIMAL)
    formula = parse_config(MINIMAL, overrides=['objective.terminal={kind="expression",value="x"}'])
    assert formula.to_toml().count('value = "x"') == 1
    bare = parse_config(formula.to_toml(), overrides=["objective.terminal.value=x**2 - y"])
    assert bare.objective.terminal == ExpressionTerminal(value="x**2 - y")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4 GiB", 4 * 1024**3),
        ("4GB", 4 * 10**9),
        ("1.5 MiB", 1536 * 1024),
        ("500 kB", 500_000),
        ("2 KiB", 2048),
        ("1 TB", 10**12),
        ("7 B", 7),
        ("1000000", 10**6),
    ],
)
def test_memory(text: str, size: int) -> None:
    assert parse_config(MINIMAL, overrides=[f"solver.memory='{text}'"]).solver.memory_bytes == size


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
LISTS = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
TABLES = st.recursive(
    st.dictionaries(KEYS, LISTS, max_size=3),
    lambda inner: st.dictionaries(
        KEYS, st.one_of(LISTS, inner, st.lists(inner, min_size=1, max_size=2), st.tuples(inner, SCALARS).map(list))
    ),
    max_leaves=6,
)


def _same(one: object, two: object) -> bool:
    """Equality that tells 1, 1.0 and true apart, and -0.0 from 0.0."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return one.keys() == two.keys() and all(_same(one[key], two[key]) for key in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(_same(a, b) for a, b in zip(one, two, strict=True))
    sign = not isinstance(one, float) or not isinstance(two, float) or math.copysign(1, one) == math.copysign(1, two)
    return type(one) is type(two) and one == two and sign


@repeatable
@given(TABLES)
def test_written_toml_reads_back(data: dict[str, Any]) -> None:
    assert _same(tomllib.loads(dump_toml(data)), data)


def test_toml_has_no_null() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        dump_toml({"a": None})
    assert math.isnan(tomllib.loads(dump_toml({"a": math.nan}))["a"])


REALS = st.floats(-1e6, 1e6)
WEIGHTS = st.floats(0, 1e6)


@repeatable
@given(
    mean=st.tuples(REALS, REALS),
    std=st.floats(1e-60, 1e60),
    horizon=st.floats(0, 1e9, exclude_min=True),
    weights=st.tuples(WEIGHTS, WEIGHTS, WEIGHTS, WEIGHTS),
    theta=st.lists(REALS, min_size=1, max_size=8),
    name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8),
)
def test_every_number_and_name_survives(
    mean: tuple[float, ...], std: float, horizon: float, weights: tuple[float, ...], theta: list[float], name: str
) -> None:
    data = tomllib.loads(MINIMAL)
    data["density"]["initial"][0] |= {"mean": list(mean), "std": std}
    data["field"] |= {"horizon": horizon, "theta": [theta]}
    data["objective"] |= dict(zip(("kinetic", "jacobian", "parameters", "parameters_h1"), weights, strict=True))
    data["output"] = {"directory": name}
    config = parse_config(data)
    assert config.density.initial[0].mean == mean  # type: ignore[union-attr]
    assert config.field.theta == (tuple(theta),)
    assert parse_config(config.to_toml()) == config


def test_knows_neither_meshes_nor_mpi() -> None:
    code = (
        "import sys, eulerian.app.config, eulerian.base.formula, eulerian.app.templates\n"
        "print([m for m in ('mpi4py', 'petsc4py', 'dolfinx', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
