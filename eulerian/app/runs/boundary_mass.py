"""Mass that has come to the domain's boundary, where a wall stops it: how much, of which label, when and where."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from eulerian.app.runs.files import ArrayRecord
from eulerian.base.arrays import Floats

if TYPE_CHECKING:
    from eulerian.control.control import ControlProblem
    from eulerian.control.statistics import Statistics

# Share of a label's mass in the cells along the boundary that is worth a warning. Nothing leaves the domain, so mass
# that arrives there stays at the wall instead of going on, which changes J by about this share of the loss across the
# domain: below 1e-3 that is less than the error of a usual mesh (about 1 % of J on 48 × 48 squares of degree 1).
# Flows that keep clear of the boundary have 1e-6 there and less (the templates do).
LIMIT = 1e-3


@final
@dataclass(frozen=True)
class BoundaryMass(ArrayRecord):
    """Mass in the cells that touch the boundary with a facet.

    Attributes:
        times: (L + 1,) ends of the layers.
        share: (L + 1, K) of each label's mass at these times.
        facets: (m, dim, dim) vertices of the boundary's facets.
        masses: (m, K) behind each facet at the time of the largest share, relative to each label's mass.
    """

    CONTENTS = "boundary"

    times: Floats
    share: Floats
    facets: Floats
    masses: Floats

    @property
    def worst(self) -> tuple[int, int]:
        """Time and label of the largest share."""
        time, label = np.unravel_index(int(self.share.argmax()), self.share.shape)
        return int(time), int(label)

    @property
    def statement(self) -> str:
        """The warning, with its figures and the remedy."""
        time, label = self.worst
        whose = "the mass" if self.share.shape[1] == 1 else f"the mass of label {label}"
        facet = self.facets[int(self.masses[:, label].argmax())].mean(axis=0)
        place = f"({', '.join(f'{x:.3g}' for x in facet)})" if len(facet) > 1 else f"x = {facet[0]:.3g}"
        since = self.times[int(np.argmax(self.share[:, label] > LIMIT))]
        others = int(np.count_nonzero(self.share.max(axis=0) > LIMIT)) - 1
        also = "" if not others else f" ({others} other label{'s' if others > 1 else ''} too)"
        return (
            f"at t = {self.times[time]:.4g}, {100 * self.share[time, label]:.3g} % of {whose}{also} lies in the cells "
            f"along the boundary, most of it near {place}, and more than "
            f"{100 * LIMIT:g} % since t = {since:.4g}; the wall holds it up. Take a larger domain, unless the wall "
            "belongs to the problem (figures/boundary.png)"
        )


def mass_at_boundary(problem: "ControlProblem", statistics: "Statistics | None" = None) -> BoundaryMass | None:
    """What lies along the boundary at the last evaluation, if it is more than ``LIMIT`` of a label. **Collective**.

    Args:
        problem: evaluated.
        statistics: of it, where they are known already.
    """
    known = problem.statistics if statistics is None else statistics
    share = known.boundary_masses / known.mass_initial
    if not np.max(share) > LIMIT:
        return None
    time = int(share.max(axis=1).argmax())
    facets, masses = _mass_at_facets(problem, problem.density_at(time))
    times = np.linspace(0.0, problem.horizon, len(share))
    return BoundaryMass(times, share, facets, masses / known.mass_initial)


def boundary_warnings(problem: Any) -> list[str]:
    """What ``mass_at_boundary`` has to say, of a problem whose last evaluation has statistics. **Collective**."""
    found = mass_at_boundary(problem) if problem.has_statistics else None
    return [] if found is None else [found.statement]


def _mass_at_facets(problem: "ControlProblem", rho: Floats) -> tuple[Floats, Floats]:
    """The boundary's facets (m, dim, dim) of all ranks, and the mass (m, K) of ρ in their cells. **Collective**."""
    from eulerian.base.parallel import gather_rows  # starts MPI, which no figure needs

    space = problem.density_space
    outside = space.geometry.neighbours[: space.n_owned] < 0
    cells, opposite = np.nonzero(outside)
    corners = np.array([[v for v in range(space.dim + 1) if v != f] for f in range(space.dim + 1)])
    facets = space.vertices[cells[:, None], corners[opposite]]
    masses = space.cell_mass(rho)[cells] / outside.sum(axis=1)[cells, None]  # a cell in a corner has several facets
    gathered: tuple[Floats, Floats] = space.comm.bcast(
        (gather_rows(space.comm, facets), gather_rows(space.comm, masses)), 0
    )
    return gathered
