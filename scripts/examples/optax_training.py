"""J as a function of JAX: Adam of Optax trains an Equinox network, and dJ/dρ₀ tells what mass costs where it starts.

python scripts/examples/optax_training.py
mpirun -n 2 python scripts/examples/optax_training.py
"""

import equinox as eqx
import jax
import optax

import eulerian as eu

jax.config.update("jax_enable_x64", True)
space = eu.DensitySpace(eu.box_mesh([-3.0, -3.0], [3.0, 3.0], [12, 12]), degree=1)
rho0 = space.project(eu.Gaussian([-0.5, 0.3], std=0.5))
field = eu.jax.equinox_field(eqx.nn.MLP(2, 2, 8, 1, activation=jax.numpy.tanh, key=jax.random.key(0)), normalised=True)
problem = eu.ControlProblem(space, field, rho0, "(x - 1)**2 + y**2", eu.Costs(kinetic=0.5), eu.TimeGrid(1.0, 4))

J = eu.jax.objective(problem)
theta, adam, step = J.initial_theta, optax.adam(1e-2), jax.jit(jax.value_and_grad(J))
state = adam.init(theta)
for _ in range(30):
    value, gradient = step(theta)
    updates, state = adam.update(gradient, state)
    theta = optax.apply_updates(theta, updates)
cost = space.from_array(space.representative(jax.grad(J, argnums=1)(theta, rho0.to_array())))  # φ₀, dJ = ∫φ₀ δρ₀
centre = eu.Flow(problem, J.theta(theta)).push([[-0.5, 0.3]]).x[0]  # θ as an array, for all else
near, far = cost([[0.5, 0.3], [-1.5, 0.3]])[:, 0]
if space.comm.rank == 0:
    print(f"J = {value:.4f}; mass costs {near:.3f} where it starts at (0.5, 0.3), {far:.3f} at (-1.5, 0.3)")
    print(f"the flow carries (-0.5, 0.3) to ({centre[0]:.3f}, {centre[1]:.3f})")
