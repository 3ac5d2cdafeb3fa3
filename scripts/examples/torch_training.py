"""J as a function of PyTorch: its Adam trains one module for each layer.

python scripts/examples/torch_training.py
"""

import copy
import sys

import eulerian as eu

try:
    import torch
except ImportError as error:
    sys.exit(print(f"left out: {error}"))
space = eu.DensitySpace(eu.box_mesh([-3.0, -3.0], [3.0, 3.0], [12, 12]), degree=1)
rho0 = space.project(eu.Gaussian([-0.5, 0.3], std=0.5))
module = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
field = eu.torch.torch_field(module, normalised=True)
problem = eu.ControlProblem(space, field, rho0, "(x - 1)**2 + y**2", eu.Costs(kinetic=0.5), eu.TimeGrid(1.0, 4))

J = eu.torch.objective(problem)
layers = torch.nn.ModuleList(copy.deepcopy(module) for _ in range(4))
adam = torch.optim.Adam(layers.parameters(), lr=1e-2)
for _ in range(30):
    adam.zero_grad()
    value = J(layers)
    value.backward()
    adam.step()
centre = eu.Flow(problem, J.theta(layers)).push([[-0.5, 0.3]]).x[0]  # θ as an array, for all else
print(f"J = {value.item():.4f}; the flow carries (-0.5, 0.3) to ({centre[0]:.3f}, {centre[1]:.3f})")
