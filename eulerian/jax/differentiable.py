"""J(θ, ρ₀) as a function that JAX differentiates."""

from collections.abc import Mapping
from typing import Any, Literal, final

import jax
import numpy as np
from jax import numpy as jnp

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.frame import unwrapped

type _What = Literal["value", "by theta", "by both"]


@final
class Objective:
    """J(θ, ρ₀) for JAX; see ``objective``.

    Attributes:
        problem: whose J it is.
    """

    def __init__(self, problem: Any) -> None:
        from eulerian.control.evaluations import Evaluations  # here: who makes a field needs neither meshes nor MPI

        self._evaluate, self.problem = Evaluations(problem), problem
        field: Any = unwrapped(problem.field)
        self._field = field if hasattr(field, "stacked") else None
        self._of_theta, self._of_both = self._differentiable("by theta"), self._differentiable("by both")

    def __call__(self, theta: Any, rho0: Any = None) -> Any:
        """J, a number. See ``objective``. Collective."""
        flat = self._flat(theta)
        if rho0 is None:
            return self._of_theta(flat)
        rho = jnp.asarray(rho0, dtype=_real())
        self.problem.check_rho0(rho.shape)
        return self._of_both(flat, rho)

    @property
    def initial_theta(self) -> Any:
        """Where optimisers start, in the form that J is best given it.

        For a model of JAX, Equinox or Flax it holds what is trained of it, with an axis of layers in front of every
        parameter, and nothing else (None in an Equinox module, as ``equinox.partition`` leaves it); for other fields
        it is an array like the problem's. With a trained readout it is ``{"layers": …, "readout": …}``.
        """
        flat, shape = self.problem.initial_theta.ravel(), self.problem.layer_shape
        size = int(np.prod(shape))
        rows = flat[:size].reshape(shape)
        layers = jnp.asarray(rows) if self._field is None else self._field.stacked(rows, whole=False)
        if flat.size == size:
            return layers
        return {"layers": layers, "readout": jnp.asarray(flat[size:])}

    def models(self, theta: Any) -> Any:
        """The wrapped model with an axis of layers in front of every parameter, of θ (L, p) as problems have it.

        Raises:
            InputError: the field is no model of JAX.
        """
        if self._field is None:
            what = "only fields of JAX, Equinox and Flax are made of models"
            raise InputError(what, key="field", value=type(self.problem.field).__name__)
        return self._field.stacked(np.atleast_2d(theta))

    def theta(self, parameters: Any) -> Floats:
        """θ as problems take it, of any form that J takes: the inverse of ``models``. Not collective.

        Args:
            parameters: as J takes them, and not within ``jit`` or ``grad``.

        Returns:
            In the shape of the problem's ``initial_theta``, in float64: for ``Flow``, ``minimise``, ``save_theta``.

        Raises:
            InputError: they do not fit.
        """
        with jax.enable_x64(True):  # outside it, numbers of float64 would be rounded
            flat = np.array(self._flat(parameters), dtype=np.float64)
        return flat.reshape(self.problem.initial_theta.shape)

    # -- θ in its forms ----------------------------------------------------------------------------------------------

    def _flat(self, theta: Any) -> Any:
        """θ as problems take it, (n_params,); differentiable."""
        layers, readout = theta, jnp.zeros(0)
        if isinstance(theta, Mapping) and "layers" in theta and set(theta) <= {"layers", "readout"}:
            layers = theta["layers"]
            leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(theta.get("readout")) if hasattr(leaf, "dtype")]
            readout = jnp.concatenate([readout, *leaves])
        flat = jnp.concatenate([jnp.ravel(self._rows(layers)).astype(_real()), readout.astype(_real())])
        self._evaluate.check_size(flat.size)
        return flat

    def _rows(self, layers: Any) -> Any:
        """The layers' parameters: an array, models with an axis of layers, or one model per layer."""
        field = self._field
        if hasattr(layers, "dtype"):
            return jnp.asarray(layers)
        if field is not None and (params := self._like_field(layers)) is not None:
            return _joined(params, field.shapes)
        if isinstance(layers, list | tuple):
            each = [self._like_field(model) for model in layers]
            if field is not None and each and all(params is not None for params in each):
                return _joined(jax.tree.map(lambda *leaves: jnp.stack(leaves), *each), field.shapes)
            if all(isinstance(row, list | tuple | float | int) or hasattr(row, "dtype") for row in layers):
                return jnp.asarray(layers)
        of = f"parameters like the model's, {jax.tree.structure(field.shapes)}, or " if field is not None else ""
        raise InputError(f"must be {of}an array", key="theta", value=jax.tree.structure(layers))

    def _like_field(self, model: Any) -> Any:
        """What is trained of a model, where it is like the one that was wrapped; else None."""
        if self._field is None:
            return None
        try:
            params = self._field.parameters(model)
        except Exception:  # noqa: BLE001 - how a library says that this is something else
            return None
        return params if jax.tree.structure(params) == jax.tree.structure(self._field.shapes) else None

    # -- J -----------------------------------------------------------------------------------------------------------

    def _differentiable(self, what: _What) -> Any:
        """J of flat θ, or of flat θ and ρ₀, with its first derivatives."""

        def both(*arguments: Any) -> Any:
            return self._called(what, arguments)

        def no_second(*_: Any) -> Any:
            what, remedy = (
                "J has no second derivatives",
                "Take differences of gradients, or an optimiser without more.",
            )
            raise InputError(what, key="objective", remedy=remedy)

        def value(*arguments: Any) -> Any:
            return self._called("value", arguments)[0]

        def first(arguments: Any, changes: Any) -> Any:
            found, *slopes = with_slopes(*arguments)
            return found, sum(jnp.sum(slope * change) for slope, change in zip(slopes, changes, strict=True))

        with_slopes, differentiable = jax.custom_jvp(both), jax.custom_jvp(value)
        with_slopes.defjvp(no_second)
        differentiable.defjvp(first)
        return differentiable

    def _called(self, what: _What, arguments: tuple[Any, ...]) -> Any:
        slopes = () if what == "value" else arguments
        if not any(isinstance(argument, jax.core.Tracer) for argument in arguments):
            # In the caller's own thread: when J is back, nothing of it is going on any more.
            return tuple(map(jnp.asarray, self._computed(what, *arguments)))
        shapes = [jax.ShapeDtypeStruct(np.shape(each), _real()) for each in (np.zeros(()), *slopes)]
        return jax.pure_callback(
            lambda *given: self._computed(what, *given), tuple(shapes), *arguments, vmap_method="sequential"
        )

    def _computed(self, what: _What, *arguments: Any) -> tuple[Any, ...]:
        """The value, and with derivatives those by all arguments, as NumPy arrays of JAX's precision."""
        found = self._evaluate(*map(np.asarray, arguments), derivatives=what != "value")
        slopes = {"value": (), "by theta": (found.gradient,), "by both": (found.gradient, found.by_rho0)}[what]
        return tuple(np.asarray(each, dtype=_real()) for each in (found.value, *slopes))


def objective(problem: Any) -> Objective:
    """J(θ, ρ₀) of a problem as a function for JAX: with ``jax.grad`` in both arguments, ``jit``, ``vmap``.

    For example, with Adam instead of the package's own optimiser::

        J = eulerian.jax.objective(problem)
        step = jax.jit(jax.value_and_grad(J))
        theta, adam = J.initial_theta, optax.adam(1e-2)
        state = adam.init(theta)
        for _ in range(100):
            value, gradient = step(theta)
            updates, state = adam.update(gradient, state)
            theta = optax.apply_updates(theta, updates)

    θ is an array like the problem's ``initial_theta``. For a field of JAX, Equinox or Flax it may also be what the
    model's parameters are, with an axis of layers in front of every array (``J.initial_theta``, or as ``jax.vmap``
    makes models from keys), or a list of models, one for each layer; tied layers are one. An Equinox module holds
    functions beside its arrays: take ``equinox.filter_value_and_grad`` or ``equinox.partition`` as always, while
    ``J.initial_theta`` holds what is trained only. ``J.theta(theta)`` is the array that ``Flow`` and the problem's own
    methods take, of which ``J.models`` makes whole models. What the costs train besides stands in a dictionary
    ``{"layers": θ, "readout": r}``, r an array or a pytree of the loss.

    ρ₀ is an array (C, nd, K) of the coefficients of all cells, as ``Density.to_array`` makes it; see
    ``ControlProblem.value_and_gradients`` for what J is then, and what its derivative is where ρ₀ is zero. Without it J
    starts from the problem's own density.

    Values and gradients have the bits that the problem itself gives where ``jax_enable_x64`` is on; else JAX has them
    in float32, though they are computed in float64. Where J cannot be evaluated it is +∞ with derivatives of zero.
    Second derivatives are an InputError. ``vmap`` evaluates one after the other.

    Under ``mpirun`` J is collective: all ranks call it, in programs that are the same on all ranks. Rank 0's θ counts,
    and all ranks get the same numbers. What ``jit`` has compiled works on while the program goes on: wait for it
    (``jax.block_until_ready``) before anything else that is collective, of this problem or of another one.

    Args:
        problem: a ``ControlProblem``, or a ``ParticleProblem``, which has no ρ₀.

    Raises:
        InputError: it is none.
    """
    return Objective(problem)


def _joined(params: Any, shapes: Any) -> Any:
    """θ (L, p) of parameters with an axis of layers.

    Raises:
        InputError: they are not of these shapes behind that axis.
    """
    leaves, own = jax.tree.leaves(params), [each.shape for each in jax.tree.leaves(shapes)]
    found = [np.shape(leaf) for leaf in leaves]
    if any(shape[:1] != found[0][:1] or shape[1:] != each or not shape for shape, each in zip(found, own, strict=True)):
        what = f"an axis of layers is needed in front of the model's shapes {own}"
        raise InputError(what, key="theta", value=found)
    return jnp.concatenate([jnp.reshape(leaf, (found[0][0], -1)).astype(_real()) for leaf in leaves], axis=1)


def _real() -> Any:
    """JAX's precision of real numbers, as it is set."""
    return jax.dtypes.canonicalize_dtype(np.float64)
