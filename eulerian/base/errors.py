"""What can go wrong, by name."""

import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

# The remedy where a mesh file has no cells of the dimension that is wanted: most of these come from gmsh.
GMSH_SAVES = "gmsh saves only what has a physical group: give the {} one, or set Mesh.SaveAll = 1"


class EulerianError(Exception):
    """Root of every error that this package raises on purpose.

    Attributes:
        exit_code: of the command line.
        alone: the other ranks surely wait somewhere else.
    """

    exit_code = 2
    alone = False


class InputError(EulerianError):
    """The input is wrong: found before any computation, reported once, exit code 1.

    Args:
        what: one sentence on what is wrong.
        key: dotted configuration key or name of the argument or file at fault.
        value: the offending value.
        remedy: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, key: str | None = None, value: object = None, remedy: str | None = None) -> None:
        self.what, self.key, self.value, self.remedy = what, key, value, remedy
        parts = [f"{key}: {what}" if key else what]
        if value is not None:
            text = repr(value)
            parts.append(f"got {text if len(text) <= 200 else text[:200] + '…'}")
        message = "; ".join(parts)
        super().__init__(f"{message}. {remedy}" if remedy else message)

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel between ranks: rebuild from the parts, because the keywords are not positional.
        return partial(InputError, self.what, key=self.key, value=_plain(self.value), remedy=self.remedy), ()


class ComputationError(EulerianError):
    """The computation failed although the input was valid: exit code 2, what was computed is kept."""


class RejectedEvaluation(ComputationError):
    """A trial point at which J cannot be evaluated (too many time steps, overflow): +∞ to a line search.

    Args:
        what: why, in one sentence.
        key: what is at fault if that happens at the starting point already, where it is not the field.
        remedy: what the user can then do about it.
    """

    def __init__(self, what: str, *, key: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.key, self.remedy = key, remedy


class FigureError(ComputationError):
    """Figures that could not be drawn; others were.

    Args:
        drawn: the files written.
        failures: which figures failed and why, a line each.
        exit_code: of the command line.
    """

    def __init__(self, drawn: list[Path], failures: list[str], exit_code: int = 2) -> None:
        super().__init__(drawn, failures, exit_code)  # errors travel between ranks: rebuilt from these
        self.drawn, self.failures, self.exit_code = drawn, failures, exit_code

    def __str__(self) -> str:
        return "\n".join(self.failures)


class EulerianWarning(UserWarning):
    """The numbers are right, but perhaps not those that the user meant. Told on rank 0 only: see ``parallel.warn``."""


@contextmanager
def collected_warnings(
    tell: Callable[[str], object], overhear: Callable[[str], object] = lambda _text: None
) -> Iterator[None]:
    """Give the text of every ``EulerianWarning`` to ``tell``, once; other warnings go their way. Not collective.

    Args:
        tell: called with the texts.
        overhear: called with those of the other warnings that are shown, and where they come from.
    """
    found: set[str] = set()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=EulerianWarning)
        show = warnings.showwarning

        def hear(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if not issubclass(category, EulerianWarning):
                overhear(warnings.formatwarning(message, category, *place[:2]).rstrip())
                show(message, category, *place, **more)
            elif str(message) not in found:
                found.add(str(message))
                tell(str(message))

        warnings.showwarning = hear
        yield


def explained(error: BaseException, where: str = "") -> str:
    """An exception of any code in one line: kind, ``where`` it was, what it says, and the place.

    The place is the last one in code that is neither this package's nor a library's, if there is one: what a user can
    look at. Errors of the operating system and of memory say enough without.
    """
    kind = type(error).__name__ + (f" {where}" if where else "")
    if isinstance(error, OSError) and error.strerror:
        file = "" if error.filename is None else f": {error.filename}"
        return f"{kind}: {error.strerror}{file}"
    text = f"{kind}: {error}" if str(error) else kind
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or isinstance(error, MemoryError):
        return text
    place = next((frame for frame in reversed(frames) if not _of_a_library(frame.filename)), frames[-1])
    return f"{text} ({place.name}, {place.filename}:{place.lineno})"


def _of_a_library(file: str) -> bool:
    """Whether a file belongs to this package, to Python or to an installed library."""
    if file.startswith("<"):
        return True
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(Path(file).is_relative_to(folder) for folder in {*folders, str(Path(__file__).parent)})


def _plain(value: object) -> object:
    """``value`` itself where it is a plain literal, else its text, so that it can always be sent to another rank."""
    return value if value is None or isinstance(value, str | int | float | bool) else _Literal(repr(value))


class _Literal(str):
    """A text that shows without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
