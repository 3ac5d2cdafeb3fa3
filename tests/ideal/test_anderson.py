"""Anderson's acceleration of fixed-point iterations."""

from collections.abc import Callable

from mpi4py import MPI

import numpy as np
import pytest

from eulerian.base.arrays import Floats
from eulerian.ideal.anderson import AndersonAcceleration

ROWS = 12


def iterate(comm: MPI.Comm, step: Callable[[Floats], Floats], start: Floats, rounds: int) -> list[float]:
    """Sizes of the residuals; every rank holds some of the rows, of which the map sees one at a time."""
    x, acceleration, sizes = start[comm.rank :: comm.size], AndersonAcceleration(comm), []
    for _ in range(rounds):
        result = step(x)
        residual = result - x
        sizes.append(float(np.sqrt(comm.allreduce(float(np.sum(residual**2))))))
        mixture = acceleration.mixed(result, residual, sizes[-1])
        x = result if mixture is None else mixture
    return sizes


def test_a_linear_map_of_few_rates_is_solved(comm: MPI.Comm) -> None:
    rates = np.array([0.2, 0.5, 0.8, 0.95])
    start = np.random.default_rng(0).standard_normal((ROWS, 4))
    sizes = iterate(comm, lambda x: x * rates + 1.0, start, 6)
    assert sizes[1] > 0.2 * sizes[0]  # nothing is known yet
    assert sizes[-1] < 1e-6 * sizes[0]


def test_a_fixed_point_is_kept(comm: MPI.Comm) -> None:
    assert iterate(comm, lambda x: x, np.ones((ROWS, 2)), 4) == [0.0] * 4


def test_maps_with_kinks_are_no_obstacle(comm: MPI.Comm) -> None:
    # Nonexpansive, with a kink between the start and the fixed point.
    start = np.random.default_rng(1).standard_normal((ROWS, 5)) + 5.0
    rates = np.linspace(0.3, 0.98, 5)
    sizes = iterate(comm, lambda x: np.where(x > 1.0, 1.0 + rates * (x - 1.0), 0.9 * x + 0.05), start, 60)
    plain = np.linalg.norm((1.0 - rates) * rates**60 * (start - 1.0))
    assert sizes[-1] < 0.1 * plain


def test_errors_that_grow_end_the_mixing_for_a_while(comm: MPI.Comm) -> None:
    acceleration, results = AndersonAcceleration(comm), iter(np.random.default_rng(3).standard_normal((20, 2, ROWS, 1)))

    def is_mixed(size: float) -> bool:
        return acceleration.mixed(*next(results), size) is not None

    assert [is_mixed(size) for size in (1.0, 0.9, 1.05)] == [False, True, True]
    assert not is_mixed(1.3)  # well above the smallest
    assert not is_mixed(0.9)  # low again, but one result is waited for
    assert [is_mixed(0.9), is_mixed(0.9)] == [False, True]  # and what came before is forgotten
    assert not is_mixed(1.2)  # then two
    assert [is_mixed(0.8) for _ in range(4)] == [False, False, False, True]
    acceleration.forget()
    assert [is_mixed(99.0), is_mixed(98.0)] == [False, True]


@pytest.mark.parametrize("count", [3, 12])
def test_copies_stay_the_same(comm: MPI.Comm, count: int) -> None:
    # Every rank holds all rows, in arrays that begin elsewhere: a mixture must be the same to the last bit.
    rng = np.random.default_rng(2)
    results = rng.standard_normal((count, ROWS + 1, 3))
    acceleration = AndersonAcceleration(comm)
    for result in results:
        mixture = acceleration.mixed(result[comm.rank % 2 :], result[1:] * (0.1 if comm.rank == 0 else 0.0), 1.0)
        if mixture is not None:
            rows = comm.allgather(mixture[1 - comm.rank % 2 :])
            assert all(np.array_equal(rows[0], other) for other in rows)
