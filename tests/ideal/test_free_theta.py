"""The convex flow as parameters of a free field: every node gets its own velocity, on any number of ranks."""

from types import SimpleNamespace

from mpi4py import MPI

import numpy as np
import pytest
from problems import warped_mesh

from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.fields.nodal import Nodal
from eulerian.ideal.flow import nodal_theta
from eulerian.transport.velocity_space import VelocitySpace

LAYERS = 3


def moving(x: Floats, layer: int, label: int) -> Floats:
    """A velocity (n, dim) that tells nodes, layers and labels apart."""
    return np.asarray((1.0 + layer) * np.sin(x + label) + 0.1 * label)


def a_flow(velocity_space: VelocitySpace, masses: list[Floats]) -> SimpleNamespace:
    """A stand-in for a convex flow with these cell masses (n_owned,) of the labels at all times."""
    density_space, n_labels = velocity_space.density_space, len(masses)
    space = DensitySpace(density_space.mesh, 1, n_labels)
    rho = space.zeros()
    volumes = space.geometry.det[: space.n_owned] / space.phi0
    rho[: space.n_owned, 0] = np.stack(masses, axis=1) / volumes[:, None]
    values = [[moving(velocity_space.x, layer, y) for y in range(n_labels)] for layer in range(LAYERS)]
    return SimpleNamespace(
        grid=SimpleNamespace(horizon=1.5),
        linear_space=space,
        density_at=lambda _t: rho,
        velocities=lambda _space, _layers: np.array(values),
    )


def spaces(comm: MPI.Comm, dim: int, degree: int, cells: int | None = None) -> VelocitySpace:
    return VelocitySpace(DensitySpace(warped_mesh(comm, dim, cells), degree, 2))


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("degree", [0, 2])
def test_every_node_and_label_has_its_own(comm: MPI.Comm, dim: int, degree: int) -> None:
    space = spaces(comm, dim, degree)
    field = Nodal(space.all_nodes(), n_labels=2)
    ones = np.ones(space.density_space.n_owned)
    half = np.where(space.density_space.vertices[:, 0, 0] > 0.0, 1.0, 0.0)
    theta = nodal_theta(a_flow(space, [ones, half]), field, space, LAYERS)
    assert theta.shape == (LAYERS, field.n_params(dim))
    for layer in range(LAYERS):
        for y in range(2):
            found = field.value(theta[layer], space.x, y)
            np.testing.assert_allclose(found, moving(space.x, layer, y), rtol=1e-12, atol=1e-14)


def test_a_field_that_sees_no_labels_carries_the_same_momentum(comm: MPI.Comm) -> None:
    """Where both labels are: the mean weighted by mass. Where one is: its own velocity. Where none is: anything."""
    space = spaces(comm, 2, 1, 10)
    field = Nodal(space.all_nodes())
    right = space.density_space.vertices[:, :, 0].min(axis=1) > 0.2
    left = space.density_space.vertices[:, :, 0].max(axis=1) < -0.2
    masses = [np.where(left, 0.0, 1.0), np.where(right | left, 0.0, 3.0)]
    theta = nodal_theta(a_flow(space, masses), field, space, LAYERS)
    assert np.all(np.isfinite(theta))
    x = space.x
    middle, only_first = np.abs(x[:, 0]) < 0.1, x[:, 0] > 0.65
    total = comm.allreduce(np.array([middle.sum(), only_first.sum()]))
    assert np.all(total > 0)
    for layer in range(LAYERS):
        found = field.value(theta[layer], x)
        mean = 0.25 * moving(x, layer, 0) + 0.75 * moving(x, layer, 1)
        np.testing.assert_allclose(found[middle], mean[middle], rtol=1e-10)
        np.testing.assert_allclose(found[only_first], moving(x, layer, 0)[only_first], rtol=1e-10)
