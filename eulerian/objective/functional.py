"""What a functional of densities on a mesh is: its value, its derivatives, and what is known of it without a mesh."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.density.exact_density import ExactDensity
from eulerian.objective.continuous import FunctionDensity
from eulerian.objective.interactions import QuadraticForm
from eulerian.objective.point_loss import PointLoss


@dataclass(frozen=True)
class TerminalValue:
    """A terminal functional F(ρ(T), readout) and its derivatives.

    Attributes:
        value: F, the same on all ranks.
        density: (n_owned, nd, K) derivative by the coefficients of ρ(T).
        readout: (r,) derivative by the readout, the same on all ranks.
    """

    value: float
    density: Floats
    readout: Floats


class Terminal(ABC):
    """A functional of the final density, possibly with parameters of its own (a trained readout).

    Attributes:
        loss: ℓ where the functional is ∫ℓρ(T), else None.
        target: (n_cells, nd, K) ρ* on the mesh where it is a distance from one, else None.
        exact: ρ* itself, where that is known.
        logarithmic: whether it holds logarithms of densities, so that errors of it are measured in nats.
        cancelling: whether it is what is left of much larger integrals, which must be the more exact.
        form: the functional of points, where it is quadratic in the density as a whole.
        of_all_labels: whether its ``density_cost`` of one label depends on the densities of all.
        sensors: (m, dim) points whose densities are all that it depends on, else None.
        title: what it is, in words.
        obstacle: why its true value is not known, in words; empty where it is.
    """

    loss: PointLoss | None = None
    target: Floats | None = None
    exact: ExactDensity | None = None
    form: QuadraticForm | None = None
    logarithmic: ClassVar[bool] = False
    cancelling: bool = False
    of_all_labels: ClassVar[bool] = False
    sensors: Floats | None = None
    title: ClassVar[str] = "this terminal functional"
    obstacle: ClassVar[str] = ""

    @property
    def affine_readout(self) -> bool:
        """Whether the trained parameters are (W row by row, b) of an affine map of points."""
        return False

    def initial_readout(self) -> Floats:
        """Where the trained parameters start, (r,)."""
        return np.zeros(0)

    @abstractmethod
    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K) and readout (r,). **Collective**."""

    def density_cost(
        self,
        log_density: Floats,  # noqa: ARG002 - for distances
        target: FunctionDensity | None,  # noqa: ARG002
        x: Floats,  # noqa: ARG002
        labels: Sequence[int],  # noqa: ARG002
        readout: Floats,  # noqa: ARG002
    ) -> Floats | None:
        """What a distance costs per mass at points of the exact flow, up to a constant; None for a loss.

        Args:
            log_density: (n, k) log ρ(T) there, of some labels.
            target: ρ*.
            x: (n, dim).
            labels: these k.
            readout: (r,).
        """
        return None

    def without_mass(self, readout: Floats) -> float:  # noqa: ARG002 - of those of the density's values
        """What it is where there is no mass, which no point of the flow carries. Collective."""
        return 0.0

    def of_sensors(self, values: Floats, readout: Floats) -> float:
        """Its value for densities (m, K) at its sensors."""
        raise NotImplementedError
