"""Coarser versions of a configuration, for training from coarse to fine."""

from eulerian.config.density import Box, Domain
from eulerian.config.model import Config

# A box keeps at least so many cells along an axis (or as many as it has): fewer resolve no density.
LEAST_CELLS = 4


def coarse_to_fine(config: Config) -> tuple[Config, ...]:
    """The configurations of all levels, the coarsest first; the last one is ``config`` itself.

    A level has cells of twice the size of the next finer one and half its layers, rounded up; no θ to start from is
    given. There are at most ``optimiser.levels``, fewer where the cells of a box cannot be halved so often.
    """
    levels = [config]
    while len(levels) < config.optimiser.levels:
        domain = _coarser(levels[0].domain)
        if domain is None:
            break
        field = levels[0].field
        field = field.model_copy(update={"layers": (field.layers + 1) // 2, "theta": None})
        levels.insert(0, levels[0].model_copy(update={"domain": domain, "field": field}))
    return tuple(levels)


def _coarser(domain: Domain) -> Domain | None:
    """The domain with cells twice as large, or None."""
    if domain.refine > 0:
        return domain.model_copy(update={"refine": domain.refine - 1})
    if domain.box is None:
        return None
    box = _halved(domain.box)
    return None if box.cells == domain.box.cells else domain.model_copy(update={"box": box})


def _halved(box: Box) -> Box:
    cells = tuple(max((n + 1) // 2, min(n, LEAST_CELLS)) for n in box.cells)
    return box.model_copy(update={"cells": cells})
