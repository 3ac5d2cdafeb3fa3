"""The figure of a sweep: every value where it belongs, failures marked, drawn from the folder alone."""

import itertools
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import Here
from matplotlib.figure import Figure
from matplotlib.image import imread

from eulerian.app.figures.draw import draw_run
from eulerian.app.figures.sweep import sweep_curves
from eulerian.app.runs.run_table import COLUMNS
from eulerian.app.runs.sweep_table import SweepRecord, column
from eulerian.base.errors import FigureError, InputError

pytestmark = pytest.mark.one_process


def record(keys: Mapping[str, list[Any]], failed: Collection[int] = (), gap: bool = True) -> SweepRecord:
    """J = 1, 2, 3, … on the mesh, half of that for the networks, and a tenth as a gap."""
    rows = []
    for number, values in enumerate(itertools.product(*keys.values()), 1):
        known = {"objective": 1.0 * number, "verified": 0.5 * number, "gap": 0.1 * number if gap else None}
        row = {**dict.fromkeys(COLUMNS), "name": str(number), "status": "done", **known}
        row |= {"status": "failed"} | dict.fromkeys(known) if number in failed else {}
        rows.append(row | {column(key): value for key, value in zip(keys, values, strict=True)})
    return SweepRecord("train", "densities", None, {key: tuple(map(str, own)) for key, own in keys.items()}, rows)


def points(figure: Figure, panel: int = 0) -> list[tuple[list[float], list[float]]]:
    """What the lines of a panel show."""
    lines = figure.axes[panel].lines
    return [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in lines]


def test_one_key_with_numbers() -> None:
    figure = sweep_curves(record({"field.layers": [8, 2, 4]}))
    assert points(figure) == [([2.0, 4.0, 8.0], [2.0, 3.0, 1.0]), ([2.0, 4.0, 8.0], [1.0, 1.5, 0.5])]
    ((x, y),) = points(figure, 1)
    assert (x, y) == ([2.0, 4.0, 8.0], pytest.approx([0.2, 0.3, 0.1]))
    assert figure.axes[0].get_xlabel() == "field.layers"
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["2", "4", "8"]
    assert figure.axes[0].get_xscale() == "linear"
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["$J$ of the mesh", "$J$ of the network itself"]
    figure.canvas.draw()


@pytest.mark.parametrize(("values", "scale"), [([0.01, 1.0], "log"), ([1.0, 2.0], "linear"), ([-1.0, 100.0], "linear")])
def test_values_of_several_sizes_stand_on_a_logarithmic_axis(values: list[float], scale: str) -> None:
    assert sweep_curves(record({"objective.kinetic": values})).axes[0].get_xscale() == scale


def test_what_is_no_number_stands_side_by_side() -> None:
    figure = sweep_curves(record({"field.hidden": [[16], [32, 32], 30 * [8]]}, gap=False))
    assert points(figure)[0] == ([0.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    names = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert names[:2] == ["[16]", "[32, 32]"]
    assert len(names[2]) < 25
    assert len(figure.axes) == 1  # no gap is known


@pytest.mark.parametrize("flags", [[True, False], ["a", 1]])
def test_truths_and_mixtures_are_no_numbers(flags: list[Any]) -> None:
    assert points(sweep_curves(record({"solver.limiter": flags})))[0][0] == [0.0, 1.0]


def test_several_keys_give_a_line_for_the_values_of_all_but_the_one_with_most_numbers() -> None:
    keys = {"field.hidden": [[4], [8], [4, 4], [8, 8]], "objective.kinetic": [0.1, 0.2, 0.3], "density.degree": [1, 2]}
    figure = sweep_curves(record(keys))
    assert figure.axes[0].get_xlabel() == "objective.kinetic"
    lines = points(figure)
    assert len(lines) == 2 * 8
    assert all(x == [0.1, 0.2, 0.3] for x, _ in lines)
    assert lines[0][1] == [1.0, 3.0, 5.0]
    assert lines[2][1] == [2.0, 4.0, 6.0]
    named = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "hidden = [4], degree = 1" in named
    assert len(named) == 2 + 8
    colours = {str(line.get_color()) for line in figure.axes[0].lines}
    assert len(colours) == 8
    figure.canvas.draw()


def test_failures_are_marked_and_no_value_is_made_up() -> None:
    figure = sweep_curves(record({"field.layers": [2, 4, 8]}, failed=[2]))
    mesh, network, crosses = points(figure)
    assert mesh == ([2.0, 8.0], [1.0, 3.0])
    assert network[0] == [2.0, 8.0]
    assert crosses == ([4.0], [0.0])
    assert figure.axes[0].get_legend().get_texts()[-1].get_text() == "failed"


def test_a_table_named_like_a_column_has_its_own() -> None:
    swept = record({"objective": [{"kinetic": 1}, {"kinetic": 2}]})
    assert swept.rows[0]["objective"] == 1.0
    assert points(sweep_curves(swept))[0] == ([0.0, 1.0], [1.0, 2.0])


def test_it_is_drawn_from_the_folder_alone(tmp_path: Path, here: Here) -> None:
    record({"field.layers": [2, 4, 8]}).save(tmp_path)
    (path,) = draw_run(tmp_path)
    assert path == tmp_path / "figures" / "sweep.png"
    assert np.ptp(imread(path)) > 0.5
    path.unlink()
    assert here("plot", tmp_path).stdout == f"{path}\n"
    assert path.exists()
    assert here("plot", tmp_path, "--format", "pdf").stdout.endswith("sweep.pdf\n")
    assert "is no run folder" in here("plot", tmp_path, "--animate", code=1).stderr


def test_nothing_is_drawn_where_nothing_has_come_to_its_end(tmp_path: Path) -> None:
    record({"field.layers": [2, 4]}, failed=[1, 2]).save(tmp_path)
    assert draw_run(tmp_path) == []


@pytest.mark.parametrize("text", ["", "[]", '{"keys": {}}', '{"keys": {"a": ["1"]}, "rows": [{}]}', "[" * 100_000])
def test_a_damaged_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(InputError, match=r"sweep\.json: cannot be read"):
        SweepRecord.load(tmp_path)
    with pytest.raises(FigureError, match="could not be drawn"):
        draw_run(tmp_path)


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    swept = record({"field.layers": [2, 4], "field.hidden": [[1], [2]]}, failed=[3])
    swept.save(tmp_path)
    assert SweepRecord.load(tmp_path) == swept
    json.loads((tmp_path / "sweep.json").read_text(), parse_constant=pytest.fail)
