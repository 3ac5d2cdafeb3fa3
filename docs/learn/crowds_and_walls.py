# %% [markdown]
# # Crowds and walls
#
# A crowd is to cross from one room to another through a corridor. The walls are the boundary of the mesh, and nothing
# else is needed to keep the crowd inside. On the way, places may cost something (a potential), and so may density
# itself (congestion). Networks are trained for all of that, and two of the three are held against the best that any
# flow could do. The page runs in half a minute.
#
# ## A mesh with walls
#
# Every mesh of triangles that gmsh or another program writes will do. The template `crowds` brings one along, two rooms
# with a corridor between them; in a clone it is also `meshes/dumbbell.msh`.

# %%
import subprocess
import sys

import eulerian as eu

command = "-m eulerian init crowds crowds --overwrite --quiet"
subprocess.run([sys.executable, *command.split()], check=True)
space = eu.DensitySpace(eu.read_mesh("crowds/dumbbell.msh"), degree=1)
rho0 = space.project(eu.Gaussian([-1.7, 0.5], std=0.25))
print(f"{space.n_cells_global} triangles")

# %% [markdown]
# ## Around the corners
#
# The crowd is called to a point in the other room, by a quadratic loss. What follows is done three times, so it is a
# function: train a network, and follow it without the mesh to see what it is worth.

# %%
loss, goal, kinetic = eu.QuadraticLoss([1.7, 0.5]), [1.7, 0.5], 0.2
time = eu.TimeGrid(horizon=1.0, layers=6)


def trained(start=None, iterations=30, **prices):
    """The flow of a network at these prices, and its verification."""
    costs = eu.Costs(kinetic=kinetic, parameters=1e-6, **prices)
    what = space, eu.Mlp(2, [24]), rho0, loss, costs, time
    problem = eu.ControlProblem(*what, initial_theta=start)
    result = eu.minimise(problem, max_iterations=iterations)
    return eu.Flow(problem, result.theta), eu.verify(problem, result.theta)


free, verified = trained(iterations=40)
print(verified.statement)

# %% [markdown]
# Without walls the best paths are straight. With walls they are shortest paths inside of the domain, and in the plane
# these are computed exactly: `hopf_lax` gives the value of the best flow, and `certify` the distance to it.

# %%
ideal = eu.IdealProblem(space, rho0, loss, kinetic)
best = eu.hopf_lax(ideal)
print(f"the best of all flows: {best.value:.5f} ± {best.error:.0e}")
print(eu.certify(free.problem, free.theta, verified=verified.objective).statement)

assert best.value < verified.objective["total"] < 1.05 * best.value

# %% [markdown]
# The density at the end is not resolved at all, and the verification says so: shortest paths meet at the corners, so
# the crowd leaves the corridor as a thread that is thinner than any cell. (Two densities that have nothing in common
# differ by 200 % in $L^1$.) For $J$ that matters little, because a loss and a kinetic energy are linear in the density,
# and such values are much more accurate than the density is.
#
# ## A place to avoid
#
# A potential $V(x)$ is charged all along the way, $\int_0^T\!\int V \rho$. Here it is a puddle in the first room, right
# where the crowd would pass. The training starts from the flow that we have, and the crowd learns to part and go around
# the puddle on both sides.

# %%
dry, wet = trained(free.theta, potential="4 * exp(-30 * ((x + 1)**2 + (y - 0.3)**2))")
print(wet.statement)

# %% [markdown]
# ## Room for everybody
#
# Congestion charges $\tfrac\gamma2 \int_0^T\!\int \rho^2$: in a crowd that is twice as dense everybody pays twice as
# much. That keeps people apart, and makes them use the whole width of the corridor. It is a cost of the density itself,
# which a set of points does not have and a mesh does.

# %%
wide, verified = trained(free.theta, congestion=0.3)
print(verified.statement)

# %% [markdown]
# The mesh now resolves the density far better, because there is no thread any more. Where people press against a wall
# their density has no limit; that share of the mass is told, and left out of the verified congestion, which is a little
# too small for that.
#
# Congestion bends the best paths, so there is no formula for them. But over all velocities the problem is convex in
# $(\rho, \rho v)$, and `solve_convex` brackets its value on this mesh between that of a flow (primal) and that of a
# potential (dual).

# %%
crowded = eu.IdealProblem(space, rho0, loss, kinetic, congestion=0.3)
solution = eu.solve_convex(crowded, gap_tolerance=1e-2)
J = verified.objective["total"]
print(f"the best flow of this mesh: {solution.dual:.4f} ≤ J* ≤ {solution.primal:.4f}")
above = 100 * (J / solution.dual - 1)
print(f"the network:                {J:.4f}, {above:.1f} % above the lower value")

assert solution.status == "converged"
assert solution.dual < J < 1.15 * solution.dual

# %% [markdown]
# The network is still on its way: with `iterations=120` in the training above $J$ falls to 1.347, less than 4 % above.
# The bracket is of the discrete problem, with 16 intervals of time. `continuous_bounds` says what is known without the
# mesh: with congestion that is an estimate from two meshes, with its error.
#
# ## Look at it
#
# Paths are those of the network, held back by the walls as the crowd is; shades are the density half-way, and the cross
# is where the crowd is called to.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np

x, y = np.linspace(-3, 3, 301), np.linspace(-1.2, 1.2, 121)
grid = np.stack(np.meshgrid(x, y), axis=-1)


def paths(flow, points, steps=96):
    """Positions (steps + 1, n, 2), held back by the walls of the corridor and the rooms."""
    way = [points]
    for k in range(steps):
        half = way[-1] + 0.5 / steps * flow.velocity(k / steps, way[-1])
        new = way[-1] + flow.velocity((k + 0.5) / steps, half) / steps
        limit = np.where(np.abs(new[:, 0]) < 0.6, 0.25, 1.2)
        way.append(np.column_stack([np.clip(new[:, 0], -3, 3), np.clip(new[:, 1], -limit, limit)]))
    return np.array(way)


names = ("Walls alone", "With a puddle", "With congestion")
figure, panels = plt.subplots(3, 1, figsize=(6.4, 7.4), sharex=True, layout="constrained")
for panel, name, flow in zip(panels, names, (free, dry, wide), strict=True):
    density = flow.density(0.5).total(grid.reshape(-1, 2)).reshape(grid.shape[:2])
    shown = np.ma.masked_less(density, 0.05)
    image = panel.pcolormesh(x, y, shown, cmap="YlOrRd", vmin=0, vmax=3, rasterized=True)
    panel.plot(*paths(flow, rho0.draw(40, seed=1, method="sobol")).transpose(2, 0, 1), color="tab:blue", lw=0.5)
    panel.plot(*goal, "k+", ms=9, mew=1.5)
    for low in (-1.2, 0.25):
        panel.add_patch(plt.Rectangle((-0.6, low), 1.2, 0.95, facecolor="0.8", edgecolor="0.3"))
    panel.set(title=name, ylabel="y", aspect="equal", xlim=(-3, 3), ylim=(-1.2, 1.2))
panels[1].add_patch(plt.Circle((-1, 0.3), 0.2, fill=False, color="black", ls="--"))
panels[2].set_xlabel("x")
figure.colorbar(image, ax=panels, label="density at t = 0.5", extend="max", shrink=0.5)
figure.savefig("crowds.png", dpi=120)

# %% [markdown]
# ## Two crowds, and more than one process
#
# In the template itself *two* crowds change places through the corridor, each a label with a velocity of its own
# ([labels](classes_and_wells.py)); what they share is the price of density. MPI makes a run faster as long as every
# process has some hundreds of triangles or more, and $J$ and its gradient do not depend on the number of processes
# beyond rounding:
#
# ```console
# $ eulerian init crowds
# $ mpirun -n 2 eulerian train crowds.toml
# ```
#
# A program like this one is started in the same way, by `mpirun -n 2 python` and its name. Every process runs all of
# it, and has a part of the mesh; printing and drawing are then better left to one of them.
#
# ## Go on
#
# * [Choose a mesh](../howto/choose_a_mesh.md): formats, sizes, and what walls do to accuracy.
# * [Costs of the density](../howto/density_costs.md) and [interactions](../howto/interactions.md) of points that see
#   one another.
# * [The idealised problem](../theory/ideal.md), and how its value is certified.
