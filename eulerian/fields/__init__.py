"""Velocity fields: what the network is. NumPy only."""

from eulerian.fields.base import VectorField
from eulerian.fields.features import Affine, Linear, RandomFeatures, Rbf, Residual, Translation
from eulerian.fields.frame import Frame, NormalisedField, in_box
from eulerian.fields.linear import FeatureField
from eulerian.fields.mlp import Mlp
from eulerian.fields.nodal import Nodal
from eulerian.fields.speed_limit import SpeedLimit
from eulerian.fields.user import load_field

__all__ = [
    "Affine",
    "FeatureField",
    "Frame",
    "Linear",
    "Mlp",
    "Nodal",
    "NormalisedField",
    "RandomFeatures",
    "Rbf",
    "Residual",
    "SpeedLimit",
    "Translation",
    "VectorField",
    "in_box",
    "load_field",
]
