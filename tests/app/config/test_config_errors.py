"""Configurations that are wrong: each is refused with an InputError that names the key, the value and a remedy."""

import os
import tomllib
from pathlib import Path

import pytest
from configurations import BASE

from eulerian.app.config import parse_config, read_config
from eulerian.base.errors import InputError

pytestmark = pytest.mark.one_process


def refusal(*overrides: str, text: str = BASE, base: str | Path = ".") -> InputError:
    with pytest.raises(InputError) as caught:
        parse_config(text, base, overrides)
    return caught.value


GAUSSIAN = "kind = 'gaussian', mean = [0.0], std = 1"
FLAT = GAUSSIAN.replace("[0.0]", "[0.0, 0.0]")

# Each override alone makes BASE wrong: the key that the error must carry, and words that its message must contain.
WRONG = [
    # domain
    ("domain.box.cells=[0, 48]", "domain.box.cells.0", "at least 1"),
    ("domain.box.cells=[48.5, 48]", "domain.box.cells.0", "whole number"),
    ("domain.box.cells=[48]", "domain.box.cells", "1 entries for 2 axes"),
    ("domain.box.cells=[20000, 20000]", "domain.box.cells", "8e+08 simplices"),
    ("domain.box.cells=[2000000000, 2000000000]", "domain.box.cells", "fewer"),
    ("domain.refine=8", "domain.box.cells", "simplices"),
    ("domain.refine=-1", "domain.refine", "0 to 10"),
    ("domain.box.upper=[3.0, -3.0]", "domain.box.upper", "greater than lower (-3.0) on axis 1"),
    ("domain.box.upper=[3.0]", "domain.box.upper", "lower has 2"),
    ("domain.box.upper=[3.0, inf]", "domain.box.upper.1", "finite"),
    ("domain.box={ lower = [-1e30, 0], upper = [1e61, 1], cells = [3, 3] }", "domain.box.upper.0", "beyond 1e+60"),
    ("domain.box.lower=[]", "domain.box.lower", "1 or more"),
    ("domain.box.lower=[0, 0, 0, 0]", "domain.box.lower", "3 or fewer"),
    ("domain.box.lower=0", "domain.box.lower", "list"),
    ("domain.box=48", "domain.box", "table"),
    ("domain.file=x.msh", "domain", "exactly one of `box` and `file`"),
    ("domain={}", "domain", "neither"),
    ("domain={ file = 'nowhere.msh' }", "domain.file", "nowhere.msh"),
    ("domain={ file = '' }", "domain.file", "empty"),
    ("domain={ file = 3 }", "domain.file", "path"),
    ('domain={ file = "a\\u0000b" }', "domain.file", "zero byte"),
    (f"domain={{ file = '{'x' * 3000}' }}", "domain.file", "cannot be looked at"),
    ("domain={ file = '.' }", "domain.file", "folder"),
    ("domain={ box = { lower = [0], upper = [1] } }", "domain.box.cells", "missing"),
    # density
    ("density.degree=3", "density.degree", "0, 1 or 2"),
    ("density.degree=true", "density.degree", "whole number"),
    ("density.initial=[]", "density.initial", "1 or more"),
    ("density.initial.0=3", "density.initial.0", "table"),
    ("density.initial.0.kind=gausian", "density.initial.0.kind", "Did you mean 'gaussian'?"),
    ("density.initial=[{ mean = [0.0, 0.0] }]", "density.initial.0.kind", "'image'"),
    ("density.initial.0.mean=[nan, 0]", "density.initial.0.mean.0", "finite"),
    ("density.initial.0.mean=[0]", "density.initial.0.mean", "dimension 2"),
    ("density.initial.0.mean=0.5", "density.initial.0.mean", "list"),
    ("density.initial.0.std=0", "density.initial.0.std", "greater than 0"),
    ("density.initial.0.std=1e-61", "density.initial.0.std", "less than 1e-60"),
    ("density.initial.0.std='0.5'", "density.initial.0.std", "number"),
    ("density.initial.0.covariance=[[1, 0], [0, 1]]", "density.initial.0", "both are given"),
    ("density.initial=[{ kind = 'gaussian', mean = [0, 0] }]", "density.initial.0", "neither is given"),
    ("density.initial.0.weight=0", "density.initial.0.weight", "greater than 0"),
    ("density.initial.0.label=-1", "density.initial.0.label", "0..K-1"),
    ("density.initial.0.label=1", "density.initial", "without gaps"),
    ("density.initial.0.label=2000000000", "density.initial", "without gaps"),
    # field
    ("field=free", "field", "table"),
    ("field.kind=mpl", "field.kind", "Did you mean 'mlp'?"),
    ("field={}", "field.kind", "'python'"),
    ("field.layers=0", "field.layers", "1"),
    ("field.layers=8.0", "field.layers", "whole number"),
    ("field.layers=99999999999999999999999", "field.layers", "100000"),
    ("field.horizon=0.0", "field.horizon", "greater than 0"),
    ("field.horizon=inf", "field.horizon", "finite"),
    ("field.hidden=[]", "field.hidden", "1 or more"),
    ("field.hidden=[16, 0]", "field.hidden.1", "1"),
    ("field.hidden=16", "field.hidden", "list"),
    ("field.activation=gelu", "field.activation", "'tanh', 'softplus' or 'relu'"),
    ("field.activation=softpuls", "field.activation", "Did you mean 'softplus'?"),
    ("field.seed=-1", "field.seed", ">= 0"),
    ("field.zero_init=1", "field.zero_init", "true or false"),
    ("field.label_dependent=yes", "field.label_dependent", "true or false"),
    ("field.theta=[1.0, 2.0]", "field.theta", "list of rows"),
    ("field.theta=[]", "field.theta", "list of rows"),
    ("field.theta=[[]]", "field.theta.0", "1 or more"),
    ("field.theta=[[1, 2], [3]]", "field.theta", "different lengths: 2, 1"),
    ("field.theta=[[1, nan]]", "field.theta", "finite"),
    ("field.theta=[[1, true]]", "field.theta", "finite"),
    ("field.theta=[[1], [2]]", "field.theta", "2 rows for 8 layers"),
    ("field.theta=start.npz", "field.theta", "start.npz"),
    ("field.theta=start.npy", "field.theta", ".npz"),
    ("field={ kind = 'linear' }", "field.features", "missing"),
    ("field={ kind = 'linear', features = 'afine' }", "field.features", "Did you mean 'affine'?"),
    ("field={ kind = 'linear', features = 'rbf', width = 0 }", "field.width", "at least 1"),
    ("field={ kind = 'python' }", "field.object", "package.module:name"),
    ("field={ kind = 'python', object = 'module.name' }", "field.object", "malformed"),
    ("field={ kind = 'python', object = 'm:f()' }", "field.object", "malformed"),
    ("field={ kind = 'python', object = 'm:f', folder = 'nowhere' }", "field.folder", "nowhere"),
    ("field.max_speed=0", "field.max_speed", "greater than 0"),
    ("field.max_speed=inf", "field.max_speed", "finite"),
    ("field={ kind = 'linear', features = 'affine', max_speed = 1.0 }", "field.max_speed", "linear in θ"),
    ("field={ kind = 'free', max_speed = 1.0 }", "field.max_speed", "optimiser.bounds"),
    ("field={ kind = 'python', object = 'm:f', max_speed = 1.0 }", "field.max_speed", "SpeedLimit(field, V)"),
    # bounds
    ("optimiser.bounds=1.0", "optimiser.bounds", "[-1.0, 1.0]"),
    ("optimiser.bounds=[1.0]", "optimiser.bounds.1", "[-1.0, 1.0]"),
    ("optimiser.bounds=[1.0, 1.0]", "optimiser.bounds", "not below"),
    ("optimiser.bounds=[nan, 1.0]", "optimiser.bounds", "not below"),
    ("optimiser.bounds=[inf, inf]", "optimiser.bounds", "not below"),
    ("optimiser={ bounds = [-1, 1], method = 'lmvm' }", "optimiser.method", "bqnls, blmvm, bqnktr, bqnktl, bncg"),
    ("optimiser={ bounds = [-1, 1], method = 'cg' }", "optimiser.method", "keeps to no bounds"),
    # objective
    ("objective=3", "objective", "table"),
    ("objective.kinetic=-1.0", "objective.kinetic", "-1.0"),
    ("objective.jacobian=-1e-9", "objective.jacobian", "-1e-09"),
    ("objective.parameters=nan", "objective.parameters", "finite"),
    ("objective.parameters_h1=inf", "objective.parameters_h1", "finite"),
    ("objective.kinetic='a lot'", "objective.kinetic", "'a lot'"),
    ("objective.kinetic=1979-05-27", "objective.kinetic", "number"),
    ("objective.terminal.kind=logistics", "objective.terminal.kind", "Did you mean 'logistic'?"),
    ("objective.terminal={}", "objective.terminal.kind", "'cross_entropy'"),
    ("objective.terminal.weight=-1", "objective.terminal.weight", "0"),
    ("objective.terminal.target=[1.0, 2.0, 3.0]", "objective.terminal.target", "dimension 2"),
    ("objective.terminal.targets=[[1.0, 2.0]]", "objective.terminal", "both are given"),
    ("objective.terminal={ kind = 'quadratic' }", "objective.terminal", "neither is given"),
    ("objective.terminal={ kind = 'quadratic', targets = [[0, 0], [1, 1]] }", "objective.terminal.targets", "1 label"),
    ("objective.terminal={ kind = 'quadratic', targets = [[0]] }", "objective.terminal.targets", "1 column,"),
    ("objective.terminal={ kind = 'quadratic', targets = [[0, 0], [0]] }", "objective.terminal.targets", "lengths"),
    ("objective.terminal={ kind = 'expression', value = 'x + foo' }", "objective.terminal.value", "'foo' at column 5"),
    ("objective.terminal={ kind = 'expression', value = 'x + z' }", "objective.terminal.value", "'z'"),
    ("objective.terminal={ kind = 'expression', value = '' }", "objective.terminal.value", "empty"),
    ("objective.terminal={ kind = 'expression', value = 1 }", "objective.terminal.value", "text in quotes"),
    ("objective.terminal={ kind = 'logistic', direction = [1, 0] }", "objective.terminal.kind", "1 label"),
    ("objective.terminal={ kind = 'cross_entropy' }", "objective.terminal.weights", "trainable = true"),
    ("objective.terminal={ kind = 'cross_entropy', trainable = true }", "objective.terminal.kind", "two labels"),
    (
        f"objective.terminal={{ kind = 'fixed', target = [{{ {GAUSSIAN} }}] }}",
        "objective.terminal.target.0.mean",
        "dim",
    ),
    ("objective.terminal={ kind = 'fixed' }", "objective.terminal.target", "missing"),
    ("objective.terminal={ kind = 'kl', target = [] }", "objective.terminal.target", "at least one density term"),
    ("objective.terminal={ kind = 'kl', target = [1.0] }", "objective.terminal.target.0", "table"),
    (
        "objective.terminal={ kind = 'l2', target = [{ kind = 'point' }] }",
        "objective.terminal.target.0.kind",
        "'image'",
    ),
    (
        f"objective.terminal={{ kind = 'kl', target = [{{ {GAUSSIAN}, x = 1 }}] }}",
        "objective.terminal.target.0.x",
        "std",
    ),
    (f"objective.terminal={{ kind = 'kl', target = [{{ {FLAT}, label = 2 }}] }}", "objective.terminal.target", "gaps"),
    (
        f"objective.terminal={{ kind = 'kl', target = [{{ {FLAT} }}, {{ {FLAT}, label = 1 }}] }}",
        "objective.terminal.target",
        "has 2 labels, but in density.initial there is 1 label",
    ),
    (
        "objective.terminal={ kind='l2', target=[{ kind='image', file = 'no.png', lower = [0, 0], upper = [1, 1]}]}",
        "objective.terminal.target.0.file",
        "no.png",
    ),
    (
        "objective.terminal={ kind = 'l2', target = [{ kind = 'expression', value = 'x + z' }] }",
        "objective.terminal.target.0.value",
        "'z'",
    ),
    # ideal
    ("ideal.layers=0", "ideal.layers", ">= 1"),
    ("ideal.gap_tolerance=0", "ideal.gap_tolerance", "> 0"),
    ("ideal.residual_tolerance=-1e-3", "ideal.residual_tolerance", "> 0"),
    ("ideal.max_iterations=1.5", "ideal.max_iterations", "whole number"),
    ("ideal.certificate=hopflax", "ideal.certificate", "Did you mean 'hopf_lax'?"),
    ("field.theta=ideal", "field.theta", 'field.kind = "free"'),
    ("field={ kind = 'free', theta = 'idea' }", "field.theta", '"ideal"'),
    # optimiser, solver, output
    ("optimiser.method=newton", "optimiser.method", "'lmvm'"),
    ("optimiser.method=lmwm", "optimiser.method", "Did you mean 'lmvm'?"),
    ("optimiser.petsc_options=tao_monitor", "optimiser.petsc_options", "malformed"),
    ("optimiser.petsc_options=-tao_type python", "optimiser.petsc_options", "not allowed"),
    ("optimiser.petsc_options=-options_file x", "optimiser.petsc_options", "not allowed"),
    ("optimiser.petsc_options='-tao_view ascii:$(x).gz'", "optimiser.petsc_options", "not allowed"),
    ("optimiser.max_iterations=-1", "optimiser.max_iterations", ">= 0"),
    ("optimiser.gradient_tolerance=-1", "optimiser.gradient_tolerance", ">= 0"),
    ("solver.cfl=0", "solver.cfl", "greater than 0"),
    ("solver.cfl=1.5", "solver.cfl", "less than or equal to 1"),
    ("solver.max_steps_per_layer=0", "solver.max_steps_per_layer", ">= 1"),
    ("solver.limiter=no", "solver.limiter", "true or false"),
    ("solver.memory=4 gigs", "solver.memory", "4 GiB"),
    ("solver.memory=-4 GiB", "solver.memory", "amount"),
    ("solver.memory=0 B", "solver.memory", "at least one byte"),
    ("solver.memory=99999999999 TiB", "solver.memory", "8 EiB"),
    ("solver.memory=4", "solver.memory", "text in quotes"),
    ("solver.disk=a lot", "solver.disk", "amount"),
    ("solver.disk_directory=''", "solver.disk_directory", "empty"),
    ("solver.flux_smoothing=0", "solver.flux_smoothing", "greater than 0"),
    ("output.directory=''", "output.directory", "empty"),
    ("output.densities=-1", "output.densities", ">= 0"),
    ("output.checkpoint_every=1.5", "output.checkpoint_every", "whole number"),
    # unknown keys
    ("objective.kinetik=1.0", "objective.kinetik", "Did you mean objective.kinetic?"),
    ("objectiv.kinetic=1.0", "objectiv", "Did you mean objective?"),
    ("domain.box.cell=[1, 2]", "domain.box.cell", "Did you mean domain.box.cells?"),
    ("density.initial.0.sdt=1.0", "density.initial.0.sdt", "Did you mean density.initial.0.std?"),
    ("objective.terminal.wieght=1.0", "objective.terminal.wieght", "Did you mean objective.terminal.weight?"),
    ("objective.layers=3", "objective.layers", "It belongs to field or ideal."),
    ("field.features=affine", "field.features", "It belongs to field with kind 'linear'"),
    ("density.initial.0.lower=[0, 0]", "density.initial.0.lower", "kind 'uniform' or 'image'"),
    ("frobnicate=1", "frobnicate", "Known keys: domain, density"),
    ("optimiser.frobnicate=1", "optimiser.frobnicate", "Known keys of optimiser: method"),
]


@pytest.mark.parametrize(("override", "key", "words"), WRONG)
def test_names_key_and_remedy(override: str, key: str, words: str, tmp_path: Path) -> None:
    error = refusal(override, base=tmp_path)
    assert error.key == key
    assert words in str(error)
    assert str(error).startswith(f"{key}: ")
    assert error.remedy
    assert "also" not in str(error), "one mistake is told once"


def test_base_is_right() -> None:
    assert parse_config(BASE).n_labels == 1


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        ("[[1, 0], [0]]", "different lengths"),
        ("[[1]]", "1×1"),
        ("[[1, 0, 0], [0, 1, 0], [0, 0, 1]]", "3×3"),
        ("[[1, 0.5], [0.4, 1]]", "not symmetric"),
        ("[[1, 2], [2, 1]]", "not positive definite"),
        ("[[1, 1], [1, 1]]", "not positive definite"),
        ("[[0, 0], [0, 0]]", "not positive definite"),
        ("[[-1, 0], [0, 1]]", "not positive definite"),
    ],
)
def test_covariance(matrix: str, words: str) -> None:
    error = refusal(f"density.initial=[{{ kind = 'gaussian', mean = [0, 0], covariance = {matrix} }}]")
    assert error.key == "density.initial.0.covariance"
    assert words in str(error)


@pytest.mark.parametrize(
    ("term", "key", "words"),
    [
        ("file = 'nowhere.csv', columns = ['a', 'b']", "file", "nowhere.csv"),
        ("columns = ['a', 'b']", "file", "missing"),
        ("file = 'data.csv'", "columns", "missing"),
        ("file = 'data.csv', columns = []", "columns", "1 or more"),
        ("file = 'data.csv', columns = ['a', 'a']", "columns", "twice"),
        ("file = 'data.csv', columns = ['a', 1.5]", "columns.1", "column"),
        ("file = 'data.csv', columns = ['a', -1]", "columns.1", "column"),
        ("file = 'data.csv', columns = ['a', true]", "columns.1", "column"),
        ("file = 'data.csv', columns = ['a']", "columns", "dimension 2"),
        ("file = 'data.csv', columns = ['a', 'b'], bandwidth = 0", "bandwidth", "scott"),
        ("file = 'data.csv', columns = ['a', 'b'], bandwidth = inf", "bandwidth", "scott"),
        ("file = 'data.csv', columns = ['a', 'b'], bandwidth = 'scot'", "bandwidth", "scott"),
        ("file = 'data.csv', columns = ['a', 'b'], label_column = 'b'", "label_column", "coordinate"),
        ("file = 'data.csv', columns = ['a', 'b'], label_column = 'c', label = 1", "label", "label_column"),
    ],
)
def test_samples(term: str, key: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "data.csv").touch()
    error = refusal(f"density.initial=[{{ kind = 'samples', {term} }}]", base=tmp_path)
    assert error.key == f"density.initial.0.{key}"
    assert words in str(error)


def test_uniform_and_image() -> None:
    error = refusal("density.initial=[{ kind = 'uniform', lower = [0, 0], upper = [1, 0] }]")
    assert error.key == "density.initial.0.upper"
    error = refusal("density.initial=[{ kind = 'image', file = 'x.png', lower = [0], upper = [1] }]")
    assert error.key == "density.initial.0.lower"


def test_labels_of_several_terms() -> None:
    term = "{{ kind = 'gaussian', mean = [0, 0], std = 1, label = {} }}"
    error = refusal(f"density.initial=[{term.format(0)}, {term.format(3)}, {term.format(1)}]")
    assert error.key == "density.initial"
    assert "0, 1, 3" in str(error)


@pytest.mark.parametrize(
    ("terminal", "key"),
    [
        ("kind = 'cross_entropy', weights = [[1, 0], [0, 1], [1, 1]]", "weights"),
        ("kind = 'cross_entropy', weights = [[1], [0]]", "weights"),
        ("kind = 'cross_entropy', weights = [[1, 0], [0, 1]], bias = [0]", "bias"),
        ("kind = 'cross_entropy', trainable = true, bias = [0, 0, 0]", "bias"),
        ("kind = 'quadratic', targets = [[0, 0], [0, 0], [1, 1]]", "targets"),
        ("kind = 'logistic', direction = [1, 0, 0]", "direction"),
    ],
)
def test_terminal_of_two_labels(terminal: str, key: str) -> None:
    two = "density.initial=[{kind='gaussian',mean=[0,0],std=1},{kind='gaussian',mean=[0,0],std=1,label=1}]"
    assert refusal(two, f"objective.terminal={{ {terminal} }}").key == f"objective.terminal.{key}"


@pytest.mark.parametrize("section", ["domain", "density", "field", "objective"])
def test_missing_sections(section: str) -> None:
    data = tomllib.loads(BASE)
    del data[section]
    with pytest.raises(InputError, match=f"{section}: is missing") as caught:
        parse_config(data)
    assert caught.value.key == section
    assert f"[{section}]" in str(caught.value)


def test_several_mistakes_are_told_together() -> None:
    error = refusal("field.layres=3", "solver.cfl=7", "objective.kinetic=-1")
    assert error.key == "field.layres"  # unknown keys first: they explain what is missing
    assert "also objective.kinetic: " in str(error)
    assert "also solver.cfl: " in str(error)
    many = refusal("objective.terminal={kind='quadratic',targets=[" + ",".join(["[nan, nan]"] * 20) + "]}")
    assert "and 29 more" in str(many)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("", "--set"),
        ("objective.kinetic", "--set"),
        ("=1", "--set"),
        ("a..b=1", "--set"),
        (".".join(["a"] * 100) + "=1", "--set"),
        ("objective.kinetic=", "objective.kinetic"),
        ("objective.terminal.target=[1.0,", "objective.terminal.target"),
        ("field.kind='mlp", "field.kind"),
        ("objective.terminal={", "objective.terminal"),
        ("field.theta=" + "[" * 5000, "field.theta"),
        ("density.initial.1.std=1", "density.initial.1"),
        ("density.initial.-1.std=1", "density.initial.-1"),
        ("density.initial.std=1", "density.initial.std"),
        ("density.initial.²=1", "density.initial.²"),
        ("output.directory=a\udcff", "--set"),
        ("field.seed.a.b=1", "field.seed"),
        ("field.layers.a=1", "field.layers.a"),
    ],
)
def test_overrides(override: str, key: str) -> None:
    error = refusal(override)
    assert error.key == key
    assert error.remedy


def test_value_with_a_line_break_cannot_add_keys() -> None:
    assert refusal("objective.kinetic=1\nobjective = 2").key == "objective.kinetic"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[domain\n", "line 1"),
        ("a = 1\na = 2\n", "line 2"),
        ("a = 1\nb = = 2\n", "b = = 2"),
        ("a = " + "9" * 10_000, "TOML syntax"),
        ("a = " + "[" * 100_000, "nested too deeply"),
    ],
)
def test_syntax(text: str, words: str) -> None:
    with pytest.raises(InputError, match="configuration") as caught:
        parse_config(text)
    assert words in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "huge.toml").touch()
    os.truncate(tmp_path / "huge.toml", 65 * 1024**2)
    (tmp_path / "syntax.toml").write_text("[domain]\nbox = {\n", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe.toml")
    for name, words in {
        "missing.toml": "no such",
        "binary.toml": "UTF-8",
        "huge.toml": "too large",
        "syntax.toml": "TOML syntax",
        "pipe.toml": "no such configuration file",
        ".": "folder",
        "x" * 3000: "cannot be read",
        "a\0b": "",
    }.items():
        with pytest.raises(InputError) as caught:
            read_config(tmp_path / name)
        assert words in str(caught.value)
        assert Path(name).name in str(caught.value.key) or name == "."
