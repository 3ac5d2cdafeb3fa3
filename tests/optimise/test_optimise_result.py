"""What a minimisation returns: columns of its history, and how it shows itself."""

import dataclasses
import pickle
import sys

import numpy as np
import pytest

from eulerian.base.errors import InputError
from eulerian.optimise import History, OptimiseResult, Record

pytestmark = pytest.mark.one_process

RECORDS = [
    Record(0, 3.0, {"terminal": 2.0, "kinetic": 1.0}, 1.0, 1, 0.1),
    Record(1, np.inf, {}, 0.5, 3, 0.2),
    Record(2, 1.5, {"terminal": 0.5, "kinetic": 1.0}, 0.25, 4, 0.4, 2),
]


def test_a_history_is_a_sequence_of_records() -> None:
    history = History(RECORDS)
    assert len(history) == 3
    assert list(history) == RECORDS
    assert history == RECORDS
    assert history != RECORDS[:2]
    assert history[-1] is RECORDS[-1]
    assert history[1:] == RECORDS[1:]
    assert pickle.loads(pickle.dumps(history)) == history
    assert not History()


def test_columns() -> None:
    history = History(RECORDS)
    columns = history.columns()
    names = [
        "iteration",
        "total",
        "terminal",
        "kinetic",
        "gradient_norm",
        "evaluations",
        "seconds",
        "level",
        "verified",
    ]
    assert list(columns) == names
    np.testing.assert_array_equal(columns["total"], [3.0, np.inf, 1.5])
    np.testing.assert_array_equal(history["terminal"], [2.0, np.nan, 0.5])
    assert history["iteration"].dtype.kind == columns["level"].dtype.kind == "i"
    with pytest.raises(KeyError, match="the columns are iteration, total, terminal"):
        history["entropy"]
    assert all(len(column) == 0 for column in History().columns().values())


def test_pandas_is_asked_for_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"Install pandas, or take history\.columns"):
        History(RECORDS).to_pandas()


def test_a_result_shows_itself_in_one_line_and_in_a_table() -> None:
    theta = np.zeros((2, 3))
    result = OptimiseResult(theta, 1.5, 0.25, 2, "stopped", "stopped by <me>", History(RECORDS))
    assert repr(result) == "OptimiseResult(J = 1.5, stopped after 2 iterations, 0.4 s)"
    assert result.parts == RECORDS[-1].parts
    table = result._repr_html_()
    assert "<th>kinetic</th><td>1</td>" in table
    assert "stopped by &lt;me&gt;" in table
    elsewhere = dataclasses.replace(result, value=1.25, iterations=1)
    assert elsewhere.parts == {}
    assert "1 iteration, " in repr(elsewhere)
