"""Formulas that a user writes in a configuration: parsed here by hand, never evaluated as Python.

Grammar, with Python's precedence (``-x**2`` is ``-(x**2)``, ``**`` groups to the right)::

    sum     = product (("+" | "-") product)*
    product = unary (("*" | "/") unary)*
    unary   = ("+" | "-") unary | power
    power   = atom ["**" unary]
    atom    = number | "pi" | variable | function "(" sum ("," sum)* ")" | "(" sum ")"

A formula becomes a postfix program, which a stack evaluates on whole arrays in float64: nothing can recurse deeply or
grow without bound, whatever the text.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eulerian.base.errors import InputError

type Array = NDArray[np.float64]

COORDINATES = ("x", "y", "z")

MAX_LENGTH = 2000
MAX_DEPTH = 50


def _erf(x: Array) -> Array:
    from scipy.special import erf  # costs a quarter of a second to load: only where a formula asks for it

    return np.asarray(erf(x), dtype=np.float64)


_ONE_ARGUMENT: dict[str, Callable[[Array], Array]] = {
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sign": np.sign,
    "tanh": np.tanh,
    "erf": _erf,
    "heaviside": lambda x: np.heaviside(x, 0.5),
    "negative": np.negative,
}
_TWO_ARGUMENTS: dict[str, Callable[[Array, Array], Array]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "**": np.power,
    "min": np.minimum,
    "max": np.maximum,
}
_CONSTANTS = {"pi": np.pi}


def _times(slope: ArrayLike, tangent: ArrayLike) -> Array:
    """Product in which nought wins over ∞ and NaN: √(x² + y²) has slope 0 at the origin, and so has x√x."""
    return np.where(np.equal(slope, 0.0) | np.equal(tangent, 0.0), 0.0, np.multiply(slope, tangent))


def _below(left: Array, right: Array) -> Array:
    """1 where left < right, 1/2 where they are equal, else 0."""
    return 0.5 * np.add(left < right, left <= right, dtype=np.float64)


# Derivatives by the argument x, f being the value.
_SLOPES: dict[str, Callable[[Array, Array], ArrayLike]] = {
    "sin": lambda x, _: np.cos(x),
    "cos": lambda x, _: -np.sin(x),
    "tan": lambda _, f: 1.0 + f * f,
    "exp": lambda _, f: f,
    "log": lambda x, _: 1.0 / x,
    "sqrt": lambda _, f: 0.5 / f,
    "abs": lambda x, _: np.sign(x),
    "sign": lambda *_: 0.0,
    "tanh": lambda _, f: 1.0 - f * f,
    "erf": lambda x, _: 2.0 / np.sqrt(np.pi) * np.exp(-x * x),
    "heaviside": lambda *_: 0.0,
    "negative": lambda *_: -1.0,
}
# Derivatives by both arguments x and y.
_PARTIALS: dict[str, Callable[[Array, Array, Array], tuple[ArrayLike, ArrayLike]]] = {
    "+": lambda *_: (1.0, 1.0),
    "-": lambda *_: (1.0, -1.0),
    "*": lambda x, y, _: (y, x),
    "/": lambda _, y, f: (1.0 / y, -f / y),
    "**": lambda x, y, f: (_times(y, x ** (y - 1.0)), _times(f, np.log(x))),
    "min": lambda x, y, _: (_below(x, y), _below(y, x)),
    "max": lambda x, y, _: (_below(y, x), _below(x, y)),
}
FUNCTIONS = (*(name for name in _ONE_ARGUMENT if name != "negative"), "min", "max")

_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)"
    r"|(?P<symbol>\*\*|[-+*/(),])"
    r"|(?P<bad>.)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Expression:
    """A formula in named variables; hashable, and a value that may travel between processes.

    Attributes:
        text: what the user wrote.
        names: the variables that really occur, in the order of first use.
        program: postfix form: numbers, variables and operations.
    """

    text: str
    names: tuple[str, ...]
    program: tuple[float | str, ...]

    @classmethod
    def parse(cls, text: str, variables: Sequence[str], key: str) -> Self:
        """Read a formula.

        Args:
            text: the formula.
            variables: the names it may use.
            key: the configuration key it comes from, for messages.

        Raises:
            InputError: what cannot be understood, with the column and the allowed names.
        """
        parser = _Parser(text, tuple(variables), key)
        program = parser.parse()
        names = (item for item in program if isinstance(item, str) and item in parser.variables)
        return cls(text, tuple(dict.fromkeys(names)), program)

    def __call__(self, values: Mapping[str, ArrayLike]) -> Array:
        """Evaluate, entry by entry, without warnings: ``log(-1)`` is NaN and ``1/0`` is infinite, as in NumPy.

        Args:
            values: arrays or numbers for at least the variables in ``names``; their shapes must broadcast together.

        Returns:
            An array of the broadcast shape of all values, also where the formula is constant.
        """
        arrays = {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}
        stack: list[Array] = []
        with np.errstate(all="ignore"):
            for item in self.program:
                if not isinstance(item, str):
                    stack.append(np.asarray(item, dtype=np.float64))
                elif item in _TWO_ARGUMENTS:
                    right, left = stack.pop(), stack.pop()
                    stack.append(_TWO_ARGUMENTS[item](left, right))
                elif item in _ONE_ARGUMENT:
                    stack.append(_ONE_ARGUMENT[item](stack.pop()))
                else:
                    stack.append(arrays[item])
        shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
        return np.array(np.broadcast_to(stack.pop(), shape))

    def gradient(self, values: Mapping[str, ArrayLike], names: Sequence[str]) -> tuple[Array, list[Array]]:
        """The value and its partial derivatives, entry by entry and without warnings, by differentiating forwards.

        At kinks: 0 for ``abs``, ``sign`` and ``heaviside``; ``min`` and ``max`` have the slope of the branch taken, the
        mean of both where they tie. 0·∞ in the chain rule is 0, so that a formula has a finite derivative wherever a
        smooth function of its kind would have one, like √(x² + y²) at the origin.

        Args:
            values: as for a call; other variables than ``names`` are constants.
            names: by what to differentiate; a name that the formula does not use has derivative 0.

        Returns:
            arrays of the broadcast shape of all values: the value, and one derivative for each name.
        """
        arrays = {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}
        stack: list[_Dual] = []
        with np.errstate(all="ignore"):
            for item in self.program:
                if not isinstance(item, str):
                    stack.append(_Dual(np.asarray(item, dtype=np.float64), {}))
                elif item in _TWO_ARGUMENTS:
                    right, left = stack.pop(), stack.pop()
                    value = _TWO_ARGUMENTS[item](left.value, right.value)
                    by_left, by_right = _PARTIALS[item](left.value, right.value, value)
                    stack.append(_Dual(value, _chain([(by_left, left), (by_right, right)])))
                elif item in _ONE_ARGUMENT:
                    inner = stack.pop()
                    value = _ONE_ARGUMENT[item](inner.value)
                    stack.append(_Dual(value, _chain([(_SLOPES[item](inner.value, value), inner)])))
                else:
                    stack.append(_Dual(arrays[item], {item: np.ones(())} if item in names else {}))
        shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
        result = stack.pop()
        tangents = [result.tangents.get(name, np.zeros(())) for name in names]
        return np.array(np.broadcast_to(result.value, shape)), [np.array(np.broadcast_to(t, shape)) for t in tangents]


@dataclass(frozen=True)
class _Dual:
    """A value with its derivatives by name; a name that is missing has derivative 0 everywhere."""

    value: Array
    tangents: dict[str, Array]


def _chain(parts: Sequence[tuple[ArrayLike, _Dual]]) -> dict[str, Array]:
    """Tangents of a function from its (slope, argument)."""
    total: dict[str, Array] = {}
    for slope, argument in parts:
        for name, tangent in argument.tangents.items():
            term = _times(slope, tangent)
            total[name] = total[name] + term if name in total else term
    return total


@dataclass(frozen=True)
class _Token:
    """One word of a formula: its kind (number, name, symbol or end), its text and where it starts."""

    kind: str
    text: str
    start: int


class _Parser:
    """One pass over one formula; the methods are the rules of the grammar."""

    def __init__(self, text: str, variables: tuple[str, ...], key: str) -> None:
        self.text, self.variables, self.key = text, variables, key
        self.program: list[float | str] = []
        self.depth = 0

    def parse(self) -> tuple[float | str, ...]:
        if not isinstance(self.text, str):
            raise InputError(
                "an expression is a text", key=self.key, value=self.text, remedy='Write it in quotes: "x".'
            )
        if len(self.text) > MAX_LENGTH:
            raise self.error(f"the expression has {len(self.text)} characters, more than {MAX_LENGTH}")
        if not self.text.strip():
            raise self.error("the expression is empty")
        self.tokens = self.tokenise()
        self.token = next(self.tokens)
        self.sum()
        if self.token.kind != "end":
            raise self.unexpected()
        return tuple(self.program)

    def tokenise(self) -> Iterator[_Token]:
        for match in _TOKEN.finditer(self.text):
            kind = match.lastgroup or "bad"
            if kind == "bad":
                hint = ": a power is written **" if match.group() == "^" else ""
                raise self.error(f"unexpected {match.group()!r} at column {match.start() + 1}{hint}")
            if kind != "space":
                yield _Token(kind, match.group(), match.start())
        while True:
            yield _Token("end", "", len(self.text))

    def advance(self) -> _Token:
        token, self.token = self.token, next(self.tokens)
        return token

    def accept(self, *symbols: str) -> str | None:
        """The next symbol if it is one of these, else nothing is consumed."""
        return self.advance().text if self.token.kind == "symbol" and self.token.text in symbols else None

    def sum(self) -> None:
        self.product()
        while operation := self.accept("+", "-"):
            self.product()
            self.program.append(operation)

    def product(self) -> None:
        self.unary()
        while operation := self.accept("*", "/"):
            self.unary()
            self.program.append(operation)

    def unary(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"the expression is nested more than {MAX_DEPTH} deep")
        sign = self.accept("+", "-")
        if sign:
            self.unary()
        else:
            self.power()
        if sign == "-":
            self.program.append("negative")
        self.depth -= 1

    def power(self) -> None:
        self.atom()
        if self.accept("**"):
            self.unary()
            self.program.append("**")

    def atom(self) -> None:
        if self.token.kind == "number":
            self.number()
        elif self.token.kind == "name":
            self.name()
        elif self.accept("("):
            self.sum()
            self.close()
        else:
            raise self.unexpected()

    def close(self) -> None:
        if not self.accept(")"):
            raise self.unexpected("a closing bracket")

    def number(self) -> None:
        value = float(self.token.text)
        if not np.isfinite(value):
            raise self.error(f"the number {self.token.text!r} is too large")
        self.program.append(value)
        self.advance()

    def name(self) -> None:
        token = self.token
        if token.text not in (*self.variables, *_CONSTANTS, *FUNCTIONS):
            near = get_close_matches(token.text, [*self.variables, *_CONSTANTS, *FUNCTIONS], n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise self.error(f"unknown name {token.text!r} at column {token.start + 1}{hint}")
        self.advance()
        if token.text in FUNCTIONS:
            self.call(token)
        else:
            self.program.append(_CONSTANTS.get(token.text, token.text))

    def call(self, function: _Token) -> None:
        if not self.accept("("):
            raise self.error(f"the function {function.text!r} at column {function.start + 1} needs its arguments in ()")
        self.sum()
        count = 1
        while self.accept(","):
            self.sum()
            count += 1
            if function.text in _TWO_ARGUMENTS:
                self.program.append(function.text)
        self.close()
        if function.text in _ONE_ARGUMENT:
            if count != 1:
                raise self.error(f"{function.text}() takes one argument, not {count}")
            self.program.append(function.text)
        elif count < 2:
            raise self.error(f"{function.text}() takes two arguments or more")

    def unexpected(self, wanted: str = "") -> InputError:
        wanted = f", where {wanted} is expected" if wanted else ""
        if self.token.kind == "end":
            return self.error(f"the expression ends too early{wanted}")
        return self.error(f"unexpected {self.token.text!r} at column {self.token.start + 1}{wanted}")

    def error(self, what: str) -> InputError:
        variables = ", ".join(self.variables) or "none"
        remedy = f"Allowed: variables {variables}; pi; + - * / ** ( ); functions {', '.join(FUNCTIONS)}."
        return InputError(what, key=self.key, value=self.text, remedy=remedy)
