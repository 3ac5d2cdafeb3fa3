"""`[optimiser]`: how J is minimised."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, Strict, StringConstraints, model_validator

from eulerian.app.config.schema import Says
from eulerian.app.config.values import Bounds, Count, NonNegative, Section, Whole, problem

# The types of PETSc's TAO that need no more than values and gradients.
Method = Literal["lmvm", "blmvm", "bqnls", "bqnktr", "bqnktl", "bncg", "cg", "owlqn", "nm"]

# Those of them that keep to bounds; the first is taken where none is named.
_BOUNDED = ("bqnls", "blmvm", "bqnktr", "bqnktl", "bncg")


def _any_case(word: str) -> str:
    return "".join(f"[{letter.upper()}{letter}]" for letter in word)


# What `_harmless` says, as a pattern.
_WORD = r"[A-Za-z0-9_.,+\-]"
_HARMLESS = (
    rf"^(?![\s\S]*{_any_case('python')})(?!\s*-({_any_case('options')}|{_any_case('prefix')}))"
    rf"(?![\s\S]*\s-({_any_case('options')}|{_any_case('prefix')}))\s*(-{_WORD}*(\s+{_WORD}+)*)?\s*$"
)


def _harmless(options: str) -> str:
    """Refuse options by which PETSc would run code, write files or read more options where nobody looks.

    Such are types that are implemented in Python, and viewers, which pass the names of their files to a shell.
    """
    for word in options.split():
        plain = re.fullmatch(r"[\w.,+-]+", word, re.ASCII)
        if not plain or "python" in word.lower() or word.lower().startswith(("-options", "-prefix")):
            remedy = "Names and values of letters, digits and . , + - _ are, unless they run code or name files."
            raise problem(f"PETSc's option {word[:80]!r} is not allowed here", remedy=remedy)
    return options


class Optimiser(Section):
    """How J is minimised.

    Attributes:
        method: a type of PETSc's TAO; by default the one that keeps to bounds where there are some.
        bounds: a lower and an upper bound of all numbers of θ, a trained readout's included; ±inf for none.
        petsc_options: options that are passed to PETSc as they are; none that run code or name files.
        max_iterations: at most this many iterations; with several levels, at most half as many on each.
        gradient_tolerance: a run converges where the norm of the gradient, relative to its first value, is this small.
        metric: how long a change of θ is: by the velocity that it makes, or by itself; "velocity" needs the method
            "lmvm" and a field that has its derivatives by θ, else it means "parameters".
        levels: meshes to train on, from coarse to fine; the last one is that of the configuration. The one
            before a mesh of degree 1 has degree 2 and cells four times as large, any other cells twice as large; a
            level ends when most of what it gains is its discretisation error, or little is left to be gained.
        stop: what ends a training before its limit, beside a gradient of zero: "gradient" nothing, "verified" a J of
            the network itself, by characteristics, that falls no more; the iterate where that is lowest is kept then.
    """

    model_config = ConfigDict(
        json_schema_extra={"dependentSchemas": {"bounds": {"properties": {"method": {"enum": list(_BOUNDED)}}}}}
    )

    method: Method = Field(
        default="lmvm",
        description='a TAO type that needs gradients only: "lmvm", "blmvm", "bncg", …',
        examples=["bncg"],
    )
    bounds: Bounds | None = Field(
        default=None,
        description="a lower and an upper bound of the numbers in θ, like [-1.0, 1.0] or [0.0, inf]",
        examples=[[-1.0, 1.0], [0.0, math.inf]],
    )
    petsc_options: Annotated[
        str,
        Strict(),
        StringConstraints(pattern=r"^\s*(-.*)?$", max_length=10_000),
        AfterValidator(_harmless),
        Says(pattern=_HARMLESS),
    ] = Field(
        default="",
        description='options for PETSc in quotes, like "-tao_ls_type armijo"',
        examples=["-tao_ls_type armijo"],
    )
    max_iterations: Whole = Field(
        default=100, description="the largest number of iterations, a whole number >= 0", examples=[200]
    )
    gradient_tolerance: NonNegative = Field(
        default=1e-6,
        description="the relative gradient norm to reach, a number >= 0",
        examples=[1e-4],
    )
    metric: Literal["velocity", "parameters"] = Field(
        default="velocity", description='"velocity" or "parameters"', examples=["parameters"]
    )
    levels: Count = Field(default=1, description="the number of meshes to train on, a whole number >= 1", examples=[2])
    stop: Literal["gradient", "verified"] = Field(
        default="gradient", description='"gradient" or "verified"', examples=["verified"]
    )

    @model_validator(mode="before")
    @classmethod
    def _choose_method(cls, tables: Any) -> Any:
        bounded = isinstance(tables, Mapping) and tables.get("bounds") is not None
        return {"method": _BOUNDED[0], **tables} if bounded else tables

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.bounds is not None and self.method not in _BOUNDED:
            remedy = f"Leave optimiser.method out, or take one of {', '.join(_BOUNDED)}."
            what = "is a method that keeps to no bounds, and optimiser.bounds gives some"
            raise problem(what, key="method", value=self.method, remedy=remedy)
        return self
