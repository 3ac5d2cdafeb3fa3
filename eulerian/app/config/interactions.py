"""Kernels of interactions, as tables: `{ kind = "quadratic", weight = 1.0 }`, `{ kind = "gaussian", … }`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from eulerian.app.config.schema import OrOne
from eulerian.app.config.values import Length, Real, Section
from eulerian.objective.kernels import GaussianInteraction, QuadraticInteraction


class QuadraticKernel(Section):
    """W(x - y) = weight/2 |x - y|².

    Attributes:
        weight: its strength; particles attract one another where it is positive.
    """

    kind: Literal["quadratic"] = "quadratic"
    weight: Real = Field(description="the weight of the kernel, a number: > 0 attracts, < 0 repels", examples=[1.0])

    def kernel(self) -> QuadraticInteraction:
        """W."""
        return QuadraticInteraction(self.weight)


class GaussianKernel(Section):
    """W(x - y) = weight exp(-|x - y|²/(2 width²)).

    Attributes:
        weight: its strength; particles repel one another where it is positive.
        width: how far particles feel one another, in the units of the domain.
    """

    kind: Literal["gaussian"] = "gaussian"
    weight: Real = Field(description="the weight of the kernel, a number: > 0 repels, < 0 attracts", examples=[1.0])
    width: Length = Field(description="the width of the kernel, a number > 0", examples=[0.3])

    def kernel(self) -> GaussianInteraction:
        """W."""
        return GaussianInteraction(self.weight, self.width)


def _as_list(value: Any) -> Any:
    """One table as a list of it."""
    return [value] if isinstance(value, dict | QuadraticKernel | GaussianKernel) else value


Kernels = Annotated[
    tuple[Annotated[QuadraticKernel | GaussianKernel, Field(discriminator="kind")], ...],
    Field(min_length=1),
    BeforeValidator(_as_list),
    OrOne(),
]
"""One table or a list of them, whose sum is W."""
