"""More ranks than cells: some ranks own nothing, and everything still works."""

import numpy as np
import pytest

from eulerian.analysis.verify import verify
from eulerian.app.build.network import build
from eulerian.app.config import parse_config


@pytest.mark.parametrize("cells", [[1], [1, 1]])
@pytest.mark.parametrize("kind", ["mlp", "free"])
def test_fewer_cells_than_ranks(cells: list[int], kind: str) -> None:
    dim = len(cells)
    config = {
        "domain": {"box": {"lower": [-1.0] * dim, "upper": [1.0] * dim, "cells": cells}},
        "density": {"degree": 1, "initial": [{"kind": "gaussian", "mean": [0.1] * dim, "std": 0.7}]},
        "field": {"kind": kind, "layers": 2, "zero_init": False},
        "objective": {
            "kinetic": 0.5,
            "jacobian": 0.1,
            "terminal": {"kind": "quadratic", "target": [0.5] * dim},
        },
    }
    problem = build(parse_config(config, "."))
    laws = verify(problem, problem.initial_theta, np.random.default_rng(0))
    assert min(laws.taylor_rates) > 1.9
    assert laws.mass_error < 1e-13
    assert laws.dot_error < 1e-13
