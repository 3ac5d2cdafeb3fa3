"""Costs and densities of the user's own, named in a configuration: built, run, loaded again, and refused."""

from pathlib import Path
from textwrap import dedent
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import LABELLINGS, problem_config, theta_with_layers

from eulerian.app.build.network import build, build_ideal, build_particles
from eulerian.app.config import Config, parse_config
from eulerian.app.tasks.loaded_run import load
from eulerian.base.errors import InputError
from eulerian.optimise import minimise

pytest.importorskip("jax", reason='the extra "eulerian[jax]" is not installed')

pytestmark = pytest.mark.two_ranks

MODULE = """
    import numpy as np
    import ufl
    from jax import numpy as jnp

    import eulerian as eu
    from eulerian.jax import density_loss, point_loss, sensor_loss
    from eulerian.jax import potential as of_place

    GOALS = np.array([[0.4, 0.2], [-0.4, 0.2]])

    def quadratic(x, label):
        return 0.5 * np.sum((x - GOALS[label]) ** 2, axis=1)

    built_in = eu.QuadraticLoss(GOALS)
    of_jax = point_loss(lambda x, label: 0.5 * jnp.sum((x - jnp.asarray(GOALS)[label]) ** 2))
    trained = point_loss(lambda p, x, label: 0.5 * jnp.sum((x - p[label]) ** 2), GOALS)
    values = density_loss(lambda x, rho: 0.5 * jnp.sum(rho**2))
    sensors = sensor_loss(lambda values: jnp.sum(values**2), [[0.1, 0.2], [-0.3, 0.0]])
    form = eu.FormLoss(lambda rho: 0.5 * sum(each**2 for each in rho) * ufl.dx)
    formula = "x**2/2"

    def potential(x):
        return 0.4 * x[:, 0] ** 2 + 0.1

    attracting = of_place(lambda p, x: 0.4 * jnp.sum((x - p) ** 2), np.array([0.1, 0.2]))

    def bump(x):
        return np.exp(-np.sum((x - [-0.22, 0.13]) ** 2, axis=1) / (2.0 * 0.2**2))

    shape = eu.Gaussian([0.31, -0.17], std=0.2)
    number = 3.0

    def raising(x):
        raise ValueError("no such point")

    def wide(x):
        return x
"""


class Code:
    """A module in a folder that all ranks see, named by the tables that this gives."""

    def __init__(self, comm: MPI.Comm, folder: Path) -> None:
        self.comm, self.folder = comm, folder
        self.write(MODULE)

    def write(self, text: str, name: str = "mycosts", rank: int = 0) -> None:
        if self.comm.rank == rank:
            (self.folder / f"{name}.py").write_text(dedent(text), encoding="utf-8")
        self.comm.barrier()

    def __call__(self, name: str, **keys: Any) -> dict[str, Any]:
        return {"kind": "python", "object": f"mycosts:{name}", "folder": str(self.folder), **keys}


@pytest.fixture
def code(comm: MPI.Comm, tmp_path: Path) -> Code:
    return Code(comm, tmp_path)


def config(**tables: Any) -> Config:
    return parse_config(problem_config(2, 1, LABELLINGS[1], **tables))


def same(one: Any, other: Any, rtol: float = 1e-12) -> None:
    theta = theta_with_layers(other)
    value, gradient = other.value_and_gradient(theta)
    assert one.value_and_gradient(theta)[0] == pytest.approx(value, rel=rtol)
    np.testing.assert_allclose(one.value_and_gradient(theta)[1], gradient, rtol=1e-7, atol=1e-9)


BLIND = {"potential": None, "congestion": 0.0, "entropy": 0.0}


@pytest.mark.parametrize("name", ["quadratic", "built_in", "of_jax"])
def test_a_loss_is_the_built_in_one(comm: MPI.Comm, code: Code, name: str) -> None:
    mine = config(objective={"terminal": code(name)})
    same(build(mine, comm), build(config(), comm))
    particles = {"particles": {"count": 40, "replicates": 4, "steps_per_layer": 1}}
    both = (config(objective={**BLIND, "terminal": code(name)}, **particles), config(objective=BLIND, **particles))
    same(*(build_particles(each, comm) for each in both))
    assert build_ideal(mine, comm).functional.loss is not None


def test_potentials_and_densities(comm: MPI.Comm, code: Code) -> None:
    initial = [code("bump", weight=1.0), code("shape", label=1, weight=2.0)]
    mine = config(objective={"potential": code("potential")}, density={"initial": initial})
    same(build(mine, comm), build(config(), comm), rtol=1e-8)
    kl = [
        {"kind": "kl", "target": target}
        for target in (initial, problem_config(2, 1, LABELLINGS[1])["density"]["initial"])
    ]
    one, other = (build(config(objective={"terminal": each}), comm) for each in kl)
    same(one, other, rtol=1e-7)
    assert build_ideal(mine, comm).running is not None


@pytest.mark.parametrize("name", ["values", "sensors", "form"])
def test_functionals_of_the_density(comm: MPI.Comm, code: Code, name: str) -> None:
    table = config(objective={**BLIND, "terminal": code(name)})
    problem = build(table, comm)
    assert problem.value(problem.initial_theta) > 0.0
    for refused in (build_ideal, build_particles):
        with pytest.raises(InputError) as caught:
            refused(table, comm)
        assert caught.value.key == "objective.terminal"


def test_costs_at_given_times(comm: MPI.Comm, code: Code) -> None:
    at = [{"time": 0.4, "weight": 0.5, **code("trained", readout=[0.4, 0.2, -0.4, 0.2])}]
    problem = build(config(objective={"at": at}), comm)
    targets = {"kind": "quadratic", "targets": [[0.4, 0.2], [-0.4, 0.2]]}
    other = build(config(objective={"at": [{"time": 0.4, "weight": 0.5, **targets}]}), comm)
    problem.value(problem.initial_theta)
    other.value(other.initial_theta)
    assert problem.parts["intermediate"] == pytest.approx(other.parts["intermediate"], rel=1e-12)
    with pytest.raises(InputError, match="terminal cost") as caught:
        build(config(objective={"at": [{"time": 0.4, **code("number")}]}), comm)
    assert caught.value.key == "objective.at.0.object"


def test_parameters_start_where_a_run_left_them(comm: MPI.Comm, code: Code) -> None:
    start = [0.1, 0.2, 0.3, 0.4]
    problem = build(config(objective={"terminal": code("trained", readout=start)}), comm)
    np.testing.assert_array_equal(problem.initial_theta.ravel()[-4:], start)
    for name, words in (("trained", "trains 4"), ("quadratic", "only")):
        with pytest.raises(InputError, match=words) as caught:
            build(config(objective={"terminal": code(name, readout=[0.1])}), comm)
        assert caught.value.key == "objective.terminal.readout"


# -- runs ------------------------------------------------------------------------------------------------------------

RUN = """
[domain]
box = { lower = [-1.0, -1.0], upper = [1.0, 1.0], cells = [6, 6] }
[[density.initial]]
kind = "python"
object = "mycosts:bump"
[[density.initial]]
kind = "gaussian"
mean = [0.31, -0.17]
std = 0.2
label = 1
[field]
kind = "mlp"
hidden = [4]
layers = 2
horizon = 0.5
[objective]
kinetic = 0.2
potential = { kind = "python", object = "mycosts:POTENTIAL" }
[objective.terminal]
kind = "python"
object = "mycosts:OBJECT"
[optimiser]
max_iterations = 3
[output]
densities = 2
"""


@pytest.mark.one_process
@pytest.mark.parametrize("name", ["trained", "values", "form", "quadratic"])
def test_runs(code: Code, tmp_path: Path, here: Any, name: str) -> None:
    """Trained, resumed, verified, started from, loaded and drawn; the module lies beside the configuration."""
    place = "attracting" if name in ("trained", "quadratic") else "potential"
    text = RUN.replace("OBJECT", name).replace("POTENTIAL", place)
    (tmp_path / "case").mkdir()
    (code.folder / "mycosts.py").rename(tmp_path / "case" / "mycosts.py")
    (tmp_path / "case" / "case.toml").write_text(text, encoding="utf-8")
    here("train", "case/case.toml", "--output", "run")
    here("train", "case/case.toml", "--output", "run", "--resume", "--set", "optimiser.max_iterations=5")
    here("verify", "--run", "run")
    here("solve", "case/case.toml", "--theta", "run", "--output", "solved")
    here("plot", "run")
    run, solved = load(tmp_path / "run"), load(tmp_path / "solved")
    assert run.problem.value(run.theta) == pytest.approx(run.result["objective"]["total"], rel=1e-12)
    assert solved.result["objective"]["total"] == pytest.approx(run.result["objective"]["total"], rel=1e-10)
    sizes = {"trained": 4 + 2, "quadratic": 2}
    readout = run.problem.split(run.theta)[1]
    assert readout.size == sizes.get(name, 0)
    np.testing.assert_array_equal(readout, solved.problem.split(solved.problem.initial_theta)[1])
    again = minimise(run.problem, run.theta, max_iterations=2)
    assert again.value <= run.result["objective"]["total"]


# -- refusals --------------------------------------------------------------------------------------------------------


def test_no_python(code: Code) -> None:
    start = problem_config(2, 1, LABELLINGS[1])
    for tables, key in (
        ({"objective": {"terminal": code("quadratic")}}, "objective.terminal.kind"),
        ({"objective": {"potential": code("potential")}}, "objective.potential.kind"),
        ({"density": {"initial": [code("bump"), code("shape", label=1)]}}, "density.initial.0.kind"),
        ({"objective": {"terminal": {"kind": "kl", "target": [code("bump")]}}}, "objective.terminal.target.0.kind"),
    ):
        merged = {**start, **{name: {**start[name], **table} for name, table in tables.items()}}
        if "target" in key:
            merged["density"] = {**merged["density"], "initial": merged["density"]["initial"][:1]}
        with pytest.raises(InputError, match="forbidden") as caught:
            parse_config(merged, python=False)
        assert caught.value.key == key


def with_start(first: dict[str, Any]) -> dict[str, Any]:
    return {"density": {"initial": [first, {"kind": "gaussian", "mean": [0.3, 0.0], "std": 0.2, "label": 1}]}}


def test_mistakes_are_told_with_their_key(comm: MPI.Comm, code: Code) -> None:
    cases = (
        ({"objective": {"terminal": code("missing")}}, "objective.terminal.object", "there is no 'missing'"),
        ({"objective": {"terminal": code("number")}}, "objective.terminal.object", "terminal cost"),
        ({"objective": {"terminal": code("raising")}}, "objective.terminal", "raised ValueError: no such point"),
        ({"objective": {"terminal": code("wide")}}, "objective.terminal", "one number for each point"),
        ({"objective": {"potential": code("missing")}}, "objective.potential.object", "there is no 'missing'"),
        ({"objective": {"potential": code("number")}}, "objective.potential", "neither a formula nor a function"),
        ({"objective": {"potential": code("raising")}}, "objective.potential", "raised ValueError"),
        (with_start(code("missing")), "density.initial.0.object", "there is no 'missing'"),
        (with_start(code("number")), "density.initial.0.object", "nothing that can be a density"),
        (with_start(code("raising")), "density.initial.0.object", "raised ValueError"),
        (with_start(code("wide")), "density.initial.0.object", "one number for each point"),
    )
    for tables, key, words in cases:
        with pytest.raises(InputError, match=words) as caught:
            build(config(**tables), comm)
        assert caught.value.key == key
        assert caught.value.remedy


def test_tables_are_checked(code: Code) -> None:
    for potential, key, words in (
        (3.0, "objective.potential", "text in quotes"),
        ("log(", "objective.potential", "closing bracket"),
        ({"kind": "python"}, "objective.potential.object", "is missing"),
        ({"kind": "python", "object": "no path"}, "objective.potential.object", "malformed"),
        ({**code("potential"), "unknown": 1}, "objective.potential.unknown", "unknown key"),
        ({**code("potential"), "folder": "nowhere"}, "objective.potential.folder", "no such folder"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            config(objective={"potential": potential})
        assert caught.value.key == key
    with pytest.raises(InputError, match="is missing") as caught:
        config(objective={"terminal": {"kind": "python"}})
    assert caught.value.key == "objective.terminal.object"


@pytest.mark.skipif(MPI.COMM_WORLD.size == 1, reason="needs ranks that differ")
def test_code_that_fails_on_one_rank_fails_on_all(comm: MPI.Comm, code: Code) -> None:
    code.write(
        "from mpi4py import MPI\nassert MPI.COMM_WORLD.rank == 0, 'not here'\ndef f(x):\n    return x[:, 0] ** 2\n",
        "uneven",
    )
    for tables in (
        {"objective": {"terminal": code("f", object="uneven:f")}},
        {"objective": {"potential": code("f", object="uneven:f")}},
        with_start(code("f", object="uneven:f")),
    ):
        with pytest.raises(InputError, match="not here"):
            build(config(**tables), comm)
