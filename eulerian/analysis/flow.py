"""The flow of a trained field: points and densities through it, both ways, and new data from its target."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike

from eulerian.analysis.characteristics import Verification, verify
from eulerian.base.arrays import Floats, Ints, theta_array
from eulerian.base.errors import ComputationError, InputError, RejectedEvaluation
from eulerian.control.control import ControlProblem
from eulerian.density.density import Density
from eulerian.density.sampling import Method
from eulerian.particles.flow import Scheme, label_groups, segments
from eulerian.particles.right_hand_side import RightHandSide
from eulerian.transport.nodal_interpolant import anywhere

# Of positions, in units of half the longest side of the domain, and of log-densities: far below what a mesh resolves.
TOLERANCE = 1e-9


@final
@dataclass(frozen=True, eq=False)
class Moved:
    """Points that a flow has moved.

    Attributes:
        x: (n, dim) where they are now.
        log_density_change: (n,) log ρ(T, x(T)) − log ρ(0, x(0)) = −∫ div v dt along each path, whichever way it was
            gone; None where the field has no ∂v/∂x (the method ``jacobian``).
    """

    x: Floats
    log_density_change: Floats | None


@final
class Flow:
    """dx/dt = v(x, θ_t) for one θ, on points anywhere and on the problem's densities.

    Points are moved by Dormand and Prince's method under error control, by each rank for itself: only the constructor,
    ``density``, ``generate``, ``verify`` and the first ``log_likelihood`` are **collective**.

    Args:
        problem: whose field and horizon count; for densities also its mesh, for likelihoods its target.
        theta: in the problem's shape, as of ``minimise(problem).theta``.
        scheme: how points are moved in time, instead.

    Raises:
        InputError: θ has the wrong size, or is no array of numbers.
    """

    def __init__(self, problem: ControlProblem, theta: ArrayLike, *, scheme: Scheme | None = None) -> None:
        """Collective."""
        self.problem, self.theta = problem, theta_array(theta)
        self._rows, self.readout = problem.split(self.theta)[0], problem.terminal_readout(self.theta)
        self._field = anywhere(problem.layered, problem.velocity_space)
        length = 0.5 * problem.extent
        self.scheme = scheme or Scheme(problem.horizon, "dopri5", tolerance=TOLERANCE, length=length)

    def __repr__(self) -> str:
        problem = self.problem
        return f"Flow({type(problem.field).__name__}, {problem.n_layers} layers, T = {problem.horizon:g})"

    @property
    def horizon(self) -> float:
        """T."""
        return self.problem.horizon

    # -- points ------------------------------------------------------------------------------------------------------

    def push(self, x: ArrayLike, labels: ArrayLike | None = None) -> Moved:
        """Where points x (n, dim) of time 0 are at time T.

        They are moved by the velocity alone and do not feel walls: some may end outside the domain. The density of the
        mesh, and the points of ``verify``, stay inside.

        Args:
            x: (n, dim) this rank's points.
            labels: (n,) or one for all, of fields that depend on the label.

        Raises:
            InputError: sizes do not fit, or labels are missing.
            ComputationError: points go to infinity.
        """
        return self._move(x, labels, back=False)

    def pull(self, y: ArrayLike, labels: ArrayLike | None = None) -> Moved:
        """Where points y (n, dim) of time T were at time 0: the inverse of ``push``, so without walls too.

        Arguments and errors as there.
        """
        return self._move(y, labels, back=True)

    def velocity(self, t: float, x: ArrayLike, labels: ArrayLike | None = None) -> Floats:
        """V (n, dim) at this rank's points x (n, dim) at a time t from 0 to T (at the end of a layer, of the next).

        Raises:
            InputError: t is out of range, sizes do not fit, or labels are missing.
        """
        if not 0.0 <= t <= self.horizon:
            raise InputError(f"times are from 0 to {self.horizon:g}", key="t", value=t)
        points, groups = self._checked(x, labels)
        # The end of a layer, up to rounding, is the beginning of the next one; T has none behind it.
        layer = min(int(t / self.horizon * self.problem.n_layers + 1e-9), self.problem.n_layers - 1)
        if not self._field.label_dependent:
            return self._field.value(layer, self._rows[layer], points)
        result = np.empty_like(points)
        for label in np.unique(groups).tolist():
            result[groups == label] = self._field.value(layer, self._rows[layer], points[groups == label], label)
        return result

    def log_likelihood(self, x: ArrayLike, labels: ArrayLike | None = None) -> Floats:
        """Log-density (n,) of the target pulled back through the flow to points x (n, dim) of time 0.

        log ρ*(x(T)) + ∫ div v dt, what normalising flows call log_prob (Chen, Rubanova, Bettencourt & Duvenaud 2018,
        doi:10.48550/arXiv.1806.07366). **Collective** the first time.

        Args:
            x: (n, dim) this rank's points.
            labels: (n,) with them, of a point and its label together; by default of all labels' target.

        Raises:
            InputError: the problem has no target density, or the field no Jacobian.
        """
        target = self._target.exact
        moved = self.push(x, labels)
        if moved.log_density_change is None or target is None:
            what = "the field has no method jacobian, without which no density follows its points"
            raise InputError(what, key="field", remedy="See eulerian.VectorField.")
        return pulled_back(target.log_values(moved.x), moved.log_density_change, labels)

    # -- densities ---------------------------------------------------------------------------------------------------

    def density(self, t: float) -> Density:
        """ρ(t) of the problem's mesh, in the flow of θ; at time steps in between linear in t. **Collective**.

        Raises:
            InputError: t is out of range.
            RejectedEvaluation: the flow needs too many time steps.
        """
        if not 0.0 <= t <= self.horizon:
            raise InputError(f"times are from 0 to {self.horizon:g}", key="t", value=t)
        ((_, rho, _),) = self.problem.snapshots(self.theta, [t])
        return Density(self.problem.density_space, rho)

    def generate(self, n: int, seed: int = 0, *, method: Method = "random", with_labels: bool = False) -> Any:
        """New data: n draws from the problem's target, pulled back to time 0, the same on all ranks. **Collective**.

        Args:
            n: how many.
            seed: of the draws.
            method: "random" or "sobol", as for ``Density.draw``.
            with_labels: give (points, labels (n,)).

        Returns:
            (n, dim), points that are distributed as the initial density is, if the flow is a good one.

        Raises:
            InputError: the problem has no target density, or n is too small.
        """
        y, labels = self._target.draw(n, seed, method=method, with_labels=True)
        x = self.pull(y, labels if self._field.label_dependent else None).x
        return (x, labels) if with_labels else x

    def verify(self) -> Verification:
        """J of this flow itself and how far the mesh's ρ(T) is from the true one. **Collective**."""
        return verify(self.problem, self.theta)

    # -- inner workings ----------------------------------------------------------------------------------------------

    @cached_property
    def _target(self) -> Density:
        terminal = self.problem.terminal
        target = getattr(terminal, "target", None)
        if target is None:
            remedy = "Train with the terminal cost KullbackLeibler (kind = 'kl')."
            raise InputError("the problem has no target density", key="terminal", remedy=remedy)
        return Density(self.problem.density_space, target, terminal.exact)

    def _checked(self, x: ArrayLike, labels: ArrayLike | None) -> tuple[Floats, Ints]:
        """Points (n, dim) and labels (n,)."""
        points, dim = np.array(x, dtype=np.float64, ndmin=2), self.problem.density_space.dim
        if points.ndim != 2 or points.shape[1] != dim:
            raise InputError(f"an array of shape {np.shape(x)}", key="x", remedy=f"Give points (n, {dim}).")
        if labels is None and self._field.label_dependent:
            what, remedy = "the field depends on the label", "Give a label for each point."
            raise InputError(what, key="labels", remedy=remedy)
        n_labels = self.problem.density_space.n_labels
        given = np.asarray(0 if labels is None else labels)
        if given.ndim > 1 or given.size not in (1, len(points)) or np.any((given < 0) | (given >= n_labels)):
            what, remedy = f"must be from 0 to {n_labels - 1}, one for each of {len(points)} points", "Number from 0."
            raise InputError(what, key="labels", value=given.shape, remedy=remedy)
        return points, np.broadcast_to(given, len(points)).astype(np.int32)

    def _move(self, x: ArrayLike, labels: ArrayLike | None, *, back: bool) -> Moved:
        points, groups = self._checked(x, labels)
        field, dim = self._field, points.shape[1]
        rates = RightHandSide(field, dim, log_density=field.has("jacobian"))
        ends = np.empty((len(points), rates.width))
        try:
            for label, rows in label_groups(groups, label_dependent=field.label_dependent):
                for segment in segments(rates, self._rows, points[rows], label, self.scheme, back=back):
                    ends[rows] = segment.end
        except RejectedEvaluation as error:
            raise ComputationError(f"the points cannot be moved: {error}") from error
        if not np.all(np.isfinite(ends)):
            raise ComputationError("the flow carries points to infinity")
        change = (-ends[:, -1] if back else ends[:, -1].copy()) if rates.log_density else None
        return Moved(ends[:, :dim].copy(), change)  # copies: a view would hold on to all columns


def pulled_back(logs: Floats, change: Floats, labels: ArrayLike | None) -> Floats:
    """Log-density (n,) of a target pulled back along paths.

    Args:
        logs: (n, K) log ρ* of every label where the paths end.
        change: (n,) −∫ div v dt along them.
        labels: (n,), or one for all, of the label that counts; None for all labels together.
    """
    if labels is None:
        return np.asarray(np.logaddexp.reduce(logs, axis=1) - change)
    return np.asarray(logs[np.arange(len(logs)), np.broadcast_to(labels, len(logs))] - change)
