"""Coarser versions of a configuration, for training from coarse to fine."""

from eulerian.app.config.domain import Box, Domain
from eulerian.app.config.model import Config
from eulerian.objective.cost_at import ends_layer

# A box keeps at least so many cells along an axis (or as many as it has): fewer resolve no density.
LEAST_CELLS = 4


def coarse_to_fine(config: Config) -> tuple[Config, ...]:
    """The configurations of all levels, the coarsest first; the last one is ``config`` itself.

    The level before one of degree 1 has degree 2 and cells four times as large: there J is as near to that of the flow
    itself, at a tenth of the cost. Any other level has cells of twice the size of the next finer one, and
    densities of its degree. The two finest have all layers, so that the last change is one of the mesh only; every
    further level has half as many, rounded up, or as many more as the times of ``objective.at`` ask for, which end
    layers on all levels. No θ to start from is given. There are at most ``optimiser.levels``,
    fewer where the cells of a box, or the refinements of a file, cannot be halved so often.
    """
    # With 64² and 128² cells, halving the layers at the last change too began the finest level five times as far above
    # its minimum.
    levels = [config]
    while len(levels) < config.optimiser.levels:
        coarser = _coarser(levels[0])
        if coarser is None:
            break
        layers = levels[0].field.layers
        layers = _halved_layers(config, layers) if len(levels) > 1 else layers
        levels.insert(0, coarser.with_values("field", layers=layers, theta=None))
    return tuple(levels)


def iterations_of_a_level(config: Config, levels: int) -> int:
    """The most that each of so many levels may take: half of ``max_iterations`` where there are several."""
    wanted = config.optimiser.max_iterations
    return wanted if levels == 1 else -(-wanted // 2)


def _halved_layers(config: Config, layers: int) -> int:
    """Half as many layers, or the next number at whose ends costs can be charged."""
    times = [cost.time for cost in config.objective.at]
    horizon = config.field.horizon
    return next(n for n in range((layers + 1) // 2, layers + 1) if all(ends_layer(t, horizon, n) for t in times))


def _coarser(config: Config) -> Config | None:
    """With cells twice as large; for degree 1 with degree 2 and cells four times as large, if they can be so."""
    domain = _halved(config.domain)
    if domain is None:
        return None
    twice = _halved(domain) if config.density.degree == 1 else None
    if twice is None:
        return config.model_copy(update={"domain": domain})
    return config.model_copy(update={"domain": twice}).with_values("density", degree=2)


def _halved(domain: Domain) -> Domain | None:
    """The domain with cells twice as large, or None."""
    if domain.refine > 0:
        return domain.model_copy(update={"refine": domain.refine - 1})
    if domain.box is None:
        return None
    box = halved_box(domain.box)
    return None if box.cells == domain.box.cells else domain.model_copy(update={"box": box})


def halved_box(box: Box) -> Box:
    """The box with half as many cells along every axis, rounded up, but no fewer than are sensible."""
    cells = tuple(max((n + 1) // 2, min(n, LEAST_CELLS)) for n in box.cells)
    return box.model_copy(update={"cells": cells})
