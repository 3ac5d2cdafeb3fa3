"""The doctor: healthy here, and what it says where something is missing."""

import math
import os
import resource
import sys
import time
from pathlib import Path

import pytest
from configurations import small

from eulerian.app.config import toml
from eulerian.app.doctor import configuration, machine
from eulerian.base import memory_limits

pytestmark = pytest.mark.one_process


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.mpi
def test_this_machine_is_healthy() -> None:
    findings = machine.examine()
    assert [finding for finding in findings if not finding.good] == []
    for finding in findings:
        assert str(finding).count("\n") == 1  # two lines each


@pytest.mark.mpi
def test_a_foreign_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts two worlds of one rank each."""
    program(tmp_path / "mpiexec", 'shift 2; "$@"; "$@"')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    finding = machine.mpi_launcher()
    assert not finding.good
    assert str(tmp_path / "mpiexec") in finding.found
    assert "mpiexec" in finding.advice


def test_no_launcher_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine.sysconfig, "get_path", lambda _name: str(tmp_path))
    finding = machine.mpi_launcher()
    assert not finding.good
    assert "no mpiexec" in finding.found


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    finding = machine.compiler()
    assert not finding.good
    assert "gcc" in finding.advice


def test_a_compiler_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = program(tmp_path / "bin" / "broken-cc", 'echo "out of order" >&2; exit 1')
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert "out of order" in machine.compiler().found
    finding = machine.kernels()
    assert not finding.good
    assert "out of order" in finding.found


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    finding = machine.kernel_cache()
    assert not finding.good
    assert "XDG_CACHE_HOME" in finding.advice


def test_stale_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert machine.form_cache().verdict == "ok"  # no cache yet
    folder = tmp_path / "fenics"
    folder.mkdir()
    for name in ("done.c", "done.c.cached", "young.c", "stale.c"):
        (folder / name).touch()
    hour_ago = time.time() - 3600.0
    for name in ("done.c", "stale.c"):
        os.utime(folder / name, (hour_ago, hour_ago))
    finding = machine.form_cache()
    assert finding.verdict == "note"
    assert str(folder / "stale.c") in finding.advice
    assert "done.c" not in finding.advice
    assert "young.c" not in finding.advice


def test_no_python_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.sysconfig, "get_path", lambda _name: str(tmp_path))
    finding = machine.python_headers()
    assert finding.verdict == "note"
    assert finding.good


@pytest.mark.parametrize("check", [machine.mpi_library, machine.petsc, machine.dolfinx])
def test_a_package_that_does_not_start(monkeypatch: pytest.MonkeyPatch, check) -> None:
    monkeypatch.setattr(machine, "run_python", lambda _source, _extra=None: machine._run([sys.executable, "-c", "1/0"]))
    finding = check()
    assert not finding.good
    assert "ZeroDivisionError" in finding.found


@pytest.mark.parametrize(("needs", "verdict"), [("mpi4py.MPI", "note"), ("sys", "ok")])
def test_a_dolfinx_that_finds_mpi_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs: str, verdict: str
) -> None:
    text = f"import sys\nif {needs!r} not in sys.modules:\n    raise ImportError('libmpi')\n__version__ = '0.11.0'\n"
    (tmp_path / "dolfinx.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    finding = machine.dolfinx()
    assert finding.verdict == verdict
    assert ("from mpi4py import MPI" in finding.advice) == (verdict == "note")


def test_complex_petsc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "run_python", lambda _source, _extra=None: machine._run(["echo", "3.25 complex128"]))
    assert "complex128" in machine.petsc().found
    assert not machine.petsc().good


def test_a_check_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_TIMEOUT", 0.2)
    started = time.monotonic()
    done = machine._run(["sh", "-c", "sleep 30 & wait"])
    assert time.monotonic() - started < 10.0
    assert done.returncode != 0
    assert "no answer" in machine.last_line(done)


def test_launchers_variables_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    names = machine._run(["env"]).stdout
    assert "PMI_RANK" not in names
    assert "OMPI_COMM_WORLD_SIZE" not in names


def test_a_compiler_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_COMPILER_SECONDS", 1)
    monkeypatch.setenv("CC", str(program(tmp_path / "bin" / "slow-cc", "sleep 60")))
    finding = machine.compiler()
    assert not finding.good
    assert "still at work after 1 seconds" in finding.found


def test_a_damaged_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "eulerian").mkdir()
    (tmp_path / "eulerian" / "kernels-0123.4567.so").write_bytes(b"half")
    finding = machine.kernel_cache()
    assert finding.verdict == "note"
    assert finding.found.startswith("1 damaged libraries")


def test_folders_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine.tempfile, "tempdir", str(tmp_path))
    assert (machine.temporary_files().verdict, machine.working_folder().verdict) == ("ok", "ok")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        findings = machine.temporary_files(), machine.working_folder()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [finding.verdict for finding in findings] == ["TROUBLE", "note"]
    assert all("File too large" in finding.found for finding in findings)


def test_kernels_are_not_tried_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        check
        for check in vars(machine)
        if getattr(vars(machine)[check], "__annotations__", {}) == {"return": machine.Finding}
    ]
    assert "kernels" in names
    for name in set(names) - {"kernels"}:
        verdict = "TROUBLE" if name == "compiler" else "ok"
        subject = "C compiler" if name == "compiler" else name
        monkeypatch.setattr(machine, name, lambda v=verdict, s=subject: machine.Finding(v, s, "", ""))
    assert [
        str(finding).split(":")[1].split("\n")[0] for finding in machine.examine() if finding.subject == "kernels"
    ] == [" not tried"]


@pytest.mark.parametrize(
    ("changes", "subject", "found"),
    [
        ({}, None, ""),
        ({"objective": {"terminal": {"kind": "quadratic"}}}, "configuration", "objective.terminal"),
        ({"field": {"kind": "python", "object": "wild:field", "layers": 1}}, "problem", "not finite"),
        ({"output": {"directory": "model.toml/run"}}, "run folder", "model.toml is a file"),
        ({"solver": {"disk": "1 GiB", "disk_directory": "nowhere"}}, "solver.disk", "nowhere"),
    ],
)
def test_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], subject: str | None, found: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wild.py").write_text(
        "import numpy as np\n"
        "class Field:\n"
        "    def n_params(self, dim): return 1\n"
        "    def init(self, rng): return np.ones(1)\n"
        "    def value(self, theta, x, label=None): return np.where(x > 1.9, np.nan, theta * x)\n"
        "    def vjp(self, theta, x, w, label=None): return np.array([np.sum(w * x)])\n"
        "field = Field()\n"
    )
    (tmp_path / "model.toml").write_text(toml.dump_toml(small(**changes)))
    findings = configuration.examine_config(Path("model.toml"))
    troubles = [finding for finding in findings if not finding.good]
    assert [finding.subject for finding in troubles] == ([] if subject is None else [subject])
    assert all(found in finding.found for finding in troubles)
    assert all(str(finding).count("\n") == 1 for finding in findings)


@pytest.mark.parametrize(
    ("cores", "limit", "most"), [(4, math.inf, 4), (4, 2.5, 2), (8, 0.5, 1), (1, math.inf, 1), (2, 64.0, 2)]
)
def test_how_many_ranks_make_sense(monkeypatch: pytest.MonkeyPatch, cores: int, limit: float, most: int) -> None:
    monkeypatch.setattr(machine, "own_cores", lambda: frozenset(range(cores)))
    monkeypatch.setattr(machine, "core_limit", lambda: limit)
    finding = machine.cores()
    assert finding.good
    assert finding.found.startswith(f"{cores} that this process may use")
    assert ("at a time" in finding.found) == (limit < cores)
    assert finding.advice.startswith(f"At most {most} ranks" if most > 1 else "More than one rank")


def test_limits_of_control_groups(tmp_path: Path) -> None:
    file = tmp_path / "cpu.max"
    assert memory_limits._quota(file) == math.inf
    for text, cores in (("max 100000", math.inf), ("250000 100000", 2.5), ("rubbish", math.inf), ("1 0", math.inf)):
        file.write_text(text)
        assert memory_limits._quota(file) == cores


def test_warnings_of_a_configuration_are_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "points.csv").write_text("x\n0.1\n0.2\n7\n")
    density = {"initial": [{"kind": "gaussian", "mean": [1.6], "std": 0.5}]}
    particles = {"file": "points.csv", "columns": ["x"]}
    (tmp_path / "model.toml").write_text(toml.dump_toml(small(density=density, particles=particles)))
    findings = configuration.examine_config(Path("model.toml"))
    notes = [finding.found for finding in findings if finding.subject == "warning"]
    assert len(notes) == 2
    assert "21.2 % of the mass of density.initial.0 lies outside the domain" in notes[0]
    assert "33.3 % of the samples of particles.file (1 of 3) lie outside the domain" in notes[1]
    assert all(finding.verdict == "note" for finding in findings if finding.subject == "warning")
