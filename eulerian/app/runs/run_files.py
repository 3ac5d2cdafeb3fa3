"""What a run folder says about its run; quick to load, for it stands on nothing but files. Not collective."""

import json
from pathlib import Path
from typing import Any

from eulerian.app.config.read import read_tables
from eulerian.app.runs.files import CONFIG, RESULT, THETA, is_run
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.theta_file import read_theta

type Tables = dict[str, Any]


def require_run(folder: Path) -> None:
    """Check that a folder holds a run with its parameters. Not collective.

    Raises:
        InputError: it does not.
    """
    if not is_run(folder):
        raise InputError("is no run folder", key=str(folder), remedy=f"A run folder holds a {RESULT} and a {THETA}.")
    if not (folder / THETA).is_file():
        what = f"holds no {THETA}: the run is not complete"
        raise InputError(what, key=str(folder), remedy="Let `eulerian train` run to its end.")


def ideal_field(tables: Tables, n_labels: int) -> Tables:
    """The field whose θ ``ideal`` writes, of a run's configuration."""
    kept = {key: value for key, value in tables.get("field", {}).items() if key in ("layers", "horizon")}
    return {"kind": "free", **kept, "label_dependent": n_labels > 1}


def read_run(folder: Path) -> tuple[Tables, Tables, Floats, Floats]:
    """The configuration without the start of the run, ``result.json``, θ (L, p) and the readout. Not collective.

    Raises:
        InputError: one of the files is damaged.
    """
    try:
        tables = read_tables(folder / CONFIG)
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        if not isinstance(result["command"], str):
            raise TypeError(f"the command is {result['command']!r}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"is no complete run folder ({type(error).__name__}: {error})"
        raise InputError(what, key=str(folder), remedy="Run the command again.") from error
    # Where the run started from does not matter any more, and those files may be gone.
    tables.get("field", {}).pop("theta", None)
    for key in ("file", "columns", "label_column"):
        tables.get("particles", {}).pop(key, None)
    theta, readout = read_theta(folder / THETA, str(folder / THETA))
    return tables, result, theta, readout
