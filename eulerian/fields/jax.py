"""Fields made of JAX models: any ``apply(params, x)``, Equinox and Flax modules. Needs the extra ``eulerian[jax]``.

In a module beside the configuration, whose field is then ``kind = "python"`` with ``object = "mymodel:field"``::

    import equinox as eqx, jax
    from eulerian.jax import equinox_field
    field = equinox_field(eqx.nn.MLP(2, 2, 32, 2, key=jax.random.key(0)))

JAX's own setting of 64-bit numbers (``jax_enable_x64``) is neither needed nor changed: the field switches it on while
it computes. A model keeps the precision of its parameters, which JAX makes in float32 unless told otherwise; velocities
and gradients are then good to 7 digits. ``dtype="float64"`` makes the whole model compute in double precision.
"""

import copy
import os
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.base import checked
from eulerian.fields.framework import (
    KEY,
    FrameworkField,
    Inputs,
    call_model,
    check_outcome,
    missing,
    threads_per_rank,
)

if threads_per_rank() is not None:  # read when JAX starts its threads, at the first array
    os.environ.setdefault("PJRT_NPROC", str(threads_per_rank()))
try:
    import jax
    from jax import numpy as jnp
except ImportError as error:
    raise missing("JAX", "jax", error) from error

SMALLEST = 16
type Params = Any
type Style = Literal["joined", "separate"]


class JaxField(FrameworkField):
    """A field whose model is a JAX function; see ``jax_field`` for the arguments.

    The number of points is padded to one of a few sizes, so that JAX compiles a handful of programs, however many sets
    of points there are.
    """

    def __init__(
        self,
        apply: Callable[..., Any],
        params: Params,
        inputs: Inputs,
        *,
        batched: bool = False,
        dtype: str | None = None,
        initialise: Callable[[Any], Params] | None = None,
        rebuild: Callable[[Params], Any] | None = None,
        split: Callable[[Any], Params] | None = None,
    ) -> None:
        self._apply, self._batched, self._initialise = apply, batched, initialise
        self._rebuild, self._split = rebuild or (lambda params: params), split
        leaves, self._structure = jax.tree.flatten(params)
        self._shapes = [tuple(np.shape(leaf)) for leaf in leaves]
        self._dtypes = [_leaf_dtype(leaf, dtype) for leaf in leaves]
        self._ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes], dtype=int).tolist()
        super().__init__(_ravel(leaves), inputs)

    def in_double(self) -> "JaxField":
        """The same field, computing in float64 wherever the model does not fix another precision itself."""
        if all(dtype == np.float64 for dtype in self._dtypes):
            return self
        double = copy.copy(self)
        double.__dict__.pop("_compiled", None)  # compiled for the other precision
        double._dtypes = [np.dtype(np.float64)] * len(self._dtypes)
        return double

    def module(self, row: Floats) -> Any:
        """The module (or pytree of parameters, or Flax variables) that was wrapped, with the parameters ``row``."""
        return self._rebuild(self._params(np.asarray(row, dtype=np.float64).reshape(self._ends[-1])))

    def stacked(self, rows: Floats, *, whole: bool = True) -> Any:
        """As ``module``, of rows (L, p), with an axis of layers in front of every array; or only what is trained."""
        params = self._params(checked("theta", rows, (None, self._ends[-1])))
        return self._rebuild(params) if whole else params

    def _params(self, rows: Floats) -> Params:
        """What is trained, of rows (…, p)."""
        parts = zip(np.split(rows, self._ends[:-1], axis=-1), self._shapes, self._dtypes, strict=True)
        with jax.enable_x64(True):  # outside it, float64 leaves would be cut to float32
            leaves = [jnp.asarray(part.reshape(*rows.shape[:-1], *s), dtype=dtype) for part, s, dtype in parts]
        return jax.tree.unflatten(self._structure, leaves)

    def parameters(self, model: Any) -> Params:
        """What is trained of a model like the wrapped one, also where its arrays have an axis of layers in front."""
        return self._split(model) if self._split else model

    @property
    def shapes(self) -> Params:
        """Shapes and types of the parameters, as a pytree like theirs."""
        pairs = zip(self._shapes, self._dtypes, strict=True)
        return jax.tree.unflatten(self._structure, [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in pairs])

    def _fresh(self, seed: int) -> Floats | None:
        if self._initialise is None:
            return None
        with jax.enable_x64("float64" in map(str, self._dtypes)):
            leaves, structure = jax.tree.flatten(self._initialise(jax.random.key(seed)))
        if structure != self._structure or [tuple(np.shape(leaf)) for leaf in leaves] != self._shapes:
            raise InputError("the initialiser makes parameters of another structure than the model has", key=KEY)
        return _ravel(leaves)

    def _evaluate(self, method: str, theta: Floats, x: Floats, w: Floats | None, label: int, time: float) -> Any:
        extra = padded(len(x)) - len(x)
        # Copies of a real point: a made-up one might lie where the model is singular.
        points = np.concatenate([x, np.repeat(x[-1:], extra, axis=0)]) if extra else x
        with jax.enable_x64(True):
            if w is None:
                return self._compiled[method](theta, points, label, time)
            weights = np.concatenate([w, np.zeros((extra, *w.shape[1:]))]) if extra else w
            return self._compiled[method](theta, points, weights, label, time)

    @cached_property
    def _compiled(self) -> dict[str, Any]:
        """The five methods of a field, differentiated and compiled."""
        value = self._values

        def vjp(theta: Any, x: Any, w: Any, label: Any, time: Any) -> Any:
            return jax.grad(lambda t: jnp.vdot(w, value(t, x, label, time)))(theta)

        def jacobian(theta: Any, x: Any, label: Any, time: Any) -> Any:
            # Points do not influence one another: pulling back e_i at all of them gives row i of every Jacobian.
            _, pull = jax.vjp(lambda points: value(theta, points, label, time), x)
            rows = jax.vmap(lambda e: pull(jnp.broadcast_to(e, x.shape))[0])(jnp.eye(x.shape[1], dtype=x.dtype))
            return jnp.moveaxis(rows, 0, 1)

        def contracted(theta: Any, x: Any, w: Any, label: Any, time: Any) -> Any:
            return jnp.vdot(w, jacobian(theta, x, label, time))

        methods = {
            "value": value,
            "vjp": vjp,
            "jacobian": jacobian,
            "jacobian_vjp": jax.grad(contracted, argnums=0),
            "jacobian_vjp_x": jax.grad(contracted, argnums=1),
        }
        return {name: jax.jit(function) for name, function in methods.items()}

    def _values(self, theta: Any, x: Any, label: Any, time: Any) -> Any:
        """Velocities (n, dim) in float64, while JAX traces."""
        params, kind = self._unravel(theta), jnp.result_type(*self._dtypes)
        points, time, dim = x.astype(kind), jnp.asarray(time, dtype=kind), x.shape[1]
        shape = x.shape if self._batched else (dim,)

        def model(point: Any) -> Any:
            arguments, keywords = self._arguments(point, label, time)
            outcome = call_model(lambda: self._apply(params, *arguments, **keywords), self.inputs, dim)
            given = f"{x.shape[0]} points of dimension {dim}" if self._batched else f"a point of dimension {dim}"
            check_outcome(outcome, shape, given)
            return outcome.astype(jnp.float64)

        return model(points) if self._batched else jax.vmap(model)(points)

    def _arguments(self, point: Any, label: Any, time: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the model is called with: a point (dim,), or points (n, dim), and the label and the time."""
        inputs = self.inputs
        if inputs.style == "separate":
            keywords = {"label": label} if inputs.n_labels else {}
            return (point,), keywords | ({"time": time} if inputs.time_dependent else {})
        parts = [jax.nn.one_hot(label, inputs.n_labels, dtype=point.dtype)] if inputs.n_labels else []
        parts += [time[None]] if inputs.time_dependent else []
        spread = [jnp.broadcast_to(part, (*point.shape[:-1], part.size)) for part in parts]
        return (jnp.concatenate([point, *spread], axis=-1),), {}

    def _unravel(self, theta: Any) -> Params:
        """The parameters from θ; differentiable."""
        starts = [0, *self._ends[:-1]]
        leaves = [
            theta[start:end].reshape(shape).astype(dtype)
            for start, end, shape, dtype in zip(starts, self._ends, self._shapes, self._dtypes, strict=True)
        ]
        return jax.tree.unflatten(self._structure, leaves)


def jax_field(
    apply: Callable[..., Any],
    params: Params,
    *,
    n_labels: int = 0,
    time_dependent: bool = False,
    inputs: Style = "joined",
    batched: bool = False,
    dtype: str | None = None,
    initialise: Callable[[Any], Params] | None = None,
    normalised: bool | None = None,
) -> JaxField:
    """A field from any JAX function ``apply(params, x)``.

    θ is ``params`` leaf by leaf in JAX's order (``jax.tree.leaves``), each row by row.

    Args:
        apply: what makes velocities of parameters and points; differentiable and free of side effects.
        params: pytree of floating-point arrays, all trained: what is to stay fixed belongs into ``apply``.
        n_labels: number of labels that the model sees (with ``field.label_dependent = true``).
        time_dependent: the model sees the time.
        inputs: "joined": ``apply(params, (x, e_y, t))`` with the label's unit vector and the time behind the
            coordinates; "separate": ``apply(params, x, label=y, time=t)``, as far as the model sees them.
        batched: ``apply`` takes points (n, ·) instead of a single one (·,). Points must not influence one another.
        dtype: "float64" or "float32" to compute in; by default what the parameters are.
        initialise: makes parameters from a random key; by default θ starts from ``params``.
        normalised: true where ``apply`` is to see points relative to the domain's box, from −1 to 1 on every axis, and
            to return velocities in units of half the longest side per horizon (and the time is t/T): then it trains
            alike in any units. By default it sees the user's coordinates; false says that they suit it.

    Raises:
        InputError: there is nothing to train, or leaves are no real floating-point arrays.
    """
    given = Inputs(n_labels, time_dependent, inputs, normalised)
    return JaxField(apply, params, given, batched=batched, dtype=dtype, initialise=initialise)


def equinox_field(
    module: Any,
    *,
    filter_spec: Any = None,
    n_labels: int = 0,
    time_dependent: bool = False,
    inputs: Style = "joined",
    batched: bool = False,
    dtype: str | None = None,
    initialise: Callable[[Any], Any] | None = None,
    normalised: bool | None = None,
) -> JaxField:
    """A field from an Equinox module that maps one point (·,) to its velocity (dim,).

    Dropout and normalisation layers run as in inference. ``field.module(row)`` is a trained module.

    Args:
        module: an ``equinox.Module``.
        filter_spec: what is trained, as for ``equinox.partition``; by default all floating-point arrays.
        n_labels: as for ``jax_field``, and so are the other arguments.
        time_dependent: see ``jax_field``.
        inputs: see ``jax_field``.
        batched: see ``jax_field``.
        dtype: see ``jax_field``.
        initialise: makes a module of the same structure from a random key.
        normalised: see ``jax_field``.

    Raises:
        InputError: as for ``jax_field``; or Equinox is missing.
    """
    try:
        import equinox as eqx
    except ImportError as error:
        raise missing("Equinox", "jax", error) from error
    trained = eqx.is_inexact_array if filter_spec is None else filter_spec
    params, fixed = eqx.partition(module, trained)

    def apply(params: Params, *arguments: Any, **keywords: Any) -> Any:
        return eqx.nn.inference_mode(eqx.combine(params, fixed))(*arguments, **keywords)

    return JaxField(
        apply,
        params,
        Inputs(n_labels, time_dependent, inputs, normalised),
        batched=batched,
        dtype=dtype,
        initialise=initialise and (lambda key: eqx.partition(initialise(key), trained)[0]),
        rebuild=lambda params: eqx.combine(params, fixed),
        split=lambda module: eqx.partition(module, trained)[0],
    )


def flax_field(
    module: Any,
    variables: Any = None,
    *,
    n_labels: int = 0,
    time_dependent: bool = False,
    inputs: Style = "joined",
    batched: bool = True,
    dtype: str | None = None,
    initialise: Callable[[Any], Any] | None = None,
    normalised: bool | None = None,
) -> JaxField:
    """A field from a Flax module: of ``flax.linen`` with its variables, or of ``flax.nnx``.

    Of linen variables the collection "params" is trained, others stay as they are; of an nnx module what is a
    ``nnx.Param`` is trained, and dropout and normalisation run as in evaluation.
    ``field.module(row)`` gives trained variables, or a trained nnx module.

    Args:
        module: a ``flax.linen.Module``, or a ``flax.nnx.Module``.
        variables: of a linen module, from ``module.init(key, x)``.
        n_labels: as for ``jax_field``, and so are the other arguments.
        time_dependent: see ``jax_field``.
        inputs: see ``jax_field``.
        batched: Flax modules usually take points (n, ·); false calls them with one point at a time.
        dtype: see ``jax_field``; a ``dtype`` or ``param_dtype`` of the module's own layers has the last word.
        initialise: makes variables, or an nnx module, from a random key.
        normalised: see ``jax_field``.

    Raises:
        InputError: as for ``jax_field``; the variables do not fit the kind of module; or Flax is missing.
    """
    try:
        from flax import linen, nnx
    except ImportError as error:
        raise missing("Flax", "jax", error) from error
    if isinstance(module, nnx.Module):
        apply, params, split, rebuild = _nnx_parts(nnx, module)
    elif isinstance(module, linen.Module) and hasattr(variables, "keys") and "params" in variables:
        apply, params, split, rebuild = _linen_parts(module, variables)
    else:
        raise InputError(
            "a Flax field is made of an nnx module, or of a linen module and its variables",
            key=KEY,
            value=type(module).__name__,
            remedy="flax_field(module, module.init(key, x)).",
        )
    return JaxField(
        apply,
        params,
        Inputs(n_labels, time_dependent, inputs, normalised),
        batched=batched,
        dtype=dtype,
        initialise=initialise and (lambda key: split(initialise(key))),
        rebuild=rebuild,
        split=split,
    )


type _Parts = tuple[Callable[..., Any], Params, Callable[[Any], Params], Callable[[Params], Any]]


def _linen_parts(module: Any, variables: Any) -> _Parts:
    """How to apply, the trained variables, how to take them out of others, and how to put them back."""
    fixed = {name: collection for name, collection in variables.items() if name != "params"}

    def apply(params: Params, *arguments: Any, **keywords: Any) -> Any:
        return module.apply({"params": params, **fixed}, *arguments, **keywords)

    return (
        apply,
        variables["params"],
        lambda fresh: fresh.get("params", fresh),
        lambda params: {"params": params, **fixed},
    )


def _nnx_parts(nnx: Any, module: Any) -> _Parts:
    """As for linen: a module is its structure, its parameters and other state."""
    structure, params, fixed = nnx.split(module, nnx.Param, ...)

    def apply(params: Params, *arguments: Any, **keywords: Any) -> Any:
        merged = nnx.merge(structure, params, fixed)
        merged.eval()
        return merged(*arguments, **keywords)

    return (
        apply,
        params,
        lambda fresh: nnx.split(fresh, nnx.Param, ...)[1] if isinstance(fresh, nnx.Module) else fresh,
        lambda params: nnx.merge(structure, params, fixed),
    )


def padded(n: int) -> int:
    """The next of the sizes 16, 32, 48, 64, 80, … with four steps to every doubling: at most a quarter is wasted."""
    step = max(SMALLEST, 1 << max((n - 1).bit_length() - 3, 0))
    return -(-n // step) * step


def _leaf_dtype(leaf: Any, wanted: str | None) -> Any:
    """What a leaf is computed in.

    Raises:
        InputError: it is no array of real floating-point numbers, or the wanted precision does not exist.
    """
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(
            f"parameters are arrays of real floating-point numbers, one is {dtype or type(leaf).__name__}",
            key=KEY,
            remedy="Keep other things out of the pytree of parameters.",
        )
    if wanted not in (None, "float64", "float32"):
        raise InputError('must be "float64" or "float32"', key="dtype", value=wanted)
    return np.dtype(wanted or dtype)


def _ravel(leaves: list[Any]) -> Floats:
    return np.concatenate([np.empty(0), *(np.asarray(leaf).astype(np.float64).ravel() for leaf in leaves)])
