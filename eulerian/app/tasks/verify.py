"""`eulerian verify`: gradient, adjoint, mass and positivity of the user's own problem."""

import math
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from mpi4py import MPI

import numpy as np

from eulerian.analysis.verify import Verification, verify
from eulerian.app.build.network import build, warn_of_fixed_mesh
from eulerian.app.config import Config
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.report import headline, laws_table
from eulerian.app.runs.result import Document, Outcome
from eulerian.app.tasks.network_run import finite_value, layers_and_readout, warn_of_rest
from eulerian.app.tasks.task import SILENT, RunContext, Task
from eulerian.app.tasks.theta_option import ThetaSource
from eulerian.control.control import ControlProblem
from eulerian.fields.frame import NormalisedField, frame_of, unwrapped

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
    laws = verify(problem, theta, np.random.default_rng(context.config.field.seed))
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
    field, frame = unwrapped(layered.field), frame_of(layered.field)
    in_double = getattr(field, "in_double", None)
    exact = in_double() if callable(in_double) else field
    if exact is not field:
        layered.field = exact if frame is None else NormalisedField(exact, frame)
        context.progress.say("the model computes in float32; what follows was found with it in float64")


def _broken_laws(laws: Verification) -> list[str]:
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
