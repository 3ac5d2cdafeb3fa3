"""Objects of UFL where functions of points are wanted: recognised without UFL, which particles do not know."""

import traceback
from typing import Any

from eulerian.base.errors import InputError

_FORMS = (
    "A form of UFL in the density is given as eu.FormLoss(lambda rho: f * rho * ufl.dx). A loss or a potential is a "
    "function of points x (n, dim) that returns (n,), or a formula in quotes."
)


def refuse_ufl(what: Any, key: str) -> None:
    """Raise InputError where something is an expression or a form of UFL, or a function of DOLFINx."""
    if any(_of_ufl(kind.__module__) for kind in type(what).__mro__):
        raise InputError("is an object of UFL", key=key, value=type(what).__name__, remedy=_FORMS)


def remedy_of(error: BaseException) -> str:
    """What to do about an error of a user's function of points."""
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return _FORMS if any(map(_of_ufl, frames)) else "The fault is in the function itself."


def _of_ufl(module: str) -> bool:
    return module.partition(".")[0] == "ufl"
