"""What does not fit into memory is refused before it is asked for."""

import math
from pathlib import Path

from mpi4py import MPI

import pytest
from configurations import BASE
from paths import MESHES

from eulerian import build, build_ideal
from eulerian.app.build import memory
from eulerian.app.build.memory import ProblemSize, ideal_needs, mesh_needs, total_memory
from eulerian.app.build.network import build_particles
from eulerian.app.config import parse_config
from eulerian.base import memory_limits
from eulerian.base.errors import InputError
from eulerian.base.memory_limits import MemoryNeed, node_memory, require_memory, require_readable, size_text


def total(config_text: str, *overrides: str, dim: int = 2, cells: float = 1e4, labels: int = 1) -> float:
    config = parse_config(config_text, ".", overrides)
    return sum(need.size for need in mesh_needs(config, ProblemSize(dim, cells, labels, 1)))


def test_there_is_memory(comm: MPI.Comm) -> None:
    assert 2**28 < node_memory() < 2**50
    assert 0 < total_memory(comm) <= node_memory() * comm.size


@pytest.mark.one_process
def test_a_control_group_limits_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / name for name in ("low", "high", "none", "max", "broken")]
    for file, text in zip(files, ("100000000", "200000000", str(2**63 - 4096), "max", "\xff"), strict=True):
        file.write_text(f"{text}\n", encoding="latin-1")
    monkeypatch.setattr(memory_limits, "_control_files", lambda: iter([*files[1:], files[0], tmp_path / "missing"]))
    assert node_memory() == 1e8
    monkeypatch.setattr(memory_limits, "_control_files", lambda: iter(files[2:]))
    assert node_memory() > 1e8


def test_a_limit_of_the_process_counts(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "process_limit", lambda: 1e6)
    assert 1e6 <= total_memory(comm) <= 1e6 * comm.size


def test_the_largest_need_is_blamed() -> None:
    needs = [MemoryNeed(3e9, "a", "key.a", 1, "Less a."), MemoryNeed(5e9, "b", "key.b", [2], "Less b.")]
    assert require_memory(needs, 9e9) == 1e9
    with pytest.raises(InputError, match=r"4\.66 GiB of memory for b \(7\.45 GiB in all\), but .* 931 MiB") as error:
        require_memory(needs, 2**20 * 931.0)
    assert (error.value.key, error.value.value, error.value.remedy) == ("key.b", [2], "Less b.")


def test_sizes_in_words() -> None:
    assert [size_text(1024.0**k) for k in range(6)] == ["1 B", "1 KiB", "1 MiB", "1 GiB", "1 TiB", "1 PiB"]


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({"cells": 2e4}, 2.0),
        ({"labels": 50}, 10.0),
        ({"overrides": ("field.layers=4000",)}, 50.0),
        ({"overrides": ("field.hidden=[4000, 4000]",)}, 50.0),
        ({"overrides": ("output.densities=10000",)}, 50.0),
        ({"overrides": ("density.degree=2",)}, 1.2),
    ],
)
def test_more_needs_more(change: dict[str, object], factor: float) -> None:
    overrides = change.pop("overrides", ())
    assert isinstance(overrides, tuple)
    more = total(BASE, *overrides, **change)  # type: ignore[arg-type]
    assert more > 0.9 * factor * total(BASE) or math.isclose(more, factor * total(BASE), rel_tol=0.05)


def test_slabs_of_the_convex_problem() -> None:
    config = parse_config(BASE, ".", ["ideal.layers=1000"])
    *_, slabs = ideal_needs(config, ProblemSize(2, 1e4, 2, 1))
    assert slabs.size == pytest.approx(4.5e9)
    assert slabs.key == "ideal.layers"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("domain.box.cells=[1000, 1000]", "domain.box.cells"),
        ("domain.refine=5", "domain.refine"),
        ("field.hidden=[3000, 3000]", "field.hidden"),
        ("field.layers=20000", "field.layers"),
        ("output.densities=50000", "output.densities"),
    ],
)
def test_refused_before_there_is_a_mesh(
    comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch, override: str, key: str
) -> None:
    monkeypatch.setattr(memory, "node_memory", lambda: 2.0**28)
    monkeypatch.setattr("eulerian.mesh.create.dmesh", None)  # making one would fail
    config = parse_config(BASE, ".", ["domain.box.cells=[32, 32]", override])
    with pytest.raises(InputError, match="but there are") as error:
        build(config, comm)
    assert error.value.key == key


def test_refused_for_other_problems(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "node_memory", lambda: 2.0**28)
    small = ["domain.box.cells=[8, 8]", "particles.count=10000000"]
    with pytest.raises(InputError, match=r"particles\.count"):
        build_particles(parse_config(BASE, ".", small), comm)
    with pytest.raises(InputError, match=r"ideal\.layers"):
        build_ideal(parse_config(BASE, ".", [*small, "ideal.layers=50000"]), comm)


def test_a_mesh_file_before_it_is_refined(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "node_memory", lambda: 2.0**28)
    monkeypatch.setattr("eulerian.mesh.create.halve_edges", None)
    file = MESHES / "disk.msh"
    config = parse_config(BASE, ".", [f"domain={{ file = '{file}', refine = 6 }}"])
    with pytest.raises(InputError, match=r"domain\.refine"):
        build(config, comm)


@pytest.mark.one_process
def test_files_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_limits, "node_memory", lambda: 2.0**20)
    path = tmp_path / "large"
    path.write_bytes(bytes(2**18))
    require_readable(path, 3.0, "domain.file")
    with pytest.raises(InputError, match=r"1\.25 MiB of memory for a file of 256 KiB"):
        require_readable(path, 5.0, "domain.file")


def test_the_adjoint_gets_no_more_than_there_is(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "node_memory", lambda: 2.0**28)
    problem = build(parse_config(BASE, ".", ["domain.box.cells=[8, 8]", "solver.memory=1000 GiB"]), comm)
    plan = problem.plan(problem.initial_theta)
    assert plan.budget.memory < 2.0**28 * comm.size
