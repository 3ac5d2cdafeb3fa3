"""Parameters of tests of which there are fewer on several ranks."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def thinned(cases: Iterable[Any], kept: Collection[Any]) -> list[Any]:
    """All cases for one process; on several ranks only the kept ones.

    What a formula, a kernel or a solver does for each of many parameters is found out on one rank. What ranks add, a
    mesh that is cut and messages, is the same code for all of them. A tuple holds the values of several parameters.
    """
    cases = list(cases)
    assert all(case in cases for case in kept), "a case that is kept is none of them"
    one = pytest.mark.one_process
    return [
        case if case in kept else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=one)
        for case in cases
    ]
