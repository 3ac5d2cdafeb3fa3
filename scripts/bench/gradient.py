"""One value and one gradient at a given size: seconds, time steps, peak memory, ratio.

    python scripts/bench/gradient.py --cells 256
    mpirun -n 2 python -m mpi4py scripts/bench/gradient.py --cells 256 --memory "2 GiB"

A Gaussian turns and moves under an affine field; 2·cells² triangles. Prints one JSON object.
"""

import argparse
import json
import resource
import statistics
import time

from mpi4py import MPI

import numpy as np

from eulerian.builder import build
from eulerian.config import parse_config

CONFIG = """
[domain]
box = {{ lower = [-3.0, -3.0], upper = [3.0, 3.0], cells = [{cells}, {cells}] }}
[density]
degree = {degree}
[[density.initial]]
kind = "gaussian"
mean = [-0.5, 0.3]
std = 0.5
[field]
kind = "linear"
features = "affine"
layers = {layers}
theta = [[-0.2, -0.5, 0.5, -0.2, 0.4, -0.2]]
[objective]
kinetic = 0.5
[objective.terminal]
kind = "quadratic"
target = [1.0, -0.5]
[solver]
memory = "{memory}"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=256, help="cells per side (default 256)")
    parser.add_argument("--degree", type=int, default=1, choices=(0, 1, 2), help="of the density (default 1)")
    parser.add_argument("--layers", type=int, default=8, help="layers of the field (default 8)")
    parser.add_argument("--memory", default="4 GiB", help="budget of the adjoint over all ranks (default 4 GiB)")
    parser.add_argument("--runs", type=int, default=3, help="counted runs, after one that is not (default 3)")
    options = parser.parse_args()
    comm = MPI.COMM_WORLD
    problem = build(parse_config(CONFIG.format(**vars(options)), "."))
    theta = problem.initial_theta
    forward, gradient = [], []
    for run in range(options.runs + 1):
        point = theta * (1.0 + 1e-9 * run)  # another θ each time: the last one is cached
        comm.barrier()
        started = time.perf_counter()
        problem.value(point)
        between = time.perf_counter()
        problem.value_and_gradient(point)
        if run:
            forward.append(between - started)
            gradient.append(time.perf_counter() - started)
    memory = comm.allreduce(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
    space = problem.density_space
    dofs = comm.allreduce(space.n_owned) * space.nd
    if comm.rank == 0:
        report = {
            "ranks": comm.size,
            "dofs": dofs,
            "degree": options.degree,
            "steps": int(np.sum(problem.steps)),
            "seconds_forward": round(statistics.median(forward), 3),
            "seconds_value_and_gradient": round(statistics.median(gradient), 3),
            "ratio": round(statistics.median(g / f for g, f in zip(gradient, forward, strict=True)), 2),
            "peak_memory_gib": round(memory, 2),
            "memory_budget": options.memory,
        }
        print(json.dumps(report))


if __name__ == "__main__":
    main()
