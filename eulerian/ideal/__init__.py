"""The best that any velocity can do: the convex problem over all flows, and what it certifies."""

from eulerian.base import parallel  # noqa: F401 - starts MPI, then PETSc, before anything here loads DOLFINx
