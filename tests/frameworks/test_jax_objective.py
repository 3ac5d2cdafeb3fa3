"""J as a function of JAX: the problem's bits, in every form of θ, in both arguments, under jit and vmap."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import LABELLINGS, control_problem, theta_with_layers

import eulerian as eu
from eulerian.base.errors import InputError

jax = pytest.importorskip("jax", reason='the extra "eulerian[jax]" is not installed')
eqx = pytest.importorskip("equinox", reason='the extra "eulerian[jax]" is not installed')

from jax import numpy as jnp  # noqa: E402

TRAINED = {"kind": "cross_entropy", "trainable": True}
LAYERS = 3


@pytest.fixture(autouse=True)
def in_double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def mlp(key: Any) -> Any:
    return eqx.nn.MLP(2, 2, 6, 1, activation=jnp.tanh, dtype=jnp.float64, key=key)


def problem_of(comm: MPI.Comm, field: Any, *, tied: bool = False, terminal: Any = None) -> eu.ControlProblem:
    space = eu.DensitySpace(eu.box_mesh([-2.0, -2.0], [2.0, 2.0], [6, 6], comm=comm), degree=1)
    rho = space.project(eu.Gaussian([-0.5, 0.3], std=0.4))
    costs, time = eu.Costs(kinetic=0.3, congestion=0.1, parameters=1e-3), eu.TimeGrid(0.5, LAYERS)
    loss = eu.QuadraticLoss([1.0, -0.5]) if terminal is None else terminal
    return eu.ControlProblem(space, field, rho, loss, costs, time, tied=tied)


def assert_same(found: Any, wanted: Any) -> None:
    """All numbers to the last bit."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("labelling", LABELLINGS[:2])
def test_the_problems_own_bits(comm: MPI.Comm, labelling: str) -> None:
    """With and without jit, with and without ρ₀, in θ of any shape, with a readout."""
    tables = {"objective": {"terminal": TRAINED}} if labelling == LABELLINGS[1] else {}
    problem = control_problem(comm, 2, 1, labelling, cells=4, **tables)
    J, theta, rho = eu.jax.objective(problem), theta_with_layers(problem), problem.initial.to_array()
    value, gradient = problem.value_and_gradient(theta)
    value_from, *both = problem.value_and_gradients(theta, rho)
    for wrapped in (lambda f: f, jax.jit):
        problem.forget()
        assert_same(wrapped(jax.value_and_grad(J))(theta), (value, gradient))
        assert_same(wrapped(jax.value_and_grad(J))(theta.ravel()), (value, gradient.ravel()))
        problem.forget()
        assert_same(wrapped(jax.value_and_grad(J, argnums=(0, 1)))(theta, rho), (value_from, *both))
        assert_same(wrapped(jax.grad(J, argnums=1))(theta, rho), both[1])
        assert_same(wrapped(J)(theta), value)
        assert_same(wrapped(J)(theta, rho), value_from)
    if labelling == LABELLINGS[1]:
        rows = int(np.prod(problem.layer_shape))
        readout = [theta[rows:-2].reshape(2, 2), theta[-2:]]
        found, slopes = jax.value_and_grad(J)({"layers": theta[:rows].reshape(problem.layer_shape), "readout": readout})
        assert_same(found, value)
        assert_same(slopes["layers"].ravel(), gradient[:rows])
        assert_same(np.concatenate([np.ravel(slope) for slope in slopes["readout"]]), gradient[rows:])
        assert_same(J.initial_theta["readout"], problem.initial_theta[rows:])
        np.testing.assert_array_equal(J.theta(J.initial_theta), problem.initial_theta)
    assert comm.allreduce(int(float(J(theta)) == value)) == comm.size


def test_vmap_goes_one_by_one(comm: MPI.Comm) -> None:
    problem = control_problem(comm, 2, 1, cells=4)
    J, theta, rho = eu.jax.objective(problem), theta_with_layers(problem), problem.initial.to_array()
    factors, masses = np.array([1.0, 0.5, -0.3]), np.array([1.0, 0.9, 0.8])
    wanted = [problem.value_and_gradients(f * theta, m * rho) for f, m in zip(factors, masses, strict=True)]
    batched = factors[:, None, None] * theta, masses[:, None, None, None] * rho
    for wrapped in (lambda f: f, jax.jit):
        found = wrapped(jax.vmap(jax.value_and_grad(J, argnums=(0, 1))))(*batched)
        assert_same(found, [np.stack([np.asarray(each[i]) for each in wanted]) for i in range(3)])
    outer = jax.jit(jax.vmap(J, in_axes=(0, None)))(batched[0], rho)
    assert_same(outer, np.array([problem.value_from(f * theta, rho) for f in factors]))


def test_evaluations_that_do_not_depend_on_each_other(comm: MPI.Comm) -> None:
    """A compiled program may ask for them in any order, and from threads of its own."""
    problem = problem_of(comm, eu.jax.equinox_field(mlp(jax.random.key(0)), normalised=False))
    J = eu.jax.objective(problem)
    theta = theta_with_layers(problem)
    factors = [1.0, 0.9, 0.8, 0.7]

    @jax.jit
    def several(theta: Any) -> Any:
        matrix = jnp.ones((300, 300)) * theta[0, 0]  # something else to do meanwhile
        return [jax.value_and_grad(J)(f * theta) for f in factors], (matrix @ matrix).sum()

    wanted = [problem.value_and_gradient(f * theta) for f in factors]
    for _ in range(2):
        assert_same(jax.block_until_ready(several(theta))[0], wanted)


@pytest.mark.two_ranks
def test_models_of_equinox(comm: MPI.Comm) -> None:
    """A model with an axis of layers, a list of models, what is trained of one, an array: the same J and gradient."""
    field = eu.jax.equinox_field(mlp(jax.random.key(0)), normalised=False)
    problem = problem_of(comm, field)
    J, layers = eu.jax.objective(problem), LAYERS
    stacked = eqx.filter_vmap(mlp)(jax.random.split(jax.random.key(1), layers))
    each = [jax.tree.map(lambda leaf, i=i: leaf[i] if eqx.is_array(leaf) else leaf, stacked) for i in range(layers)]
    theta = np.stack([eu.jax.equinox_field(model).init(np.random.default_rng()) for model in each])
    value, gradient = problem.value_and_gradient(theta)

    found, slopes = eqx.filter_jit(eqx.filter_value_and_grad(J))(stacked)
    assert_same(found, value)
    assert_same(np.concatenate([np.reshape(s, (layers, -1)) for s in jax.tree.leaves(slopes)], axis=1), gradient)
    found, of_each = eqx.filter_value_and_grad(J)(each)
    assert_same(found, value)
    assert_same(of_each[0].layers[1].weight, slopes.layers[1].weight[0])
    params, _ = eqx.partition(stacked, eqx.is_inexact_array)
    assert_same(jax.jit(jax.value_and_grad(J))(params), (value, slopes))
    assert_same(J(J.models(theta)), value)
    assert_same(J(J.initial_theta), problem.value(problem.initial_theta))
    for form in (stacked, each, params, J.models(theta), theta):
        np.testing.assert_array_equal(J.theta(form), theta)
    with jax.enable_x64(False):
        np.testing.assert_array_equal(J.theta(stacked), theta)
    np.testing.assert_array_equal(J.theta(J.initial_theta), problem.initial_theta)
    assert eu.Flow(problem, J.theta(stacked)).theta.shape == problem.initial_theta.shape
    tied = problem_of(comm, field, tied=True)
    assert_same(eu.jax.objective(tied)(each[:1]), tied.value(theta[:1]))


@pytest.mark.two_ranks
def test_parameters_of_flax_and_of_plain_jax(comm: MPI.Comm) -> None:
    linen = pytest.importorskip("flax.linen", reason='the extra "eulerian[jax]" is not installed')
    nnx = pytest.importorskip("flax.nnx", reason='the extra "eulerian[jax]" is not installed')
    module = linen.Dense(2, param_dtype=jnp.float64)
    variables = module.init(jax.random.key(0), jnp.zeros((1, 2)))
    plain = {"a": jnp.ones((2, 2)), "b": jnp.zeros(2)}
    fields = {
        "linen": eu.jax.flax_field(module, variables, normalised=False),
        "nnx": eu.jax.flax_field(nnx.Linear(2, 2, param_dtype=jnp.float64, rngs=nnx.Rngs(0)), normalised=False),
        "plain": eu.jax.jax_field(lambda p, x: p["a"] @ x + p["b"], plain, normalised=False),
        "one array": eu.jax.jax_field(lambda p, x: p * x, jnp.ones(2), normalised=False),
    }
    for field in fields.values():
        problem = problem_of(comm, field)
        J = eu.jax.objective(problem)
        start = J.initial_theta
        value, gradient = problem.value_and_gradient(problem.initial_theta)
        found, slopes = jax.value_and_grad(J)(start if not hasattr(start, "eval") else nnx.state(start, nnx.Param))
        assert_same(found, value)
        assert_same(np.concatenate([np.reshape(s, (LAYERS, -1)) for s in jax.tree.leaves(slopes)], axis=1), gradient)


@pytest.mark.two_ranks
def test_adam_of_optax_trains(comm: MPI.Comm) -> None:
    optax = pytest.importorskip("optax")
    problem = problem_of(comm, eu.jax.equinox_field(mlp(jax.random.key(0)), normalised=False))
    J = eu.jax.objective(problem)
    theta, fixed = eqx.partition(J.initial_theta, eqx.is_inexact_array)
    adam, step = optax.adam(3e-2), jax.jit(jax.value_and_grad(J))
    state, first = adam.init(theta), float(J(theta))
    for _ in range(25):
        _, gradient = step(theta)
        updates, state = adam.update(gradient, state)
        theta = optax.apply_updates(theta, updates)
    best = eu.minimise(problem, max_iterations=25).value
    assert float(J(theta)) < best + 0.5 * (first - best)
    assert float(J(eqx.combine(theta, fixed))) == float(J(theta))


def test_what_is_frozen_is_no_part_of_where_to_start(comm: MPI.Comm) -> None:
    """So nothing that an optimiser does to all of its parameters, as a decay, can change it."""
    model = mlp(jax.random.key(0))
    spec = eqx.tree_at(lambda m: m.layers[-1], jax.tree.map(eqx.is_inexact_array, model), replace_fn=lambda _: False)
    problem = problem_of(comm, eu.jax.equinox_field(model, filter_spec=spec, normalised=False))
    J = eu.jax.objective(problem)
    start = J.initial_theta
    assert start.layers[-1].weight is None
    assert start.activation is None
    assert start.layers[0].weight.shape == (LAYERS, 6, 2)
    assert_same(jax.jit(J)(start), problem.value(problem.initial_theta))
    whole = J.models(J.theta(start))
    assert_same(whole.layers[-1].weight, model.layers[-1].weight)
    assert_same(J(whole), J(start))


def test_a_model_is_no_theta_of_the_problem(comm: MPI.Comm) -> None:
    problem = problem_of(comm, eu.jax.equinox_field(mlp(jax.random.key(0)), normalised=False))
    theta = eu.jax.objective(problem).initial_theta
    for wrong in (lambda: eu.Flow(problem, theta), lambda: problem.value(theta), lambda: eu.minimise(problem, theta)):
        with pytest.raises(InputError, match=r"theta: must be an array of numbers.*J\.theta\(parameters\)"):
            wrong()


def test_where_j_cannot_be_evaluated(comm: MPI.Comm) -> None:
    problem = control_problem(comm, 2, 1, cells=4)
    J, theta = eu.jax.objective(problem), theta_with_layers(problem)
    for wrapped in (lambda f: f, jax.jit):
        value, gradient = wrapped(jax.value_and_grad(J))(1e9 * theta)
        assert value == np.inf
        assert not np.any(gradient)


def test_second_derivatives_are_an_error(comm: MPI.Comm) -> None:
    problem = control_problem(comm, 2, 1, cells=4)
    J, theta, rho = eu.jax.objective(problem), theta_with_layers(problem), problem.initial.to_array()
    for twice in (
        lambda: jax.hessian(J)(theta),
        lambda: jax.jit(jax.hessian(J))(theta),
        lambda: jax.grad(lambda t: jnp.sum(jax.grad(J)(t) ** 2))(theta),
        lambda: jax.grad(lambda r: jnp.sum(jax.grad(J)(theta, r)))(rho),
    ):
        with pytest.raises(InputError, match="J has no second derivatives"):
            twice()
    # First derivatives along a direction are the gradient's.
    value, slope = jax.jvp(J, (theta,), (np.ones_like(theta),))
    assert value == problem.value(theta)
    assert slope == pytest.approx(problem.value_and_gradient(theta)[1].sum(), rel=1e-12)


def test_without_64_bits(comm: MPI.Comm) -> None:
    """JAX has the numbers in float32, rounded from those of float64."""
    problem = control_problem(comm, 2, 1, cells=4)
    J, theta = eu.jax.objective(problem), theta_with_layers(problem).astype(np.float32)
    value, gradient = problem.value_and_gradient(theta.astype(np.float64))
    with jax.enable_x64(False):
        for wrapped in (lambda f: f, jax.jit):
            found = wrapped(jax.value_and_grad(J))(theta)
            assert found[0].dtype == found[1].dtype == jnp.float32
            assert_same(found, (np.float32(value), gradient.astype(np.float32)))


def test_what_is_no_theta_or_density_is_refused(comm: MPI.Comm) -> None:
    problem = problem_of(comm, eu.jax.equinox_field(mlp(jax.random.key(0)), normalised=False))
    J, theta = eu.jax.objective(problem), jnp.asarray(problem.initial_theta)
    model = mlp(jax.random.key(0))
    for wrong, message in (
        (theta[1:], "3 layers of 32 parameters are needed"),
        ({"layers": theta, "readout": jnp.zeros(2)}, "3 layers of 32 parameters are needed"),
        ([model] * 2, "3 layers of 32 parameters are needed"),
        (model, "an axis of layers is needed"),
        ("theta", "must be parameters like the model's"),
        ({"weights": theta}, "must be parameters like the model's"),
    ):
        with pytest.raises(InputError, match=f"theta: {message}"):
            J(wrong)
    with pytest.raises(InputError, match="rho0: coefficients of all cells"):
        jax.jit(J)(theta, jnp.zeros((3, 3, 1)))
    with pytest.raises(InputError, match="problem: must be"):
        eu.jax.objective(3)


def test_particles(comm: MPI.Comm) -> None:
    x = np.random.default_rng(0).normal(0.0, 0.5, (40, 2))
    time = eu.TimeGrid(1.0, 2)
    loss, costs = eu.QuadraticLoss([1.0, -0.5]), eu.Costs(kinetic=0.5)
    problem = eu.ParticleProblem(x, eu.Mlp(2, [4]), loss, costs, time, comm=comm)
    J, theta = eu.jax.objective(problem), problem.initial_theta
    assert_same(jax.jit(jax.value_and_grad(J))(theta), problem.value_and_gradient(theta))
    with pytest.raises(InputError, match="rho0: this problem starts from particles"):
        J(theta, jnp.zeros((3, 3, 1)))


def warned(comm: MPI.Comm, make: Any) -> list[str]:
    """What rank 0 is warned of; others are not."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        make()
    texts = [str(each.message) for each in found if issubclass(each.category, eu.EulerianWarning)]
    assert comm.rank == 0 or texts == []
    return comm.bcast(texts)


def test_a_seed_that_changes_nothing_is_a_warning(comm: MPI.Comm) -> None:
    given = eu.jax.equinox_field(mlp(jax.random.key(0)), normalised=True)
    drawn = eu.jax.equinox_field(mlp(jax.random.key(0)), normalised=True, initialise=mlp)

    def make(field: Any, **more: Any) -> Any:
        space = eu.DensitySpace(eu.box_mesh([-2.0, -2.0], [2.0, 2.0], [4, 4], comm=comm), degree=1)
        rho = space.project(eu.Gaussian([-0.5, 0.3], std=0.4))
        return lambda: eu.ControlProblem(space, field, rho, eu.QuadraticLoss([1.0, 0.0]), **more)

    (text,) = warned(comm, make(given, seed=3))
    assert text.startswith("seed = 3 changes nothing")
    assert "initialise=" in text
    for quiet in (make(given), make(drawn, seed=3), make(eu.Mlp(2, [4]), seed=3)):
        assert warned(comm, quiet) == []


def test_coordinates_far_from_the_unit_box_are_a_warning(comm: MPI.Comm) -> None:
    def make(normalised: bool | None) -> Any:
        field = eu.jax.equinox_field(mlp(jax.random.key(0)), normalised=normalised)
        space = eu.DensitySpace(eu.box_mesh([100.0, 0.0], [101.0, 1.0], [4, 4], comm=comm), degree=1)
        rho = space.project(eu.Gaussian([100.4, 0.3], std=0.2))
        return lambda: eu.ControlProblem(space, field, rho, eu.QuadraticLoss([100.5, 0.5]))

    (text,) = warned(comm, make(None))
    assert "is given the coordinates as they are, from [100.0, 0.0] to [101.0, 1.0]" in text
    assert warned(comm, make(True)) == warned(comm, make(False)) == []


def test_configurations_warn_once(comm: MPI.Comm, tmp_path: Path) -> None:
    """Of both: what the problem warns of is not said again for the configuration."""
    (tmp_path / "warned_model.py").write_text(
        "import equinox as eqx, jax\nfrom eulerian.jax import equinox_field\n"
        "field = equinox_field(eqx.nn.MLP(1, 1, 4, 1, key=jax.random.key(0)))\n"
    )
    tables = {
        "domain": {"box": {"lower": [1000.0], "upper": [1004.0], "cells": [8]}},
        "density": {"initial": [{"kind": "gaussian", "mean": [1002.0], "std": 0.5}]},
        "field": {"kind": "python", "object": "warned_model:field", "folder": str(tmp_path), "seed": 2},
        "objective": {"terminal": {"kind": "quadratic", "target": [1001.0]}},
    }
    texts = warned(comm, lambda: eu.build(eu.parse_config(tables), comm))
    assert len(texts) == 2
    assert texts[0].startswith("field.seed = 2 changes nothing")
    assert "is given the coordinates as they are" in texts[1]
