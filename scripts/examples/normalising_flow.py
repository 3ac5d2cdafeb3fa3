"""A normalising flow trained on a density: likelihoods, new data, and a run folder that is read back.

    python scripts/examples/normalising_flow.py [RUN]

RUN: a run folder of `eulerian train` with a `kl` target, such as that of the template `moons`.
"""

import sys

import numpy as np

import eulerian as eu

# Data are moved to a normal density: their kernel estimate is rho_0, the normal density the target.
rng = np.random.default_rng(0)
data = np.concatenate([rng.normal([-1.0, 0.0], 0.3, (300, 2)), rng.normal([1.0, 0.5], 0.3, (300, 2))])
space = eu.DensitySpace(eu.box_mesh([-4.0, -4.0], [4.0, 4.0], [32, 32]), degree=1)
problem = eu.ControlProblem(
    space,
    eu.Mlp(2, [24]),
    space.project(eu.Samples(data, bandwidth=0.2)),
    eu.KullbackLeibler(eu.Gaussian([0.0, 0.0], std=1.0)),  # eu.SquaredDistance(target) is the other distance
    eu.Costs(kinetic=1e-3, parameters=1e-6),
    eu.TimeGrid(horizon=1.0, layers=6),
)
result = eu.minimise(problem, max_iterations=60)
flow = eu.Flow(problem, result.theta)

pushed = flow.push(data)  # .x, .log_density_change
assert np.max(np.abs(flow.pull(pushed.x).x - data)) < 1e-6
new = flow.generate(2000, seed=1)
print(result)
print(f"negative log-likelihood {-flow.log_likelihood(data).mean():.3f} per point of the data")
print(f"mean of the data {data.mean(axis=0).round(2)}, of new data {new.mean(axis=0).round(2)}")
print(f"half way: {flow.density(0.5)!r}, |v| at the origin {np.linalg.norm(flow.velocity(0.5, [[0.0, 0.0]])):.3f}")
print(flow.verify().statement)

if len(sys.argv) > 1:
    run = eu.load(sys.argv[1])  # .config .problem .theta .flow .result .history
    print(run)
    print(f"J went from {run.history['total'][0]:.4f} to {run.history['total'][-1]:.4f}")
    print(f"new data: {run.flow.generate(3, seed=0).round(2).tolist()}")
    print(eu.runs(run.folder.parent))  # that run and its neighbours: .rows, .sorted("verified"), .to_pandas()
