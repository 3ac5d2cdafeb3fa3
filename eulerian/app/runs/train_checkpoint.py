"""A training after an iteration as a file, from which it can be continued. Not collective: for one rank.

The file is an ``.npz`` without pickle. Beside the state of the descent it holds all that the ``theta.npz`` of
a run does. The last two stay: whatever happens while one is written, there is another.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, final
from zipfile import BadZipFile

import numpy as np

from eulerian.app.runs.files import CHECKPOINT, LATEST, PREVIOUS, write_atomically
from eulerian.app.runs.run_files import mesh_arrays, mesh_from
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.frame import Frame
from eulerian.fields.theta_file import READOUT, THETA, frame_from, theta_arrays
from eulerian.optimise import Curvature, DescentState, LevelReport, Record, TrainingState
from eulerian.optimise.lbfgs_pairs import MEMORY
from eulerian.optimise.replay import Best, Evaluation, Iterate, Points
from eulerian.optimise.segment import longest_segment

FORMAT = 2

type Arrays = dict[str, np.ndarray[Any, Any]]
type Document = dict[str, Any]


@final
@dataclass(frozen=True)
class Checkpoint:
    """What a training needs to be continued, and what it was started with.

    Attributes:
        config: the resolved configuration, as TOML.
        method: what it trains on, ``densities`` or ``particles``.
        start: J at the very start and its parts, as they are reported at the end.
        theta: (L, p) where the training is.
        readout: (r,), or None where none is trained.
        frame: that θ is relative to, or None.
        state: of the training.
    """

    config: str
    method: str
    start: tuple[float, Mapping[str, float]]
    theta: Floats
    readout: Floats | None
    frame: Frame | None
    state: TrainingState

    def write(self, run: Path) -> None:
        """Write it into a run folder; the one before stays as the previous one.

        Raises:
            ComputationError: it cannot be written; then the one before is untouched.
        """
        latest = run / CHECKPOINT / LATEST

        def keep_previous() -> None:
            if latest.exists():
                latest.replace(latest.with_name(PREVIOUS))

        arrays = _arrays(self)
        # Not compressed: gradients hardly get smaller by it.
        write_atomically(latest, lambda file: np.savez(file, allow_pickle=False, **arrays), keep_previous)


def largest_checkpoint(n_params: int, max_iterations: int) -> int:
    """Bytes that a checkpoint of so many iterations takes at most, but for its text.

    Args:
        n_params: numbers in θ.
        max_iterations: of the training.
    """
    gradients = 2 * min(max_iterations + 1, longest_segment(n_params))  # trial points that are not accepted count too
    iterates = 1 + 2 * (3 + 2 * (MEMORY + 1))  # θ; then both iterates with their lowest ones and their points
    return 8 * n_params * (iterates + 2 * MEMORY + gradients)


def read_checkpoint(run: Path) -> Checkpoint | None:
    """The latest checkpoint of a run folder that can be read, or None where there is none at all.

    Raises:
        InputError: there are some, but none that can be read.
    """
    trouble: list[str] = []
    for name in (LATEST, PREVIOUS):
        path = run / CHECKPOINT / name
        try:
            if path.exists():
                return _read(path)
        except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, BadZipFile) as error:
            trouble.append(f"{name}: {type(error).__name__}: {error}")
    if trouble:
        raise InputError(
            f"none of the checkpoints can be read ({'; '.join(trouble)})",
            key=str(run / CHECKPOINT),
            remedy="Start anew with --overwrite.",
        )
    return None


def _read(path: Path) -> Checkpoint:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    document = json.loads(arrays["document"].tobytes().decode("utf-8"))
    if document["format"] != FORMAT:
        raise ValueError(f"is of format {document['format']}, and this version knows format {FORMAT}")
    return _checkpoint(document, arrays)


# -- to arrays, and back ---------------------------------------------------------------------------------------------


def _arrays(checkpoint: Checkpoint) -> Arrays:
    state = checkpoint.state
    descent = state.descent
    total, parts = checkpoint.start
    document = {
        "format": FORMAT,
        "config": checkpoint.config,
        "method": checkpoint.method,
        "start": {"total": total, "parts": dict(parts)},
        "training": {
            **_plain_fields(state),
            "records": [asdict(record) for record in state.records],
            "reports": [asdict(report) for report in state.reports],
        },
        "descent": {**_plain_fields(descent), "history": [asdict(record) for record in descent.history]},
        "answered": [each.gradient is not None for each in descent.replay],
    }
    arrays: Arrays = dict(theta_arrays(checkpoint.theta, checkpoint.readout, checkpoint.frame))
    arrays["document"] = np.frombuffer(json.dumps(document).encode("utf-8"), dtype=np.uint8)
    arrays |= dict(_iterate_arrays("began", descent.start)) | dict(_iterate_arrays("now", descent.current))
    if state.mesh is not None:
        arrays |= mesh_arrays(state.mesh)
    if descent.initial_hessian is not None:
        pairs = descent.initial_hessian
        arrays |= {"known_steps": pairs.steps, "known_slopes": pairs.slopes}
    arrays["answers"] = np.array([each.value for each in descent.replay])
    gradients = [each.gradient for each in descent.replay if each.gradient is not None]
    arrays["gradients"] = np.array(gradients).reshape(len(gradients), -1)
    return arrays


def _checkpoint(document: Document, arrays: Arrays) -> Checkpoint:
    training, descent = document["training"], document["descent"]
    gradients = iter(arrays["gradients"])
    replay = tuple(
        Evaluation(float(value), next(gradients) if has else None)
        for value, has in zip(arrays["answers"], document["answered"], strict=True)
    )
    pairs = Curvature(arrays["known_steps"], arrays["known_slopes"]) if "known_steps" in arrays else None
    descent |= {
        "start": _iterate("began", arrays),
        "current": _iterate("now", arrays),
        "initial_hessian": pairs,
        "replay": replay,
        "history": tuple(Record(**record) for record in descent["history"]),
    }
    training |= {
        "descent": DescentState(**descent),
        "records": tuple(Record(**record) for record in training["records"]),
        "reports": tuple(LevelReport(**report) for report in training["reports"]),
        "mesh": mesh_from(arrays),
    }
    return Checkpoint(
        document["config"],
        document["method"],
        (document["start"]["total"], document["start"]["parts"]),
        arrays[THETA],
        arrays.get(READOUT),
        frame_from(arrays),
        TrainingState(**training),
    )


def _plain_fields(state: TrainingState | DescentState) -> Document:
    """The numbers and the words of a state by name."""
    values = {field.name: getattr(state, field.name) for field in fields(state)}
    return {name: value for name, value in values.items() if isinstance(value, int | float | str)}


def _iterate_arrays(name: str, iterate: Iterate) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    yield f"{name}_theta", iterate.theta
    if iterate.best is not None:
        yield f"{name}_best_theta", iterate.best.theta
        yield f"{name}_best", np.array([iterate.best.value, iterate.best.gradient_norm])
    if iterate.verified is not None:
        lowest = iterate.verified
        yield f"{name}_verified_theta", lowest.theta
        yield f"{name}_verified", np.array([lowest.value, lowest.gradient_norm, lowest.verified])
    if iterate.points:
        yield f"{name}_points", np.array([theta for theta, _ in iterate.points])
        yield f"{name}_slopes", np.array([gradient for _, gradient in iterate.points])


def _iterate(name: str, arrays: Arrays) -> Iterate:
    best, verified = _best(f"{name}_best", arrays), _best(f"{name}_verified", arrays)
    points: Points = ()
    with suppress(KeyError):  # methods without L-BFGS pairs keep no points
        points = tuple(zip(arrays[f"{name}_points"], arrays[f"{name}_slopes"], strict=True))
    return Iterate(arrays[f"{name}_theta"], best, points, verified)


def _best(name: str, arrays: Arrays) -> Best | None:
    if name not in arrays:
        return None
    value, norm, *verified = arrays[name].tolist()
    return Best(value, arrays[f"{name}_theta"], norm, *verified)
