"""J as SciPy's optimisers take it.

python scripts/examples/scipy_training.py
mpirun -n 2 python scripts/examples/scipy_training.py
"""

import scipy.optimize

import eulerian as eu

space = eu.DensitySpace(eu.box_mesh([-3.0, -3.0], [3.0, 3.0], [12, 12]), degree=1)
rho0 = space.project(eu.Gaussian([-0.5, 0.3], std=0.5))
problem = eu.ControlProblem(
    space, eu.Mlp(2, [8]), rho0, eu.QuadraticLoss([1.0, -0.5]), eu.Costs(kinetic=0.5), eu.TimeGrid(1.0, 4)
)

J = eu.scipy.objective(problem)
for method in ("L-BFGS-B", "CG"):
    found = scipy.optimize.minimize(J, J.x0, jac=True, method=method, options={"maxiter": 20})
    if space.comm.rank == 0:
        print(f"{method:9}J = {found.fun:.4f} after {found.nfev} evaluations, {J.rejected} of them rejected")
flow = eu.Flow(problem, J.theta(found.x))
