"""From where a map has led to the target itself: what the rest of the way costs at most.

Let the map z(x) of a potential φ carry μ_0 to ρ̃, and let a field σ without flux through the walls have div σ = ρ̃ − ρ*.
Then densities (1 − g(s)) ρ̃ + g(s) ρ*, s from 0 to 1, with the flux ġσ have W₂(ρ̃, ρ*)² ≤ w² = ∫|σ|²/L dx with 1/L the
integral of ġ² over the density (Benamou and Brenier 2000, doi:10.1007/s002110050002). The best σ is L∇u with
−div(L∇u) = ρ* − ρ̃. To go on from z(x) by this rest costs, in first order, what the potential says, and so

    α/2 W₂(μ_0, ρ*)² ≤ ∫φ^c dμ_0 − ∫φ dρ* + (α + M)/2 w² + √p w,     M ≥ 0 the largest eigenvalue of D²φ,

because φ(X) ≤ φ(z) + ∇φ(z)·(X − z) + M/2 |X − z|². Here p = ∫|∇φ(z) + α(z − x)|² dμ_0 is zero but for walls that hold
points back from a minimum. The error of φ enters squared.

Where the map tears, ρ̃ is not known at points, and w² would be too small. Then what stands for W₂² is known without it:
on a line itself, by the order of points, and elsewhere the cost of a coupling of the halves, quarters, .. of both
measures, cut along the axis of the greatest spread.
"""

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.bounds.conjugate_gradients import conjugate_gradients
from eulerian.bounds.splines import SplineFunction, SplineSpace

_TOLERANCE, _MOST = 1e-2, 1000  # of conjugate gradients; w² is too small by its square
_NODES = 20  # of a Gauss rule in s
_THIN = 1e-9  # of the highest density: what is thinner has no mass that counts
_DEEPEST = 13  # cuts of a coupling
_TINY = 1e-200


@dataclass(frozen=True)
class Arrived:
    """Where the map of a potential has moved a density to, and where it should be: this rank's points.

    Attributes:
        z: (n, dim) where points of ρ_0 have come to.
        masses: (n,) theirs.
        x: (m, dim) points of a rule on the domain.
        volumes: (m,) its weights.
        arrived: (m,) ρ̃ there.
        wanted: (m,) ρ* there.
        torn: whether ρ̃ is not to be trusted; the same on all ranks.
    """

    z: Floats
    masses: Floats
    x: Floats
    volumes: Floats
    arrived: Floats
    wanted: Floats
    torn: bool


def missing_cost(comm: MPI.Comm, potential: SplineFunction, alpha: float, pressure: float, densities: Arrived) -> float:
    """(α + M)/2 w² + √p w, see above. **Collective**.

    Args:
        comm: who shares the points.
        potential: φ.
        alpha: α.
        pressure: p.
        densities: both.
    """
    d = densities
    with parallel.agreed(comm):
        weight = change_weight(d.arrived, d.wanted)
    highest = comm.allreduce(float(weight.max(initial=0.0)), MPI.MAX)
    bend = comm.allreduce(_largest_bend(potential, d.x[weight > _THIN * highest]), MPI.MAX)
    if d.torn or potential.space.dim == 1:
        square = _by_points(comm, d)
    else:
        square = _square(comm, potential.space.refined(), d, np.maximum(weight, _THIN * highest))
    return float(0.5 * (alpha + bend) * square + np.sqrt(pressure * square))


def change_weight(a: Floats, b: Floats) -> Floats:
    """1/∫ġ²/(a + (b − a)g) ds, a change from a ≥ 0 to b ≥ 0 by g = 3s² − 2s³: a/1.2 where b = a, a/4.94 where b = 0.

    g is flat at both ends, where one of the densities may be all there is.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    total = np.full(a.shape, _TINY)
    for s, weight in zip(0.5 * (nodes + 1.0), 0.5 * weights, strict=True):
        g = s * s * (3.0 - 2.0 * s)
        total += weight * (6.0 * s * (1.0 - s)) ** 2 / np.maximum((1.0 - g) * a + g * b, _TINY)
    return np.asarray(1.0 / total)


def _largest_bend(potential: SplineFunction, x: Floats) -> float:
    """The largest eigenvalue of D²φ at points x (n, dim), at least 0."""
    return float(np.linalg.eigvalsh(potential.jets(x).hessian).max(initial=0.0))


def _by_points(comm: MPI.Comm, densities: Arrived) -> float:
    """At least W₂(ρ̃, ρ*)², and on a line no more. **Collective**."""
    d = densities
    found = parallel.gather_rows(comm, np.column_stack([d.z, d.masses]))
    asked = parallel.gather_rows(comm, np.column_stack([d.x, d.volumes * d.wanted]))
    distance = _line_distance if d.x.shape[1] == 1 else _coupling_cost
    return parallel.on_root(comm, lambda: 0.0 if found is None or asked is None else distance(found, asked))


def _line_distance(one: Floats, other: Floats) -> float:
    """W₂² of two measures on a line with equal masses, given by points with their shares (n, 2)."""
    lines = []
    for rows in (one, other):
        x, masses = rows[np.argsort(rows[:, 0], kind="stable")].T
        x, masses = x[masses > 0.0], masses[masses > 0.0]
        lines.append((np.cumsum(masses) - 0.5 * masses, x))
    total = float(one[:, 1].sum())
    q = np.unique(np.concatenate([[0.0, total], *(ranks for ranks, _ in lines)]))
    away = np.subtract(*(np.interp(q, ranks, x) for ranks, x in lines))
    return float(np.diff(q) @ (away[1:] ** 2 + away[1:] * away[:-1] + away[:-1] ** 2) / 3.0)


def _coupling_cost(one: Floats, other: Floats) -> float:
    """Of a coupling of two measures with equal masses, given by points with their shares (n, dim+1)."""
    # In an order of their own: the result depends on no order of the ranks.
    rows = [each[each[:, -1] > 0.0] for each in (one, other)]
    first, second = (each[np.lexsort(each.T)] for each in rows)
    second[:, -1] *= first[:, -1].sum() / second[:, -1].sum()
    pairs, total = [(first, second, 0)], 0.0
    while pairs:
        first, second, depth = pairs.pop()
        if depth == _DEEPEST or min(len(first), len(second)) == 1:
            total += _mixed_cost(first, second)
        else:
            spread = [np.average(each[:, :-1] ** 2, axis=0, weights=each[:, -1]) for each in (first, second)]
            means = [np.average(each[:, :-1], axis=0, weights=each[:, -1]) for each in (first, second)]
            axis = int(np.argmax(np.sum(spread, axis=0) - np.sum(np.square(means), axis=0)))
            halves = zip(_halves(first, axis), _halves(second, axis), strict=True)
            pairs += [(left, right, depth + 1) for left, right in halves]
    return total


def _mixed_cost(one: Floats, other: Floats) -> float:
    """Of sending every point of one measure to all of the other, in equal shares."""
    mass = one[:, -1].sum()
    middles = [each[:, -1] @ each[:, :-1] / each[:, -1].sum() for each in (one, other)]
    scatter = sum(
        each[:, -1] @ np.sum((each[:, :-1] - middle) ** 2, axis=1)
        for each, middle in zip((one, other), middles, strict=True)
    )
    return float(mass * np.sum((middles[0] - middles[1]) ** 2) + scatter)


def _halves(rows: Floats, axis: int) -> tuple[Floats, Floats]:
    """A measure cut in two of equal mass; the point in the middle may be in both."""
    rows = rows[np.argsort(rows[:, axis], kind="stable")]
    ranks = np.cumsum(rows[:, -1])
    middle = int(np.searchsorted(ranks, 0.5 * ranks[-1]))
    below, above = rows[: middle + 1].copy(), rows[middle:].copy()
    above[0, -1] = ranks[middle] - 0.5 * ranks[-1]
    below[-1, -1] -= above[0, -1]
    return below, above if above[0, -1] > 0.0 else above[1:]


def _square(comm: MPI.Comm, splines: SplineSpace, densities: Arrived, weight: Floats) -> float:
    """w² with the weight L (m,), as far as splines see it. **Collective**."""
    d = densities
    with parallel.agreed(comm):
        load = splines.design(d.x).matrix().T @ (d.volumes * d.wanted) - splines.design(d.z).matrix().T @ d.masses
    return _dual_norm(comm, splines, d.x, d.volumes * weight, parallel.sum_all(comm, load))


def _dual_norm(comm: MPI.Comm, splines: SplineSpace, x: Floats, weights: Floats, load: Floats) -> float:
    """Sup over u of 2 load·u − Σ weights |∇u|², the square of the norm of a load that has no mean. **Collective**."""
    slopes = splines.design(x).slopes()

    def apply(v: Floats) -> Floats:
        return parallel.sum_all(comm, np.sum([matrix.T @ (weights * (matrix @ v)) for matrix in slopes], axis=0))

    diagonal = parallel.sum_all(comm, np.sum([matrix.power(2).T @ weights for matrix in slopes], axis=0))
    # Splines that see no density: no load either.
    seen = diagonal > 1e-14 * diagonal.max()
    load = np.where(seen, load, 0.0)
    u = conjugate_gradients(comm, apply, load, np.where(seen, diagonal, np.inf), _TOLERANCE, _MOST)
    return max(float(load @ u), 0.0)
