"""Parameters of tests of which there are fewer on several ranks."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def thinned(cases: Iterable[Any], kept: Collection[Any], three: Collection[Any] | None = None) -> list[Any]:
    """All cases for one process; on several ranks only the kept ones, and of these on three ranks only some.

    What a formula, a kernel or a solver does for each of many parameters is found out on one rank. What ranks add, a
    mesh that is cut and messages, is the same code for all of them. A tuple holds the values of several parameters.

    Args:
        cases: of one process.
        kept: cases of two ranks.
        three: cases of three ranks; None: those of two.
    """
    cases, three = list(cases), kept if three is None else three
    assert all(case in cases for case in kept), "a case that is kept is none of them"
    assert all(case in kept for case in three), "a case of three ranks is none of two"

    def parameter(case: Any) -> Any:
        if case in three:
            return case
        mark = pytest.mark.two_ranks if case in kept else pytest.mark.one_process
        return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=mark)

    return [parameter(case) for case in cases]
