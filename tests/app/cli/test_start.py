"""What is loaded before it is needed would be waited for by everyone."""

import os
import pkgutil
import subprocess
import sys

import pytest

from eulerian.app import commands
from eulerian.app.cli import _limit_threads
from eulerian.app.cli.launch import _RANK_VARIABLES

pytestmark = pytest.mark.one_process

SLOW = ("scipy", "matplotlib", "meshio", "rich", "PIL", "jax", "torch")
STACK = ("numpy", "mpi4py", "dolfinx", "petsc4py", "pydantic", *SLOW)


def _loaded(statement: str) -> set[str]:
    """The packages that a fresh interpreter has after a statement."""
    program = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import eulerian",
        "from eulerian.app.cli import build_parser; build_parser()",
        "import eulerian.app.commands",
        "import eulerian.app.tasks",
    ],
)
def test_the_package_and_the_help_load_nothing_heavy(statement: str) -> None:
    assert not _loaded(statement) & set(STACK)


def test_a_solve_waits_neither_for_scipy_nor_for_figures() -> None:
    """Until its figures are drawn: SciPy belongs to the idealised problem and to particles."""
    loaded = _loaded("from eulerian import build\nfrom eulerian.app.tasks import run_solve, run_train")
    assert "dolfinx" in loaded
    assert not loaded & set(SLOW)


def test_figures_wait_for_matplotlib_alone() -> None:
    """A process of their own draws them, which is ready before the run has anything to draw."""
    loaded = _loaded("import eulerian.app.tasks.figure_server\nimport eulerian.app.figures.draw")
    assert "matplotlib" in loaded
    assert not loaded & {"mpi4py", "petsc4py", "dolfinx", "basix", "scipy", "pydantic"}


def test_a_certificate_in_closed_form_waits_for_the_convex_solver_as_little() -> None:
    assert "scipy" not in _loaded("from eulerian.bounds.certificate import certify")


def test_a_command_is_one_file_and_one_line() -> None:
    """But for what several share."""
    files = {module.name for module in pkgutil.iter_modules(commands.__path__)} - {"command", "computation"}
    assert {command.name for command in commands.ALL} == files
    assert all(type(command).__module__ == f"eulerian.app.commands.{command.name}" for command in commands.ALL)


@pytest.mark.parametrize("name", ["run_solve", "run_train_particles", "run_verify", "StudyPlan"])
def test_every_task_is_found_by_its_name(name: str) -> None:

    from eulerian.app import tasks

    assert getattr(tasks, name).__name__ == name
    assert name in dir(tasks)


def test_all_tasks_are_there() -> None:
    from eulerian.app import tasks

    for name in tasks.__all__:
        assert callable(getattr(tasks, name))
    with pytest.raises(AttributeError, match="run_nothing"):
        _ = tasks.run_nothing


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"OPENBLAS_NUM_THREADS": "1"}),
        ({"OMP_NUM_THREADS": "3"}, {"OMP_NUM_THREADS": "3"}),
        ({"OPENBLAS_NUM_THREADS": "2"}, {"OPENBLAS_NUM_THREADS": "2"}),
        ({"PMI_RANK": "0"}, {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}),
        ({"PMI_RANK": "1", "OMP_NUM_THREADS": "3"}, {"OMP_NUM_THREADS": "3"}),
    ],
)
def test_threads_are_one_per_process_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: dict[str, str]
) -> None:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    for name in (*names, *_RANK_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    _limit_threads()
    assert {name: os.environ[name] for name in names if name in os.environ} == expected
