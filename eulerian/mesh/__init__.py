"""Meshes of simplices: made, read, checked, refined, and how points are found in them."""

from eulerian.base import parallel  # noqa: F401 - starts MPI, then PETSc, before anything here loads DOLFINx
