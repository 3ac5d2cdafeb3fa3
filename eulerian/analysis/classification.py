"""How much of every label's mass lies where the terminal loss takes it for that label."""

from dataclasses import dataclass

from eulerian import parallel
from eulerian.arrays import Floats

# isort: split
import numpy as np

from eulerian.objective.terminal import Terminal
from eulerian.space.density import DensitySpace


@dataclass(frozen=True)
class Classification:
    """Masses by label and by assigned region.

    Attributes:
        confusion: (K, K), [y, z] = ∫ρ_y over the region assigned to label z.
    """

    confusion: Floats

    @property
    def accuracy(self) -> float:
        """Share of all mass that lies in the region of its own label."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def correct(self) -> Floats:
        """Share of each label's mass in its own region, (K,)."""
        return np.asarray(np.diag(self.confusion) / self.confusion.sum(axis=1))


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
    rule, n_labels = space.quadrature(space.objective_degree), space.n_labels
    if terminal.loss is None:
        return None
    losses = terminal.loss.value(rule.points.reshape(-1, space.dim), readout)
    spread = float(np.ptp(losses, axis=1).max(initial=0.0))
    if space.comm.allreduce(spread) <= 0.0:
        return None
    region = np.eye(n_labels)[np.argmin(losses, axis=1)].reshape(*rule.weights.shape, n_labels)
    density = np.einsum("qi,cik->cqk", rule.basis, rho[: space.n_owned], optimize=True)
    return Classification(
        parallel.sum_all(space.comm, np.einsum("cq,cqk,cqz->kz", rule.weights, density, region, optimize=True))
    )
