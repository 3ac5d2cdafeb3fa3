"""Bad input never gets in: a selection of the corpus of ``scripts/faults``, which holds all of it."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paths import SCRIPTS

FAULTS = SCRIPTS / "faults"
NAMES = ("harness", "bad_cases", "bad_commands", "bad_files", "bad_input")

pytestmark = pytest.mark.one_process


@pytest.fixture(scope="module")
def bad_input() -> Iterator[Any]:
    """The script; its modules are forgotten afterwards."""
    sys.path.insert(0, str(FAULTS))
    yield importlib.import_module("bad_input")
    sys.path.remove(str(FAULTS))
    for name in NAMES:
        sys.modules.pop(name, None)


def test_the_corpus_is_large_and_its_cases_differ(bad_input: Any) -> None:
    cases = bad_input.corpus()
    assert len(cases) >= 500
    assert len({(case.group, case.name) for case in cases}) == len(cases)


def test_a_verdict_can_be_bad(bad_input: Any, tmp_path: Path) -> None:
    case = bad_input.Case("x", "y", ("solve",), ("field.kind",))
    good = bad_input.Outcome(1, "eulerian solve: field.kind: unknown; got 'x'. Use another.\n", 1.0)
    silent = bad_input.Outcome(1, "", 1.0)
    assert bad_input.judge(case, [good, silent], tmp_path).survived
    for outcomes in (
        [bad_input.Outcome(0, good.said, 1.0)],
        [bad_input.Outcome(2, good.said, 1.0)],
        [bad_input.Outcome(1, good.said, 11.0)],
        [bad_input.Outcome(1, good.said.replace("kind", "size"), 1.0)],
        [bad_input.Outcome(1, good.said + "Traceback\n", 1.0)],
        [bad_input.Outcome(1, "eulerian solve: field.kind: unknown\n", 1.0)],
        [bad_input.Outcome(1, good.said, 1.0, hung=True)],
        [good, good],
        [good, bad_input.Outcome(0, "", 1.0)],
    ):
        assert not bad_input.judge(case, outcomes, tmp_path).survived
    (tmp_path / "executed").touch()
    assert not bad_input.judge(case, [good], tmp_path).survived


def test_refused(bad_input: Any) -> None:
    cases = bad_input.corpus()[::17]
    verdicts = bad_input.run_batch(cases, 1)
    assert [
        (case.name, verdict.note) for case, verdict in zip(cases, verdicts, strict=True) if not verdict.survived
    ] == []


@pytest.mark.mpi
def test_refused_on_two_ranks(bad_input: Any) -> None:
    cases = tuple(case for case in bad_input.corpus()[5::40] if not case.run)
    verdicts = bad_input.run_batch(cases, 2)
    assert [
        (case.name, verdict.note) for case, verdict in zip(cases, verdicts, strict=True) if not verdict.survived
    ] == []
