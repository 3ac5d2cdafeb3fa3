"""Points that the flow of a run has carried from 0 to T, or back, with the densities where they come to."""

from dataclasses import dataclass
from typing import final

from mpi4py import MPI

import numpy as np
from numpy.typing import NDArray

from eulerian.analysis.classification import has_readout, posterior_probabilities, readout_probabilities
from eulerian.analysis.flow import pulled_back
from eulerian.app.tasks.loaded_run import LoadedRun
from eulerian.base.arrays import Floats, Ints
from eulerian.base.errors import ComputationError
from eulerian.base.parallel import agreed
from eulerian.density.csv_samples import SampleTable
from eulerian.density.gathered import GatheredDensity
from eulerian.fields.piecewise import PiecewiseField
from eulerian.particles.flow import carry_back, carry_density
from eulerian.particles.sample import share


@final
@dataclass(frozen=True)
class MovedPoints:
    """This rank's points, where they have come to.

    Attributes:
        rows: of the table that they are of.
        x: (n, dim).
        started_inside: (n,) whether they lay in the domain where they came from.
        inside: (n,) whether they lie in it now.
        log_density: (n, K) of ρ(T), or of ρ(0) for points that were pulled back.
        probabilities: (n, K) of the classes; NaN where they are unknown; None for points that were pulled back.
        log_likelihood: (n,) of the target pulled back, or None without one.
    """

    rows: slice
    x: Floats
    started_inside: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    log_density: Floats
    probabilities: Floats | None
    log_likelihood: Floats | None

    @property
    def log_total(self) -> Floats:
        """Logarithm of the density of all labels together, (n,)."""
        return np.asarray(np.logaddexp.reduce(self.log_density, axis=1))


def move_points(
    run: LoadedRun, samples: SampleTable, labelled: bool, comm: MPI.Comm, *, back: bool = False
) -> MovedPoints:
    """This rank's share of points, carried from 0 to T, or from T to 0. **Collective**.

    Raises:
        InputError: the field has no Jacobian.
        ComputationError: points are carried to infinity.
    """
    field, rho0 = run.field_anywhere(), _initial_density(run)
    rows = share(len(samples.points), comm)
    before, labels = samples.points[rows], samples.labels[rows]
    after, change = (carry_back if back else carry_density)(field, run.layers, before, labels, run.scheme, comm)
    require_finite(after, comm)
    x0, x1 = (after, before) if back else (before, after)
    log_density, probabilities = logarithm(rho0.values(x0)), None
    if not back:
        log_density += change[:, None]
        if field.label_dependent:
            log_density = _by_label(run, field, rho0, x1, labels, log_density, comm)
        loss = run.problem.terminal.loss
        if loss is not None and has_readout(loss):
            probabilities = readout_probabilities(loss, x1, run.readout)
        else:
            probabilities = posterior_probabilities(log_density)
    likelihood = _log_likelihood(run, x1, change, labels if labelled else None, comm)
    inside = rho0.contains(before), rho0.contains(after)
    return MovedPoints(rows, after, *inside, log_density, probabilities, likelihood)


def logarithm(values: Floats) -> Floats:
    """−∞ where there is no density."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.maximum(values, 0.0)))


def _initial_density(run: LoadedRun) -> GatheredDensity:
    """ρ₀. Collective."""
    return GatheredDensity.gather(run.problem.density_space, run.problem.initial_density).non_negative()


def require_finite(x: Floats, comm: MPI.Comm) -> None:
    """Raise ComputationError unless all points are finite. Collective."""
    if not comm.allreduce(bool(np.all(np.isfinite(x))), MPI.LAND):
        raise ComputationError("the flow carries points to infinity")


def _log_likelihood(run: LoadedRun, end: Floats, change: Floats, labels: Ints | None, comm: MPI.Comm) -> Floats | None:
    """Log ρ* at points' ends (n, dim) minus the change of log ρ on their way there, (n,). Collective.

    Args:
        run: with its target.
        end: (n, dim).
        change: −∫div v dt, (n,).
        labels: (n,) whose density counts; None for that of all labels together.
        comm: who shares the points.
    """
    terminal = run.problem.terminal
    if not terminal.logarithmic or terminal.exact is None:
        return None
    with agreed(comm):
        logs = terminal.exact.log_values(end)
    return pulled_back(logs, change, labels)


def _by_label(
    run: LoadedRun,
    field: PiecewiseField,
    rho0: GatheredDensity,
    end: Floats,
    labels: np.ndarray[tuple[int], np.dtype[np.int32]],
    own: Floats,
    comm: MPI.Comm,
) -> Floats:
    """Log ρ_y (n, K) at points (n, dim) where every label has a flow of its own. Collective."""
    result = np.empty_like(own)
    for label in range(own.shape[1]):
        before, change = carry_back(field, run.layers, end, np.full(len(end), label), run.scheme, comm)
        # What comes from infinity comes from outside the domain, where ρ₀ is zero: no error, unlike above, for these
        # paths are of flows that are not the point's own.
        finite = np.isfinite(before).all(axis=1) & np.isfinite(change)
        values = logarithm(rho0.values(np.where(finite[:, None], before, np.inf))[:, label])
        result[:, label] = np.where(labels == label, own[:, label], values + np.where(finite, change, 0.0))
    return result
