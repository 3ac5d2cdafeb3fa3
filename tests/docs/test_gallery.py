"""The gallery and ``scripts/gallery.py`` say the same, and its pictures are there and small."""

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
from code_blocks import DOCS, ROOT, blocks, commands
from PIL import Image

pytestmark = pytest.mark.one_process

PAGE = DOCS / "gallery.md"
SCRIPT: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "gallery.py"))
PICTURES = SCRIPT["PICTURES"]


def cards() -> dict[str, list[list[str]]]:
    """By the picture's file, from the folder of the page, the words of the commands that stand below it."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    images = {i + 1: found[1] for i, line in enumerate(lines) if (found := re.match(r"^:::\{image\} (\S+)", line))}
    found: dict[str, list[list[str]]] = {image: [] for image in images.values()}
    for block in blocks(PAGE):
        above = max(line for line in images if line < block.line)
        found[images[above]] += [shlex.split(command) for command in commands(block)]
    return found


def test_every_picture_stands_on_the_page_with_its_commands_and_no_other_does() -> None:
    ours = {
        f"images/{picture.file.name}": [shlex.split(command) for command in picture.commands]
        for picture in PICTURES
        if picture.page == "docs/gallery.md"
    }
    assert cards() == ours


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_the_file_is_there_and_small(picture: Any) -> None:
    assert picture.file.stat().st_size <= picture.limit
    with Image.open(picture.file) as image:
        assert image.width <= picture.width


def test_the_example_of_the_readme_has_what_its_picture_shows() -> None:
    assert {"flow", "rho0", "x"} <= set(re.findall(r"^(\w+) = ", SCRIPT["readme_example"](), re.MULTILINE))
    assert "(docs/images/from_python.png)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_files_are_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink = SCRIPT["shrink"]
    monkeypatch.setitem(shrink.__globals__, "IMAGES", tmp_path)
    still, moving = (
        SCRIPT["Picture"]("still", (), "a.png", width=80),
        SCRIPT["Picture"]("moving", (), "a.gif", width=80),
    )
    frames = [Image.linear_gradient("L").rotate(angle).convert("RGB") for angle in (0, 90, 180)]
    frames[0].save(tmp_path / "source.png")
    frames[0].save(tmp_path / "source.gif", save_all=True, append_images=frames[1:], duration=[500, 70, 1000])
    shrink(still, tmp_path / "source.png")
    shrink(moving, tmp_path / "source.gif")
    with Image.open(tmp_path / "still.png") as image:
        assert (image.size, image.mode) == ((80, 80), "P")
    with Image.open(tmp_path / "moving.gif") as image:
        assert (image.size, image.n_frames, image.info["duration"]) == ((80, 80), 3, 500)
