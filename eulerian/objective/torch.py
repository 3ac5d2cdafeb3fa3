"""Losses and other costs written in PyTorch. Needs the extra ``eulerian[torch]``."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.torch import ravel, trained_parameters  # it says how many threads PyTorch may start, too
from eulerian.objective.framework import FrameworkFunction, FrameworkLoss, Misfit, check_outcome
from eulerian.objective.losses import takes_label


class TorchFunction(FrameworkFunction):
    """A function of rows in PyTorch, or a module; see ``point_loss`` for the arguments."""

    def __init__(
        self, f: Callable[..., Any], inputs: tuple[str, ...], *, trained: bool = True, batched: bool = True
    ) -> None:
        if not callable(f):
            raise InputError("is no function", key="f", value=type(f).__name__, remedy="Give f(x), or a module.")
        module = f if isinstance(f, torch.nn.Module) else None
        labelled = inputs == ("x",) and takes_label(f if module is None else module.forward, self.key, inputs)
        parameters = trained_parameters(module, self.key) if trained and module is not None else {}
        self._function, self._given, self._module = f, module, None
        self._names, self._shapes = list(parameters), [tuple(p.shape) for p in parameters.values()]
        self._sizes = [p.numel() for p in parameters.values()]
        self._device = torch.device("cpu")
        if module is not None:
            # The copy belongs to this function: no later training or conversion of the original reaches it.
            self._module = copy.deepcopy(module).eval().requires_grad_(False).double()
            self._device = next((p.device for p in module.parameters()), self._device)
        start = ravel(parameters)
        if not np.all(np.isfinite(start)):
            raise InputError("the module holds parameters that are not finite", key=self.key, remedy="Start elsewhere.")
        super().__init__(start, labelled=labelled, batched=batched)

    def module(self, readout: Floats) -> Any:
        """A copy of the module that was given, with the parameters that a vector (m,), as of a trained run, holds."""
        if self._given is None:
            raise InputError("was made of a function, which has no parameters", key=self.key, remedy="Give a module.")
        result = copy.deepcopy(self._given)
        parts = np.split(np.asarray(readout, dtype=np.float64), np.cumsum(self._sizes)[:-1].tolist())
        named = dict(result.named_parameters())
        with torch.no_grad():
            for name, part in zip(self._names, parts, strict=True):
                named[name].copy_(torch.from_numpy(part.copy()).reshape(named[name].shape))
        return result

    def _evaluate(self, parameters: Floats, rows: Sequence[Floats], w: Floats | None, label: int) -> Sequence[Any]:
        differentiated = w is not None
        with torch.enable_grad():
            arrays = [self._tensor(array, differentiated) for array in rows]
            flat = self._tensor(parameters, differentiated)
            values = self._values(flat, arrays, label)
            if w is None:
                return (values.detach().cpu().numpy(),)
            leaves = [flat, *arrays]
            if not values.requires_grad:
                if float(np.ptp(values.numpy(force=True))) > 0.0:
                    what = "the function leaves PyTorch, so that nothing can be differentiated"
                    raise Misfit(what, "Take .numpy(), .item(), .detach() and torch.no_grad() out of it.")
                found = [None] * len(leaves)
            else:
                cotangent = self._tensor(w, False)
                found = torch.autograd.grad(values, leaves, cotangent, allow_unused=True)
            zero = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]
            return [each.numpy(force=True) for each in zero]

    def _values(self, flat: Any, rows: list[Any], label: int) -> Any:
        """Values (n,) in float64, differentiable."""
        parts = torch.split(flat, self._sizes) if self._sizes else []
        parameters = {
            name: part.reshape(shape) for name, part, shape in zip(self._names, parts, self._shapes, strict=True)
        }
        last, n = ((label,) if self.labelled else ()), len(rows[0])

        def call(*arrays: Any) -> Any:
            if self._module is None:
                outcome = self._function(*arrays, *last)
            else:
                outcome = torch.func.functional_call(self._module, parameters, (*arrays, *last))
            if isinstance(outcome, float | int):  # a constant
                outcome = arrays[0].new_full(arrays[0].shape[:1] if self.batched else (), float(outcome))
            shapes = " and ".join(str(tuple(array.shape)) for array in arrays)
            check_outcome(outcome, n if self.batched else None, f"arguments of shape {shapes}")
            return outcome.to(torch.float64)

        if self.batched:
            return call(*rows)
        # One row needs no vmap, which not every function of PyTorch can go through.
        return call(*(array[0] for array in rows))[None] if n == 1 else torch.func.vmap(call)(*rows)

    def _tensor(self, array: Floats, differentiated: bool) -> Any:
        # A copy: the function may write into its arguments.
        return torch.from_numpy(np.array(array)).to(self._device).requires_grad_(differentiated)


def point_loss(f: Callable[..., Any], *, trained: bool = True, batched: bool = True) -> FrameworkLoss:
    """A terminal loss Σ_y ∫ℓ(x, y) ρ_y(T, x) dx of PyTorch, with derivatives by PyTorch.

    ``f(x)`` or ``f(x, label)`` takes points x (n, dim), a tensor of float64, and returns (n,); it is passed the label,
    a whole number, where it takes one more argument. Of a module the parameters that require gradients are trained
    together with θ, as a readout that is constant in time: they stand behind θ in the order of ``named_parameters()``,
    and count in the cost ``parameters``. The module is copied, computes in float64, and behaves as in evaluation.

    For example::

        loss = eulerian.torch.point_loss(lambda x: ((x - torch.tensor([1.0, -0.5])) ** 2).sum(-1))
        problem = eu.ControlProblem(space, field, rho0, loss)

    Args:
        f: a function, or a ``torch.nn.Module``.
        trained: false keeps a module's parameters as they are.
        batched: false calls ``f`` with one point (dim,) at a time, for a number. Points must not influence one another.

    Raises:
        InputError: ``f`` cannot be called so, or a module's parameters are no real floating-point numbers.
    """
    return FrameworkLoss(TorchFunction(f, ("x",), trained=trained, batched=batched))
