"""Configurations that several tests start from."""

from typing import Any

BASE = """
[domain]
box = { lower = [-3.0, -3.0], upper = [3.0, 3.0], cells = [48, 48] }
[density]
degree = 1
[[density.initial]]
kind = "gaussian"
mean = [-0.5, 0.3]
std = 0.5
[field]
kind = "mlp"
hidden = [16]
layers = 8
horizon = 1.0
[objective]
kinetic = 0.5
parameters = 1e-6
[objective.terminal]
kind = "quadratic"
target = [1.0, -0.5]
[optimiser]
max_iterations = 100
"""


def small(**sections: object) -> dict[str, Any]:
    """A problem in one dimension that is solved in no time, with some sections replaced."""
    config: dict[str, Any] = {
        "domain": {"box": {"lower": [-2.0], "upper": [2.0], "cells": [24]}},
        "density": {"initial": [{"kind": "gaussian", "mean": [-0.4], "std": 0.5}]},
        "field": {"kind": "linear", "features": "affine", "layers": 2},
        "objective": {"kinetic": 0.5, "terminal": {"kind": "quadratic", "target": [0.5]}},
        "optimiser": {"max_iterations": 3},
    }
    return config | sections
