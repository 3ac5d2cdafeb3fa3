"""Fields of the user's own: every way to name one, and every way to get it wrong."""

import sys
import textwrap

import numpy as np
import pytest

from eulerian.base.errors import InputError
from eulerian.fields import Affine, load_field

pytestmark = pytest.mark.one_process

SHEAR = """
    import numpy as np

    class Shear:
        '''v = θ (y, 0): no label argument, no Jacobian.'''

        def n_params(self, dim):
            return 1

        def init(self, rng):
            return np.full(1, {start})

        def value(self, theta, x):
            return theta[0] * np.stack([x[:, 1], 0 * x[:, 0]], axis=1)

        def vjp(self, theta, x, w):
            return np.array([np.sum(w[:, 0] * x[:, 1])])

    instance = Shear()

    class Named:
        instance = instance

    def of_nothing():
        return Shear()

    def of_something(d, extra=3):
        assert d == 2
        return Shear()

    def of_both(n_labels, dim):
        assert (dim, n_labels) == (2, 0)
        return Shear()
"""


@pytest.fixture
def user_module(tmp_path):
    """Write modules of the user's; they are forgotten afterwards."""
    before, path = set(sys.modules), list(sys.path)

    def write(text, name="users_field", folder="one"):
        place = tmp_path / folder
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.py").write_text(textwrap.dedent(text))
        return place

    yield write
    assert sys.path == path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("attribute", ["instance", "Shear", "of_nothing", "of_something", "of_both", "Named.instance"])
def test_instances_classes_and_functions(user_module, attribute):
    field = load_field(f"users_field:{attribute}", user_module(SHEAR.format(start=0.5)), dim=2)
    theta = field.init(np.random.default_rng(0))
    np.testing.assert_array_equal(field.value(theta, np.array([[1.0, 4.0]])), [[2.0, 0.0]])


def test_installed_modules_packages_and_neighbours(user_module):
    assert load_field("eulerian.fields:Affine", dim=3, n_labels=2) == Affine(3, n_labels=2)
    assert load_field("eulerian.fields.features:Affine", dim=3) == Affine(3)
    user_module("", "package/__init__")
    user_module(SHEAR.format(start=1.0), "neighbour")
    folder = user_module("from neighbour import Shear", "package/module")
    assert load_field("package.module:Shear", folder, dim=2).n_params(2) == 1


def test_two_folders_may_use_the_same_name(user_module):
    first = load_field("users_field:instance", user_module(SHEAR.format(start=1.0)), dim=2)
    second = load_field("users_field:instance", user_module(SHEAR.format(start=2.0), folder="two"), dim=2)
    assert (first.init(None), second.init(None)) == (1.0, 2.0)


def test_a_name_that_is_taken(user_module):
    import colorsys  # noqa: F401 - a module of Python's own, loaded

    with pytest.raises(InputError, match=r"field.object: 'colorsys' is also the name of an installed module"):
        load_field("colorsys:instance", user_module(SHEAR.format(start=1.0), "colorsys"), dim=2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("users_field", 'no import path.*"package.module:name"'),
        (":instance", "no import path"),
        ("no_such_module:field", r"no module named 'no_such_module'.*no_such_module.py into the folder"),
        ("users_field.deeper:field", "users_field"),
        ("users_field:insta", r"there is no 'insta' in users_field; .*It has: .*instance"),
        ("users_field:Named.shear", "there is no 'shear'"),
        ("users_field:np", "module is no VectorField: it has no n_params, init, value, vjp"),
    ],
)
def test_names_that_lead_nowhere(user_module, name, message):
    with pytest.raises(InputError, match=message) as error:
        load_field(name, user_module(SHEAR.format(start=1.0)), dim=2)
    assert error.value.key == "field.object"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", r"importing 'users_field' raised ZeroDivisionError: division by zero \(.*users_field.py:1\)"),
        ("def f(:", "importing 'users_field' raised SyntaxError"),
        ("import sys; sys.exit(1)", "importing 'users_field' raised SystemExit"),
        (
            "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')",
            r"No module named 'torch'.*Install it: pip install \"eulerian\[torch\]\"",
        ),
        ("import no_such_dependency", "raised ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("def field(a, b): return 1", "without arguments or with the dimension alone"),
        ("def field(dim, other): return 1", "without arguments or with the dimension alone"),
        ("def field(): raise ValueError('no way')", "making the field raised ValueError: no way"),
        ("def field(): return None", "NoneType is no VectorField"),
    ],
)
def test_modules_that_fail(user_module, text, message):
    with pytest.raises(InputError, match=message) as error:
        load_field("users_field:field", user_module(text), dim=2)
    assert error.value.key == "field.object"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("vjp = None", "Broken is no VectorField: it has no vjp"),
        ("n_params = lambda self, dim: 0", r"n_params\(2\) must be a whole number of at least 1, it is 0"),
        ("n_params = lambda self, dim: 1.0", "whole number of at least 1, it is 1.0"),
        ("n_params = lambda self, dim: True", "whole number of at least 1, it is True"),
        ("n_params = lambda self: 1", "n_params raised TypeError"),
        (
            "init = lambda self, rng: np.zeros(3)",
            r"init must return an array of shape \(1,\), it returned shape \(3,\)",
        ),
        ("init = lambda self, rng: np.array([np.nan])", "init returned values that are not finite"),
        ("init = lambda self, rng: 'zero'", "init must return an array of real numbers, it returned str"),
        ("value = lambda self, theta, x: x[:, :1]", r"value must return an array of shape \(2, 2\)"),
        ("value = lambda self, theta, x: x[0] + theta", r"value must return an array of shape \(2, 2\)"),
        ("value = lambda self, theta, x: [x]", r"it returned shape \(1, 2, 2\)"),
        ("value = lambda self, theta, x: x * np.nan", "value returned numbers that are not finite"),
        ("value = lambda self, theta, x: x - x.mean(axis=0)", "depend on that point only"),
        ("value = lambda self, theta, x: theta[5]", "value raised IndexError"),
        ("vjp = lambda self, theta, x, w: w", r"vjp must return an array of shape \(1,\)"),
    ],
)
def test_fields_that_break_the_protocol(user_module, change, message):
    text = textwrap.dedent(SHEAR.format(start=1.0)) + f"\nclass Broken(Shear):\n    {change}\n"
    with pytest.raises(InputError, match=message) as error:
        load_field("users_field:Broken", user_module(text), dim=2)
    assert error.value.key == "field.object"


def test_labels_are_asked_for_where_they_are_needed(user_module):
    folder = user_module(SHEAR.format(start=1.0))
    with pytest.raises(InputError, match=r"value raised TypeError.*label"):
        load_field("users_field:instance", folder, dim=2, n_labels=2)
    labelled = textwrap.dedent("""
        import eulerian.fields
        field = eulerian.fields.Affine(2, n_labels=2)
    """)
    assert load_field("too_few:field", user_module(labelled, "too_few"), dim=2, n_labels=2).n_labels == 2
    with pytest.raises(InputError, match="label from 0 to 1"):
        load_field("too_few:field", folder, dim=2, n_labels=3)


def test_a_field_that_wants_the_time_is_tried_with_it(user_module):
    text = textwrap.dedent(SHEAR.format(start=1.0)) + textwrap.dedent("""
        class Timed(Shear):
            time_dependent = True

            def value(self, theta, x, *, time):
                return (1.0 + time) * super().value(theta, x)
    """)
    with pytest.raises(InputError, match=r"vjp raised TypeError.*time"):
        load_field("users_field:Timed", user_module(text), dim=2)
    text += "\n    def vjp(self, theta, x, w, *, time):\n        return (1.0 + time) * super().vjp(theta, x, w)\n"
    folder = user_module(text, "users_other_field")
    assert load_field("users_other_field:Timed", folder, dim=2).time_dependent


FOREIGN = {
    "equinox": ("import equinox as eqx, jax", "eqx.nn.Linear(2, 2, key=jax.random.key(0))", "equinox_field(model)"),
    "flax linen": ("from flax import linen", "linen.Dense(2)", "flax_field(model, model.init(key, x))"),
    "flax nnx": ("from flax import nnx", "nnx.Linear(2, 2, rngs=nnx.Rngs(0))", "flax_field(model)"),
    "torch": ("import torch", "torch.nn.Linear(2, 2)", "torch_field(model)"),
}


@pytest.mark.parametrize("library", FOREIGN)
def test_a_bare_model_is_told_how_it_is_wrapped(tmp_path, library):
    """An instance, its class, and a function that makes one."""
    imports, made, wrapped = FOREIGN[library]
    pytest.importorskip(library.split()[0])
    name = f"bare_{library.replace(' ', '_')}"
    source = f"{imports}\nmodel = {made}\nKind = type(model)\n\ndef make():\n    return model\n"
    (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    function = wrapped.partition("(")[0]
    for attribute, call in (("model", wrapped), ("make", f"{function}(make()"), ("Kind", f"{function}(")):
        with pytest.raises(InputError, match="module, not a field") as caught:
            load_field(f"{name}:{attribute}", tmp_path, dim=2)
        assert f"import {function}; field = {call}" in str(caught.value)


@pytest.mark.parametrize("source", ["field = object()", "class field:\n    pass", "def field(a, b, c, d):\n    pass"])
def test_what_is_no_field_at_all_is_told_of_the_wrappers(tmp_path, source):
    name = f"nothing_{len(source)}"
    (tmp_path / f"{name}.py").write_text(source + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"equinox_field, flax_field or jax_field .* torch_field"):
        load_field(f"{name}:field", tmp_path, dim=2)
