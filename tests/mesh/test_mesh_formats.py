"""What programs write and meshio's readers do not read as they are: gmsh's groups and numbers, DOLFINx's output."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from mpi4py import MPI

import dolfinx
import meshio
import numpy as np
import pytest
from dolfinx import io

from eulerian.base.errors import EulerianWarning, InputError
from eulerian.mesh.create import convert, import_mesh, inspect
from eulerian.mesh.importing import read_simplices
from eulerian.mesh.simplices import Simplices, facet_table, part_corners

pytestmark = pytest.mark.one_process

POINTS = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (2, 0, 0), (2, 1, 0)]
LEFT, RIGHT, BOTTOM = [(1, 2, 3), (1, 3, 4)], [(2, 5, 6), (2, 6, 3)], [(1, 2)]
BLOCKS = [(1, 1, 1, BOTTOM), (2, 1, 2, LEFT), (2, 2, 2, RIGHT)]  # dimension, entity, gmsh's type, cells
GROUPS: dict[str, dict[tuple[int, int], list[int]]] = {
    "none": {},
    "a surface": {(2, 1): [5]},
    "the other surface": {(2, 2): [5]},
    "the boundary": {(1, 1): [7]},
    "both": {(1, 1): [7], (2, 2): [5]},
    "a point": {(0, 1): [3]},
    "overlapping": {(2, 1): [5, 6], (2, 2): [6]},
    "boundary twice": {(1, 1): [7, 8], (2, 1): [-5]},
}


class Writer:
    """A file of gmsh's format 4.0 or 4.1, as text or in binary."""

    def __init__(self, version: str, binary: bool, offset: int) -> None:
        self.new, self.binary, self.offset = version == "4.1", binary, offset
        self.out = [f"$MeshFormat\n{version} {int(binary)} 8\n".encode()]
        self.out += [struct.pack("i", 1) + b"\n"] if binary else []
        self.out.append(b"$EndMeshFormat\n")

    def put(self, kinds: str, *numbers: float) -> None:
        if self.binary:
            self.out.append(struct.pack("<" + kinds, *numbers))
        else:
            self.out.append((" ".join(map(str, numbers)) + "\n").encode())

    def section(self, name: str, content: Callable[[], None]) -> None:
        self.out.append(f"${name}\n".encode())
        content()
        self.out.append((b"\n" if self.binary else b"") + f"$End{name}\n".encode())

    def entities(self, groups: dict[tuple[int, int], list[int]]) -> None:
        counts = [1, 1, 2, 0]
        self.put("4Q", *counts)
        for dim, count in enumerate(counts):
            for entity in range(1, count + 1):
                tags = groups.get((dim, entity), [])
                box = [0] * (3 if dim == 0 and self.new else 6)
                kinds = f"i{len(box)}dQ{len(tags)}i" + ("Q" if dim else "")
                self.put(kinds, entity, *box, len(tags), *tags, *([0] if dim else []))

    def nodes(self) -> None:
        n = len(POINTS)
        numbers = [self.offset + i for i in range(1, n + 1)]
        if self.new:
            self.put("4Q", 1, n, numbers[0], numbers[-1])
            self.put("3iQ", 2, 1, 0, n)
            for number in numbers:
                self.put("Q", number)
            for point in POINTS:
                self.put("3d", *point)
        else:
            self.put("2Q", 1, n)
            self.put("3iQ", 1, 2, 0, n)
            for number, point in zip(numbers, POINTS, strict=True):
                self.put("i3d", number, *point)

    def elements(self) -> None:
        total, wide = sum(len(cells) for *_, cells in BLOCKS), "Q" if self.new else "i"
        self.put("4Q", 3, total, 1, total) if self.new else self.put("2Q", 3, total)
        for dim, entity, kind, cells in BLOCKS:
            self.put("3iQ", *((dim, entity) if self.new else (entity, dim)), kind, len(cells))
            for number, cell in enumerate(cells, 1):
                nodes: Sequence[int] = [self.offset + node for node in cell]
                self.put(f"{1 + len(nodes)}{wide}", number, *nodes)


def write_gmsh(
    path: Path, version: str, binary: bool, groups: dict[tuple[int, int], list[int]], offset: int = 0
) -> Path:
    writer = Writer(version, binary, offset)
    writer.section("Entities", lambda: writer.entities(groups))
    writer.section("Nodes", writer.nodes)
    writer.section("Elements", writer.elements)
    path.write_bytes(b"".join(writer.out))
    return path


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("version", ["4.0", "4.1"])
def test_all_mixtures_of_groups_are_kept(tmp_path: Path, version: str, binary: bool, groups: str) -> None:
    report = inspect(write_gmsh(tmp_path / "a.msh", version, binary, GROUPS[groups]))
    assert (report.cells, report.nodes, report.volume) == (4, 6, pytest.approx(2.0))
    wanted = {}
    for (dim, entity), tags in GROUPS[groups].items():
        for tag in map(abs, tags if dim else []):
            count, measure = wanted.get((dim, tag), (0, 0.0))
            cells = next(len(cells) for d, e, _, cells in BLOCKS if (d, e) == (dim, entity))
            wanted[dim, tag] = count + cells, measure + 1.0
    assert {(tag.dim, tag.tag): (tag.count, tag.measure) for tag in report.tags} == wanted


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("version", ["4.0", "4.1"])
def test_nodes_may_be_numbered_from_anywhere(tmp_path: Path, version: str, binary: bool) -> None:
    offset = 10**9 if version == "4.0" else 10**15
    report = inspect(write_gmsh(tmp_path / "a.msh", version, binary, GROUPS["both"], offset))
    assert (report.cells, report.nodes, len(report.tags)) == (4, 6, 2)


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_format_22_with_far_numbers_and_a_cell_in_two_groups(tmp_path: Path, binary: bool) -> None:
    numbers = [10**9 + i for i in (5, 1, 4)]
    points, tags = np.array([(0.0, 0, 0), (1, 0, 0), (0, 1, 0)]), (5, 6)
    if binary:
        nodes = b"".join(struct.pack("<i3d", n, *x) for n, x in zip(numbers, points, strict=True))
        rows = b"".join(struct.pack("<6i", i, tag, 1, *numbers) for i, tag in enumerate(tags, 1))
        cells = struct.pack("<3i", 2, 2, 2) + rows
        head = b"$MeshFormat\n2.2 1 8\n" + struct.pack("i", 1) + b"\n"
    else:
        nodes = "".join(f"{n} {x[0]} {x[1]} {x[2]}\n" for n, x in zip(numbers, points, strict=True)).encode()
        cells = "".join(f"{i} 2 2 {tag} 1 {' '.join(map(str, numbers))}\n" for i, tag in enumerate(tags, 1)).encode()
        head = b"$MeshFormat\n2.2 0 8\n"
    body = b"$EndMeshFormat\n$Nodes\n3\n" + nodes + b"$EndNodes\n$Elements\n2\n" + cells + b"\n$EndElements\n"
    (tmp_path / "a.msh").write_bytes(head + body)
    report = inspect(tmp_path / "a.msh")
    assert (report.cells, report.nodes) == (1, 3)
    assert [(tag.tag, tag.count, tag.measure) for tag in report.tags] == [(5, 1, 0.5), (6, 1, 0.5)]


def test_tags_of_overlapping_groups_survive_refinement_and_conversion(tmp_path: Path) -> None:
    source = write_gmsh(tmp_path / "a.msh", "4.1", False, GROUPS["overlapping"] | GROUPS["boundary twice"])
    before = inspect(source)
    convert(source, tmp_path / "b.msh")
    assert inspect(tmp_path / "b.msh").tags == before.tags
    with pytest.warns(EulerianWarning, match="one tag for each"):
        convert(source, tmp_path / "b.vtu")
    after = inspect(tmp_path / "b.vtu")
    assert after.cells == before.cells
    assert len(after.tags) < len(before.tags)
    imported = import_mesh(MPI.COMM_SELF, source, 1)
    assert imported.cell_tags is not None
    assert imported.facet_tags is not None
    assert len(imported.cell_tags.indices) == 16
    assert len(imported.facet_tags.indices) == 2


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("what", ["mesh", "function"])
def test_what_dolfinx_writes_is_read(tmp_path: Path, dim: int, what: str) -> None:
    comm = MPI.COMM_SELF
    mesh = {
        1: lambda: dolfinx.mesh.create_unit_interval(comm, 4),
        2: lambda: dolfinx.mesh.create_unit_square(comm, 3, 2),
        3: lambda: dolfinx.mesh.create_unit_cube(comm, 2, 1, 1),
    }[dim]()
    function = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)), name="f")
    tags = dolfinx.mesh.meshtags(mesh, dim, np.array([0, 1], dtype=np.int32), np.array([4, 9], dtype=np.int32))
    for ending, writer in ((".pvd", io.VTKFile), (".xdmf", io.XDMFFile)):
        with writer(comm, tmp_path / f"a{ending}", "w") as file:
            if what == "mesh" or ending == ".xdmf":
                file.write_mesh(mesh)
            if what == "function":
                file.write_function(function)
                if ending == ".xdmf":
                    file.write_meshtags(tags, mesh.geometry)
    for name in ("a.pvd", "a000000.pvtu", "a_p0_000000.vtu", "a.xdmf"):
        report = inspect(tmp_path / name)
        assert (report.dimension, report.cells) == (dim, mesh.topology.index_map(dim).size_local)
        assert report.volume == pytest.approx(1.0)
        assert [tag.tag for tag in report.tags] == ([4, 9] if what == "function" and name == "a.xdmf" else [])


def test_pieces_of_several_processes_are_joined(tmp_path: Path) -> None:
    """As DOLFINx writes them: points have numbers of all pieces, and the cells of others are ghosts."""
    squares = ([0, 1, 2, 3], [(0, 1, 2), (0, 2, 3)]), ([1, 4, 5, 2], [(0, 1, 2), (0, 2, 3)])
    for piece, (ids, cells) in enumerate(squares):
        points = np.array(POINTS, dtype=float)[ids]
        ghost, data = [], np.array([*cells])
        if piece == 1:  # it also sees a cell of the first one
            ids, points = [*ids, 0], np.vstack([points, POINTS[0]])
            data, ghost = np.array([*cells, (4, 0, 3)]), [1]
        kinds = np.array([0] * len(cells) + ghost, dtype=np.uint8)
        meshio.Mesh(
            points,
            [("triangle", data)],
            point_data={"vtkOriginalPointIds": np.array(ids)},
            cell_data={"vtkGhostType": [kinds]},
        ).write(tmp_path / f"p{piece}.vtu")
    pieces = "".join(f'<Piece Source="p{i}.vtu"/>' for i in range(2))
    content = f'<VTKFile type="PUnstructuredGrid"><PUnstructuredGrid>{pieces}</PUnstructuredGrid></VTKFile>'
    (tmp_path / "a.pvtu").write_text(content)
    report = inspect(tmp_path / "a.pvtu")
    assert (report.cells, report.nodes, report.parts) == (4, 6, 1)
    (tmp_path / "b.pvtu").write_text(content.replace("p1.vtu", "p9.vtu"))
    with pytest.raises(InputError, match=r"p9\.vtu.*not there"):
        inspect(tmp_path / "b.pvtu")


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "netCDF4.py").write_text("raise ModuleNotFoundError('no', name='netCDF4')\n")
    monkeypatch.syspath_prepend(tmp_path / "hidden")
    (tmp_path / "a.e").write_bytes(b"CDF\x01" + bytes(40))
    with pytest.raises(InputError, match=r"needs the package netCDF4.*pip install netCDF4") as error:
        inspect(tmp_path / "a.e")
    assert "complete" not in str(error.value)


def test_only_what_breaks_off_is_asked_whether_it_is_complete(tmp_path: Path) -> None:
    source = write_gmsh(tmp_path / "a.msh", "4.1", False, {})
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="complete"):
        inspect(source)
    source.write_bytes(whole.replace(b"$Nodes\n1 6", b"$Nodes\n1 x"))
    with pytest.raises(InputError, match="Write the file again") as error:
        inspect(source)
    assert "complete" not in str(error.value)


def test_only_lines_are_told(tmp_path: Path) -> None:
    straight = [(0.0, 0, 0), (1, 0, 0), (2, 0, 0)]
    meshio.Mesh(straight, [("line", np.array([[0, 1], [1, 2]]))]).write(tmp_path / "a.vtu")
    assert "only lines" in str(inspect(tmp_path / "a.vtu"))
    loop = [(0.0, 0, 0), (1, 0, 0), (1, 1, 0)]
    meshio.Mesh(loop, [("line", np.array([[0, 1], [1, 2], [2, 0]]))]).write(tmp_path / "b.vtu")
    with pytest.raises(InputError, match=r"only lines, no triangles.*SaveAll"):
        read_simplices(tmp_path / "b.vtu")


@pytest.mark.parametrize("dim", [2, 3])
def test_parts_that_touch_get_nodes_of_their_own(dim: int) -> None:
    """In a node, or along an edge."""
    first = np.vstack([np.zeros(dim), np.eye(dim)])
    second = np.vstack([np.full(dim, 1.0), np.eye(dim)[: dim - 1], np.full((1, dim), 2.0)])
    points = np.vstack([first, second[:1], second[-1:]])
    shared = list(range(1, dim))  # of the first cell
    cells = np.array([list(range(dim + 1)), [*shared, dim + 1, dim + 2]])
    facets, none = np.array([cells[1, :dim]]), np.array([3], dtype=np.int32)
    mesh = Simplices(points, cells, None, facets, none)
    if dim == 2:
        mesh = Simplices(points, np.array([[0, 1, 2], [1, 3, 4]]), None, np.array([[1, 3]]), none)
    found = part_corners(mesh, facet_table(mesh.points, mesh.cells))
    assert len(found.points) == len(points) + dim - 1
    assert not set(found.cells[0]) & set(found.cells[1])
    np.testing.assert_array_equal(found.points[found.cells], mesh.points[mesh.cells])
    assert set(found.facets[0]) <= set(found.cells[1])
