"""Densities against particles as a table for the terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from eulerian.objective.parts import part_names

_NAME, _CELL = 38, 16


def comparison_table(document: Mapping[str, Any]) -> str:
    """What ``eulerian compare`` found, from the keys ``objective`` and ``compare`` of its document."""
    mesh, found = document["objective"], document["compare"]
    lines = [_line("", "mesh", "particles", "± 95 %")]
    for name in ("total", *part_names()):
        values = (mesh[name], found["parts"][name])
        if name == "total" or any(values):
            title = "J" if name == "total" else f"  {name}"
            lines.append(_line(title, *(f"{value:.8g}" for value in values), _short(found["interval"][name])))
    lines.append(_line("L¹ distance to the exact density", *map(_short, _density_errors(found))))
    for name, title in (("value", "J"), ("value_and_gradient", "J and ∇J")):
        lines.append(_line(f"CPU seconds of {title}", *(_short(found["cpu_seconds"][key][name]) for key in _METHODS)))
    lines += ["", _gradient_sentence(found), _transport_sentence(found)]
    if found["outside"]:
        lines.append(f"Particles feel no walls: {_short(found['outside'])} of their weight ends outside the domain.")
    return "\n".join(lines)


_METHODS = ("mesh", "particles")


def _line(name: str, *cells: str) -> str:
    return (f"{name:{_NAME}}" + "".join(f"{cell:>{_CELL}}" for cell in cells)).rstrip()


def _short(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3g}"


def _density_errors(found: Mapping[str, Any]) -> Sequence[float | None]:
    return found["l1_density"], found["l1_kernel_estimate"]


def _gradient_sentence(found: Mapping[str, Any]) -> str:
    return (
        f"Gradients: the two differ by {_short(found.get('gradient_initial_error'))} of the gradient at the start of a "
        f"training. Relative to that of the {found['gradient_reference']} here it is "
        f"{_short(found['gradient_relative_error'])}, where {_short(found['gradient_sampling_error'])} is to be "
        "expected from so many particles."
    )


def _transport_sentence(found: Mapping[str, Any]) -> str:
    if found["wasserstein_note"]:
        return str(found["wasserstein_note"])
    return (
        f"Wasserstein distance W₂ between ρ(T) of the mesh and {found['wasserstein_points']} particles: "
        f"{_short(found['wasserstein2'])} (of as many random draws from it: {_short(found['wasserstein2_floor'])}). "
        f"Sliced W₂: {_short(found['sliced_wasserstein2'])}."
    )
