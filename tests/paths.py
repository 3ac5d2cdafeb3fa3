"""Where the repository keeps what tests look at."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MESHES = ROOT / "meshes"
SCRIPTS = ROOT / "scripts"
PACKAGE = ROOT / "eulerian"
TESTS = ROOT / "tests"
