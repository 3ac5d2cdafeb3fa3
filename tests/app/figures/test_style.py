"""Figures whatever the user has set for Matplotlib, and nothing of ours left there afterwards."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from jobs import environment, run_group
from matplotlib.figure import Figure
from test_draw import write_history

from eulerian.app import tasks
from eulerian.app.config import parse_config
from eulerian.app.figures import densities
from eulerian.app.figures.draw import draw_run
from eulerian.app.figures.style import drawing, why
from eulerian.base.errors import ComputationError, FigureError

pytestmark = [pytest.mark.one_process, pytest.mark.figures]

SETTINGS = """
text.usetex: True
font.family: Nowhere Sans
image.lut: 3
lines.linewidth: 9
axes.grid: maybe
nonsense: 3
"""

MODEL = """
[domain]
box = { lower = [-1.0], upper = [1.0], cells = [8] }
[[density.initial]]
kind = "gaussian"
mean = [-0.2]
std = 0.3
[field]
kind = "linear"
features = "translation"
layers = 1
[objective.terminal]
kind = "quadratic"
target = [0.2]
[output]
densities = 0
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The figure that is to come of the history of every run here."""
    folder = tmp_path_factory.mktemp("plain")
    write_history(folder, 5)
    return draw_run(folder)[0].read_bytes()


@pytest.mark.parametrize(
    ("given", "files"),
    [
        ({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, {}),
        ({"MPLBACKEND": "no such thing"}, {"matplotlibrc": b"\xff\xfe no text"}),
        ({"MATPLOTLIBRC": "settings"}, {"settings": SETTINGS.encode()}),
        ({"MATPLOTLIBRC": "settings"}, {"settings": b"\xff\xfe no text"}),
        ({"MPLCONFIGDIR": "/proc/none"}, {}),
        ({"MPLCONFIGDIR": "mine"}, {"mine/matplotlibrc": SETTINGS.encode(), "mine/stylelib/a.mplstyle": b"\xff"}),
    ],
)
def test_settings_of_the_user_change_nothing(
    tmp_path: Path, plain: bytes, given: dict[str, str], files: dict[str, bytes]
) -> None:
    (tmp_path / "config.resolved.toml").touch()
    write_history(tmp_path, 5)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-m", "eulerian", "plot", "."]
    done = run_group(command, 60, tmp_path, {**environment(), **given})
    assert (done.returncode, done.stdout, done.stderr) == (0, "figures/history.png\n", "")
    assert (tmp_path / "figures" / "history.png").read_bytes() == plain


def test_settings_of_this_process_come_back(tmp_path: Path, plain: bytes) -> None:
    theirs: dict[Any, Any] = {"text.usetex": True, "font.size": 31.0, "savefig.dpi": 7.0, "svg.hashsalt": "x"}
    write_history(tmp_path, 5)
    with matplotlib.rc_context():
        matplotlib.rcParams.update(theirs)
        before = dict(matplotlib.rcParams.copy())
        assert draw_run(tmp_path)[0].read_bytes() == plain
        assert dict(matplotlib.rcParams.copy()) == before
        with drawing():
            assert not matplotlib.rcParams["text.usetex"]
        assert dict(matplotlib.rcParams.copy()) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_a_figure_that_fails_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run itself is as good as ever, and its other figures are there."""

    def broken(*_: object) -> Figure:
        raise RuntimeError("latex was not found:\n a long story")

    monkeypatch.chdir(tmp_path)  # where the run folder comes to be
    monkeypatch.setattr(densities, "density_curves", broken)
    config = parse_config(MODEL, tmp_path, ["optimiser.max_iterations=1", 'ideal.certificate="none"'])
    document = tasks.run_train(config)
    assert document["status"] in ("converged", "max_iterations")
    folder = config.output.directory
    (warning,) = (text for text in document["warnings"] if "densities.png" in text)
    assert "could not be drawn: RuntimeError: latex was not found: a long story" in warning
    assert json.loads((folder / "result.json").read_text())["warnings"] == document["warnings"]
    assert (folder / "figures" / "history.png").is_file()
    assert not (folder / "figures" / "densities.png").exists()
    with pytest.raises(FigureError) as caught:
        draw_run(folder)
    assert caught.value.exit_code == 2
    assert "history.png" in [path.name for path in caught.value.drawn]


def test_a_disk_that_is_full_is_no_figure_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_history(tmp_path, 5)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ComputationError, match=r"history\.png cannot be written.*Free some space"):
        draw_run(tmp_path)


def test_a_reason_is_a_line() -> None:
    assert why(ValueError("a\nb")) == "ValueError: a b"
    assert len(why(ValueError("x" * 5000))) < 500
    assert np.all([not line.endswith(" ") for line in why(ValueError("a\n")).splitlines()])
