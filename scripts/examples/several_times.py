"""Data at several times: densities that a flow is to pass through, one of them held out.

python scripts/examples/several_times.py
mpirun -n 2 python scripts/examples/several_times.py
"""

import eulerian as eu

space = eu.DensitySpace(eu.box_mesh([-4.0], [4.0], [64]), degree=2)
seen = {t: eu.Gaussian([2.0 * t - 1.0], std=0.4 + 0.3 * t) for t in (0.0, 0.25, 0.5, 0.75, 1.0)}
at = [eu.CostAt(t, eu.KullbackLeibler(seen[t]), weight) for t, weight in ((0.25, 1.0), (0.5, 1.0), (0.75, 0.0))]
costs, time, end = eu.Costs(kinetic=0.01), eu.TimeGrid(horizon=1.0, layers=8), eu.KullbackLeibler(seen[1.0])
problem = eu.ControlProblem(space, eu.Mlp(1, [8]), seen[0.0], end, costs, time, at=at)
result = eu.minimise(problem, max_iterations=80)
found = eu.verify(problem, result.theta)  # of the network itself, a time without a weight among them
if space.comm.rank == 0:
    for cost in found.at:
        print(f"t = {cost.time}: KL = {cost.value:.2g}" + (", held out" if cost.weight == 0.0 else ""))

# Losses at several times have an exact optimum: the formula of Hopf and Lax, once for each time.
ideal = eu.IdealProblem(space, seen[0.0], eu.QuadraticLoss([1.3], 2.0), kinetic=0.7, horizon=1.5)
best = eu.hopf_lax_at(ideal, [eu.CostAt(0.75, eu.QuadraticLoss([-0.2]))])
if space.comm.rank == 0:
    print(f"{best.lower:.6f} ≤ J* ≤ {best.upper:.6f}, each ± {best.error:.0e}")
