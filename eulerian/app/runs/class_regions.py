"""The classes that a flow separates, saved in the run folder so that their figure can be drawn again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, final

import numpy as np
from numpy.typing import NDArray

from eulerian.app.runs.files import ArrayRecord
from eulerian.app.runs.pixel_grid import pixel_centres, pixel_counts
from eulerian.base.arrays import Floats
from eulerian.objective.confusion import Classification

if TYPE_CHECKING:
    from eulerian.app.config import Term
    from eulerian.control.control import ControlProblem

type Labels = NDArray[np.integer]

_PIXELS = 200  # along the longer side of the domain's box
_STEPS = 2  # of RK4 in a layer


@final
@dataclass(frozen=True)
class ClassifiedPoints(ArrayRecord):
    """Points at t = 0 with their classes.

    Attributes:
        x: (n, dim).
        labels: (n,) their own.
        assigned: (n,) those of least loss where the flow carries them; -1 for points that are carried to infinity.
    """

    CONTENTS = "points"

    x: Floats
    labels: Labels
    assigned: Labels

    def confusion(self, n_labels: int) -> Classification:
        """How many of them are taken for what."""
        return Classification.of_points(self.labels, self.assigned, n_labels)


@final
@dataclass(frozen=True)
class ClassRegions(ArrayRecord):
    """Where points have to start to be taken for a class, and how often that is right.

    Attributes:
        names: (K,) of the classes.
        lower: (dim,) of the domain's bounding box.
        upper: (dim,).
        regions: (n_x, n_y) class of what starts at the centres of pixels of the box, -1 for none; none at all but in
            two dimensions, and where the flow depends on the label.
        mass: (K, K) mass of class y (row) that ends where the loss takes it for class z.
        x: (n, dim) samples that ρ₀ is an estimate of.
        labels: (n,) theirs.
        assigned: (n,) see ``ClassifiedPoints``.
    """

    CONTENTS = "classes"

    names: NDArray[np.str_]
    lower: Floats
    upper: Floats
    regions: Labels
    mass: Floats
    x: Floats
    labels: Labels
    assigned: Labels

    @property
    def points(self) -> ClassifiedPoints:
        """The samples."""
        return ClassifiedPoints(self.x, self.labels, self.assigned)

    @classmethod
    def measure(cls, problem: "ControlProblem", theta: Floats, terms: Sequence["Term"]) -> Self | None:
        """Those of a flow, complete on rank 0; None where the loss is no classification. **Collective**.

        Args:
            problem: evaluated at ``theta``.
            theta: with the readout, where one is trained.
            terms: of ρ₀, whose samples are shown.

        Raises:
            InputError: a file of samples cannot be read any more.
        """
        from eulerian.analysis.classification import classify, has_readout  # starts MPI, which no figure needs
        from eulerian.app.build.mixture import class_names
        from eulerian.base.parallel import on_root

        space, comm = problem.density_space, problem.comm
        if not has_readout(problem.terminal.loss):  # targets by label tell labels apart, too, but are no classes
            return None
        found = classify(space, problem.terminal, problem.final_density, problem.terminal_readout(theta))
        if found is None:
            return None
        lower, upper = space.bounding_box
        x, labels = on_root(comm, lambda: _samples(terms, space.dim))
        counts: tuple[int, ...] = (0, 0)
        pixels = x[:0]
        if space.dim == 2 and not problem.layered.label_dependent:  # else a place has no class: labels flow apart
            counts = pixel_counts(lower, upper, _PIXELS)
            pixels = pixel_centres(lower, upper, counts).reshape(-1, 2)
        starts = np.concatenate([pixels, x])
        own = np.concatenate([np.zeros(len(pixels), dtype=labels.dtype), labels])
        assigned = assigned_classes(problem, theta, starts, own)
        names = np.array(class_names(terms, space.n_labels, comm))
        regions = assigned[: len(pixels)].reshape(counts)
        return cls(names, lower, upper, regions, found.confusion, x, labels, assigned[len(pixels) :])


def assigned_classes(problem: "ControlProblem", theta: Floats, x: Floats, labels: Labels) -> Labels:
    """The class of least loss, (n,), of points x (n, dim) once the flow has carried them; the same on all ranks.

    **Collective**. Points that are carried to infinity have class -1.
    """
    from eulerian.base.parallel import gather_rows
    from eulerian.particles.flow import Scheme, carry
    from eulerian.particles.sample import share
    from eulerian.transport.nodal_interpolant import anywhere  # needs SciPy, which is slow to load

    comm, layers, readout = problem.comm, problem.split(theta)[0], problem.terminal_readout(theta)
    field = anywhere(problem.layered, problem.velocity_space)
    mine = share(len(x), comm)
    scheme = Scheme(problem.horizon, steps_per_layer=_STEPS)
    end = carry(field, layers, x[mine], labels[mine], [problem.horizon], scheme, comm)[0]
    finite = np.isfinite(end).all(axis=1)
    loss = problem.terminal.loss
    assert loss is not None
    losses = loss.value(np.where(finite[:, None], end, 0.0), readout)
    local = np.where(finite, np.argmin(losses, axis=1), -1).astype(np.int16)
    gathered = gather_rows(comm, local)
    return np.asarray(comm.bcast(gathered, 0))


def _samples(terms: Sequence["Term"], dim: int) -> tuple[Floats, Labels]:
    """Points (n, dim) and labels (n,) of the samples among the terms. Not collective."""
    from eulerian.app.build.mixture import INITIAL

    none = np.zeros((0, dim)), np.zeros(0, dtype=np.int32)
    each = (term.labelled_points(f"{INITIAL}.{index}") for index, term in enumerate(terms))
    points, labels = zip(none, *(pair for pair in each if pair is not None), strict=True)
    return np.concatenate(points), np.concatenate(labels)
