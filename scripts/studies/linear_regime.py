"""Linear regime: fields that are linear in θ come down to the best of all flows as their features grow.

    python scripts/studies/linear_regime.py

v(x, θ) = Σ_k θ_k ψ_k(x) + b: affine, random Fourier features, radial basis functions and residual blocks with frozen
inner weights, 2 … 64 features, for a smooth double well on a line. For these fields a minimiser exists for every
ε > 0 (Isobe and Okumura 2024, doi:10.4208/jml.231210); the figure shows its value against J* of the best of all flows
(Hopf-Lax) and against the best flow on the same mesh.

The optimality condition is checked independently of meshes and adjoints: with particles x_t carried by the trained
field and p = ∇φ along them (dp/dt = −∇vᵀ(p + λv), p(T) = ∇ℓ), every layer must satisfy

    (λG + εI) θ = −π,   G_jk = ∫ψ_j·ψ_k dμ_t,   π_k = ∫ψ_k·∇φ dμ_t    (means over the layer).

The table gives the distance between the trained v and the v that solves this linear system for the same G and π,
relative in L²(μ); in J it counts squared.

The optimiser starts from the trained field of the width before, projected on the new features in L²(μ), and works in
coordinates in which λG + εI is the identity there. Random draws of different widths are not nested, so J need
not fall from one to the next, and many smooth waves are nearly dependent: where the eigenvalues of G are below
ε, it is ε and not the number of features that decides.
"""

import time
from dataclasses import dataclass

from mpi4py import MPI  # noqa: F401 - starts MPI before anything else

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import minimize
from study import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    SMOOTH,
    VERMILION,
    Floats,
    LoadedRun,
    Table,
    cost_without_mesh,
    distances,
    flow_cost,
    percent,
    powers_of_two,
    print_table,
    read_options,
    save_figure,
    train,
    trajectories,
    well_particles,
    well_problem,
    write_csv,
)

from eulerian import ControlProblem

BOX = (-3.25, 3.75)  # the mean ± 4.4 standard deviations: beyond, features would be free to do anything
FAMILIES = ("random", "rbf", "residual")
SPREAD = 3e-3
SUBSTEPS = 16  # of a layer, for the particles
MOST_STEPS = 600  # in a layer: few features that are to fit the data are large where there are none


@dataclass(frozen=True)
class Sizes:
    """How much work is done."""

    cells: int = 168
    layers: int = 12
    widths: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    epsilon: float = 1e-8
    iterations: int = 100
    free: int = 400
    particles: int = 401


QUICK = Sizes(60, 4, (2, 4, 8), iterations=30, free=60, particles=201)


def features(problem: ControlProblem, x: Floats) -> Floats:
    """All ψ_k, the constant last, at points x (n,): (n, p). By linearity, the fields of the unit vectors."""
    (p,) = problem.layer_shape[1:]
    return np.stack([problem.field.value(unit, x[:, None])[:, 0] for unit in np.eye(p)], axis=1)


def slopes(problem: ControlProblem, theta: Floats, x: Floats) -> Floats:
    """∂v/∂x at points x (n,): (n,)."""
    return problem.field.jacobian(theta, x[:, None])[:, 0, 0]


def projected(problem: ControlProblem, before: ControlProblem, theta: Floats, sizes: Sizes) -> Floats:
    """θ (L, p) of the field nearest to another problem's trained one: least λ/2 ∫|v−v'|² dμ_t + ε/2 |θ|² per layer."""
    x, w = well_particles(sizes.particles, BOX)
    rows = []
    for row, here in zip(theta, trajectories(before, theta, x, steps=2)[1::2], strict=True):
        psi = features(problem, here)
        pull = psi.T @ (w * before.field.value(row, here[:, None])[:, 0])
        gram = psi.T @ (w[:, None] * psi)
        rows.append(np.linalg.solve(gram + sizes.epsilon / SMOOTH.kinetic * np.eye(len(gram)), pull))
    return np.array(rows)


def metric(problem: ControlProblem, before: ControlProblem, theta: Floats, sizes: Sizes) -> Floats:
    """λG + εI (L, p, p) in the middle of every layer of another problem's trained flow.

    A little mass, SPREAD, is put evenly over the interval: velocities matter somewhat where nothing is yet.
    """
    x, w = well_particles(sizes.particles, BOX)
    even = np.linspace(*BOX, sizes.particles)
    weights = np.concatenate([(1.0 - SPREAD) * w, np.full(sizes.particles, SPREAD / sizes.particles)])
    result = []
    for here in trajectories(before, theta, x, steps=2)[1::2]:
        psi = features(problem, np.concatenate([here, even]))
        result.append(SMOOTH.kinetic * psi.T @ (weights[:, None] * psi) + sizes.epsilon * np.eye(psi.shape[1]))
    return np.array(result)


def train_whitened(problem: ControlProblem, start: Floats, gram: Floats, iterations: int) -> LoadedRun:
    """Minimise J in coordinates in which ``gram`` (L, p, p), an estimate of the Hessian per time, is the identity.

    Features overlap: the more there are the closer G is to singular, and in θ itself L-BFGS crawls.
    """
    started = time.perf_counter()
    roots = np.linalg.cholesky(gram * problem.grid.layer_time)
    inverse = np.linalg.inv(roots)
    worst = 10.0 * problem.value(np.zeros_like(start))  # what a trial point counts at which J cannot be evaluated
    best = (worst, np.zeros_like(start))

    def theta_of(z: Floats) -> Floats:
        return np.einsum("lji,lj->li", inverse, z.reshape(start.shape))

    def cost(z: Floats) -> tuple[float, Floats]:
        nonlocal best
        theta = theta_of(z)
        value, gradient = problem.value_and_gradient(theta)
        best = min(best, (value, theta), key=lambda pair: pair[0])
        return min(value, worst), np.einsum("lij,lj->li", inverse, gradient).ravel()

    z = np.einsum("lji,lj->li", roots, start).ravel()
    found = minimize(
        cost, z, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "maxcor": 30, "ftol": 1e-11, "gtol": 1e-9}
    )
    total, theta = best
    problem.value(theta)
    return LoadedRun(theta, total, flow_cost(problem), int(found.nit), time.perf_counter() - started)


def optimality_distance(problem: ControlProblem, theta: Floats, sizes: Sizes) -> float:
    """Distance in L²(μ) from v to the field that solves (λG + εI) θ = −π in every layer, relative to v."""
    x, w = well_particles(sizes.particles, BOX)
    path = trajectories(problem, theta, x, steps=SUBSTEPS)
    w = np.where(np.any((path <= BOX[0]) | (path >= BOX[1]), axis=0), 0.0, w)  # the condition knows no walls
    dt = problem.grid.layer_time / SUBSTEPS
    trapezoid = np.full(SUBSTEPS + 1, 1.0 / SUBSTEPS)
    trapezoid[[0, -1]] *= 0.5
    momentum = SMOOTH.slope(path[-1])  # p = ∇φ at the particles
    error = size = 0.0
    for layer in reversed(range(len(theta))):
        row, points = theta[layer], path[layer * SUBSTEPS : (layer + 1) * SUBSTEPS + 1]
        psi = [features(problem, here) for here in points]
        momenta = _backwards(problem, row, points, momentum, dt)
        weights = [time * w[:, None] * at for time, at in zip(trapezoid, psi, strict=True)]
        gram = sum(weight.T @ at for weight, at in zip(weights, psi, strict=True))
        pull = sum(weight.T @ p for weight, p in zip(weights, momenta, strict=True))
        best = np.linalg.solve(SMOOTH.kinetic * gram + sizes.epsilon * np.eye(len(row)), -pull)
        error += (best - row) @ gram @ (best - row)
        size += row @ gram @ row
        momentum = momenta[0]
    return float(np.sqrt(error / size))


def _backwards(problem: ControlProblem, row: Floats, points: Floats, last: Floats, dt: float) -> list[Floats]:
    """∇φ at the particles of one layer, from dp/dt = −∇v(p + λv) by the implicit trapezoidal rule."""
    slope = [slopes(problem, row, here) for here in points]
    source = [
        SMOOTH.kinetic * s * problem.field.value(row, here[:, None])[:, 0]
        for s, here in zip(slope, points, strict=True)
    ]
    momenta = [last]
    for step in reversed(range(len(points) - 1)):
        forward = momenta[0] * (1.0 + 0.5 * dt * slope[step + 1]) + 0.5 * dt * (source[step] + source[step + 1])
        momenta.insert(0, forward / (1.0 - 0.5 * dt * slope[step]))
    return momenta


def linear_field(family: str, width: int) -> Table:
    """The field of one family."""
    return {"kind": "linear", "features": family} | ({} if family == "affine" else {"width": width})


def study(sizes: Sizes) -> list[Table]:
    """Every number, as rows of a table."""
    ideal = SMOOTH.ideal(BOX)
    rows: list[Table] = []

    def add(family: str, width: int | str, problem: ControlProblem, end: LoadedRun) -> None:
        particles = distance = float("nan")
        if family != "free":  # which is known at the nodes of its mesh only
            particles = cost_without_mesh(problem, end.theta, SMOOTH, BOX)
            distance = optimality_distance(problem, end.theta, sizes)
        row = {"features": family, "width": width, **distances(ideal, end, particles)}
        rows.append({**row, "optimality_distance": distance})

    def make(field: Table, epsilon: float = sizes.epsilon, most_steps: int = MOST_STEPS) -> ControlProblem:
        return well_problem(SMOOTH, field, sizes.cells, sizes.layers, epsilon, box=BOX, most_steps=most_steps)

    free, affine = make({"kind": "free"}, 0.0, 150), make(linear_field("affine", 1))
    add("free", "", free, train(free, None, sizes.free))
    simplest = train(affine, None, sizes.iterations)
    add("affine", 1, affine, simplest)
    for family in FAMILIES:
        before, end = affine, simplest
        for width in sizes.widths:
            problem = make(linear_field(family, width))
            start = projected(problem, before, end.theta, sizes)
            gram = metric(problem, before, end.theta, sizes)
            before, end = problem, train_whitened(problem, start, gram, sizes.iterations)
            add(family, width, problem, end)
    return rows


NAMES = {"random": "random Fourier", "rbf": "radial basis", "residual": "residual blocks"}
COLOURS = {"random": VERMILION, "rbf": BLUE, "residual": GREEN}


def figure(rows: list[Table]) -> Figure:
    """The gap to the ideal value, and the distance from the optimality condition, against the number of features."""
    result = Figure(figsize=(8.6, 3.3), layout="constrained")
    gaps, conditions = result.subplots(1, 2, width_ratios=(1.35, 1.0))
    floor, affine = (next(row for row in rows if row["features"] == name) for name in ("free", "affine"))
    _draw_gaps(gaps, rows, floor["flow_gap"])
    for axes, key in ((gaps, "flow_gap"), (conditions, "optimality_distance")):
        axes.plot([1], [affine[key]], "D", color=BLACK, ms=5, label="affine")
        powers_of_two(axes, sorted({row["width"] for row in rows if row["width"] != ""}), "features")
    for family in FAMILIES:
        width, distance = _series(rows, family, "optimality_distance")
        conditions.plot(width, distance, "o-", color=COLOURS[family], ms=4.5, lw=1.3)
    conditions.set(ylabel=r"$\|v - v_{opt}\| / \|v\|$ in $L^2(\mu)$", yscale="log")
    conditions.set_title(r"Optimality condition $(\lambda G + \varepsilon I)\theta = -\pi$", loc="left")
    gaps.set_title("Richer features come down to the best of all flows", loc="left")
    gaps.legend(loc="upper right")
    return result


def _draw_gaps(axes: Axes, rows: list[Table], floor: float) -> None:
    axes.axhline(floor, color=BLACK, lw=1.2, ls="--")
    axes.axhspan(1e-9, floor, color="0.93", lw=0)
    axes.annotate("best flow on this mesh", (1.0, floor), (0, 3), textcoords="offset points", fontsize=8)
    for family in FAMILIES:
        axes.plot(*_series(rows, family, "flow_gap"), "o-", color=COLOURS[family], ms=4.5, lw=1.3, label=NAMES[family])
        axes.plot(*_series(rows, family, "total_gap"), "o:", color=COLOURS[family], ms=4.5, lw=0.8, mfc="white")
    axes.plot(
        [], [], "o:", color=GREY, mfc="white", ms=4.5, lw=0.8, label=r"with $\frac{\varepsilon}{2}\int|\theta|^2$"
    )
    axes.set(ylabel="$J/J^* - 1$", yscale="log", ylim=(0.5 * floor, 1.0))
    percent(axes)


def _series(rows: list[Table], family: str, key: str) -> tuple[list[int], list[float]]:
    own = [row for row in rows if row["features"] == family]
    return [row["width"] for row in own], [row[key] for row in own]


def main() -> None:
    options = read_options("linear_regime", __doc__)
    rows = study(QUICK if options.quick else Sizes())
    print_table(rows)
    write_csv(options.output / "results.csv", rows)
    save_figure(options.output / "linear_regime.png", lambda: figure(rows))


if __name__ == "__main__":
    main()
