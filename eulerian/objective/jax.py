"""Losses and other costs written in JAX. Needs the extra ``eulerian[jax]``."""

import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.jax import padded  # it says how many threads JAX may start, too
from eulerian.objective.density_values import DensityLoss, SensorLoss
from eulerian.objective.framework import FrameworkFunction, FrameworkLoss, FrameworkPotential, check_outcome, sees_label

type Params = Any

_UNTRAINABLE = "Write 1.0 for 1, keep other things out of the pytree, or say trained=False."


class JaxFunction(FrameworkFunction):
    """A function of rows in JAX; see ``point_loss`` for the arguments.

    The number of rows is padded to one of a few sizes, so that JAX compiles a handful of programs.
    """

    def __init__(
        self, f: Callable[..., Any], params: Params, inputs: tuple[str, ...], *, trained: bool, batched: bool
    ) -> None:
        labelled = sees_label(f, inputs, self.key, *(() if params is None else ("params",)))
        self._apply, params, self._rebuild = _parts(f, params)
        self._has_params = params is not None
        leaves, self._structure = jax.tree.flatten(params)
        self._fixed = None if trained else jax.tree.map(_double, params)
        self._dtypes = [getattr(leaf, "dtype", np.float64) for leaf in leaves] if trained else []
        leaves = [_trainable(leaf) for leaf in leaves] if trained else []
        self._shapes = [leaf.shape for leaf in leaves]
        self._ends = np.cumsum([leaf.size for leaf in leaves], dtype=int).tolist()
        start = np.concatenate([np.empty(0), *(leaf.ravel() for leaf in leaves)])
        super().__init__(start, labelled=labelled, batched=batched)

    def params(self, readout: Floats) -> Params:
        """What was given as ``params``, or the module, with the numbers of a vector (m,), as of a trained run."""
        flat = np.asarray(readout, dtype=np.float64)
        if flat.shape != self.start.shape:
            raise InputError(f"{self.start.size} numbers are needed", key="readout", value=flat.shape)
        with jax.enable_x64(True):  # outside it, float64 leaves would be cut to float32
            parts = zip(np.split(flat, self._ends[:-1]) if self._ends else [], self._shapes, self._dtypes, strict=True)
            leaves = [jnp.asarray(part.reshape(shape), dtype=dtype) for part, shape, dtype in parts]
        return self._rebuild(jax.tree.unflatten(self._structure, leaves))

    def _evaluate(self, parameters: Floats, rows: Sequence[Floats], w: Floats | None, label: int) -> Sequence[Any]:
        n = len(rows[0])
        extra = padded(n) - n if n > 1 else 0
        # Copies of a real row: a made-up one might lie where the function is singular.
        arrays = tuple(np.concatenate([a, np.repeat(a[-1:], extra, axis=0)]) if extra else a for a in rows)
        with jax.enable_x64(True):
            if w is None:
                return (np.asarray(self._compiled["value"](parameters, arrays, label))[:n],)
            weights = np.concatenate([w, np.zeros(extra)])
            values, (by_parameters, by_rows) = self._compiled["pull_back"](parameters, arrays, weights, label)
            return (np.asarray(values)[:n], by_parameters, *(np.asarray(by_row)[:n] for by_row in by_rows))

    @cached_property
    def _compiled(self) -> dict[str, Any]:
        """Both methods, differentiated and compiled."""

        def pull_back(parameters: Any, rows: Any, w: Any, label: Any) -> Any:
            values, pull = jax.vjp(lambda p, arrays: self._values(p, arrays, label), parameters, rows)
            return values, pull(w)

        return {"value": jax.jit(self._values), "pull_back": jax.jit(pull_back)}

    def _values(self, parameters: Any, rows: tuple[Any, ...], label: Any) -> Any:
        """Values (n,) in float64, while JAX traces."""
        first = (self._unravel(parameters),) if self._has_params else ()
        last = (label,) if self.labelled else ()

        def call(*arrays: Any) -> Any:
            outcome = self._apply(*first, *arrays, *last)
            shapes = " and ".join(str(tuple(array.shape)) for array in arrays)
            if isinstance(outcome, float | int):  # a constant
                outcome = jnp.full(arrays[0].shape[:1] if self.batched else (), float(outcome))
            check_outcome(outcome, rows[0].shape[0] if self.batched else None, f"arguments of shape {shapes}")
            return outcome.astype(jnp.float64)

        return call(*rows) if self.batched else jax.vmap(call)(*rows)

    def _unravel(self, flat: Any) -> Params:
        """The parameters of a row of them; differentiable."""
        if self._fixed is not None:
            # Arrays of JAX, made while it computes in 64 bits: a NumPy array cannot be indexed by a traced label.
            return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, self._fixed)
        starts = [0, *self._ends[:-1]]
        leaves = [
            flat[start:end].reshape(shape) for start, end, shape in zip(starts, self._ends, self._shapes, strict=True)
        ]
        return jax.tree.unflatten(self._structure, leaves)


def point_loss(
    f: Callable[..., Any], params: Params = None, *, trained: bool = True, batched: bool = False
) -> FrameworkLoss:
    """A terminal loss Σ_y ∫ℓ(x, y) ρ_y(T, x) dx of any JAX function, with derivatives by JAX.

    Without ``params`` it is ``f(x)`` or ``f(x, label)``, with them ``f(params, x)`` or ``f(params, x, label)``: of one
    point x (dim,), a number. It is passed the label, a whole number that JAX traces, where it takes one more argument.
    Parameters are trained together with θ, as a readout that is constant in time: they stand behind θ, leaf by leaf in
    JAX's order (``jax.tree.leaves``), and count in the cost ``parameters``. All is computed in float64.

    For example::

        centre = eulerian.jax.point_loss(lambda p, x: jnp.sum((x - p) ** 2), jnp.array([1.0, -0.5]))
        problem = eu.ControlProblem(space, field, rho0, centre)

    Args:
        f: differentiable, free of side effects; or an Equinox module, whose arrays are then ``params``.
        params: pytree of floating-point arrays.
        trained: false keeps the parameters as they are.
        batched: ``f`` takes points (n, dim) and returns (n,). Points must not influence one another.

    Raises:
        InputError: ``f`` cannot be called so, or parameters that are to be trained are no floating-point arrays.
    """
    return FrameworkLoss(JaxFunction(f, params, ("x", "label"), trained=trained, batched=batched))


def density_loss(
    f: Callable[..., Any], params: Params = None, *, trained: bool = True, batched: bool = False
) -> DensityLoss:
    """A terminal cost ∫f(x, ρ(T, x)) dx of any JAX function of the density's values, with derivatives by JAX.

    ``f(x, rho)``, or ``f(params, x, rho)``, takes a point x (dim,) and the densities rho (K,) of all labels there, and
    returns a number; it must be finite and differentiable for all rho ≥ 0, zero included. On a mesh it is integrated by
    the quadrature of the terminal cost. It is the mesh's density that counts, which numerical diffusion smears: a cost
    of concentration is lowered by that, and a verification tells by how much.

    For example, half the squared distance from another density, of one label::

        loss = eulerian.jax.density_loss(lambda x, rho: 0.5 * (rho[0] - jnp.exp(-x @ x / 2) / (2 * jnp.pi)) ** 2)

    Args:
        f: differentiable, free of side effects; or an Equinox module.
        params: as for ``point_loss``.
        trained: as for ``point_loss``.
        batched: ``f`` takes points (n, dim) and densities (n, K), and returns (n,).

    Raises:
        InputError: as for ``point_loss``.
    """
    return DensityLoss(JaxFunction(f, params, ("x", "rho"), trained=trained, batched=batched))


def sensor_loss(f: Callable[..., Any], points: ArrayLike, params: Params = None, *, trained: bool = True) -> SensorLoss:
    """A terminal cost f(ρ(T, x_1), …, ρ(T, x_m)) of the densities at points of the user's own, by JAX.

    ``f(values)``, or ``f(params, values)``, takes the densities (m, K) of all labels at all points, and returns a
    number. Where cells meet a value is the mean of theirs; values are those of the mesh's polynomials, which may fall
    a little below zero.

    For example, measurements of one label's density::

        loss = eulerian.jax.sensor_loss(lambda values: jnp.sum((values[:, 0] - measured) ** 2), points)

    Args:
        f: differentiable, free of side effects; or an Equinox module.
        points: (m, dim), in the domain, the same on all ranks.
        params: as for ``point_loss``.
        trained: as for ``point_loss``.

    Raises:
        InputError: as for ``point_loss``, or points are no rows of finite numbers.
    """
    return SensorLoss(JaxFunction(f, params, ("values",), trained=trained, batched=False), points)


def potential(
    f: Callable[..., Any], params: Params = None, *, trained: bool = True, batched: bool = False
) -> FrameworkPotential:
    """A potential V in ∫∫Vρ of any JAX function, with derivatives by JAX: ``Costs(potential=potential(f))``.

    ``f(x)``, or ``f(params, x)``, takes a point x (dim,) and returns a number. Parameters are trained together with θ;
    they stand behind θ and the parameters of other costs, and count in the cost ``parameters``.

    Args:
        f: differentiable, free of side effects; or an Equinox module.
        params: as for ``point_loss``.
        trained: as for ``point_loss``.
        batched: as for ``point_loss``.

    Raises:
        InputError: as for ``point_loss``.
    """
    return FrameworkPotential(JaxFunction(f, params, ("x",), trained=trained, batched=batched))


type _Parts = tuple[Callable[..., Any], Params, Callable[[Params], Any]]


def _parts(f: Any, params: Params) -> _Parts:
    """A function, its parameters, and how to put others in their place; a module of Equinox is a function with some."""
    if params is not None or jax.tree_util.all_leaves([f]):
        return f, params, lambda given: given
    equinox = sys.modules.get("equinox")
    leaves, structure = jax.tree.flatten(f if equinox is None else equinox.nn.inference_mode(f))
    own = [jnp.issubdtype(getattr(leaf, "dtype", np.int64), jnp.floating) for leaf in leaves]

    def rebuild(given: Params) -> Any:
        values = iter(given)
        return jax.tree.unflatten(
            structure, [next(values) if mine else leaf for mine, leaf in zip(own, leaves, strict=True)]
        )

    def apply(given: Params, *arguments: Any) -> Any:
        return rebuild(given)(*arguments)

    return apply, [leaf for mine, leaf in zip(own, leaves, strict=True) if mine], rebuild


def _trainable(leaf: Any) -> Floats:
    """A leaf as an array.

    Raises:
        InputError: it is no real floating-point number.
    """
    dtype = np.float64 if isinstance(leaf, float) else getattr(leaf, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        what = f"parameters that are trained are real floating-point arrays, one is {dtype or type(leaf).__name__}"
        raise InputError(what, key="params", remedy=_UNTRAINABLE)
    found = np.asarray(leaf).astype(np.float64)
    if not np.all(np.isfinite(found)):
        raise InputError("parameters that are trained must be finite", key="params", remedy="Start elsewhere.")
    return found


def _double(leaf: Any) -> Any:
    """A leaf that is not trained, in float64 where it is an array of floats."""
    dtype = getattr(leaf, "dtype", None)
    return np.asarray(leaf).astype(np.float64) if dtype is not None and jnp.issubdtype(dtype, jnp.floating) else leaf
