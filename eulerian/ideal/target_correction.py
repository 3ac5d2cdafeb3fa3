"""From where a map has led to the target itself: what the rest of the way costs at most.

Let the map z(x) of a potential φ carry μ_0 to ρ̃, and let a field σ without flux through the walls have div σ = ρ̃ − ρ*.
Then densities (1 − g(s)) ρ̃ + g(s) ρ*, s from 0 to 1, with the flux ġσ have W₂(ρ̃, ρ*)² ≤ w² = ∫|σ|²/L dx with 1/L the
integral of ġ² over the density (Benamou and Brenier 2000, doi:10.1007/s002110050002). The best σ is L∇u with
−div(L∇u) = ρ* − ρ̃. To go on from z(x) by this rest costs, in first order, what the potential says, and so

    α/2 W₂(μ_0, ρ*)² ≤ ∫φ^c dμ_0 − ∫φ dρ* + (α + M)/2 w² + √p w,     M ≥ 0 the largest eigenvalue of D²φ,

because φ(X) ≤ φ(z) + ∇φ(z)·(X − z) + M/2 |X − z|². Here p = ∫|∇φ(z) + α(z − x)|² dμ_0 is zero but for walls that hold
points back from a minimum. The error of φ enters squared. On
a line W₂ itself is known, whatever ρ̃ is like: the best map keeps the order of points.
"""

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.ideal.conjugate_gradients import conjugate_gradients
from eulerian.ideal.splines import SplineFunction, SplineSpace

_TOLERANCE, _MOST = 1e-2, 1000  # of conjugate gradients; w² is too small by its square
_NODES = 20  # of a Gauss rule in s
_THIN = 1e-9  # of the highest density: what is thinner has no mass that counts
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
    """

    z: Floats
    masses: Floats
    x: Floats
    volumes: Floats
    arrived: Floats
    wanted: Floats


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
    if potential.space.dim == 1:
        square = _on_a_line(comm, d)
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


def _on_a_line(comm: MPI.Comm, densities: Arrived) -> float:
    """W₂(ρ̃, ρ*)². **Collective**."""
    d = densities
    found = parallel.gather_rows(comm, np.column_stack([d.z, d.masses]))
    asked = parallel.gather_rows(comm, np.column_stack([d.x, d.volumes * d.wanted]))
    return parallel.on_root(comm, lambda: 0.0 if found is None or asked is None else _line_distance(found, asked))


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
