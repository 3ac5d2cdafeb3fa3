"""Tables for pandas, which is loaded where somebody asks for one, and need not be installed."""

from importlib import import_module
from typing import Any

from eulerian.base.errors import InputError


def data_frame(data: Any, instead: str, columns: list[str] | None = None) -> Any:
    """A ``pandas.DataFrame`` of what its constructor takes.

    Args:
        data: columns by name, or rows as dicts.
        instead: what to take where pandas is missing.
        columns: names, in order; None for those of the data.

    Raises:
        InputError: pandas is not installed.
    """
    try:
        frame = import_module("pandas").DataFrame
    except ImportError as error:
        what, remedy = "needs pandas, which cannot be imported", f"Install pandas, or take {instead}."
        raise InputError(what, key="to_pandas", remedy=remedy) from error
    return frame(data, columns=columns)
