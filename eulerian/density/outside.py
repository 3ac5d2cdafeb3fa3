"""Mass that lies outside the domain: a warning where it is much, an error where it is more than half.

What is outside is lost, and the rest takes its place. The shares are those of points that are looked for in the domain
itself with its holes, whatever its cells: they are the same on any number of ranks and cells.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, final

from mpi4py import MPI

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats, Ints
from eulerian.base.errors import InputError
from eulerian.base.parallel import agreed, sum_all, warn
from eulerian.density.shape import DensityShape
from eulerian.density.space import DensitySpace

if TYPE_CHECKING:
    from eulerian.mesh.point_location import CellFinder

type Flags = NDArray[np.bool_]

_POINTS = 10_000  # that represent a shape: shares are right within some tenths of a percent
_WARNED = 0.02  # shares of mass below are tails: two standard deviations from a wall, it is 0.023
_REFUSED = 0.505  # half, and the uncertainty of a share
_ROUNDING = 1e-10  # of the domain's size: data are often scaled to end at its walls

_REMEDY = "Enlarge the domain, or correct the"


@final
class Domain:
    """The set of points that the cells of a space cover. The same on any number of ranks."""

    def __init__(self, space: DensitySpace) -> None:
        self._space = space

    @property
    def comm(self) -> MPI.Comm:
        """Who shares the cells."""
        return self._space.comm

    def contains(self, x: Floats) -> Flags:
        """Which of the points x (n, dim), the same on all ranks, lie in the domain or at its boundary. Collective."""
        low, high = self._space.bounding_box
        margin = _ROUNDING * (high - low)
        inside = np.all((x >= low - margin) & (x <= high + margin), axis=1)
        if self.is_a_box:
            return np.asarray(inside)
        own = np.zeros(len(x), dtype=np.uint8)
        with agreed(self.comm):
            if self._space.n_owned:
                own[inside] = self._own_cells.find(x[inside])[0] >= 0
        self.comm.Allreduce(MPI.IN_PLACE, own, MPI.MAX)
        return own.astype(bool)

    @cached_property
    def is_a_box(self) -> bool:
        """Whether the cells fill their bounding box. Collective."""
        space = self._space
        low, high = space.bounding_box
        cells = float(sum_all(self.comm, np.array([space.geometry.det[: space.n_owned].sum()]))[0])
        simplices = np.prod(np.arange(1, space.dim + 1)) * np.prod(high - low)
        return bool(abs(cells - simplices) <= 1e-9 * simplices)

    @cached_property
    def _own_cells(self) -> "CellFinder":
        from eulerian.mesh.point_location import CellFinder  # SciPy's trees take long to load, and a box needs none

        return CellFinder(self._space.vertices)


def check_mass(domain: Domain, shape: DensityShape, key: str) -> None:
    """Warn of mass of a term outside the domain. Collective.

    Of a formula nothing can be said: it is a density on the domain, whatever it is elsewhere.

    Raises:
        InputError: more than half of its mass is outside.
    """
    points = shape.equal_mass_points(_POINTS)
    share = 0.0 if len(points) == 0 else float(np.mean(~domain.contains(points)))
    remedy = f"{_REMEDY} term.{shape.hint}"
    if share > _REFUSED:
        raise InputError(f"{_percent(share)} of its mass lies outside the domain", key=key, remedy=remedy)
    if share > _WARNED:
        fate = "is lost; what is inside is scaled up to the weight of the term"
        warn(domain.comm, f"{_percent(share)} of the mass of {key} lies outside the domain and {fate}. {remedy}")


def check_samples_and_kernels(
    domain: Domain, estimates: Sequence[DensityShape], classes: Sequence[str], key: str
) -> None:
    """Warn of samples outside the domain, or of wide kernels of those inside. Collective.

    Args:
        domain: the domain.
        estimates: of the samples of each class.
        classes: their names, of one class "".
        key: the samples' name, for messages.

    Raises:
        InputError: more than half of all samples, or all samples of a class, or more than half of the mass, is outside.
    """
    samples = [each.samples for each in estimates if each.samples is not None]
    labels = np.repeat(np.arange(len(samples), dtype=np.int32), [len(each) for each in samples])
    inside = domain.contains(np.concatenate(samples))
    fate = "are lost; the others take their mass" + (", class by class" if len(classes) > 1 else "")
    if check_samples(domain.comm, inside, labels, classes, key, fate):
        return
    cause, remedy = "although all samples are inside: their kernels are wide", "Enlarge the domain, or set bandwidth."
    for name, estimate in zip(classes, estimates, strict=True):
        share = float(np.mean(~domain.contains(estimate.equal_mass_points(_POINTS))))
        whose = f"of class {name!r} of {key}" if name else f"of {key}"
        if share > _REFUSED:
            what = f"{_percent(share)} of the mass {whose} lies outside the domain, {cause}"
            raise InputError(what, key=f"{key}.bandwidth", remedy=remedy)
        if share > _WARNED:
            warn(domain.comm, f"{_percent(share)} of the mass {whose} lies outside the domain, {cause}. {remedy}")


def check_samples(comm: MPI.Comm, inside: Flags, labels: Ints, classes: Sequence[str], key: str, fate: str) -> bool:
    """Whether samples are outside; if so, warn of it. The same on all ranks; nothing is sent.

    Args:
        comm: whose rank 0 warns.
        inside: (n,) of each sample, whether it lies in the domain.
        labels: (n,) of each sample.
        classes: names of the labels, of one class "".
        key: the samples' name.
        fate: what becomes of those outside.

    Raises:
        InputError: more than half of all samples, or all samples of a class, are outside.
    """
    lost, total = int(np.sum(~inside)), len(inside)
    if lost == 0:
        return False
    own = [(name, int(np.sum(~inside[labels == y])), int(np.sum(labels == y))) for y, name in enumerate(classes)]
    share = f"{_percent(lost / total)} of the samples"
    remedy = f"{_REMEDY} samples: are their columns and units those of the domain?"
    if lost > total / 2:
        raise InputError(f"{share} ({lost} of {total}) lie outside the domain", key=key, remedy=remedy)
    for name, gone, all_ in own:
        if gone == all_ > 0:
            what = f"all {all_} samples of class {name!r} lie outside the domain"
            raise InputError(what, key=key, value=name, remedy=remedy)
    parts = [f"{gone} of {all_} of class {name!r}" for name, gone, all_ in own if gone]
    count = f"{lost} of {total}" + (f": {', '.join(parts[:5])}{', …' if len(parts) > 5 else ''}" if own[1:] else "")
    warn(comm, f"{share} of {key} ({count}) lie outside the domain and {fate}. {remedy}")
    return True


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
