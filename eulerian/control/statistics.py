"""Masses, moments, extrema and counts of an evaluation on densities; sizes of meshes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Self, final

from mpi4py import MPI

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace


@final
@dataclass(frozen=True)
class Statistics:
    """What the last evaluation did. Densities are dimensionless, times in seconds.

    Attributes:
        steps_per_layer: (L,) time steps; with a label-dependent field the largest over the labels.
        mass_initial: (K,).
        mass_final: (K,).
        boundary_masses: (L + 1, K) mass in the cells at the domain's boundary, at the ends of the layers.
        density_min: smallest value at the limiter's points, over the ends of the layers.
        density_max: largest one.
        mean: (K, dim) of ρ(T).
        covariance: (K, dim, dim) of ρ(T).
        seconds_forward: mean time of a forward solve.
        seconds_gradient: mean time of a value with its gradient.
        evaluations: forward solves so far, rejected ones included.
        rejected_evaluations: trial points that would have needed too many steps or overflowed.
    """

    steps_per_layer: tuple[int, ...]
    mass_initial: Floats
    mass_final: Floats
    boundary_masses: Floats
    density_min: float
    density_max: float
    mean: Floats
    covariance: Floats
    seconds_forward: float
    seconds_gradient: float
    evaluations: int
    rejected_evaluations: int

    @classmethod
    def of(cls, space: DensitySpace, densities: Sequence[Floats], **more: Any) -> Self:
        """From ρ (n_cells, nd, K) at the ends of the layers; ``more``: all other fields. **Collective**."""
        extrema = [space.extrema(rho) for rho in densities]
        mean, covariance = space.mean_and_covariance(densities[-1])
        return cls(
            mass_initial=space.mass(densities[0]),
            mass_final=space.mass(densities[-1]),
            boundary_masses=np.array([space.boundary_masses(rho) for rho in densities]),
            density_min=min(low for low, _ in extrema),
            density_max=max(high for _, high in extrema),
            mean=mean,
            covariance=covariance,
            **more,
        )

    @property
    def boundary_mass(self) -> float:
        """Largest mass of all labels at the boundary."""
        return float(self.boundary_masses.sum(axis=1).max())

    @property
    def mass_error(self) -> float:
        """Largest relative change of a label's mass."""
        return float(np.max(np.abs(self.mass_final - self.mass_initial) / self.mass_initial))

    @property
    def numbers(self) -> dict[str, Any]:
        """By the keys of ``result.json``."""
        return {
            "mass": {
                "initial": self.mass_initial,
                "final": self.mass_final,
                "relative_error": self.mass_error,
                "boundary": self.boundary_mass,
            },
            "density": {"min": self.density_min, "max": self.density_max},
            "moments": {"mean": self.mean, "covariance": self.covariance},
            "time": {"steps_per_layer": self.steps_per_layer},
        }


def mesh_sizes(space: DensitySpace) -> dict[str, Any]:
    """Sizes of a mesh over all ranks; ``dofs`` are those of one label's density. **Collective**."""
    edges = [space.vertices[:, i] - space.vertices[:, j] for i, j in combinations(range(space.dim + 1), 2)]
    # The diameter of a simplex is its longest edge.
    h = np.max([np.linalg.norm(edge, axis=1) for edge in edges], axis=0)
    cells = space.comm.allreduce(space.n_owned, MPI.SUM)
    return {
        "dimension": space.dim,
        "cells": cells,
        "dofs": cells * space.nd,
        "h_min": space.comm.allreduce(float(h.min(initial=np.inf)), MPI.MIN),
        "h_max": space.comm.allreduce(float(h.max(initial=0.0)), MPI.MAX),
    }


def describe_space(space: DensitySpace) -> str:
    """Cells, dimension, degree and labels in words."""
    cells = space.mesh.topology.index_map(space.dim).size_global
    return f"{cells} cells in {space.dim}-D, density of degree {space.degree}, {counted(space.n_labels, 'label')}"


def counted(number: int, noun: str) -> str:
    """A number of things in words."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
