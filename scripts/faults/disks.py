"""Disks that are full, read-only or gone, at every stage of a run.

Where the system lets us, a small file system of its own is mounted: with room for n files, and for n pages, for every
n until the run succeeds, so that every file and every write is once the one that fails. Elsewhere there are limits on
the size of a file.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from harness import Fault, Verdict, run
from verdicts import LIMIT, MARK, judged, model, trained

PAGE = 4096


def can_mount() -> bool:
    """Whether file systems can be mounted here."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        return False
    done = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return done.returncode == 0


NOBODY = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable]


def can_be_nobody() -> bool:
    """Whether Python runs as a user without rights."""
    if shutil.which("setpriv") is None or os.geteuid() != 0:
        return False
    return subprocess.run([*NOBODY, "-c", "import eulerian"], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def small_disk(place: Path, options: str) -> Iterator[Path]:
    """A file system in memory at ``place``."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def faults(quick: bool) -> Iterator[Fault]:
    """Every number of files and pages; a few of them for ``quick``."""
    if can_mount():
        for ranks in (1, 2):
            for files in range(1, 18, 7 if quick else 1):
                yield _full(f"room for {files} files, {ranks} ranks", f"nr_inodes={files}", ranks)
            for pages in range(1, 40, 19 if quick else 2):
                yield _full(f"room for {pages} pages, {ranks} ranks", f"size={pages * PAGE}", ranks)
        yield Fault("full disks", "no room for kernels", partial(_cache, "size=4096"))
        yield Fault("full disks", "little room for kernels", partial(_cache, "size=65536"))
        yield Fault("full disks", "no room for densities of the adjoint", _adjoint)
        yield Fault("read-only disks", "for the run", partial(_read_only, "run/x", (1,)))
        yield Fault("read-only disks", "for kernels", partial(_read_only, "cache", (2,)))
        for ranks in (1, 2):
            yield Fault("read-only disks", f"in the middle of a run, {ranks} ranks", partial(_turns, ranks))
    else:
        for blocks in range(1, 40, 19 if quick else 2):
            yield Fault("full disks", f"files of {blocks} KiB at most", partial(_limited, blocks))
    yield Fault("full disks", "for what is printed", _mute)
    for ranks in (1, 2):
        yield Fault("folders", f"the run's vanishes, {ranks} ranks", partial(_vanishes, ranks))
    yield Fault("folders", "the run's is below a file", partial(_place, "model.toml/run", (1,)))
    yield Fault("folders", "the run's has a name that is too long", partial(_place, 300 * "x", (1,)))
    yield Fault("folders", "none for densities of the adjoint", _no_adjoint_folder)
    if can_be_nobody():
        yield Fault("folders", "another user's", _anothers)


def _full(name: str, options: str, ranks: int) -> Fault:
    return Fault("full disks", name, partial(_run_on, options, ranks))


def _run_on(options: str, ranks: int, folder: Path) -> Verdict:
    with small_disk(folder / "disk", options) as disk:
        done = trained(folder, "--output", disk / "run", ranks=ranks)
        if done.code == 0:
            return judged(done, folder, codes=(0,), messages=0, run=disk / "run")
        verdict = judged(done, folder, codes=(1, 2), said="No space left", run=disk / "run")
        begun, kept = (disk / "run" / "history.csv").exists(), (disk / "run" / "result.json").exists()
        if begun and not kept and '"objective"' not in done.err:
            return Verdict(False, f"the result is lost — {done.err[-600:]}")
        return verdict


def _cache(options: str, folder: Path) -> Verdict:
    with small_disk(folder / "cache", options):
        done = trained(folder, ranks=2, extra={"XDG_CACHE_HOME": str(folder / "cache")})
        left = list((folder / "cache").rglob(".compile-*"))
    verdict = judged(done, folder, codes=(2,), said="XDG_CACHE_HOME")
    return Verdict(False, f"{left} is left") if left and verdict.survived else verdict


def _adjoint_options(folder: Path) -> list[str]:
    settings = ['solver.memory="1 MiB"', 'solver.disk="1 GiB"', f'solver.disk_directory="{folder}"']
    settings += ["domain.box.cells=[400]", "density.degree=2", "field.theta=[[0.5, 0.5]]"]
    return [word for setting in settings for word in ("--set", setting)]


def _adjoint(folder: Path) -> Verdict:
    with small_disk(folder / "disk", "size=8192") as disk:
        done = trained(folder, *_adjoint_options(disk), ranks=2)
        return judged(done, folder, codes=(2,), said="solver.disk_directory")


def _no_adjoint_folder(folder: Path) -> Verdict:
    done = trained(folder, *_adjoint_options(folder / "nowhere"), ranks=2)
    return judged(done, folder, codes=(1, 2), said="solver.disk_directory")


def _read_only(place: str, codes: tuple[int, ...], folder: Path) -> Verdict:
    with small_disk(folder / "disk", "ro") as disk:
        options = ["--output", disk / place] if place != "cache" else []
        done = trained(folder, *options, ranks=2, extra={"XDG_CACHE_HOME": str(disk)} if place == "cache" else {})
        return judged(done, folder, codes=codes, said=str(disk), run=disk / "run")


def _turns(ranks: int, folder: Path) -> Verdict:
    from collective import broken_field

    with small_disk(folder / "disk", "size=1000000") as disk:
        what = f"os.system('mount -o remount,ro {disk}'); os.environ['FAULT_RANK'] = '-1'"
        options, extra = broken_field(folder, what, "vjp", 4, 0)
        done = trained(folder, *options, "--output", disk / "run", ranks=ranks, extra=extra)
        verdict = judged(done, folder, codes=(2,), said="Read-only", run=disk / "run")
        return verdict if '"objective"' in done.err else Verdict(False, f"the result is lost — {done.err[-600:]}")


def _vanishes(ranks: int, folder: Path) -> Verdict:
    from collective import broken_field

    what = "import shutil; shutil.rmtree('run'); os.environ['FAULT_RANK'] = '-1'"
    options, extra = broken_field(folder, what, "vjp", 4, 0)
    done = trained(folder, *options, ranks=ranks, extra=extra)
    return judged(done, folder, codes=(2,), said="run")


def _place(name: str, codes: tuple[int, ...], folder: Path) -> Verdict:
    done = trained(folder, "--output", name, ranks=2)
    return judged(done, folder, codes=codes, said="output.directory")


def _mute(folder: Path) -> Verdict:
    """What cannot be printed is no reason to lose what is computed."""
    arguments = [sys.executable, "-m", "eulerian", "train", str(model(folder))]
    done = run(["sh", "-c", 'exec "$@" >/dev/full', "sh", *arguments], folder, LIMIT, {MARK: str(folder)})
    return judged(done, folder, codes=(0,), messages=0)


def _limited(blocks: int, folder: Path) -> Verdict:
    arguments = [sys.executable, "-m", "eulerian", "train", str(model(folder))]
    limited = f"import resource, os, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({blocks * 1024},) * 2); "
    limited += "os.execv(sys.argv[1], sys.argv[1:])"
    done = run([sys.executable, "-c", limited, *arguments], folder, LIMIT, {MARK: str(folder)})
    if done.code == 0:
        return judged(done, folder, codes=(0,), messages=0)
    return judged(done, folder, codes=(1, 2), said="File too large")


def _anothers(folder: Path) -> Verdict:
    folder.chmod(0o755)
    arguments = [*NOBODY, "-m", "eulerian", "train", str(model(folder))]
    done = run(arguments, folder, LIMIT, {MARK: str(folder), "XDG_CACHE_HOME": str(folder / "cache")})
    return judged(done, folder, codes=(1,), said="output.directory")
