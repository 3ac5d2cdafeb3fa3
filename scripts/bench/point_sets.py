"""Sets of points in the plane that flows are shown on, and their exact densities.

Two half moons, eight Gaussians, a pinwheel and a checkerboard, as they are drawn in the papers on normalising flows
(Grathwohl et al. 2019, arXiv:1810.01367; Durkan et al. 2019, arXiv:1906.04032). All densities are known, so that a
negative log-likelihood can be held against the best there is, that of the density itself on the same points. The
pinwheel's arms are twisted by the distance from the centre, which keeps areas and makes its density a formula.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

type Floats = NDArray[np.float64]

HELD_OUT = 20_000
MOON_NOISE = 0.06
RADIUS, SPREAD = 4.0 / np.sqrt(2.0), 0.5 / np.sqrt(2.0)  # of the eight Gaussians
ARMS, ALONG, ACROSS, TWIST = 5, 0.3, 0.1, 0.25  # of the pinwheel


@dataclass(frozen=True)
class Kind:
    """A distribution in the plane.

    Attributes:
        draw: n points from a seed, (n, 2).
        log_density: of points (n, 2), (n,); −inf where there is nothing.
        training: how many points a model is trained on; as many more are there to choose by.
    """

    draw: Callable[[int, int], Floats]
    log_density: Callable[[Floats], Floats]
    training: int


@dataclass(frozen=True)
class PointSet:
    """Points in units in which those for training have mean 0 and standard deviation 1 along both axes.

    Attributes:
        train: (n, 2).
        validation: (n, 2), for early stopping and for choosing a bandwidth.
        held_out: (20000, 2), for the result only.
        true_nll: mean of −log of the exact density at the points held out.
    """

    train: Floats
    validation: Floats
    held_out: Floats
    true_nll: float


def point_set(name: str, held_out: int = HELD_OUT) -> PointSet:
    """One of ``KINDS``: seeds 0, 2 and 1 for training, validation and what is held out."""
    kind = KINDS[name]
    train, validation = kind.draw(kind.training, 0), kind.draw(kind.training, 2)
    rest = kind.draw(held_out, 1)
    mean, std = train.mean(axis=0), train.std(axis=0)
    nll = -float(np.mean(kind.log_density(rest)) + np.log(std).sum())
    return PointSet((train - mean) / std, (validation - mean) / std, (rest - mean) / std, nll)


# -- two moons -------------------------------------------------------------------------------------------------------


def draw_moons(n: int, seed: int) -> Floats:
    """Point for point what ``make_moons(n, noise=0.06, random_state=seed)`` of scikit-learn returns."""
    random = np.random.RandomState(seed)  # the generator that make_moons uses
    upper, lower = (np.linspace(0.0, np.pi, count) for count in (n // 2, n - n // 2))
    arcs = np.concatenate([upper_moon(upper), lower_moon(lower)])
    order = np.arange(n)
    random.shuffle(order)
    return np.asarray(arcs[order] + random.normal(scale=MOON_NOISE, size=arcs.shape))


def upper_moon(angle: Floats) -> Floats:
    """Its middle line, (n, 2)."""
    return np.column_stack([np.cos(angle), np.sin(angle)])


def lower_moon(angle: Floats) -> Floats:
    """Its middle line, (n, 2)."""
    return np.column_stack([1.0 - np.cos(angle), 0.5 - np.sin(angle)])


def moons_log_density(x: Floats) -> Floats:
    """Normal noise around both lines: Gauss's rule along them, with points much closer than the noise is wide."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    angle = 0.5 * np.pi * (nodes + 1.0)
    centres = np.concatenate([upper_moon(angle), lower_moon(angle)])
    return gaussian_mixture(x, centres, MOON_NOISE, np.tile(weights, 2) / 4.0)


# -- eight Gaussians -------------------------------------------------------------------------------------------------


def eight_centres() -> Floats:
    """On a circle, (8, 2)."""
    angle = np.arange(8) * np.pi / 4.0
    return RADIUS * np.column_stack([np.cos(angle), np.sin(angle)])


def draw_gaussians(n: int, seed: int) -> Floats:
    """From one of eight, then normal."""
    random = np.random.default_rng(seed)
    return np.asarray(eight_centres()[random.integers(8, size=n)] + SPREAD * random.standard_normal((n, 2)))


def gaussians_log_density(x: Floats) -> Floats:
    """Their mean."""
    return gaussian_mixture(x, eight_centres(), SPREAD, np.full(8, 1.0 / 8.0))


# -- pinwheel --------------------------------------------------------------------------------------------------------


def draw_pinwheel(n: int, seed: int) -> Floats:
    """Normal around (1, 0), long and thin; turned onto one of five arms, and further the farther out it is."""
    random = np.random.default_rng(seed)
    flat = np.array([1.0, 0.0]) + np.array([ALONG, ACROSS]) * random.standard_normal((n, 2))
    angle = 2.0 * np.pi / ARMS * random.integers(ARMS, size=n) + TWIST * np.exp(np.hypot(*flat.T))
    return turned(flat, angle)


def pinwheel_log_density(x: Floats) -> Floats:
    """Turning by an angle that depends on the radius keeps areas: the normal density where the point came from."""
    twist = TWIST * np.exp(np.hypot(*x.T))
    parts = []
    for arm in range(ARMS):
        flat = (turned(x, -twist - 2.0 * np.pi / ARMS * arm) - np.array([1.0, 0.0])) / np.array([ALONG, ACROSS])
        parts.append(-0.5 * (flat**2).sum(axis=1) - np.log(2.0 * np.pi * ALONG * ACROSS * ARMS))
    return np.asarray(np.logaddexp.reduce(parts, axis=0))


def turned(x: Floats, angle: Floats) -> Floats:
    """Every point of (n, 2) around 0 by its own angle."""
    c, s = np.cos(angle), np.sin(angle)
    return np.column_stack([c * x[:, 0] - s * x[:, 1], s * x[:, 0] + c * x[:, 1]])


# -- checkerboard ----------------------------------------------------------------------------------------------------


def draw_checkerboard(n: int, seed: int) -> Floats:
    """Uniform on the eight fields of one colour of a board with 4 × 4 fields of side 2."""
    random = np.random.default_rng(seed)
    row, half = random.integers(4, size=n), random.integers(2, size=n)
    corner = np.column_stack([row, 2 * half + row % 2])
    return np.asarray(2.0 * (corner + random.uniform(size=(n, 2))) - 4.0)


def checkerboard_log_density(x: Floats) -> Floats:
    """1/32 on the fields of that colour."""
    field = np.floor(x / 2.0).astype(int)
    on_board = (np.abs(x) < 4.0).all(axis=1) & (field.sum(axis=1) % 2 == 0)
    return np.where(on_board, -np.log(32.0), -np.inf)


# -- kernel estimates ------------------------------------------------------------------------------------------------


def gaussian_mixture(x: Floats, centres: Floats, std: float, weights: Floats | None = None) -> Floats:
    """Log-density (n,) of round Gaussians, of equal weight by default: a kernel estimate where centres are data."""
    return gaussian_mixtures(x, centres, np.array([std]), weights)[0]


def gaussian_mixtures(x: Floats, centres: Floats, stds: Floats, weights: Floats | None = None) -> Floats:
    """The same for several standard deviations, (k, n)."""
    shares = np.full(len(centres), 1.0 / len(centres)) if weights is None else weights
    logs = np.empty((len(stds), len(x)))
    for start in range(0, len(x), 100):  # what fits into the cache
        part = slice(start, start + 100)
        square = ((x[part, None, :] - centres) ** 2).sum(axis=2)
        nearest = square.min(axis=1)
        square -= nearest[:, None]
        for row, std in enumerate(stds):
            logs[row, part] = np.log(np.exp(-0.5 / std**2 * square) @ shares) - 0.5 * nearest / std**2
    return logs - np.log(2.0 * np.pi * stds[:, None] ** 2)


KINDS = {
    "moons": Kind(draw_moons, moons_log_density, 600),
    "8 Gaussians": Kind(draw_gaussians, gaussians_log_density, 2000),
    "pinwheel": Kind(draw_pinwheel, pinwheel_log_density, 2000),
    "checkerboard": Kind(draw_checkerboard, checkerboard_log_density, 2000),
}
