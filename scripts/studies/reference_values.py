"""Train on problems whose optimum is known exactly, and print how far from it training ends.

    python scripts/studies/reference_values.py

Serial or under mpirun; a few minutes. The exact values belong to the idealised problem (any velocity field) or to the
best affine field; where each comes from stands beside it. Networks can only end above the idealised value, up to the
error of the mesh.
"""

from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import numpy as np
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from eulerian import build, minimise
from eulerian.app.config import parse_config


@dataclass(frozen=True)
class Case:
    """A configuration and the exact optimum of its problem."""

    name: str
    config: dict[str, Any]
    exact: float
    source: str


def gaussian_to_point(beta: float, distance2: float, variance: float) -> float:
    """Idealised optimum for ℓ = κ/2|x − c|²: (β/2)(|m₀ − c|² + tr S₀), β = ακ/(α + κ), α = λ/T."""
    return 0.5 * beta * (distance2 + variance)


def hopf_lax(loss, kinetic: float, horizon: float, mean: float, std: float) -> float:
    """Idealised optimum in one dimension: the mean of min_z ℓ(z) + λ|x − z|²/(2T) over N(mean, std²)."""

    def least(x: float) -> float:
        def cost(z: float) -> float:
            return loss(z) + kinetic * (x - z) ** 2 / (2.0 * horizon)

        start = np.linspace(-8.0, 8.0, 801)
        z = start[np.argmin(cost(start))]
        return float(minimize_scalar(cost, bounds=(z - 0.02, z + 0.02), method="bounded", options={"xatol": 1e-10}).fun)

    def density(x: float) -> float:
        return float(np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * np.sqrt(2.0 * np.pi)))

    return quad(lambda x: least(x) * density(x), mean - 8 * std, mean + 8 * std, limit=400)[0]


def problem(box, degree, initial, field, objective, terminal, iterations) -> dict[str, Any]:
    lower, upper, cells = box
    return {
        "domain": {"box": {"lower": lower, "upper": upper, "cells": cells}},
        "density": {"degree": degree, "initial": initial},
        "field": field,
        "objective": {**objective, "terminal": terminal},
        "optimiser": {"max_iterations": iterations},
    }


def cases() -> list[Case]:
    line = ([-4.0], [4.0], [200])
    one = [{"kind": "gaussian", "mean": [-0.4], "std": 0.6}]
    two = [{"kind": "gaussian", "mean": [-0.5, 0.3], "std": 0.5}]
    point = {"kind": "quadratic", "target": [1.3], "weight": 2.0}
    small = {"parameters": 1e-6}
    network = {"kind": "mlp", "hidden": [16]}
    affine = {"kind": "linear", "features": "affine", "layers": 16, "horizon": 1.0}
    alpha = 0.7 / 1.5
    return [
        Case(
            "affine field, 1-D",
            problem(line, 2, one, affine, {"kinetic": 0.7, "parameters": 0.5}, point, 100),
            1.3110719674308,
            "matrix Riccati equations of the affine problem",
        ),
        Case(
            "translations only, 1-D",
            problem(
                line, 2, one, {**affine, "features": "translation"}, {"kinetic": 0.7, "parameters": 0.5}, point, 50
            ),
            1.44375,
            "a parabola in the displacement",
        ),
        Case(
            "Gaussian to a point, 1-D",
            problem(line, 2, one, {**network, "layers": 16, "horizon": 1.5}, {"kinetic": 0.7, **small}, point, 150),
            gaussian_to_point(alpha * 2.0 / (alpha + 2.0), 1.7**2, 0.36),
            "Hopf-Lax, closed form",
        ),
        Case(
            "double well, 1-D",
            problem(
                ([-4.0], [4.0], [240]),
                2,
                [{"kind": "gaussian", "mean": [0.25], "std": 0.8}],
                {**network, "layers": 16, "horizon": 1.0},
                {"kinetic": 2.0, **small},
                {"kind": "expression", "value": "(x**2 - 1)**2/4"},
                150,
            ),
            hopf_lax(lambda z: (z**2 - 1.0) ** 2 / 4.0, 2.0, 1.0, 0.25, 0.8),
            "Hopf-Lax, quadrature",
        ),
        Case(
            "Gaussian to a point, 2-D",
            problem(
                ([-3.0, -3.0], [3.0, 3.0], [48, 48]),
                1,
                two,
                {**network, "layers": 8, "horizon": 1.0},
                {"kinetic": 0.5, **small},
                {"kind": "quadratic", "target": [1.0, -0.5]},
                100,
            ),
            gaussian_to_point(0.5 / 1.5, 1.5**2 + 0.8**2, 0.5),
            "Hopf-Lax, closed form",
        ),
    ]


def main() -> None:
    say = print if MPI.COMM_WORLD.rank == 0 else (lambda *_: None)
    say("| problem | exact optimum | trained | relative distance | iterations | source of the exact value |")
    say("|---|---|---|---|---|---|")
    for case in cases():
        config = parse_config(case.config, ".")
        control = build(config)
        result = minimise(control, max_iterations=config.optimiser.max_iterations)
        distance = 100.0 * (result.value - case.exact) / case.exact
        say(
            f"| {case.name} | {case.exact:.7f} | {result.value:.7f} | {distance:+.3f} % | {result.iterations} "
            f"| {case.source} |"
        )


if __name__ == "__main__":
    main()
