"""What follows a run on densities: its J and ρ(T) are verified by characteristics, and reported."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from mpi4py import MPI

from eulerian.analysis.tolerances import DENSITY, NATS, OBJECTIVE
from eulerian.app.config import Adapt
from eulerian.app.runs.files import RESULT
from eulerian.app.runs.folder import RunFolder
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.result import Document, plain
from eulerian.app.tasks.task import SILENT, RunContext
from eulerian.base.errors import EulerianError, InputError, collected_warnings, explained
from eulerian.base.parallel import on_root, warn
from eulerian.control.control import ControlProblem

if TYPE_CHECKING:
    from eulerian.analysis.characteristics import Verification  # with a good part of SciPy


def verification(context: RunContext[ControlProblem], document: Document) -> Document:  # noqa: ARG001 - of a command
    """The keys ``verified`` and ``resolved`` for the θ of the last evaluation. **Collective**.

    Said in a sentence; what is not resolved is a warning. A verification that fails is a warning too, and no error.
    """
    return verify_flow(context.problem, context.progress, context.config.adapt)


def verify_flow(problem: ControlProblem, progress: Progress, adapt: Adapt | None = None) -> Document:
    """``verification`` of a problem that has been evaluated, or tried to be. **Collective**.

    Args:
        problem: evaluated.
        progress: where messages go.
        adapt: whose tolerances are meant, where there are some.
    """
    if not problem.parts:
        return {}
    from eulerian.analysis.characteristics import verify
    from eulerian.app.build.training import tolerances
    from eulerian.optimise.adaptive import misses

    try:
        found = verify(problem, problem.theta)
    except EulerianError as error:
        reason = str(error)
    except Exception as error:
        if problem.comm.size > 1:  # the other ranks may be elsewhere
            raise
        reason = explained(error)
    else:
        missed = "" if adapt is None else misses(tolerances(adapt), found)
        resolved = found.resolved() if adapt is None else not missed
        progress.say(found.statement)
        if resolved is False:
            warn(problem.comm, unresolved(found) if adapt is None else f"{_ABOUT[0]}: {missed}")
        return {"verified": found.document, "resolved": resolved}
    warn(problem.comm, f"J and ρ(T) could not be verified: {reason}")
    return {"verified": None, "resolved": None}


def unresolved(found: "Verification") -> str:
    """The warning that a mesh does not resolve a flow, with its figures and the remedies."""
    parts = []
    if found.density_l1 is not None:
        by_label = ", ".join(f"{100 * error:.2g} %" for error in found.density_l1)
        label = " by label" if len(found.density_l1) > 1 else ""
        parts.append(f"the L¹ error of ρ(T) is {by_label} of the mass{label} ({100 * DENSITY:g} % would do)")
    if math.isfinite(found.error):
        known = found.objective["total"]
        if found.logarithmic:
            parts.append(f"J of the mesh is off by {found.mesh['total'] - known:+.2g} nats ({NATS:g} would do)")
        else:
            apart = f"{100 * found.relative_error:+.2g} %"
            parts.append(f"J of the mesh is off by {apart} ({100 * OBJECTIVE:g} % would do)")
    remedy = "Refine the mesh, take density.degree = 2, or let [adapt] choose the mesh"
    return f"the mesh does not resolve this flow: {', and '.join(parts)}. {remedy}"


def run_verify_run(
    folder: Path, comm: MPI.Comm | None = None, *, python: bool = True, progress: Progress = SILENT
) -> Document:
    """Verify the flow of a run, and write ``verified`` and ``resolved`` into its ``result.json``. **Collective**.

    Everything else that the document says stays as it is; earlier warnings about the same are replaced.

    Args:
        folder: of a run on densities, with its θ.
        comm: who shares the work, everybody by default.
        python: the run's field may be Python code of the user's.
        progress: where messages go; nowhere by default.

    Raises:
        InputError: it is no run folder, or no complete one.
        RejectedEvaluation: J cannot be evaluated there.
    """
    from eulerian.app.tasks.loaded_run import load_trained  # with a good part of SciPy

    comm = MPI.COMM_WORLD if comm is None else comm
    trained = load_trained(folder, comm, python=python)
    document: Document = on_root(comm, lambda: _read_result(folder))
    heard: list[str] = []

    def warned(text: str) -> None:
        heard.append(text)
        progress.say(f"Warning: {text}")

    trained.problem.value(trained.theta)
    with collected_warnings(warned):
        document |= comm.bcast(plain(verify_flow(trained.problem, progress, trained.config.adapt)), 0)
    document["warnings"] = [text for text in document.get("warnings", []) if not text.startswith(_ABOUT)]
    RunFolder(comm, folder, heard).write_result(document)
    document["warnings"] = comm.bcast([*document["warnings"], *heard], 0)
    return document


_ABOUT = ("the mesh does not resolve this flow", "J and ρ(T) could not be verified")


def _read_result(folder: Path) -> Document:
    document = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise InputError("is damaged", key=str(folder / RESULT), remedy="Run the command again.")
    return document
