"""How densities move: the discontinuous Galerkin operator, the limiter, Runge-Kutta steps and their exact adjoint."""
