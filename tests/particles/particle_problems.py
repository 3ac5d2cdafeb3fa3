"""Particle problems that many tests share, made of plain samples and without a mesh."""

from collections.abc import Callable
from typing import Any, Literal

from mpi4py import MPI

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.density.shape import LabelledShape
from eulerian.density.shapes import Formula, Gaussian, Samples
from eulerian.fields import Mlp
from eulerian.objective.costs import Costs
from eulerian.objective.distances import KullbackLeibler
from eulerian.objective.losses import CrossEntropyLoss
from eulerian.objective.point_loss import PointLoss
from eulerian.particles.kl import KlLoss
from eulerian.particles.problem import ParticleProblem
from eulerian.particles.sample import ParticleSample, share
from eulerian.transport.time_grid import TimeGrid

HORIZON, LAYERS, N_LABELS = 0.8, 3, 2
BOX = np.array([[-3.0, -3.0], [3.0, 3.0]])


def normal_sample(
    comm: MPI.Comm, n: int, mean: Floats, std: float, replicates: int = 4, seed: int = 0
) -> ParticleSample:
    """Independent draws from a normal density, labels in turn; the same points on any number of ranks."""
    dim = len(mean)
    x = mean + std * np.random.default_rng(seed).standard_normal((n, dim))
    log_density = -0.5 * np.sum((x - mean) ** 2, axis=1) / std**2 - dim * np.log(std * np.sqrt(2.0 * np.pi))
    own, numbers = share(n, comm), np.arange(n)
    return ParticleSample(
        x[own], (numbers % N_LABELS)[own], np.full(n, 1.0 / n)[own], log_density[own], numbers[own] % replicates
    )


def relative_entropy() -> KlLoss:
    """Against a mixture of every kind of term, of two labels."""
    rng = np.random.default_rng(5)
    terms = [
        LabelledShape(Gaussian([1.0, -0.3], [[0.5, 0.2], [0.2, 0.8]]), 0, 0.3),
        LabelledShape(Samples(rng.standard_normal((7, 2)), [0.4, 0.7]), 0, 0.2),
        LabelledShape(Formula("exp(-x**2/3 - y**2/2) * (1.1 + sin(x))"), 1, 0.5),
    ]
    return KlLoss.of(terms, [1.0, 1.0, 5.0], N_LABELS)


def trained_readout() -> PointLoss:
    """Cross-entropy of two labels."""
    return CrossEntropyLoss(np.array([[1.0, 0.3], [-0.4, 0.8]]), np.array([0.1, -0.2]), trained=True)


def swarm(
    comm: MPI.Comm,
    loss: Any,
    method: Literal["rk4", "dopri5"] = "rk4",
    *,
    n: int = 23,
    label_dependent: bool = False,
    tied: bool = False,
    seed: int = 1,
    max_speed: float | None = None,
    interaction: Any = None,
    **options: Any,
) -> ParticleProblem:
    """A problem with every running cost, in two dimensions."""
    n_labels = N_LABELS if label_dependent else 0
    field = Mlp(2, (5, 4), n_labels=n_labels, zero_init=False, output_scale=1.5, max_speed=max_speed)
    rng = np.random.default_rng(seed)
    rows = np.stack([field.init(rng) for _ in range(1 if tied else LAYERS)])
    return ParticleProblem(
        normal_sample(comm, n, np.array([-0.3, 0.2]), 0.6),
        field,
        KullbackLeibler(loss) if getattr(loss, "adds_log_density", False) else loss,
        Costs(
            kinetic=0.7,
            jacobian=0.3,
            parameters=0.05,
            parameters_h1=0.02,
            potential="x**2/2 + cos(y)",
            interaction=interaction,
        ),
        TimeGrid(HORIZON, LAYERS),
        comm=comm,
        n_labels=N_LABELS,
        box=BOX,
        initial_theta=rows,
        label_dependent=label_dependent,
        tied=tied,
        method=method,
        steps_per_layer=2,
        tolerance=1e-5,
        **options,
    )


def require_exact(gradient: Floats, theta: Floats, value: Callable[[Floats], float], largest: float = 2e-2) -> None:
    """Fail unless central differences of a value come to its gradient, with second order."""
    direction, errors = np.random.default_rng(8).standard_normal(theta.shape), []
    for e in (largest, largest / 2.0, largest / 4.0):
        ahead, behind = (value(theta + s * direction) for s in (e, -e))
        errors.append(abs((ahead - behind) / (2 * e) - np.vdot(gradient, direction)))
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all((rates > 1.9) & (rates < 2.1)), errors
    assert errors[-1] < 1e-3 * np.linalg.norm(gradient) * np.linalg.norm(direction)
