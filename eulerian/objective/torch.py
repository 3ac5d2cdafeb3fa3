"""Losses and other costs written in PyTorch. Needs the extra ``eulerian[torch]``."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.torch import ravel, trained_parameters  # it says how many threads PyTorch may start, too
from eulerian.objective.density_values import DensityLoss, SensorLoss
from eulerian.objective.framework import (
    FrameworkFunction,
    FrameworkLoss,
    FrameworkPotential,
    Misfit,
    check_outcome,
    sees_label,
)


class TorchFunction(FrameworkFunction):
    """A function of rows in PyTorch, or a module; see ``point_loss`` for the arguments."""

    def __init__(
        self, f: Callable[..., Any], inputs: tuple[str, ...], *, trained: bool = True, batched: bool = True
    ) -> None:
        module = f if isinstance(f, torch.nn.Module) else None
        labelled = sees_label(f if module is None else module.forward, inputs, self.key)
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
            return [each.numpy(force=True) for each in (values, *zero)]

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
    return FrameworkLoss(TorchFunction(f, ("x", "label"), trained=trained, batched=batched))


def density_loss(f: Callable[..., Any], *, trained: bool = True, batched: bool = True) -> DensityLoss:
    """A terminal cost ∫f(x, ρ(T, x)) dx of the density's values, with derivatives by PyTorch.

    ``f(x, rho)`` takes points x (n, dim) and the densities rho (n, K) of all labels there, and returns (n,); it must be
    finite and differentiable for all rho ≥ 0, zero included. On a mesh it is integrated by the quadrature of the
    terminal cost. It is the mesh's density that counts, which numerical diffusion smears: a cost of concentration is
    lowered by that, and a verification tells by how much.

    Args:
        f: a function, or a ``torch.nn.Module``.
        trained: as for ``point_loss``.
        batched: false calls ``f`` with one point (dim,) and the densities (K,) there at a time, for a number.

    Raises:
        InputError: as for ``point_loss``.
    """
    return DensityLoss(TorchFunction(f, ("x", "rho"), trained=trained, batched=batched))


def sensor_loss(f: Callable[..., Any], points: ArrayLike, *, trained: bool = True) -> SensorLoss:
    """A terminal cost f(ρ(T, x_1), …, ρ(T, x_m)) of the densities at points of the user's own, by PyTorch.

    ``f(values)`` takes the densities (m, K) of all labels at all points, and returns a number. Where cells meet a value
    is the mean of theirs; values are those of the mesh's polynomials, which may fall a little below zero.

    Args:
        f: a function, or a ``torch.nn.Module``.
        points: (m, dim), in the domain, the same on all ranks.
        trained: as for ``point_loss``.

    Raises:
        InputError: as for ``point_loss``, or points are no rows of finite numbers.
    """
    return SensorLoss(TorchFunction(f, ("values",), trained=trained, batched=False), points)


def potential(f: Callable[..., Any], *, trained: bool = True, batched: bool = True) -> FrameworkPotential:
    """A potential V in ∫∫Vρ, with derivatives by PyTorch: ``Costs(potential=potential(f))``.

    ``f(x)`` takes points x (n, dim) and returns (n,). Parameters of a module are trained together with θ; they stand
    behind θ and the parameters of other costs, and count in the cost ``parameters``.

    Args:
        f: a function, or a ``torch.nn.Module``.
        trained: as for ``point_loss``.
        batched: as for ``point_loss``.

    Raises:
        InputError: as for ``point_loss``.
    """
    return FrameworkPotential(TorchFunction(f, ("x",), trained=trained, batched=batched))
