"""Fields made of PyTorch modules. Needs the extra ``eulerian[torch]``.

In a module beside the configuration, whose field is then ``kind = "python"`` with ``object = "mymodel:field"``::

    from torch import nn
    from eulerian.torch import torch_field
    field = torch_field(nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2)))

A module keeps the precision of its parameters, which PyTorch makes in float32 unless told otherwise; velocities and
gradients are then good to 7 digits. ``dtype="float64"`` makes a copy of the module compute in double precision.
"""

import copy
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.framework import (
    KEY,
    FrameworkField,
    Inputs,
    call_model,
    check_outcome,
    missing,
    threads_per_rank,
)

try:
    import torch
except ImportError as error:
    raise missing("PyTorch", "torch", error) from error

if threads_per_rank() is not None:
    torch.set_num_threads(threads_per_rank())


class TorchField(FrameworkField):
    """A field whose model is a ``torch.nn.Module``; see ``torch_field`` for the arguments."""

    def __init__(
        self,
        module: Any,
        inputs: Inputs,
        *,
        batched: bool = True,
        dtype: str | None = None,
        initialise: Callable[[], Any] | None = None,
    ) -> None:
        if not isinstance(module, torch.nn.Module):
            raise InputError("must be a torch.nn.Module", key=KEY, value=type(module).__name__)
        self._given, self._batched, self._initialise = module, batched, initialise
        trained = trained_parameters(module)
        self._names, self._shapes = list(trained), [tuple(p.shape) for p in trained.values()]
        self._ends = np.cumsum([p.numel() for p in trained.values()], dtype=int).tolist()
        super().__init__(ravel(trained), inputs)
        # The copy belongs to this field: no later training, conversion or change of mode of the original reaches it.
        self._module = copy.deepcopy(module).eval().requires_grad_(False)
        if dtype is not None:
            self._module.to(_dtype(dtype))
        own = [p for name, p in self._module.named_parameters() if name in trained]
        self._dtypes, self._device = [p.dtype for p in own], own[0].device
        self._kind = self._dtypes[0]
        for other in self._dtypes:
            self._kind = torch.promote_types(self._kind, other)

    def in_double(self) -> "TorchField":
        """The same field, computing in float64."""
        if all(dtype == torch.float64 for dtype in self._dtypes):
            return self
        double = copy.copy(self)
        double._module = copy.deepcopy(self._module).double()
        double._dtypes, double._kind = [torch.float64] * len(self._dtypes), torch.float64
        return double

    def module(self, row: Floats) -> Any:
        """A copy of the module that was wrapped, in its own precision and mode, with the parameters ``row``."""
        flat = np.asarray(row, dtype=np.float64).reshape(self._ends[-1])
        result = copy.deepcopy(self._given)
        parts = np.split(flat, self._ends[:-1])
        with torch.no_grad():
            for parameter, part in zip(trained_parameters(result).values(), parts, strict=True):
                parameter.copy_(torch.from_numpy(part.copy()).reshape(parameter.shape))
        return result

    @property
    def named_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the trained parameters by name, in the order of θ."""
        return dict(zip(self._names, self._shapes, strict=True))

    def _fresh(self, seed: int) -> Floats | None:
        if self._initialise is None:
            return None
        with torch.random.fork_rng(devices=[]):  # PyTorch draws from a global generator: leave the user's as it was
            torch.manual_seed(seed)
            trained = trained_parameters(self._initialise())
        if [(name, tuple(p.shape)) for name, p in trained.items()] != list(zip(self._names, self._shapes, strict=True)):
            raise InputError("the initialiser makes parameters of another structure than the module has", key=KEY)
        return ravel(trained)

    def _evaluate(self, method: str, theta: Floats, x: Floats, w: Floats | None, label: int, time: float) -> Any:
        by_theta, by_x = method in ("vjp", "jacobian_vjp"), method.startswith("jacobian")
        with torch.enable_grad():
            row = torch.from_numpy(theta.copy()).to(self._device).requires_grad_(by_theta)
            points = torch.from_numpy(x.copy()).to(self._device).requires_grad_(by_x)
            v = self._values(row, points, label, time)
            if method == "value":
                return v.detach().cpu().numpy()
            cotangent = None if w is None else torch.from_numpy(w.copy()).to(self._device)
            if method == "vjp":
                return _gradient((v * cotangent).sum(), row).cpu().numpy()
            return self._second(method, row, points, v, cotangent).detach().cpu().numpy()

    @staticmethod
    def _second(method: str, row: Any, points: Any, v: Any, cotangent: Any) -> Any:
        """The Jacobian (n, dim, dim), or the gradient of its product with ``cotangent`` by θ or by x."""
        again = cotangent is not None
        # Points do not influence one another: the gradient of Σ_n v_i(x_n) holds row i of every Jacobian.
        rows = [_gradient(v[:, i].sum(), points, again=again) for i in range(v.shape[1])]
        jacobian = torch.stack(rows, dim=1)
        if not again:
            return jacobian
        return _gradient((jacobian * cotangent).sum(), row if method == "jacobian_vjp" else points)

    def _values(self, row: Any, points: Any, label: int, time: float) -> Any:
        """Velocities (n, dim) in float64, differentiable."""
        parts = torch.split(row, np.diff([0, *self._ends]).tolist())
        params = {
            name: part.reshape(shape).to(dtype)
            for name, part, shape, dtype in zip(self._names, parts, self._shapes, self._dtypes, strict=True)
        }
        moment = torch.tensor(time, dtype=self._kind, device=self._device)
        n, dim = points.shape
        shape: tuple[int, ...] = (dim,)
        given = f"a point of dimension {dim}"
        if self._batched:
            shape, given = (n, dim), f"{n} points of dimension {dim}"

        def model(point: Any) -> Any:
            arguments, keywords = self._arguments(point, label, moment)

            def call() -> Any:
                return torch.func.functional_call(self._module, params, arguments, keywords)

            outcome = call_model(call, self.inputs, dim)
            check_outcome(outcome, shape, given)
            return outcome.to(torch.float64)

        inputs = points.to(self._kind)
        return model(inputs) if self._batched else torch.func.vmap(model)(inputs)

    def _arguments(self, point: Any, label: int, time: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the module is called with: a point (dim,), or points (n, dim), and the label and the time."""
        inputs = self.inputs
        number = torch.tensor(label, device=self._device)
        if inputs.style == "separate":
            keywords = {"label": number} if inputs.n_labels else {}
            return (point,), keywords | ({"time": time} if inputs.time_dependent else {})
        parts = [torch.nn.functional.one_hot(number, inputs.n_labels).to(self._kind)] if inputs.n_labels else []
        parts += [time[None]] if inputs.time_dependent else []
        return (torch.cat([point, *(part.expand(*point.shape[:-1], -1) for part in parts)], dim=-1),), {}


def torch_field(
    module: Any,
    *,
    n_labels: int = 0,
    time_dependent: bool = False,
    inputs: Literal["joined", "separate"] = "joined",
    batched: bool = True,
    dtype: str | None = None,
    initialise: Callable[[], Any] | None = None,
    normalised: bool | None = None,
) -> TorchField:
    """A field from any ``torch.nn.Module``.

    θ holds the parameters that require gradients in the order of ``named_parameters()``, each row by row. All others,
    and the buffers, stay as they are; dropout and normalisation run as in evaluation. The module itself is copied and
    never changed; ``field.module(row)`` is a copy of it with trained parameters. A module on a GPU computes there.

    Args:
        module: maps points to velocities; differentiable twice where divergences are asked for.
        n_labels: number of labels that the module sees (with ``field.label_dependent = true``).
        time_dependent: the module sees the time.
        inputs: "joined": ``module((x, e_y, t))`` with the label's unit vector and the time behind the coordinates;
            "separate": ``module(x, label=y, time=t)``, both tensors without axes, as far as the module sees them.
        batched: the module takes points (n, ·); false calls it with one point (·,) at a time. Points must not
            influence one another.
        dtype: "float64" or "float32" to compute in; by default what the parameters are.
        initialise: makes a module with fresh parameters; by default θ starts from those of ``module``. What is drawn
            from PyTorch's global generator depends on the configuration's seed then.
        normalised: true where the module is to see points relative to the domain's box, from −1 to 1 on every axis, and
            to return velocities in units of half the longest side per horizon (and the time is t/T): then it trains
            alike in any units. By default it sees the user's coordinates; false says that they suit it.

    Raises:
        InputError: it is no module, or it has nothing to train.
    """
    given = Inputs(n_labels, time_dependent, inputs, normalised)
    return TorchField(module, given, batched=batched, dtype=dtype, initialise=initialise)


def trained_parameters(module: Any, key: str = KEY) -> dict[str, Any]:
    """Parameters that require gradients, by name; shared ones once; ``key`` is what messages name.

    Raises:
        InputError: they are not real floating-point numbers, or have no size yet.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    for name, p in trained.items():
        if torch.nn.parameter.is_lazy(p):
            raise InputError(f"the parameter {name} has no shape yet", key=key, remedy="Call the module once.")
        if not p.is_floating_point():
            raise InputError(f"parameters are real floating-point numbers, {name} is {p.dtype}", key=key)
    return trained


def _gradient(scalar: Any, by: Any, *, again: bool = False) -> Any:
    """Gradient of a scalar, zero where it does not depend on ``by`` at all."""
    if not scalar.requires_grad:
        return torch.zeros_like(by)
    (gradient,) = torch.autograd.grad(scalar, by, create_graph=again, retain_graph=True, allow_unused=True)
    return torch.zeros_like(by) if gradient is None else gradient


def _dtype(name: str) -> Any:
    if name not in ("float64", "float32"):
        raise InputError('must be "float64" or "float32"', key="dtype", value=name)
    return getattr(torch, name)


def ravel(trained: dict[str, Any]) -> Floats:
    """Parameters as one row, each row by row."""
    parts = [p.detach().cpu().to(torch.float64).numpy().ravel() for p in trained.values()]
    return np.concatenate([np.empty(0), *parts])
