"""The ghost exchange of the compiled loops: persistent MPI requests that C starts by itself."""

import ctypes
import weakref
from functools import cache
from typing import Any, final

from mpi4py import MPI

import numpy as np

from eulerian.base.arrays import Floats, Ints
from eulerian.base.errors import ComputationError
from eulerian.transport.simd_layout import NodalLayout

_TAG = 4711


@final
class GhostExchange:
    """What this rank sends and receives when ghosts are brought up to date: the nodes on facets between ranks, no more.

    Args:
        layout: where nodes are stored.
        across: ``layout.across()``.

    Attributes:
        send: positions to send, by receiver, of the first group.
        receive: positions to fill, by sender.
        send_buffer: (len(send), groups × width).
        receive_buffer: (len(receive), groups × width).
        requests: MPI handles as bytes; none on one rank.
        statuses: room for as many MPI statuses.
    """

    def __init__(self, layout: NodalLayout, across: Ints) -> None:
        """Collective."""
        comm, columns = layout.space.mesh.comm, layout.groups * layout.width
        wanted = _wanted(layout, across)
        asked = _exchanged(comm, wanted)
        self.receive = _joined([_places(layout, rows) for rows in wanted.values()])
        self.send = _joined([_places(layout, rows) for rows in asked.values()])
        self.receive_buffer: Floats = np.zeros((len(self.receive), columns))
        self.send_buffer: Floats = np.zeros((len(self.send), columns))
        requests = _persistent(comm.Recv_init, self.receive_buffer, wanted)
        requests += _persistent(comm.Send_init, self.send_buffer, asked)
        self.n_requests = len(requests)
        # C starts the requests from a plain array of handles, whose size depends on the MPI library.
        handles = [ctypes.string_at(MPI._addressof(request), MPI._sizeof(MPI.Request)) for request in requests]
        self.requests = np.frombuffer(b"".join(handles), dtype=np.uint8).copy()
        self.statuses = np.zeros(self.n_requests * MPI._sizeof(MPI.Status), dtype=np.uint8)
        weakref.finalize(self, _free, requests).atexit = False  # MPI may have ended by then, and frees them itself


@cache
def mpi_functions() -> tuple[int, int]:
    """Addresses of MPI_Startall and MPI_Waitall, in the library that mpi4py works with.

    Raises:
        ComputationError: mpi4py hides them.
    """
    library = ctypes.CDLL(MPI.__file__)
    try:
        functions = library.MPI_Startall, library.MPI_Waitall
    except AttributeError:
        raise ComputationError(
            f"MPI_Startall is not to be found through {MPI.__file__}; "
            "use an mpi4py that is linked to a shared MPI library"
        ) from None
    start, wait = (ctypes.cast(function, ctypes.c_void_p).value for function in functions)
    assert start is not None
    assert wait is not None
    return start, wait


type _Rows = dict[int, np.ndarray[Any, np.dtype[np.int64]]]


def _wanted(layout: NodalLayout, across: Ints) -> _Rows:
    """By owner, (global cell, node) of the ghosts' nodes that this rank looks at; every pair once, sorted."""
    space = layout.space
    cells = space.mesh.topology.index_map(space.dim)
    first = int(np.prod(layout.owned_shape))
    # Not whole ghost cells: across a facet only its own nodes are looked at.
    positions = np.unique(across[across >= first])
    ghost_places = layout.places[space.n_owned :]
    at = np.full(int(np.prod(layout.shape)) - first, -1, dtype=np.int64)
    at[ghost_places.ravel() - first] = np.arange(ghost_places.size)
    ghost, node = np.divmod(at[positions - first], space.nd)
    rows = np.column_stack([np.asarray(cells.ghosts)[ghost], node]).astype(np.int64)
    owners = np.asarray(cells.owners)[ghost]
    return {int(rank): np.unique(rows[owners == rank], axis=0) for rank in np.unique(owners)}


def _exchanged(comm: MPI.Comm, wanted: _Rows) -> _Rows:
    """By rank, what it wants of this one. Collective."""
    # Numbers are sent once, here: both sides keep them in one order, and exchanges carry values only.
    counts = np.zeros(comm.size, dtype=np.int64)
    for rank, rows in wanted.items():
        counts[rank] = len(rows)
    theirs = np.empty_like(counts)
    comm.Alltoall(counts, theirs)
    asked = {int(rank): np.empty((theirs[rank], 2), dtype=np.int64) for rank in np.flatnonzero(theirs)}
    requests = [comm.Irecv(rows, rank, _TAG) for rank, rows in asked.items()]
    requests += [comm.Isend(rows, rank, _TAG) for rank, rows in wanted.items()]
    MPI.Request.Waitall(requests)
    return asked


def _places(layout: NodalLayout, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Ints:
    """Positions of (global cell, node) pairs, owned or ghost."""
    space = layout.space
    cells = space.mesh.topology.index_map(space.dim).global_to_local(rows[:, 0])
    return np.asarray(layout.places[cells, rows[:, 1]])


def _joined(parts: list[Ints]) -> Ints:
    return np.concatenate([np.zeros(0, dtype=np.int32), *parts]).astype(np.int32)


def _persistent(create: Any, buffer: Floats, rows: _Rows) -> list[MPI.Prequest]:
    """One persistent request for every rank's part of a buffer."""
    # Persistent: a time step has an exchange per stage, always of the same buffers.
    requests, start = [], 0
    for rank, part in rows.items():
        requests.append(create(buffer[start : start + len(part)], rank, _TAG))
        start += len(part)
    return requests


def _free(requests: list[MPI.Prequest]) -> None:
    for request in requests:
        request.Free()
