"""`eulerian verify`: the laws of the discretisation at one θ; and J and ρ(T) of a flow, by characteristics."""

import json
import math
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from eulerian.analysis.tolerances import DENSITY, NATS, OBJECTIVE
from eulerian.analysis.verify import Verification as Laws
from eulerian.analysis.verify import verify as verify_laws
from eulerian.app.build.network import build, warn_of_fixed_mesh
from eulerian.app.config import Adapt, Config
from eulerian.app.runs.files import RESULT, plain
from eulerian.app.runs.folder import RunFolder
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.report import headline, laws_table
from eulerian.app.runs.result import Document, Outcome
from eulerian.app.runs.run_log import logged_run
from eulerian.app.tasks.network_run import finite_value, layers_and_readout, warn_of_rest
from eulerian.app.tasks.task import SILENT, RunContext, Task
from eulerian.app.tasks.theta_option import ThetaSource
from eulerian.base.errors import EulerianError, InputError, collected_warnings, explained
from eulerian.base.log import RUN_LOGGER
from eulerian.base.parallel import on_root, warn
from eulerian.base.words import percent
from eulerian.control.control import ControlProblem
from eulerian.fields.frame import rewrapped, unwrapped

if TYPE_CHECKING:
    from eulerian.analysis.characteristics import Verification  # with a good part of SciPy

# What `verify` lets pass: the laws hold to rounding, the Taylor remainder falls by four when the step is halved.
LEAST_TAYLOR_RATE = 1.8
LARGEST_DOT_ERROR = 1e-9
LARGEST_MASS_ERROR = 1e-11
LEAST_DENSITY = -1e-11


def run_verify(
    config: Config,
    comm: MPI.Comm | None = None,
    *,
    theta: Path | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Document:
    """Check gradient, mass and positivity at one θ; arguments, result and errors as for ``run_solve``. **Collective**.

    Where nothing moves at that θ, the gradient is also checked at one near it. A law that does not hold raises nothing:
    the status is ``failed`` and the reason names it.
    """
    given = ThetaSource.of(config, theta, comm)
    task = Task("verify", partial(given.build, build), headline, partial(_verify, given=given))
    return task.run(given.config, comm, overwrite=overwrite, progress=progress)


def _verify(context: RunContext[ControlProblem], given: ThetaSource) -> Outcome:
    problem, theta = context.problem, context.problem.initial_theta
    started = time.perf_counter()
    context.progress.say(given.description)
    warn_of_fixed_mesh(context.config, context.folder.comm)
    _compute_in_double(context)
    finite_value(problem, theta, given.name)
    result = "There the gradient of a network vanishes but for its last layer, so it is checked at a θ near it too"
    warn_of_rest(problem, context.config, result)
    laws = verify_laws(problem, theta, np.random.default_rng(context.config.field.seed))
    seconds = time.perf_counter() - started
    total, gradient = problem.value_and_gradient(theta)
    broken = _broken_laws(laws)
    context.folder.write_theta(*layers_and_readout(problem, theta))
    context.progress.say(laws_table(laws))
    return Outcome(
        "verify",
        "failed" if broken else "done",
        "; ".join(broken) or f"gradient, adjoint, mass and positivity hold at {given.name}",
        total,
        problem.parts,
        gradient_norm=problem.gradient_norm(gradient),
        seconds_solve=seconds,
        extra={**given.document, "verify": asdict(laws)},
    )


def _compute_in_double(context: RunContext[ControlProblem]) -> None:
    """The steps of the Taylor test drown in the rounding of a model in float32: verify it in float64."""
    layered = context.problem.layered
    field = unwrapped(layered.field)
    in_double = getattr(field, "in_double", None)
    exact = in_double() if callable(in_double) else field
    if exact is not field:
        layered.field = rewrapped(layered.field, exact)
        context.progress.say("the model computes in float32; what follows was found with it in float64")


def _broken_laws(laws: Laws) -> list[str]:
    """What does not hold, in words; NaN holds nothing."""
    found = []
    for gradient, where in ((laws, ""), (laws.nearby, " at a θ near it that moves something")):
        if gradient is None:
            continue
        rate = min(gradient.taylor_rates, default=math.nan)
        if not rate >= LEAST_TAYLOR_RATE:
            least = LEAST_TAYLOR_RATE
            found.append(
                f"the Taylor rate {rate:.3g}{where} is below {least}: the gradient is wrong, or J is not smooth"
            )
        if not gradient.dot_error <= LARGEST_DOT_ERROR:
            found.append(f"the adjoint misses the dot product by {gradient.dot_error:.2e}{where}")
    if not laws.mass_error <= LARGEST_MASS_ERROR:
        found.append(f"the mass changes by {laws.mass_error:.2e}")
    if not laws.min_density >= LEAST_DENSITY:
        found.append(f"the density falls to {laws.min_density:.2e}")
    return found


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
            more = f". {found.wall_remark}" if found.wall_remark else ""
            warn(problem.comm, unresolved(found) if adapt is None else f"{_ABOUT[0]}: {missed}{more}")
        return {"verified": found.document, "resolved": resolved}
    warn(problem.comm, f"J and ρ(T) could not be verified: {reason}")
    return {"verified": None, "resolved": None}


def unresolved(found: "Verification") -> str:
    """The warning that a mesh does not resolve a flow, with its figures and the remedies."""
    parts = []
    if found.density_l1 is not None:
        by_label = ", ".join(map(percent, found.density_l1))
        label = " by label" if len(found.density_l1) > 1 else ""
        parts.append(f"the L¹ error of ρ(T) is {by_label} of the mass{label} ({100 * DENSITY:g} % would do)")
    if math.isfinite(found.error):
        known = found.objective["total"]
        if found.logarithmic:
            parts.append(f"J of the mesh is off by {found.mesh['total'] - known:+.2g} nats ({NATS:g} would do)")
        else:
            apart = percent(found.relative_error, "+")
            parts.append(f"J of the mesh is off by {apart} ({100 * OBJECTIVE:g} % would do)")
    remedies = [found.wall_remark] if found.wall_remark else []
    if found.touched_mass < _MOST:
        remedies.append("Refine the mesh, take density.degree = 2, or let [adapt] choose the mesh")
    remedy = ". ".join(remedies)
    return f"the mesh does not resolve this flow: {', and '.join(parts)}. {remedy}"


_MOST = 0.5
"""Of the mass: where more has touched a wall a finer mesh is no remedy."""


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
        progress.warn(text)

    with logged_run(comm, "verify --run", progress.warn) as log, collected_warnings(warned, RUN_LOGGER.warning):
        log.start(folder)
        trained.problem.value(trained.theta)
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
