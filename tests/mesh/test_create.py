"""Meshes: boxes, files in every format, refinement, distribution, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from dolfinx import fem
from numpy.typing import NDArray
from paths import MESHES, TESTS
from thinning import thinned

from eulerian.app.build.mesh import create_mesh
from eulerian.app.config import Box, Domain
from eulerian.base.errors import InputError
from eulerian.base.parallel import on_root
from eulerian.mesh import create
from eulerian.mesh.create import MAX_CELLS, convert, import_mesh, inspect
from eulerian.mesh.importing import read_simplices

# name: dimension, cells, measure, {tag name: (dimension, tag, count, measure)}
SHIPPED: dict[str, tuple[int, int, float, dict[str, tuple[int, int, int, float]]]] = {
    "disk": (2, 3062, 78.508279, {"disk": (2, 1, 3062, 78.508279), "boundary": (1, 2, 128, 31.412771)}),
    "dumbbell": (
        2,
        3296,
        12.12,
        {
            "left room": (2, 1, 1480, 5.76),
            "corridor": (2, 2, 336, 0.6),
            "right room": (2, 3, 1480, 5.76),
            "walls": (1, 4, 212, 20.6),
        },
    ),
    "square_with_hole": (
        2,
        1472,
        14.873672,
        {"domain": (2, 1, 1472, 14.873672), "square": (1, 2, 80, 16.0), "hole": (1, 3, 40, 3.766036)},
    ),
    "l_shape": (2, 1336, 3.0, {"domain": (2, 1, 1336, 3.0), "outer": (1, 2, 70, 6.0), "corner": (1, 3, 32, 2.0)}),
    "ball": (3, 2694, 33.050282, {"ball": (3, 1, 2694, 33.050282), "boundary": (2, 2, 820, 49.885086)}),
    "interval": (
        1,
        186,
        8.0,
        {"left half": (1, 1, 93, 4.0), "right half": (1, 2, 93, 4.0), "ends": (0, 3, 2, 2.0)},
    ),
}
SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
TWO_TRIANGLES = np.array([[0, 1, 2], [0, 2, 3]])

Write = Callable[..., Path]


def moved(points: NDArray[np.float64], *by: float) -> NDArray[np.float64]:
    """Points moved by a vector."""
    return points + np.array(by)


def integrate(mesh: Any, **measure: Any) -> float:
    """∫ 1 over the domain, or over what a measure with tags selects."""
    import ufl

    kind, tag = measure.pop("kind", "dx"), measure.pop("tag", "everywhere")
    form = fem.form(fem.Constant(mesh, 1.0) * ufl.Measure(kind, domain=mesh, **measure)(tag))
    return float(mesh.comm.allreduce(fem.assemble_scalar(form)))


def centroids(mesh: Any) -> NDArray[np.float64]:
    """Centroids of all cells in input order, on every rank."""
    owned = mesh.topology.index_map(mesh.topology.dim).size_local
    x = mesh.geometry.x[mesh.geometry.dofmaps[0][:owned]].mean(axis=1)
    order = np.concatenate(mesh.comm.allgather(mesh.topology.original_cell_index[:owned]))
    assert np.array_equal(np.sort(order), np.arange(len(order)))
    return np.concatenate(mesh.comm.allgather(x))[np.argsort(order)]


# -- boxes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("refine", [0, 1])
def test_a_box_is_filled_with_simplices(comm: MPI.Comm, dim: int, refine: int) -> None:
    lower, upper, cells = (-1.0, 0.0, 2.0)[:dim], (2.0, 0.5, 3.0)[:dim], (4, 3, 2)[:dim]
    mesh = create_mesh(comm, Domain(box=Box(lower=lower, upper=upper, cells=cells), refine=refine))
    assert mesh.topology.dim == mesh.geometry.dim == dim
    expected = np.prod(cells) * (1, 2, 6)[dim - 1] * 2 ** (dim * refine)
    assert mesh.topology.index_map(dim).size_global == expected
    assert integrate(mesh) == pytest.approx(np.prod(np.array(upper) - lower), rel=1e-13)
    if comm.size > 1:
        assert comm.allreduce(mesh.topology.index_map(dim).num_ghosts) > 0


def test_too_many_cells_are_refused_before_they_are_made(comm: MPI.Comm) -> None:
    box = SimpleNamespace(lower=(0.0, 0.0), upper=(1.0, 1.0), cells=(20000, 20000))
    with pytest.raises(InputError, match=r"domain\.box\.cells.*8e\+08 cells"):
        create_mesh(comm, SimpleNamespace(box=box, file=None, refine=0))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"disk\.msh.*cells, more than"):
        import_mesh(comm, MESHES / "disk.msh", 12)
    assert MAX_CELLS < 3062 * 4**12


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.one_process
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_meshes_hold_what_their_readme_says(name: str) -> None:
    dim, cells, measure, tags = SHIPPED[name]
    report = inspect(MESHES / f"{name}.msh")
    assert (report.dimension, report.cells, report.parts, report.orphan_nodes) == (dim, cells, 1, 0)
    assert report.volume == pytest.approx(measure, rel=1e-6)
    assert {tag.name: (tag.dim, tag.tag, tag.count) for tag in report.tags} == {k: v[:3] for k, v in tags.items()}
    for tag in report.tags:
        assert tag.measure == pytest.approx(tags[tag.name][3], rel=1e-6)
    assert report.quality_min > 0.35
    assert (MESHES / f"{name}.msh").stat().st_size < 300_000
    assert (MESHES / f"{name}.geo").exists()
    readme = (MESHES / "README.md").read_text()
    assert f"`{name}.msh`" in readme
    assert f"{cells} {('intervals', 'triangles', 'tetrahedra')[dim - 1]}" in readme


@pytest.mark.parametrize("refine", thinned([0, 1], {1}))
@pytest.mark.parametrize("name", thinned(SHIPPED, SHIPPED, {"dumbbell", "ball", "interval"}))
def test_an_imported_mesh_keeps_its_measure_and_tags(comm: MPI.Comm, name: str, refine: int) -> None:
    dim, cells, measure, tags = SHIPPED[name]
    imported = import_mesh(comm, MESHES / f"{name}.msh", refine)
    mesh = imported.mesh
    assert mesh.topology.dim == mesh.geometry.dim == dim
    assert mesh.topology.index_map(dim).size_global == cells * 2 ** (dim * refine)
    assert integrate(mesh) == pytest.approx(measure, rel=1e-6)
    for label, (tag_dim, tag, count, size) in tags.items():
        assert imported.tag_names[label] == (tag_dim, tag)
        found = imported.cell_tags if tag_dim == dim else imported.facet_tags
        assert found is not None
        owned = mesh.topology.index_map(tag_dim).size_local
        factor = 2 ** (tag_dim * refine)
        assert comm.allreduce(int((found.find(tag) < owned).sum())) == count * factor
        kind = "dx" if tag_dim == dim else "ds"
        assert integrate(mesh, kind=kind, subdomain_data=found, tag=tag) == pytest.approx(size, rel=1e-6)


@pytest.mark.one_process
@pytest.mark.parametrize("ending", [".msh", ".vtu", ".vtk", ".xdmf"])
@pytest.mark.parametrize("name", ["disk", "dumbbell", "ball", "interval"])
def test_conversion_keeps_cells_and_tags(tmp_path: Path, comm: MPI.Comm, name: str, ending: str) -> None:
    source, target = MESHES / f"{name}.msh", tmp_path / f"copy{ending}"
    on_root(comm, lambda: convert(source, target))
    before, after = read_simplices(source)[0], read_simplices(target)[0]
    np.testing.assert_array_equal(before.points, after.points)
    np.testing.assert_array_equal(before.cells, after.cells)
    np.testing.assert_array_equal(before.cell_tags, after.cell_tags)
    if (name, ending) != ("interval", ".xdmf"):  # meshio cannot read back points in XDMF
        np.testing.assert_array_equal(before.facets, after.facets)
        np.testing.assert_array_equal(before.facet_tags, after.facet_tags)
    if ending == ".msh":
        assert before.names == after.names
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".convert")] == []


@pytest.mark.two_ranks
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.msh", {"file_format": "gmsh22", "binary": True}),
        ("a.msh", {"file_format": "gmsh22", "binary": False}),
        ("a.msh", {"file_format": "gmsh", "binary": True}),
        ("a.msh", {"file_format": "gmsh", "binary": False}),
        ("a.vtu", {"binary": False}),
        ("a.vtk", {"binary": True}),
        ("a.xdmf", {"data_format": "HDF"}),
        ("a.mesh", {}),
    ],
)
def test_formats(comm: MPI.Comm, write: Write, name: str, options: dict[str, Any]) -> None:
    path = write(name, SQUARE, [("triangle", TWO_TRIANGLES)], **options)
    imported = import_mesh(comm, path)
    assert integrate(imported.mesh) == pytest.approx(1.0)
    assert imported.mesh.geometry.dim == 2
    assert imported.facet_tags is None


def test_xdmf_of_dolfinx(comm: MPI.Comm, tmp_path: Path) -> None:
    from dolfinx.io import XDMFFile

    mesh = create_mesh(comm, Domain(box=Box(lower=(0.0, 0.0), upper=(2.0, 1.0), cells=(5, 4))))
    with XDMFFile(comm, tmp_path / "box.xdmf", "w") as file:
        file.write_mesh(mesh)
    assert integrate(import_mesh(comm, tmp_path / "box.xdmf").mesh) == pytest.approx(2.0)


def test_orphans_planes_and_loose_lines(comm: MPI.Comm, write: Write) -> None:
    points = np.vstack([[[np.nan, 9, 9]], moved(SQUARE, 0, 0, 7), [[5, 5, 5]]])
    lines = [[1, 2], [2, 1], [1, 3], [2, 4], [0, 5]]  # an edge twice, the diagonal, no edge, orphans
    tags = {"gmsh:physical": [np.array([4, -6]), np.array([7, 8, 9, 9, 9])]}
    path = write("a.vtu", points, [("triangle", TWO_TRIANGLES + 1), ("line", np.array(lines))], cell_data=tags)
    mesh, _ = read_simplices(path)
    np.testing.assert_array_equal(mesh.points, SQUARE[:, :2])
    assert mesh.n_orphans == 2
    assert mesh.facets.tolist() == [[0, 1], [0, 2]]
    assert mesh.facet_tags.tolist() == [7, 9]
    assert mesh.cell_tags is not None
    assert mesh.cell_tags.tolist() == [4, 6]
    assert "2 without a cell" in str(inspect(path))
    imported = import_mesh(comm, path)
    assert imported.facet_tags is not None
    assert imported.cell_tags is not None
    assert integrate(imported.mesh, subdomain_data=imported.cell_tags, tag=6) == pytest.approx(0.5)


def test_lines_in_space_become_an_interval(comm: MPI.Comm, write: Write) -> None:
    points = [[2.0, 1, 1], [0.5, 1, 1], [0, 1, 1]]
    path = write("a.vtu", points, [("line", np.array([[0, 1], [1, 2]])), ("vertex", np.array([[2]]))])
    imported = import_mesh(comm, path, 2)
    assert imported.mesh.geometry.dim == 1
    assert imported.mesh.topology.index_map(1).size_global == 8
    assert integrate(imported.mesh) == pytest.approx(2.0)


def test_parts_and_slits_are_allowed_and_told(comm: MPI.Comm, write: Write) -> None:
    # Two squares side by side that do not share their nodes, and one far away.
    points = np.vstack([SQUARE, moved(SQUARE, 1, 0, 0), moved(SQUARE, 5, 0, 0)])
    path = write("a.vtu", points, [("triangle", np.vstack([TWO_TRIANGLES, TWO_TRIANGLES + 4, TWO_TRIANGLES + 8]))])
    report = inspect(path)
    assert (report.parts, report.coincident_nodes, report.volume) == (3, 2, pytest.approx(3.0))
    assert "not connected" in str(report)
    assert "cut there" in str(report)
    assert integrate(import_mesh(comm, path).mesh) == pytest.approx(3.0)


def test_one_cell_for_all_ranks(comm: MPI.Comm, write: Write) -> None:
    path = write("a.vtu", SQUARE[:3], [("triangle", TWO_TRIANGLES[:1])])
    assert integrate(import_mesh(comm, path).mesh) == pytest.approx(0.5)


@pytest.mark.one_process
def test_report_as_text() -> None:
    text = str(inspect(MESHES / "dumbbell.msh"))
    for part in ("3296 triangles", "[-3, 3] × [-1.2, 1.2]", "12.12", "quality", "'corridor': 336 cells", "212 facets"):
        assert part in text


def test_reading_is_silent(comm: MPI.Comm, capfd: pytest.CaptureFixture[str], write: Write) -> None:
    path = write("a.msh", SQUARE, [("triangle", TWO_TRIANGLES)], file_format="gmsh")
    broken = path.with_name("b.msh")
    on_root(comm, lambda: broken.write_text("$MeshFormat\n2.2 0 8\n$EndMeshFormat\n$Nodes\n4\n1 0 0 0\n"))
    capfd.readouterr()
    inspect(path)
    with pytest.raises(InputError):
        inspect(broken)
    assert capfd.readouterr() == ("", "")


# -- ranks ------------------------------------------------------------------------------------------------------------

# Where a job finds this file and what it imports.
FOLDERS = [str(TESTS), str(Path(__file__).parent)]

OUTLINE = """
import json, sys
from pathlib import Path
from eulerian.app.config import Box, Domain
from eulerian.base.errors import InputError
from eulerian.app.build.mesh import create_mesh
from eulerian.mesh.create import import_mesh
import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
sys.path[:0] = {tests!r}
from test_create import MESHES, centroids

meshes = [import_mesh(comm, MESHES / f"{{name}}.msh", 1).mesh for name in ("dumbbell", "ball", "interval")]
meshes += [create_mesh(comm, Domain(box=Box(lower=(0.0,) * d, upper=(1.0,) * d, cells=(4,) * d))) for d in (1, 2, 3)]
data = [centroids(mesh).tolist() for mesh in meshes]
ghosts = [comm.allreduce(mesh.topology.index_map(mesh.topology.dim).num_ghosts) for mesh in meshes]
try:
    import_mesh(comm, "nowhere.msh")
except InputError as error:
    told = comm.gather(str(error))
if comm.rank == 0:
    Path({out!r}).write_text(json.dumps([data, ghosts, told]))
"""


@pytest.mark.mpi
def test_cells_keep_their_numbers_on_any_number_of_ranks(
    tmp_path: Path, mpirun: Callable[..., Any], comm: MPI.Comm
) -> None:
    serial = [import_mesh(comm, MESHES / f"{name}.msh", 1).mesh for name in ("dumbbell", "ball", "interval")]
    serial += [
        create_mesh(comm, Domain(box=Box(lower=(0.0,) * d, upper=(1.0,) * d, cells=(4,) * d))) for d in (1, 2, 3)
    ]
    for ranks in (2, 3):
        out = tmp_path / f"{ranks}.json"
        run = mpirun(ranks, OUTLINE.format(tests=FOLDERS, out=str(out)))
        assert run.returncode == 0, run.stderr
        data, ghosts, told = json.loads(out.read_text())
        for mesh, found in zip(serial, data, strict=True):
            np.testing.assert_allclose(found, centroids(mesh), rtol=0, atol=1e-14)
        assert min(ghosts) > 0
        assert len(told) == ranks
        assert len(set(told)) == 1


def test_arrays_of_a_file_as_a_mesh(comm: MPI.Comm) -> None:
    mesh = create.read_simplices(MESHES / "disk.msh", comm)
    assert mesh.cell_tags is None
    assert len(mesh.facets) == 0
    assert all(np.array_equal(mesh.cells, cells) for cells in comm.allgather(mesh.cells))
    made = create.mesh_from_simplices(mesh, comm)
    assert made.topology.index_map(2).size_global == len(mesh.cells)
