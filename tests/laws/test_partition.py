"""J and its gradient do not depend on how the mesh is shared out, and are the same bits on all ranks."""

import json
from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from paths import MESHES
from problems import LABELLINGS, problem_config, theta_with_layers

from eulerian.app.build.network import build
from eulerian.app.config import parse_config

CASES = [(1, 2, "two labels"), (2, 1, "a field per label"), (2, 2, "one label"), (3, 1, "two labels")]

# Runs the cases on whatever ranks it is given and prints what should not depend on them.
JOB = """
import json
from mpi4py import MPI
import numpy as np
from eulerian.app.build.network import build
from eulerian.app.config import parse_config

comm = MPI.COMM_WORLD
for case in json.loads({cases!r}):
    problem = build(parse_config(case["config"]), comm)
    value, gradient = problem.value_and_gradient(np.array(case["theta"]))
    mine = (value, gradient.tobytes())
    assert all(other == mine for other in comm.allgather(mine)), "ranks differ"
    statistics = problem.statistics
    if comm.rank == 0:
        print("RESULT", json.dumps({{
            "value": value, "parts": problem.parts, "gradient": gradient.ravel().tolist(),
            "steps": statistics.steps_per_layer, "mean": statistics.mean.ravel().tolist(),
            "low": statistics.density_min, "high": statistics.density_max, "boundary": statistics.boundary_mass,
            "running": problem.running_cost().tolist(),
        }}))
    else:
        problem.running_cost()
"""


def cases() -> list[dict[str, Any]]:
    """Configurations with the θ at which they are looked at; a mesh file too, for meshes are dealt out differently."""
    trained = {"kind": "cross_entropy", "trainable": True}
    disk = str(MESHES / "disk.msh")
    configs = [problem_config(dim, degree, labelling) for dim, degree, labelling in CASES]
    configs.append({**problem_config(2, 1, LABELLINGS[1], objective={"terminal": trained}), "domain": {"file": disk}})
    configs.append(problem_config(2, 1, LABELLINGS[1], field={"max_speed": 0.5}))
    target = [{"kind": "gaussian", "mean": [0.1, 0.2], "std": 0.3, "label": y} for y in range(2)]
    configs += [
        problem_config(2, 1, name, objective={"terminal": {"kind": "l2", "target": target}}) for name in LABELLINGS[1:]
    ]
    result = []
    for config in configs:
        problem = build(parse_config(config), MPI.COMM_SELF)
        result.append({"config": config, "theta": theta_with_layers(problem).tolist()})
    return result


@pytest.mark.mpi
def test_one_two_and_three_ranks_agree(mpirun: Callable[..., CompletedProcess[str]]) -> None:
    job = JOB.format(cases=json.dumps(cases()))
    runs = []
    for ranks in (1, 2, 3):
        done = mpirun(ranks, job, timeout=240)
        assert done.returncode == 0, done.stderr
        runs.append([json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT")])
    serial = runs[0]
    assert len(serial) == len(CASES) + 4
    for other in runs[1:]:
        for one, many in zip(serial, other, strict=True):
            assert many["value"] == pytest.approx(one["value"], rel=1e-11)
            assert many["parts"] == pytest.approx(one["parts"], rel=1e-11)
            assert many["running"] == pytest.approx(one["running"], rel=1e-11)
            assert many["steps"] == one["steps"]
            assert many["mean"] == pytest.approx(one["mean"], abs=1e-12)
            assert (many["high"], many["boundary"]) == pytest.approx((one["high"], one["boundary"]), rel=1e-10)
            assert many["low"] == pytest.approx(one["low"], abs=1e-14)
            gradients = np.array(one["gradient"]), np.array(many["gradient"])
            assert np.linalg.norm(gradients[1] - gradients[0]) <= 1e-9 * np.linalg.norm(gradients[0])
            assert np.linalg.norm(gradients[0]) > 1e-3
