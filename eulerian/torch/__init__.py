"""PyTorch modules as velocity fields, losses in PyTorch, and J for PyTorch. Needs the extra ``eulerian[torch]``."""

from eulerian.fields.torch import TorchField, torch_field
from eulerian.objective.torch import TorchFunction, density_loss, point_loss, potential, sensor_loss
from eulerian.torch.differentiable import Objective, objective

__all__ = [
    "Objective",
    "TorchField",
    "TorchFunction",
    "density_loss",
    "objective",
    "point_loss",
    "potential",
    "sensor_loss",
    "torch_field",
]
