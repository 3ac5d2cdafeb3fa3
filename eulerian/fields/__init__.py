"""Velocity fields: what the network is. NumPy only."""

from eulerian.fields.base import VectorField, divergence, divergence_vjp, divergence_vjp_x
from eulerian.fields.build import build_field, initial_theta
from eulerian.fields.features import RandomFeatures, Rbf, Residual
from eulerian.fields.frame import Frame, InBox
from eulerian.fields.free import Free
from eulerian.fields.linear import Affine, FeatureField, Translation
from eulerian.fields.mlp import Mlp
from eulerian.fields.python import load_field

__all__ = [
    "Affine",
    "FeatureField",
    "Frame",
    "Free",
    "InBox",
    "Mlp",
    "RandomFeatures",
    "Rbf",
    "Residual",
    "Translation",
    "VectorField",
    "build_field",
    "divergence",
    "divergence_vjp",
    "divergence_vjp_x",
    "initial_theta",
    "load_field",
]
