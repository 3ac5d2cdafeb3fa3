"""The Lagrangian method: the same field and the same objective on samples of the density."""
