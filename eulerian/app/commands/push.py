"""`eulerian push`: new points through the flow of a run."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import final

from mpi4py import MPI

import numpy as np

from eulerian.analysis.classification import (
    Classification,
    has_readout,
    measure_regions,
    most_probable,
    posterior_probabilities,
    readout_probabilities,
)
from eulerian.app.commands.command import SILENT
from eulerian.app.commands.loaded_run import LABEL, LoadedRun, load_trained
from eulerian.app.runs.class_regions import ClassifiedPoints
from eulerian.app.runs.densities import draw_here
from eulerian.app.runs.files import CLASSES, FIGURES, PUSHED_POINTS, write_text
from eulerian.app.runs.folder import RunFolder
from eulerian.app.runs.point_tables import claim_table, push_summary, write_table
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.result import Document, plain
from eulerian.app.runs.run_files import require_run
from eulerian.base.arrays import Floats, Ints
from eulerian.base.errors import ComputationError, InputError
from eulerian.base.parallel import agreed, gather_rows, on_root
from eulerian.density.csv_samples import SampleTable, class_key, kernel_estimates, read_samples
from eulerian.density.gathered import GatheredDensity
from eulerian.density.projection import project_shapes
from eulerian.fields.piecewise import PiecewiseField
from eulerian.particles.flow import carry_back, carry_density
from eulerian.particles.sample import share

type Columns = tuple[str | int, ...]

# What the reader of samples calls its keys, as options.
_OPTIONS = {"samples.file": "--samples", "samples.columns": "--columns", "samples.label_column": "--label-column"}


def run_push(
    folder: Path,
    file: Path,
    comm: MPI.Comm | None = None,
    *,
    columns: Columns | None = None,
    label_column: str | int | None = None,
    output: Path | None = None,
    overwrite: bool = False,
    overrides: tuple[str, ...] = (),
    python: bool = True,
    progress: Progress = SILENT,
) -> Document:
    """Move the points of a CSV file through a run's flow; write where they end, and what they are. **Collective**.

    The table has a row for each point, in the file's order: coordinates at time T, the label if it is known, whether
    the point started outside the domain (``true`` or ``false``), the logarithm of the total density Σ_y ρ_y(T) there
    (−inf where it is zero), for runs with a target of kl the log-likelihood log ρ*(x(T)) + ∫div v dt: the target's
    density pulled back through the flow to where the point started (log_prob of a normalising flow; where labels are
    known, of the point and its label together). With several labels there are their probabilities and the most probable
    one (empty where all densities are zero). Beside it lies a JSON file with the summary that is returned. Points that
    start outside, or in a hole, are moved like the others, but nothing was trained there: the means and the accuracies
    leave them out.

    Args:
        folder: of the run.
        file: the points.
        comm: who shares the work, everybody by default.
        columns: the file's coordinates; by default those of the run's own samples, else x, y, z.
        label_column: the file's classes; by default those of the run's own samples, else ``label``, if it is there.
        output: the table; ``pushed_<name of the file>.csv`` in the run folder by default.
        overwrite: replace the table, if it exists.
        overrides: ``KEY=VALUE`` for keys of ``[particles]``, which say how points move in time.
        python: the run's field may be Python code of the user's.
        progress: where messages go.

    Raises:
        InputError: the run or the points cannot be used, or the table exists.
        ComputationError: points are carried to infinity.
    """
    comm = MPI.COMM_WORLD if comm is None else comm
    table = folder / f"pushed_{file.stem}.csv" if output is None else output
    on_root(comm, lambda: require_run(folder))
    on_root(comm, lambda: claim_table(table, overwrite, summary=True, source=file))
    run = load_trained(folder, comm, overrides, python=python)
    samples, labelled = on_root(comm, lambda: _read(run, file, columns, label_column))
    moved = _move(run, samples, labelled, comm)
    document: Document = {
        "command": "push",
        "run": str(folder),
        "samples": str(file),
        "output": str(table),
        "classes": run.classes,
        **_numbers(moved, comm),
    }
    if labelled and len(run.classes) > 1:
        document["accuracy"] = {
            "points": _told(_by_points(moved, samples, comm, len(run.classes))),
            "densities": _by_densities(run, samples, moved, comm),
        }
    document = comm.bcast(plain(document), 0)
    names, cells = _table(run, samples, labelled, moved, comm)

    def write() -> None:
        write_table(table, names, cells)
        write_text(table.with_suffix(".json"), json.dumps(document, indent=2, allow_nan=False) + "\n")

    on_root(comm, write)
    progress.say(push_summary(document))
    if labelled and on_root(comm, (folder / FIGURES / CLASSES).is_file):
        _show_classes(run, samples, moved, comm)
    return document


@final
@dataclass(frozen=True)
class _Moved:
    """This rank's points at time T.

    Attributes:
        rows: of the file.
        x: (n, dim).
        started_inside: (n,) whether they lay in the domain at time 0.
        inside: (n,) whether they lie in it now.
        log_density: (n, K).
        probabilities: (n, K); NaN where they are unknown.
        log_likelihood: (n,) of the target pulled back, or None without one.
    """

    rows: slice
    x: Floats
    started_inside: np.ndarray[tuple[int], np.dtype[np.bool_]]
    inside: np.ndarray[tuple[int], np.dtype[np.bool_]]
    log_density: Floats
    probabilities: Floats
    log_likelihood: Floats | None

    @property
    def log_total(self) -> Floats:
        """Logarithm of the density of all labels together, (n,)."""
        return np.asarray(np.logaddexp.reduce(self.log_density, axis=1))


# -- reading ---------------------------------------------------------------------------------------------------------


def _read(
    run: LoadedRun, file: Path, columns: Columns | None, label_column: str | int | None
) -> tuple[SampleTable, bool]:
    """The points with the run's labels, and whether they have any. Not collective."""
    dim, own = run.problem.density_space.dim, run.samples_term
    chosen = columns or (run.axes if own is None else own.columns)
    if len(chosen) != dim:
        remedy = "Name one column per axis with --columns."
        raise InputError(f"needs {dim} columns, one per axis", key="--columns", value=list(chosen), remedy=remedy)
    classes = label_column
    if classes is None:
        classes = LABEL if own is None or own.label_column is None else own.label_column
    try:
        samples = read_samples(file, chosen, classes)
    except InputError as error:
        if label_column is not None or error.key != "samples.label_column":
            option = _OPTIONS.get(error.key or "", error.key)
            raise InputError(error.what, key=option, value=error.value, remedy=error.remedy) from None
        if run.config.field.label_dependent:
            what = "the field depends on the label, so it moves labelled points only"
            raise InputError(what, key="--label-column", value=classes, remedy=error.remedy) from None
        return read_samples(file, chosen), False
    known = {class_key(name): label for label, name in enumerate(run.classes)}
    unknown = [name for name in samples.classes if class_key(name) not in known]
    if unknown:
        remedy = f"The classes of the run are: {', '.join(run.classes)}."
        raise InputError("a class that the run does not know", key="--label-column", value=unknown[0], remedy=remedy)
    numbers = np.array([known[class_key(name)] for name in samples.classes], dtype=np.int32)
    return SampleTable(samples.points, numbers[samples.labels], run.classes), True


# -- moving ----------------------------------------------------------------------------------------------------------


def _move(run: LoadedRun, samples: SampleTable, labelled: bool, comm: MPI.Comm) -> _Moved:
    """This rank's share of the points, moved. Collective."""
    problem, field = run.problem, run.field_anywhere()
    start = GatheredDensity.gather(problem.density_space, problem.initial_density).non_negative()
    rows = share(len(samples.points), comm)
    x, labels = samples.points[rows], samples.labels[rows]
    end, change = carry_density(field, run.layers, x, labels, run.scheme, comm)
    if not comm.allreduce(bool(np.all(np.isfinite(end))), MPI.LAND):
        raise ComputationError("the flow carries points to infinity")
    log_density = _log(start.values(x)) + change[:, None]
    if field.label_dependent:
        log_density = _by_label(run, field, start, end, labels, log_density, comm)
    loss = problem.terminal.loss
    if loss is not None and has_readout(loss):
        probabilities = readout_probabilities(loss, end, run.readout)
    else:
        probabilities = posterior_probabilities(log_density)
    likelihood = _log_likelihood(run, end, change, labels if labelled else None, comm)
    return _Moved(rows, end, start.contains(x), start.contains(end), log_density, probabilities, likelihood)


def _log_likelihood(run: LoadedRun, end: Floats, change: Floats, labels: Ints | None, comm: MPI.Comm) -> Floats | None:
    """Log ρ* at points' ends (n, dim) minus the change of log ρ on their way there, (n,). Collective.

    Args:
        run: with its target.
        end: (n, dim).
        change: −∫div v dt, (n,).
        labels: (n,) whose density counts; None for that of all labels together.
        comm: who shares the points.
    """
    terminal, target = run.problem.terminal, run.problem.terminal.exact
    if not terminal.logarithmic or target is None:
        return None
    with agreed(comm):
        logs = target.log_values(end)
    logs = np.logaddexp.reduce(logs, axis=1) if labels is None else logs[np.arange(len(end)), labels]
    return np.asarray(logs - change)


def _by_label(
    run: LoadedRun,
    field: PiecewiseField,
    start: GatheredDensity,
    end: Floats,
    labels: np.ndarray[tuple[int], np.dtype[np.int32]],
    own: Floats,
    comm: MPI.Comm,
) -> Floats:
    """Log ρ_y (n, K) at points (n, dim) where every label has a flow of its own. Collective."""
    result = np.empty_like(own)
    for label in range(own.shape[1]):
        before, change = carry_back(field, run.layers, end, np.full(len(end), label), run.scheme, comm)
        # What comes from infinity comes from outside the domain.
        finite = np.isfinite(before).all(axis=1) & np.isfinite(change)
        values = _log(start.values(np.where(finite[:, None], before, np.inf))[:, label])
        result[:, label] = np.where(labels == label, own[:, label], values + np.where(finite, change, 0.0))
    return result


def _log(values: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.maximum(values, 0.0)))


def _show_classes(run: LoadedRun, samples: SampleTable, moved: _Moved, comm: MPI.Comm) -> None:
    """Keep the points that start in the domain for the figure of the classes, and draw it again. Collective."""
    loss = run.problem.terminal.loss
    if loss is None:
        return
    assigned = gather_rows(comm, np.argmin(loss.value(moved.x, run.readout), axis=1).astype(np.int16))
    inside = gather_rows(comm, moved.started_inside)

    def save() -> None:
        if assigned is not None and inside is not None:
            points = ClassifiedPoints(samples.points[inside], samples.labels[inside], assigned[inside])
            points.save(run.folder / FIGURES / PUSHED_POINTS)

    on_root(comm, save)
    draw_here(RunFolder(comm, run.folder, figures=run.config.output.figures), only=("classification",))


# -- summing up ------------------------------------------------------------------------------------------------------


def _numbers(moved: _Moved, comm: MPI.Comm) -> Document:
    """Collective."""
    log_total, started = moved.log_total, moved.started_inside
    positive = started & np.isfinite(log_total)
    local = np.array(
        [
            len(started),
            np.sum(~started),
            np.sum(started & ~moved.inside),
            np.sum(started & ~positive),
            log_total[positive].sum(),
        ]
    )
    count, outside, left, without, total = comm.allreduce(local)
    known = count - outside - without
    likelihood = {}
    if moved.log_likelihood is not None:
        total_likelihood = comm.allreduce(float(moved.log_likelihood[started].sum()))
        inside = count - outside
        likelihood["mean_log_likelihood"] = total_likelihood / inside if inside else math.nan
    return {
        "points": int(count),
        "start_outside": int(outside),
        "end_outside": int(left),
        "without_density": int(without),
        "mean_log_density": total / known if known else math.nan,
        **likelihood,
    }


def _told(found: Classification) -> Document:
    accuracy = found.accuracy if found.total.sum() > 0 else None
    return {"accuracy": accuracy, "correct": found.correct, "confusion": found.confusion}


def _by_points(moved: _Moved, samples: SampleTable, comm: MPI.Comm, n_labels: int) -> Classification:
    """How many of the points that start in the domain are most probably what they are. Collective."""
    mine = moved.started_inside
    labels, found = samples.labels[moved.rows][mine], most_probable(moved.probabilities)[mine]
    local = Classification.of_points(labels, found, n_labels)
    return Classification(comm.allreduce(local.confusion), comm.allreduce(local.total))


def _by_densities(run: LoadedRun, samples: SampleTable, moved: _Moved, comm: MPI.Comm) -> Document:
    """The same for the kernel estimate of these points, carried on the run's mesh; or why there is none. Collective."""
    problem, term = run.problem, run.samples_term
    space = problem.density_space
    inside = np.concatenate(comm.allgather(moved.started_inside))
    if not np.any(inside):
        return {"accuracy": None, "reason": "all points start outside the domain"}
    known = SampleTable(samples.points[inside], samples.labels[inside], samples.classes)
    try:
        estimates = kernel_estimates(known, term.bandwidth if term else "scott", "samples")
        rho = project_shapes(space, estimates, check_outside=False)[0]
    except InputError as error:
        return {"accuracy": None, "reason": str(error)}
    rule, loss = space.quadrature(space.objective_degree), problem.terminal.loss
    points = rule.points.reshape(-1, space.dim)
    if loss is not None and has_readout(loss):
        probabilities = readout_probabilities(loss, points, run.readout)
    else:
        own = problem.carry(run.theta, problem.initial_density)[: space.n_owned]
        values = np.einsum("qi,cik->cqk", rule.basis, own).reshape(-1, space.n_labels)
        probabilities = posterior_probabilities(_log(values))
    return _told(measure_regions(space, most_probable(probabilities), problem.carry(run.theta, rho)))


def _table(
    run: LoadedRun, samples: SampleTable, labelled: bool, moved: _Moved, comm: MPI.Comm
) -> tuple[list[str], list[Floats | list[str]]]:
    """Names and columns of the table; the columns are empty but on rank 0. Collective."""
    several = len(run.classes) > 1
    parts = [moved.x, ~moved.started_inside[:, None], moved.log_total[:, None]]
    names = [*run.axes, "outside", "log_density"]
    if moved.log_likelihood is not None:
        parts.append(moved.log_likelihood[:, None])
        names.append("log_likelihood")
    first = sum(part.shape[1] for part in parts)
    parts += [moved.probabilities] if several else []
    numbers = gather_rows(comm, np.concatenate(parts, axis=1))
    dim = moved.x.shape[1]
    if several:
        names += [*(f"p_{name}" for name in run.classes), "predicted"]
    if labelled:
        names.insert(dim, run.label_name)
    if numbers is None:
        return names, []
    columns: list[Floats | list[str]] = list(numbers.T)
    columns[dim] = ["true" if outside else "false" for outside in numbers[:, dim]]
    if several:
        predicted = most_probable(numbers[:, first:])
        columns.append([run.classes[label] if label >= 0 else "" for label in predicted])
    if labelled:
        columns.insert(dim, [run.classes[label] for label in samples.labels])
    return names, columns
