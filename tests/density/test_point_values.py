"""Values of a distributed density at points of any rank are those of the whole density."""

from mpi4py import MPI

import numpy as np
from paths import MESHES
from problems import random_density

from eulerian.app.build.mesh import create_mesh
from eulerian.app.config import Domain
from eulerian.density.gathered import GatheredDensity
from eulerian.density.point_values import PointValues
from eulerian.density.space import DensitySpace


def test_they_are_those_of_the_whole_density(comm: MPI.Comm) -> None:
    """Ranks' parts of a round domain have boxes that overlap; outside there is nothing."""
    space = DensitySpace(create_mesh(comm, Domain(file=MESHES / "disk.msh")), 2, 2)
    rho = random_density(space, 2, 0)
    low, high = space.bounding_box
    x = np.random.default_rng(comm.rank).uniform(low, high, (500 + comm.rank, 2))
    found = PointValues(space).values(rho, x)
    whole = GatheredDensity.gather(space, rho)
    assert np.allclose(found, whole.values(x), rtol=1e-12, atol=1e-14)
    assert 0 < np.count_nonzero(~whole.contains(x)) < len(x)
    assert PointValues(space).values(rho, x[:0]).shape == (0, 2)
