"""What is in a mesh file, and its conversion to another format. Not collective: call it on one rank."""

import io
import os
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eulerian.base.errors import GMSH_SAVES, EulerianWarning, InputError
from eulerian.mesh.importing import SIMPLEX, read_simplices
from eulerian.mesh.simplices import KINDS, Indices, Simplices, part_of_cell, qualities, signed_volumes, squared_edges

_FORMATS: dict[str, dict[str, Any]] = {
    # meshio writes tags into gmsh files of format 2.2 only.
    ".msh": {"file_format": "gmsh22", "binary": False},
    ".vtu": {"file_format": "vtu"},
    ".vtk": {"file_format": "vtk"},
    ".xdmf": {"file_format": "xdmf", "data_format": "XML"},  # one file, not two
}


@dataclass(frozen=True)
class TagReport:
    """A tag: its name (may be empty), the dimension and number of its cells or facets, and their total measure."""

    name: str
    dim: int
    tag: int
    count: int
    measure: float


@dataclass(frozen=True)
class MeshReport:
    """What is in a mesh file; lengths and volumes are dimensionless.

    Attributes:
        path: the file.
        dimension: of cells and space.
        cells: number of cells.
        nodes: number of nodes that belong to cells.
        orphan_nodes: number of nodes that do not; they are ignored.
        coincident_nodes: number of nodes at the place of another one: there the domain is cut.
        boundary_facets: number of facets with one cell.
        parts: number of parts that are not connected through facets.
        volume: of all cells (1-D: length, 2-D: area).
        h_min: least diameter of a cell.
        h_max: greatest diameter of a cell.
        quality_min: least mean-ratio quality of a cell (1: equilateral, 0: degenerate).
        quality_mean: its mean.
        lower: least coordinates.
        upper: greatest coordinates.
        tags: of cells and facets.
    """

    path: str
    dimension: int
    cells: int
    nodes: int
    orphan_nodes: int
    coincident_nodes: int
    boundary_facets: int
    parts: int
    volume: float
    h_min: float
    h_max: float
    quality_min: float
    quality_mean: float
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    tags: tuple[TagReport, ...]

    def __str__(self) -> str:
        box = " × ".join(f"[{low:.6g}, {high:.6g}]" for low, high in zip(self.lower, self.upper, strict=True))
        orphans = f" and {self.orphan_nodes} without a cell (ignored)" if self.orphan_nodes else ""
        lines = [
            f"{self.path}: {self.cells} {KINDS[self.dimension]}, {self.nodes} nodes{orphans}",
            f"  bounding box      {box}",
            f"  {('length', 'area', 'volume')[self.dimension - 1]:17} {self.volume:.10g}",
            f"  cell diameter     {self.h_min:.4g} to {self.h_max:.4g}",
            f"  quality           {self.quality_min:.3f} at least, {self.quality_mean:.3f} on average (1 is best)",
            f"  boundary facets   {self.boundary_facets}",
        ]
        if self.dimension == 1:
            lines.append("  only lines        no triangles: an interval mesh, for problems in 1-D")
        if self.parts > 1:
            lines.append(f"  parts             {self.parts}, not connected: no mass moves from one to another")
        if self.coincident_nodes:
            lines.append(f"  coincident nodes  {self.coincident_nodes}: the domain is cut there")
        for tag in self.tags:
            kind = "cells" if tag.dim == self.dimension else "facets"
            name = f" {tag.name!r}" if tag.name else ""
            lines.append(f"  tag {tag.tag}{name}: {tag.count} {kind}, measure {tag.measure:.6g}")
        if self.dimension == 1 and self.path.endswith(".msh"):
            lines.append(f"  If the domain is a surface: {GMSH_SAVES.format('surface')}.")
        return "\n".join(lines)


def inspect(path: str | Path) -> MeshReport:
    """Read and check a mesh file and say what is in it.

    Raises:
        InputError: the file cannot be read, or is not the triangulation of a domain.
    """
    mesh, table = read_simplices(path)
    diameters = np.sqrt(squared_edges(mesh.points, mesh.cells).max(axis=1))
    quality = qualities(mesh)
    return MeshReport(
        path=str(path),
        dimension=mesh.dim,
        cells=len(mesh.cells),
        nodes=len(mesh.points),
        orphan_nodes=mesh.n_orphans,
        coincident_nodes=len(mesh.points) - len(np.unique(mesh.points, axis=0)),
        boundary_facets=int(table.boundary.sum()),
        parts=part_of_cell(table, len(mesh.cells))[0],
        volume=float(np.abs(signed_volumes(mesh.points, mesh.cells)).sum()),
        h_min=float(diameters.min()),
        h_max=float(diameters.max()),
        quality_min=float(quality.min()),
        quality_mean=float(quality.mean()),
        lower=tuple(mesh.points.min(axis=0).tolist()),
        upper=tuple(mesh.points.max(axis=0).tolist()),
        tags=_tag_reports(mesh),
    )


def convert(source: str | Path, target: str | Path, *, overwrite: bool = False) -> None:
    """Write a checked mesh in the format that the ending of ``target`` names, with its tags.

    Names of tags survive in .msh files only, and so do several tags of one cell or facet; in another format it keeps
    the first, with an ``EulerianWarning``. The file appears at once and complete, or not at all.

    Raises:
        InputError: the source cannot be read, or the target exists, cannot be written or has an unknown ending.
    """
    import meshio

    mesh, _ = read_simplices(source)
    target = Path(target)
    if target.exists() and not overwrite:
        raise InputError("the file exists", key=str(target), remedy="Choose another name, or ask to overwrite it.")
    if not target.parent.is_dir():
        raise InputError("there is no such folder", key=str(target.parent), remedy="Create it first.")
    if target.suffix.lower() not in meshio.extension_to_filetypes:
        remedy = f"Use one of {', '.join(sorted(_FORMATS))} or another format of meshio."
        raise InputError("unknown mesh format", key=str(target), value=target.suffix, remedy=remedy)
    try:
        with TemporaryDirectory(dir=target.parent, prefix=".convert-") as folder:
            draft = Path(folder) / target.name
            options = _FORMATS.get(target.suffix.lower(), {})
            ending = target.suffix.lower()
            if ending != ".msh":
                mesh = _with_one_tag_each(mesh, target)
            raw = _to_meshio(mesh, facets=mesh.dim > 1 or ending != ".xdmf")
            _quietly(lambda: raw.write(draft, **options), f"cannot write {target.name}", target)
            os.replace(draft, target)
    except OSError as error:
        raise InputError(
            f"cannot write the mesh: {error.strerror}", key=str(target), remedy="Choose another."
        ) from error


def _with_one_tag_each(mesh: Simplices, target: Path) -> Simplices:
    """The first tag of every cell and facet, with a warning where that loses some."""
    lost = len(mesh.more_tags) + len(mesh.more_facet_tags)
    if not lost:
        return mesh
    warnings.warn(
        f"{target.name} holds one tag for each cell and facet: {lost} further tags of those in several groups are left "
        "out; a .msh file would hold them",
        EulerianWarning,
        stacklevel=2,
    )
    return replace(mesh, more_tags=mesh.more_tags[:0], more_facet_tags=mesh.more_facet_tags[:0])


def _to_meshio(mesh: Simplices, *, facets: bool) -> Any:
    """A ``meshio.Mesh`` with three coordinates; its facets only where they are tagged and ``facets`` is true.

    Cells come once for every tag, as gmsh writes them into files of format 2.2.
    What meshio writes to XDMF about single points, the facets of intervals, it cannot read.
    """
    import meshio

    points = np.zeros((len(mesh.points), 3))
    points[:, : mesh.dim] = mesh.points
    cell_tags = np.zeros(len(mesh.cells), dtype=np.int32) if mesh.cell_tags is None else mesh.cell_tags
    cells = [(SIMPLEX[mesh.dim], np.concatenate([mesh.cells, mesh.cells[mesh.more_tags[:, 0]]]))]
    tags = [_with_more(cell_tags, mesh.more_tags)]
    if facets and len(mesh.facets):
        again = mesh.facets[mesh.more_facet_tags[:, 0]]
        cells.append((SIMPLEX[mesh.dim - 1], np.concatenate([mesh.facets, again])))
        tags.append(_with_more(mesh.facet_tags, mesh.more_facet_tags))
    names = {name: np.array([tag, dim]) for name, (dim, tag) in mesh.names.items()}
    data = {"gmsh:physical": tags, "gmsh:geometrical": tags}
    return meshio.Mesh(points, cells, cell_data=data, field_data=names)


def _with_more(tags: NDArray[np.int32], pairs: Indices) -> NDArray[np.int32]:
    """Tags, and behind them the further ones of ``pairs`` (m, 2) of number and tag."""
    return np.concatenate([tags, pairs[:, 1].astype(np.int32)])


def _tag_reports(mesh: Simplices) -> tuple[TagReport, ...]:
    """One report per tag, cells first."""
    names = {key: name for name, key in mesh.names.items()}
    cell_tags = np.zeros(len(mesh.cells), dtype=np.int32) if mesh.cell_tags is None else mesh.cell_tags
    volumes = np.abs(signed_volumes(mesh.points, mesh.cells))
    reports = []
    for dim, first, more, measures in (
        (mesh.dim, cell_tags, mesh.more_tags, volumes),
        (mesh.dim - 1, mesh.facet_tags, mesh.more_facet_tags, _facet_measures(mesh)),
    ):
        tags, sizes = _with_more(first, more), np.concatenate([measures, measures[more[:, 0]]])
        for tag in np.unique(tags[tags != 0]).tolist():
            which = tags == tag
            name = names.get((dim, tag), "")
            reports.append(TagReport(name, dim, tag, int(which.sum()), float(sizes[which].sum())))
    return tuple(reports)


def _facet_measures(mesh: Simplices) -> Any:
    """Measures of the tagged facets: (n,), 1 for points, else lengths or areas."""
    corners = mesh.points[mesh.facets]
    if mesh.dim == 1:
        return np.ones(len(corners))
    edges = corners[:, 1:] - corners[:, :1]
    gram = np.linalg.det(edges @ np.swapaxes(edges, 1, 2))
    return np.sqrt(np.maximum(gram, 0)) / (mesh.dim - 1)


def _quietly[T](work: Callable[[], T], what: str, path: Path) -> T:
    """Run a meshio call without its printing; its failures, even ``sys.exit``, become one InputError."""
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return work()
    except (Exception, SystemExit) as error:
        text = said.getvalue() if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        reason = " ".join(text.split())[:300]
        remedy = "Choose another name, or another format."
        raise InputError(f"{what} ({reason})" if reason else what, key=str(path), remedy=remedy) from error
