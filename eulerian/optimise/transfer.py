"""θ and L-BFGS pairs, carried from one problem to the same problem on another mesh with other layers."""

from typing import TYPE_CHECKING, cast, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.control.control import ControlProblem
from eulerian.optimise.lbfgs_pairs import Curvature

if TYPE_CHECKING:
    from eulerian.fields.base import VectorField
    from eulerian.fields.nodal import Nodal


@final
class Transfer:
    """Carries parameters from ``source`` to ``target``, problems of the same horizon and labels.

    Every layer takes the row of the source's layer that holds its midpoint, so that splitting layers does not change
    the velocity at any time. The velocities of nodal fields, each on its own mesh, are interpolated; other parameters
    mean the same on every mesh. A trained readout is taken over.
    """

    def __init__(self, source: ControlProblem, target: ControlProblem) -> None:
        """**Collective**."""
        self.source, self.target = source, target
        self._between = _between_nodes(source)
        ours, theirs = target.layer_shape[0], source.layer_shape[0]
        # The layer that holds the midpoint (2i + 1)/(2L), in whole numbers: rounding must not choose it.
        self._holders = ((2 * np.arange(ours) + 1) * theirs) // (2 * ours)

    def theta(self, theta: Floats) -> Floats:
        """θ of the source in the shape of the target's. Not collective."""
        return self._carried(theta.ravel()).reshape(self.target.initial_theta.shape)

    def curvature(self, pairs: Curvature) -> Curvature:
        """L-BFGS pairs for the target. Not collective.

        Steps are carried as θ is, gradients as the functions of time that represent them in L²(0, T). Where that
        changes the product of a pair, the gradient is scaled to keep it, since it is a change of J: a nodal field on a
        finer mesh has more parameters for the same velocity.
        """
        before, after = self.source.scaling**2, self.target.scaling**2
        shape = (len(pairs), self.target.n_params)
        steps = np.array([self._carried(step) for step in pairs.steps]).reshape(shape)
        slopes = np.array([self._carried(slope / before) * after for slope in pairs.slopes]).reshape(shape)
        wanted = np.einsum("mi,mi->m", pairs.steps, pairs.slopes)
        found = np.einsum("mi,mi->m", steps, slopes)
        kept = found > 0.0  # where layers are joined a pair may lose its convexity
        return Curvature.of(steps[kept], slopes[kept] * (wanted[kept] / found[kept])[:, None], self.target.units)

    def _carried(self, flat: Floats) -> Floats:
        size = int(np.prod(self.source.layer_shape))
        rows, readout = flat[:size].reshape(self.source.layer_shape), flat[size:]
        if self._between is not None:
            rows = np.array([self._interpolated(self._between, row) for row in rows])
        return np.concatenate([rows[self._holders].ravel(), readout])

    def _interpolated(self, between: "VectorField", row: Floats) -> Floats:
        """The source's velocities at the target's nodes."""
        target = cast("Nodal", self.target.field)  # as the source's, for it is the same problem
        labels = range(target.n_labels) if target.n_labels else [None]
        return np.concatenate([between.value(row, target.nodes, label).ravel() for label in labels])


def _between_nodes(problem: ControlProblem) -> "VectorField | None":
    """For a field that knows velocities at its nodes only: the field between them. **Collective**."""
    if not getattr(problem.field, "at_nodes_only", False):
        return None
    from eulerian.transport.nodal_interpolant import anywhere  # needs SciPy, which takes its time to load

    return anywhere(problem.layered, problem.velocity_space).field
