"""PyTorch modules as velocity fields. Needs the extra ``eulerian[torch]``."""

from eulerian.fields.torch import TorchField, torch_field

__all__ = ["TorchField", "torch_field"]
