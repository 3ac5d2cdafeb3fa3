"""How fast an optimal flow is, roughly: the velocity scale of the splitting method."""

from eulerian import parallel  # noqa: F401 - starts MPI before dolfinx
from eulerian.arrays import Floats

# isort: split
import numpy as np
import scipy.linalg

from eulerian.ideal.functionals import Functional, Linear
from eulerian.space.density import DensitySpace

_SAMPLES = 600  # points over all ranks between which moves are tried
_SLOWEST = 0.02  # of the domain's diameter per horizon


def typical_speed(space: DensitySpace, rho: Floats, functional: Functional, kinetic: float, horizon: float) -> float:
    """Root mean square speed of a good flow from ρ_0, to within a small factor. Collective.

    With a linear loss every sample moves to the best one of the others; with a target the Gaussians of the same moments
    are transported (Gelbrich 1990, doi:10.1002/mana.19901470121).
    """
    low, high = space.bounding_box
    if isinstance(functional, Linear):
        squared = _best_moves(space, rho, functional, kinetic, horizon)
    else:
        squared = _gaussian_distance(space, rho, functional.target)
    slowest = _SLOWEST * float(np.linalg.norm(high - low))
    return max(float(np.sqrt(squared)), slowest) / horizon


def _best_moves(space: DensitySpace, rho: Floats, functional: Linear, kinetic: float, horizon: float) -> float:
    """Mean squared distance of the moves x → argmin ℓ(z) + λ|x − z|²/2T between samples of the cells. Collective."""
    centres, mass = space.vertices.mean(axis=1), space.cell_mass(rho)
    total = space.comm.allreduce(len(centres))
    stride = max(total // _SAMPLES, 1)
    points = np.concatenate(space.comm.allgather(centres[::stride]))
    masses = np.concatenate(space.comm.allgather(mass[::stride]))
    squares = np.sum((points[:, None] - points) ** 2, axis=2)
    loss = functional.loss(points)
    moved = 0.0
    for label in range(space.n_labels):
        best = np.argmin(loss[:, label] + 0.5 * kinetic / horizon * squares, axis=1)
        moved += float(masses[:, label] @ squares[np.arange(len(points)), best])
    return moved / max(float(masses.sum()), np.finfo(float).tiny)


def _gaussian_distance(space: DensitySpace, rho: Floats, target: Floats) -> float:
    """W₂² between the Gaussians with the moments of ρ and ρ*, averaged over the labels' masses. Collective."""
    weights = space.mass(rho)
    means, covariances = space.mean_and_covariance(rho)
    ends, end_covariances = space.mean_and_covariance(target)
    result = 0.0
    for label, weight in enumerate(weights):
        root = np.real(scipy.linalg.sqrtm(covariances[label]))
        middle = np.real(scipy.linalg.sqrtm(root @ end_covariances[label] @ root))
        spread = np.trace(covariances[label] + end_covariances[label] - 2.0 * middle)
        result += float(weight) * (float(np.sum((means[label] - ends[label]) ** 2)) + max(float(spread), 0.0))
    return result / float(weights.sum())
