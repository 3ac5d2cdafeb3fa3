"""From a configuration to a run folder: one module per command. Every function here is **collective**."""

from eulerian.experiment.animate import run_animate
from eulerian.experiment.compare import run_compare
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
]
