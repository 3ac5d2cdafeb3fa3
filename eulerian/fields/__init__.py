"""Velocity fields: what the network is. NumPy only."""

from eulerian.fields.base import VectorField, divergence, divergence_vjp, divergence_vjp_x
from eulerian.fields.features import RandomFeatures, Rbf, Residual
from eulerian.fields.frame import Frame, InBox
from eulerian.fields.linear import Affine, FeatureField, Translation
from eulerian.fields.mlp import Mlp
from eulerian.fields.nodal import Nodal
from eulerian.fields.user import load_field

__all__ = [
    "Affine",
    "FeatureField",
    "Frame",
    "InBox",
    "Mlp",
    "Nodal",
    "RandomFeatures",
    "Rbf",
    "Residual",
    "Translation",
    "VectorField",
    "divergence",
    "divergence_vjp",
    "divergence_vjp_x",
    "load_field",
]
