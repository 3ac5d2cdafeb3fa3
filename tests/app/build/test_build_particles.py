"""From a configuration to particles: what is refused, clouds of draws and of files, targets of the relative entropy."""

import warnings
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import problem_config

from eulerian.app.build.network import build, build_particles, build_sampled_problem
from eulerian.app.build.particles import particles_on, refuse_on_particles, relative_entropy, sample_of
from eulerian.app.config import Config, KlTerminal, parse_config
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.parallel import gather_rows, on_root
from eulerian.particles.kl import KlLoss

pytestmark = pytest.mark.two_ranks

GAUSSIAN = {"kind": "gaussian", "mean": [0.1, -0.2], "std": 0.4}


def table(labelling: str = "one label", cells: int | None = None, **tables: Any) -> dict[str, Any]:
    """Every cost that particles have."""
    sections = {"particles": {"count": 64, "replicates": 4}, **tables}
    sections["objective"] = {"congestion": 0.0, "entropy": 0.0, **tables.get("objective", {})}
    return problem_config(2, 1, labelling, cells, **sections)


def configure(labelling: str = "one label", cells: int | None = None, **tables: Any) -> Config:
    return parse_config(table(labelling, cells, **tables))


def kl(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"terminal": {"kind": "kl", "target": list(terms)}}


REFUSED: dict[str, dict[str, Any]] = {
    "objective.congestion": {"objective": {"congestion": 0.1}},
    "objective.entropy": {"objective": {"entropy": 0.1}},
    "objective.terminal.kind": {"objective": {"terminal": {"kind": "l2", "target": [GAUSSIAN]}}},
    "field.kind": {"field": {"kind": "free"}},
    "objective.terminal.target.1.kind": {
        "objective": kl(GAUSSIAN, {"kind": "uniform", "lower": [0.0, 0.0], "upper": [1.0, 1.0]})
    },
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_particles_cannot_have_is_refused_with_a_reason(key: str) -> None:
    base = table(**REFUSED[key])
    if key == "field.kind":
        base["field"] = {"kind": "free", "layers": 2}
    with pytest.raises(InputError, match=r"particles cannot have this: .*--method particles") as caught:
        refuse_on_particles(parse_config(base))
    assert caught.value.key == key


@pytest.mark.parametrize("sampling", ["random", "sobol"])
def test_draws_do_not_depend_on_the_ranks(comm: MPI.Comm, sampling: str) -> None:
    config = configure("two labels", particles={"count": 61, "replicates": 4, "sampling": sampling, "seed": 3})
    together, alone = build_particles(config, comm), build_particles(config, MPI.COMM_SELF)
    for name in ("x", "labels", "weights", "log_density", "replicate"):
        gathered = gather_rows(comm, getattr(together.sample, name))
        if gathered is not None:
            np.testing.assert_allclose(gathered, getattr(alone.sample, name), rtol=1e-9, atol=1e-12)
    assert together.sample.independent == (sampling == "random")
    assert together.count == 61
    np.testing.assert_allclose(together.masses(), [1 / 3, 2 / 3], rtol=1e-12)
    theta = together.initial_theta
    (value, gradient), (same, exact) = (each.value_and_gradient(theta) for each in (together, alone))
    assert value == pytest.approx(same, rel=1e-9)
    np.testing.assert_allclose(gradient, exact, rtol=1e-7, atol=1e-9)


def test_the_rival_of_a_problem_on_a_mesh(comm: MPI.Comm) -> None:
    """The same field and costs: where no mass comes near a wall both agree up to the error of the mesh."""
    config = configure("a field per label", field={"output_scale": 0.3}, particles={"count": 4096, "sampling": "sobol"})
    mesh = build(configure("a field per label", 24, field={"output_scale": 0.3}), comm)
    swarm = build_sampled_problem(config, comm)
    rival = particles_on(config, mesh, swarm.problem.sample)
    theta = mesh.initial_theta
    assert rival.value(theta) == swarm.problem.value(theta)
    mesh.value(theta)
    for name in ("terminal", "kinetic", "jacobian", "potential", "parameters"):
        assert rival.parts[name] == pytest.approx(mesh.parts[name], rel=0.03), name
    mean, covariance = rival.moments()
    np.testing.assert_allclose(mean, mesh.statistics.mean, atol=0.02)
    np.testing.assert_allclose(covariance, mesh.statistics.covariance, atol=0.01)


def write_samples(path: Path, comm: MPI.Comm) -> Floats:
    x = np.random.default_rng(2).normal(0.0, 0.2, (11, 2))
    rows = [f"{a!r},{b!r},{'uv'[n % 2]}" for n, (a, b) in enumerate(x.tolist())]
    on_root(comm, lambda: path.write_text("\n".join(["a,b,class", *rows])))
    return x


def test_samples_of_a_file(comm: MPI.Comm, tmp_path: Path) -> None:
    x = write_samples(tmp_path / "x.csv", comm)
    section = {"file": str(tmp_path / "x.csv"), "columns": ["b", "a"], "label_column": "class", "replicates": 3}
    swarm = build_sampled_problem(configure("two labels", particles=section), comm)
    sample = swarm.problem.sample
    own = slice(11 * comm.rank // comm.size, 11 * (comm.rank + 1) // comm.size)
    np.testing.assert_array_equal(sample.x, x[own, ::-1])
    np.testing.assert_array_equal(sample.labels, (np.arange(11) % 2)[own])
    np.testing.assert_array_equal(sample.replicate, (np.arange(11) % 3)[own])
    np.testing.assert_allclose(sample.weights, 1 / 11)
    known = sample.log_density
    assert known is not None
    expected = swarm.initial.values(sample.x)[np.arange(len(sample.x)), sample.labels]
    np.testing.assert_allclose(np.exp(known), expected)
    assert sample.independent
    theta = swarm.problem.initial_theta
    assert np.isfinite(swarm.problem.value(theta))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"columns": ["a"]}, "particles.columns"),
        ({"label_column": None}, "particles.label_column"),
        ({"columns": ["a", "c"]}, "particles.columns"),
    ],
)
def test_files_that_do_not_fit_are_refused(comm: MPI.Comm, tmp_path: Path, change: dict[str, Any], key: str) -> None:
    write_samples(tmp_path / "x.csv", comm)
    section = {"file": str(tmp_path / "x.csv"), "columns": ["a", "b"], "label_column": "class", **change}
    given = {name: value for name, value in section.items() if value is not None}
    with pytest.raises(InputError, match=key):
        build_particles(configure("two labels", particles=given), comm)


def test_classes_of_a_file_are_those_of_the_initial_density(comm: MPI.Comm, tmp_path: Path) -> None:
    """By their names, where these are known, whatever their order."""
    rows = "x,y,c\n0.1,0.1,7\n0.2,0.3,8\n-0.1,0.2,7\n0.1,-0.2,8\n"
    files = {"start.csv": rows, "same.csv": rows.replace(",7\n", ",7.0\n"), "other.csv": rows.replace(",8\n", ",9\n")}
    for name, text in files.items():
        on_root(comm, lambda name=name, text=text: (tmp_path / name).write_text(text))
    tables = table("two labels")
    columns = {"columns": ["x", "y"], "label_column": "c"}
    tables["density"]["initial"] = [
        {"kind": "samples", "file": str(tmp_path / "start.csv"), "bandwidth": 0.1, **columns}
    ]
    tables["particles"] = {"file": str(tmp_path / "same.csv"), **columns}
    labels = build_sampled_problem(parse_config(tables), comm).problem.sample.labels
    assert np.concatenate(comm.allgather(labels)).tolist() == [0, 1, 0, 1]
    tables["particles"] |= {"file": str(tmp_path / "other.csv")}
    with pytest.raises(InputError, match=r"particles\.label_column: a class that density.initial does not have.*'9'"):
        build_sampled_problem(parse_config(tables), comm)


def test_particles_of_a_file_outside_the_domain(comm: MPI.Comm, tmp_path: Path) -> None:
    def build_from(text: str) -> list[str]:
        on_root(comm, lambda: (tmp_path / "x.csv").write_text(text))
        section = {"file": str(tmp_path / "x.csv"), "columns": [0, 1], "replicates": 2}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            build_sampled_problem(configure(particles=section), comm)
        return comm.bcast([str(each.message) for each in caught], 0)

    assert build_from("0.1,0.2\n0.3,0.4\n1.0,-1.0\n") == []
    (text,) = build_from("0.1,0.2\n0.3,0.4\n0.5,1.1\n")
    assert text.startswith(
        "33.3 % of the samples of particles.file (1 of 3) lie outside the domain and move all the same"
    )
    with pytest.raises(InputError, match=r"particles\.file: 66\.7 % of the samples \(2 of 3\)"):
        build_from("0.1,0.2\n3.3,0.4\n0.5,1.1\n")


def test_the_target_of_the_relative_entropy_has_mass_one(comm: MPI.Comm) -> None:
    """A formula has the mass of its part in the domain [-1, 1]²; weights are those of all labels together."""
    terms = (
        {**GAUSSIAN, "weight": 1.0, "label": 0},
        {"kind": "expression", "value": "2 + x", "weight": 3.0, "label": 1},
    )
    config = configure("two labels", objective=kl(*terms))
    swarm = build_sampled_problem(config, comm)
    terminal = config.objective.terminal
    assert isinstance(terminal, KlTerminal)
    loss = relative_entropy(terminal.mixture, swarm.space)
    x = np.array([[0.5, 0.2]])
    rest = x[0] - GAUSSIAN["mean"]  # type: ignore[operator]
    gaussian = 0.25 * np.exp(-0.5 * rest @ rest / 0.16) / (2 * np.pi * 0.16)
    np.testing.assert_allclose(np.exp(-loss.value(x, np.zeros(0))), [[gaussian, 0.75 * 2.5 / 8]], rtol=1e-9)
    assert isinstance(swarm.problem.loss, KlLoss)
    assert np.isfinite(swarm.problem.value(swarm.problem.initial_theta))


def test_entropy_of_mesh_and_particles_agree(comm: MPI.Comm) -> None:
    """Relative to a Gaussian, at θ = 0 where nothing moves: the draws' own density is that of the mesh."""
    config = parse_config(
        {
            **table(cells=14, particles={"count": 4096, "sampling": "sobol"}, field={"zero_init": True}),
            "objective": kl({**GAUSSIAN, "std": 0.6}),
        }
    )
    swarm, mesh = build_sampled_problem(config, comm), build(config, comm)
    found, expected = swarm.problem.value(swarm.problem.initial_theta), mesh.value(mesh.initial_theta)
    # Particles compare with the Gaussian of the plane, the mesh with its part in the domain, which has mass 1 there.
    share = mesh_share([0.1, -0.2], 0.6)
    assert found == pytest.approx(expected - np.log(share), abs=3 * swarm.problem.interval() + 2e-3)


def mesh_share(mean: list[float], std: float) -> float:
    from scipy.special import ndtr

    return float(np.prod([ndtr((1 - m) / std) - ndtr((-1 - m) / std) for m in mean]))


def test_memory_is_that_of_the_configuration(comm: MPI.Comm) -> None:
    with pytest.raises(InputError, match=r"solver\.memory"):
        build_particles(configure(solver={"memory": "4 KB"}), comm)


def test_fields_without_derivatives_are_refused(comm: MPI.Comm) -> None:
    class Plain:
        def n_params(self, dim: int, /) -> int:
            return dim

        def init(self, _rng: np.random.Generator, /) -> Floats:
            return np.zeros(2)

        def value(self, theta: Floats, x: Floats) -> Floats:
            return np.broadcast_to(theta, x.shape).copy()

        def vjp(self, theta: Floats, x: Floats, w: Floats) -> Floats:
            assert theta.shape == (2,)
            assert x.shape == w.shape
            return w.sum(axis=0)

    config = configure()
    mesh = build(config, comm)
    mesh.layered.field = Plain()  # type: ignore[assignment]
    swarm = build_sampled_problem(config, comm)
    sample = sample_of(config, swarm.initial, comm)
    with pytest.raises(InputError, match="jacobian, jacobian_vjp, jacobian_vjp_x"):
        particles_on(config, mesh, sample)
