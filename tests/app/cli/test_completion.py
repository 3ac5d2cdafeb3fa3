"""What a shell is offered: commands, options, files, run folders, templates, keys and their values."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jobs import Here

from eulerian.app.config import Config
from eulerian.app.config.keys import known_keys

pytestmark = pytest.mark.one_process

BREAKS = " \t\n\"'><=;|&(:"  # bash's COMP_WORDBREAKS


@pytest.fixture
def folder(tmp_path: Path, here: Here) -> Path:
    """With a configuration, a run, a folder of runs, and other things."""
    here("init", "gaussian")
    for name in ("runs/first", "runs/second", "runs/empty"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("runs/first/result.json", "runs/second/result.json", "theta.npz", "data.csv", ".hidden.toml"):
        (tmp_path / name).touch()
    return tmp_path


# Every line is answered by a process of its own, which has loaded what it needs already.
DRIVER = """
import json, os, sys
import eulerian.app.config.keys
from eulerian.app.cli import entry
sys.argv[0] = "eulerian"
for number, line in enumerate(json.loads(sys.argv.pop())):
    process = os.fork()
    if process == 0:
        point = str(len(line.encode()))
        os.environ |= {"COMP_LINE": line, "COMP_POINT": point, "_ARGCOMPLETE_STDOUT_FILENAME": f".answers{number}"}
        entry()
    assert os.waitpid(process, 0)[1] == 0
"""


def answers(folder: Path, *lines: str, shell: str = "bash") -> list[list[str]]:
    """What the shell is told for lines with the cursor at their ends: argcomplete's protocol."""
    environment = os.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SHELL": shell,
        "_ARGCOMPLETE_COMP_WORDBREAKS": BREAKS,
        "COMP_TYPE": "9",
    }
    command = [sys.executable, "-c", DRIVER, json.dumps(lines)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    files = [folder / f".answers{number}" for number in range(len(lines))]
    return [[word.strip() for word in file.read_text("utf-8").splitlines()] for file in files]


OFFERED: list[tuple[str, list[str]]] = [
    ("eulerian tra", ["train"]),
    ("eulerian init br", ["branching"]),
    ("eulerian completion ", ["bash", "zsh", "fish"]),
    ("eulerian train g", ["gaussian.toml"]),
    ("eulerian doctor g", ["gaussian.toml"]),
    ("eulerian train gaussian.toml --theta", []),
    ("eulerian solve gaussian.toml --theta t", ["theta.npz"]),
    ("eulerian solve gaussian.toml --theta runs/", ["runs/first", "runs/second", "runs/empty/"]),
    ("eulerian plot r", ["runs/"]),
    ("eulerian push runs/f", ["runs/first"]),
    ("eulerian verify --run runs/s", ["runs/second"]),
    ("eulerian train gaussian.toml --method p", ["particles"]),
    ("eulerian train gaussian.toml --output ru", ["runs/"]),
    ("eulerian sample runs/first -n ", []),
    ("eulerian runs runs --sort ver", ["verified"]),
    ("eulerian train gaussian.toml --set field.act", ["field.activation="]),
    ("eulerian train gaussian.toml --set field.activation=so", ["softplus"]),
    ("eulerian train gaussian.toml --set solver.limiter=", ["true", "false"]),
    ("eulerian train gaussian.toml --set objective.kinetic=", []),
    ("eulerian train gaussian.toml --set density.initial.0.m", ["density.initial.0.mean="]),
    ("eulerian train gaussian.toml --set field.feat", []),
    ("eulerian train nowhere.toml --set field.feat", ["field.features="]),
    ("eulerian sweep gaussian.toml --set optimiser.st", ["optimiser.stop="]),
    ("eulerian push runs/first --set s", []),
    ("eulerian push runs/first --set particles.me", ["particles.method="]),
    ("eulerian mesh da", ["data.csv"]),
]


def test_answers(folder: Path) -> None:
    lines = [line for line, _ in OFFERED]
    found = dict(zip(lines, map(sorted, answers(folder, *lines)), strict=True))
    assert found == {line: sorted(offered) for line, offered in OFFERED}


def test_all_are_offered_where_nothing_is_said(folder: Path) -> None:
    lines = ("eulerian ", "eulerian train gaussian.toml --", "eulerian init ", "eulerian train ")
    commands, options, templates, files = map(set, answers(folder, *lines))
    assert {"train", "init", "schema", "completion"} <= commands
    assert {"--set", "--output", "--resume"} <= options
    assert {"gaussian", "moons", "wine"} <= templates
    assert files == {"gaussian.toml", "runs/"}


def test_keys_come_with_what_is_expected(folder: Path) -> None:
    found = answers(folder, "eulerian train gaussian.toml --set solver.cf", shell="zsh")
    assert found == [["solver.cfl=:the CFL fraction, 0 < cfl <= 1"]]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(folder: Path, here: Here) -> None:
    """By the function that the shell code defines, with ``eulerian`` a program on the path."""
    code = here("completion", "bash").stdout
    program = folder / "bin" / "eulerian"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom eulerian.app.cli import entry\nentry()\n")
    program.chmod(0o755)
    script = f"""{code}
complete -p eulerian >/dev/null || exit 3
COMP_LINE="eulerian train gaussian.toml --set field.activation=so"
COMP_POINT=${{#COMP_LINE}}
COMP_WORDS=(eulerian train gaussian.toml --set field.activation = so)
COMP_CWORD=6
_python_argcomplete eulerian so = 2>/dev/null
echo "${{COMPREPLY[@]}}"
"""
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    command = ["bash", "--norc", "-c", script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() == "softplus", done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_code(shell: str, here: Here) -> None:
    code = here("completion", shell).stdout
    assert "_ARGCOMPLETE" in code
    assert "eulerian" in code
    if (found := shutil.which(shell)) is not None:
        subprocess.run([found, "-n"], input=code, text=True, check=True, timeout=60)


def test_other_shells_are_refused(here: Here) -> None:
    assert "'tcsh'" in here("completion", "tcsh", code=1).stderr


def test_argcomplete_is_not_loaded_before_a_shell_asks() -> None:
    program = (
        "import sys\nfrom eulerian.app.cli import build_parser\nbuild_parser().parse_args(['init'])\n"
        "import eulerian.app.cli\nassert 'argcomplete' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_known_keys_are_those_of_the_models() -> None:
    keys = {found.key: found for found in known_keys()}
    assert {"objective.kinetic", "objective.at.0.time", "adapt.rounds", "density.initial.0.std"} <= set(keys)
    assert all(found.description for found in keys.values())
    assert set(Config.model_fields) == {key.split(".")[0] for key in keys}
    assert "field.kind" in keys
    assert keys["optimiser.metric"].values == ("velocity", "parameters")
    assert keys["field.theta"].values == ()
    some = {
        found.key
        for found in known_keys({"field": {"kind": "free"}, "objective": {"at": [{"kind": "kl"}]}, "density": {}})
    }
    assert "field.hidden" not in some
    assert {"objective.at.0.weight", "objective.at.0.time"} <= some
    assert not any(key.startswith("density.initial") for key in some)


def test_damaged_configurations_are_no_obstacle(folder: Path) -> None:
    (folder / "broken.toml").write_text("[field\n")
    (folder / "odd.toml").write_text("field = 3\ndensity = { initial = [1] }\n")
    lines = [f"eulerian train {name}.toml --set solver.cf" for name in ("broken", "odd")]
    assert answers(folder, *lines) == [["solver.cfl="]] * 2
