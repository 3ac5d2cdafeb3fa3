"""From a configuration to a run folder: one module per command. Every function here is **collective**.

Commands are loaded on first use: one should not wait for what only another one needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eulerian.experiment.animate import run_animate
    from eulerian.experiment.compare import run_compare
    from eulerian.experiment.exact_figures import keep_exact_densities
    from eulerian.experiment.ideal import run_ideal
    from eulerian.experiment.push import run_push
    from eulerian.experiment.sample import run_sample
    from eulerian.experiment.solve import run_solve
    from eulerian.experiment.study import StudyPlan
    from eulerian.experiment.swarm import run_solve_particles, run_train_particles
    from eulerian.experiment.train import run_train
    from eulerian.experiment.verification import run_verify

__all__ = [
    "StudyPlan",
    "keep_exact_densities",
    "run_animate",
    "run_compare",
    "run_ideal",
    "run_push",
    "run_sample",
    "run_solve",
    "run_solve_particles",
    "run_train",
    "run_train_particles",
    "run_verify",
    "run_verify_run",
]

# Where a name is not in the module of its command.
_MODULES = {
    "StudyPlan": "study",
    "keep_exact_densities": "exact_figures",
    "run_solve_particles": "swarm",
    "run_train_particles": "swarm",
    "run_verify": "verification",
    "run_verify_run": "verified",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = _MODULES.get(name, name.removeprefix("run_"))
        return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
