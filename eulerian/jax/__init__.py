"""JAX, Equinox and Flax models as velocity fields. Needs the extra ``eulerian[jax]``."""

from eulerian.fields.jax import JaxField, equinox_field, flax_field, jax_field

__all__ = ["JaxField", "equinox_field", "flax_field", "jax_field"]
