"""PyTorch modules as velocity fields, and J as a function for PyTorch. Needs the extra ``eulerian[torch]``."""

from eulerian.fields.torch import TorchField, torch_field
from eulerian.torch.differentiable import Objective, objective

__all__ = ["Objective", "TorchField", "objective", "torch_field"]
