"""The gradient of the unlimited scheme equals that of PETSc's TS and TSAdjoint, which know nothing of this package.

PETSc has no adjoint of its own SSP methods, so TSRK is given the Butcher tableaux of ours.
"""

import ctypes
from collections.abc import Callable, Iterator

from mpi4py import MPI

import numpy as np
import pytest
import scipy.sparse
from petsc4py import PETSc
from problems import random_rows, warped_mesh, wave

from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.transport.operator import TransportOperator
from eulerian.transport.reference import coordinate_entries
from eulerian.transport.ssp import SSPScheme
from eulerian.transport.stepper import Stepper
from eulerian.transport.time_grid import TimeGrid
from eulerian.transport.trajectory import Trajectory
from eulerian.transport.velocity_space import VelocitySpace

CASES = [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (3, 1)]
HORIZON, STEPS = 0.2, 7


@pytest.fixture(autouse=True)
def serial(comm: MPI.Comm) -> Iterator[None]:
    if comm.size > 1:
        pytest.skip("the oracle runs on one rank")
    yield
    for name in ("oracle_ts_rk_type", "oracle_ts_adapt_type", "ts_trajectory_type"):
        PETSc.Options().delValue(name)


def transport(dim: int, degree: int) -> TransportOperator:
    space = DensitySpace(warped_mesh(MPI.COMM_SELF, dim), degree)
    return TransportOperator(space, VelocitySpace(space), delta=0.03)


def velocities(operator: TransportOperator) -> tuple[Floats, list[Floats]]:
    """v(θ) = Σ θ_k ψ_k with the θ that is looked at."""
    x = operator.velocity_space.x
    return np.array([0.7, -0.4, 0.5]), [wave(x, seed) for seed in range(3)]


def matrix(operator: TransportOperator, v: Floats) -> scipy.sparse.csr_array:
    operator.assemble(v)
    rows, columns, values = coordinate_entries(operator)
    size = operator.density_space.n_owned * operator.density_space.nd
    return scipy.sparse.coo_array((values, (rows, columns)), shape=(size, size)).tocsr()


def matrix_derivative(operator: TransportOperator, v: Floats, psi: Floats) -> scipy.sparse.csr_array:
    """dB/dτ at v + τψ, by differences of sixth order: it is smooth in v on the scale δ."""
    h, weights = 1e-3, {1: 0.75, 2: -0.15, 3: 1.0 / 60.0}
    total = sum(
        w / h * (matrix(operator, v + i * h * psi) - matrix(operator, v - i * h * psi)) for i, w in weights.items()
    )
    return total.tocsr()


def combined(theta: Floats, basis: list[Floats]) -> Floats:
    return np.asarray(sum(t * psi for t, psi in zip(theta, basis, strict=True)))


def petsc_matrix(a: scipy.sparse.csr_array) -> PETSc.Mat:
    pattern = (a.indptr.astype(PETSc.IntType), a.indices.astype(PETSc.IntType), a.data)
    return PETSc.Mat().createAIJ(a.shape, csr=pattern, comm=PETSc.COMM_SELF)


def tableau(scheme: SSPScheme) -> tuple[Floats, Floats]:
    """Butcher's coefficients (s, s), and the weights (s,): what slopes add to the states, by stage."""
    rows = np.zeros((scheme.stages + 1, scheme.stages))
    for i, alpha in enumerate(scheme.alpha):
        rows[i + 1] = (1.0 - alpha) * (rows[i] + np.eye(scheme.stages)[i] / scheme.coefficient)
    return rows[:-1], rows[-1]


def registered(scheme: SSPScheme, order: int) -> str:
    """The name under which TSRK knows a scheme; petsc4py does not offer to register one."""
    coefficients, weights = (np.ascontiguousarray(each, dtype=PETSc.RealType) for each in tableau(scheme))
    name, integer = f"ssp{scheme.stages}{order}", np.ctypeslib.as_ctypes_type(PETSc.IntType)
    pointers = [ctypes.c_void_p(each.ctypes.data) for each in (coefficients, weights)]
    register = ctypes.CDLL(PETSc.__file__).TSRKRegister
    assert register(name.encode(), integer(order), integer(scheme.stages), *pointers, None, None, integer(0), None) == 0
    return name


class Oracle:
    """∂ρ/∂t = Bρ by TS, with the adjoint with respect to ρ₀ and θ."""

    def __init__(self, method: str, b: scipy.sparse.csr_array, derivatives: list[scipy.sparse.csr_array]) -> None:
        self.b, self.derivatives = petsc_matrix(b), derivatives
        self.by_theta = PETSc.Mat().createDense((b.shape[0], len(derivatives)), comm=PETSc.COMM_SELF).setUp()
        self.ts = PETSc.TS().create(PETSc.COMM_SELF)
        options = PETSc.Options()
        options["oracle_ts_rk_type"] = method
        options["oracle_ts_adapt_type"] = "none"
        options["ts_trajectory_type"] = "memory"  # the trajectory does not inherit the prefix
        self.ts.setOptionsPrefix("oracle_")
        self.ts.setProblemType(PETSc.TS.ProblemType.NONLINEAR)
        self.ts.setType("rk")
        self.ts.setRHSFunction(lambda _ts, _t, u, f: self.b.mult(u, f), self.b.createVecLeft())
        self.ts.setRHSJacobian(lambda *_: True, self.b, self.b)
        self.ts.setRHSJacobianP(self._fill, self.by_theta)
        self.ts.setSaveTrajectory()
        self.ts.setMaxTime(HORIZON)
        self.ts.setTimeStep(HORIZON / STEPS)
        self.ts.setExactFinalTime(PETSc.TS.ExactFinalTime.MATCHSTEP)
        self.ts.setFromOptions()

    def _fill(self, _ts: PETSc.TS, _t: float, u: PETSc.Vec, target: PETSc.Mat) -> bool:
        target.setValues(
            range(u.size), range(len(self.derivatives)), np.stack([d @ u.array_r for d in self.derivatives], axis=1)
        )
        target.assemble()
        return True

    def run(self, rho: Floats, terminal: Callable[[Floats], Floats]) -> tuple[Floats, Floats, Floats]:
        """ρ(T), and the derivatives of a terminal cost by ρ₀ and θ."""
        u = PETSc.Vec().createWithArray(rho.copy(), comm=PETSc.COMM_SELF)
        self.ts.solve(u)
        assert self.ts.getStepNumber() == STEPS
        end = u.array_r.copy()
        by_state = PETSc.Vec().createWithArray(terminal(end), comm=PETSc.COMM_SELF)
        by_theta = self.by_theta.createVecRight()
        by_theta.set(0.0)
        self.ts.setCostGradients([by_state], [by_theta])
        self.ts.adjointSolve()
        return end, by_state.array_r.copy(), by_theta.array_r.copy()


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_gradient_of_the_unlimited_scheme(dim: int, degree: int) -> None:
    operator = transport(dim, degree)
    theta, basis = velocities(operator)
    v = combined(theta, basis)
    rho = random_rows(operator.density_space, 1, 4)
    target = np.random.default_rng(5).standard_normal(rho.shape)
    trajectory = Trajectory([Stepper(operator, limited=False)], TimeGrid(HORIZON, 1), 2.0**30)

    # F(ρ_T) = ½|ρ_T - target|² in the coefficients, not linear, so that a wrong ρ_T shows in the gradient.
    sweep = trajectory.forward([rho], [[v]], (STEPS,))
    (end,) = sweep.end
    cotangent = end - target
    ((by_velocity,),) = sweep.adjoint([cotangent], [[np.zeros((len(rho), rho.shape[1]))]])
    by_theta = np.array([np.vdot(by_velocity, psi) for psi in basis])

    derivatives = [matrix_derivative(operator, v, psi) for psi in basis]
    oracle = Oracle(registered(operator.method, degree + 1), matrix(operator, v), derivatives)
    expected = oracle.run(rho.ravel(), lambda u: u - target.ravel())

    np.testing.assert_allclose(end.ravel(), expected[0], rtol=0, atol=1e-12 * np.abs(end).max())
    np.testing.assert_allclose(cotangent.ravel(), expected[1], rtol=0, atol=1e-12 * np.abs(cotangent).max())
    # The oracle's ∂B/∂θ comes from differences.
    np.testing.assert_allclose(by_theta, expected[2], rtol=1e-8, atol=1e-8 * np.abs(by_theta).max())
    assert np.linalg.norm(by_theta) > 1e-2
