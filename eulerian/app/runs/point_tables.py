"""Tables of points as CSV files, and the summary of ``push``."""

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eulerian.app.runs.files import write_text
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError

KEY = "--output"


def claim_table(path: Path, overwrite: bool, *, summary: bool = False, source: Path | None = None) -> None:
    """Check that a table may be written; nothing is changed. Not collective.

    Args:
        path: of the CSV file.
        overwrite: it may exist.
        summary: a JSON file of the same name belongs to it.
        source: the file that the points come from, which is never replaced.

    Raises:
        InputError: it exists, or cannot be written.
    """
    remedy = f"Choose another file with {KEY}."
    targets = [path, path.with_suffix(".json")] if summary and path.name else [path]
    if len(set(targets)) < len(targets):
        raise InputError("the summary needs this name", key=KEY, value=str(path), remedy="Let the table end in .csv.")
    for target in targets:
        if target.is_dir():
            raise InputError("is a folder, not a file", key=KEY, value=str(target), remedy=remedy)
        if source is not None and target.exists() and source.exists() and target.samefile(source):
            raise InputError("would replace the samples", key=KEY, value=str(target), remedy=remedy)
        if os.path.lexists(target) and not overwrite:
            what = "exists already"
            raise InputError(what, key=KEY, value=str(target), remedy=f"Use --overwrite to replace it. {remedy}")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        what = "the folder does not exist or cannot be written"
        raise InputError(what, key=KEY, value=str(path.parent), remedy=remedy)


def write_table(path: Path, names: Sequence[str], columns: Sequence[Floats | Sequence[str]]) -> None:
    """Write columns of numbers and texts under their names, atomically. Not collective.

    Numbers keep all their digits; minus infinity, the logarithm of zero, is ``-inf``, and what is no number is empty.

    Raises:
        InputError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*([_cell(value) for value in column] for column in columns), strict=True))
    try:
        write_text(path, text.getvalue())
    except OSError as error:
        raise InputError(
            f"cannot be written ({error.strerror or error})", key=KEY, value=str(path), remedy="Choose another name."
        ) from error


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else repr(float(value))


def push_summary(document: Mapping[str, Any]) -> str:
    """What ``push`` found."""
    count, outside, log_density = document["points"], document["start_outside"], document["mean_log_density"]
    back = document["back"]
    moved = f"{count} points moved{' back' if back else ''}"
    lines = [f"{moved}; {document['end_outside']} of those that start in the domain end outside it"]
    if outside:
        left_out = "mean and accuracy leave" if "accuracy" in document else "the mean leaves"
        where = "start outside the domain, or in a hole of it"
        lines.append(f"Warning: {outside} of {count} points {where}: {left_out} them out, `outside` marks them")
    if log_density is not None:
        without = document["without_density"]
        rest = f", over the {count - outside - without} points" if without or outside else ""
        rest += " where the density is not zero" if without else ""
        lines.append(f"mean log-density at the {'start' if back else 'end'} {log_density:.6g}{rest}")
    if document.get("mean_log_likelihood") is not None:
        what = "mean log-likelihood of the target pulled back through the flow"
        lines.append(f"{what} {document['mean_log_likelihood']:.6g}")
    if "accuracy" in document:
        lines += _accuracy(document["accuracy"], document["classes"])
    return "\n".join([*lines, f"written to {document['output']}"])


def _accuracy(found: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    """The table of accuracies, one column for points and one for densities."""
    methods = ("points", "densities")
    lines = [f"{'accuracy':24}" + "".join(f"{name:>12}" for name in methods)]
    lines.append(f"{'  all':24}" + "".join(_share(found[name]["accuracy"]) for name in methods))
    for label, name in enumerate(classes):
        shares = [found[method].get("correct", [None] * len(classes))[label] for method in methods]
        lines.append(f"{f'  class {name}':24}" + "".join(map(_share, shares)))
    if "reason" in found["densities"]:
        lines.append(f"no accuracy of densities: {found['densities']['reason']}")
    return lines


def _share(value: float | None) -> str:
    return f"{'-':>12}" if value is None else f"{value:12.4f}"
