"""What the commands do, as functions of a configuration or a run folder. Every function here is **collective**.

They are loaded on first use: one should not wait for what only another one needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eulerian.app.tasks.compare import run_compare
    from eulerian.app.tasks.drawing import draw_run
    from eulerian.app.tasks.ideal import run_ideal
    from eulerian.app.tasks.particles import run_solve_particles, run_train_particles
    from eulerian.app.tasks.plot import run_animate, save_exact_densities
    from eulerian.app.tasks.push import run_push
    from eulerian.app.tasks.sample import run_sample
    from eulerian.app.tasks.solve import run_solve
    from eulerian.app.tasks.study import StudyPlan
    from eulerian.app.tasks.sweep import SweepPlan, run_sweep
    from eulerian.app.tasks.train import run_train
    from eulerian.app.tasks.verify import run_verify, run_verify_run

__all__ = [
    "StudyPlan",
    "SweepPlan",
    "draw_run",
    "run_animate",
    "run_compare",
    "run_ideal",
    "run_push",
    "run_sample",
    "run_solve",
    "run_solve_particles",
    "run_sweep",
    "run_train",
    "run_train_particles",
    "run_verify",
    "run_verify_run",
    "save_exact_densities",
]

# Where a name is not in the module of its command.
_MODULES = {
    "StudyPlan": "study",
    "SweepPlan": "sweep",
    "draw_run": "drawing",
    "run_solve_particles": "particles",
    "run_train_particles": "particles",
    "run_animate": "plot",
    "run_verify_run": "verify",
    "save_exact_densities": "plot",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = _MODULES.get(name, name.removeprefix("run_"))
        return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
