"""Velocity fields: what the network is. NumPy only."""

from eulerian.fields.base import VectorField, divergence, divergence_vjp
from eulerian.fields.build import build_field, initial_theta
from eulerian.fields.free import Free
from eulerian.fields.linear import Affine, FeatureField, RandomFeatures, Rbf, Residual, Translation
from eulerian.fields.mlp import Mlp
from eulerian.fields.python import load_field

__all__ = [
    "Affine",
    "FeatureField",
    "Free",
    "Mlp",
    "RandomFeatures",
    "Rbf",
    "Residual",
    "Translation",
    "VectorField",
    "build_field",
    "divergence",
    "divergence_vjp",
    "initial_theta",
    "load_field",
]
