# %% [markdown]
# # Your own mesh, density, loss and model
#
# This page has two halves. The first is for readers who know FEniCSx: mesh, initial density and cost come from DOLFINx
# and UFL, and the result goes back there. The second is for readers who know JAX: the velocity is an Equinox network,
# the loss a function of JAX, and Adam does the training. Neither needs the other.
#
# The page is a script, which runs in any folder and leaves two pictures there: `python own_problem.py`, or on two
# processes `mpirun -n 2 python own_problem.py`. The first half needs nothing but the extra `pyvista`, and that for its
# picture only; the second half needs the extra `jax` and the package `optax` as well.

# %%
from mpi4py import MPI

import dolfinx
import matplotlib.pyplot as plt
import numpy as np
import ufl

import eulerian as eu

comm = MPI.COMM_WORLD


def tell(*words):
    """Print on one process, however many there are."""
    if comm.rank == 0:
        print(*words)


# %% [markdown]
# ## For readers who know FEniCSx
#
# ### A mesh of your own
#
# Any DOLFINx mesh of intervals, triangles or tetrahedra with straight edges will do. On several processes it needs the
# ghost cells that `shared_facet` makes, because mass flows through facets. Here a rectangle is bent into a half ring.
# Its boundary is a wall: nothing flows through it.


# %%
def half_ring(comm):
    """A half ring between the radii 1 and 2."""
    mesh = dolfinx.mesh.create_rectangle(
        comm,
        [[1.0, 0.0], [2.0, np.pi]],
        [10, 32],
        ghost_mode=dolfinx.mesh.GhostMode.shared_facet,
    )
    x = mesh.geometry.x
    radius, angle = x[:, 0].copy(), x[:, 1].copy()
    x[:, 0], x[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
    return mesh


mesh = half_ring(comm)
space = eu.DensitySpace(mesh, degree=2)  # discontinuous, piecewise quadratic densities
tell(f"{space.n_cells_global} triangles with the area {space.volume:.3f}")

# %% [markdown]
# A mesh from Gmsh, or any other file that meshio reads, comes in by {py:func}`eulerian.read_mesh`. To have such a file,
# one process writes the same half ring.

# %%
import meshio

if comm.rank == 0:
    ring = half_ring(MPI.COMM_SELF).geometry
    written = meshio.Mesh(ring.x, {"triangle": ring.dofmaps[0]})
    written.write("half_ring.msh", file_format="gmsh")
comm.Barrier()
read = eu.DensitySpace(eu.read_mesh("half_ring.msh"), degree=2)
assert read.n_cells_global == space.n_cells_global
assert np.isclose(read.volume, space.volume)

# %% [markdown]
# ### Densities of your own
#
# {py:meth}`eulerian.DensitySpace.project` takes a UFL expression, a DOLFINx function or a Python function of points
# (n, 2), and scales it to mass 1. These three are the same density up to the error of interpolation:

# %%
x = ufl.SpatialCoordinate(mesh)
by_ufl = ufl.exp(-12 * ((x[0] - 1.4) ** 2 + (x[1] - 0.5) ** 2))


def by_points(points):
    """The same function, of points (n, 2)."""
    return np.exp(-12 * ((points[:, 0] - 1.4) ** 2 + (points[:, 1] - 0.5) ** 2))


by_function = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 2)))
by_function.interpolate(lambda x: by_points(x[:2].T))  # DOLFINx has points (3, n)

rho0 = space.project(by_ufl)
for what in (by_points, by_function):
    assert np.allclose(space.project(what).mean, rho0.mean, atol=1e-3)
assert np.allclose(rho0.mass, 1.0)
tell("mean of the initial density:", rho0.mean[0].round(3))

# %% [markdown]
# ### A cost of your own
#
# A {py:class}`eulerian.FormLoss` is any functional of the final density that UFL can write. DOLFINx assembles and
# differentiates it. This one is half the squared distance from a function `goal`, the mirror image of the initial
# density at the other end of the half ring.

# %%
goal = space.project(ufl.exp(-12 * ((x[0] + 1.4) ** 2 + (x[1] - 0.5) ** 2))).to_function()
loss = eu.FormLoss(lambda rho: 0.5 * (rho - goal) ** 2 * ufl.dx)

# %% [markdown]
# The control problem is to reach the goal with little kinetic energy, by the velocity of a network with 8 layers. It
# has no idea of the bend: it sees coordinates, and learns from the gradient that mass has to go round.

# %%
problem = eu.ControlProblem(
    space,
    eu.Mlp(2, [16]),
    rho0,
    loss,
    eu.Costs(kinetic=1e-3),
    eu.TimeGrid(horizon=1.0, layers=8),
)
result = eu.minimise(problem, max_iterations=50)
flow = eu.Flow(problem, result.theta)
start = result.history[0].parts["terminal"]
tell(result)
tell("why it ended:", result.reason)
tell(f"the distance fell from {start:.4f} to {result.parts['terminal']:.4f}")
assert result.parts["terminal"] < 0.01 * start

# %% [markdown]
# `result.reason` says why a descent ended: at its limit of iterations, here, and not at a minimum.
#
# ### What the mesh knows, and what it does not
#
# `flow.verify()` holds the mesh against points that follow the velocity itself. It says three things here:
#
# * how far the mesh's $ρ(T)$ is from the density of the flow, in $L^1$;
# * $J$ has no true value, because DOLFINx knows the form of the density on the mesh only. So nothing but the error of
#   $ρ(T)$ tells whether to believe $J$;
# * `touched_mass` is the share of the mass that has touched a wall on its way, and sticks to it. There a density has no
#   limit, and no mesh resolves it. A wider domain, or a potential that is high near its boundary, keeps mass away.

# %%
verified = flow.verify()
tell(verified.statement)
tell(f"{100 * verified.touched_mass:.1f} % of the mass has touched a wall")
assert verified.density_l1[0] < 0.05
assert verified.touched_mass < 0.05

# %% [markdown]
# ### Results back to DOLFINx and PyVista
#
# `to_function()` gives a density as a discontinuous Lagrange function on your mesh, for forms, norms and files of your
# own. How much of the mass is in the left half now?

# %%
final = flow.density(1.0)
rho = final.to_function()
left = dolfinx.fem.form(ufl.conditional(x[0] < 0, rho, 0.0) * ufl.dx)
share = comm.allreduce(dolfinx.fem.assemble_scalar(left), MPI.SUM)
tell(f"{100 * share:.2f} % of the mass is in the left half; the total is {final.mass[0]:.12f}")
assert share > 0.99
assert abs(final.mass[0] - 1.0) < 1e-12

# %% [markdown]
# The density is kept $\ge 0$ at the points where $J$ and the fluxes look. `to_function()` has the polynomials as they
# are, and between these points, for instance at vertices, they may be negative ([why](../theory/scheme.md#positivity)).
# `to_function(limited=True)` is non-negative at its nodes, with the same masses of cells. In forms of your own with
# logarithms or roots take `ufl.max_value(rho, 1e-12)`.

# %%
below = dolfinx.fem.form(ufl.max_value(-rho, 0.0) * ufl.dx(metadata={"quadrature_degree": 10}))
negative = comm.allreduce(dolfinx.fem.assemble_scalar(below), MPI.SUM)
lowest = comm.allreduce(rho.x.array.min(), MPI.MIN)
highest = comm.allreduce(rho.x.array.max(), MPI.MAX)
tell(f"values at nodes from {lowest:.2g} to {highest:.2g}; the negative part has the mass {negative:.1e}")
assert negative < 1e-3

# %% [markdown]
# `to_pyvista()` gathers the whole mesh with its density on every process, so that one of them can draw. In a window of
# its own `grid.plot(cpos="xy")` shows it; here Matplotlib does.

# %%
times = [0.0, 0.35, 0.65, 1.0]
grids = [flow.density(t).to_pyvista() for t in times]
if comm.rank == 0:
    figure, axes = plt.subplots(2, 2, figsize=(7, 4.2), sharex=True, sharey=True, layout="constrained")
    for t, grid, axis in zip(times, grids, axes.flat, strict=True):
        corners = grid.cells.reshape(-1, 7)[:, 1:4]  # of quadratic triangles with six nodes
        shown = axis.tripcolor(*grid.points[:, :2].T, corners, grid["density"], shading="gouraud", vmin=0, vmax=4)
        axis.set(title=f"t = {t}", aspect="equal")
    figure.supxlabel("x")
    figure.supylabel("y")
    figure.colorbar(shown, ax=axes, label="density", extend="max")
    figure.savefig("own_problem_fenicsx.png", dpi=150)

# %% [markdown]
# ### What the gradient is
#
# `problem.value_and_gradient(theta)` gives $J$ of the mesh, and the exact gradient of this number: the adjoint of every
# time step as it was computed, and no discretisation of a continuous adjoint equation. So the remainder of Taylor's
# expansion must be of second order, down to rounding: halving $h$ divides it by four.
#
# The number of time steps in each layer is chosen from the velocity. Where it changes by one, $J$ has a small jump,
# of the size of the error in time. The test therefore holds the numbers that were used at $θ$: `problem.steps`, and
# `problem.value_at_steps`.
#
# $J$ is only *piecewise* smooth, because the limiter that keeps densities $\ge 0$ has kinks. If one lies between $θ$
# and $θ + h d$, orders are lower, between 1 and 2. A mistake in a gradient gives the order 1 in nearly every direction
# and for all small $h$. So, to tell one from the other, try another direction and smaller $h$, or the same problem with
# `limiter=False`, which does not have these kinks.

# %%
theta = result.theta
J, gradient = problem.value_and_gradient(theta)
steps = problem.steps
direction = np.random.default_rng(0).normal(size=theta.shape)
slope = np.sum(gradient * direction)
sizes = 0.02 / 2.0 ** np.arange(3, 10)
remainders = [abs(problem.value_at_steps(theta + h * direction, steps) - J - h * slope) for h in sizes]
rates = np.log2(np.array(remainders[:-1]) / remainders[1:])
for h, remainder in zip(sizes, remainders, strict=True):
    tell(f"h = {h:.2e}   |J(θ + h d) − J(θ) − h ∇J·d| = {remainder:.2e}")
tell("orders:", rates.round(2))
assert abs(np.median(rates) - 2.0) < 0.1

# %% [markdown]
# ## For readers who know JAX
#
# ### A model of your own
#
# {py:func}`eulerian.jax.equinox_field` makes a velocity $v(x, θ)$ of any Equinox module that takes a point and returns
# a vector; `jax_field` and `flax_field` do so for functions and for Flax. Every layer has parameters of its own.
#
# The last linear map is made small, so that training begins with almost no motion. The problem below is symmetric, and
# a random start far from rest would choose a side: the descent may then end in a local minimum with all mass in one
# heap.

# %%
import equinox as eqx
import jax
import optax
from jax import numpy as jnp

jax.config.update("jax_enable_x64", True)
key = jax.random.key(0)
network = eqx.nn.MLP(2, 2, width_size=16, depth=2, activation=jnp.tanh, key=key)
small = jax.tree.map(lambda a: 0.01 * a, network.layers[-1])
network = eqx.tree_at(lambda n: n.layers[-1], network, small)
field = eu.jax.equinox_field(network)

# %% [markdown]
# ### A loss of your own
#
# {py:func}`eulerian.jax.point_loss` takes a function of one point, and charges it wherever mass ends. This loss wants
# the mass on the unit circle. Because kinetic energy has its price, too, the mass should not all go to one point of it.


# %%
def off_circle(x):
    """The loss at a point (2,)."""
    return (x @ x - 1.0) ** 2


square = eu.DensitySpace(eu.box_mesh([-2.0, -2.0], [2.0, 2.0], [24, 24]), degree=1)
circle_problem = eu.ControlProblem(
    square,
    field,
    square.project(eu.Gaussian([0.0, 0.0], std=0.4)),
    eu.jax.point_loss(off_circle),
    eu.Costs(kinetic=0.5),
    eu.TimeGrid(horizon=1.0, layers=4),
)

# %% [markdown]
# ### An optimiser of your own
#
# {py:func}`eulerian.jax.objective` makes a function of JAX of the problem: differentiable by `jax.grad`, also inside
# `jit` and inside larger functions of yours. Its argument is the network, with an axis of layers in front of every
# array.

# %%
J = eu.jax.objective(circle_problem)
theta = J.initial_theta
tell("weights of the first linear map in all layers:", theta.layers[0].weight.shape)

step = jax.jit(jax.value_and_grad(J))
adam = optax.adam(optax.cosine_decay_schedule(0.03, 60))
state, values = adam.init(theta), []
for _ in range(60):
    value, gradient = step(theta)
    values.append(float(value))
    updates, state = adam.update(gradient, state)
    theta = optax.apply_updates(theta, updates)
value, gradient = jax.block_until_ready(step(theta))
tell(f"Adam: J went from {values[0]:.4f} to {value:.4f}")
assert value < 0.4 * values[0]

# %% [markdown]
# `J.theta` makes of these networks the array that the package's own functions take, such as the flow:

# %%
adam_flow = eu.Flow(circle_problem, J.theta(theta))
tell("where the origin goes:", adam_flow.push([[0.0, 0.0]]).x[0].round(2))

# %% [markdown]
# The package's own optimiser works on the same problem. It is a quasi-Newton method (L-BFGS), which suits an objective
# without noise.

# %%
quasi_newton = eu.minimise(circle_problem, max_iterations=60)
tell(f"L-BFGS: {quasi_newton}")
assert quasi_newton.value < value

# %% [markdown]
# ### The gradient, checked
#
# What `jax.grad` returns is the same exact gradient as above. Along its own direction the slope of $J$ is its norm, and
# a central difference agrees with that, as long as $h$ is so small that no layer changes its number of time steps.

# %%
norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))


def along(h):
    """J at a distance h along the gradient, and the numbers of time steps there."""
    value = J(jax.tree.map(lambda a, g: a + h * g / norm, theta, gradient))
    return float(value), circle_problem.steps


h = 1e-5
(above, steps), (below, as_many) = along(h), along(-h)
difference = (above - below) / (2 * h)
tell(f"norm of jax.grad {norm:.9f}, central difference {difference:.9f}")
assert steps == as_many
assert abs(difference - norm) < 1e-5 * norm

# %% [markdown]
# ### The result
#
# The Gaussian has been opened to a ring, too thin a one for this mesh, which smears it. So $J$ of the network itself,
# which `flow.verify()` computes by characteristics, is lower than what the mesh says. A
# [mesh that adapts](../howto/adapt.md) would resolve it.

# %%
flow = eu.Flow(circle_problem, quasi_newton.theta)
start = np.random.default_rng(0).normal(scale=0.4, size=(2000, 2))
ends = flow.push(start).x
quarters = np.histogram(np.arctan2(ends[:, 1], ends[:, 0]), bins=4, range=(-np.pi, np.pi))[0] / len(ends)
tell(f"distance of points from the origin: {np.linalg.norm(ends, axis=1).mean():.2f} in the mean")
tell("their shares in the four quarters of the plane:", quarters.round(2))
verified = flow.verify()
tell(verified.statement)
assert abs(np.linalg.norm(ends, axis=1).mean() - 1.0) < 0.1
assert np.all(np.abs(quarters - 0.25) < 0.05)

grids = [flow.density(t).to_pyvista() for t in (0.0, 1.0)]
if comm.rank == 0:
    figure, axes = plt.subplots(1, 3, figsize=(8.6, 3.0), layout="constrained", width_ratios=[1, 1, 1.2])
    for title, grid, axis in zip(("t = 0", "t = 1"), grids, axes[:2], strict=True):
        triangles = grid.cells.reshape(-1, 4)[:, 1:]
        shown = axis.tripcolor(*grid.points[:, :2].T, triangles, grid["density"], shading="gouraud", vmin=0)
        axis.set(title=title, xlabel="x", ylabel="y", aspect="equal")
        figure.colorbar(shown, ax=axis, label="density", location="bottom")
    axes[2].semilogy(values, label="Adam")
    axes[2].semilogy(quasi_newton.history["total"], label="L-BFGS")
    axes[2].set(xlabel="iteration", ylabel="J", title="training")
    axes[2].legend(loc="upper right")
    figure.savefig("own_problem_jax.png", dpi=150)

# %% [markdown]
# `J.models` makes Equinox modules of θ again, with an axis of layers. Their values are the velocities of the flow,
# because this field is not normalised; with `normalised=True` they are
# [scaled](../howto/models.md#the-trained-modules).

# %%
models = J.models(quasi_newton.theta)
first = jax.tree.map(lambda a: a[0] if eqx.is_array(a) else a, models)
point = jnp.array([0.3, -0.2])
assert np.allclose(first(point), flow.velocity(0.0, point[None])[0], atol=1e-10)

# %% [markdown]
# ## On several processes
#
# Under `mpirun` all processes run the whole script: the mesh is shared among them, and $J$, θ and the gradient are the
# same on each. Methods that their documentation calls *collective*, such as `project`, `density` and `to_pyvista`, are
# called by all; what prints or draws asks for `comm.rank == 0`.
#
# More functions of your own: [losses and potentials](../howto/own_losses.md), [models](../howto/models.md),
# [optimisers](../howto/optimisers.md).
