"""Whether one configuration will work here: its files, its field, its run folder, room on disk and in memory."""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from eulerian.app.config import Config, read_config
from eulerian.app.doctor.machine import ERRORS_IN_ONE_LINE, Finding, folder_room, last_line, run_python
from eulerian.base.errors import EulerianError
from eulerian.base.memory_limits import free_memory, size_text

# Builds the problem, its particles where they are a file's, and evaluates the field at every node. Only sizes and
# warnings come back.
_BUILD = f"""{ERRORS_IN_ONE_LINE}
import json
from eulerian.base import parallel
from eulerian.base.errors import collected_warnings
warned = []
with one_line_errors(), collected_warnings(warned.append):
    from mpi4py import MPI
    from eulerian.app.config import read_config
    from eulerian.app.tasks.network_run import build_on_own_mesh
    from eulerian.app.runs.train_checkpoint import largest_checkpoint
    config = read_config(sys.argv[1])
    problem = build_on_own_mesh(config, MPI.COMM_WORLD)
    plan = problem.plan(problem.initial_theta)
    space = problem.density_space
    if config.particles.file is not None:
        from eulerian.density.gathered import GatheredDensity
        from eulerian.app.build.particles import sample_of
        sample_of(config, GatheredDensity.gather(space, problem.initial_density), space.comm)
    print(json.dumps({{"warnings": warned, "cells": space.n_owned, "dim": space.dim, "degree": space.degree,
                      "labels": space.n_labels, "velocities": len(problem.groups),
                      "parameters": problem.n_params, "plan": plan.statement,
                      "checkpoint": largest_checkpoint(problem.n_params, config.optimiser.max_iterations),
                      "memory": plan.memory_bytes, "disk": plan.on_disk * plan.budget.state}}))
"""

_ADVICE = "A run goes on all the same; its result holds this warning"

_FIGURES = 8 * 2**20  # bytes of figures, history and the like, at most


def examine_config(path: Path) -> list[Finding]:
    """What there is to say about a configuration, in such an order that a trouble explains those after it."""
    try:
        config = read_config(path)
    except EulerianError as error:
        return [Finding("TROUBLE", "configuration", " ".join(str(error).split()), "Mend the key that is named")]
    built, sizes = problem(path)
    findings = [Finding("ok", "configuration", str(path), "reads without errors"), built]
    findings += [Finding("note", "warning", text, _ADVICE) for text in sizes.get("warnings", ())]
    findings += adaptive_mesh(config, sizes)
    return [*findings, run_folder(config, sizes), memory_budget(config, sizes), *_adjoint_disk(config, sizes)]


def problem(path: Path) -> tuple[Finding, dict[str, Any]]:
    """Whether the problem can be built and its field evaluated, and the sizes of what it is made of."""
    done: subprocess.CompletedProcess[str] = run_python(_BUILD.replace("sys.argv[1]", repr(str(path))))
    if done.returncode != 0:
        return Finding("TROUBLE", "problem", last_line(done), "Mend what the message names; then try again"), {}
    sizes: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    parameters = sizes["parameters"]
    found = f"{sizes['cells']} cells, {parameters} parameters; the field is finite at every node"
    return Finding("ok", "problem", found, sizes["plan"]), sizes


def adaptive_mesh(config: Config, sizes: dict[str, Any]) -> list[Finding]:
    """What is known of meshes that are still to be made."""
    if config.adapt is None or not sizes:
        return []
    found = f"begins with {sizes['cells']} cells; no mesh will have more than {config.adapt.max_cells}"
    advice = "What memory and disk are needed grows with the cells: the figures here are those of the first mesh"
    return [Finding("note", "[adapt]", found, advice)]


def run_folder(config: Config, sizes: dict[str, Any]) -> Finding:
    """Whether the run can be written, and has room."""
    folder = config.output.directory
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    wanted = _output_bytes(config, sizes)
    purpose = f"the run takes {size_text(wanted)} at most"
    advice = "Choose another one with --output, or lower output.densities"
    return folder_room("run folder", existing, advice, wanted=wanted, purpose=purpose, shown=folder)


def _output_bytes(config: Config, sizes: dict[str, Any]) -> int:
    """More than the files of a run take: numbers of ParaView's files are compressed, but in text."""
    if not sizes:
        return _FIGURES
    dim = sizes["dim"]
    nodes = (dim + 1) * (dim + 2) // 2 if sizes["degree"] == 2 else dim + 1
    numbers = 3 + sizes["labels"] + 3 * sizes["velocities"] + 2  # points, densities, velocities, cells
    snapshot = 8 * sizes["cells"] * nodes * numbers * 4 // 3
    return int(config.output.densities * snapshot + _checkpoints(config, sizes, nodes) + _FIGURES)


def _checkpoints(config: Config, sizes: dict[str, Any], nodes: int) -> int:
    """Of a training, the last two and one that is being written; or of a solve, at every layer and snapshot."""
    if config.output.checkpoint_every == 0:
        return 0
    training = 3 * sizes["checkpoint"]
    times = config.field.layers + config.output.densities + 1
    solve = 8 * times * sizes["cells"] * nodes * (sizes["labels"] + sizes["velocities"])
    return int(max(training, solve))


def memory_budget(config: Config, sizes: dict[str, Any]) -> Finding:
    """Whether the memory that the adjoint may take is there."""
    free = free_memory()
    wanted = sizes.get("memory", config.solver.memory_bytes)
    found = f"the adjoint may take {config.solver.memory}, and takes {size_text(wanted)}"
    found += f"; {size_text(free)} are left"
    if wanted > free:
        advice = f"Set solver.memory to less than {size_text(free)}; steps are then computed again"
        return Finding("TROUBLE", "memory for it", found, advice)
    if config.solver.memory_bytes > free:
        advice = f"Faster flows take more steps, and so more of it: set solver.memory to less than {size_text(free)}"
        return Finding("note", "memory for it", found, advice)
    return Finding("ok", "memory for it", found, "enough, as long as nobody else wants it")


def _adjoint_disk(config: Config, sizes: dict[str, Any]) -> list[Finding]:
    """Room for the densities that the adjoint keeps on disk, where it does."""
    if config.solver.disk is None:
        return []
    folder = config.solver.disk_directory or Path(tempfile.gettempdir())
    wanted = sizes.get("disk", 0)
    purpose = f"the adjoint keeps {size_text(wanted)} there"
    advice = "Set solver.disk_directory to a folder with room, or lower solver.disk"
    return [folder_room("solver.disk", folder, advice, wanted=wanted, purpose=purpose)]
