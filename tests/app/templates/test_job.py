"""The job script for Slurm: what it asks for, and what it does when its time comes to an end, with a Slurm of straw."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jobs import Here, environment

from eulerian.app.templates import Job, available, copy_template
from eulerian.base.errors import InputError

pytestmark = pytest.mark.mpi  # processes of their own

# As Slurm's: USR1 is passed on, at TERM the ranks are ended.
SRUN = """#!/bin/bash
echo "$@" >>srun.log
"$@" &
ranks=$!
trap 'kill -USR1 $ranks' USR1
trap 'kill -KILL $ranks; echo forced >>srun.log' TERM
while true; do wait $ranks; code=$?; kill -0 $ranks 2>/dev/null || break; done
if [ $code -gt 128 ]; then wait $ranks 2>/dev/null; again=$?; [ $again -eq 127 ] || code=$again; fi
exit $code
"""
SCONTROL = '#!/bin/bash\necho "$@" >>scontrol.log\n'


@pytest.mark.parametrize("name", available())
def test_the_script_is_sound_and_asks_for_what_was_said(name: str, tmp_path: Path) -> None:
    files = copy_template(name, tmp_path, job=Job(ranks=12, time="1-00:00:00"))
    assert files[-1] == tmp_path / f"{name}.slurm"
    text = files[-1].read_text()
    for line in ("--ntasks=12", "--time=1-00:00:00", "--signal=B:USR1@120", "--requeue", f"--job-name={name}"):
        assert f"\n#SBATCH {line}\n" in text
    assert f"\nconfig={name}.toml\n" in text
    assert f"\nrun=runs/{name}\n" in text
    assert f"\ncommand={'ideal' if name == 'transport' else 'train'}\n" in text
    assert "@" not in text.replace('[@]', "").replace("USR1@120", "")  # fmt: skip
    subprocess.run(["bash", "-n", files[-1]], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", files[-1]], check=True)


@pytest.mark.parametrize("limit", ["5", "04:00:00", "90:00", "1-0", "2-12:30", "0:05:00", "300"])
def test_times_that_slurm_knows(limit: str) -> None:
    assert f"--time={limit}\n" in Job(time=limit).script("gaussian")


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (Job(ranks=0), "--ranks: must be a whole number >= 1; got 0"),
        (Job(time="4h"), "--time: is no time limit"),
        (Job(time="1:75:00"), "--time: is no time limit"),
        (Job(time="04:00"), "--time: must be at least 5 minutes"),
        (Job(time="4"), "--time: must be at least 5 minutes"),
        (Job(time="00:04:59"), "two minutes before"),
        (Job(time="1\n#SBATCH --exclusive"), "--time: is no time limit"),
    ],
)
def test_what_no_job_can_be(tmp_path: Path, job: Job, said: str) -> None:
    with pytest.raises(InputError, match=said):
        copy_template("gaussian", tmp_path / "new", job=job)
    assert not (tmp_path / "new").exists()


def test_the_command(here: Here, tmp_path: Path) -> None:
    said = here("init", "gaussian", "--slurm", "--ranks", "2").stdout
    assert said == "written: gaussian.toml, gaussian.slurm\nnext:    sbatch gaussian.slurm\n"
    assert "#SBATCH --ntasks=2\n" in (tmp_path / "gaussian.slurm").read_text()
    assert "gaussian.slurm would be overwritten" in here("init", "gaussian", "--slurm", code=1).stderr
    assert "--time: belongs to a job" in here("init", "wine", "--time", "1:00:00", code=1).stderr
    assert not (tmp_path / "wine.toml").exists()


@pytest.fixture
def submitted(tmp_path: Path) -> Path:
    """A job in a folder, whose run takes for ever, and a Slurm of straw beside it."""
    copy_template("gaussian", tmp_path, job=Job(ranks=1))
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    set_iterations(tmp_path, 100_000)
    return tmp_path


def set_iterations(folder: Path, count: int, every: int = 1) -> None:
    """The configuration, small, with so many iterations and checkpoints."""
    copy_template("gaussian", folder, overwrite=True)
    file = folder / "gaussian.toml"
    lines = []
    for line in file.read_text().splitlines():
        key = line.split("=")[0].strip()
        values = {"max_iterations": count, "gradient_tolerance": 0.0, "checkpoint_every": every, "densities": 0}
        values |= {"figures": "false"}
        lines.append(f"{key} = {values[key]}" if key in values else line)
    file.write_text("\n".join(lines))


@contextmanager
def job(folder: Path, restarts: int = 0) -> Iterator[subprocess.Popen[str]]:
    """The job at work."""
    path = f"{folder / 'bin'}{os.pathsep}{environment()['PATH']}"
    env = environment() | {"PATH": path, "SLURM_JOB_ID": "42", "SLURM_RESTART_COUNT": str(restarts)}
    env = {name: value for name, value in env.items() if name != "SLURM_PROCID"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        ["bash", "gaussian.slurm"], cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def wait_for_iterations(folder: Path, process: subprocess.Popen[str]) -> None:
    history, deadline = folder / "runs" / "gaussian" / "history.csv", time.monotonic() + 60.0
    while not history.exists() or history.read_text().count("\n") < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_it_ends_in_order_is_requeued_and_goes_on(submitted: Path) -> None:
    run = submitted / "runs" / "gaussian"
    with job(submitted) as process:
        wait_for_iterations(submitted, process)
        os.kill(process.pid, signal.SIGUSR1)  # to the script alone, as B: says
        out, err = process.communicate(timeout=20.0)
    assert process.returncode == 2, err
    assert "runs/gaussian is not finished: back into the queue" in out
    assert err.count("interrupted by SIGUSR1 after iteration") == 1
    assert lines(submitted / "scontrol.log") == ["requeue 42"]
    assert lines(submitted / "srun.log") == ["eulerian train gaussian.toml --output runs/gaussian"]
    done = len(lines(run / "history.csv")) - 2
    set_iterations(submitted, done + 2)
    with job(submitted, restarts=1) as process:
        out, err = process.communicate(timeout=60.0)
    assert process.returncode == 0, err
    assert lines(submitted / "srun.log")[1] == "eulerian train gaussian.toml --output runs/gaussian --resume"
    assert len(lines(submitted / "scontrol.log")) == 1
    assert f"Going on after iteration {done}." in (run / "run.log").read_text()
    assert len(lines(run / "history.csv")) == done + 4


def test_who_cancels_it_does_not_find_it_in_the_queue_again(submitted: Path) -> None:
    with job(submitted) as process:
        wait_for_iterations(submitted, process)
        os.kill(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=20.0)
    assert process.returncode == 2, err
    assert "interrupted by SIGUSR1" in err  # with a checkpoint, before srun would have ended its ranks
    assert lines(submitted / "scontrol.log") == []
    assert "forced" not in lines(submitted / "srun.log")


def test_a_restart_without_a_checkpoint_begins_anew(submitted: Path) -> None:
    set_iterations(submitted, 2, every=0)
    with job(submitted) as process:
        assert process.wait(60.0) == 0, process.communicate()
    with job(submitted) as process:  # submitted again by mistake: what is there is not touched
        _, err = process.communicate(timeout=60.0)
    assert process.returncode == 1
    assert "already holds a run" in err
    with job(submitted, restarts=1) as process:
        assert process.wait(60.0) == 0, process.communicate()
    assert [line.split()[-1] for line in lines(submitted / "srun.log")] == [
        *("runs/gaussian", "runs/gaussian", "--overwrite")
    ]


def test_an_error_is_not_tried_again(submitted: Path) -> None:
    (submitted / "gaussian.toml").write_text("[nonsense]\n")
    with job(submitted) as process:
        _, err = process.communicate(timeout=60.0)
    assert process.returncode == 1
    assert "nonsense" in err
    assert lines(submitted / "scontrol.log") == []
