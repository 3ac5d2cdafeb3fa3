# %% [markdown]
# # On a cluster, with restart
#
# Long runs are started by a scheduler, have a time limit, and are interrupted. Here a training on two processes is
# interrupted as Slurm would do it, goes on with another number of processes, and ends where an undisturbed one ends.
#
# These are commands for a terminal. So that this page is also a script, `python cluster.py`, a helper of three lines
# starts them and prints what they say. It writes into a new folder `cluster`, and needs no cluster itself.

# %%
import subprocess


def terminal(command):
    """Run a command of the shell, and print it with what it prints."""
    done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(f"$ {command}\n{done.stdout}")
    done.check_returncode()


# %% [markdown]
# ## A configuration and its job script

# %%
terminal("eulerian init gaussian cluster --slurm --ranks 8 --time 24:00:00")

# %%
import os

os.chdir("cluster")
terminal("cat gaussian.slurm")

# %% [markdown]
# `sbatch gaussian.slurm` would submit it. Two minutes before the 24 hours are over Slurm sends the signal USR1, which
# the script hands on to the run. The run writes a checkpoint and ends; the job goes back into the queue, and when its
# turn comes it goes on with `--resume`. [Slurm](../howto/slurm.md) has more on job scripts.
#
# Before a job waits for hours in a queue, `eulerian doctor` tells whether it can work here: MPI, the compiler, disks,
# and at the end, shown here, what the configuration itself asks for. Run it on a node like those that the job will
# have.

# %%
terminal("eulerian doctor gaussian.toml | tail -n 8")

# %% [markdown]
# ## An undisturbed run
#
# This is what the others are compared with.

# %%
terminal("mpirun -n 2 eulerian train gaussian.toml --output runs/undisturbed --quiet")
terminal("tail -n 5 runs/undisturbed/run.log")

# %% [markdown]
# ## An interrupted run
#
# This does what the job script does: it starts the run in the background, and sends it USR1, here as soon as iteration
# 15 is on disk. Ctrl-C, SIGTERM and `timeout --signal=INT` have the same effect. The exit code is 2: interrupted, and
# what was computed is kept.

# %%
terminal("""mpirun -n 2 eulerian train gaussian.toml --output runs/job --quiet &
until grep -qs ^15, runs/job/history.csv; do sleep 0.1; done
kill -USR1 $!
wait $! || echo "exit code $?" """)
terminal("tail -n 4 runs/job/run.log")

# %%
import csv
import json


def history(run):
    """The rows of a run's history.csv."""
    with open(f"{run}/history.csv", newline="") as file:
        return list(csv.DictReader(file))


def result(run):
    """The result.json of a run."""
    with open(f"{run}/result.json") as file:
        return json.load(file)


reached = len(history("runs/job")) - 1
assert result("runs/job")["status"] == "interrupted"
assert 15 <= reached < 60
print(f"interrupted after iteration {reached}")

# %% [markdown]
# ## It goes on, with another number of processes
#
# A checkpoint does not know how the mesh was divided, so that any number of processes may go on. Here it is one.

# %%
terminal("eulerian train gaussian.toml --output runs/job --quiet --resume")
terminal("grep -E 'rank|iteration +(0|15|16|17|18|60) |interrupted|Going on|end,' runs/job/run.log")

# %% [markdown]
# No iteration is lost, and none is there twice.

# %%
iterations = [int(row["iteration"]) for row in history("runs/job")]
assert iterations == list(range(61))
assert [int(row["iteration"]) for row in history("runs/undisturbed")] == iterations

# %% [markdown]
# What the two runs have computed is the same, up to the order in which numbers were added on two processes and on one.
# (A run on one process that is interrupted and goes on there has the same bits as an undisturbed one.)

# %%
J, undisturbed = (result(run)["objective"]["total"] for run in ("runs/job", "runs/undisturbed"))
print(f"J = {J:.10f}, undisturbed {undisturbed:.10f}: a relative difference of {abs(J / undisturbed - 1):.1e}")
assert abs(J / undisturbed - 1.0) < 1e-5

# %% [markdown]
# ## All runs in a table

# %%
terminal("eulerian runs runs")

# %% [markdown]
# ## Forward solves, too
#
# A `solve` keeps its densities on the way. `--resume` goes on with an interrupted one, as above. `--restart` starts
# another solve of the same configuration from densities that an earlier one has kept, here from those at $t = 0.5$.

# %%
terminal("eulerian solve gaussian.toml --theta runs/job --output runs/forward --quiet")
terminal("mpirun -n 2 eulerian solve gaussian.toml --theta runs/job --output runs/half --restart runs/forward --at 0.5")

# %%
first, second = (result(run) for run in ("runs/forward", "runs/half"))
for run in (first, second):
    print("J and the mean at T:", run["objective"]["total"], *run["moments"]["mean"])
assert abs(first["objective"]["total"] / second["objective"]["total"] - 1.0) < 1e-10
assert abs(first["moments"]["mean"][0][0] - second["moments"]["mean"][0][0]) < 1e-10

# %% [markdown]
# The second solve has the same end and the same $J$: the cost of the first half is kept with the densities.
#
# ## From Python
#
# The same table, and a run with its problem, its θ and its flow, can be had in Python:

# %%
import eulerian as eu

eu.runs("runs")

# %%
eu.load("runs/job")

# %% [markdown]
# More on this: [interrupt and resume](../howto/interrupt_and_resume.md), [many runs](../howto/many_runs.md), and what
# was done to make runs fail, in [faults](../results/faults.md).
