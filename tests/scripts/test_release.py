"""What a release consists of: one version everywhere, and distributions in which nothing is missing."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from jobs import environment
from paths import ROOT

import eulerian

pytestmark = pytest.mark.mpi  # for one process

VERSION = eulerian.__version__
HEADING = re.compile(r"^## \[(.+?)\](?: - (\S+))?$", re.MULTILINE)


@pytest.fixture(scope="module")
def citation() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    return found


def test_the_changelog_has_a_heading_for_this_version_below_what_is_not_released() -> None:
    headings = HEADING.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert [name for name, _ in headings[:2]] == ["Unreleased", VERSION]
    date.fromisoformat(headings[1][1])


def test_the_citation_is_of_this_version(citation: dict[str, Any]) -> None:
    dates = dict(HEADING.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))
    assert citation["version"] == VERSION
    assert citation["date-released"] == dates[VERSION]


def test_the_citation_has_what_its_format_wants(citation: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert citation["title"] == project["name"]
    assert citation["license"] == project["license"]
    assert citation["authors"] == project["authors"]
    assert citation["message"]
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= reference.keys()
        assert re.fullmatch(r"10\.\d{4,}/\S+", reference["doi"])


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files that the repository keeps."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def distributions(tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, the wheel built from the other, out of a copy of the files and without a network."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(source)]
    done = subprocess.run(command, cwd=built, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return built


@pytest.mark.slow
def test_the_source_distribution_is_what_the_repository_keeps(tracked: list[str], distributions: Path) -> None:
    with tarfile.open(distributions / f"eulerian-{VERSION}.tar.gz") as archive:
        names = [member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()]
    made = {"PKG-INFO", "setup.cfg"}
    assert {name for name in names if not name.startswith("eulerian.egg-info/")} - made == set(tracked)


@pytest.mark.slow
def test_the_wheel_is_the_whole_package_and_nothing_else(tracked: list[str], distributions: Path) -> None:
    with zipfile.ZipFile(distributions / f"eulerian-{VERSION}-py3-none-any.whl") as archive:
        names = set(archive.namelist())
    about = f"eulerian-{VERSION}.dist-info/"
    assert {name for name in names if not name.startswith(about)} == {n for n in tracked if n.startswith("eulerian/")}
    assert {about + "licenses/LICENSE", about + "entry_points.txt"} <= names
