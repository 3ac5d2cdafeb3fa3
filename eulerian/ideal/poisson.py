"""The space-time Poisson problem of the splitting method, solved mode by mode."""

from collections.abc import Iterator
from contextlib import contextmanager

from mpi4py import MPI

import numpy as np
import scipy.linalg
from petsc4py import PETSc
from scipy import sparse

from eulerian.base.arrays import Floats, Ints
from eulerian.base.errors import ComputationError
from eulerian.ideal.space_time import SpaceTime, mass_matrix

_PREFIX = "eulerian_ideal_"
_LARGEST_DIRECT_3D = 8000  # vertices of a tetrahedral mesh up to which factors are cheaper than iterations


class SpaceTimePoisson:
    """Solves Pφ = f for the weighted norm of (−∂_tφ at the vertices, ω∇φ at the instants, √γ φ_T).

    The matrix is A ⊗ M + ω² B ⊗ S with M the lumped mass matrix, S the stiffness matrix, A the time stiffness plus γ at
    T, and B diagonal. With A W = B W diag(μ), WᵀBW = 1, it falls apart into the L + 1 Helmholtz problems (μ M + ω² S),
    which are dealt to the ranks; each is factorised once on one rank (PETSc, prefix ``eulerian_ideal_``).

    Args:
        grid: the space-time.
        omega: ω, a velocity.
        gamma: γ, one over a time; 0 leaves φ free up to a constant, and f must then be orthogonal to constants.
        weights: of the vertices, for S, (n_nodes,).
        time_weights: for M.
    """

    def __init__(self, grid: SpaceTime, omega: float, gamma: float, weights: Floats, time_weights: Floats) -> None:
        """Collective."""
        self._grid, comm = grid, grid.comm
        size = grid.layers + 1
        difference = np.diff(np.eye(size), axis=0)
        stiffness = difference.T @ difference / grid.tau
        stiffness[-1, -1] += gamma
        spans = np.full(size, grid.tau)
        spans[[0, -1]] /= 2.0  # the trapezoidal rule in time
        values, self._modes = scipy.linalg.eigh(stiffness, np.diag(spans))
        bounds = np.linspace(0, size, comm.size + 1).astype(int)
        self._first, self._last = bounds[comm.rank], bounds[comm.rank + 1]
        self._counts = np.diff(bounds)
        self._members: list[Ints] = comm.allgather(grid.numbers)
        gathered = GatheredMesh(grid)
        everywhere = grid.gather_vertices(weights)
        on_cells = everywhere[gathered.cells].mean(axis=1)[:, None, None]
        rigidity = gathered.pattern.assemble(on_cells * gathered.stiffness)
        lumped = sparse.csr_array(sparse.diags_array(gathered.masses * grid.gather_vertices(time_weights)))
        # The last solution: an iterative solver begins there.
        self._guess = np.zeros((self._last - self._first, grid.n_global))
        direct = grid.dim < 3 or grid.n_global <= _LARGEST_DIRECT_3D
        self._solvers = []
        for mode in range(self._first, self._last):
            helmholtz: sparse.csr_array = sparse.csr_array(values[mode] * lumped + omega**2 * rigidity)
            if gamma == 0.0 and mode == 0:  # singular by constants: take the solution that vanishes at one vertex
                helmholtz[0, 0] += helmholtz.diagonal().max()
            self._solvers.append(Factorised(helmholtz, direct))

    def solve(self, f: Floats) -> Floats:
        """φ (n_nodes, L + 1) for this rank's contributions to f (n_nodes, L + 1). Collective."""
        grid, comm = self._grid, self._grid.comm
        ours = np.zeros((self._last - self._first, grid.n_global))
        spectral = np.ascontiguousarray(self._modes.T @ f.T)
        if comm.size == 1:
            ours[:, grid.numbers] = spectral
        else:
            parts = self._exchange(spectral, self._counts * grid.n_nodes, forth=True)
            for numbers, part in zip(self._members, parts, strict=True):
                ours[:, numbers] += part.reshape(len(ours), len(numbers))
        for solver, row, guess in zip(self._solvers, ours, self._guess, strict=True):
            solver.solve(row, guess)
        if comm.size == 1:
            spectral = self._guess[:, grid.numbers]
        else:
            rows = [self._guess[:, numbers].ravel() for numbers in self._members]
            back = self._exchange(np.concatenate(rows), self._counts * grid.n_nodes, forth=False)
            spectral = np.concatenate(back).reshape(len(self._modes), grid.n_nodes)
        return np.ascontiguousarray((self._modes @ spectral).T)

    def destroy(self) -> None:
        """Free the factors. Local."""
        for solver in self._solvers:
            solver.destroy()

    def _exchange(self, buffer: Floats, per_rank: Ints, *, forth: bool) -> list[Floats]:
        """Send modes × vertices to the ranks that own the modes, or back. Collective."""
        comm = self._grid.comm
        owned = np.array([len(numbers) * len(self._guess) for numbers in self._members])
        sent, received = (per_rank, owned) if forth else (owned, per_rank)
        result = np.empty(received.sum())
        comm.Alltoallv((buffer.ravel(), sent.tolist()), (result, received.tolist()))
        return np.split(result, np.cumsum(received)[:-1])


class Factorised:
    """A symmetric positive definite matrix on one rank: a Cholesky factor, or conjugate gradients.

    It is scaled: PETSc takes a pivot below 2e-14 for zero, in whatever units.

    Args:
        matrix: the matrix, both triangles.
        direct: factorise it.
    """

    def __init__(self, matrix: sparse.csr_array, direct: bool = True) -> None:
        matrix.sort_indices()
        self._scale = 1.0 / float(matrix.data.max())
        size = matrix.shape[0]
        pattern = matrix.indptr.astype("i4"), matrix.indices.astype("i4"), self._scale * matrix.data
        self._matrix = PETSc.Mat().createAIJ(size=(size, size), csr=pattern, comm=MPI.COMM_SELF)
        self._matrix.setOption(PETSc.Mat.Option.SPD, True)
        self._solver = PETSc.KSP().create(MPI.COMM_SELF)
        self._solver.setOptionsPrefix(_PREFIX)
        self._solver.setOperators(self._matrix)
        conditioner = self._solver.getPC()
        if direct:
            self._solver.setType("preonly")
            conditioner.setType("cholesky")
            conditioner.setFactorOrdering(ord_type="nd")
        else:
            self._solver.setType("cg")
            conditioner.setType("icc")
            self._solver.setTolerances(rtol=1e-10, max_it=2000)
            self._solver.setInitialGuessNonzero(True)
        self._solver.setFromOptions()
        self._x, self._b = self._matrix.createVecs()
        with _as_computation_error():
            self._solver.setUp()

    def change(self, matrix: sparse.csr_array) -> None:
        """Factorise another matrix of the same pattern."""
        matrix.sort_indices()
        self._scale = 1.0 / float(matrix.data.max())
        self._matrix.setValuesCSR(matrix.indptr.astype("i4"), matrix.indices.astype("i4"), self._scale * matrix.data)
        self._matrix.assemble()
        self._solver.setOperators(self._matrix)
        with _as_computation_error():
            self._solver.setUp()

    def solve(self, b: Floats, x: Floats) -> None:
        """Overwrite x by the solution; x is the first guess where the solver iterates."""
        # PETSc works in our arrays: nothing is copied.
        self._b.placeArray(self._scale * b)
        self._x.placeArray(x)
        try:
            self._solver.solve(self._b, self._x)
        finally:
            self._b.resetArray()
            self._x.resetArray()
        if self._solver.getConvergedReason() < 0:
            reason = self._solver.getConvergedReason()
            raise ComputationError(
                f"a Helmholtz problem of the idealised problem was not solved (PETSc's reason {reason}); "
                f"options with the prefix -{_PREFIX} choose another solver"
            )

    def destroy(self) -> None:
        """Free PETSc's objects."""
        for thing in (self._solver, self._matrix, self._x, self._b):
            thing.destroy()


def factorised(matrix: sparse.csr_array, solver: Factorised | None) -> Factorised:
    """A new solver for a matrix, or an old one, whose matrix had the same pattern: it need not be analysed again."""
    if solver is None:
        return Factorised(matrix)
    solver.change(matrix)
    return solver


@contextmanager
def _as_computation_error() -> Iterator[None]:
    """Turn PETSc's error into one that says what was computed."""
    try:
        yield
    except PETSc.Error as error:
        raise ComputationError(f"a Helmholtz problem of the idealised problem cannot be factorised: {error}") from error


class Pattern:
    """Where element matrices go, found once for many assemblies.

    Args:
        cells: (n, dim+1) global vertex numbers of all cells.
        size: N, number of vertices.
    """

    def __init__(self, cells: Ints, size: int) -> None:
        self._cells, self._size = cells, size
        corners = cells.shape[1]
        # An entry (row, column) is the one number row·N + column, so that one sort finds all entries.
        keys = np.repeat(cells, corners, axis=1).ravel() * np.int64(size) + np.tile(cells, (1, corners)).ravel()
        entries, self._place = np.unique(keys, return_inverse=True)
        rows, self._columns = np.divmod(entries, size)
        self._starts = np.searchsorted(rows, np.arange(size + 1))

    def assemble(self, elements: Floats) -> sparse.csr_array:
        """The matrix (N, N) of element matrices (n, dim+1, dim+1); zeros stay in the pattern."""
        data = np.bincount(self._place, elements.ravel(), minlength=len(self._columns))
        return sparse.csr_array((data, self._columns, self._starts), shape=(self._size, self._size))


class GatheredMesh:
    """The cells of all ranks, on every rank: each solves some of the linear problems alone.

    Args:
        grid: the space-time.

    Attributes:
        cells: (n, dim+1) global vertex numbers.
        volumes: (n,).
        gradients: (n, dim+1, dim) of the barycentric coordinates.
        stiffness: (n, dim+1, dim+1) element matrices ∫∇φ_i·∇φ_j.
        masses: (N,) volumes of the vertices.
        pattern: of matrices on the vertices.
        blur: (N, N) the matrix that is M_i times a blur over vertices.
    """

    def __init__(self, grid: SpaceTime) -> None:
        """Collective."""
        gather = grid.comm.allgather
        self.cells: Ints = np.concatenate(gather(grid.numbers[grid.nodes]))
        self.volumes: Floats = np.concatenate(gather(grid.volumes))
        self.gradients: Floats = np.concatenate(gather(grid.gradients))
        self.stiffness: Floats = np.einsum(
            "c,cid,cjd->cij", self.volumes, self.gradients, self.gradients, optimize=True
        )
        self.masses: Floats = grid.gather_vertices(grid.masses)
        self.pattern = Pattern(self.cells, grid.n_global)
        self.blur = mass_matrix(self.cells, self.volumes, grid.n_global)
