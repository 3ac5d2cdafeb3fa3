"""Adaptive meshes: the tolerances hold with few cells, limits are told, the gradient is exact, going on is exact."""

import inspect
import json
import math
import warnings
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from jobs import Here
from problems import NO_DENSITY_COSTS, problem_config

from eulerian.analysis.characteristics import verify
from eulerian.analysis.verify import verify as verify_laws
from eulerian.app.build.network import build, build_ideal, build_particles
from eulerian.app.build.training import adapt_mesh, build_training, start_problem, tolerances
from eulerian.app.config import Adapt, Config, parse_config
from eulerian.app.runs.run_files import read_mesh, read_run
from eulerian.app.runs.train_checkpoint import Checkpoint, read_checkpoint
from eulerian.app.tasks.loaded_run import load_trained
from eulerian.base.errors import EulerianWarning, InputError
from eulerian.base.parallel import on_root
from eulerian.control.control import ControlProblem
from eulerian.density.shapes import Gaussian
from eulerian.density.space import DensitySpace
from eulerian.fields import Affine
from eulerian.mesh.create import mesh_from_simplices
from eulerian.mesh.simplices import Simplices, box_simplices
from eulerian.objective.costs import Costs
from eulerian.objective.losses import QuadraticLoss
from eulerian.optimise import Method, Record, Settings
from eulerian.optimise.adaptive import AdaptedProblem, Tolerances, adapt, excess, misses
from eulerian.optimise.adaptive_training import FIRST_STAGE, AdaptiveTraining
from eulerian.transport.trajectory import TimeGrid

AFFINE = [[-0.6, 0.5, -0.5, -0.6, 0.9, -0.3]]  # turns, presses and moves


def table(dim: int = 2, density: float = 0.1, degree: int = 1, **adapt_keys: Any) -> dict[str, Any]:
    """A Gaussian on a square (an interval), in a flow that is known."""
    mean, target = [-0.4, 0.2, 0.1][:dim], [0.5, -0.3, 0.0][:dim]
    affine = {"kind": "linear", "features": "affine", "layers": 3, "theta": AFFINE if dim == 2 else [[-0.6, 0.8]]}
    return {
        "domain": {"box": {"lower": [-1.6] * dim, "upper": [1.6] * dim, "cells": [32] * dim}},
        "density": {"degree": degree, "initial": [{"kind": "gaussian", "mean": mean, "std": 0.25}]},
        "field": affine,
        "objective": {"kinetic": 0.5, "parameters": 0.01, "terminal": {"kind": "quadratic", "target": target}},
        "ideal": {"certificate": "none"},
        "output": {"densities": 0},
        "adapt": {"density": density, "objective": 0.01, **adapt_keys},
    }


def adapted(config: Config, comm: MPI.Comm) -> AdaptedProblem:
    problem = start_problem(config, comm)
    return adapt_mesh(config, problem, problem.initial_theta)


def cells(found: AdaptedProblem) -> int:
    return found.reports[-1].cells


# -- one θ -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dim", "degree", "tolerance", "gain"), [(1, 1, 0.005, 1.2), (2, 1, 0.03, 3.0), (2, 2, 0.004, 2.5)]
)
def test_the_tolerance_holds_with_a_part_of_the_cells(
    comm: MPI.Comm, dim: int, degree: int, tolerance: float, gain: float
) -> None:
    found = adapted(parse_config(table(dim, tolerance, degree)), comm)
    l1 = found.verification.density_l1
    assert found.shortfall is None
    assert l1 is not None
    assert l1[0] <= tolerance
    assert found.verification.error <= 0.01
    assert [each.cells for each in found.reports] == sorted({each.cells for each in found.reports})
    uniform = table(dim, degree=degree)
    side = (gain * cells(found) / dim) ** (1.0 / dim)
    uniform["domain"]["box"]["cells"] = [math.ceil(side)] * dim
    del uniform["adapt"]
    problem = build(parse_config(uniform), comm)
    worse = verify(problem, problem.initial_theta).density_l1
    assert worse is not None
    assert worse[0] > l1[0]


def test_the_mesh_and_j_are_the_same_on_any_number_of_ranks(comm: MPI.Comm) -> None:
    config = parse_config(table(density=0.12))
    shared, alone = adapted(config, comm), adapted(config, MPI.COMM_SELF)
    ours, theirs = (found.problem.density_space.simplices for found in (shared, alone))
    assert ours is not None
    assert theirs is not None
    assert np.array_equal(ours.cells, theirs.cells)
    assert np.array_equal(ours.points, theirs.points)
    assert [each.total for each in shared.reports] == pytest.approx([each.total for each in alone.reports], rel=1e-11)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_the_gradient_is_exact_on_an_adapted_mesh(comm: MPI.Comm, degree: int) -> None:
    small = problem_config(2, degree, "two labels", 4, adapt={"density": 1.0, "rounds": 1}, objective=NO_DENSITY_COSTS)
    problem = adapted(parse_config(small), comm).problem
    sizes = problem.density_space.geometry.det
    low, high = comm.allreduce(float(sizes.min()), MPI.MIN), comm.allreduce(float(sizes.max()), MPI.MAX)
    assert high / low > 1.9  # cells of several sizes
    laws = verify_laws(problem, problem.initial_theta, np.random.default_rng(0))
    assert min(laws.taylor_rates) >= 1.9, laws
    assert laws.dot_error <= 1e-13
    assert laws.mass_error <= 1e-12
    assert laws.min_density >= -1e-12


@pytest.mark.two_ranks
@pytest.mark.parametrize(("limit", "key"), [({"rounds": 1}, "adapt.rounds"), ({"max_cells": 700}, "adapt.max_cells")])
def test_a_limit_that_ends_it_is_named(comm: MPI.Comm, limit: dict[str, int], key: str) -> None:
    config = parse_config(table(density=0.02, **limit))
    found = adapted(config, comm)
    assert found.shortfall is not None
    assert key in found.shortfall
    assert "adapt.density = 0.02" in found.shortfall
    assert config.adapt is not None
    assert misses(tolerances(config.adapt), found.verification)
    assert excess(tolerances(config.adapt), found.verification) > 1.0
    assert cells(found) <= config.adapt.max_cells
    assert len(found.reports) <= config.adapt.rounds + 1


@pytest.mark.two_ranks
def test_a_mesh_that_needs_too_many_steps_is_not_taken(comm: MPI.Comm) -> None:
    plain = table(density=0.004, degree=2)
    start = start_problem(parse_config(plain), comm)
    start.value(start.initial_theta)
    limit = max(start.steps)
    assert max(adapted(parse_config(plain), comm).problem.steps) > limit
    found = adapted(parse_config(plain | {"solver": {"max_steps_per_layer": limit}}), comm)
    assert found.shortfall is not None
    assert "max_steps_per_layer" in found.shortfall
    assert max(found.problem.steps) <= limit
    assert found.problem.parts


@pytest.mark.two_ranks
def test_the_start_resolves_what_does_not_move(comm: MPI.Comm) -> None:
    """A narrow target far from ρ₀ is refined for, too."""
    config = table(density=0.1)
    narrow = {"kind": "gaussian", "mean": [1.0, 1.0], "std": 0.05}
    config["objective"]["terminal"] = {"kind": "l2", "target": [narrow]}
    problem = start_problem(parse_config(config), comm)
    space = problem.density_space
    centres = space.vertices.mean(axis=1)
    near = np.linalg.norm(centres - 1.0, axis=1) < 0.1
    size = np.sqrt(space.geometry.det[: space.n_owned])
    assert comm.allreduce(float(size[near].min(initial=np.inf)), MPI.MIN) < 0.06
    assert comm.allreduce(float(size.max(initial=0.0)), MPI.MAX) > 0.15


# -- training --------------------------------------------------------------------------------------------------------


def training_table(iterations: int = 24, **adapt_keys: Any) -> dict[str, Any]:
    config = table(density=0.08, **adapt_keys)
    config["field"] = {"kind": "mlp", "hidden": [8], "layers": 4, "seed": 0}
    config["optimiser"] = {"max_iterations": iterations}
    return config


@pytest.mark.two_ranks
def test_a_training_ends_on_a_mesh_that_resolves_its_flow(comm: MPI.Comm) -> None:
    config = parse_config(training_table())
    training = build_training(config, start_problem(config, comm))
    result = training.run()
    assert config.adapt is not None
    assert training.shortfall is None
    assert result.iterations == 24
    assert result.status == "max_iterations"
    assert [each.iterations for each in result.levels][:2] == [FIRST_STAGE, 24 - FIRST_STAGE]
    assert sum(each.iterations for each in result.levels) == 24
    assert len({each.cells for each in result.levels}) > 1
    assert not misses(tolerances(config.adapt), verify(training.problem, result.theta))
    assert result.value == pytest.approx(training.problem.value(result.theta), rel=1e-12)
    assert result.value < 0.5 * result.history[0].total
    numbers = [record.iteration for record in result.history]
    assert numbers == sorted(numbers)


@pytest.mark.two_ranks
def test_a_converged_training_ends_early(comm: MPI.Comm) -> None:
    table_ = training_table(100)
    table_["field"] = {"kind": "linear", "features": "translation", "layers": 2}
    config = parse_config(table_)
    training = build_training(config, start_problem(config, comm))
    result = training.run()
    assert result.status == "converged"
    assert result.iterations < 50
    assert training.shortfall is None


@pytest.mark.one_process
@pytest.mark.parametrize("stop", [4, 14])  # within the first and within the second stage
def test_going_on_ends_where_a_training_ends_that_never_stopped(tmp_path: Path, stop: int) -> None:
    config = parse_config(training_table(18))
    straight = build_training(config, start_problem(config))
    expected = straight.run()
    first = build_training(config, start_problem(config))

    def keep(record: Record) -> bool:
        if record.iteration == stop:
            theta = first.problem.split(first.theta)[0]
            Checkpoint("", "densities", (0.0, {}), theta, None, None, first.state).write(tmp_path)
        return record.iteration == stop

    first.run(keep)
    found = read_checkpoint(tmp_path)
    assert found is not None
    second = build_training(config, start_problem(config), state=found.state)
    result = second.run()
    assert np.array_equal(result.theta, expected.theta)
    assert result.value == expected.value
    assert [each.iterations for each in result.levels] == [each.iterations for each in expected.levels]
    assert [each.total for each in result.history] == [each.total for each in expected.history]
    ours, theirs = second.problem.density_space.simplices, straight.problem.density_space.simplices
    assert ours is not None
    assert theirs is not None
    assert np.array_equal(ours.cells, theirs.cells)


@pytest.mark.one_process
def test_a_run_that_is_finished_can_be_gone_on_with(here: Here, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(parse_config(training_table(4)).to_toml(), encoding="utf-8")
    here("train", "a.toml", "--quiet", "--output", "run")
    assert "finished" in here("train", "a.toml", "--output", "run", "--resume").stdout
    here("train", "a.toml", "--quiet", "--output", "run", "--resume", "--set", "optimiser.max_iterations=9")
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["iterations"] == 9
    assert result["resolved"] is True


# -- without a configuration -----------------------------------------------------------------------------------------


@pytest.mark.two_ranks
def test_a_mesh_is_adapted_by_a_function_that_makes_the_problem(comm: MPI.Comm) -> None:
    theta = np.tile(AFFINE, (3, 1))

    def on_mesh(mesh: Simplices) -> ControlProblem:
        space = DensitySpace(mesh_from_simplices(mesh, comm))
        costs = Costs(kinetic=0.5, parameters=0.01)
        rho0, loss = Gaussian([-0.4, 0.2], std=0.25), QuadraticLoss([0.5, -0.3])
        return ControlProblem(space, Affine(2), rho0, loss, costs, TimeGrid(1.0, 3))

    coarse = box_simplices((-1.6, -1.6), (1.6, 1.6), (8, 8))
    said: list[str] = []
    found = adapt(on_mesh, coarse, theta, density=0.1, objective=0.02, say=said.append)
    assert found.shortfall is None
    assert found.verification.density_l1 is not None
    assert found.verification.density_l1[0] <= 0.1
    assert found.reports[0].cells == 128
    assert len(said) == len(found.reports) > 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        limited = adapt(on_mesh, coarse, theta.tolist(), density=0.1, max_cells=200)
    assert limited.shortfall is not None
    told = [str(each.message) for each in caught if each.category is EulerianWarning]
    assert told == ([f"adapt came to an end before its tolerances held. {limited.shortfall}"] if comm.rank == 0 else [])
    assert "adapt.max_cells = 200" in limited.shortfall
    with pytest.raises(InputError, match="must be positive") as error:
        adapt(on_mesh, coarse, theta, rounds=0)
    assert error.value.key == "adapt.rounds"


@pytest.mark.one_process
def test_defaults_are_those_of_the_configuration() -> None:
    assert tolerances(Adapt()) == Tolerances()
    signature = inspect.signature(adapt)
    assert Adapt().model_dump() == {name: signature.parameters[name].default for name in Adapt.model_fields}


@pytest.mark.two_ranks
def test_a_training_on_adapted_meshes_needs_simplices(comm: MPI.Comm) -> None:
    plain = {key: value for key, value in training_table().items() if key != "adapt"}
    problem = build(parse_config(plain), comm)
    with pytest.raises(InputError, match="simplices that all ranks know"):
        AdaptiveTraining(problem, lambda _mesh: problem, Tolerances(), Settings(Method("lmvm")))


# -- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.two_ranks
def test_a_run_keeps_its_mesh_and_is_found_on_it(here: Here, tmp_path: Path, comm: MPI.Comm) -> None:
    on_root(comm, lambda: (tmp_path / "a.toml").write_text(parse_config(table()).to_toml(), encoding="utf-8"))
    here("solve", "a.toml", "--quiet", "--output", "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["resolved"] is True
    assert result["verified"]["density_l1"][0] <= 0.1
    assert result["adapt"]["meshes"][-1]["cells"] == result["mesh"]["cells"]
    mesh = read_mesh(tmp_path / "run")
    assert mesh is not None
    assert len(mesh.cells) == result["mesh"]["cells"]
    found = load_trained(tmp_path / "run", comm)
    assert found.problem.value(found.theta) == pytest.approx(result["objective"]["total"], rel=1e-12)
    comm.barrier()
    here("solve", "a.toml", "--quiet", "--output", "again", "--restart", "run", "--at", "0.5")
    restarted = json.loads((tmp_path / "again" / "result.json").read_text(encoding="utf-8"))
    assert restarted["objective"]["total"] == pytest.approx(result["objective"]["total"], rel=1e-12)
    assert restarted["mesh"] == result["mesh"]


@pytest.mark.two_ranks
def test_what_is_not_resolved_is_a_warning(here: Here, tmp_path: Path, comm: MPI.Comm) -> None:
    config = parse_config(table(density=0.01, rounds=1))
    on_root(comm, lambda: (tmp_path / "a.toml").write_text(config.to_toml(), encoding="utf-8"))
    here("solve", "a.toml", "--quiet", "--output", "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["resolved"] is False
    assert any("adapt.rounds = 1" in text for text in result["warnings"])


@pytest.mark.one_process
def test_a_damaged_mesh_is_told(here: Here, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(parse_config(table()).to_toml(), encoding="utf-8")
    here("solve", "a.toml", "--quiet", "--output", "run")
    file = tmp_path / "run" / "mesh.npz"
    for content in (b"", b"no archive", file.read_bytes()[:200]):
        file.write_bytes(content)
        with pytest.raises(InputError, match="holds no mesh that can be read"):
            read_mesh(tmp_path / "run")
    assert read_run(tmp_path / "run")


# -- the configuration -----------------------------------------------------------------------------------------------


@pytest.mark.one_process
def test_defaults_and_what_does_not_go_together() -> None:
    assert Adapt() == Adapt(density=0.05, objective=1e-3, max_cells=200_000, rounds=8)
    assert parse_config({**table(), "adapt": {}}).adapt == Adapt()
    plain = table()
    del plain["adapt"]
    assert parse_config(plain).adapt is None
    assert "[adapt]" not in parse_config(plain).to_toml()
    assert parse_config(parse_config(table()).to_toml()) == parse_config(table())
    for key, value in (("density", 0.0), ("density", 2.0), ("objective", -1.0), ("rounds", 0), ("max_cells", 1.5)):
        with pytest.raises(InputError) as error:
            parse_config({**table(), "adapt": {key: value}})
        assert error.value.key == f"adapt.{key}"
    with pytest.raises(InputError, match="no use for levels") as error:
        parse_config(training_table() | {"optimiser": {"levels": 2}})
    assert error.value.key == "optimiser.levels"
    with pytest.raises(InputError, match="nodes of one mesh") as error:
        parse_config({**table(), "field": {"kind": "free", "layers": 2}})
    assert error.value.key == "field.kind"


@pytest.mark.one_process
def test_where_no_mesh_is_adapted_a_warning_says_so() -> None:
    config = parse_config(table())
    with pytest.warns(EulerianWarning, match=r"\[adapt\] is for solve, train and compare"):
        build_ideal(config)
    with pytest.warns(EulerianWarning, match=r"\[adapt\] is for solve, train and compare"):
        build_particles(config)
