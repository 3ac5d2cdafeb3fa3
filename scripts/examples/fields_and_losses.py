"""Fields and terminal losses: what comes with the package, and one's own.

    python scripts/examples/fields_and_losses.py
"""

import warnings

import numpy as np

import eulerian as eu


class Rotation:
    """A field of one's own: any object with these methods (``eulerian.VectorField``). v = θ (−y, x)."""

    def n_params(self, dim):
        """One number."""
        return 1

    def init(self, rng):
        """At rest."""
        return np.zeros(1)

    def value(self, theta, x):
        """Velocities (n, 2) at points x (n, 2)."""
        return theta[0] * np.column_stack([-x[:, 1], x[:, 0]])

    def vjp(self, theta, x, w):
        """The gradient (1,) of Σ w · v."""
        return np.array([np.sum(w * self.value(np.ones(1), x))])


space = eu.DensitySpace(eu.box_mesh([-2.0, -2.0], [2.0, 2.0], [16, 16]), degree=1, labels=2)
rho0 = space.project({0: eu.Gaussian([-0.6, 0.0], std=0.3), 1: eu.Gaussian([0.6, 0.0], std=0.3)})
time, costs = eu.TimeGrid(horizon=1.0, layers=3), eu.Costs(kinetic=0.1)

fields: dict[str, eu.VectorField] = {
    "perceptron": eu.Mlp(2, [12], activation="softplus"),
    "affine": eu.Linear(2, "affine"),
    "radial functions": eu.Linear(2, "rbf", width=9),
    "nodal": eu.Nodal(eu.velocity_nodes(space)),
    "a class of one's own": Rotation(),
}
try:  # models of JAX, Equinox, Flax and PyTorch: pip install "eulerian[jax]", "eulerian[torch]"
    import equinox
    import jax

    model = equinox.nn.MLP(2, 2, 8, 1, activation=jax.numpy.tanh, key=jax.random.key(0))
    fields["Equinox"] = eu.jax.equinox_field(model)  # also jax_field, flax_field; eu.torch.torch_field
except ImportError:
    pass
for name, field in fields.items():
    problem = eu.ControlProblem(space, field, rho0, eu.LogisticLoss([0.0, 1.0]), costs, time)
    result = eu.minimise(problem, max_iterations=15)
    print(f"{name:21}{problem.n_params:5} parameters, J = {result.value:.4f}")

losses = {
    "to points": eu.QuadraticLoss([[0.0, 1.0], [0.0, -1.0]]),  # one for each label
    "two classes": eu.LogisticLoss([0.0, 1.0]),
    "a trained readout": eu.CrossEntropyLoss(trained=True),
    "a formula": eu.FormulaLoss("where(label == 0, (y - 1)**2, (y + 1)**2)"),
    "a function": lambda x, label: (x[:, 1] - (1.0, -1.0)[label]) ** 2,
    "with its derivative": eu.FunctionLoss(lambda x: x[:, 0] ** 2, lambda x: np.column_stack([2 * x[:, 0], 0 * x[:, 0]])),
    "to a density": eu.SquaredDistance({0: eu.Gaussian([0.0, 0.8], std=0.3), 1: eu.Gaussian([0.0, -0.8], std=0.3)}),
}
for name, loss in losses.items():
    problem = eu.ControlProblem(space, eu.Mlp(2, [12]), rho0, loss, costs, time)
    print(f"{name:21}J = {eu.minimise(problem, max_iterations=15).value:.4f}")

# Failures are exceptions of one family: EulerianError, with InputError, RejectedEvaluation and ComputationError.
fast = eu.ControlProblem(space, eu.Linear(2, "affine"), rho0, eu.LogisticLoss([0.0, 1.0]), costs, time)
try:
    next(iter(fast.snapshots(np.full(np.shape(fast.initial_theta), 1e9), 2)))
except eu.RejectedEvaluation as error:  # J = inf there; optimisers take a shorter step
    print(f"RejectedEvaluation: {error}")
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always", eu.EulerianWarning)
    space.project({0: eu.Gaussian([1.9, 0.0], std=0.3), 1: eu.Gaussian([0.0, 0.0], std=0.3)})
print(f"EulerianWarning: {told[0].message}")
try:
    eu.Flow(fast, np.full(np.shape(fast.initial_theta), 1e9)).push([[1.0, 1.0]])
except eu.ComputationError as error:
    assert isinstance(error, eu.EulerianError)
    print(f"ComputationError: {error}")
