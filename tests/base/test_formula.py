"""The expression parser against NumPy, against Python's own grammar, and against what is not a formula."""

import pickle
import re
from math import erf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eulerian.base.errors import InputError
from eulerian.base.formula import FUNCTIONS, MAX_DEPTH, MAX_LENGTH, Expression

pytestmark = pytest.mark.one_process

repeatable = settings(derandomize=True, deadline=None, max_examples=400)

NAMES = ("x", "y", "z", "label")
X = x = np.array([-2.5, -1.0, -0.0, 0.0, 0.3, 1.0, 4.0])
y = X[::-1] / 3
VALUES = {"x": X, "y": y, "z": X**2, "label": 1.0}
PLAIN = sorted(set(FUNCTIONS) - {"min", "max", "where", "erf", "heaviside"})
ERF = np.vectorize(erf)


def evaluate(text: str) -> np.ndarray:
    return Expression.parse(text, NAMES, "some.key")(VALUES)


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("1", 1),
        ("1.", 1),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("2.5E+2*x", 250 * x),
        ("pi", np.pi),
        ("label", 1),
        ("-x**2", -(x**2)),
        ("(-x)**2", x**2),
        ("2**3**2", 512),
        ("2**-1", 0.5),
        ("1 - 2 - 3", -4),
        ("8/4/2", 1),
        ("2*3 + 4*5", 26),
        ("--x", x),
        ("+-+x", -x),
        ("x*-y", -x * y),
        (" x\n\t+ y ", x + y),
        ("(x**2 - 1)**2/4", (x**2 - 1) ** 2 / 4),
        ("exp(-x**2 - y**2)", np.exp(-(x**2) - y**2)),
        ("exp(-x**2/2)*heaviside(-x)", np.exp(-(x**2) / 2) * ((x < 0) + 0.5 * (x == 0))),
        ("sin(x) + cos(y) + tan(x)", np.sin(x) + np.cos(y) + np.tan(x)),
        ("sqrt(abs(x))", np.sqrt(np.abs(x))),
        ("log(1 + exp(-x))", np.log(1 + np.exp(-x))),
        ("sign(x)*tanh(y)", np.sign(x) * np.tanh(y)),
        ("erf(x)", ERF(x)),
        ("min(x, y)", np.minimum(x, y)),
        ("max(x, y, 0, x + y)", np.max([x, y, 0 * x, x + y], axis=0)),
        ("007 + 00.5*x - 1e-007", 7 + 0.5 * x - 1e-7),
        ("x < 0.3", x < 0.3),
        ("(x >= 0)*x", np.maximum(x, 0)),
        ("-1 <= x < y + 1 != 2", (x >= -1) & (x < y + 1) & (y != 1)),
        ("x == 1 or not x", (x == 1) | (x == 0)),
        ("x and y > 0 and 2", (x != 0) & (y > 0)),
        ("not x < 1", x >= 1),
        ("where(x < 0, -x, x**2)", np.where(x < 0, -x, x**2)),
        (
            "where(abs(x) <= 1 and y > 0, where(x, 1, 2), log(-1))",
            np.where((abs(x) <= 1) & (y > 0), 1.0 + (x == 0), np.nan),
        ),
        ("0/0 < 1", 0),
    ],
)
def test_values(text: str, exact: float | np.ndarray) -> None:
    np.testing.assert_allclose(evaluate(text), np.broadcast_to(exact, X.shape), rtol=1e-14, atol=1e-15)


class Oracle:
    """Arrays on which Python's own parser works with NumPy's functions: precedence comes from Python."""

    def __init__(self, value: object) -> None:
        self.value = np.asarray(value, dtype=np.float64)

    def __add__(self, other: "Oracle") -> "Oracle":
        return Oracle(np.add(self.value, other.value))

    def __sub__(self, other: "Oracle") -> "Oracle":
        return Oracle(np.subtract(self.value, other.value))

    def __mul__(self, other: "Oracle") -> "Oracle":
        return Oracle(np.multiply(self.value, other.value))

    def __truediv__(self, other: "Oracle") -> "Oracle":
        return Oracle(np.divide(self.value, other.value))

    def __pow__(self, other: "Oracle") -> "Oracle":
        return Oracle(np.power(self.value, other.value))

    def __neg__(self) -> "Oracle":
        return Oracle(np.negative(self.value))

    def __pos__(self) -> "Oracle":
        return self


def by_python(text: str) -> np.ndarray:
    number = re.compile(r"(?<![A-Za-z_])((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")
    scope: dict[str, object] = {name: Oracle(value) for name, value in VALUES.items()}
    scope |= {
        name: lambda a, function=function: Oracle(function(a.value))
        for name, function in ((name, getattr(np, name)) for name in PLAIN)
    }
    scope |= {
        "N": Oracle,
        "pi": Oracle(np.pi),
        "heaviside": lambda a: Oracle(np.heaviside(a.value, 0.5)),
        "min": lambda *a: Oracle(np.minimum.reduce(np.broadcast_arrays(*(b.value for b in a)))),
        "max": lambda *a: Oracle(np.maximum.reduce(np.broadcast_arrays(*(b.value for b in a)))),
    }
    with np.errstate(all="ignore"):
        result = eval(number.sub(r"N(\1)", text), {"__builtins__": {}}, scope)
    return np.broadcast_to(result.value, X.shape)


NUMBERS = st.one_of(
    st.integers(0, 10**6).map(str), st.floats(0, 1e300).map(repr), st.sampled_from([".5", "2.", "1e5", "3E-2", "0.0"])
)
ATOMS = st.one_of(NUMBERS, st.sampled_from([*NAMES, "pi"]))


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    one = st.sampled_from(sorted(set(FUNCTIONS) - {"min", "max", "where", "erf"}))
    return st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "**", " + ", " ** ", "*-", "**-"]), inner).map("".join),
        st.tuples(st.sampled_from(["-", "+", "- "]), inner).map("".join),
        inner.map("({})".format),
        st.tuples(one, inner).map(lambda pair: f"{pair[0]}({pair[1]})"),
        st.tuples(st.sampled_from(["min", "max"]), st.lists(inner, min_size=2, max_size=4)).map(
            lambda pair: f"{pair[0]}({', '.join(pair[1])})"
        ),
    )


FORMULAS = st.recursive(ATOMS, _larger, max_leaves=12)


@repeatable
@given(FORMULAS)
def test_agrees_with_python_and_numpy(text: str) -> None:
    np.testing.assert_array_equal(evaluate(text), by_python(text))


GARBAGE = st.one_of(
    st.text(),
    st.text(alphabet="xyz0123456789.eE+-*/()^, \nsincomaxpi_"),
    st.lists(st.sampled_from([*NAMES, *FUNCTIONS, "pi", "1", "2.5", "+", "-", "*", "/", "**", "(", ")", ","])).map(
        " ".join
    ),
    st.tuples(FORMULAS, st.integers(0, 30)).map(lambda pair: pair[0][: pair[1]]),
)


@repeatable
@given(GARBAGE)
def test_garbage_gives_input_errors_only(text: str) -> None:
    try:
        expression = Expression.parse(text, NAMES, "some.key")
    except InputError as error:
        found: InputError | Expression = error
    else:
        found = expression
        assert expression(VALUES).shape == X.shape
        assert set(expression.names) <= set(NAMES)
    assert isinstance(found, Expression) or (found.key == "some.key" and found.remedy)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("x +", "ends too early"),
        ("(x", "closing bracket"),
        ("x)", "unexpected ')' at column 2"),
        ("()", "unexpected '()' at column 1"),
        ("2 x", "unexpected 'x' at column 3"),
        ("2x", "unexpected 'x' at column 2"),
        ("x y", "unexpected 'y'"),
        ("x^2", "**"),
        ("x²", "'²'"),
        ("x, y", "unexpected 'x, y'"),
        ("* x", "unexpected '*'"),
        ("x ** ", "ends too early"),
        ("foo + 1", "'foo' at column 1"),
        ("1 + sine(x)", "did you mean 'sin'"),
        ("X", "'X'"),
        ("sin", "needs its arguments"),
        ("sin x", "unexpected 'x' at column 5"),
        ("sin()", "one argument, not 0"),
        ("sin(x, y)", "one argument"),
        ("min(x)", "two arguments"),
        ("max(x,)", "two arguments"),
        ("x(1)", "unexpected '('"),
        ("1e400", "too large"),
        ("1.2.3", "unexpected '.3'"),
        ("1j", "unexpected 'j'"),
        ("0x10", "unexpected 'x10'"),
        ("1_000", "unexpected '_000'"),
        ("x // 2", "unexpected '//' at column 3"),
        ("x % 2", "'%'"),
        ("x = 1", "'=' at column 3: equality is written =="),
        ("x.real", "unexpected 'x.real'"),
        ("x[0]", "'['"),
        ("'x'", '"\'"'),
        ("lambda: x", "unexpected ':'"),
        ("x if y else z", "unexpected 'x if y else z' at column 1"),
        ("__import__('os')", 'unexpected "\'" at column 12'),
        ("__import__(x)", "'__import__' at column 1"),
        ("().__class__", "unexpected '().__class__'"),
        ("True", "'True'"),
        ("...", "'...'"),
        ("x := 1", "':'"),
        ("sin(x=1)", "'=' at column 6"),
        ("sin(*x)", "'*x'"),
        ("x = = 1", "'='"),
        ("x < ", "ends too early"),
        ("x <> y", "'<>' at column 3"),
        ("(x) is (y)", "'is' at column 5"),
        ("x not in y", "'not' at column 3"),
        ("x << 2", "'<<'"),
        ("x ! y", "'!'"),
        ("not", "ends too early"),
        ("x & y", "'&'"),
        ("where(x, y)", "three arguments, not 2"),
        ("where", "needs its arguments"),
        ("await x", "'await x'"),
        ("(yield)", "'(yield)'"),
        ("x for x in y", "'for'"),
        ("{x}", "'{'"),
        ("1or 2", "'or' at column 2"),
        ("not " * 100 + "x", "nested"),
        ("x\0", "'\\x00'"),
        ("negative(x)", "'negative'"),
        ("x # comment", "'#'"),
        ("x; y", "';'"),
        ("１", "'１'"),
        ("(" * 1000, "nested"),
        ("-" * 1000 + "x", "nested"),
        ("x**" * 100 + "x", "nested"),
        ("sin(" * 60 + "x" + ")" * 60, "nested"),
        ("x" + "+x" * MAX_LENGTH, "characters"),
    ],
)
def test_refuses(text: str, fragment: str) -> None:
    with pytest.raises(InputError) as caught:
        Expression.parse(text, NAMES, "density.initial.0.value")
    assert caught.value.key == "density.initial.0.value"
    assert fragment in str(caught.value)
    assert "x, y, z, label" in str(caught.value)
    assert "heaviside" in str(caught.value)


@pytest.mark.parametrize("value", [None, 3, 2.5, True, ["x"]])
def test_refuses_what_is_not_a_text(value: object) -> None:
    with pytest.raises(InputError, match=r"some\.key"):
        Expression.parse(value, NAMES, "some.key")  # type: ignore[arg-type]


def test_unknown_variables_depend_on_the_dimension() -> None:
    Expression.parse("x*y", ("x", "y"), "k")
    with pytest.raises(InputError, match=r"'z'.*variables x, y;"):
        Expression.parse("x*z", ("x", "y"), "k")
    with pytest.raises(InputError, match="variables none"):
        Expression.parse("x", (), "k")


@pytest.mark.parametrize("text", ["9**9**9**9", "exp(exp(exp(exp(x))))", "1e308*1e308", "x**x**x**x", "tan(1e308*9)"])
def test_numbers_stay_float64(text: str) -> None:
    assert evaluate(text).dtype == np.float64


@pytest.mark.parametrize(("text", "exact"), [("1/0", np.inf), ("-1/0", -np.inf), ("0/0", np.nan), ("log(-1)", np.nan)])
def test_no_warning_where_a_value_is_not_finite(text: str, exact: float) -> None:
    np.testing.assert_array_equal(evaluate(text), np.full(X.shape, exact))


def test_long_and_deep_formulas_within_the_limits() -> None:
    n = MAX_LENGTH // 2 - 1
    np.testing.assert_allclose(evaluate("x" + "+x" * n), (n + 1) * X)
    depth = MAX_DEPTH - 1
    np.testing.assert_array_equal(evaluate("(" * depth + "x" + ")" * depth), X)


def test_broadcasts_values() -> None:
    expression = Expression.parse("x + 10*y", ("x", "y"), "k")
    np.testing.assert_array_equal(
        expression({"x": np.arange(3.0), "y": np.array([[1], [2]])}), [[10, 11, 12], [20, 21, 22]]
    )
    assert Expression.parse("2", ("x",), "k")({"x": np.zeros((4, 5))}).shape == (4, 5)
    assert Expression.parse("2*x", ("x",), "k")({"x": 3}) == 6.0
    assert Expression.parse("2", (), "k")({}) == 2.0
    assert Expression.parse("x", ("x",), "k")({"x": np.zeros((0, 2))}).shape == (0, 2)


def test_result_is_a_fresh_writable_array() -> None:
    x = np.arange(3.0)
    for text in ("x", "1"):
        result = Expression.parse(text, ("x",), "k")({"x": x})
        result += 1
    np.testing.assert_array_equal(x, np.arange(3.0))


def test_is_a_value() -> None:
    one = Expression.parse("label*x + y*x", NAMES, "a")
    two = Expression.parse("label*x + y*x", NAMES, "b")
    assert one == two
    assert hash(one) == hash(two)
    assert one.text == "label*x + y*x"
    assert one.names == ("label", "x", "y")
    copy = pickle.loads(pickle.dumps(one))
    assert copy == one
    np.testing.assert_array_equal(copy(VALUES), one(VALUES))
