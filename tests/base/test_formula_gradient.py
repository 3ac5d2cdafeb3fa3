"""Derivatives of formulas: by hand, against finite differences of random formulas, and at kinks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eulerian.base.formula import Expression

pytestmark = pytest.mark.one_process

NAMES = ("x", "y", "label")
repeatable = settings(derandomize=True, deadline=None, max_examples=300)
rng = np.random.default_rng(0)
X, Y = x, y = rng.uniform(-2.0, 2.0, 40), rng.uniform(-2.0, 2.0, 40)
RADIUS = np.hypot(x, y)


def parse(text: str) -> Expression:
    return Expression.parse(text, NAMES, "some.key")


def slopes(text: str, *, at: dict[str, object] | None = None, names: tuple[str, ...] = ("x", "y")) -> list[np.ndarray]:
    values = {"x": X, "y": Y, "label": 1.0} if at is None else at
    value, gradient = parse(text).gradient(values, names)
    np.testing.assert_array_equal(value, parse(text)(values))
    assert all(g.shape == value.shape and g.dtype == np.float64 for g in gradient)
    return gradient


@pytest.mark.parametrize(
    ("text", "by_x", "by_y"),
    [
        ("3", 0, 0),
        ("x", 1, 0),
        ("-y", 0, -1),
        ("x + 2*y - x*y", 1 - y, 2 - x),
        ("x/y", 1 / y, -x / y**2),
        ("2/x", -2 / x**2, 0),
        ("x**2", 2 * x, 0),
        ("x**3*y**-2", 3 * x**2 / y**2, -2 * x**3 / y**3),
        ("2**x", np.log(2) * 2**x, 0),
        ("abs(x)**y", y * np.abs(x) ** (y - 1) * np.sign(x), np.log(np.abs(x)) * np.abs(x) ** y),
        ("x**(label + 1)", 2 * x, 0),
        ("sin(x) + cos(y)", np.cos(x), -np.sin(y)),
        ("tan(x/2)", 0.5 / np.cos(x / 2) ** 2, 0),
        ("exp(-x**2/2)", -x * np.exp(-(x**2) / 2), 0),
        ("log(x**2 + y**2)", 2 * x / RADIUS**2, 2 * y / RADIUS**2),
        ("sqrt(x**2 + y**2)", x / RADIUS, y / RADIUS),
        ("tanh(x*y)", y / np.cosh(x * y) ** 2, x / np.cosh(x * y) ** 2),
        ("erf(2*x)", 4 / np.sqrt(np.pi) * np.exp(-4 * x**2), 0),
        ("abs(x) + sign(x)*y + heaviside(y)*x", np.sign(x) + (y > 0), np.sign(x)),
        ("min(x, y) + 3*max(x, y)", np.where(x < y, 1, 3), np.where(x < y, 3, 1)),
        ("max(x, y, 0)", (x > y) & (x > 0), (y > x) & (y > 0)),
        ("(x**2 - 1)**2/4", x**3 - x, 0),
        ("(x < y)*x + (0 < y)", x < y, 0),
        ("(not x > 0 or y > 1)*y", 0, (x <= 0) | (y > 1)),
        ("where(x < y, x**2, 3*x*y)", np.where(x < y, 2 * x, 3 * y), np.where(x < y, 0, 3 * x)),
    ],
)
def test_by_hand(text: str, by_x: object, by_y: object) -> None:
    for computed, exact in zip(slopes(text), (by_x, by_y), strict=True):
        np.testing.assert_allclose(computed, np.broadcast_to(exact, X.shape), rtol=1e-13, atol=1e-14)


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Formulas that stay of moderate size: every function of the language occurs, none near a singularity."""
    one = ("sin({})", "cos({})", "tanh({})", "erf({})", "abs({})", "-({})", "({})**2", "exp(-({})**2)", "2**tanh({})")
    more = ("sqrt(1 + ({})**2)", "log(2 + ({})**2)", "1/(1 + ({})**2)", "tan(tanh({}))", "({})*heaviside({})")
    two = (
        "({}) + ({})",
        "({}) - ({})",
        "({})*({})",
        "({})/(1 + ({})**2)",
        "min({}, {})",
        "max({}, {}, 0.1)",
        "where({} < {}, x, y)",
    )
    powers = ("(1 + ({})**2)**sin({})", "sign({})*({})")
    single = st.tuples(st.sampled_from([*one, *more]), inner).map(lambda p: p[0].format(p[1], p[1]))
    double = st.tuples(st.sampled_from([*two, *powers]), inner, inner).map(lambda p: p[0].format(p[1], p[2]))
    return st.one_of(single, double)


FORMULAS = st.recursive(st.sampled_from(["x", "y", "label", "0.7", "2"]), _larger, max_leaves=8)


@repeatable
@given(FORMULAS)
def test_random_formulas_against_finite_differences(text: str) -> None:
    formula = parse(text)
    for name, slope in zip(("x", "y"), slopes(text), strict=True):

        def along(step: float, name: str = name) -> np.ndarray:
            values = {"x": X, "y": Y, "label": 1.0}
            return formula({**values, name: values[name] + step})

        coarse, fine = ((along(h) - along(-h)) / (2 * h) for h in (1e-4, 1e-5))
        bend = (along(1e-4) - 2 * along(0.0) + along(-1e-4)) / 1e-4
        size = 1.0 + np.abs(along(0.0)) + np.abs(fine)
        # Where a kink or a jump is within a step, or the formula oscillates, differences say nothing.
        smooth = (np.abs(coarse - fine) < 1e-4 * size) & (np.abs(bend) < 1e-2 * size)
        np.testing.assert_allclose((slope / size)[smooth], (fine / size)[smooth], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "by_x", "by_y"),
    [
        ("abs(x)", 0, 0),
        ("sign(x) + heaviside(y)", 0, 0),
        ("min(x, y)", 0.5, 0.5),
        ("max(x, 3*y)", 0.5, 1.5),
        ("max(x, 0)", 0.5, 0),
        ("max(x, y - 1, -1)", 1, 0),
        ("sqrt(x**2 + y**2)", 0, 0),
        ("x**0", 0, 0),
        ("x**1", 1, 0),
        ("x**2 + y**3", 0, 0),
        ("x**1.5 + x*sqrt(x)", 0, 0),
        ("x**(y + 2)", 0, 0),
        ("0**(x + 1)", 0, 0),
        ("x**0.5", np.inf, 0),
        ("sqrt(y)", 0, np.inf),
        ("0*sqrt(x)", 0, 0),
        ("where(x > 0, sqrt(x), y)", 0, 1),
        ("where(x == 0, x, 1/x)", 1, 0),
    ],
)
def test_kinks_and_ends_at_the_origin(text: str, by_x: float, by_y: float) -> None:
    assert [float(g) for g in slopes(text, at={"x": 0.0, "y": 0.0})] == [by_x, by_y]


def test_no_warning_where_nothing_is_finite() -> None:
    for text in ("exp(1/x)*0 + y", "log(x - 1)", "1/x", "x**-1", "tan(pi/2 + x)**400", "y*exp(exp(9))"):
        slopes(text, at={"x": 0.0, "y": 0.0})


def test_negative_bases_have_whole_powers() -> None:
    by_x, by_y = slopes("x**3 + x**(2 + 0*y)", at={"x": -2.0, "y": 1.0})
    assert (by_x, by_y) == (8.0, 0.0)
    assert np.isnan(slopes("x**y", at={"x": -2.0, "y": 2.0})[1])


def test_shapes_names_and_fresh_arrays() -> None:
    values = {"x": np.arange(3.0), "y": np.array([[1.0], [2.0]]), "label": 0.0}
    by_y, by_label, by_z = slopes("x*y", at=values, names=("y", "label", "z"))
    np.testing.assert_array_equal(by_y, [[0, 1, 2]] * 2)
    assert not by_label.any()
    assert not by_z.any()
    for text in ("x", "1"):
        value, (slope,) = parse(text).gradient({"x": values["x"]}, ("x",))
        value += 1.0
        slope += 1.0
    np.testing.assert_array_equal(values["x"], np.arange(3.0))
    empty = slopes("x*y", at={"x": np.zeros((0, 2)), "y": 1.0})
    assert [g.shape for g in empty] == [(0, 2)] * 2
