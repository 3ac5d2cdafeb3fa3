"""The entry points in ``scripts/`` and ``.ci/``, in a copy of the project with a PATH of our choice.

Pythons and uv are stand-ins that note how they are called; they run the checks inside ``scripts/setup`` for real.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from jobs import environment, run_group
from paths import ROOT

pytestmark = pytest.mark.mpi  # scripts are for one process to run

SHELL_SCRIPTS = ["scripts/setup", "scripts/test", "scripts/demo", "scripts/docs", "scripts/package", ".ci/run"]
TOOLS = ["bash", "cat", "chmod", "cksum", "cp", "dirname", "env", "head", "mkdir", "rm", "uname"]

# What a stand-in does: note its call; make an environment, with itself as the Python; run a check with `sys` changed.
NOTE = 'echo "${0##*/} $*" >>"$NOTES"'
MAKE = 'mkdir -p "$target/bin"; cp -- "$self" "$target/bin/python"'
PYTHON = f"""#!/bin/bash
self=${{BASH_SOURCE[0]}} target=${{!#}}
case "$*" in
  "-m venv"*) {NOTE}; {MAKE} ;;
  "-m pip --version") ;;
  "-m pip "*) {NOTE} ;;
  -) exec {sys.executable!r} -c 'import sys; CHANGE; exec(sys.stdin.read())' ;;
  *) exec {sys.executable!r} "$@" ;;
esac
"""
UV = f"""#!/bin/bash
self="$STUBS/plain" target=$UV_PROJECT_ENVIRONMENT
case "$*" in sync*) {NOTE}; {MAKE} ;; esac
"""
OLD = "sys.version_info = (3, 11, 2)"
CONDA = "sys.prefix = sys.base_prefix"
BARE = "import sysconfig; sysconfig.get_path = str"


def stand_in(change: str = "pass") -> str:
    """A Python that differs from this one as told."""
    return PYTHON.replace("CHANGE", change)


class Sandbox:
    """A copy of the project in a folder with a space, and a PATH that holds a few tools and what a test adds."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a clone"
        self.bin = folder / "bin"
        self.notes = folder / "notes"
        for name in [*SHELL_SCRIPTS, "pyproject.toml", ".python-version"]:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        for place in (self.bin, folder / "home"):
            place.mkdir()
        for name in TOOLS:
            found = shutil.which(name)
            assert found, name
            (self.bin / name).symlink_to(found)
        self.environment = {"PATH": str(self.bin), "HOME": str(folder / "home"), "NOTES": str(self.notes)}
        self.environment["STUBS"] = str(self.bin)
        self.add("gcc", "#!/bin/bash\n")
        self.add("plain", stand_in())

    def add(self, name: str, text: str) -> None:
        """Put an executable into the PATH, or anywhere by an absolute path."""
        path = self.bin / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the copy from another working directory."""
        self.notes.write_text("")
        command = [str(self.root / script), *arguments]
        return run_group(command, 60, self.bin, {"CC": "", **self.environment, **environment})

    @property
    def calls(self) -> list[str]:
        """How the stand-ins were called during the last run."""
        return self.notes.read_text().splitlines()


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    """A fresh copy."""
    return Sandbox(tmp_path)


@pytest.mark.parametrize("script", SHELL_SCRIPTS)
def test_scripts_are_executable_and_sound(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert (ROOT / script).read_text().startswith("#!/usr/bin/env bash\n")
    subprocess.run(["bash", "-n", ROOT / script], check=True)
    if shellcheck := shutil.which("shellcheck"):
        done = subprocess.run([shellcheck, ROOT / script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_setup_uses_uv_once(sandbox: Sandbox) -> None:
    sandbox.add("uv", UV)
    assert sandbox.run("scripts/setup").returncode == 0
    assert sandbox.calls == ["uv sync --quiet --inexact"]
    done = sandbox.run("scripts/setup")
    assert (done.returncode, done.stdout, done.stderr, sandbox.calls) == (0, "", "", [])


def test_setup_runs_again_when_the_dependencies_change(sandbox: Sandbox) -> None:
    sandbox.add("uv", UV)
    sandbox.run("scripts/setup")
    with (sandbox.root / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert sandbox.run("scripts/setup").returncode == 0
    assert sandbox.calls == ["uv sync --quiet --inexact"]


@pytest.mark.parametrize("how", ["moved", "broken"])
def test_setup_replaces_an_environment_that_no_longer_works(sandbox: Sandbox, how: str) -> None:
    sandbox.add("uv", UV)
    sandbox.run("scripts/setup")
    left = sandbox.root / ".venv" / "left"
    left.touch()
    if how == "moved":
        sandbox.root = sandbox.root.rename(sandbox.root.with_name("moved clone"))
    else:
        (sandbox.root / ".venv/bin/python").unlink()
    done = sandbox.run("scripts/setup")
    assert done.returncode == 0
    assert "no longer works" in done.stderr
    assert not (sandbox.root / ".venv" / "left").exists()
    assert sandbox.run("scripts/setup").stderr == ""


def test_setup_without_uv_takes_the_first_python_that_runs(sandbox: Sandbox) -> None:
    sandbox.add("python3.13", '#!/bin/bash\necho "pyenv: python3.13: command not found" >&2; exit 127\n')
    sandbox.add("python3", stand_in(OLD))
    sandbox.add("python", stand_in())
    done = sandbox.run("scripts/setup")
    assert done.returncode == 0, done.stderr
    venv = sandbox.root / ".venv"
    assert sandbox.calls == [f"python -m venv {venv}", "python -m pip install --quiet --editable .[test]"]


@pytest.mark.parametrize("variable", ["HOME", "PYENV_ROOT"])
def test_setup_finds_the_versions_of_pyenv(sandbox: Sandbox, tmp_path: Path, variable: str) -> None:
    root = tmp_path / ("home/.pyenv" if variable == "HOME" else "my pyenv")
    sandbox.add(str(root / "versions/3.11.7/bin/python"), stand_in(OLD))
    sandbox.add(str(root / "versions/3.12.9/bin/python"), stand_in())
    done = sandbox.run("scripts/setup", **({} if variable == "HOME" else {variable: str(root)}))
    assert done.returncode == 0, done.stderr
    assert "3.12.9" in done.stderr


def test_setup_goes_on_when_uv_cannot(sandbox: Sandbox) -> None:
    sandbox.add("uv", "#!/bin/bash\necho 'no network' >&2; exit 2\n")
    sandbox.add("python3", stand_in())
    done = sandbox.run("scripts/setup")
    assert done.returncode == 0, done.stderr
    assert "uv could not" in done.stderr
    assert sandbox.calls[-1] == "python -m pip install --quiet --editable .[test]"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no builds for CUDA")
@pytest.mark.parametrize(
    ("versions", "taken"), [("2.15.0, 2.14.1+cpu, 2.14.1, 2.13.0+cpu", "2.14.1+cpu"), ("2.15.0", None)]
)
def test_setup_takes_pytorch_only_where_it_is_for_cpus(sandbox: Sandbox, versions: str, taken: str | None) -> None:
    """Without such a build it says that it leaves it out, and what that means."""
    for name in ("grep", "timeout"):
        (sandbox.bin / name).symlink_to(shutil.which(name) or "")
    here = f""""-c import torch") exit 1 ;;
  "-m pip index "*) echo "Available versions: {versions}" ;;
  "-m pip "*)"""
    sandbox.add("python3", stand_in().replace('"-m pip "*)', here))
    done = sandbox.run("scripts/setup")
    assert done.returncode == 0, done.stderr
    installed = [call for call in sandbox.calls if "install --quiet torch" in call]
    assert installed == ([] if taken is None else [f"python -m pip install --quiet torch=={taken}"])
    assert ("PyTorch is left out, and tests of it are skipped" in done.stderr) == (taken is None)


def one_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a script stopped with status 1 and a single line that has these words."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_setup_without_any_python_says_so(sandbox: Sandbox) -> None:
    sandbox.add("python3", stand_in(OLD))
    one_sentence(sandbox.run("scripts/setup"), "Python 3.12", "uv")


def test_setup_names_what_a_python_lacks(sandbox: Sandbox) -> None:
    sandbox.add("python3", stand_in(BARE))
    one_sentence(sandbox.run("scripts/setup"), "python3", "headers")


def test_setup_without_a_compiler_says_so(sandbox: Sandbox) -> None:
    (sandbox.bin / "gcc").unlink()
    sandbox.add("uv", UV)
    one_sentence(sandbox.run("scripts/setup"), "C compiler")
    assert sandbox.calls == []


def test_setup_checks_the_compiler_that_will_be_used(sandbox: Sandbox) -> None:
    sandbox.add("uv", UV)
    for _ in range(2):  # it is not set up until the compiler is there
        done = sandbox.run("scripts/setup", CC="nocc -O2")
        assert done.returncode == 1
        assert "'nocc' is missing" in done.stderr


def test_setup_elsewhere_points_to_conda(sandbox: Sandbox) -> None:
    (sandbox.bin / "uname").unlink()
    sandbox.add("uname", "#!/bin/bash\necho Darwin arm64\n")
    sandbox.add("uv", UV)
    one_sentence(sandbox.run("scripts/setup"), "conda")


def test_setup_keeps_the_stack_of_the_active_environment(sandbox: Sandbox) -> None:
    sandbox.add("uv", UV)
    sandbox.add("python3", stand_in(CONDA))
    done = sandbox.run("scripts/setup")
    assert done.returncode == 0, done.stderr
    venv = sandbox.root / ".venv"
    assert sandbox.calls == [
        f"python3 -m venv --system-site-packages {venv}",
        f"python -m pip install --quiet --requirement {venv}/eulerian-requirements",
        "python -m pip install --quiet --no-deps --editable .",
    ]
    names = (venv / "eulerian-requirements").read_text()
    assert "mpi4py" in names
    assert "pytest" in names
    assert "jax>=" in names
    assert "dolfinx" not in names
    assert "eulerian" not in names  # which the index does not have


@pytest.fixture
def project(sandbox: Sandbox) -> Sandbox:
    """A copy that is set up: its environment is the one that runs this test."""
    sandbox.add(str(sandbox.root / "scripts/setup"), "#!/bin/bash\n")
    (sandbox.root / ".venv").symlink_to(sys.prefix)
    sandbox.environment = environment()
    (sandbox.root / "tests").mkdir()
    for name in ("conftest.py", "jobs.py"):
        shutil.copy(ROOT / "tests" / name, sandbox.root / "tests")
    return sandbox


GOOD = "import sys\ndef test_all(comm):\n    assert comm.allreduce(1) == comm.size\n"
FAILS_ON_RANK_ONE = "def test_one(comm):\n    assert comm.rank != 1, 'rank one only'\n    comm.barrier()\n"


def test_the_suite_runs_on_one_two_and_three_ranks(project: Sandbox) -> None:
    (project.root / "tests/test_it.py").write_text(GOOD + "    assert not sys.dont_write_bytecode\n")
    done = project.run("scripts/test", PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(project.root.rglob("__pycache__"))
    assert done.stdout.count("1 passed") == 4  # thrice, and the serial line again at the end
    assert "== 1 passed" in done.stdout.splitlines()[-1]


def test_what_is_left_out_is_told(project: Sandbox) -> None:
    """Also where it is many screens above."""
    missing = "import pytest\npytest.importorskip('no_such', reason='the extra \"no_such\" is not installed')\n"
    (project.root / "tests/test_it.py").write_text(GOOD)
    (project.root / "tests/test_other.py").write_text(missing)
    done = project.run("scripts/test")
    assert done.returncode == 0, done.stdout + done.stderr
    _, end = done.stdout.split("== left out, for want of a package:")
    assert 'tests/test_other.py:2: the extra "no_such" is not installed' in end
    assert "1 passed, 1 skipped" in done.stdout.splitlines()[-1]


def test_a_failure_on_one_rank_fails_the_suite_and_is_shown(project: Sandbox) -> None:
    (project.root / "tests/test_it.py").write_text(FAILS_ON_RANK_ONE)
    done = project.run("scripts/test")
    assert done.returncode == 1
    assert "AssertionError: rank one only" in done.stdout
    assert "fails on 2 ranks" in done.stderr


def test_a_serial_failure_comes_first(project: Sandbox) -> None:
    (project.root / "tests/test_it.py").write_text("def test_not():\n    assert False\n")
    done = project.run("scripts/test")
    assert done.returncode == 1
    assert "1 failed" in done.stdout.splitlines()[-1]


def test_arguments_go_to_a_serial_run(project: Sandbox) -> None:
    (project.root / "tests/test_it.py").write_text(GOOD + "def test_other():\n    assert False\n")
    done = project.run("scripts/test", "-q", "tests/test_it.py", "-k", "all or none")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 passed, 1 deselected")


@pytest.fixture
def stand_ins(project: Sandbox, tmp_path: Path) -> Callable[..., None]:
    """A function that replaces the programs of the environment by ones that note their call; some fail."""

    def replace(*names: str, failing: str = "") -> None:
        (project.root / ".venv").unlink()
        for name in names:
            text = "#!/bin/bash\n" + NOTE + f"\nexit {int(name == failing)}\n"
            project.add(str(project.root / ".venv/bin" / name), text)
        for script in ("package", "docs"):
            project.add(str(project.root / "scripts" / script), "#!/bin/bash\n" + NOTE)
        project.add(str(project.root / "scripts/test"), "#!/bin/bash\n" + NOTE + "\necho '== 3 passed in 1.0s =='\n")
        project.environment = {**environment(), "NOTES": str(project.notes), "TMPDIR": str(tmp_path)}

    return replace


def test_ci_runs_every_stage_and_ends_with_the_closing_line(project: Sandbox, stand_ins: Callable[..., None]) -> None:
    stand_ins("ruff", "mypy", "lint-imports")
    done = project.run(".ci/run")
    assert done.returncode == 0, done.stdout + done.stderr
    lints = ["ruff check .", "ruff format --check .", "mypy ", "lint-imports "]
    assert project.calls == [*lints, "package ", "docs ", "test "]
    assert done.stdout.splitlines()[-1] == "== 3 passed in 1.0s =="


def test_ci_names_the_stage_that_fails(project: Sandbox, stand_ins: Callable[..., None]) -> None:
    stand_ins("ruff", "mypy", "lint-imports", failing="mypy")
    done = project.run(".ci/run")
    assert done.returncode == 1
    assert ".ci/run: failed at: mypy" in done.stderr
    assert project.calls[-1] == "mypy "


def test_the_demo_trains_on_wine_tests_and_names_its_figures(project: Sandbox, stand_ins: Callable[..., None]) -> None:
    stand_ins("eulerian", "mpiexec")
    figures = project.root / "runs/demo/run/figures"
    figures.mkdir(parents=True)
    (figures / "densities.png").touch()
    for _ in range(2):
        done = project.run("scripts/demo")
        assert done.returncode == 0, done.stdout + done.stderr
        assert str(figures / "densities.png") in done.stdout.splitlines()
        environment = str(project.root).replace(" ", "\\ ")
        assert f"    . {environment}/.venv/bin/activate" in done.stdout.splitlines()
        init, train, push = project.calls
        assert init == "eulerian init wine runs/demo/input --overwrite --quiet"
        assert re.fullmatch(
            r"mpiexec -n [12] eulerian train runs/demo/input/wine.toml --output runs/demo/run --overwrite", train
        )
        assert push == "eulerian push runs/demo/run --samples runs/demo/input/wine_held_out.csv --overwrite"
