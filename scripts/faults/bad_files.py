"""Broken and hostile files: meshes, samples, pictures and parameters."""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from bad_cases import BASE, Case, Content

_POINTS = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (0.0, 1.0, 0.0))
_CELLS = ((1, 2, 3), (1, 3, 4))
_KINDS = {2: 1, 3: 2, 4: 3}  # gmsh's numbers of lines, triangles and quadrangles, by their nodes

type Number = float | str


def file_cases() -> Iterator[Case]:
    """Everything that is wrong with a file."""
    yield from _meshes()
    yield from _samples()
    yield from _pictures()
    yield from _parameters()


# -- meshes ------------------------------------------------------------------------------------------------------------


def gmsh22(
    points: Sequence[Sequence[Number]] = _POINTS,
    cells: Sequence[Sequence[Number]] = _CELLS,
    *,
    n_points: Number | None = None,
    n_cells: Number | None = None,
    end: str = "$EndElements\n",
) -> str:
    """A mesh file of gmsh's format 2.2, with as many points and cells as it claims or not."""
    nodes = "".join(f"{i} {' '.join(map(str, point))}\n" for i, point in enumerate(points, 1))
    elements = "".join(
        f"{i} {_KINDS.get(len(cell), 2)} 2 1 1 {' '.join(map(str, cell))}\n" for i, cell in enumerate(cells, 1)
    )
    return (
        f"$MeshFormat\n2.2 0 8\n$EndMeshFormat\n$Nodes\n{len(points) if n_points is None else n_points}\n{nodes}"
        f"$EndNodes\n$Elements\n{len(cells) if n_cells is None else n_cells}\n{elements}{end}"
    )


def _gmsh41(n: Number, tag: Number = 1) -> str:
    return (
        "$MeshFormat\n4.1 0 8\n$EndMeshFormat\n"
        f"$Nodes\n1 {n} 1 {n}\n2 {tag} 0 {n}\n1\n2\n3\n4\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n$EndNodes\n"
        f"$Elements\n1 {n} 1 {n}\n2 {tag} 2 {n}\n1 1 2 3\n2 1 3 4\n$EndElements\n"
    )


def _gmsh41_binary(n: int) -> bytes:
    head = b"$MeshFormat\n4.1 1 8\n" + struct.pack("i", 1) + b"\n$EndMeshFormat\n$Nodes\n"
    return head + struct.pack("QQQQ", 1, n, 1, n) + struct.pack("iiiQ", 2, 1, 0, n) + bytes(40)


def _vtu(data: str = "0 0 0 1 0 0 1 1 0 0 1 0", cells: str = "0 1 2 0 2 3", n: Number = 4, head: str = "") -> str:
    def array(name: str, kind: str, text: str, more: str = "") -> str:
        return f'<DataArray type="{kind}" Name="{name}" {more} format="ascii">{text}</DataArray>'

    return (
        f'<?xml version="1.0"?>{head}<VTKFile type="UnstructuredGrid" version="0.1" byte_order="LittleEndian">'
        f'<UnstructuredGrid><Piece NumberOfPoints="{n}" NumberOfCells="2">'
        f"<Points>{array('Points', 'Float64', data, 'NumberOfComponents="3"')}</Points>"
        f"<Cells>{array('connectivity', 'Int64', cells)}{array('offsets', 'Int64', '3 6')}"
        f"{array('types', 'Int64', '5 5')}</Cells></Piece></UnstructuredGrid></VTKFile>"
    )


def _laughs(levels: int = 9) -> str:
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, levels + 1))
    return f'<!DOCTYPE VTKFile [<!ENTITY l0 "1 2 3 ">{entities}]>'


def _xdmf(item: str, head: str = "") -> str:
    return (
        f'<?xml version="1.0"?>{head}<Xdmf Version="3.0"><Domain><Grid><Geometry GeometryType="XY">{item}</Geometry>'
        '<Topology TopologyType="Triangle" NumberOfElements="1"><DataItem DataType="Int" Dimensions="1 3" Format="XML">'
        "0 1 2</DataItem></Topology></Grid></Domain></Xdmf>"
    )


def _item(reference: str, form: str = "HDF") -> str:
    return f'<DataItem DataType="Float" Precision="8" Dimensions="3 2" Format="{form}">{reference}</DataItem>'


def _strewn(n: int = 3000) -> str:
    """Triangles that lie across one another, none of which shares a facet."""
    points = np.random.default_rng(0).normal(size=(3 * n, 3)) * [1, 1, 0]
    return gmsh22(points.tolist(), (np.arange(3 * n).reshape(-1, 3) + 1).tolist())


_GOOD = gmsh22()
_FAR = (2.0, "NODE", 0.0)

_MESHES: dict[str, Content] = {
    "empty.msh": b"",
    "text.msh": "hello\n",
    "garbage.msh": bytes(range(256)) * 40,
    "garbage.vtu": bytes(range(256)) * 40,
    "garbage.med": b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 40,
    "cut.msh": _GOOD[: len(_GOOD) // 2],
    "cut_late.msh": _GOOD[:-30],
    "cut_in_a_number.msh": _gmsh41(4)[:130],
    "cut_binary.msh": _gmsh41_binary(4)[:-10],
    "version_99.msh": _GOOD.replace("2.2 0 8", "99.9 0 8"),
    "no_version.msh": _GOOD.replace("2.2 0 8", ""),
    "no_cells.msh": gmsh22(cells=()),
    "no_nodes.msh": gmsh22(points=()),
    "node_zero.msh": gmsh22(cells=((1, 2, 3), (1, 3, 0))),
    "negative_node.msh": gmsh22(cells=((1, 2, 3), (1, 3, -4))),
    "node_out_of_range.msh": gmsh22(cells=((1, 2, 3), (1, 3, 99))),
    "node_10^18.msh": gmsh22(cells=((1, 2, 3), (1, 3, 10**18))),
    "half_a_node.msh": gmsh22(cells=((1, 2, 3), (1, 3, 3.5))),
    "nan.msh": gmsh22((*_POINTS[:3], (0.0, "nan", 0.0))),
    "inf.msh": gmsh22((*_POINTS[:3], (0.0, "inf", 0.0))),
    "1e308.msh": gmsh22((*_POINTS[:3], (-1e308, 1e308, 0.0))),
    "word_for_a_number.msh": gmsh22((*_POINTS[:3], (0.0, "one", 0.0))),
    "degenerate.msh": gmsh22(cells=((1, 2, 3), (1, 3, 3))),
    "no_area.msh": gmsh22(tuple((x, 0.0, 0.0) for x, _, _ in _POINTS)),
    "cell_twice.msh": gmsh22(cells=((1, 2, 3), (3, 1, 2))),
    "overlap.msh": gmsh22(cells=((1, 2, 3), (1, 2, 4))),
    "three_at_a_facet.msh": gmsh22((*_POINTS, (2.0, 0.5, 0.0)), cells=((1, 2, 3), (1, 3, 4), (1, 3, 5))),
    "strewn.msh": _strewn(),
    "bent.msh": gmsh22((*_POINTS[:3], (0.0, 1.0, 0.7))),
    "quads.msh": gmsh22(cells=((1, 2, 3, 4),)),
    "mixed.msh": gmsh22((*_POINTS, (2.0, 0.0, 0.0)), cells=((1, 2, 3, 4), (2, 5, 3))),
    "lines_in_the_plane.msh": gmsh22(cells=((1, 2), (2, 3))),
    "10^12_nodes.msh": gmsh22(n_points=10**12),
    "10^12_cells.msh": gmsh22(n_cells=10**12),
    "-5_nodes.msh": gmsh22(n_points=-5),
    "10^12_nodes_41.msh": _gmsh41(10**12),
    "10^12_nodes_binary.msh": _gmsh41_binary(10**12),
    "2^63_nodes_binary.msh": _gmsh41_binary(2**63),
    "node_word.msh": gmsh22((*_POINTS[:3], _FAR)),
    "10^11_points.vtk": "# vtk DataFile Version 2.0\nx\nASCII\nDATASET UNSTRUCTURED_GRID\nPOINTS 100000000000 double\n",
    "10^12_vertices.ply": "ply\nformat ascii 1.0\nelement vertex 1000000000000\nproperty double x\nproperty double y\n"
    "property double z\nelement face 1\nproperty list int int vertex_indices\nend_header\n0 0 0\n",
    "10^12_facets.stl": b" " * 80 + struct.pack("<I", 2**32 - 1),
    "10^12_points.off": "OFF\n1000000000000 1 0\n0 0 0\n",
    "truncated.vtu": _vtu()[:300],
    "10^12_points.vtu": _vtu(n=10**12),
    "few_points.vtu": _vtu(data="0 0 0 1 0"),
    "node_out_of_range.vtu": _vtu(cells="0 1 2 0 2 77"),
    "billion_laughs.vtu": _vtu(data="&l9;", head=_laughs()),
    "entity_of_a_file.vtu": _vtu(data="&f;", head='<!DOCTYPE VTKFile [<!ENTITY f SYSTEM "file:///etc/passwd">]>'),
    "parameter_entity.vtu": _vtu(head='<!DOCTYPE VTKFile [<!ENTITY % f SYSTEM "file:///etc/passwd"> %f;]>'),
    "billion_laughs.xdmf": _xdmf(_item("&l9;", "XML"), _laughs().replace("VTKFile", "Xdmf")),
    "elsewhere.xdmf": _xdmf(_item("/etc/passwd:/x")),
    "above.xdmf": _xdmf(_item("../../secret.h5:/x")),
    "not_there.xdmf": _xdmf(_item("nowhere.h5:/x")),
    "raw_elsewhere.xdmf": _xdmf(_item("/dev/zero", "Binary")),
    "no_name.xdmf": _xdmf(_item(" ")),
    "10^12_entries.xdmf": _xdmf(_item("0 0 1 0 0 1", "XML").replace("3 2", "1000000000000 2")),
    "mesh.geo": "Point(1) = {0, 0, 0, 1};\n",
    "mesh.step": "ISO-10303-21;\n",
    "mesh": "no ending and no mesh\n",
}


def _meshes() -> Iterator[Case]:
    for name, content in _MESHES.items():
        toml = BASE.replace("box = { lower = [-2.0, -2.0], upper = [2.0, 2.0], cells = [6, 6] }", f'file = "{name}"')
        yield Case("meshes", name, ("solve", "base.toml"), (name, "domain.file"), {name: content, "base.toml": toml})
    for name in ("nan.msh", "10^12_nodes_binary.msh", "billion_laughs.vtu"):
        yield Case("meshes", f"mesh {name}", ("mesh", name), (name,), {name: _MESHES[name]})
    good: dict[str, Content] = {"good.msh": _GOOD, "there.vtu": "x"}
    for target in ("there.vtu", "good.pdf", "nowhere/good.vtu"):
        convert = ("mesh", "good.msh", "--convert", target)
        yield Case("meshes", f"--convert {target}", convert, (target, "nowhere"), good)
    yield Case(
        "meshes", "a terabyte", ("mesh", "huge.msh"), ("huge.msh",), {"huge.msh": partial(_huge, head=b"$MeshFormat\n")}
    )
    refined = BASE.replace(
        "box = { lower = [-2.0, -2.0], upper = [2.0, 2.0], cells = [6, 6] }", 'file = "good.msh"\nrefine = 10'
    )
    files: dict[str, Content] = {"good.msh": _GOOD, "base.toml": refined.replace("layers = 2", "layers = 90000")}
    yield Case("meshes", "refined too often", ("solve", "base.toml"), ("domain", "field.layers"), files)


def _huge(path: Path, head: bytes = b"", size: int = 2**40) -> None:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)


# -- samples -----------------------------------------------------------------------------------------------------------

_ROWS = "a,b,c\n0.1,0.2,x\n0.3,-0.4,y\n-0.5,0.6,x\n0.2,0.1,y\n"

_SAMPLES: dict[str, Content] = {
    "empty": "",
    "blank lines": "\n\n \n",
    "comments only": "# a,b,c\n# 1,2,3\n",
    "names only": "a,b,c\n",
    "ragged": _ROWS + "0.5\n",
    "a value missing": _ROWS + "0.5,,x\n",
    "a text": _ROWS + "0.5,much,x\n",
    "NaN": _ROWS + "nan,0.5,x\n",
    "infinity": _ROWS + "inf,0.5,x\n",
    "1e308": _ROWS.replace("0.1,", "1e308,"),
    "1e999": _ROWS.replace("0.1,", "1e999,"),
    "one row": "a,b,c\n0.1,0.2,x\n",
    "one class of one": _ROWS + "0.5,0.5,z\n",
    "all the same": "a,b,c\n" + "0.5,0.5,x\n" * 10,
    "all outside": "a,b,c\n50,50,x\n51,52,x\n52,51,y\n50,53,y\n",
    "a column missing": "a,d,c\n0.1,0.2,x\n0.3,0.4,y\n",
    "the class missing": "a,b,d\n0.1,0.2,x\n0.3,0.4,y\n",
    "no names": "0.1,0.2,x\n0.3,0.4,y\n",
    "Latin-1": (_ROWS + "0.5,0.5,é\n").encode("latin-1"),
    "UTF-16, cut off": _ROWS.encode("utf-16")[:-1],
    "binary": bytes(range(256)) * 50,
    "zero bytes": _ROWS.replace("0.3", "0\0.3"),
    "a field of 10 MB": _ROWS + f"{'9' * 10_000_000},0.5,x\n",
    "a quoted field without end": _ROWS + '"0.5,0.5,x\n' * 20,
    "a quoted line break": _ROWS + '0.5,"0\n.5",x\n',
    "decimal commas": _ROWS.replace(".", ","),
    "decimal commas and points": "a;b;c\n0,1;0.2;x\n0,3;-0,4;y\n-0,5;0,6;x\n0,2;0,1;y\n",
    "thousands": "a;b;c\n1.000,5;0,2;x\n0,3;-0,4;y\n-0,5;0,6;x\n0,2;0,1;y\n",
    "an unquoted comma": _ROWS + "0.5,0.5,x, or y\n",
    "a number with an underscore": _ROWS + "1_0,0.5,x\n",
    "a class that is none": _ROWS + "0.5,0.5,nan\n",
    "formulas": _ROWS + "=1+1,0.5,x\n",
    "an HTML page": "<html><body>not found</body></html>\n",
    "100,000 classes": "a,b,c\n" + "".join(f"0.1,0.{i},k{i}\n" for i in range(100_000)),
}
_TERM = '{ kind = "samples", file = "data.csv", columns = ["a", "b"], label_column = "c" }'


def _samples() -> Iterator[Case]:
    solve = ("solve", "base.toml", "--set", f"density.initial=[{_TERM}]")
    for name, content in _SAMPLES.items():
        yield Case("samples", name, solve, ("density.initial.0", "data.csv"), {"data.csv": content})
    yield Case(
        "samples", "a terabyte", solve, ("density.initial.0.file",), {"data.csv": partial(_huge, head=b"a,b,c\n")}
    )
    yield Case("samples", "a folder", solve, ("density.initial.0.file",), {"data.csv/x": "x"})
    particles = (
        "solve",
        "base.toml",
        "--method",
        "particles",
        "--set",
        'particles={ file = "data.csv", columns = ["a", "b"] }',
    )
    for name in ("NaN", "a text", "empty", "a column missing"):
        yield Case("samples", f"particles: {name}", particles, ("particles.",), {"data.csv": _SAMPLES[name]})
    push = ("push", "old", "--samples", "data.csv", "--columns", "a,b")
    for name in ("ragged", "1e999", "binary", "names only"):
        yield Case("samples", f"push: {name}", push, ("--samples", "--columns"), {"data.csv": _SAMPLES[name]}, run=True)


# -- pictures ----------------------------------------------------------------------------------------------------------


def _png(width: int, height: int, data: bytes, *, depth: int = 8, colour: int = 0) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def _grey(width: int, height: int, value: int) -> bytes:
    return _png(width, height, (b"\0" + bytes([value]) * width) * height)


_DARK = _grey(8, 8, 0)

_PICTURES: dict[str, Content] = {
    "empty": b"",
    "text": "not a picture",
    "SVG": '<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
    "PostScript": "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(executed) (w) file\n",
    "HTML": "<html></html>",
    "cut off": _DARK[:-20],
    "cut in the header": _DARK[:20],
    "wrong checksum": _DARK[:30] + b"\xff" + _DARK[31:],
    "too few pixels": _png(64, 64, b"\0" * 10),
    "no compressed data": _DARK.replace(b"IDAT", b"IDAU"),
    "all white": _grey(8, 8, 255),
    "no width": _png(0, 8, b""),
    "20,000 × 20,000": _png(20_000, 20_000, b"\0"),
    "9,000 × 9,000": _grey(9_000, 9_000, 0),
    "2^31 × 2^31": _png(2**31 - 1, 2**31 - 1, b"\0"),
    "unknown depth": _png(8, 8, b"\0" * 72, depth=7),
    "garbage": bytes(range(256)) * 30,
    "GIF cut off": b"GIF89a\x10\x00\x10\x00\x80\x00\x00",
    "TIFF with a loop": b"II*\0\x08\0\0\0\x01\0\0\x01\x03\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
    "BMP of 2^31 rows": b"BM" + bytes(16) + struct.pack("<iiHH", 8, 2**31 - 1, 1, 24) + bytes(24),
    "JPEG cut off": b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0",
}


def _pictures() -> Iterator[Case]:
    term = '{ kind = "image", file = "shape.png", lower = [-1.0, -1.0], upper = [1.0, 1.0] }'
    solve = ("solve", "base.toml", "--set", f"density.initial=[{term}]")
    for name, content in _PICTURES.items():
        yield Case("pictures", name, solve, ("density.initial.0",), {"shape.png": content})
    line = "domain.box={ lower = [0.0], upper = [1.0], cells = [9] }"
    target = "objective.terminal.target=[0.0]"
    arguments = (*solve, "--set", line, "--set", target)
    yield Case("pictures", "on a line", arguments, ("density.initial.0",), {"shape.png": _DARK})


# -- parameters --------------------------------------------------------------------------------------------------------


class _Opened:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, ("executed", "w")


def _npz(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _npy(shape: str, data: bytes = b"", kind: str = "<f8") -> bytes:
    """A member whose header claims a shape."""
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + data


def _zip(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _bomb(path: Path, size: int = 3 * 2**30) -> None:
    """Three gigabytes of noughts in three megabytes."""
    block = bytes(2**20)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("theta.npy", "w", force_zip64=True) as member,
    ):
        member.write(_npy(f"(1, {size // 8})"))
        for _ in range(size // len(block)):
            member.write(block)


def _parameter_files() -> dict[str, Content]:
    pickled = pickle.dumps(_Opened())
    objects = _npy("(1,)", pickled, "|O")
    good = _npz(theta=np.zeros((2, 22)))
    return {
        "empty": b"",
        "text": "theta = 3",
        "a pickle": pickled,
        "an array alone": _npy("(1, 2)", bytes(16)),
        "objects": _zip({"theta.npy": objects}),
        "a pickle inside": _zip({"theta.npy": pickled}),
        "another array": _npz(weights=np.zeros(3)),
        "wrong shape": _npz(theta=np.zeros((2, 3))),
        "three dimensions": _npz(theta=np.zeros((2, 22, 1))),
        "no numbers": _npz(theta=np.zeros((0, 22))),
        "texts": _npz(theta=np.array(["a", "b"])),
        "complex": _npz(theta=np.zeros((2, 22), dtype=complex)),
        "dates": _npz(theta=np.zeros((2, 22), dtype="M8[s]")),
        "NaN": _npz(theta=np.full((2, 22), np.nan)),
        "infinity": _npz(theta=np.full((2, 22), np.inf)),
        "cut off": good[: len(good) // 2],
        "cut late": good[:-10],
        "one byte changed": good[:150] + b"\xff\xff" + good[152:],
        "10^12 numbers": _zip({"theta.npy": _npy("(1, 1000000000000)")}),
        "a negative shape": _zip({"theta.npy": _npy("(-1, 22)", bytes(352))}),
        "a shape of texts": _zip({"theta.npy": _npy("('a', 'b')", bytes(352))}),
        "a call for a shape": _zip({"theta.npy": _npy("(open('executed', 'w'),)", bytes(352))}),
        "three gigabytes of noughts": _bomb,
        "a path outside": _zip({"../theta.npy": _npy("(2, 22)", bytes(352))}),
    }


def _parameters() -> Iterator[Case]:
    for name, content in _parameter_files().items():
        solve = ("solve", "base.toml", "--set", "field.theta=start.npz")
        yield Case("parameters", name, solve, ("field.theta",), {"start.npz": content})
    for name in ("objects", "cut off", "10^12 numbers", "wrong shape", "NaN"):
        content = _parameter_files()[name]
        files: dict[str, Content] = {"old/theta.npz": content, "new.csv": "x,y\n0.1,0.2\n"}
        push = ("push", "old", "--samples", "new.csv")
        yield Case("parameters", f"push: {name}", push, ("old/theta.npz", "theta.npz"), files, run=True)
        compare = ("compare", "base.toml", "--theta", "start.npz")
        yield Case("parameters", f"compare: {name}", compare, ("--theta",), {"start.npz": content})
    for name, text in (("empty", ""), ("cut off", BASE[:100]), ("other keys", "x = 1\n"), ("binary", "\0\1\2")):
        files = {"old/config.resolved.toml": text}
        names = ("old", "config.resolved.toml", "domain", "x:")
        yield Case("parameters", f"a run's configuration: {name}", ("sample", "old", "-n", "3"), names, files, run=True)
    for name, files in (
        ("history", {"old/history.csv": "iteration,total\n1,2\n3,4,5\n"}),
        ("a history of bytes", {"old/history.csv": bytes(range(256))}),
        ("snapshots", {"old/figures/snapshots.npz": "PK"}),
        (
            "pickled snapshots",
            {"old/figures/snapshots.npz": _zip({"times.npy": _npy("(1,)", pickle.dumps(_Opened()), "|O")})},
        ),
    ):
        contents: dict[str, Content] = dict(files)
        names = ("history", "snapshots")
        yield Case("parameters", f"plot: {name}", ("plot", "old"), names, contents, run=True)
    for name, text in (("empty", ""), ("a list", "[]"), ("no command", "{}"), ("deep", "[" * 100_000)):
        files = {"old/result.json": text}
        yield Case("parameters", f"a run's result: {name}", ("sample", "old", "-n", "3"), ("old",), files, run=True)
