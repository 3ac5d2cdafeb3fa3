"""What no flow can do better: bounds of the continuous problem, and the certificates that are made of them."""

from eulerian.base import parallel  # noqa: F401 - starts MPI, then PETSc, before anything here loads DOLFINx
