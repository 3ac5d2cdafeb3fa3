"""Matplotlib as this program wants it: whatever the user has set for it, and without a trace afterwards.

Modules that draw are imported after this one, which brings Matplotlib up.
"""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from eulerian.base.errors import EulerianError, explained

type Kind = Literal["png", "pdf", "svg"]

_LOG = logging.getLogger("matplotlib")
_LONGEST = 400  # characters of a reason
_PAGE = 6.2  # inches, of figures for a paper
_page: ContextVar[float | None] = ContextVar("page", default=None)


@contextmanager
def _silent() -> Iterator[None]:
    """Not a word of what Matplotlib thinks of the user's settings: they are not ours."""
    level = _LOG.level
    _LOG.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        _LOG.setLevel(level)


def _start() -> None:
    """Import Matplotlib; where it does not bear the user's settings, without them."""
    with _silent():
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            raise
        except Exception:  # noqa: BLE001 - a backend that is not here, a file that cannot be read, ...
            for name in [name for name in sys.modules if name.startswith("matplotlib.")]:  # parts of one that is gone
                del sys.modules[name]
            _start_without_settings()


def _start_without_settings() -> None:
    """Import Matplotlib where it finds no settings: neither in the environment nor in the working folder."""
    from eulerian.base.signals import undisturbed  # starts MPI

    kept = {name: os.environ.pop(name) for name in ("MPLBACKEND", "MATPLOTLIBRC") if name in os.environ}
    here = os.open(".", os.O_RDONLY)
    try:
        with undisturbed(), tempfile.TemporaryDirectory() as folder:
            if "MPLCONFIGDIR" in os.environ:
                os.environ["MPLCONFIGDIR"] = os.path.abspath(os.environ["MPLCONFIGDIR"])
            os.environ["MATPLOTLIBRC"] = os.devnull  # a file without settings, so that no other is looked for
            os.chdir(folder)
            try:
                import matplotlib  # noqa: F401
            finally:
                os.fchdir(here)
    finally:
        os.close(here)
        os.environ.pop("MATPLOTLIBRC", None)
        os.environ.update(kept)


_start()

import matplotlib  # noqa: E402 - it has been brought up


@contextmanager
def drawing(kind: Kind = "png") -> Iterator[None]:
    """The settings that every figure is made and written with; the user's own are back afterwards."""
    size = 9 if kind == "png" else 8
    ours: dict[str, Any] = {
        "font.size": size,
        "axes.titlesize": size,
        "axes.labelsize": size,
        "legend.fontsize": size - 1,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "savefig.dpi": 200 if kind == "png" else 300,
        "pdf.fonttype": 42,  # TrueType: letters stay letters, and journals take it
        "svg.hashsalt": "eulerian",  # the same file every time
        "savefig.bbox": "tight",
        "savefig.pad_inches": 0.05,
    }
    # Whatever shows figures on a screen is left alone: nothing is shown.
    settings: Any = {
        name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")
    }
    page = _page.set(None if kind == "png" else _PAGE)
    try:
        with _silent(), matplotlib.rc_context():
            _set(settings | ours)
            yield
    finally:
        _page.reset(page)


def _set(settings: Any) -> None:
    with warnings.catch_warnings():  # of settings that Matplotlib itself is about to drop
        warnings.simplefilter("ignore")
        matplotlib.rcParams.update(settings)


def page_width() -> float | None:
    """How wide the page is that figures are being drawn for, in inches; None for a screen."""
    return _page.get()


def why(error: Exception) -> str:
    """Why a figure could not be drawn, in a line; others' programs, such as LaTeX, may say a lot."""
    text = " ".join((str(error) if isinstance(error, EulerianError) else explained(error)).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
