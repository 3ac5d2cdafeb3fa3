"""Labels keep their order: what it costs that one flow on a line moves all classes.

    python scripts/studies/labels_keep_order.py

Label 0 has a group on the left and one on the right and belongs on the right; label 1 stands between them and belongs
on the left; ℓ = κ/2 |x − c_y|². A field that sees the label passes the groups through one another and reaches the
ideal value. A field that does not moves all by one flow, and flows on the line keep the order of points: the best it
can do is to gather the two groups that want to pass in the middle, while the third one goes where it belongs.

How good can that be? A flow takes x to z(x), increasing, at a cost of at least λ/(2T) ∫|z − x|² dμ (straight lines,
which do not cross when z increases). So the best value without labels is a minimum over increasing maps,

    min over increasing z of  ∫ { κ/2 Σ_y p_y(x) |z − c_y|² + α/2 |z − x|² } dμ(x),   α = λ/T, p_y(x) = P(y | x).

which ``monotone_bound`` finds, for losses of any shape. With this one it is isotonic regression: with the mean target
c(x) = Σ_y p_y(x) c_y and z̄ = (αx + κ c)/(α + κ) the integrand is, up to terms without z, (α + κ)/2 |z − z̄(x)|², and the
minimiser the projection of z̄ on increasing functions in L²(μ). Where z is constant it is no homeomorphism: the value
is an infimum, approached and not attained. (Isotonic regression: Barlow, Bartholomew, Bremner and Brunk 1972.)
"""

from dataclasses import dataclass

from mpi4py import MPI  # noqa: F401 - starts MPI before anything else

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm
from study import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    VERMILION,
    Floats,
    LoadedRun,
    Table,
    line_configuration,
    normal_weights,
    particle_cost,
    print_table,
    problem_of,
    read_options,
    save_figure,
    train,
    trajectories,
    write_csv,
)

import eulerian as eu
from eulerian import ControlProblem
from eulerian.bounds.monotone_flows import MonotoneFlow, monotone_bound
from eulerian.objective.terminal import exact_density

BOX = (-4.0, 4.0)
GROUPS = ((0, -1.5), (1, 0.0), (0, 1.5))  # label and mean of three groups of equal mass
STD = 0.35
TARGETS = (1.0, -1.0)
LOSS_WEIGHT, KINETIC, HORIZON = 4.0, 1.0, 1.0  # κ, λ, T
ALPHA = KINETIC / HORIZON


@dataclass(frozen=True)
class Sizes:
    """How much work is done."""

    cells: int = 240
    layers: int = 16
    width: int = 16
    epsilon: float = 1e-6
    iterations: int = 200
    seeds: int = 2
    trial: int = 40


QUICK = Sizes(60, 4, 6, 1e-6, 60, 1, 15)


def value_at_rest() -> float:
    """J of v = 0."""
    return 0.5 * LOSS_WEIGHT * float(np.mean([(mean - TARGETS[label]) ** 2 + STD**2 for label, mean in GROUPS]))


def ideal_value() -> float:
    """J* with a velocity for every label: β/2 E|x − c_y|², β = ακ/(α + κ)."""
    return ALPHA / (ALPHA + LOSS_WEIGHT) * value_at_rest()


def label_weights(n: int) -> Floats:
    """Weights (K, n) of both classes at n points of the interval, of sum 1 over both."""
    weights = np.zeros((len(TARGETS), n))
    for label, mean in GROUPS:
        weights[label] += normal_weights(mean, STD, BOX, n)[1] / len(GROUPS)
    return weights


def best_increasing_map(cells: int = 240) -> MonotoneFlow:
    """The best that one field for both labels can do."""
    space = eu.DensitySpace(eu.box_mesh([BOX[0]], [BOX[1]], [cells]), labels=len(TARGETS))
    groups = {y: [eu.Gaussian(mean, std=STD) for label, mean in GROUPS if label == y] for y in range(len(TARGETS))}
    rho0 = space.project(groups)
    loss = eu.QuadraticLoss([[c] for c in TARGETS], LOSS_WEIGHT)
    return monotone_bound(eu.IdealProblem(space, rho0, loss, KINETIC, HORIZON), exact_density(rho0))


def wanted(flow: MonotoneFlow) -> Floats:
    """z̄: where the mass of each point is wanted on average, (n,)."""
    target = flow.masses @ np.array(TARGETS) / flow.masses.sum(axis=1)
    return (ALPHA * flow.points + LOSS_WEIGHT * target) / (ALPHA + LOSS_WEIGHT)


def configuration(sees_label: bool, sizes: Sizes, field: Table) -> Table:
    """Both classes, moved by one network that sees the label or does not."""
    initial = [{"kind": "gaussian", "mean": [mean], "std": STD, "label": label} for label, mean in GROUPS]
    terminal = {"kind": "quadratic", "targets": [[c] for c in TARGETS], "weight": LOSS_WEIGHT}
    return line_configuration(
        BOX,
        sizes.cells,
        initial,
        {**field, "layers": sizes.layers, "horizon": HORIZON, "label_dependent": sees_label},
        {"kinetic": KINETIC, "parameters": sizes.epsilon if field["kind"] == "mlp" else 0.0, "terminal": terminal},
    )


def make_problem(sees_label: bool, sizes: Sizes, field: Table) -> ControlProblem:
    """The control problem of ``configuration``."""
    return problem_of(configuration(sees_label, sizes, field))


def trained_network(sees_label: bool, sizes: Sizes) -> tuple[ControlProblem, LoadedRun]:
    """The best of several seeds, trained on."""

    def problem(seed: int) -> ControlProblem:
        return make_problem(sees_label, sizes, {"kind": "mlp", "hidden": [sizes.width], "seed": seed})

    trials = [train(problem(seed), None, sizes.trial) for seed in range(sizes.seeds)]
    best = problem(0)
    return best, train(best, min(trials, key=lambda trial: trial.total).theta, sizes.iterations)


def cost_without_mesh(problem: ControlProblem, theta: Floats, sees_label: bool, n: int = 2001) -> float:
    """What the network's flow costs by particles: never below the exact optimum of its class."""
    x = np.linspace(*BOX, n)
    groups = [
        (x, w, lambda z, c=c: 0.5 * LOSS_WEIGHT * (z - c) ** 2, label if sees_label else None)
        for label, (c, w) in enumerate(zip(TARGETS, label_weights(n), strict=True))
    ]
    return particle_cost(problem, theta, groups, KINETIC)


CASES = {True: "the field sees the label", False: "one field for all labels"}


def study(sizes: Sizes) -> tuple[list[Table], dict[bool, tuple[ControlProblem, LoadedRun]]]:
    """Rows of the table, and the trained network that sees the label and the one that does not."""
    trained = {sees_label: trained_network(sees_label, sizes) for sees_label in CASES}
    bounds = {True: ideal_value(), False: best_increasing_map().value}
    rows: list[Table] = []
    for sees_label, (problem, end) in trained.items():
        problem.value(end.theta)
        rows.append(
            {
                "field": CASES[sees_label],
                "exact": bounds[sees_label],
                "total": end.total,
                "flow": end.flow,
                "terminal": problem.parts["terminal"],
                "kinetic": problem.parts["kinetic"],
                "flow_gap": end.flow / bounds[sees_label] - 1.0,
                "particle_gap": cost_without_mesh(problem, end.theta, sees_label) / bounds[sees_label] - 1.0,
                "above_ideal": end.flow / bounds[True] - 1.0,
                "iterations": end.iterations,
                "seconds": round(end.seconds, 2),
            }
        )
    return rows, trained


COLOURS = (BLUE, VERMILION)  # of the labels
TALLEST = 2.5  # density shown: a group that is gathered in a point goes beyond


def figure(rows: list[Table], trained: dict[bool, tuple[ControlProblem, LoadedRun]]) -> Figure:
    """Paths and final densities of both fields; what they cost; the best increasing map and that of the network."""
    result = Figure(figsize=(10.0, 5.6), layout="constrained")
    grid = result.add_gridspec(2, 4, width_ratios=(1.55, 0.62, 0.18, 1.6))
    for row, (sees_label, (problem, end)) in enumerate(trained.items()):
        paths = result.add_subplot(grid[row, 0])
        final = result.add_subplot(grid[row, 1], sharey=paths)
        _draw_paths(paths, problem, end, sees_label)
        _draw_final(final, problem, end)
        paths.set_title(CASES[sees_label] + (": groups pass" if sees_label else ": order is kept"), loc="left")
        paths.set_xlabel("time $t$" if row else "")
    _draw_values(result.add_subplot(grid[0, 3]), rows)
    _draw_maps(result.add_subplot(grid[1, 3]), *trained[False])
    return result


def _draw_paths(axes: Axes, problem: ControlProblem, end: LoadedRun, sees_label: bool) -> None:
    """Points at the quantiles of every group, carried by the network."""
    steps = 8
    quantiles = STD * norm.ppf(np.linspace(0.04, 0.96, 12))
    times = np.linspace(0.0, HORIZON, steps * len(end.theta) + 1)
    for label, mean in GROUPS:
        lines = trajectories(problem, end.theta, mean + quantiles, label if sees_label else None, steps)
        axes.plot(times, lines, color=COLOURS[label], lw=0.8, alpha=0.85)
    for label, target in enumerate(TARGETS):
        axes.plot([HORIZON], [target], marker="<", ms=9, color=COLOURS[label], clip_on=False, zorder=5)
        axes.annotate(
            f"target {label}",
            (HORIZON, target + 0.45 * np.sign(target)),
            va="center",
            ha="right",
            fontsize=8,
            color=COLOURS[label],
        )
    axes.set(xlim=(0.0, HORIZON), ylim=(-2.4, 2.4), ylabel="$x$")


def _draw_final(axes: Axes, problem: ControlProblem, end: LoadedRun) -> None:
    """ρ(T) of both labels, turned to stand beside the paths."""
    problem.value(end.theta)
    space = problem.density_space
    x = space.vertices[:, :, 0]
    values = space.vertex_values(problem.final_density)
    order = np.argsort(x.mean(axis=1))
    for label, colour in enumerate(COLOURS):
        height = np.maximum(values[order, :, label].ravel(), 0.0)
        axes.fill_betweenx(x[order].ravel(), height, color=colour, alpha=0.35, lw=0)
        axes.plot(height, x[order].ravel(), color=colour, lw=1.0, label=f"label {label}")
    peak = values.sum(axis=2)
    if peak.max() > 2.0 * TALLEST:
        at = x.ravel()[np.argmax(peak)]
        axes.annotate("both pooled", (TALLEST, at), (-2, 6), textcoords="offset points", ha="right", fontsize=8)
    axes.tick_params(labelleft=False)
    axes.set(xlim=(0.0, TALLEST), xlabel=r"$\rho(T)$")
    axes.legend(loc="lower right", handlelength=1.2)


def _draw_values(axes: Axes, rows: list[Table]) -> None:
    """Bars of J in its two parts, with the exact optimum of each class as a line across."""
    for at, row in enumerate(rows):
        axes.barh(at, row["terminal"], 0.5, color=GREY, label="terminal loss" if at == 0 else None)
        axes.barh(at, row["kinetic"], 0.5, left=row["terminal"], color="0.8", label="kinetic" if at == 0 else None)
        name = "exact optimum" if at == 0 else None
        axes.plot([row["exact"]] * 2, [at - 0.36, at + 0.36], color=BLACK, lw=2.0, label=name)
        text = f"{row['flow']:.4f}, exact {row['exact']:.4f} ({100 * row['flow_gap']:+.2f} %)"
        axes.annotate(text, (0.02, at - 0.33), va="bottom", fontsize=8)
    axes.set(yticks=range(len(rows)), ylim=(1.5, -0.75), xlabel=f"$J$ ($v = 0$: {value_at_rest():.3f})")
    axes.set_title("What it costs", loc="left")
    axes.set_yticklabels(["sees\nlabel" if at == 0 else "one\nfield" for at in range(len(rows))])
    axes.legend(loc="upper right", ncols=3, handlelength=1.2)


def _draw_maps(axes: Axes, problem: ControlProblem, end: LoadedRun) -> None:
    """Where one field takes the point x: wanted on average, best increasing map, network."""
    exact = best_increasing_map()
    x = np.linspace(-2.4, 2.4, 241)
    axes.plot(exact.points, wanted(exact), color=GREY, lw=1.2, ls="--", label=r"best for each $x$ alone, $\bar z(x)$")
    axes.plot(exact.points, exact.destinations, color=BLACK, lw=2.4, label="best increasing map (exact)")
    axes.plot(x, trajectories(problem, end.theta, x)[-1], color=GREEN, lw=1.4, label="trained network")
    axes.set_title("Where one field can take the point $x$", loc="left")
    axes.set(xlim=(-2.4, 2.4), ylim=(-1.2, 2.3), xlabel="start $x$", ylabel="end $z(x)$")
    axes.legend(loc="upper left")


def main() -> None:
    options = read_options("labels_keep_order", __doc__)
    rows, trained = study(QUICK if options.quick else Sizes())
    print_table(rows)
    write_csv(options.output / "results.csv", rows)
    save_figure(options.output / "labels_keep_order.png", lambda: figure(rows, trained))


if __name__ == "__main__":
    main()
