"""No minimiser: the infimum 3/4 is approached by ever shorter, ever stronger pulses, and never attained.

    python scripts/studies/no_minimiser.py

A point at 0 is to be moved to 1, J(θ) = (x(1) − 1)² + ∫θ² dt, by v = θ⁴/(1 + θ²), constant in x. A strong pulse is
cheap: per unit of cost θ² it moves the point by θ²/(1 + θ²) < 1, and the more the stronger it is. With U spent in one
of L layers, τ = 1/L long, it moves by U²/(τ + U), so

    V_L = min over U ≥ 0 of  U + (1 − U²/(τ + U))²  =  3/4 + 1/L + O(1/L²)  >  3/4 = min over U of  U + (1 − U)²

(one layer is best, because u ↦ u²/(1 + u) is convex). The limit θ² → δ/2 is no function, and weakly θ → 0, whose J is
1: v is not linear in θ, and the theorem that gives a minimiser for linear fields has nothing to say.

The same is found here by the optimiser, on densities: the point is a narrow normal density, whose variance adds to
J a constant that is taken off. Every L starts from the pulse of L/2, slightly disturbed, and from random θ.
"""

from dataclasses import dataclass
from pathlib import Path

from mpi4py import MPI  # noqa: F401 - starts MPI before anything else

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar
from study import (
    BLACK,
    BLUE,
    GREY,
    VERMILION,
    Floats,
    Table,
    line_configuration,
    powers_of_two,
    print_table,
    problem_of,
    read_options,
    save_figure,
    train,
    write_csv,
)

from eulerian import ControlProblem

INFIMUM = 0.75
FOLDER = Path(__file__).resolve().parent
BOX = (-0.4, 1.6)
STD = 0.05


class Pulse:
    """v(x, θ) = θ⁴/(1 + θ²) in the direction of x, the same everywhere: one parameter, not linear in it."""

    def n_params(self, dim: int, /) -> int:
        """One."""
        return dim

    def init(self, rng: np.random.Generator, /) -> Floats:
        """A θ about 1."""
        return 1.0 + 0.1 * rng.standard_normal(1)

    def value(self, theta: Floats, x: Floats, label: int | None = None) -> Floats:  # noqa: ARG002 - the protocol's
        """Velocities (n, 1) at points x (n, 1)."""
        return np.full_like(x, speed(theta[0]))

    def vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:  # noqa: ARG002
        """Gradient (1,) of Σ_n w_n v(x_n, θ), w (n, 1)."""
        u = theta[0] ** 2
        return np.array([2.0 * theta[0] * u * (2.0 + u) / (1.0 + u) ** 2 * w.sum()])


def speed(theta: float | Floats) -> Floats:
    """θ⁴/(1 + θ²)."""
    return np.asarray(np.square(np.square(theta)) / (1.0 + np.square(theta)))


def exact_value(layers: float) -> tuple[float, float]:
    """V_L and the cost U that is spent on the pulse, 0 where it does not pay."""
    tau = 1.0 / layers

    def cost(spent: float | Floats) -> float | Floats:
        return spent + (1.0 - spent**2 / (tau + spent)) ** 2

    grid = np.linspace(0.0, 1.5, 301)
    near = grid[np.argmin(cost(grid))]
    least = minimize_scalar(
        cost, bounds=(max(near - 0.01, 0.0), near + 0.01), method="bounded", options={"xatol": 1e-12}
    )
    return (float(least.fun), float(least.x)) if least.fun < 1.0 else (1.0, 0.0)


@dataclass(frozen=True)
class Sizes:
    """How much work is done."""

    cells: int = 100
    layers: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    seeds: int = 3
    iterations: int = 60


QUICK = Sizes(60, (1, 2, 4, 8), 2, 40)


def configuration(layers: int, cells: int) -> Table:
    """A narrow normal density at 0, the target 1, ε = 2 and λ = 0."""
    return line_configuration(
        BOX,
        cells,
        [{"kind": "gaussian", "mean": [0.0], "std": STD}],
        {"kind": "python", "object": "no_minimiser:Pulse", "folder": str(FOLDER), "layers": layers, "horizon": 1.0},
        {"parameters": 2.0, "terminal": {"kind": "quadratic", "target": [1.0], "weight": 2.0}},
        most_steps=500,  # all of the way in one layer
    )


def make_problem(layers: int, cells: int) -> ControlProblem:
    """The control problem of ``configuration``."""
    return problem_of(configuration(layers, cells))


def starts(layers: int, before: Floats | None, seeds: int) -> list[Floats]:
    """Where to start: the best θ of half as many layers, slightly disturbed, and random θ of cost about 1/2."""
    rng = np.random.default_rng(layers)
    shares = rng.exponential(size=(seeds, layers, 1))
    found = list(np.sqrt(0.5 * layers * shares / shares.sum(axis=1, keepdims=True)))
    if before is not None:
        split = np.repeat(before, layers // len(before), axis=0)
        found.append(split * (1.0 + 0.05 * rng.standard_normal(split.shape)))
    return found


def study(sizes: Sizes) -> tuple[list[Table], dict[int, Floats]]:
    """Rows of the table, and the best θ (L,) of every L."""
    rows: list[Table] = []
    controls: dict[int, Floats] = {}
    before: Floats | None = None
    for layers in sizes.layers:
        problem = make_problem(layers, sizes.cells)
        _, covariance = problem.density_space.mean_and_covariance(problem.initial_density)
        ends = [train(problem, start, sizes.iterations) for start in starts(layers, before, sizes.seeds)]
        best = min(ends, key=lambda end: end.total)
        spent = best.theta[:, 0] ** 2 / layers
        exact, exact_spent = exact_value(layers)
        rows.append(
            {
                "layers": layers,
                "exact": exact,
                "found": best.total - float(covariance[0, 0, 0]),
                "exact_spent": exact_spent,
                "spent": float(spent.sum()),
                "largest_share": float(spent.max() / spent.sum()) if spent.sum() > 1e-6 else 0.0,
                "starts_that_move": sum(end.total < 0.999 for end in ends),
                "starts": len(ends),
                "seconds": round(sum(end.seconds for end in ends), 2),
            }
        )
        before = best.theta
        controls[layers] = best.theta[:, 0]
    return rows, controls


def figure(rows: list[Table], controls: dict[int, Floats]) -> Figure:
    """The values against the number of layers, their distance to the infimum, and the pulses."""
    result = Figure(figsize=(10.0, 3.1), layout="constrained")
    values, gaps, pulses = result.subplots(1, 3, width_ratios=(1.0, 0.9, 1.35))
    layers = np.array([row["layers"] for row in rows], dtype=float)
    found = np.array([row["found"] for row in rows])
    fine = np.geomspace(1.0, 4.0 * layers.max(), 400)
    exact = np.array([exact_value(count)[0] for count in fine])
    for axes, shift in ((values, 0.0), (gaps, INFIMUM)):
        axes.plot(fine, exact - shift, color=BLACK, lw=1.2, label="exact minimum with $L$ layers")
        axes.plot(layers, found - shift, "o", color=VERMILION, ms=5.5, label="found on densities")
        powers_of_two(axes, [*layers[::2], 4.0 * layers[-1]], "layers $L$")
    values.axhline(INFIMUM, color=BLUE, lw=1.4, ls="--")
    values.annotate("infimum 3/4: never attained", (1.0, INFIMUM), (0, -11), textcoords="offset points", color=BLUE)
    values.set(ylabel="$J$", ylim=(0.71, 1.1))
    values.legend(loc="upper right")
    gaps.plot(fine, 1.0 / fine, color=GREY, lw=0.9, ls=":")
    gaps.annotate("$1/L$", (2.0, 0.5), (6, 2), textcoords="offset points", color=GREY)
    gaps.set(ylabel="$J - 3/4$", yscale="log")
    _draw_pulses(pulses, controls)
    titles = (
        "The best value with $L$ layers …",
        "… comes down to 3/4 like $1/L$",
        r"… as one pulse takes all of $\theta$",
    )
    for axes, title in zip((values, gaps, pulses), titles, strict=True):
        axes.set_title(title, loc="left")
    return result


def _draw_pulses(axes: Axes, controls: dict[int, Floats]) -> None:
    """θ² over time, every pulse moved to the middle: J does not depend on when it comes."""
    moving = {layers: theta for layers, theta in controls.items() if np.any(theta**2 > 1e-3)}
    shades = matplotlib.colormaps["viridis"](np.linspace(0.95, 0.0, max(len(moving), 1)))
    for (layers, theta), colour in zip(moving.items(), shades, strict=True):
        edges = np.linspace(0.0, 1.0, layers + 1)
        at = int(np.argmax(theta**2))
        edges += 0.5 - 0.5 * (edges[at] + edges[at + 1])
        spent = np.sum(theta**2) / layers
        label = rf"$L = {layers}$: $\int\theta^2 = {spent:.2f}$"
        axes.stairs(theta**2, edges, color=colour, alpha=0.25, fill=True)
        axes.stairs(theta**2, edges, color=colour, lw=1.5, label=label, baseline=0.0)
    axes.set(xlim=(0.3, 0.7), xlabel="time $t$ (pulses moved to the middle)", ylabel=r"$\theta_t^2$", ylim=(0.0, None))
    axes.legend(loc="upper right")


def main() -> None:
    options = read_options("no_minimiser", __doc__)
    rows, controls = study(QUICK if options.quick else Sizes())
    print_table(rows)
    write_csv(options.output / "results.csv", rows)
    pulses = [
        {"layers": n, "layer": i, "theta": float(x)} for n, theta in controls.items() for i, x in enumerate(theta)
    ]
    write_csv(options.output / "pulses.csv", pulses)
    save_figure(options.output / "no_minimiser.png", lambda: figure(rows, controls))


if __name__ == "__main__":
    main()
