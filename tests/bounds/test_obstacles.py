"""The study of obstacles at small sizes."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from paths import SCRIPTS

pytestmark = pytest.mark.mpi  # studies are for one process to run


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import from ``scripts/`` as a script does."""
    monkeypatch.syspath_prepend(str(SCRIPTS / "studies"))
    yield
    for name in ("study", "obstacles"):
        sys.modules.pop(name, None)


def test_the_command_at_small_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstacles

    monkeypatch.setattr(sys, "argv", ["obstacles.py", "--quick", "--output", str(tmp_path)])
    obstacles.main()
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = {row["domain"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"hole", "dumbbell"}
    for row in rows.values():
        hull, exact, dual, primal = (float(row[name]) for name in ("without_walls", "around_walls", "dual", "primal"))
        assert hull < exact
        assert 0.0 < primal - dual < 0.05 * primal
        assert primal == pytest.approx(exact, rel=0.06)
        assert primal > exact
        assert float(row["network"]) > dual
    # The value without walls is β/2 (|m − c|² + tr S), but for the little of the Gaussian that walls cut off.
    assert float(rows["dumbbell"]["without_walls"]) == pytest.approx(0.375 * (3.8**2 + 0.2**2 + 2 * 0.25**2), rel=2e-3)
    image = imread(tmp_path / "obstacles.png")
    assert min(image.shape[:2]) > 300
    assert np.ptp(image[..., :3]) > 0.5
