"""Formulas that a user writes in a configuration: Python's grammar with a short list of what is allowed, never run.

* numbers like ``2``, ``.5``, ``1e-3``; ``pi``; the variables x, y, z (and ``label`` in a terminal loss);
* ``+ - * / **`` and brackets, with Python's precedence: ``-x**2`` is ``-(x**2)``, ``2**3**2`` is ``2**9``;
* ``sin cos tan exp log sqrt abs sign tanh erf heaviside`` of one argument, ``min max`` of two or more;
* ``< <= > >= == !=``, also in chains like ``0 < x <= 1``, and ``and or not``: 1 where true, else 0; all but 0 is true;
* ``where(condition, a, b)``: a where the condition is true, else b.

Python's parser makes a tree, and the tree a postfix program, which a stack evaluates on arrays in float64:
nothing can recurse deeply or grow without bound, whatever the text.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from itertools import accumulate, pairwise
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


def _times(slope: ArrayLike, tangent: ArrayLike) -> Array:
    """Product in which zero wins over ∞ and NaN: √(x² + y²) has slope 0 at the origin, and so has x√x."""
    return np.where(np.equal(slope, 0.0) | np.equal(tangent, 0.0), 0.0, np.multiply(slope, tangent))


def _below(left: Array, right: Array) -> Array:
    """1 where left < right, 1/2 where they are equal, else 0."""
    return 0.5 * np.add(left < right, left <= right, dtype=np.float64)


def _truth(function: Callable[..., Array]) -> Callable[..., Array]:
    return lambda *values: np.multiply(function(*values), 1.0)


type _Operation = tuple[Callable[..., Array], Callable[..., Sequence[ArrayLike]]]

# By name: the function, and its derivatives by each argument, from the arguments and its value.
_FUNCTIONS: dict[str, _Operation] = {
    "sin": (np.sin, lambda x, _: [np.cos(x)]),
    "cos": (np.cos, lambda x, _: [-np.sin(x)]),
    "tan": (np.tan, lambda _, f: [1.0 + f * f]),
    "exp": (np.exp, lambda _, f: [f]),
    "log": (np.log, lambda x, _: [1.0 / x]),
    "sqrt": (np.sqrt, lambda _, f: [0.5 / f]),
    "abs": (np.abs, lambda x, _: [np.sign(x)]),
    "sign": (np.sign, lambda *_: [0.0]),
    "tanh": (np.tanh, lambda _, f: [1.0 - f * f]),
    "erf": (_erf, lambda x, _: [2.0 / np.sqrt(np.pi) * np.exp(-x * x)]),
    "heaviside": (lambda x: np.heaviside(x, 0.5), lambda *_: [0.0]),
    "min": (np.minimum, lambda x, y, _: [_below(x, y), _below(y, x)]),
    "max": (np.maximum, lambda x, y, _: [_below(y, x), _below(x, y)]),
    "where": (lambda c, x, y: np.where(c != 0.0, x, y), lambda c, *_: [0.0, c != 0.0, c == 0.0]),
}
_OPERATIONS: dict[str, _Operation] = _FUNCTIONS | {
    "+": (np.add, lambda *_: [1.0, 1.0]),
    "-": (np.subtract, lambda *_: [1.0, -1.0]),
    "*": (np.multiply, lambda x, y, _: [y, x]),
    "/": (np.divide, lambda _, y, f: [1.0 / y, -f / y]),
    "**": (np.power, lambda x, y, f: [_times(y, x ** (y - 1.0)), _times(f, np.log(x))]),
    "negative": (np.negative, lambda *_: [-1.0]),
    "not": (_truth(np.logical_not), lambda *_: [0.0]),
    "and": (_truth(np.logical_and), lambda *_: [0.0, 0.0]),
    "or": (_truth(np.logical_or), lambda *_: [0.0, 0.0]),
}
_COMPARISONS: dict[str, Callable[[Array, Array], Array]] = {
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal, "!=": np.not_equal,
}  # fmt: skip
_SYMBOLS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**", ast.USub: "negative", ast.Not: "not",
    ast.And: "and", ast.Or: "or",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
_CONSTANTS = {"pi": np.pi}
FUNCTIONS = tuple(_FUNCTIONS)

_STRANGE = re.compile(r"[^A-Za-z0-9_ \t\r\n.+\-*/(),<>=!]|(?<![<>=!])=(?!=)")
_HINTS = {"^": ": a power is written **", "=": ": equality is written =="}
_LIKE_A_NUMBER = re.compile(r"(?<![\w.])\.?[0-9](?:[eE][+-]|[\w.])*")
_NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WORD = re.compile(r"\w+|[^\w\s()]+|[()]")

# A number, a variable or an operation, with how many arguments that takes from the stack; a chain of comparisons is one
# operation, which evaluates what is in its middle only once.
type _Item = tuple[float | str, int]


@dataclass(frozen=True)
class Expression:
    """A formula in named variables; hashable, and a value that may travel between processes.

    Attributes:
        text: what the user wrote.
        names: the variables that really occur, in the order of first use.
        program: postfix form.
    """

    text: str
    names: tuple[str, ...]
    program: tuple[_Item, ...]

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
        program = _Reader(text, tuple(variables), key).program()
        names = (what for what, count in program if count == 0 and isinstance(what, str))
        return cls(text, tuple(dict.fromkeys(names)), program)

    def __call__(self, values: Mapping[str, ArrayLike]) -> Array:
        """Evaluate, entry by entry, without warnings: ``log(-1)`` is NaN and ``1/0`` is infinite, as in NumPy.

        Args:
            values: arrays or numbers for at least the variables in ``names``; their shapes must broadcast together.

        Returns:
            An array of the broadcast shape of all values, also where the formula is constant.
        """
        return self.gradient(values, ())[0]

    def gradient(self, values: Mapping[str, ArrayLike], names: Sequence[str]) -> tuple[Array, list[Array]]:
        """The value and its partial derivatives, entry by entry and without warnings, by differentiating forwards.

        At kinks and jumps: 0 for ``abs``, ``sign``, ``heaviside`` and all that is true or false; ``min`` and ``max``
        have the slope of the branch taken, the mean of both where they tie. 0·∞ in the chain rule is 0, so that a
        formula has a finite derivative wherever a smooth function of its kind would have one, like √(x² + y²) at the
        origin.

        Args:
            values: as for a call; other variables than ``names`` are constants.
            names: by what to differentiate; a name that the formula does not use has derivative 0.

        Returns:
            arrays of the broadcast shape of all values: the value, and one derivative for each name.
        """
        arrays = {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}
        stack: list[_Dual] = []
        with np.errstate(all="ignore"):
            for what, count in self.program:
                if isinstance(what, float):
                    stack.append(_Dual(np.asarray(what), {}))
                elif count == 0:
                    stack.append(_Dual(arrays[what], {what: np.ones(())} if what in names else {}))
                else:
                    stack[-count:] = [_applied(what, stack[-count:])]
        shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
        (result,) = stack
        tangents = [result.tangents.get(name, np.zeros(())) for name in names]
        return np.array(np.broadcast_to(result.value, shape)), [np.array(np.broadcast_to(t, shape)) for t in tangents]


@dataclass(frozen=True)
class _Dual:
    """A value with its derivatives by name; a name that is missing has derivative 0 everywhere."""

    value: Array
    tangents: dict[str, Array]


def _applied(name: str, arguments: Sequence[_Dual]) -> _Dual:
    """An operation on values with derivatives."""
    values = [argument.value for argument in arguments]
    if name not in _OPERATIONS:
        pairs = zip(name.split(), pairwise(values), strict=True)
        return _Dual(_truth(lambda *each: reduce(np.logical_and, each))(*(_COMPARISONS[c](*p) for c, p in pairs)), {})
    function, slopes = _OPERATIONS[name]
    value, total = function(*values), dict[str, Array]()
    if any(argument.tangents for argument in arguments):
        for slope, argument in zip(slopes(*values, value), arguments, strict=True):
            for variable, tangent in argument.tangents.items():
                term = _times(slope, tangent)
                total[variable] = total[variable] + term if variable in total else term
    return _Dual(value, total)


class _Reader:
    """From one text to its program; what is not in the list of what is allowed is refused, with its place."""

    def __init__(self, text: str, variables: tuple[str, ...], key: str) -> None:
        self.text, self.variables, self.key = text, variables, key

    def program(self) -> tuple[_Item, ...]:
        if not isinstance(self.text, str):
            raise InputError(
                "an expression is a text", key=self.key, value=self.text, remedy='Write it in quotes: "x".'
            )
        if len(self.text) > MAX_LENGTH:
            raise self.error(f"the expression has {len(self.text)} characters, more than {MAX_LENGTH}")
        if not self.text.strip():
            raise self.error("the expression is empty")
        if strange := _STRANGE.search(self.text):
            raise self.unexpected(strange[0], strange.start(), _HINTS.get(strange[0], ""))
        self.require_brackets()
        return tuple(self.items(self.tree(), 0))

    def require_brackets(self) -> None:
        """Every bracket is closed, and not too many are open at a time: what recurses here and in Python is bounded."""
        levels = list(accumulate({"(": 1, ")": -1}.get(character, 0) for character in self.text))
        if max(levels) > MAX_DEPTH:
            raise self.nested()
        if min(levels) < 0:
            raise self.unexpected(")", levels.index(-1))
        if levels[-1] > 0:
            raise self.error("the expression ends too early, where a closing bracket is expected")

    def tree(self) -> ast.expr:
        # Columns stay those of the user's text. Python takes no line breaks, and no zeros before an integer.
        text = _LIKE_A_NUMBER.sub(self.number, re.sub(r"\s", " ", self.text))
        self.shift = len(text) - len(text.lstrip())
        try:
            return ast.parse(text.strip(), mode="eval").body
        except (MemoryError, RecursionError):
            raise self.nested() from None
        except SyntaxError as error:
            word = _WORD.search(text, self.shift + error.offset - 1) if error.offset else None
            if word is None:
                raise self.error("the expression ends too early") from None
            raise self.unexpected(word[0], word.start()) from None

    def number(self, found: re.Match[str]) -> str:
        """What begins like a number, if it is one."""
        plain = _NUMBER.match(found[0])
        end = plain.end() if plain else 0
        if end < len(found[0]):
            raise self.unexpected(found[0][end:], found.start() + end)
        if not np.isfinite(float(found[0])):
            raise self.error(f"the number {found[0]!r} is too large")
        digits = found[0].lstrip("0")
        return digits.rjust(end) if digits[:1].isdigit() else found[0]

    def items(self, node: ast.expr, depth: int) -> Iterator[_Item]:
        """Signs and exponents stand in one another without brackets: ``depth`` is how many do."""
        if depth > MAX_DEPTH:
            raise self.nested()
        later: list[ast.BinOp] = []
        while isinstance(node, ast.BinOp):  # a loop: a sum may have a thousand terms, each to the right of all others
            later.append(node)
            node = node.left
        yield from self.operand(node, depth)
        for each in reversed(later):
            symbol = self.symbol(each.op, each.left)
            yield from self.items(each.right, depth + (symbol == "**"))
            yield symbol, 2

    def operand(self, node: ast.expr, depth: int) -> Iterator[_Item]:
        match node:
            case ast.Constant(value=float() | int(), kind=None) if not isinstance(node.value, bool):
                yield float(self.source(node)), 0
            case ast.Name(id=name):
                self.require_allowed(node)
                if name in FUNCTIONS:
                    what = f"the function {name!r} at column {self.column(node)} needs its arguments in ()"
                    raise self.error(what)
                yield _CONSTANTS.get(name, name), 0
            case ast.UnaryOp():
                yield from self.items(node.operand, depth + 1)
                if not isinstance(node.op, ast.UAdd):
                    yield self.symbol(node.op, node), 1
            case ast.BoolOp():
                yield from self.folded(self.symbol(node.op, node), node.values, depth)
            case ast.Compare():
                terms = [node.left, *node.comparators]
                for term in terms:
                    yield from self.items(term, depth)
                yield " ".join(map(self.symbol, node.ops, terms)), len(terms)
            case ast.Call(func=ast.Name() as function):
                yield from self.call(function, node.args, depth)
            case _:
                raise self.unexpected(self.source(node), self.column(node) - 1)

    def call(self, function: ast.Name, arguments: list[ast.expr], depth: int) -> Iterator[_Item]:
        name, count = function.id, len(arguments)
        self.require_allowed(function)
        if name not in FUNCTIONS:
            raise self.unexpected("(", self.text.index("(", self.column(function)))
        many, wanted = name in ("min", "max"), "three arguments" if name == "where" else "one argument"
        if count < 2 if many else count != (3 if name == "where" else 1):
            raise self.error(f"{name}() takes {'two arguments or more' if many else f'{wanted}, not {count}'}")
        if many:
            yield from self.folded(name, arguments, depth)
            return
        for argument in arguments:
            yield from self.items(argument, depth)
        yield name, count

    def folded(self, name: str, arguments: list[ast.expr], depth: int) -> Iterator[_Item]:
        """An operation of two arguments, from the left on all of them."""
        for number, argument in enumerate(arguments):
            yield from self.items(argument, depth)
            if number > 0:
                yield name, 2

    def require_allowed(self, node: ast.Name) -> None:
        allowed = [*self.variables, *_CONSTANTS, *FUNCTIONS]
        if node.id not in allowed:
            near = get_close_matches(node.id, allowed, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise self.error(f"unknown name {node.id!r} at column {self.column(node)}{hint}")

    def symbol(self, operator: ast.AST, left: ast.expr) -> str:
        """An operator's name in programs; what is to its left gives the place of an unknown one."""
        if type(operator) not in _SYMBOLS:
            rest = self.text[self.shift + (left.end_col_offset or 0) :]
            start = len(self.text) - len(rest.lstrip(") \t\r\n"))
            raise self.unexpected(_WORD.findall(self.text[start:])[0], start)
        return _SYMBOLS[type(operator)]

    def column(self, node: ast.expr) -> int:
        return self.shift + node.col_offset + 1

    def source(self, node: ast.expr) -> str:
        return self.text[self.shift + node.col_offset : self.shift + (node.end_col_offset or 0)]

    def unexpected(self, what: str, start: int, hint: str = "") -> InputError:
        return self.error(f"unexpected {what!r} at column {start + 1}{hint}")

    def nested(self) -> InputError:
        return self.error(f"the expression is nested more than {MAX_DEPTH} deep")

    def error(self, what: str) -> InputError:
        variables = ", ".join(self.variables) or "none"
        allowed = f"variables {variables}; pi; + - * / ** ( ); < <= > >= == != and or not"
        return InputError(
            what, key=self.key, value=self.text, remedy=f"Allowed: {allowed}; functions {', '.join(FUNCTIONS)}."
        )
