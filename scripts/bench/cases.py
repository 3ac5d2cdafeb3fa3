"""The problems that are timed: Gaussians that turn in a box, in any dimension, degree and resolution."""

import os
from typing import Any

from suite import Table

from eulerian import ControlProblem, build
from eulerian.app.config import parse_config

HALF = 3.0  # the box is [-3, 3]^d

# v = A x + b: everything turns and moves, and every facet has another normal velocity.
AFFINE = {
    2: [-0.2, -0.5, 0.5, -0.2, 0.4, -0.2],
    3: [-0.2, -0.5, 0.1, 0.5, -0.2, 0.2, -0.1, -0.2, -0.1, 0.4, -0.2, 0.1],
}
MEANS = {2: [-0.5, 0.3], 3: [-0.5, 0.3, 0.1]}
TARGETS = {2: [1.0, -0.5], 3: [1.0, -0.5, 0.0]}
# Islands of mass with sharp shores: the limiter has work along all of them.
ISLANDS = "heaviside(sin(4*x)*sin(4*y) - 0.2)"


def turning(
    cells: int,
    *,
    dim: int = 2,
    degree: int = 1,
    layers: int = 4,
    steps: int = 32,
    labels: int = 1,
    hidden: list[int] | None = None,
    islands: bool = False,
    limiter: bool = True,
    kinetic: float = 0.5,
    memory: float | None = None,
) -> Table:
    """A configuration with about that many time steps in each layer, whatever the mesh.

    Args:
        cells: per side of the box; times 2 triangles or 6 tetrahedra.
        dim: 2 or 3.
        degree: of the density.
        layers: L.
        steps: per layer, about; exact for given cells, degree and dimension from run to run.
        labels: K, Gaussians side by side.
        hidden: widths of a network, or None for the affine field.
        islands: a density with sharp edges instead of Gaussians.
        limiter: keep densities non-negative.
        kinetic: λ.
        memory: budget of the adjoint in bytes; by default what the machine can well give.
    """
    network = {"kind": "mlp", "hidden": hidden, "zero_init": False, "output_scale": 1.0}
    affine = {"kind": "linear", "features": "affine", "theta": [AFFINE[dim]]}
    return {
        "domain": {"box": {"lower": [-HALF] * dim, "upper": [HALF] * dim, "cells": [cells] * dim}},
        "density": {"degree": degree, "initial": initial(dim, labels, islands=islands)},
        "field": {
            **(affine if hidden is None else network),
            "layers": layers,
            "horizon": horizon(cells, dim, degree, layers, steps),
        },
        "objective": {"kinetic": kinetic, "terminal": {"kind": "quadratic", "target": TARGETS[dim]}},
        "solver": {
            "limiter": limiter,
            "memory": f"{(spare_memory() if memory is None else memory) / 2**20:.3f} MiB",
            "max_steps_per_layer": 100_000,
        },
    }


def problem(cells: int, **options: Any) -> ControlProblem:
    """The problem of ``turning``. Collective."""
    return build(parse_config(turning(cells, **options), "."))


def initial(dim: int, labels: int, *, islands: bool) -> list[Table]:
    """One density for each label."""
    if islands:
        return [{"kind": "expression", "value": ISLANDS, "label": label} for label in range(labels)]
    means = [[MEANS[dim][0] + 0.2 * label, *MEANS[dim][1:]] for label in range(labels)]
    return [{"kind": "gaussian", "mean": mean, "std": 0.5, "label": label} for label, mean in enumerate(means)]


def horizon(cells: int, dim: int, degree: int, layers: int, steps: int) -> float:
    """T such that the affine field needs about ``steps`` steps in each layer."""
    per_time = {2: (1.3, 1.35, 4.05), 3: (2.6, 2.9, 7.4)}[dim][degree] * cells
    return layers * steps / per_time


def spare_memory() -> float:
    """A bit more than half of the machine's memory, in bytes."""
    return 0.6 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
