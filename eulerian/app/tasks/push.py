"""`eulerian push`: new points through the flow of a run, forwards or back."""

import json
import math
from pathlib import Path

from mpi4py import MPI

import numpy as np

from eulerian.analysis.classification import (
    has_readout,
    measure_regions,
    most_probable,
    posterior_probabilities,
    readout_probabilities,
)
from eulerian.app.runs.class_regions import ClassifiedPoints
from eulerian.app.runs.files import CLASSES, FIGURES, PUSHED_POINTS, plain, write_text
from eulerian.app.runs.folder import RunFolder
from eulerian.app.runs.point_tables import claim_table, push_summary, write_table
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.result import Document
from eulerian.app.runs.run_files import require_run
from eulerian.app.tasks.drawing import draw_figures
from eulerian.app.tasks.loaded_run import LABEL, LoadedRun, load_trained
from eulerian.app.tasks.moved_points import MovedPoints, logarithm, move_points
from eulerian.app.tasks.task import SILENT
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.parallel import gather_rows, on_root
from eulerian.density.csv_samples import SampleTable, class_key, kernel_estimates, read_samples
from eulerian.density.projection import project_shapes
from eulerian.objective.confusion import Classification

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
    back: bool = False,
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

    With ``back`` the points are of time T and are carried to time 0. Then the coordinates, ``log_density`` (of ρ₀) and
    ``log_likelihood`` are of where they come to, ``outside`` says whether they lay outside the domain at T, and there
    are no classes.

    Args:
        folder: of the run.
        file: the points.
        comm: who shares the work, everybody by default.
        columns: the file's coordinates; by default those of the run's own samples, else x, y, z.
        label_column: the file's classes; by default those of the run's own samples, else ``label``, if it is there.
        output: the table; ``pushed_<name of the file>.csv`` (``pulled_...`` with ``back``) in the run folder by
            default.
        overwrite: replace the table, if it exists.
        overrides: ``KEY=VALUE`` for keys of ``[particles]``, which say how points move in time.
        back: carry them from T to 0.
        python: the run's field may be Python code of the user's.
        progress: where messages go.

    Raises:
        InputError: the run or the points cannot be used, or the table exists.
        ComputationError: points are carried to infinity.
    """
    comm = MPI.COMM_WORLD if comm is None else comm
    table = folder / f"{'pulled' if back else 'pushed'}_{file.stem}.csv" if output is None else output
    on_root(comm, lambda: require_run(folder))
    on_root(comm, lambda: claim_table(table, overwrite, summary=True, source=file))
    run = load_trained(folder, comm, overrides, python=python)
    samples, labelled = on_root(comm, lambda: _read(run, file, columns, label_column))
    moved = move_points(run, samples, labelled, comm, back=back)
    document: Document = {
        "command": "push",
        "back": back,
        "run": str(folder),
        "samples": str(file),
        "output": str(table),
        "classes": run.classes,
        **_numbers(moved, comm),
    }
    if labelled and len(run.classes) > 1 and not back:
        document["accuracy"] = {
            "points": _classification_document(_by_points(moved, samples, comm, len(run.classes))),
            "densities": _by_densities(run, samples, moved, comm),
        }
    document = comm.bcast(plain(document), 0)
    names, cells = _table(run, samples, labelled, moved, comm)

    def write() -> None:
        write_table(table, names, cells)
        write_text(table.with_suffix(".json"), json.dumps(document, indent=2, allow_nan=False) + "\n")

    on_root(comm, write)
    progress.say(push_summary(document))
    if labelled and not back and on_root(comm, (folder / FIGURES / CLASSES).is_file):
        _show_classes(run, samples, moved, comm)
    return document


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


# -- classes ---------------------------------------------------------------------------------------------------------


def _show_classes(run: LoadedRun, samples: SampleTable, moved: MovedPoints, comm: MPI.Comm) -> None:
    """Keep the points that start in the domain for the figure of the classes, and draw it again. Collective."""
    loss = run.problem.terminal.loss
    if loss is None:
        return
    assigned = gather_rows(comm, np.argmin(loss.value(moved.x, run.readout), axis=1).astype(np.int16))
    inside = gather_rows(comm, moved.started_inside)

    points = None
    if assigned is not None and inside is not None:
        points = ClassifiedPoints(samples.points[inside], samples.labels[inside], assigned[inside])
    folder = RunFolder(comm, run.folder, figures=run.config.output.figures)
    folder.write_figure_data(PUSHED_POINTS, points)
    draw_figures(folder, only=("classification",))


# -- summing up ------------------------------------------------------------------------------------------------------


def _numbers(moved: MovedPoints, comm: MPI.Comm) -> Document:
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


def _classification_document(found: Classification) -> Document:
    accuracy = found.accuracy if found.total.sum() > 0 else None
    return {"accuracy": accuracy, "correct": found.correct, "confusion": found.confusion}


def _by_points(moved: MovedPoints, samples: SampleTable, comm: MPI.Comm, n_labels: int) -> Classification:
    """How many of the points that start in the domain are most probably what they are. Collective."""
    assert moved.probabilities is not None
    mine = moved.started_inside
    labels, found = samples.labels[moved.rows][mine], most_probable(moved.probabilities)[mine]
    local = Classification.of_points(labels, found, n_labels)
    return Classification(comm.allreduce(local.confusion), comm.allreduce(local.total))


def _by_densities(run: LoadedRun, samples: SampleTable, moved: MovedPoints, comm: MPI.Comm) -> Document:
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
    if loss is not None and has_readout(loss):  # then no densities are needed, which a forward solve would cost
        probabilities = readout_probabilities(loss, points, run.readout)
    else:
        own = problem.carry(run.theta, problem.initial_density)[: space.n_owned]
        values = np.einsum("qi,cik->cqk", rule.basis, own).reshape(-1, space.n_labels)
        probabilities = posterior_probabilities(logarithm(values))
    return _classification_document(measure_regions(space, most_probable(probabilities), problem.carry(run.theta, rho)))


def _table(
    run: LoadedRun, samples: SampleTable, labelled: bool, moved: MovedPoints, comm: MPI.Comm
) -> tuple[list[str], list[Floats | list[str]]]:
    """Names and columns of the table; the columns are empty but on rank 0. Collective."""
    several = len(run.classes) > 1 and moved.probabilities is not None
    parts = [moved.x, ~moved.started_inside[:, None], moved.log_total[:, None]]
    names = [*run.axes, "outside", "log_density"]
    if moved.log_likelihood is not None:
        parts.append(moved.log_likelihood[:, None])
        names.append("log_likelihood")
    first = sum(part.shape[1] for part in parts)
    parts += [moved.probabilities] if several and moved.probabilities is not None else []
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
