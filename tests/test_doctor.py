"""The doctor: healthy here, and what it says where something is missing."""

import os
import sys
import time
from pathlib import Path

import pytest

from eulerian import doctor

pytestmark = pytest.mark.one_process


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.mpi
def test_this_machine_is_healthy() -> None:
    findings = doctor.examine()
    assert [finding for finding in findings if not finding.good] == []
    for finding in findings:
        assert str(finding).count("\n") == 1  # two lines each


@pytest.mark.mpi
def test_a_foreign_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts two worlds of one rank each."""
    program(tmp_path / "mpiexec", 'shift 2; "$@"; "$@"')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    finding = doctor.mpi_launcher()
    assert not finding.good
    assert str(tmp_path / "mpiexec") in finding.found
    assert "mpiexec" in finding.advice


def test_no_launcher_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor.sysconfig, "get_path", lambda _name: str(tmp_path))
    finding = doctor.mpi_launcher()
    assert not finding.good
    assert "no mpiexec" in finding.found


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    finding = doctor.compiler()
    assert not finding.good
    assert "gcc" in finding.advice


def test_a_compiler_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = program(tmp_path / "bin" / "broken-cc", 'echo "out of order" >&2; exit 1')
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert "does not start" in doctor.compiler().found
    finding = doctor.kernels()
    assert not finding.good
    assert "out of order" in finding.found


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    finding = doctor.kernel_cache()
    assert not finding.good
    assert "XDG_CACHE_HOME" in finding.advice


def test_stale_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert doctor.form_cache().verdict == "ok"  # no cache yet
    folder = tmp_path / "fenics"
    folder.mkdir()
    for name in ("done.c", "done.c.cached", "young.c", "stale.c"):
        (folder / name).touch()
    hour_ago = time.time() - 3600.0
    for name in ("done.c", "stale.c"):
        os.utime(folder / name, (hour_ago, hour_ago))
    finding = doctor.form_cache()
    assert finding.verdict == "note"
    assert str(folder / "stale.c") in finding.advice
    assert "done.c" not in finding.advice
    assert "young.c" not in finding.advice


def test_no_python_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sysconfig, "get_path", lambda _name: str(tmp_path))
    finding = doctor.python_headers()
    assert finding.verdict == "note"
    assert finding.good


@pytest.mark.parametrize("check", [doctor.mpi_library, doctor.petsc, doctor.dolfinx])
def test_a_package_that_does_not_start(monkeypatch: pytest.MonkeyPatch, check) -> None:
    monkeypatch.setattr(doctor, "run_python", lambda _source, _extra=None: doctor._run([sys.executable, "-c", "1/0"]))
    finding = check()
    assert not finding.good
    assert "ZeroDivisionError" in finding.found


def test_complex_petsc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "run_python", lambda _source, _extra=None: doctor._run(["echo", "3.25 complex128"]))
    assert "complex128" in doctor.petsc().found
    assert not doctor.petsc().good


def test_a_check_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_TIMEOUT", 0.2)
    started = time.monotonic()
    done = doctor._run(["sh", "-c", "sleep 30 & wait"])
    assert time.monotonic() - started < 10.0
    assert done.returncode != 0
    assert "no answer" in doctor.last_line(done)


def test_launchers_variables_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    names = doctor._run(["env"]).stdout
    assert "PMI_RANK" not in names
    assert "OMPI_COMM_WORLD_SIZE" not in names
