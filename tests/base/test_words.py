"""Numbers as messages say them."""

import math

import pytest

from eulerian.base.words import percent

pytestmark = pytest.mark.one_process


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.043, "4.3 %"), (5.8e-5, "0.0058 %"), (0.994, "99 %"), (0.9951, "100 %"), (1.7, "170 %"), (-2.5, "-250 %")],
)
def test_percent_has_two_digits_or_all_before_the_point(share: float, text: str) -> None:
    assert percent(share) == text


def test_percent_with_a_sign() -> None:
    assert (percent(0.01, "+"), percent(-12.34, "+")) == ("+1 %", "-1234 %")
    assert percent(math.nan) == "nan %"
