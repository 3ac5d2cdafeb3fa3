"""Compilers that fail, hang or lie, and libraries that were damaged in the cache."""

import os
import shutil
import time
from pathlib import Path

from mpi4py import MPI

import pytest

from eulerian.base.errors import ComputationError
from eulerian.base.jit import Library, try_compiler

pytestmark = pytest.mark.one_process

SOURCE = """
typedef struct {
    double factor;
} scale_t;
double scaled(const scale_t *s, double x) { return s->factor * x; }
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "scale.c").write_text(SOURCE)
    return Library(tmp_path / "scale.c", "scale_t")


def fresh(library: Library) -> Library:
    """The same, as another process would see it."""
    return Library(library._source, "scale_t")


def works(library: Library) -> bool:
    functions = library.load(MPI.COMM_SELF)
    return functions.scaled(library.ffi.new("scale_t *", [3.0]), 2.0) == 6.0


def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    path = tmp_path / "fake-cc"
    path.write_text(f"#!/bin/sh\nREAL={shutil.which('gcc') or shutil.which('cc')}\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    monkeypatch.setenv("EULERIAN_COMPILE_SECONDS", "1")


EACH_LIBRARY = 'for o in "$@"; do case $o in *.so)'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('echo "out of order" >&2; exit 1', "out of order"),
        ("exit 1", "does not say why"),
        ("exit 0", "no library that can be loaded"),
        ("kill -9 $$", "was ended by a signal"),
        ("sleep 60 & wait", "still at work after 1 seconds.*EULERIAN_COMPILE_SECONDS"),
        (f'$REAL "$@"; {EACH_LIBRARY} truncate -s 3000 "$o";; esac; done', "no library that can be loaded"),
    ],
)
def test_a_compiler_that_does_not_do_its_work(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    with monkeypatch.context() as patch:
        compiler(tmp_path, patch, text)
        started = time.monotonic()
        with pytest.raises(ComputationError, match=said):
            library.load(MPI.COMM_SELF)
        assert time.monotonic() - started < 20.0
        with pytest.raises(ComputationError, match=said):
            try_compiler()
    assert not list((tmp_path / "cache" / "eulerian").iterdir())
    assert works(library)  # with a compiler that does


@pytest.mark.parametrize("keep", [0, 4096, -1])
def test_a_damaged_library_is_compiled_again(library: Library, tmp_path: Path, keep: int) -> None:
    """Loading one that was cut short would end the process by SIGBUS."""
    assert works(library)
    [path] = (tmp_path / "cache").rglob("*.so")
    whole = path.read_bytes()
    path.unlink()  # or the library that this process uses would change
    path.write_bytes(whole[:keep])
    assert works(fresh(library))
    assert [len(file.read_bytes()) for file in (tmp_path / "cache").rglob("*.so")] == [len(whole)]


def test_what_killed_compilations_left_is_deleted(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "eulerian"
    for name in ("old", "young"):
        (folder / f".compile-{name}").mkdir(parents=True)
    (folder / ".compile-old" / "half.so").write_bytes(b"half")
    os.utime(folder / ".compile-old", (time.time() - 7200.0,) * 2)
    assert works(library)
    assert [path.name for path in folder.glob(".compile-*")] == [".compile-young"]


def test_a_cache_whose_libraries_may_not_be_loaded(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_path: str) -> None:
        raise OSError("failed to map segment from shared object")

    monkeypatch.setattr(library, "ffi", type("Refusing", (), {"dlopen": staticmethod(refused)}))
    with pytest.raises(ComputationError, match=r"failed to map segment.*XDG_CACHE_HOME"):
        library.load(MPI.COMM_SELF)
