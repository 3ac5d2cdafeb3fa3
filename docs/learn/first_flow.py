# %% [markdown]
# # A first flow
#
# A density of mass one sits around the point $(-0.5, 0.3)$. A flow is to carry it to the point $c = (1, -0.5)$, in time
# $T = 1$ and with little effort. This page states that as an optimal control problem, solves it on a mesh, and says how
# far the answer is from the best that any flow could do. It runs in about ten seconds: `python
# docs/learn/first_flow.py`.
#
# The unknown is $\theta$, the parameters of a velocity field $v_\theta(t, x)$. The field moves the density $\rho$ by
# the continuity equation, and $\theta$ is to minimise what is left of the distance to $c$ plus the effort on the way:
#
# $$
# J(\theta) = \int \tfrac12 |x - c|^2\, \rho(T, x)\, dx
#           + \frac{\lambda}{2} \int_0^T\!\!\int |v_\theta|^2 \rho\, dx\, dt,
# \qquad \partial_t \rho + \operatorname{div}(v_\theta\, \rho) = 0, \quad \rho(0) = \rho_0 .
# $$
#
# If you come from FEniCSx: this is a problem constrained by a PDE with state $\rho$ and control $\theta$. If you come
# from JAX: it is a neural ODE $\dot x = v_\theta(t, x)$ which is trained on the density of its data instead of samples
# of it.
#
# ## A mesh, and densities on it
#
# The domain is a square, cut into $22 \times 22$ squares and these into triangles. Any DOLFINx mesh of simplices will
# do as well. A {py:class}`~eulerian.DensitySpace` holds the functions that a density can be: on every triangle a
# polynomial of degree 2, with jumps from one triangle to the next (a discontinuous Galerkin space).

# %%
import eulerian as eu

mesh = eu.box_mesh([-3.0, -3.0], [3.0, 3.0], [22, 22])
space = eu.DensitySpace(mesh, degree=2)
rho0 = space.project(eu.Gaussian([-0.5, 0.3], std=0.5))
print(f"mass {rho0.mass[0]:.6f}, mean {rho0.mean[0].round(4)}")

# %% [markdown]
# Nothing flows through the boundary of the domain: it is a wall. So the square is chosen much larger than the density,
# and its walls will not be felt. The density is scaled to mass 1 when it is projected, and the flow keeps that mass to
# rounding.
#
# ## A network that is the velocity
#
# {py:class}`~eulerian.Mlp` with the arguments `2, [16]` is a perceptron from points of the plane to velocities, with
# one hidden layer of 16 neurons. Time enters through `TimeGrid`: the interval $[0, T]$ is cut into eight *layers*, and
# each has parameters of its own. Within a layer the velocity does not depend on time. (Layers are no time steps: of
# those the solver takes as many in each layer as stability asks for.)

# %%
field = eu.Mlp(2, [16])
time = eu.TimeGrid(horizon=1.0, layers=8)

# %% [markdown]
# ## The problem
#
# A {py:class}`~eulerian.ControlProblem` puts this together. Its arguments are the two terms of $J$ above, the loss at
# $T$ and the weight $\lambda = 0.5$ of the kinetic energy. A very small price of $|\theta|^2$ keeps the parameters from
# growing without need.

# %%
loss = eu.QuadraticLoss([1.0, -0.5])
costs = eu.Costs(kinetic=0.5, parameters=1e-6)
problem = eu.ControlProblem(space, field, rho0, loss, costs, time)

theta = problem.initial_theta
J, gradient = problem.value_and_gradient(theta)
print(f"θ is an array {theta.shape}: layers × parameters; J = {J:.4f} at the start")

# %% [markdown]
# The gradient is the exact derivative of the $J$ that the mesh computes: of every time step, the limiter that keeps
# densities from becoming negative included. Any optimiser can use it. A network starts with its last weights at zero,
# so nothing moves yet, and all of $J$ is the loss.
#
# ## Train
#
# {py:func}`~eulerian.minimise` is a quasi-Newton method (L-BFGS of PETSc's TAO).

# %%
result = eu.minimise(problem, max_iterations=60)
print(result)
for name in ("terminal", "kinetic", "parameters"):
    print(f"{name:12}{problem.parts[name]:.6f}")

assert result.value < J / 2

# %% [markdown]
# The price of moving stops the density short of $c$: at the best flow, one more step towards $c$ would cost as much as
# it gains. A smaller $\lambda$ brings it closer.
#
# ## How good is that?
#
# Over *all* velocity fields, not only those of a network, this problem has a known solution. The best flow takes every
# $x$ on a straight line to $(x + 2c)/3$, and costs
#
# $$
# J^* = \frac{\lambda}{2 (1 + \lambda)} \bigl( |m - c|^2 + 2 s^2 \bigr) = 0.565
# $$
#
# with the mean $m$ and standard deviation $s$ of $\rho_0$. {py:func}`~eulerian.hopf_lax` computes such optima for any
# loss on points, here without the tails of the Gaussian that lie outside the square. No network can be better, at least
# up to the error of the mesh.

# %%
ideal = eu.IdealProblem(space, rho0, loss, kinetic=0.5)
best = eu.hopf_lax(ideal)
print(f"the best of all flows: {best.value:.6f} ± {best.error:.0e}")
above = 100 * (result.value / best.value - 1)
print(f"this network:          {result.value:.6f}, {above:.2f} % above it")

assert abs(best.value - 0.565) < 1e-5
assert 0 < result.value - best.value < 2e-3

# %% [markdown]
# ## Is the number true?
#
# $J$ was computed on a mesh, and a mesh has an error. But the network is a velocity field by itself, and the ordinary
# differential equation $\dot x = v_\theta(t, x)$ can be solved much more exactly: `verify` follows many points of
# $\rho_0$ along the network's own flow, with the density along their paths, and computes $J$ again.

# %%
flow = eu.Flow(problem, result.theta)
verified = flow.verify()
print(verified.statement)

assert abs(verified.relative_error) < 1e-3

# %% [markdown]
# The first number is what the network is worth, and the second what the mesh said; they differ by far less than the
# distance to the optimum. The last sentence compares the densities at $T$, which are harder to resolve than $J$.
#
# ## Look at it
#
# `flow.density(t)` is the density of the mesh at any time, a function that can be evaluated at points, and
# `flow.velocity(t, x)` the velocity. A few points that move with the flow show the paths, which are to be straight.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np


def paths(points, steps=32):
    """Positions (steps + 1, n, 2) of points (n, 2) on their way, by the midpoint rule."""
    way, dt = [points], flow.horizon / steps
    for k in range(steps):
        half = way[-1] + 0.5 * dt * flow.velocity(k * dt, way[-1])
        way.append(way[-1] + dt * flow.velocity((k + 0.5) * dt, half))
    return np.array(way)


axis = np.linspace(-2.5, 2.5, 151)
grid = np.stack(np.meshgrid(axis, axis), axis=-1)
figure, panel = plt.subplots(figsize=(5.4, 4.6), layout="constrained")
for t, colours in ((0.0, "Blues"), (1.0, "Reds")):
    values = flow.density(t).total(grid.reshape(-1, 2)).reshape(grid.shape[:2])
    levels = np.linspace(0.05, 1.0, 8) * values.max()
    panel.contourf(axis, axis, values, levels=levels, cmap=colours, alpha=0.8)
panel.plot(*paths(rho0.draw(40, seed=0, method="sobol")).transpose(2, 0, 1), color="0.25", lw=0.7)
panel.plot(1.0, -0.5, "k+", ms=11, mew=2.0)
panel.text(1.1, -0.62, "$c$", size="large")
panel.text(-1.4, 1.55, "ρ(0)", color="tab:blue", size="large")
panel.text(0.75, -1.0, "ρ(1)", color="tab:red", size="large")
panel.set(xlabel="x", ylabel="y", aspect="equal", xlim=(-2.2, 2.2), ylim=(-1.9, 2.1))
figure.savefig("first_flow.png", dpi=120)

# %% [markdown]
# ## The same from the command line
#
# Everything here is also a configuration file and a command:
#
# ```console
# $ eulerian init gaussian
# $ eulerian train gaussian.toml
# $ eulerian ideal gaussian.toml --output runs/best
# ```
#
# The first writes `gaussian.toml`, this problem with a comment on every key. The second trains, and ends with the
# sentence of the verification and the distance to the best of all flows. The third computes that best flow on a mesh,
# and brackets its value.
#
# A run is one folder, here `runs/gaussian`:
#
# | file | what it holds |
# |---|---|
# | `result.json` | $J$ and its parts, the verification, masses and moments of $\rho(T)$, times and versions |
# | `theta.npz` | the trained $\theta$; other commands take it by `--theta runs/gaussian` |
# | `history.csv` | one line for each iteration |
# | `densities.pvd` | densities and velocities at eleven times, for ParaView |
# | `figures/` | pictures of the densities and of the descent |
# | `config.resolved.toml`, `run.log` | what exactly was run, and what it said |
# | `checkpoint/` | from where a run goes on after an interruption |
#
# In Python `eulerian.load("runs/gaussian")` reads the folder back.
#
# ## Go on
#
# * [Classes and wells](classes_and_wells.py): other losses, and several densities in one flow.
# * [The problem](../theory/problem.md) in full, and [the idealised problem](../theory/ideal.md) over all velocities.
# * [Read a run](../howto/read_a_run.md): what every number in `result.json` means.
