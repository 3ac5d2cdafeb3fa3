"""JAX, Equinox and Flax models as velocity fields, and losses written in JAX. Needs the extra ``eulerian[jax]``."""

from eulerian.fields.jax import JaxField, equinox_field, flax_field, jax_field
from eulerian.objective.jax import JaxFunction, density_loss, point_loss, potential, sensor_loss

__all__ = [
    "JaxField",
    "JaxFunction",
    "density_loss",
    "equinox_field",
    "flax_field",
    "jax_field",
    "point_loss",
    "potential",
    "sensor_loss",
]
