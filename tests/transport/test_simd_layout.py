"""Densities in batches: there and back, who is across, and what ranks exchange."""

from mpi4py import MPI

import numpy as np
import pytest
from problems import projected, random_density, random_rows, warped_mesh
from thinning import thinned

from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.transport.element import NodalElement
from eulerian.transport.operator import TransportOperator, pointer
from eulerian.transport.simd_layout import LANES, NodalLayout, aligned
from eulerian.transport.ssp import SSPScheme
from eulerian.transport.velocity_space import VelocitySpace

CASES = [(dim, degree) for dim in (1, 2, 3) for degree in (0, 1, 2)]
COLUMNS = thinned((1, 2, 3, 8, 9), {3, 9}, {9})


def layout_of(comm: MPI.Comm, dim: int, degree: int, columns: int = 1) -> NodalLayout:
    return NodalLayout(DensitySpace(warped_mesh(comm, dim), degree, columns), columns)


def offset(layout: NodalLayout, column: int) -> int:
    """Where a column's numbers stand, relative to ``places``."""
    group, lane = divmod(column, layout.width)
    return group * layout.space.nd * LANES + lane


def node_coordinates(layout: NodalLayout) -> Floats:
    """Physical coordinates of every cell's nodes in the layout's order, (n_cells, nd, dim)."""
    geometry = layout.space.geometry
    corners = np.take_along_axis(geometry.vertices, geometry.vertex_order[:, :, None], axis=1)
    return corners[:, :1] + layout.element.nodes @ (corners[:, 1:] - corners[:, :1])


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_there_and_back(comm: MPI.Comm, dim: int, degree: int, columns: int) -> None:
    layout = layout_of(comm, dim, degree, columns)
    n = layout.space.n_owned
    rho = random_rows(layout.space, columns, 1)
    packed = layout.pack(rho, fill=7.0)
    assert packed.shape == layout.shape
    assert packed.ctypes.data % 64 == 0
    np.testing.assert_allclose(layout.unpack(packed)[:n], rho[:n], atol=1e-13)
    assert np.all(layout.unpack(packed)[n:] == 0.0)
    np.testing.assert_allclose(layout.unpack_derivative(layout.pack_derivative(rho))[:n], rho[:n], atol=1e-13)
    cells = packed.size // (layout.groups * layout.width)
    assert np.sum(packed == 7.0) == (cells - layout.space.n_cells * layout.space.nd) * columns
    assert np.sum(packed == 0.0) == cells * (layout.groups * layout.width - columns)


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_packed_values_are_those_at_the_nodes(comm: MPI.Comm, dim: int, degree: int, columns: int) -> None:
    """A linear density, or its means where p = 0, has its own values at the nodes, ghosts included."""
    layout = layout_of(comm, dim, degree, columns)
    space = layout.space
    rule = space.quadrature(4)
    slope = np.arange(1.0, dim + 1)
    rho = projected(space, (rule.points @ slope)[..., None] * np.arange(1.0, columns + 1), rule)
    flat = layout.pack(rho).ravel()
    for k in range(columns):
        there = flat[layout.places + offset(layout, k)]
        np.testing.assert_allclose(there, (k + 1) * node_coordinates(layout) @ slope, atol=1e-12)


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_across_is_the_same_place(comm: MPI.Comm, dim: int, degree: int) -> None:
    """The nodes of a facet seen from both sides have the same coordinates; at the boundary they are the own ones."""
    layout = layout_of(comm, dim, degree)
    space, x = layout.space, node_coordinates(layout)
    of_place = np.full((int(np.prod(layout.shape)), dim), np.nan)
    of_place[layout.places.ravel()] = x.reshape(-1, dim)
    across = np.moveaxis(layout.across(), 3, 1).reshape(-1, dim + 1, layout.across().shape[2])[: space.n_owned]
    facet_nodes = layout.element.facet_nodes(layout.element.nodes)
    own = layout.places[: space.n_owned, facet_nodes]
    boundary = np.take_along_axis(space.geometry.neighbours, space.geometry.vertex_order, axis=1)[: space.n_owned] < 0
    np.testing.assert_array_equal(np.all(across == own, axis=2), boundary)
    if degree > 0:
        np.testing.assert_allclose(of_place[across], of_place[own], atol=1e-13)


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_exchange_brings_what_is_looked_at(comm: MPI.Comm, dim: int, degree: int, columns: int) -> None:
    """Every ghost node that an owned cell sees, and no other number."""
    space = DensitySpace(warped_mesh(comm, dim), degree, columns)
    operator = TransportOperator(space, VelocitySpace(space), columns)
    layout = operator.layout
    packed = layout.pack(random_density(space, columns, 1), fill=1.0)
    packed[...] = packed.round(6)  # ranks round in their own way: a product's last digit depends on its number of rows
    expected = packed.copy().ravel()
    packed[layout.n_batches :] = np.nan
    operator.kernels.exchange(operator.scheme, pointer(packed))

    across = layout.across()
    seen = np.concatenate([across.ravel() + offset(layout, k) for k in range(columns)])
    np.testing.assert_array_equal(packed.ravel()[seen], expected[seen])
    ghosts = packed[layout.n_batches :].ravel()
    assert np.sum(~np.isnan(ghosts)) == layout.groups * layout.width * len(
        np.unique(across[across >= expected.size - ghosts.size])
    )
    assert operator.exchanges == (1 if comm.size > 1 else 0)
    assert (operator.scheme.n_requests > 0) == (comm.size > 1)


@pytest.mark.one_process
@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_tables(dim: int, degree: int) -> None:
    """Constants have mean one, their representers too, and facet nodes carry what the whole cell has on a facet."""
    space = DensitySpace(warped_mesh(MPI.COMM_SELF, dim), degree, 1)
    element = NodalElement.of(space)
    tables = element.tables(space.limiter_points, SSPScheme.of(space.dim, degree))
    assert tables["MEAN"].sum() == pytest.approx(1.0, rel=1e-14)
    np.testing.assert_allclose(tables["TRACE"].sum(axis=1), 1.0, rtol=1e-13)
    np.testing.assert_allclose(tables["LIMITER"].sum(axis=1), 0.0, atol=1e-13)
    np.testing.assert_allclose(tables["REPRESENTER"][:-1] @ tables["MEAN"], 1.0, rtol=1e-12)
    for facet in range(dim + 1):
        nodes = element.nodes[tables["FACET_NODES"][facet]]
        weight = 1.0 - nodes.sum(axis=1) if facet == 0 else nodes[:, facet - 1]
        assert degree == 0 or np.abs(weight).max() < 1e-12


@pytest.mark.one_process
def test_aligned() -> None:
    for size in (1, 3, 1000):
        array = aligned((size, 2))
        assert array.ctypes.data % 64 == 0
        assert array.shape == (size, 2)
        assert not array.any()
