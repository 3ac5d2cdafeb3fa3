"""JAX, Equinox and Flax models as velocity fields, and losses written in JAX. Needs the extra ``eulerian[jax]``."""

from eulerian.fields.jax import JaxField, equinox_field, flax_field, jax_field
from eulerian.objective.jax import JaxFunction, point_loss

__all__ = ["JaxField", "JaxFunction", "equinox_field", "flax_field", "jax_field", "point_loss"]
