"""How much of every label's mass, or how many of its points, lie in the region that is assigned to it."""

import numpy as np
from numpy.typing import NDArray

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.objective.confusion import Classification
from eulerian.objective.losses import PointLoss
from eulerian.objective.terminal import Terminal


def classify(space: DensitySpace, terminal: Terminal, rho: Floats, readout: Floats) -> Classification | None:
    """Assign every point to the label of least loss, argmin_y ℓ(x, y), and measure the masses there. Collective.

    For cross-entropy and logistic losses that is the most probable class, for targets by label the nearest target.

    Args:
        space: the space of ρ.
        terminal: the loss.
        rho: (n_cells, nd, K).
        readout: the loss' trained parameters, (r,).

    Returns:
        None where there is one label only, or the loss is the same for all of them, or there is a target instead.
    """
    if terminal.loss is None:
        return None
    losses = terminal.loss.value(space.quadrature(space.objective_degree).points.reshape(-1, space.dim), readout)
    spread = float(np.ptp(losses, axis=1).max(initial=0.0))
    if space.comm.allreduce(spread) <= 0.0:
        return None
    return measure_regions(space, np.argmin(losses, axis=1), rho)


def measure_regions(space: DensitySpace, assigned: NDArray[np.integer], rho: Floats) -> Classification:
    """The masses of ρ (n_cells, nd, K) by label and by region. Collective.

    Args:
        space: of ρ.
        assigned: the label of each point of the rule of degree ``objective_degree``, cell by cell; -1 is no label.
        rho: (n_cells, nd, K).
    """
    rule, n_labels = space.quadrature(space.objective_degree), space.n_labels
    region = np.eye(n_labels + 1)[assigned].reshape(*rule.weights.shape, n_labels + 1)
    density = np.einsum("qi,cik->cqk", rule.basis, rho[: space.n_owned], optimize=True)
    masses = parallel.sum_all(space.comm, np.einsum("cq,cqk,cqz->kz", rule.weights, density, region, optimize=True))
    return Classification(masses[:, :n_labels], masses.sum(axis=1))


# -- classes of points -----------------------------------------------------------------------------------------------


def has_readout(loss: PointLoss | None) -> bool:
    """Whether the loss is the negative logarithm of a class probability."""
    return loss is not None and loss.of_classes


def readout_probabilities(loss: PointLoss, x: Floats, readout: Floats) -> Floats:
    """Class probabilities (n, K) of end points x (n, dim), exp(−ℓ): softmax of cross-entropy, sigmoid of logistic."""
    return np.asarray(np.exp(-loss.value(x, readout)))


def posterior_probabilities(log_density: Floats) -> Floats:
    """ρ_y/Σρ (n, K) of log ρ_y (n, K); NaN where all densities are zero."""
    largest = log_density.max(axis=1, keepdims=True)  # taken out first: far tails underflow, their ratios do not
    with np.errstate(invalid="ignore"):
        weights = np.exp(log_density - largest)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def most_probable(probabilities: Floats) -> NDArray[np.int64]:
    """The label (n,) of largest probability; -1 where the probabilities are NaN."""
    unknown = np.isnan(probabilities).any(axis=1)
    return np.where(unknown, -1, np.argmax(probabilities, axis=1))
