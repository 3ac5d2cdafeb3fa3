"""Shapes of initial densities, and the files that they come from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from scipy.stats import gaussian_kde, multivariate_normal

from eulerian.config import SamplesTerm
from eulerian.errors import InputError
from eulerian.space.profiles import Gaussian, Image, KernelEstimate, Uniform, read_darkness, scott_bandwidth
from eulerian.space.samples import read_samples

pytestmark = pytest.mark.one_process


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_gaussian_against_scipy(dim: int) -> None:
    rng = np.random.default_rng(0)
    root = np.eye(dim) + 0.4 * rng.normal(size=(dim, dim))
    mean, covariance = rng.normal(size=dim), root @ root.T
    profile, x = Gaussian(mean, covariance), rng.normal(size=(50, dim))
    np.testing.assert_allclose(profile.values(x), multivariate_normal(mean, covariance).pdf(x), rtol=1e-12)
    assert profile.scale == pytest.approx(np.linalg.svd(root)[1][-1])


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_kernel_estimate_against_scipy(dim: int) -> None:
    rng = np.random.default_rng(1)
    samples, x = rng.normal(size=(300, dim)), 2 * rng.normal(size=(5000, dim))
    # scipy uses the whole covariance, ours its diagonal: whiten the samples so that both are the same.
    samples = np.linalg.solve(np.linalg.cholesky(np.cov(samples, rowvar=False).reshape(dim, dim)), samples.T).T
    expected = gaussian_kde(samples.T)(x.T)
    found = KernelEstimate(samples, scott_bandwidth(samples, "key")).values(x)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13 * expected.max())


def test_kernel_estimate_against_the_plain_loop() -> None:
    rng = np.random.default_rng(2)
    samples, x, h = rng.normal(size=(20, 2)), rng.normal(size=(30, 2)), np.array([0.3, 0.5])
    expected = np.zeros(30)
    for i, point in enumerate(x):
        for sample in samples:
            expected[i] += np.exp(-0.5 * (((point - sample) / h) ** 2).sum()) / (2 * np.pi * h.prod()) / 20
    np.testing.assert_allclose(KernelEstimate(samples, h).values(x), expected, rtol=1e-12)


def test_kernel_estimate_far_away_is_zero_and_does_not_depend_on_the_blocks() -> None:
    rng = np.random.default_rng(3)
    estimate = KernelEstimate(rng.normal(size=(500, 2)), np.array([0.1, 0.1]))
    x = np.vstack([rng.normal(size=(9000, 2)), [[100.0, 0.0]]])
    whole = estimate.values(x)
    assert whole[-1] == 0
    np.testing.assert_allclose(estimate.values(x[37:5000]), whole[37:5000], rtol=1e-13, atol=1e-14 * whole.max())
    one_by_one = [estimate.values(point[None])[0] for point in x[:300]]  # most samples are left out
    np.testing.assert_allclose(one_by_one, whole[:300], rtol=1e-13, atol=1e-14 * whole.max())


def test_scott() -> None:
    samples = np.array([[0.0, 1.0], [2.0, 1.5], [4.0, 2.0]])
    np.testing.assert_allclose(scott_bandwidth(samples, "key"), 3 ** (-1 / 6) * np.array([2.0, 0.5]))
    for few in (samples[:1], samples[[0, 0]], samples * [1, 0]):
        with pytest.raises(InputError, match=r"no spread.*number"):
            scott_bandwidth(few, "key")


def test_uniform() -> None:
    profile = Uniform(np.array([0.0, 1.0]), np.array([2.0, 1.5]))
    np.testing.assert_array_equal(profile.values(np.array([[1.0, 1.2], [1.0, 1.6], [-0.1, 1.2]])), [1.0, 0.0, 0.0])


# -- pictures ---------------------------------------------------------------------------------------------------------


def test_image_is_bilinear_between_pixel_centres() -> None:
    profile = Image(np.array([[0.0, 1.0], [2.0, 4.0]]), np.array([0.0, 0.0]), np.array([2.0, 2.0]))
    points = {
        (0.5, 1.5): 0.0,  # the first row of pixels is the upper one
        (1.5, 1.5): 1.0,
        (0.5, 0.5): 2.0,
        (1.5, 0.5): 4.0,
        (1.0, 1.0): 7 / 4,
        (1.0, 0.5): 3.0,
        (0.1, 0.1): 2.0,  # constant beyond the outer centres
        (2.1, 1.0): 0.0,
        (1.0, -0.1): 0.0,
    }
    np.testing.assert_allclose(profile.values(np.array(list(points))), list(points.values()), atol=1e-15)
    assert profile.scale == 1.0


@pytest.mark.parametrize(
    ("mode", "colours"),
    [
        ("L", (0, 255)),
        ("RGB", ((0, 0, 0), (255, 255, 255))),
        ("RGBA", ((0, 0, 0, 255), (0, 0, 0, 0))),
        ("LA", ((0, 255), (0, 0))),
        ("1", (0, 1)),
        ("I;16", (0, 65535)),
        ("F", (0.0, 3.0)),
    ],
)
def test_dark_is_dense_in_every_mode(tmp_path: Path, mode: str, colours: tuple[Any, Any]) -> None:
    picture = Pillow.new(mode, (2, 1), colours[1])
    picture.putpixel((0, 0), colours[0])
    path = tmp_path / ("a.tif" if mode == "F" else "a.png")
    picture.save(path)
    np.testing.assert_allclose(read_darkness(path, "key"), [[1.0, 0.0]])


def test_grey_is_between(tmp_path: Path) -> None:
    Pillow.fromarray(np.array([[0, 51, 255]], dtype=np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_darkness(tmp_path / "a.png", "key"), [[1.0, 0.8, 0.0]])


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    Pillow.new("L", (50, 50)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    for name in ("nowhere.png", "text.png", "cut.png", "."):
        with pytest.raises(InputError, match=r"density\.file: cannot read the picture"):
            read_darkness(tmp_path / name, "density.file")


# -- samples ----------------------------------------------------------------------------------------------------------

READABLE: dict[str, tuple[str, dict[str, Any], list[list[float]], list[int], tuple[str, ...]]] = {
    "by name": ("a,b,c\n1,2,x\n3,4,y\n", {"columns": ("b", "a")}, [[2, 1], [4, 3]], [0, 0], ("",)),
    "by number": ("1,2\n3,4\n", {"columns": (0, 1)}, [[1, 2], [3, 4]], [0, 0], ("",)),
    "by number below names": ("a,b\n1,2\n3,4\n", {"columns": (1,)}, [[2], [4]], [0, 0], ("",)),
    "classes as text": (
        "a,c\n1,no\n2,yes\n3,no\n",
        {"columns": ("a",), "label_column": "c"},
        [[1], [2], [3]],
        [0, 1, 0],
        ("no", "yes"),
    ),
    "classes as numbers": (
        "a,c\n1,10\n2,9\n3,9.0\n",
        {"columns": ("a",), "label_column": "c"},
        [[1], [2], [3]],
        [1, 0, 0],
        ("9", "10"),
    ),
    "class by number": ("1,b\n2,a\n", {"columns": (0,), "label_column": 1}, [[1], [2]], [1, 0], ("a", "b")),
    "semicolons": ("a;b\n1;2\n", {"columns": ("b",)}, [[2]], [0], ("",)),
    "tabs": ("a\tb\n1\t2\n", {"columns": ("b",)}, [[2]], [0], ("",)),
    "one column": ("1\n-2e3\n", {"columns": (0,)}, [[1], [-2000]], [0, 0], ("",)),
    "blanks": ("\ufeff# made by hand\r\n a , b \r\n\r\n 1 , 2 \r\n", {"columns": ("a", "b")}, [[1, 2]], [0], ("",)),
    "quotes": ('"a, in m","b"\n"1","2"\n', {"columns": ("a, in m",)}, [[1]], [0], ("",)),
    "missing elsewhere": ("a,b\n1,\n2,3\n", {"columns": ("a",)}, [[1], [2]], [0, 0], ("",)),
}


@pytest.mark.parametrize("case", READABLE)
def test_samples(tmp_path: Path, case: str) -> None:
    text, columns, points, labels, classes = READABLE[case]
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode())
    samples = read_samples(SamplesTerm(file=path, **columns), "term")
    assert samples.points.tolist() == points
    assert samples.labels.tolist() == labels
    assert samples.classes == classes


UNREADABLE: dict[str, tuple[str, dict[str, Any], str]] = {
    "empty": ("", {}, r"term\.file: the file of samples is empty"),
    "only names": ("a,b\n", {}, "no data"),
    "no such name": ("x,y\n1,2\n", {}, r"term\.columns: no such column; got 'a'.*x, y"),
    "no such number": ("1,2\n", {"columns": (0, 7)}, r"term\.columns: no such column: the file has 2.*got 7"),
    "no such class": ("a,b\n1,2\n", {"label_column": "c"}, r"term\.label_column: no such column"),
    "not a number": ("a,b\n1,2\n3,four\n", {}, "line 3, column 1 is not a finite number; got 'four'"),
    "NaN": ("a,b\n1,2\n3,nan\n", {}, "line 3, column 1 is not a finite number"),
    "infinite": ("a,b\n1,2\n3,inf\n", {}, "line 3, column 1 is not a finite number"),
    "missing": ("a,b\n1,2\n\n3,\n", {}, "missing in line 4, column 1"),
    "short": ("a,b\n1,2\n3\n", {}, "missing in line 3, column 1"),
    "missing class": ("a,b,c\n1,2,\n", {"label_column": "c"}, "missing in line 2, column 2"),
    "two lines in quotes": ('a,b\n"1\n",2\n', {}, "several lines"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_samples_that_cannot_be_read(tmp_path: Path, case: str) -> None:
    text, columns, message = UNREADABLE[case]
    path = tmp_path / "data.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_samples(SamplesTerm(file=path, **{"columns": ("a", "b"), **columns}), "term")


def test_samples_in_no_text_file(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"\xff\xfe\x00")
    for name, message in (("data.csv", "UTF-8"), ("nowhere.csv", "No such file"), (".", "cannot read")):
        with pytest.raises(InputError, match=rf"term\.file: .*{message}"):
            read_samples(SamplesTerm(file=tmp_path / name, columns=(0,)), "term")
