"""How densities move: the discontinuous Galerkin operator, the limiter, Runge-Kutta steps and their exact adjoint."""

from eulerian.base import parallel  # noqa: F401 - starts MPI, then PETSc, before anything here loads DOLFINx
