"""Powers of densities: their operator and its transpose and derivative, time steps, walls, and why they are there."""

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
import pytest
from modal import modes
from problems import random_density, random_rows, warped_mesh, wave
from thinning import thinned

from eulerian.app.build.mesh import create_mesh
from eulerian.app.config import Box, Domain
from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.transport.operator import TransportOperator
from eulerian.transport.power import Power
from eulerian.transport.reference import blocks
from eulerian.transport.simd_layout import NodalLayout
from eulerian.transport.stepper import Stepper, StepRecord
from eulerian.transport.velocity_space import VelocitySpace

CASES = [(dim, degree) for dim in (1, 2, 3) for degree in (0, 1, 2)]
DELTA = 0.03


def operator(space: DensitySpace, exponent: int = 2) -> TransportOperator:
    """Of the powers of all labels of a space, one by one."""
    power = Power(NodalLayout(space, space.n_labels), np.eye(space.n_labels, dtype=bool), exponent)
    return TransportOperator(space, VelocitySpace(space), space.n_labels, DELTA, power=power)


def inner(space: DensitySpace, a: Floats, b: Floats) -> float:
    """⟨a, b⟩ over the owned rows of all ranks."""
    return float(parallel.sum_all(space.comm, np.array([np.vdot(a[: space.n_owned], b[: space.n_owned])]))[0])


@pytest.mark.parametrize(("columns", "exponent"), thinned([(1, 2), (3, 3), (9, 2)], {(9, 2)}))
@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_products_and_transpose(comm: MPI.Comm, dim: int, degree: int, columns: int, exponent: int) -> None:
    space = DensitySpace(warped_mesh(comm, dim), degree, columns)
    transport = operator(space, exponent)
    transport.assemble(wave(transport.velocity_space.x))
    q, lam = random_rows(space, columns, 1), random_rows(space, columns, 2)

    forward, backward = transport.apply(q), transport.apply_transpose(lam)

    assert transport.velocity is not None
    b = blocks(space, transport.velocity_space, transport.velocity, DELTA, exponent)
    expected = np.einsum("cij,cjk->cik", b[:, 0], q[: space.n_owned])
    for f in range(dim + 1):
        across = np.maximum(space.geometry.neighbours[: space.n_owned, f], 0)
        expected += np.einsum("cij,cjk->cik", b[:, 1 + f], q[across])
    np.testing.assert_allclose(forward[: space.n_owned], expected, atol=1e-11)
    scale = np.sqrt(inner(space, forward, forward) * inner(space, lam, lam))
    assert abs(inner(space, lam, forward) - inner(space, backward, q)) <= 1e-14 * scale


@pytest.mark.parametrize("columns", thinned([1, 2, 9], {9}))
@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_velocity_gradient(comm: MPI.Comm, dim: int, degree: int, columns: int) -> None:
    space = DensitySpace(warped_mesh(comm, dim), degree, columns)
    transport = operator(space)
    x = transport.velocity_space.x
    v, w = wave(x), wave(x, seed=5)
    q, lam = random_rows(space, columns, 1), random_rows(space, columns, 2)

    transport.assemble(v)
    slope = float(parallel.sum_all(comm, np.array([np.vdot(transport.velocity_gradient(lam, q), w)]))[0])

    def pairing(h: float) -> float:
        transport.assemble(v + h * w)
        return inner(space, lam, transport.apply(q))

    h = 1e-4
    difference = (8.0 * (pairing(h) - pairing(-h)) - (pairing(2 * h) - pairing(-2 * h))) / (12.0 * h)
    assert slope == pytest.approx(difference, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_euler_steps_at_the_rate_keep_means_positive(comm: MPI.Comm, dim: int, degree: int) -> None:
    space = DensitySpace(warped_mesh(comm, dim), degree, 4)
    transport = operator(space, 9)
    x = transport.velocity_space.x
    rate = transport.assemble(wave(x, speed=3.0) + 6.0 * x)  # the source takes more away than what leaves
    lowest = {1.0: 0.0, 20.0: 0.0}
    for trial in range(20):
        q = random_density(space, 4, trial)
        change = transport.apply(q)
        for factor in lowest:
            means = (q + factor / (rate * transport.scheme.coefficient) * change)[: space.n_owned, 0]
            lowest[factor] = min(lowest[factor], comm.allreduce(float(means.min(initial=0.0)), MPI.MIN))
    assert lowest[1.0] >= -1e-13
    assert lowest[20.0] < -1e-2


# -- beside their densities --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """Steppers of densities and of their powers."""

    density: Stepper
    power: Stepper

    @classmethod
    def of(cls, space: DensitySpace, kind: str, *, limited: bool = True, delta: float = DELTA) -> "Pair":
        velocities = VelocitySpace(space)
        density = TransportOperator(space, velocities, space.n_labels, delta)
        power = Power.of_total(density.layout) if kind == "total" else Power.of_each(density.layout)
        powers = TransportOperator(space, velocities, power.columns, delta, power=power)
        return cls(Stepper(density, limited=limited), Stepper(powers, limited=limited))

    def assemble(self, v: Floats) -> float:
        return max(self.density.operator.assemble(v), self.power.operator.assemble(v))

    def step_forward(
        self, rho: Floats, q: Floats, dt: float, count: int
    ) -> tuple[list[Floats], list[list[StepRecord]]]:
        """The starts, in batches, and records of both."""
        starts = [self.density.layout.pack(rho, fill=1.0), self.power.layout.pack(q, fill=1.0)]
        records = [[s.new_record() for _ in range(count)] for s in (self.density, self.power)]
        self.density.step_forward(starts[0], dt, count, records[0])
        self.power.step_forward(starts[1], dt, count, records[1], source=(starts[0], records[0]))
        return starts, records


@pytest.mark.parametrize("kind", ["total", "each"])
@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_adjoint(comm: MPI.Comm, dim: int, degree: int, kind: str) -> None:
    """F = ⟨a, ρ(t)⟩ + ⟨b, q(t)⟩, by ρ, q and v against differences; unlimited, so that F is smooth."""
    space = DensitySpace(warped_mesh(comm, dim), degree, 2)
    pair = Pair.of(space, kind, limited=False)
    x = pair.power.operator.velocity_space.x
    v, w = wave(x), wave(x, seed=9)
    columns, count = pair.power.operator.columns, 3
    rho, by_rho, a = (random_rows(space, 2, seed) for seed in (1, 2, 3))
    q, by_q, b = (random_rows(space, columns, seed) for seed in (4, 5, 6))
    dt = 0.5 / pair.assemble(v)

    def cost(h: float, *, state: bool) -> float:
        pair.assemble(v if state else v + h * w)
        h = h if state else 0.0
        _, records = pair.step_forward(rho + h * by_rho, q + h * by_q, dt, count)
        ends = [modes(s.layout, r[-1].states[-1]) for s, r in zip((pair.density, pair.power), records, strict=True)]
        return inner(space, a, ends[0]) + inner(space, b, ends[1])

    pair.assemble(v)
    starts, records = pair.step_forward(rho, q, dt, count)
    handed, g = (
        pair.power.new_handed(count),
        [pair.density.layout.pack_derivative(a), pair.power.layout.pack_derivative(b)],
    )
    sums = [s.operator.accumulator() for s in (pair.density, pair.power)]
    zero = [s.layout.pack_shared(np.zeros((space.n_owned, space.nd))) for s in (pair.density, pair.power)]
    source = (starts[0], records[0])
    pair.power.step_adjoint(g[1], starts[1], dt, records[1], zero[1:], sums[1], source=source, handed=handed)
    pair.density.step_adjoint(g[0], starts[0], dt, records[0], zero[:1], sums[0], handed=handed)

    by_state = inner(space, pair.density.layout.unpack_derivative(g[0]), by_rho)
    by_state += inner(space, pair.power.layout.unpack_derivative(g[1]), by_q)
    gradient = pair.density.operator.contract(sums[0]) + pair.power.operator.contract(sums[1])
    by_velocity = float(parallel.sum_all(comm, np.array([np.vdot(gradient, w)]))[0])
    for found, state in ((by_state, True), (by_velocity, False)):
        h = 1e-4
        near, far = (cost(f * h, state=state) - cost(-f * h, state=state) for f in (1.0, 2.0))
        assert found == pytest.approx((8.0 * near - far) / (12.0 * h), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_a_constant_changes_by_the_source_and_walls(comm: MPI.Comm, dim: int, degree: int) -> None:
    """d/dt ∫q = −∫div v + ∮(v·n)⁺ where ρ = q = 1, for a velocity that is linear: both are known."""
    box = Box(lower=(-1.0,) * dim, upper=(1.0,) * dim, cells=(4,) * dim)
    space = DensitySpace(create_mesh(comm, Domain(box=box)), degree)
    pair = Pair.of(space, "total", delta=0.0)
    slopes = np.array([0.7, -0.4, 0.2])[:dim]
    shift = np.array([0.9, 0.1, -0.3])[:dim]
    dt = 1e-7 / pair.assemble(slopes * pair.density.operator.velocity_space.x + shift)
    one = space.zeros()
    one[:, 0] = 1.0 / space.phi0

    _, records = pair.step_forward(one, one, dt, 1)

    corners, geometry, gained = space.vertices, space.geometry, 0.0
    for f in range(dim + 1):
        walls = np.flatnonzero(geometry.neighbours[: space.n_owned, f] < 0)
        outward = geometry.facet_normals[walls, f] * geometry.det[walls, None]
        passing = np.einsum("cad,cd->ca", np.delete(corners[walls], f, axis=1) * slopes + shift, outward)
        gained += np.maximum(passing.mean(axis=1), 0.0).sum()  # of one sign on each
    expected = float(parallel.sum_all(comm, np.array([gained]))[0]) - slopes.sum() * space.mass(one)[0]
    end = modes(pair.power.layout, records[1][-1].states[-1])
    assert abs(expected) > 0.1
    assert space.mass(end - one)[0] / dt == pytest.approx(expected, rel=1e-5)


@pytest.mark.one_process
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_squares_at_a_wall_that_is_pressed_for_long(comm: MPI.Comm, degree: int) -> None:
    """The square is no less than that of the density, and does not grow exponentially in the number of cells."""
    space = DensitySpace(warped_mesh(comm, 1, 40), degree)
    pair = Pair.of(space, "total", delta=0.0)
    dt = 0.9 / pair.assemble(2.0 * pair.density.operator.velocity_space.x)
    one = space.zeros()
    one[:, 0] = 1.0 / space.phi0
    _, records = pair.step_forward(one, one, dt, round(1.0 / dt))
    rho, q = (modes(s.layout, r[-1].states[-1]) for s, r in zip((pair.density, pair.power), records, strict=True))
    square = np.sum(space.geometry.det[:, None, None] * rho**2)
    assert square > 10.0
    assert square <= space.mass(q)[0] <= 200.0 * square


@pytest.mark.one_process
def test_integral_of_the_square_of_a_blob_that_is_pressed(comm: MPI.Comm) -> None:
    """Pressed by e² and let go: ∫ρ² of the density lacks a third; the square has four digits (walls have the rest)."""
    space = DensitySpace(warped_mesh(comm, 1, 32), 1)
    pair, std = Pair.of(space, "total", delta=0.0), 0.15
    rule = space.quadrature(8)
    values = np.exp(-0.5 * (rule.points[..., 0] / std) ** 2) / np.sqrt(2 * np.pi * std**2)
    starts = [space.zeros(), space.zeros()]
    for power, start in enumerate(starts, 1):
        start[:, :, 0] = np.einsum("cq,qi,cq->ci", rule.weights, rule.basis, values**power)
        start /= space.geometry.det[:, None, None]
    for sign in (-1.0, 1.0):
        rate = pair.assemble(2.0 * sign * pair.density.operator.velocity_space.x)
        count = int(np.ceil(rate / 0.9))
        _, records = pair.step_forward(*starts, 1.0 / count, count)
        layouts = pair.density.layout, pair.power.layout
        starts = [modes(layout, r[-1].states[-1]) for layout, r in zip(layouts, records, strict=True)]
    exact = 1.0 / (2.0 * np.sqrt(np.pi) * std)
    square = np.sum(space.geometry.det[:, None, None] * starts[0] ** 2)
    assert square < 0.7 * exact
    assert space.mass(starts[1])[0] == pytest.approx(exact, rel=2e-4)
