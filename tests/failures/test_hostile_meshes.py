"""Files with random damage give a mesh or an InputError, soon, and never anything else."""

import struct
import time
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eulerian.base.errors import InputError
from eulerian.mesh.importing import read_simplices
from eulerian.mesh.simplices import Simplices

pytestmark = pytest.mark.one_process

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "gmsh 2.2": ("a.msh", {"file_format": "gmsh22", "binary": False}),
    "gmsh 2.2, binary": ("a.msh", {"file_format": "gmsh22", "binary": True}),
    "gmsh 4.1": ("a.msh", {"file_format": "gmsh", "binary": False}),
    "gmsh 4.1, binary": ("a.msh", {"file_format": "gmsh", "binary": True}),
    "vtu": ("a.vtu", {"binary": False}),
    "vtu, compressed": ("a.vtu", {"binary": True}),
    "vtk": ("a.vtk", {"binary": True}),
    "xdmf": ("a.xdmf", {"data_format": "XML"}),
    "medit": ("a.mesh", {}),
    "ply": ("a.ply", {"binary": False}),
    "med": ("a.med", {}),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small mesh in all formats."""
    x, y = np.meshgrid(np.arange(4.0), np.arange(4.0))
    points = np.column_stack([x.ravel(), y.ravel(), np.zeros(16)])
    corner = (np.arange(3) + 4 * np.arange(3)[:, None]).ravel()
    cells = np.concatenate([corner[:, None] + [0, 1, 5], corner[:, None] + [0, 5, 4]])
    folder = tmp_path_factory.mktemp("whole")
    found = {}
    for kind, (name, options) in FORMATS.items():
        meshio.Mesh(points, [("triangle", cells)]).write(folder / name, **options)
        found[kind] = (folder / name).read_bytes()
    return found


def damaged(content: bytes, places: list[tuple[float, str, bytes]]) -> bytes:
    """The content with bytes replaced, cut out, put in, or with its end cut off, at shares of its length."""
    for share, how, new in places:
        at = int(share * len(content))
        rest = {"put in": at, "replaced": at + len(new), "cut out": at + 3 * len(new), "cut off": len(content)}[how]
        content = content[:at] + (new if how in ("put in", "replaced") else b"") + content[rest:]
    return content


BYTES = st.one_of(
    st.binary(min_size=1, max_size=8), st.sampled_from([b"9" * 12, b"-1", b"nan", b"\xff" * 8, b" 0 ", b"\n"])
)
HOW = st.sampled_from(["put in", "replaced", "replaced", "cut out", "cut off"])
PLACES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), HOW, BYTES), min_size=1, max_size=3)


@settings(derandomize=True, deadline=None, max_examples=20, database=None)
@given(st.sampled_from(sorted(FORMATS)), PLACES)
def test_damage(
    whole: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, kind: str, places: list[tuple[float, str, bytes]]
) -> None:
    path = tmp_path_factory.getbasetemp() / FORMATS[kind][0]
    path.write_bytes(damaged(whole[kind], places))
    since = time.monotonic()
    try:
        found: Simplices | InputError = read_simplices(path)[0]
    except InputError as error:
        found = error
    if isinstance(found, InputError):
        assert found.key == str(path)
        assert found.remedy or found.value is not None
    else:
        assert np.isfinite(found.points).all()
    assert time.monotonic() - since < 20  # four seconds of the processor


def test_without_damage(whole: dict[str, bytes], tmp_path: Path) -> None:
    for kind, (name, _) in FORMATS.items():
        (tmp_path / name).write_bytes(whole[kind])
        assert len(read_simplices(tmp_path / name)[0].cells) == 18


def test_a_loop_is_ended_and_memory_is_not_given(tmp_path: Path) -> None:
    claim = b"$MeshFormat\n4.1 1 8\n" + struct.pack("i", 1) + b"\n$EndMeshFormat\n$Nodes\n"
    claim += struct.pack("QQQQiiiQ", 1, 10**11, 1, 10**11, 2, 1, 0, 10**11)
    for name, content, words in (
        ("loop.off", b"OFF\n", "crashed or took too long"),
        ("claim.msh", claim, "far more memory"),
    ):
        (tmp_path / name).write_bytes(content)
        since = time.monotonic()
        with pytest.raises(InputError, match=words):
            read_simplices(tmp_path / name)
        assert time.monotonic() - since < 20


def test_the_last_node_is_not_node_nought(tmp_path: Path) -> None:
    text = (
        "$MeshFormat\n2.2 0 8\n$EndMeshFormat\n$Nodes\n3\n1 0 0 0\n2 1 0 0\n3 0 1 0\n$EndNodes\n"
        "$Elements\n1\n1 2 2 0 1 1 2 0\n$EndElements\n"
    )
    (tmp_path / "a.msh").write_text(text, encoding="ascii")
    with pytest.raises(InputError, match="nodes that do not exist"):
        read_simplices(tmp_path / "a.msh")


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.h5", "a/../../x.h5", "nowhere.h5", "C:\\x"])
def test_data_elsewhere_are_not_read(tmp_path: Path, name: str) -> None:
    item = f'<DataItem DataType="Float" Dimensions="3 2" Format="HDF">{name}:/x</DataItem>'
    text = f'<Xdmf Version="3.0"><Domain><Grid><Geometry GeometryType="XY">{item}</Geometry></Grid></Domain></Xdmf>'
    (tmp_path / "a.xdmf").write_text(text, encoding="ascii")
    with pytest.raises(InputError, match=r"no file beside it|not there"):
        read_simplices(tmp_path / "a.xdmf")
