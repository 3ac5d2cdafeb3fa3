"""An error that drops meshes on its way is told, and nothing hangs afterwards."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.one_process

SCRIPT = """
import eulerian as eu

def space(layers):
    found = eu.DensitySpace(eu.box_mesh([-1.0], [1.0], [8]))
    found.comm.allreduce(layers)
    eu.TimeGrid(layers=layers)
    return eu.ControlProblem(found, eu.Linear(1, "affine"), eu.Gaussian([0.0], 0.3), eu.QuadraticLoss([0.5]))

try:
    first, second = (space(layers) for layers in (2, 0))
except eu.InputError as error:
    print("told:", error.key)
print("J =", space(2).value(space(2).initial_theta))
"""


def test_problems_that_are_given_up() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[0] == "told: time.layers"
    assert ended.stdout.splitlines()[1].startswith("J = ")
    assert "SystemError" not in ended.stderr
