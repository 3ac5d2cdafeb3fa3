"""JAX, Equinox and Flax models as velocity fields, losses in JAX, and J for JAX. Needs the extra ``eulerian[jax]``."""

from eulerian.fields.jax import JaxField, equinox_field, flax_field, jax_field
from eulerian.jax.differentiable import Objective, objective
from eulerian.objective.jax import JaxFunction, density_loss, point_loss, potential, sensor_loss

__all__ = [
    "JaxField",
    "JaxFunction",
    "Objective",
    "density_loss",
    "equinox_field",
    "flax_field",
    "jax_field",
    "objective",
    "point_loss",
    "potential",
    "sensor_loss",
]
