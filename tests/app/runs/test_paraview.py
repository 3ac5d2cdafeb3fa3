"""What ParaView is given is opened again and compared with what was written."""

import xml.etree.ElementTree as ET
from pathlib import Path

from mpi4py import MPI

import meshio
import numpy as np
import pytest
from moving_densities import cell_nodes, linear_samples

from eulerian.app.runs.paraview import ParaviewWriter, VtuGrid

CELLS = {(1, 1): "line", (2, 1): "triangle", (3, 1): "tetra", (1, 2): "line3", (2, 2): "triangle6", (3, 2): "tetra10"}


def pieces(folder: Path, name: str) -> list[meshio.Mesh]:
    """The VTU files behind an entry of a collection."""
    if name.endswith(".vtu"):
        return [meshio.read(folder / name)]
    root = ET.parse(folder / name).getroot()
    return [meshio.read(folder / piece.attrib["Source"]) for piece in root.iter("Piece")]


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("label_dependent", [False, True])
def test_reopened(comm: MPI.Comm, tmp_path: Path, dim: int, degree: int, label_dependent: bool) -> None:
    nodes = cell_nodes(comm, dim, degree, n_labels=2, n=2)
    writer = ParaviewWriter(tmp_path, nodes)
    for sample in linear_samples(nodes, [0.0, 0.5], label_dependent):
        writer.write(*sample)
    comm.barrier()
    n_cells = comm.allreduce(nodes.density_space.n_owned)

    sets = list(ET.parse(tmp_path / "densities.pvd").getroot().iter("DataSet"))
    assert [float(entry.attrib["timestep"]) for entry in sets] == [0.0, 0.5]
    for entry, t in zip(sets, [0.0, 0.5], strict=True):
        meshes = pieces(tmp_path, entry.attrib["file"])
        assert sum(len(mesh.cells[0].data) for mesh in meshes) == n_cells
        for mesh in meshes:
            assert [block.type for block in mesh.cells] == [CELLS[dim, max(degree, 1)]]
            x = mesh.points[:, :dim]
            assert np.all(mesh.points[:, dim:] == 0.0)
            for k in range(2):
                expected = 2.0 + k + t * (x[:, 0] if degree else 0.0)
                tolerance = 1e-12 if degree else t  # degree 0 knows the mean of a cell only
                assert np.abs(mesh.point_data[f"density_{k}"] - expected).max() <= tolerance + 1e-12
                name, factor = (f"velocity_{k}", k + 1) if label_dependent else ("velocity", 1)
                velocity = mesh.point_data[name]
                assert velocity.shape == (len(x), 3)
                assert np.allclose(velocity[:, :dim], factor * (t + x), atol=1e-12)
                assert np.all(velocity[:, dim:] == 0.0)
    assert not list(tmp_path.glob(".*.part"))


def test_potentials(comm: MPI.Comm, tmp_path: Path) -> None:
    nodes = cell_nodes(comm, 2, 0, n_labels=2)
    writer = ParaviewWriter(tmp_path, nodes)
    ((t, rho, v),) = linear_samples(nodes, [0.0])
    x = nodes.points()
    writer.write(t, rho, v, np.stack([x[:, :, 0], 2.0 + x[:, :, 1]], axis=2))
    comm.barrier()
    entry = next(ET.parse(tmp_path / "densities.pvd").getroot().iter("DataSet"))
    for mesh in pieces(tmp_path, entry.attrib["file"]):
        assert np.array_equal(mesh.point_data["potential_0"], mesh.points[:, 0])
        assert np.array_equal(mesh.point_data["potential_1"], 2.0 + mesh.points[:, 1])
    if comm.size > 1:
        arrays = ET.parse(tmp_path / entry.attrib["file"]).getroot().iter("PDataArray")
        assert {"potential_0", "potential_1"} <= {array.attrib.get("Name") for array in arrays}


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_midpoints_lie_between_the_vertices_that_vtk_expects(comm: MPI.Comm, tmp_path: Path, dim: int) -> None:
    nodes = cell_nodes(comm, dim, 2, n_labels=1, n=2)
    writer = ParaviewWriter(tmp_path, nodes)
    for sample in linear_samples(nodes, [0.0]):
        writer.write(*sample)
    comm.barrier()
    edges = {1: "01", 2: "01 12 20", 3: "01 12 20 03 13 23"}[dim].split()
    entry = next(ET.parse(tmp_path / "densities.pvd").getroot().iter("DataSet"))
    for mesh in pieces(tmp_path, entry.attrib["file"]):
        corners = mesh.points[mesh.cells[0].data]
        for number, (i, j) in enumerate(edges):
            middle = (corners[:, int(i)] + corners[:, int(j)]) / 2
            assert np.allclose(corners[:, dim + 1 + number], middle, atol=1e-14)


def test_ranks_without_cells_write_nothing(comm: MPI.Comm, tmp_path: Path) -> None:
    nodes = cell_nodes(comm, 1, 1, n_labels=1)
    full = comm.size - 1
    if comm.rank != full:
        nodes.density_space.n_owned = 0
    writer = ParaviewWriter(tmp_path, nodes)
    for sample in linear_samples(nodes, [0.0]):
        writer.write(*sample)
    comm.barrier()
    entry = next(ET.parse(tmp_path / "densities.pvd").getroot().iter("DataSet"))
    assert len(pieces(tmp_path, entry.attrib["file"])) == 1
    assert len(list(tmp_path.glob("*.vtu"))) == 1


@pytest.mark.one_process
@pytest.mark.parametrize("n", [1, 1023, 1024, 1025, 3000])
def test_arrays_of_any_length(tmp_path: Path, n: int) -> None:
    """Blocks have 2¹⁵ bytes: 1024 tetrahedra have 4096 doubles, which fill one."""
    rng = np.random.default_rng(n)
    points, scalar, vector = rng.random((n, 4, 3)), rng.random(4 * n), rng.random((4 * n, 3))
    grid = VtuGrid.of(points, 10)
    for factor in (1.0, 2.0):  # the same grid at two times
        with (tmp_path / "tetra.vtu").open("wb") as file:
            grid.write(file, {"a": factor * scalar, "b": factor * vector})
        mesh = meshio.read(tmp_path / "tetra.vtu")
        np.testing.assert_array_equal(mesh.points, points.reshape(-1, 3))
        np.testing.assert_array_equal(mesh.cells_dict["tetra"], np.arange(4 * n).reshape(n, 4))
        np.testing.assert_array_equal(mesh.point_data["a"], factor * scalar)
        np.testing.assert_array_equal(mesh.point_data["b"], factor * vector)
