"""Settings of a descent, and its status and reason at the end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from eulerian.base.errors import InputError
from eulerian.optimise.box import Bounds
from eulerian.optimise.tao import REASONS, Method, require_bounded

VERIFIED: Final = "verified"
STOPS = ("gradient", VERIFIED)

# J jumps by the time error where a step count changes and bends at the limiter's kinks, so close to a minimum a line
# search may find nothing lower before the gradient is as small as required. Below this share of its first norm that is
# the accuracy of J, not a failure.
STAGNATION = 1e-3

_KEPT = "the best iterate is kept"


@final
@dataclass(frozen=True)
class Settings:
    """How a descent works, and when it ends.

    Attributes:
        method: which optimiser.
        max_iterations: at most this many.
        gradient_tolerance: on the gradient norm relative to that at the start.
        metric: "velocity", or "parameters" for L²(0, T) whatever the method and the field.
        advice: what to look at where a line search fails.
        stop: "gradient"; or "verified" to end when J of the network itself falls no more (see ``verified_stop``).
        bounds: on θ, lower and upper; None for none. The tolerance is then on the norm of the projected gradient.
    """

    method: Method
    max_iterations: int = 100
    gradient_tolerance: float = 1e-6
    metric: str = "velocity"
    advice: str = ""
    stop: str = "gradient"
    bounds: Bounds | None = None

    def __post_init__(self) -> None:
        if self.stop not in STOPS:
            remedy = f"Choose one of {', '.join(STOPS)}."
            raise InputError("is no way to end a minimisation", key="stop", value=self.stop, remedy=remedy)
        if self.bounds is not None:
            require_bounded(self.method.name, "method")

    @property
    def gradient_name(self) -> str:
        """What the tolerance is on, in words."""
        return "gradient" if self.bounds is None else "projected gradient"


def ending(code: int, settings: Settings, reduction: float | None, obstacle: Callable[[], str]) -> tuple[str, str]:
    """Status and reason of a descent, in words.

    Args:
        code: TAO's reason.
        settings: of the descent.
        reduction: the gradient norm at the end over that at the start; None if that was zero.
        obstacle: why a line search may have failed.
    """
    if code == REASONS.CONVERGED_GATOL:
        return _converged(settings, reduction)
    if code == REASONS.DIVERGED_MAXITS:
        return "max_iterations", f"the limit of {settings.max_iterations} iterations was reached"
    if code == REASONS.DIVERGED_MAXFCN:
        return "max_iterations", "the limit of evaluations was reached (-tao_max_funcs)"
    # With bounds a trust region that has shrunk to nothing is what a failed line search is to others.
    if code in (REASONS.DIVERGED_LS_FAILURE, REASONS.CONVERGED_STEPTOL):
        return _line_search_failed(settings, reduction or 0.0, obstacle)
    name = {getattr(REASONS, each): each for each in dir(REASONS) if each.isupper()}.get(code, code)
    return ("converged", f"TAO ended with {name}") if code > 0 else ("failed", f"TAO ended with {name}; {_KEPT}")


def _converged(settings: Settings, reduction: float | None) -> tuple[str, str]:
    if reduction is None:
        return "converged", f"the {settings.gradient_name} is zero"
    if reduction > settings.gradient_tolerance:  # some methods of TAO stop by themselves where they find no way down
        return "failed", f"{settings.method.name} stands still at {reduction:.1e} of the first gradient norm"
    return (
        "converged",
        f"the {settings.gradient_name} norm fell below {settings.gradient_tolerance:g} times its first value",
    )


def _line_search_failed(settings: Settings, reduction: float, obstacle: Callable[[], str]) -> tuple[str, str]:
    if reduction <= STAGNATION:
        norm = f"{settings.gradient_name} norm"
        return "converged", f"no lower value is in reach, and the {norm} fell to {reduction:.1e} of its first value"
    reason = f"the line search found no lower value: {obstacle()}; {_KEPT}"
    return "failed", "; ".join(filter(None, (reason, settings.advice)))
