"""Mesh files that are refused, with the same error on all ranks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from paths import MESHES

from eulerian.app.build.mesh import create_mesh
from eulerian.app.config import Domain
from eulerian.base.errors import InputError
from eulerian.base.parallel import on_root
from eulerian.mesh.create import convert, import_mesh

pytestmark = pytest.mark.two_ranks

Write = Callable[..., Path]
SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
TWO_TRIANGLES = np.array([[0, 1, 2], [0, 2, 3]])

CUBE = np.array([[x, y, z] for z in (0.0, 1) for y in (0.0, 1) for x in (0.0, 1)])
STAR = np.vstack([SQUARE[:3], SQUARE[:3] + np.array([0.2, -0.1, 0])])
BENT = np.array([[0.0, 0, 0], [1, 0, 0.5], [1, 1, 0], [0, 1, 0]])

REFUSED: dict[str, tuple[Any, Any, str]] = {
    "quads": (SQUARE, [("quad", [[0, 1, 2, 3]])], "not simplices.*quad"),
    "hexahedra": (CUBE, [("hexahedron", [[0, 1, 3, 2, 4, 5, 7, 6]])], "not simplices.*hexahedron"),
    "mixed": (SQUARE + 0.0, [("triangle", [[0, 1, 2]]), ("quad", [[0, 1, 2, 3]])], "several types.*quad, triangle"),
    "mixed in space": (
        CUBE,
        [("tetra", [[0, 1, 2, 4]]), ("hexahedron", [[0, 1, 3, 2, 4, 5, 7, 6]])],
        "several types.*hexahedron, tetra",
    ),
    "curved": (
        [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.5, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0]],
        [("triangle6", [[0, 1, 2, 3, 4, 5]])],
        "curved.*triangle6",
    ),
    "points only": (SQUARE, [("vertex", [[0], [1]])], "no cells"),
    "nothing": (SQUARE, [], "no cells|cannot read"),
    "surface": (BENT, [("triangle", TWO_TRIANGLES)], "not flat.*mesh its volume too"),
    "upright plane": (SQUARE[:, [0, 2, 1]], [("triangle", TWO_TRIANGLES)], "not flat.*rotate it"),
    "curve": (SQUARE, [("line", [[0, 1], [1, 2]])], "not a line along x.*mesh its surface too"),
    "NaN": (SQUARE * [[1], [1], [np.nan], [1]], [("triangle", TWO_TRIANGLES)], "1 nodes.*not finite.*nan"),
    "infinity": (SQUARE + np.array([[0], [0], [np.inf], [0]]), [("triangle", TWO_TRIANGLES)], "not finite"),
    "far": (SQUARE * 1e200, [("triangle", TWO_TRIANGLES)], "not finite or beyond"),
    "degenerate": (SQUARE * [1, 0, 0], [("triangle", TWO_TRIANGLES)], "2 degenerate cells"),
    "one point": (SQUARE * 0, [("triangle", TWO_TRIANGLES)], "2 degenerate cells"),
    "node twice": (SQUARE, [("triangle", [[0, 1, 2], [0, 2, 2]])], "1 degenerate cells.*cell 1"),
    "flat tetrahedron": (
        np.vstack([SQUARE, [[0, 0, 1]]]),
        [("tetra", [[0, 1, 2, 4], [0, 1, 2, 3]])],
        "degenerate.*cell 1",
    ),
    "cell twice": (SQUARE, [("triangle", [[0, 1, 2], [0, 2, 3], [2, 1, 0]])], "occur twice.*0 and 2"),
    "folded": (
        np.vstack([SQUARE, [[0.9, 0.1, 0]]]),
        [("triangle", [[0, 1, 2], [0, 2, 4]])],
        "cells 0 and 1 overlap.*same side",
    ),
    "branching": (
        np.vstack([SQUARE, [[0.9, 0.1, 0]]]),
        [("triangle", [[0, 1, 2], [0, 2, 3], [0, 2, 4]])],
        "share one facet",
    ),
    "overlapping parts": (STAR, [("triangle", [[0, 1, 2], [3, 4, 5]])], "overlaps another cell"),
    "one inside another": (
        np.vstack([SQUARE, SQUARE * 0.1 + 0.3 * np.array([2, 1, 0])]),
        [("triangle", np.vstack([TWO_TRIANGLES, TWO_TRIANGLES + 4]))],
        "overlaps another cell",
    ),
    "mesh on itself": (
        np.vstack([SQUARE, SQUARE]),
        [("triangle", np.vstack([TWO_TRIANGLES, TWO_TRIANGLES + 4]))],
        "overlaps another cell",
    ),
    "hanging node": (
        np.vstack([SQUARE, [[0.5, 0.5, 0]]]),
        [("triangle", [[0, 1, 4], [4, 1, 2], [0, 2, 3]])],
        "hanging node",
    ),
    "overlapping intervals": ([[0.0, 0, 0], [2, 0, 0], [1, 0, 0]], [("line", [[0, 1], [1, 2]])], "same side"),
    "branching interval": (
        [[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]],
        [("line", [[0, 1], [1, 2], [1, 3]])],
        "share one facet",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(comm: MPI.Comm, write: Write, case: str) -> None:
    points, cells, message = REFUSED[case]
    path = write("bad.vtk", points, [(kind, np.array(array)) for kind, array in cells], binary=True)
    with pytest.raises(InputError, match=message) as error:
        import_mesh(comm, path)
    assert error.value.key == str(path)


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.msh", b"", "empty"),
    "empty vtu": ("a.vtu", b"", "empty"),
    "no mesh": ("a.msh", b"hello\n", "cannot read"),
    "cut off": ("a.msh", b"$MeshFormat\n4.1 0 8\n$EndMeshFormat\n$Nodes\n1 4", "cannot read.*complete"),
    "not XML": ("a.vtu", b"<VTKFile", "cannot read.*complete"),
    "not HDF": ("a.xdmf", b"\x89HDF", "cannot read"),
    "unknown ending": ("a.stp", b"ISO-10303-21;", r"cannot read.*Known formats: .*\.msh"),
    "node out of range": (
        "a.msh",
        b"$MeshFormat\n2.2 0 8\n$EndMeshFormat\n$Nodes\n3\n1 0 0 0\n2 1 0 0\n3 0 1 0\n$EndNodes\n"
        b"$Elements\n1\n1 2 2 0 1 1 2 9\n$EndElements\n",
        "a.msh",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(comm: MPI.Comm, tmp_path: Path, case: str) -> None:
    name, content, message = BROKEN[case]
    on_root(comm, lambda: (tmp_path / name).write_bytes(content))
    with pytest.raises(InputError, match=message) as error:
        import_mesh(comm, tmp_path / name)
    assert error.value.key == str(tmp_path / name)


def test_missing_files_and_folders(comm: MPI.Comm, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.msh.*no such file"):
        create_mesh(comm, Domain(file=tmp_path / "nowhere.msh"))
    with pytest.raises(InputError, match="not a file"):
        import_mesh(comm, tmp_path)


def test_cut_files_are_never_taken_for_whole(comm: MPI.Comm, tmp_path: Path) -> None:
    on_root(comm, lambda: convert(MESHES / "interval.msh", tmp_path / "a.vtu"))
    for source in (MESHES / "interval.msh", MESHES / "ball.msh", tmp_path / "a.vtu"):
        content = source.read_bytes()
        for part in (0.03, 0.3, 0.6, 0.95):
            path = tmp_path / f"cut{source.suffix}"
            cut = content[: int(part * len(content))]
            on_root(comm, partial(path.write_bytes, cut))
            with pytest.raises(InputError, match="cut"):
                import_mesh(comm, path)


def test_conversion_refuses(comm: MPI.Comm, tmp_path: Path) -> None:
    source, target = MESHES / "disk.msh", tmp_path / "disk.vtu"
    on_root(comm, lambda: convert(source, target))
    for wrong, message in (
        (target, "exists"),
        (tmp_path / "nowhere" / "disk.vtu", "no such folder"),
        (tmp_path / "disk.pdf", "unknown mesh format.*pdf"),
    ):
        with pytest.raises(InputError, match=message):
            on_root(comm, partial(convert, source, wrong))
    on_root(comm, lambda: convert(source, target, overwrite=True))
