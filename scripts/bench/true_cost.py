"""What a network's flow really costs, for losses at points: points that nobody trained on, steps that are small."""

import numpy as np
from jax_particles import Floats, Task, normal_points


def velocity(task: Task, row: Floats, t: float, x: Floats) -> Floats:
    """The network (n, 2) -> (n, 2), for one label."""
    n, m = task.hidden, task.inputs
    w1, b1 = row[: n * m].reshape(n, m), row[n * m : n * m + n]
    w2, b2 = row[n * m + n : -2].reshape(2, n), row[-2:]
    z = x if task.layers else np.column_stack([x, np.full(len(x), t)])
    return np.asarray(np.tanh(z @ w1.T + b1) @ w2.T + b2)


def true_cost(task: Task, theta: Floats, points: int = 2**13, steps: int = 64) -> float:
    """J of the flow of θ (rows, p) on fresh Sobol points of the initial Gaussian, with about that many steps of RK4."""
    x = np.array(task.means[0]) + task.std * normal_points(points, seed=12345)
    per_layer = -(-steps // max(task.layers, 1))
    steps = per_layer * max(task.layers, 1)
    h, energy = task.horizon / steps, 0.0
    for step in range(steps):
        row = theta[step // per_layer] if task.layers else theta[0]
        t = step * h
        a = velocity(task, row, t, x)
        b = velocity(task, row, t + 0.5 * h, x + 0.5 * h * a)
        c = velocity(task, row, t + 0.5 * h, x + 0.5 * h * b)
        d = velocity(task, row, t + h, x + h * c)
        squares = [np.mean((k**2).sum(axis=1)) for k in (a, b, c, d)]
        energy += h / 6.0 * (squares[0] + 2.0 * squares[1] + 2.0 * squares[2] + squares[3])
        x = x + h / 6.0 * (a + 2.0 * b + 2.0 * c + d)
    loss = 0.5 * task.weight * np.mean(((x - np.array(task.targets[0])) ** 2).sum(axis=1))
    return float(loss + 0.5 * task.kinetic * energy)


def ideal_cost(task: Task) -> float:
    """J* of the best of all flows: (β/2)(|m − c|² + 2 s²), α = λ/T, β = ακ/(α + κ), by Hopf and Lax."""
    alpha, kappa = task.kinetic / task.horizon, task.weight
    beta = alpha * kappa / (alpha + kappa)
    distance = np.sum((np.array(task.means[0]) - np.array(task.targets[0])) ** 2)
    return float(0.5 * beta * (distance + 2.0 * task.std**2))
