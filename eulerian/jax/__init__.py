"""JAX, Equinox and Flax models as velocity fields, and J as a function for JAX. Needs the extra ``eulerian[jax]``."""

from eulerian.fields.jax import JaxField, equinox_field, flax_field, jax_field
from eulerian.jax.differentiable import Objective, objective

__all__ = ["JaxField", "Objective", "equinox_field", "flax_field", "jax_field", "objective"]
