"""Fields of JAX models: laws, agreement with the built-in network, precision, export, and what is refused."""

import os
import subprocess
import sys

import numpy as np
import pytest

jax = pytest.importorskip("jax")
eqx = pytest.importorskip("equinox")
pytest.importorskip("flax")

from flax import linen, nnx  # noqa: E402
from framework_laws import (  # noqa: E402
    LABELS,
    Sample,
    check_derivatives,
    check_label_and_time,
    check_pieces,
    check_shapes,
)
from jax import numpy as jnp  # noqa: E402

from eulerian.base.errors import InputError  # noqa: E402
from eulerian.fields import Mlp, SpeedLimit, load_field  # noqa: E402
from eulerian.fields.framework import PIECE  # noqa: E402
from eulerian.fields.jax import SMALLEST, equinox_field, flax_field, jax_field, padded  # noqa: E402

# Fields know nothing of other ranks: what depends on them is in tests/test_foreign_models.py.
pytestmark = pytest.mark.one_process
KEY = jax.random.key(0)


def equinox_mlp(inputs=2, outputs=2, **keywords):
    return eqx.nn.MLP(inputs, outputs, 6, 2, activation=jnp.tanh, key=KEY, **keywords)


class LinenMlp(linen.Module):
    dim: int = 2

    @linen.compact
    def __call__(self, x):
        scale = self.variable("fixed", "scale", lambda: jnp.full((), 0.5))
        return scale.value * linen.Dense(self.dim)(linen.tanh(linen.Dense(7)(x)))


class NnxMlp(nnx.Module):
    def __init__(self, inputs, dim, rngs):
        self.first, self.last = nnx.Linear(inputs, 7, rngs=rngs), nnx.Linear(7, dim, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.tanh(self.first(x))))


def attention(params, x, *, label, time):
    """A model that is no network of layers: bumps whose centres move with the time, weighed by label."""
    offsets = x - params["centres"] - time * params["drift"]
    bumps = jnp.exp(-jnp.sum(offsets**2, axis=1))
    return params["by label"][label] * (bumps @ params["velocities"]) + jnp.sin(params["phase"])


BUMPS = {
    "centres": np.random.default_rng(1).standard_normal((4, 2)),
    "drift": np.ones(2),
    "velocities": np.random.default_rng(2).standard_normal((4, 2)),
    "by label": np.arange(1.0, 1.0 + LABELS),
    "phase": np.float64(0.3),
}
DOUBLE = {"dtype": "float64"}
MAKERS = {
    "equinox": lambda: equinox_field(equinox_mlp(), **DOUBLE),
    "equinox, label and time": lambda: equinox_field(
        equinox_mlp(3 + LABELS), n_labels=LABELS, time_dependent=True, **DOUBLE
    ),
    "equinox with dropout": lambda: equinox_field(
        eqx.nn.Sequential([eqx.nn.Linear(2, 5, key=KEY), eqx.nn.Dropout(0.5), eqx.nn.Linear(5, 2, key=KEY)]), **DOUBLE
    ),
    "linen": lambda: flax_field(LinenMlp(), LinenMlp().init(KEY, jnp.ones(2)), **DOUBLE),
    "linen, label, one by one": lambda: flax_field(
        LinenMlp(), LinenMlp().init(KEY, jnp.ones(2 + LABELS)), n_labels=LABELS, batched=False, **DOUBLE
    ),
    "nnx": lambda: flax_field(NnxMlp(2, 2, nnx.Rngs(0)), **DOUBLE),
    "nnx, time": lambda: flax_field(NnxMlp(3, 2, nnx.Rngs(0)), time_dependent=True, **DOUBLE),
    "bumps": lambda: jax_field(attention, BUMPS, n_labels=LABELS, time_dependent=True, inputs="separate"),
    "a function of all points": lambda: jax_field(lambda p, x: jnp.sin(x @ p), np.eye(2), batched=True),
}


@pytest.fixture(scope="module", params=MAKERS)
def field(request):
    return MAKERS[request.param]()


def test_derivatives(field):
    check_derivatives(field, 2, step=1e-5, tolerance=1e-7)


@pytest.mark.parametrize("kind", ["equinox, label and time", "bumps"])
def test_derivatives_with_a_limit_of_the_speed(kind):
    free = MAKERS[kind]()
    c = Sample(free, 2)
    limit = 0.5 * np.max(np.linalg.norm(free.value(c.theta, c.x, **c.given), axis=1))
    limited = SpeedLimit(free, float(limit))
    assert 0.8 * limit < np.max(np.linalg.norm(limited.value(c.theta, c.x, **c.given), axis=1)) < limit
    check_derivatives(limited, 2, step=1e-5, tolerance=1e-7)


@pytest.mark.parametrize("kind", ["equinox, label and time", "a function of all points"])
def test_many_points_and_none(kind):
    check_pieces(MAKERS[kind](), 2)


def test_labels_and_times(field):
    check_label_and_time(field, 2)


def test_shapes(field):
    check_shapes(field, 2)


def test_three_dimensions():
    check_derivatives(equinox_field(equinox_mlp(3, 3), **DOUBLE), 3, step=1e-5, tolerance=1e-7)


@pytest.mark.parametrize(("ours", "theirs"), [("tanh", jnp.tanh), ("relu", jax.nn.relu)])
def test_an_equinox_mlp_is_the_built_in_one(ours, theirs):
    """θ has the same order, so that a θ of one can be given to the other."""
    built_in = Mlp(2, (6, 6), ours, n_labels=LABELS, zero_init=False)
    module = eqx.nn.MLP(2 + LABELS, 2, 6, 2, activation=theirs, key=KEY)
    c = Sample(equinox_field(module, n_labels=LABELS, **DOUBLE), 2)
    for method, arguments in (("value", ()), ("vjp", (c.w,)), ("jacobian", ()), ("jacobian_vjp", (c.ww,))):
        foreign = getattr(c.field, method)(c.theta, c.x, *arguments, **c.given)
        np.testing.assert_allclose(
            foreign, getattr(built_in, method)(c.theta, c.x, *arguments, **c.given), rtol=1e-12, atol=1e-13
        )


def test_float32_inside_float64_outside():
    """A model keeps the precision of its parameters; the user's session keeps its setting."""
    before = jax.config.jax_enable_x64
    seen = []

    def apply(params, x):
        seen.append((params.dtype, x.dtype))
        return jnp.tanh(params @ x)

    weights = jnp.asarray([[0.3, -1.0], [0.5, 0.2]], dtype=jnp.float32)
    single, double = jax_field(apply, weights), jax_field(apply, weights, **DOUBLE)
    c = Sample(single, 2)
    theta = c.theta.astype(np.float32).astype(float)
    v, exact = single.value(theta, c.x), double.value(theta, c.x)
    assert seen[0] == (jnp.float32, jnp.float32)
    assert seen[1] == (jnp.float64, jnp.float64)
    assert v.dtype == np.float64
    assert 1e-9 < np.max(np.abs(v - exact)) < 1e-5
    np.testing.assert_allclose(single.vjp(theta, c.x, c.w), double.vjp(theta, c.x, c.w), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(single.in_double().value(theta, c.x), exact)
    np.testing.assert_array_equal(single.value(theta, c.x), v)
    assert double.in_double() is double
    assert jax.config.jax_enable_x64 == before
    assert jnp.zeros(1).dtype == (np.float64 if before else np.float32)


def test_point_counts_share_programs():
    """Ranks own different numbers of nodes: that must not mean a compilation for each."""
    traced = []

    def apply(params, x):
        traced.append(x.shape)
        return params * x

    field = jax_field(apply, np.ones(2))
    for n in (100, 112, 97, 109):
        field.value(np.ones(2), np.zeros((n, 2)))
    assert len(traced) == 1
    sizes = [padded(n) for n in range(1, PIECE + 1)]
    assert len(set(sizes)) < 40
    assert all(n <= size <= max(1.25 * n, SMALLEST * (n // SMALLEST + 1)) for n, size in enumerate(sizes, 1))
    assert max(sizes) == PIECE


@pytest.mark.parametrize("kind", ["equinox", "linen", "nnx"])
def test_a_trained_row_becomes_a_module(kind, tmp_path):
    field = MAKERS[kind]()
    c = Sample(field, 2)
    theta = np.stack([c.theta, c.theta + c.delta])
    np.savez(tmp_path / "theta.npz", theta=theta)
    modules = field.modules(tmp_path / "theta.npz")
    assert len(modules) == 2
    with jax.enable_x64(True):
        for row, module in zip(theta, modules, strict=True):
            if kind == "equinox":
                v = jax.vmap(module)(jnp.asarray(c.x))
            elif kind == "linen":
                v = LinenMlp().apply(module, jnp.asarray(c.x))
            else:
                module.eval()
                v = module(jnp.asarray(c.x))
            np.testing.assert_allclose(v, field.value(row, c.x), rtol=1e-12)
    with pytest.raises(InputError, match="theta: an array of shape"):
        field.modules(theta[:, 1:])


def test_the_start_is_the_model_or_a_fresh_draw():
    module = equinox_mlp()
    field = equinox_field(module)
    theta = field.init(np.random.default_rng(5))
    np.testing.assert_array_equal(theta[:12], np.asarray(module.layers[0].weight, dtype=float).ravel())
    fresh = equinox_field(module, initialise=lambda key: eqx.nn.MLP(2, 2, 6, 2, activation=jnp.tanh, key=key))
    one, same, other = (fresh.init(np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    assert not np.allclose(one, theta)
    wrong = equinox_field(module, initialise=lambda key: eqx.nn.MLP(2, 2, 5, 2, activation=jnp.tanh, key=key))
    with pytest.raises(InputError, match="another structure"):
        wrong.init(np.random.default_rng(5))


def test_part_of_a_module_stays_fixed():
    module = equinox_mlp()
    frozen = jax.tree.map(lambda _: False, module)
    spec = eqx.tree_at(lambda m: (m.layers[-1].weight, m.layers[-1].bias), frozen, (True, True))
    assert equinox_field(module, filter_spec=spec).n_params(2) == 14


NAN = jnp.full(2, jnp.nan)


@pytest.mark.parametrize(
    ("apply", "params", "message"),
    [
        (lambda p, x: p @ x, {}, "holds no parameters"),
        (lambda p, x: p @ x, np.eye(2) * np.nan, "parameters that are not finite"),
        (lambda p, x: p["a"] * x, {"a": np.arange(2)}, "floating-point numbers, one is int64"),
        (lambda p, x: p["a"] * x, {"a": 1.0}, "floating-point numbers, one is float"),
        (lambda p, x: p * x, np.ones(2, dtype=complex), "one is complex128"),
        (
            lambda p, x: (p @ x)[:1],
            np.eye(2),
            r"must return shape \(2,\) for a point of dimension 2, it returns \(1,\)",
        ),
        (lambda p, x: jnp.sum(p @ x), np.eye(2), r"it returns \(\)"),
        (lambda p, x: (p @ x, 1), np.eye(2), "must return an array, it returns tuple"),
        (lambda p, x: jnp.sign(p @ x).astype(int), np.eye(2), "floating-point numbers, it returns int"),
        (lambda p, x: (p @ x) * 1j, np.eye(2), "floating-point numbers, it returns complex"),
        (lambda p, x: p @ x, np.eye(3), "cannot be applied to 2 coordinates: TypeError"),
        (lambda p, x: p @ x + NAN, np.eye(2), "not finite"),
    ],
)
def test_models_that_do_not_fit(apply, params, message, monkeypatch):
    module = type(sys)("a_users_module")
    module.field = lambda: jax_field(apply, params)
    monkeypatch.setitem(sys.modules, "a_users_module", module)
    with pytest.raises(InputError, match=message) as error:
        load_field("a_users_module:field", dim=2)
    assert error.value.key == "field.object"


def test_wrong_ways_to_ask():
    with pytest.raises(InputError, match="dtype"):
        jax_field(lambda p, x: p * x, np.ones(2), dtype="float16")
    with pytest.raises(InputError, match="inputs"):
        jax_field(lambda p, x: p * x, np.ones(2), inputs="both")
    with pytest.raises(InputError, match="n_labels"):
        jax_field(lambda p, x: p * x, np.ones(2), n_labels=-1)
    with pytest.raises(InputError, match="linen module and its variables"):
        flax_field(LinenMlp())
    field = equinox_field(equinox_mlp(), n_labels=LABELS, time_dependent=True)
    theta = field.init(np.random.default_rng(0))
    with pytest.raises(InputError, match="2 coordinates, 3 label entries, the time"):
        field.value(theta, np.zeros((1, 2)), 0, 0.0)


@pytest.mark.mpi
def test_without_the_extra():
    """The message names the command that helps."""
    code = (
        "import sys; sys.modules['jax'] = None\n"
        "from eulerian.base.errors import InputError\n"
        "try:\n    import eulerian.jax\n"
        "except InputError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert 'pip install "eulerian[jax]"' in done.stdout
