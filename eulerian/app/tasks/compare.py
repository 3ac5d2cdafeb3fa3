"""`eulerian compare`: densities and particles at one θ, side by side."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from mpi4py import MPI

from eulerian.analysis import wasserstein
from eulerian.analysis.stopwatch import EvaluationCost
from eulerian.app.build.network import training_start
from eulerian.app.build.particles import particles_on, refuse_on_particles, sample_of
from eulerian.app.config import Config
from eulerian.app.runs.comparison import comparison_table, save_comparison
from eulerian.app.runs.files import STUDY
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.report import headline
from eulerian.app.runs.result import Document, Outcome
from eulerian.app.runs.study_table import study_rates, study_rows, study_table, write_study
from eulerian.app.tasks.compare_methods import Comparison, Transport, compare_methods
from eulerian.app.tasks.density_observer import DensityObserver
from eulerian.app.tasks.network_run import (
    build_on_adapted_mesh,
    finite_value,
    layers_and_readout,
    warn_of_rest,
    with_output,
)
from eulerian.app.tasks.study import Study, StudyPlan, run_study
from eulerian.app.tasks.task import SILENT, RunContext, Task
from eulerian.app.tasks.theta_option import ThetaSource
from eulerian.app.tasks.verify import verify_flow
from eulerian.base.parallel import on_root
from eulerian.control.control import ControlProblem
from eulerian.density.gathered import GatheredDensity
from eulerian.particles.problem import ParticleProblem


def run_compare(
    config: Config,
    comm: MPI.Comm | None = None,
    *,
    theta: Path | None = None,
    study: StudyPlan | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Document:
    """Compare densities with particles at the initial θ or another; otherwise as ``run_solve``. **Collective**.

    The particles start as draws from the mesh's own ρ₀, follow the exact velocity of the network and feel no walls; the
    mesh moves its density by the velocity's interpolant.

    Args:
        config: from ``read_config``.
        comm: who shares the work, everybody by default.
        theta: a run folder or an ``.npz`` file, whose θ and readout are taken instead of the configuration's start.
        study: also climb a ladder of meshes and of numbers of particles.
        overwrite: replace a run that is in ``output.directory``.
        progress: where messages go; nowhere by default.

    Raises:
        InputError: as for ``run_solve``; also for costs and fields that particles do not have.
        ComputationError: the computation failed; ``result.json`` says so too.
    """
    work = _Compare(config, ThetaSource.of(config, theta, comm), study)
    return Task("compare", work.build, headline, work.compare).run(
        work.given.config, comm, overwrite=overwrite, progress=progress
    )


@dataclass
class _Compare:
    """The command's parts, which share θ and the particles.

    Attributes:
        config: as it was given, with its own initial θ.
        given: where both are evaluated.
        plan: of a study, or None.
        particles: the problem on particles.
    """

    config: Config
    given: ThetaSource
    plan: StudyPlan | None
    particles: ParticleProblem = field(init=False)

    def build(self, config: Config, comm: MPI.Comm) -> ControlProblem:
        """Both problems. Collective."""
        refuse_on_particles(config)
        problem = self.given.build(build_on_adapted_mesh, config, comm)
        rho0 = GatheredDensity.gather(problem.density_space, problem.initial_density)
        self.particles = particles_on(config, problem, sample_of(config, rho0, comm))
        return problem

    def compare(self, context: RunContext[ControlProblem]) -> Outcome:
        """Collective."""
        problem, particles, theta = context.problem, self.particles, context.problem.initial_theta
        context.progress.say(self.given.description)
        started = time.perf_counter()
        finite_value(problem, theta, "this θ on the mesh")
        warn_of_rest(problem, context.config, "Both methods leave ρ₀ as it is, so there is little to compare")
        finite_value(particles, theta, "this θ on particles")
        known = verify_flow(problem, context.progress)
        errors = (known["verified"] or {}).get("density_l1")
        start = training_start(self.config, problem)
        found = compare_methods(problem, particles, theta, context.config.particles.seed, start, errors)
        total, gradient = problem.value_and_gradient(theta)
        document = {**self.given.document, **known, "compare": comparison_document(found, particles, context.config)}
        context.progress.say(comparison_table({"objective": found.parts.mesh, **document}))
        if self.plan is not None:
            document["study"] = self.study(context, self.plan)
            finite_value(problem, theta, "this θ on the mesh")
        outcome = Outcome(
            "compare",
            "done",
            f"compared densities with particles at {self.given.name}",
            total,
            problem.parts,
            gradient_norm=problem.gradient_norm(gradient),
            extra=document,
        )
        save_comparison(context.folder, problem, found.pushed, found.points, found.parts.rows)
        observer = DensityObserver(context, theta)

        def write() -> None:
            context.folder.write_theta(*layers_and_readout(problem, theta))
            observer.evaluate()
            observer.finish()

        return replace(with_output(outcome, write), seconds_solve=time.perf_counter() - started)

    def study(self, context: RunContext[ControlProblem], plan: StudyPlan) -> Document:
        """Climb the ladders, keep them in the folder, and say what was found. Collective."""
        context.progress.say("Study:")
        found = run_study(context.config, context.problem, context.problem.initial_theta, plan, context.progress)
        on_root(context.folder.comm, lambda: write_study(context.folder.path / STUDY, found.rungs))
        context.progress.say(study_table(found.rungs), _reference_sentence(found))
        return {
            "reference": found.reference.name,
            "reference_objective": found.reference.value,
            "reference_gradient_error": found.reference.error,
            "disagreement": found.disagreement,
            "expected_disagreement": found.expected,
            "rates": study_rates(found.rungs),
            "rungs": study_rows(found.rungs),
        }


def _reference_sentence(found: Study) -> str:
    return (
        f"Errors of J and ∇J are distances to what {found.reference.name} give (with an estimated error of ∇J of "
        f"{found.reference.error:.1e}), those of densities to the exact density, which follows the paths of points. "
        f"The finest mesh and the Sobol points differ by {found.disagreement:.1e} in ∇J; from their estimated errors "
        f"{found.expected:.1e} is to be expected."
    )


def comparison_document(found: Comparison, particles: ParticleProblem, config: Config) -> Document:
    """The key ``compare`` of ``result.json``."""
    mean, covariance = found.moments
    gradients, densities = found.gradients, found.densities
    return {
        "particles": particles.count,
        "sampling": "file" if config.particles.file else config.particles.sampling,
        "objective": found.parts.particles["total"],
        "parts": found.parts.particles,
        "interval": found.parts.interval,
        "gradient_cosine": gradients.match.cosine,
        "gradient_relative_error": gradients.match.relative_error,
        "gradient_initial_error": gradients.initial_error,
        "gradient_reference": gradients.reference,
        "gradient_sampling_error": gradients.sampling_error,
        **_transport_document(found.transport),
        "l1_density": float(densities.mesh.sum()),
        "l1_density_by_label": densities.mesh,
        "l1_kernel_estimate": float(densities.kernel.sum()),
        "l1_kernel_estimate_by_label": densities.kernel,
        "outside": found.outside,
        "moments": {"mean": mean, "covariance": covariance},
        "seconds": {name: _seconds(cost, "wall") for name, cost in found.costs.items()},
        "cpu_seconds": {name: _seconds(cost, "cpu") for name, cost in found.costs.items()},
    }


def _seconds(cost: EvaluationCost, clock: str) -> Document:
    return {"value": getattr(cost.value, clock), "value_and_gradient": getattr(cost.gradient, clock)}


def _transport_document(found: Transport | None) -> Document:
    distances = {"wasserstein2": "exact", "sliced_wasserstein2": "sliced", "wasserstein2_floor": "floor"}
    document: Document = {name: getattr(found, key).total if found else None for name, key in distances.items()}
    document |= {f"{name}_by_label": getattr(found, key).by_label if found else None for name, key in distances.items()}
    return document | {
        "wasserstein_points": found.points if found else None,
        "wasserstein_note": None if found else wasserstein.MISSING,
    }
