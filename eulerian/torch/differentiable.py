"""J(θ, ρ₀) as a function that PyTorch differentiates."""

from collections.abc import Iterable, Mapping
from typing import Any, final

import numpy as np
import torch

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.frame import unwrapped


@final
class Objective:
    """J(θ, ρ₀) for PyTorch; see ``objective``.

    Attributes:
        problem: whose J it is.
    """

    def __init__(self, problem: Any) -> None:
        from eulerian.control.evaluations import Evaluations  # here: who makes a field needs neither meshes nor MPI

        self._evaluate, self.problem = Evaluations(problem), problem
        self._shapes: dict[str, tuple[int, ...]] = getattr(unwrapped(problem.field), "named_shapes", {})

    def __call__(self, theta: Any, rho0: Any = None) -> Any:
        """J, a tensor without axes. See ``objective``. Collective."""
        flat = self._flat(theta)
        rho = None if rho0 is None else torch.as_tensor(rho0)
        if rho is not None:
            self.problem.check_rho0(tuple(rho.shape))
        # Asked here: within the function, gradients are switched off.
        wanted = torch.is_grad_enabled() and (flat.requires_grad or (rho is not None and rho.requires_grad))
        return _J.apply(self._evaluate, wanted, flat, rho)[0]

    @property
    def initial_theta(self) -> Any:
        """Where optimisers start, in float64, without gradients.

        For a module it is a dictionary of its trained parameters by name, with an axis of layers in front, and for
        other fields a tensor like the problem's; with a trained readout it is ``{"layers": …, "readout": …}``.
        """
        flat = torch.from_numpy(self.problem.initial_theta.ravel())
        layers, size = self.problem.layer_shape, int(np.prod(self.problem.layer_shape))
        rows, readout = flat[:size].reshape(layers), flat[size:]
        if self._shapes:
            parts = torch.split(rows, [int(np.prod(shape)) for shape in self._shapes.values()], dim=1)
            named = zip(self._shapes.items(), parts, strict=True)
            rows = {name: part.reshape(len(part), *shape).clone() for (name, shape), part in named}
        return {"layers": rows, "readout": readout.clone()} if len(readout) else rows

    def theta(self, parameters: Any) -> Floats:
        """θ as problems take it, of any form that J takes. Not collective.

        Returns:
            In the shape of the problem's ``initial_theta``, in float64: for ``Flow``, ``minimise``, ``save_theta``.

        Raises:
            InputError: they do not fit.
        """
        flat: Floats = np.array(_numbers(self._flat(parameters)))
        return flat.reshape(self.problem.initial_theta.shape)

    # -- θ in its forms ----------------------------------------------------------------------------------------------

    def _flat(self, theta: Any) -> Any:
        """θ as problems take it, (n_params,) in float64; differentiable."""
        layers: Any = theta
        readout: Iterable[Any] = ()
        if isinstance(theta, Mapping) and "layers" in theta and set(theta) <= {"layers", "readout"}:
            layers, readout = theta["layers"], _tensors(theta.get("readout"))
        parts = [torch.ravel(self._rows(layers)), *map(torch.ravel, readout)]
        flat = torch.cat([part.to(parts[0].device, torch.float64) for part in parts])
        self._evaluate.check_size(flat.numel())
        return flat

    def _rows(self, layers: Any) -> Any:
        """The layers' parameters: a tensor, parameters by name with an axis of layers, or one module per layer."""
        if isinstance(layers, Mapping):
            return self._by_name(layers)
        if isinstance(layers, torch.nn.Module) and not isinstance(layers, torch.nn.ModuleList):
            layers = [layers]
        if isinstance(layers, torch.nn.ModuleList | list | tuple) and len(layers):
            if all(isinstance(each, torch.nn.Module) for each in layers):
                each = [dict(module.named_parameters()) for module in layers]
                return torch.cat([self._by_name({name: p[None] for name, p in named.items()}) for named in each])
            if all(isinstance(each, Mapping) for each in layers):
                return torch.cat([self._by_name({name: p[None] for name, p in named.items()}) for named in layers])
        try:
            return torch.as_tensor(layers)
        except (TypeError, ValueError, RuntimeError):
            kinds = "a tensor, a dictionary of parameters with an axis of layers, or one module per layer"
            raise InputError(f"must be {kinds}", key="theta", value=type(layers).__name__) from None

    def _by_name(self, parameters: Mapping[str, Any]) -> Any:
        """θ (L, p) of parameters with an axis of layers; those that are not trained are left out."""
        missing = sorted(set(self._shapes) - set(parameters))
        if not self._shapes or missing:
            what = f"the module has no parameter {missing[0]}" if missing else "the field is no PyTorch module"
            raise InputError(what, key="theta", value=sorted(parameters))
        taken = [(name, parameters[name], shape) for name, shape in self._shapes.items()]
        layers = tuple(taken[0][1].shape[:1])
        for name, tensor, shape in taken:
            if tuple(tensor.shape) != (*layers, *shape) or not layers:
                what = f"the parameter {name} needs an axis of layers in front of its shape {tuple(shape)}"
                raise InputError(what, key="theta", value=tuple(tensor.shape))
        return torch.cat([tensor.reshape(*layers, -1) for _, tensor, _ in taken], dim=1)


def _tensors(what: Any) -> Iterable[Any]:
    """The tensors of a readout: itself, or all in a dictionary, list or module, in their order."""
    if what is None:
        return []
    if isinstance(what, torch.nn.Module):
        return [p for p in what.parameters() if p.requires_grad]
    if isinstance(what, Mapping):
        return [tensor for each in what.values() for tensor in _tensors(each)]
    if isinstance(what, list | tuple):
        return [tensor for each in what for tensor in _tensors(each)]
    return [torch.as_tensor(what)]


class _J(torch.autograd.Function):
    """J, and beside it the derivatives, for the way back."""

    @staticmethod
    def forward(evaluate: Any, wanted: bool, flat: Any, rho: Any) -> Any:
        """The value, and both derivatives as far as they are wanted."""
        found = evaluate(_numbers(flat), None if rho is None else _numbers(rho), derivatives=wanted)
        value = torch.tensor(found.value, dtype=torch.float64, device=flat.device)
        pairs = (found.gradient, flat), (found.by_rho0, rho)
        return value, *(None if each is None else torch.from_numpy(each).to(like) for each, like in pairs)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the derivatives, and what they are functions of."""
        ctx.mark_non_differentiable(*(each for each in output[1:] if each is not None))
        ctx.save_for_backward(*inputs[2:], *output[1:])

    @staticmethod
    def backward(ctx: Any, by_value: Any, *_: Any) -> Any:
        """Derivatives by θ and ρ₀."""
        found = _Slopes.apply(*ctx.saved_tensors)
        return None, None, *(None if each is None else by_value * each for each in found)

    @staticmethod
    def vmap(info: Any, in_dims: Any, evaluate: Any, wanted: bool, flat: Any, rho: Any) -> Any:
        """One evaluation after the other."""
        rows = [
            _J.apply(evaluate, wanted, _picked(flat, in_dims[2], i), _picked(rho, in_dims[3], i))
            for i in range(info.batch_size)
        ]
        stacked = [None if each[0] is None else torch.stack(each) for each in zip(*rows, strict=True)]
        return tuple(stacked), tuple(None if each is None else 0 for each in stacked)


class _Slopes(torch.autograd.Function):
    """The derivatives as functions of θ and ρ₀, so that who differentiates again hears that there is no more.

    Without this PyTorch would take them for constants, and second derivatives for zero.
    """

    @staticmethod
    def forward(flat: Any, rho: Any, gradient: Any, by_rho: Any) -> Any:  # noqa: ARG004 - functions of the first two
        """The derivatives themselves."""
        return tuple(None if each is None else each.clone() for each in (gradient, by_rho))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(*_: Any) -> Any:
        """There are no second derivatives."""
        remedy = "Take differences of gradients, or an optimiser that asks for first derivatives only."
        raise InputError("J has no second derivatives", key="objective", remedy=remedy)

    @staticmethod
    def vmap(info: Any, in_dims: Any, flat: Any, rho: Any, gradient: Any, by_rho: Any) -> Any:
        """All at once."""
        del info
        return _Slopes.apply(flat, rho, gradient, by_rho), in_dims[2:]


def _picked(tensor: Any, dim: int | None, index: int) -> Any:
    return tensor if dim is None else tensor.select(dim, index)


def _numbers(tensor: Any) -> Any:
    return tensor.detach().to("cpu", torch.float64).numpy()


def objective(problem: Any) -> Objective:
    """J(θ, ρ₀) of a problem as a function for PyTorch, with first derivatives in both arguments.

    For example, with Adam instead of the package's own optimiser::

        J = eulerian.torch.objective(problem)
        layers = torch.nn.ModuleList(copy.deepcopy(module) for _ in range(problem.n_layers))
        adam = torch.optim.Adam(layers.parameters(), lr=1e-2)
        for _ in range(100):
            adam.zero_grad()
            value = J(layers)
            value.backward()
            adam.step()

    θ is a tensor like the problem's ``initial_theta``. For a field of a PyTorch module it may also be a list of such
    modules, one for each layer, or a dictionary of its parameters by name with an axis of layers in front, as
    ``torch.func.stack_module_state`` makes it (``J.initial_theta``); tied layers are one. What the costs train besides
    stands in a dictionary ``{"layers": θ, "readout": r}``, r a tensor, or those of the loss. ``J.theta(layers)`` is the
    array that ``Flow`` and the problem's own methods take.

    ρ₀ is a tensor (C, nd, K) of the coefficients of all cells, as ``Density.to_array`` makes them; see
    ``ControlProblem.value_and_gradients`` for what J is then, and what its derivative is where ρ₀ is zero. Without it J
    starts from the problem's own density.

    J is a tensor of float64, with the bits that the problem itself gives, and so are gradients by tensors of float64.
    Where J cannot be evaluated it is +∞ with derivatives of zero. Second derivatives are an InputError.

    Under ``mpirun`` J is collective: all ranks call it, rank 0's θ counts, and all ranks get the same numbers.

    Args:
        problem: a ``ControlProblem``, or a ``ParticleProblem``, which has no ρ₀.

    Raises:
        InputError: it is none.
    """
    return Objective(problem)
