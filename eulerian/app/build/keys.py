"""Errors of the library in the words of a configuration."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from eulerian.app.config.objective import AT
from eulerian.base.errors import InputError
from eulerian.objective.parts import part_names

# Arguments of the library's problems and solvers, and the keys that they come from.
_KEYS = {
    "terminal": "objective.terminal",
    "at": AT,
    "costs": "objective",
    "rho0": "density.initial",
    "time": "field",
    "horizon": "field.horizon",
    "slabs": "ideal.layers",
    "bound": "ideal.certificate",
    "max_iterations": "ideal.max_iterations",
    **{name: f"objective.{name}" for name in part_names("velocity", "potential", "density", "functional")},
}


@contextmanager
def configured_keys() -> Iterator[None]:
    """Errors of the library name the keys of the configuration instead of arguments."""
    try:
        yield
    except InputError as error:
        name, dot, rest = re.sub(r"^at\[(\d+)\]", r"at.\1", error.key or "").partition(".")
        key = f"{_KEYS[name]}{dot}{rest}" if name in _KEYS else error.key
        raise InputError(error.what, key=key, value=error.value, remedy=error.remedy) from error
