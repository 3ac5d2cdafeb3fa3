"""What is drawn of a run: ``ALL`` has every figure, in the order in which they are drawn and named."""

from eulerian.app.figures import style  # noqa: F401 - Matplotlib is set up before a figure loads it
from eulerian.app.figures.boundary import BOUNDARY_FIGURE
from eulerian.app.figures.classification import CLASSIFICATION_FIGURE
from eulerian.app.figures.comparison import COMPARISON_FIGURE, PARTS_FIGURE
from eulerian.app.figures.densities import DENSITIES_FIGURE, EXACT_DENSITIES_FIGURE
from eulerian.app.figures.densities_3d import PROJECTIONS_FIGURE
from eulerian.app.figures.gap import GAP_FIGURE
from eulerian.app.figures.history import HISTORY_FIGURE
from eulerian.app.figures.particles import PARTICLES_FIGURE
from eulerian.app.figures.run_figure import RunFigure
from eulerian.app.figures.study import STUDY_FIGURE
from eulerian.app.figures.sweep import SWEEP_FIGURE
from eulerian.app.figures.times import TIMES_FIGURE
from eulerian.app.figures.trajectories import TRAJECTORIES_FIGURE

ALL: tuple[RunFigure, ...] = (
    DENSITIES_FIGURE,
    EXACT_DENSITIES_FIGURE,
    TIMES_FIGURE,
    TRAJECTORIES_FIGURE,
    PROJECTIONS_FIGURE,
    PARTICLES_FIGURE,
    COMPARISON_FIGURE,
    PARTS_FIGURE,
    BOUNDARY_FIGURE,
    CLASSIFICATION_FIGURE,
    STUDY_FIGURE,
    HISTORY_FIGURE,
    GAP_FIGURE,
    SWEEP_FIGURE,
)
