"""PyTorch modules as velocity fields, and losses written in PyTorch. Needs the extra ``eulerian[torch]``."""

from eulerian.fields.torch import TorchField, torch_field
from eulerian.objective.torch import TorchFunction, density_loss, point_loss, potential, sensor_loss

__all__ = ["TorchField", "TorchFunction", "density_loss", "point_loss", "potential", "sensor_loss", "torch_field"]
