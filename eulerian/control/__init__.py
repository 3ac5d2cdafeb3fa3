"""The control problem: θ ↦ J(θ) on densities, with its exact gradient."""

from eulerian.base import parallel  # noqa: F401 - starts MPI, then PETSc, before anything here loads DOLFINx
