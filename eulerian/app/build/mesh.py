"""From the section [domain] to a distributed mesh."""

from mpi4py import MPI

from dolfinx import mesh as dmesh

from eulerian.app.config import Domain
from eulerian.base.errors import InputError
from eulerian.base.parallel import on_root
from eulerian.mesh.create import Check, box_mesh, check_size, distributed, import_mesh
from eulerian.mesh.simplices import Simplices


def create_mesh(
    comm: MPI.Comm, domain: Domain, check: Check | None = None, simplices: Simplices | None = None
) -> dmesh.Mesh:
    """The mesh of a domain: affine simplices that fill their space, with shared-facet ghosts. Collective.

    The order of the cells by ``original_cell_index`` does not depend on the number of ranks.

    Args:
        comm: the ranks that share the mesh.
        domain: a box or a file.
        check: called with dimension and number of cells before the mesh is made, at least on rank 0; what it raises
            reaches all ranks.
        simplices: another mesh of the same domain, known to all ranks, to be used instead of the one that it describes.

    Raises:
        InputError: the mesh file cannot be read, or is not the triangulation of a domain.
    """
    if simplices is not None:
        dim, n_cells = simplices.dim, float(len(simplices.cells))
        check_size(n_cells, "adapt.max_cells")
        if check is not None:
            on_root(comm, lambda: check(dim, n_cells))
        return distributed(comm, simplices if comm.rank == 0 else None, dim)
    if domain.box is not None:
        box = domain.box
        return box_mesh(box.lower, box.upper, [n * 2**domain.refine for n in box.cells], comm, check=check)
    if domain.file is None:
        raise InputError("needs a box or a file", key="domain")
    return import_mesh(comm, domain.file, domain.refine, check).mesh
