from pathlib import Path

from mpi4py import MPI

import pytest


@pytest.fixture
def tmp_path(tmp_path: Path, comm: MPI.Comm) -> Path:
    """A folder of this rank's own: fields know nothing of other ranks, so every rank runs these tests alone."""
    folder = tmp_path / f"rank{comm.rank}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
