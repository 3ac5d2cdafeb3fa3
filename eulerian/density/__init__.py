"""Densities: discontinuous Galerkin spaces, what is projected into them, and what is read off them."""
