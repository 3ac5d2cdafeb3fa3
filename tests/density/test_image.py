"""Pictures as darkness: every kind of pixel, the way up that viewers show, how grey is scaled, and what is refused."""

import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from eulerian.base.errors import EulerianWarning, InputError
from eulerian.density.image import read_darkness

pytestmark = pytest.mark.one_process

SHORT, LONG = 3, 4


def tiff(rows: np.ndarray, *, white_is_zero: bool = False, orientation: int = 1) -> bytes:
    """An uncompressed TIFF of grey pixels, as no other library may write it."""
    data = rows.tobytes()
    form = {"u": 1, "i": 2, "f": 3}[rows.dtype.kind]
    tags = (
        (256, LONG, rows.shape[1]),
        (257, LONG, rows.shape[0]),
        (258, SHORT, 8 * rows.itemsize),
        (259, SHORT, 1),
        (262, SHORT, int(not white_is_zero)),
        (273, LONG, 8),
        (274, SHORT, orientation),
        (277, SHORT, 1),
        (278, LONG, rows.shape[0]),
        (279, LONG, len(data)),
        (339, SHORT, form),
    )
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    ("mode", "colours"),
    [
        ("L", (0, 255)),
        ("RGB", ((0, 0, 0), (255, 255, 255))),
        ("RGBA", ((0, 0, 0, 255), (0, 0, 0, 0))),
        ("LA", ((0, 255), (0, 0))),
        ("1", (0, 1)),
        ("I;16", (0, 65535)),
        ("F", (0.0, 1.0)),
        ("CMYK", ((0, 0, 0, 255), (0, 0, 0, 0))),
        ("LAB", ((0, 128, 128), (255, 128, 128))),
    ],
)
def test_dark_is_dense_in_every_mode(tmp_path: Path, mode: str, colours: tuple[Any, Any]) -> None:
    picture = Pillow.new(mode, (2, 1), colours[1])
    picture.putpixel((0, 0), colours[0])
    path = tmp_path / ("a.tif" if mode in ("F", "CMYK", "LAB") else "a.png")
    picture.save(path)
    np.testing.assert_allclose(read_darkness(path, "key"), [[1.0, 0.0]])


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    palette = Pillow.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 0, 0, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=1)
    palette.save(tmp_path / "palette.gif", transparency=1)
    Pillow.fromarray(np.array([[0, 7]], dtype=np.uint8)).save(tmp_path / "grey.png", transparency=7)
    Pillow.fromarray(np.array([[0, 7]], dtype=np.uint16)).save(tmp_path / "fine.png", transparency=7)
    for name in ("palette.png", "palette.gif", "grey.png", "fine.png"):
        np.testing.assert_allclose(read_darkness(tmp_path / name, "key"), [[1.0, 0.0]], err_msg=name)


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_white_may_be_zero(tmp_path: Path, kind: str) -> None:
    white = {"u1": 255, "u2": 65535, "f4": 1}[kind]
    for white_is_zero, expected in ((False, [[1.0, 0.0]]), (True, [[0.0, 1.0]])):
        (tmp_path / "a.tif").write_bytes(tiff(np.array([[0, white]], dtype=kind), white_is_zero=white_is_zero))
        np.testing.assert_allclose(read_darkness(tmp_path / "a.tif", "key"), expected)


def test_grey_is_between(tmp_path: Path) -> None:
    Pillow.fromarray(np.array([[0, 51, 255]], dtype=np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_darkness(tmp_path / "a.png", "key"), [[1.0, 0.8, 0.0]])


# -- the way up --------------------------------------------------------------------------------------------------------

# What a viewer does to the pixels for each orientation: EXIF 2.32, section 4.6.5, table 6.
TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda rows: rows,
    2: np.fliplr,
    3: lambda rows: np.rot90(rows, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda rows: np.rot90(rows, -1),
    7: lambda rows: np.rot90(rows, 2).T,
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "compressed.tif", "plain.tif", "fine.tif", "fine.png"])
def test_pictures_are_the_way_up_that_viewers_show(tmp_path: Path, name: str, orientation: int) -> None:
    rows = np.kron([[0, 100, 255], [255, 255, 255]], np.ones((16, 16)))
    path, dark = tmp_path / name, 1 - rows / 255
    pixels = np.rint(rows * 257).astype(np.uint16) if name.startswith("fine") else rows.astype(np.uint8)
    if name in ("plain.tif", "fine.tif"):
        path.write_bytes(tiff(pixels, orientation=orientation))
    else:
        exif = Pillow.Exif()
        exif[274] = orientation
        more = {"a.webp": {"lossless": True}, "compressed.tif": {"compression": "tiff_lzw"}, "a.jpg": {"quality": 100}}
        Pillow.fromarray(pixels).save(path, exif=exif, **more.get(name, {}))
    np.testing.assert_allclose(read_darkness(path, "key"), TURNED[orientation](dark), atol=0.02)


# -- how grey is scaled ------------------------------------------------------------------------------------------------


def test_a_part_of_the_range_is_told(tmp_path: Path) -> None:
    """12 bits of a camera in 16, a mask of 0 and 1, and grey in grey are nearly black everywhere."""
    cases = {
        "camera": (
            np.array([[0, 2000, 4095]], dtype=np.uint16),
            "0 to 4095 only.*65535 is white.* 93.8 % as dense",
        ),
        "mask": (np.array([[0, 1]], dtype=np.uint8), "0 to 1 only.*255 is white.* 99.6 % as dense"),
        "grey in grey": (np.array([[40000, 41000]], dtype=np.uint16), "from 40000 to 41000 only"),
    }
    for rows, message in cases.values():
        Pillow.fromarray(rows).save(tmp_path / "a.png")
        with pytest.warns(EulerianWarning, match=f"^key: .*{message}"):
            found = read_darkness(tmp_path / "a.png", "key")
        np.testing.assert_allclose(found, 1 - rows / np.iinfo(rows.dtype).max)


def test_what_is_on_white_paper_is_told_nothing_of(tmp_path: Path) -> None:
    for rows in ([[200, 255]], [[0, 255]], [[0, 128]], [[0, 0]], [[77, 77]]):
        for dtype in (np.uint8, np.uint16):
            pixels = (np.array(rows) * (257 if dtype is np.uint16 else 1)).astype(dtype)
            Pillow.fromarray(pixels).save(tmp_path / "a.png")
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                read_darkness(tmp_path / "a.png", "key")


@pytest.mark.parametrize(
    ("rows", "message", "darkness"),
    [
        (np.array([[0, 1.5, 3]], dtype="f4"), "0 is black and 3, its largest value, white", [[1, 0.5, 0]]),
        (np.array([[0, 100, 200]], dtype="i4"), "0 is black and 200, its largest value, white", [[1, 0.5, 0]]),
        (np.array([[-1, 0, 1]], dtype="f4"), "-1 is black and 1, its largest value, white", [[1, 0.5, 0]]),
    ],
)
def test_numbers_without_a_white_are_told(tmp_path: Path, rows: np.ndarray, message: str, darkness: Any) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(rows))
    with pytest.warns(EulerianWarning, match=message):
        found = read_darkness(tmp_path / "a.tif", "key")
    np.testing.assert_allclose(found, darkness)


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    Pillow.new("L", (50, 50)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    for name in ("nowhere.png", "text.png", "cut.png", "."):
        with pytest.raises(InputError, match=r"density\.file: cannot read the picture"):
            read_darkness(tmp_path / name, "density.file")


def test_pictures_of_no_numbers(tmp_path: Path) -> None:
    for value in (np.nan, np.inf):
        (tmp_path / "a.tif").write_bytes(tiff(np.array([[0, 1, value]], dtype="f4")))
        with pytest.raises(InputError, match=r"key: the picture holds NaN or infinity"):
            read_darkness(tmp_path / "a.tif", "key")
