"""Train ODE-Nets on densities: an Eulerian solver for the controlled continuity equation.

    import eulerian as eu

    space = eu.DensitySpace(eu.box_mesh([-3, -3], [3, 3], [32, 32]), degree=2)
    problem = eu.ControlProblem(
        space,
        eu.Mlp(2, [16]),
        space.project(eu.Gaussian([-0.5, 0.3], std=0.5)),
        eu.QuadraticLoss([1.0, -0.5]),
        eu.Costs(kinetic=0.5),
        eu.TimeGrid(horizon=1.0, layers=4),
    )
    result = eu.minimise(problem)
    flow = eu.Flow(problem, result.theta)

Public names are those of ``__init__.pyi``. They are loaded on first use, so that ``import eulerian`` costs nothing and
starts neither MPI nor PETSc. Iterations are told to ``logging.getLogger("eulerian")``, which is silent unless it is
given a handler.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = [*__all__, "__version__"]
