"""Where densities and velocities live: meshes, discontinuous densities, continuous velocities."""
