"""Shapes of initial densities, and the files that they come from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import gaussian_kde, multivariate_normal

from eulerian.app.config import SamplesTerm
from eulerian.base.errors import InputError
from eulerian.density.image import Image
from eulerian.density.shapes import Gaussian, Samples, Uniform, scott_bandwidth

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
    found = Samples(samples, scott_bandwidth(samples, "key")).values(x)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13 * expected.max())


def test_kernel_estimate_against_the_plain_loop() -> None:
    rng = np.random.default_rng(2)
    samples, x, h = rng.normal(size=(20, 2)), rng.normal(size=(30, 2)), np.array([0.3, 0.5])
    expected = np.zeros(30)
    for i, point in enumerate(x):
        for sample in samples:
            expected[i] += np.exp(-0.5 * (((point - sample) / h) ** 2).sum()) / (2 * np.pi * h.prod()) / 20
    np.testing.assert_allclose(Samples(samples, h).values(x), expected, rtol=1e-12)


def test_kernel_estimate_far_away_is_zero_and_does_not_depend_on_the_blocks() -> None:
    rng = np.random.default_rng(3)
    estimate = Samples(rng.normal(size=(500, 2)), np.array([0.1, 0.1]))
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


# -- samples ----------------------------------------------------------------------------------------------------------

READABLE: dict[str, tuple[str, dict[str, Any], list[list[float]], list[int], tuple[str, ...]]] = {
    "by name": ("a,b,c\n1,2,x\n3,4,y\n", {"columns": ("b", "a")}, [[2, 1], [4, 3]], [0, 0], ("",)),
    "by number": ("1,2\n3,4\n", {"columns": (0, 1)}, [[1, 2], [3, 4]], [0, 0], ("",)),
    "by number below names": ("a,b\n1,2\n3,4\n", {"columns": (1,)}, [[2], [4]], [0, 0], ("",)),
    "semicolons": ("a;b\n1;2\n", {"columns": ("b",)}, [[2]], [0], ("",)),
    "tabs": ("a\tb\n1\t2\n", {"columns": ("b",)}, [[2]], [0], ("",)),
    "bars": ("a|b\n1|2\n", {"columns": ("b",)}, [[2]], [0], ("",)),
    "one column": ("1\n-2e3\n", {"columns": (0,)}, [[1], [-2000]], [0, 0], ("",)),
    "blanks": ("\ufeff# made by hand\r\n a , b \r\n\r\n 1 , 2 \r\n", {"columns": ("a", "b")}, [[1, 2]], [0], ("",)),
    "quotes": ('"a, in m","b"\n"1","2"\n', {"columns": ("a, in m",)}, [[1]], [0], ("",)),
    "names with blanks": ("sepal length,sepal width\n1,2\n", {"columns": ("sepal width",)}, [[2]], [0], ("",)),
    "one name": (
        "sepal length\n1.5\n2.5\n",
        {"columns": ("sepal length",)},
        [[1.5], [2.5]],
        [0, 0],
        ("",),
    ),
    "missing elsewhere": ("a,b\n1,\n2,3\n", {"columns": ("a",)}, [[1], [2]], [0, 0], ("",)),
    "old Mac": ("a,b\r1,2\r3,4\r", {"columns": ("a", "b")}, [[1, 2], [3, 4]], [0, 0], ("",)),
    "a form feed in a text": ("a,c\n1,x\x0cy\n", {"columns": ("a",), "label_column": "c"}, [[1]], [0], ("x\x0cy",)),
}


@pytest.mark.parametrize("case", READABLE)
def test_samples(tmp_path: Path, case: str) -> None:
    text, columns, points, labels, classes = READABLE[case]
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode())
    samples = SamplesTerm(file=path, **columns).read("term")
    assert samples.points.tolist() == points
    assert samples.labels.tolist() == labels
    assert samples.classes == classes


# Files that other programs write: all hold the points (0.5, 2) and (1.5, 4).
WRITTEN_BY: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "nobody": ("x,y\n0.5,2\n1.5,4\n", ("x", "y")),
    "pandas": (",x,y\n0,0.5,2.0\n1,1.5,4.0\n", ("x", "y")),
    "pandas, by number": (",x,y\n0,0.5,2.0\n1,1.5,4.0\n", (1, 2)),
    "pandas without names": (",0,1\n0,0.5,2.0\n1,1.5,4.0\n", (1, 2)),
    "pandas for Germany": (";x;y\n0;0,5;2,0\n1;1,5;4,0\n", ("x", "y")),
    "R's write.csv": ('"","x","y"\n"1",0.5,2\n"2",1.5,4\n', ("x", "y")),
    "R's write.csv2": ('"";"x";"y"\n"1";0,5;2\n"2";1,5;4\n', ("x", "y")),
    "R's write.table": ('"x" "y"\n"1" 0.5 2\n"2" 1.5 4\n', ("x", "y")),
    "R's write.table, by number": ('"x" "y"\n"1" 0.5 2\n"2" 1.5 4\n', (0, 1)),
    "R's write.table with decimal commas": ('"x" "y"\n"1" 0,5 2\n"2" 1,5 4\n', ("x", "y")),
    "R's write.table with commas": ('"x","y"\n"1",0.5,2\n"2",1.5,4\n', ("x", "y")),
    "R's write.table with tabs": ('"x"\t"y"\n"1"\t0.5\t2\n"2"\t1.5\t4\n', ("x", "y")),
    "R's write.table without quotes": ("x y\none 0.5 2\ntwo 1.5 4\n", ("x", "y")),
    "R's write.table of a name with a blank": ('"x" "y z"\n"a b" 0.5 2\n"c" 1.5 4\n', ("x", "y z")),
    "savetxt": ("5.000e-01 2.000e+00\n1.500e+00 4.000e+00\n", (0, 1)),
    "savetxt with names": ("# x y\n5.000e-01 2.000e+00\n1.500e+00 4.000e+00\n", ("x", "y")),
    "savetxt with names and commas": ("# x,y\n5.000e-01,2.000e+00\n1.500e+00,4.000e+00\n", ("x", "y")),
    "savetxt with names of its own": ("# x,y\n5.000e-01 2.000e+00\n1.500e+00 4.000e+00\n", ("x", "y")),
    "savetxt with two lines on top": ("# a, by me\n# x;y\n5e-1;2\n1.5;4\n", ("x", "y")),
    "savetxt with a width": (" 0.5  2.0\n 1.5\t 4.0\n", (0, 1)),
    "an index called #": ("#,x,y\n1,0.5,2\n2,1.5,4\n", ("x", "y")),
    "German Excel": ("x;y\r\n0,5;2\r\n1,5;4\r\n", ("x", "y")),
    "German Excel without names": ("0,5;2,0\r\n1,5;4,0\r\n", (0, 1)),
    "German Excel with tabs": ("x\ty\r\n0,5\t2,0\r\n1,5\t4,0\r\n", ("x", "y")),
    "Excel with its separator": ("sep=;\r\nx;y\r\n0,5;2\r\n1,5;4\r\n", ("x", "y")),
    "Excel with its separator, a comma": ("sep=,\nx,y\n0.5,2\n1.5,4\n", ("x", "y")),
    "quoted decimal commas": ('x,y\n"0,5","2"\n"1,5","4"\n', ("x", "y")),
    "empty fields at the end": ("x,y\n0.5,2,\n1.5,4,,\n", ("x", "y")),
    "empty fields at the end of some": ("x,y\n0.5,2\n1.5,4,,\n", ("x", "y")),
    "empty fields at the end of the names": ("x,y,,\n0.5,2,,\n1.5,4\n", ("x", "y")),
    "empty fields at the end, no names": ("0.5,2,\n1.5,4\n", (0, 1)),
    "empty lines of a sheet": ("x,y\n0.5,2\n1.5,4\n,\n,,,\n", ("x", "y")),
    "a text with the separator in quotes": ('name,x,y\n"Doe, J.",0.5,2\n"Roe, R.",1.5,4\n', ("x", "y")),
    "a text with a semicolon": ("name,x,y\nDoe; J.,0.5,2\nRoe; R.,1.5,4\n", ("x", "y")),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("program", WRITTEN_BY)
def test_samples_of_other_programs(tmp_path: Path, program: str, encoding: str) -> None:
    text, columns = WRITTEN_BY[program]
    (tmp_path / "data.csv").write_bytes(text.encode(encoding))
    samples = SamplesTerm(file=tmp_path / "data.csv", columns=columns).read("term")
    assert samples.points.tolist() == [[0.5, 2.0], [1.5, 4.0]]


UNREADABLE: dict[str, tuple[str, dict[str, Any], str]] = {
    "empty": ("", {}, r"term\.file: the file of samples is empty"),
    "empty fields only": (",\n,\n", {}, r"term\.file: the file of samples is empty"),
    "only names": ("a,b\n", {}, "no data"),
    "no such name": ("x,y\n1,2\n", {}, r"term\.columns: no such column; got 'a'.*x, y"),
    "no such number": ("1,2\n", {"columns": (0, 7)}, r"term\.columns: no such column: the file has 2.*got 7"),
    "no such class": ("a,b\n1,2\n", {"label_column": "c"}, r"term\.label_column: no such column"),
    "a comment that is no line of names": ("# a b c\n1,2\n3,4\n", {}, "no such column"),
    "a comment of other names": ("# u,v\n1,2\n3,4\n", {}, "no such column"),
    "a name twice": ("a,b,a\n1,2,3\n4,5,6\n", {}, r"term\.columns: 2 columns have this name; got 'a'"),
    "not a number": ("a,b\n1,2\n3,four\n", {}, "line 3, column 1 is not a finite number; got 'four'"),
    "missing": ("a,b\n1,2\n\n3,\n", {}, "missing in line 4, column 1"),
    "short": ("a,b\n1,2\n3\n", {}, r"line 3 has 1 field, but the line of names has 2 \(a value is missing\?\)"),
    "short in front": ("a,b,c\n1,2,3\n2,3\n", {}, r"line 3 has 2 fields, but the line of names has 3"),
    "short without names": ("1,2\n3\n", {"columns": (0,)}, r"line 2 has 1 field, but line 1 has 2"),
    "missing class": ("a,b,c\n1,2,\n", {"label_column": "c"}, "missing in line 2, column 2"),
    "two lines in quotes": ('a,b\n3,4\n"1\n",2\n', {}, "in line 3 goes over several lines"),
    "decimal commas": ("a,b\n0,5,0,25\n", {}, r"term\.file: line 2 has 4 fields, but .* has 2 \(a decimal comma\?\)"),
    "a decimal comma": ("a,b\n1,5,2\n1,7,3\n", {}, r"line 2 has 3 fields.*decimal comma"),
    "one decimal comma": ("a,b\n1,2\n3,5,4\n", {}, r"line 3 has 3 fields.*decimal comma"),
    "decimal commas in one column": ("a\n1,25\n1,50\n", {"columns": ("a",)}, "line 2 has 2 fields.*decimal comma"),
    "decimal commas, but one": (
        "a\n1\n1,50\n2\n",
        {"columns": ("a",)},
        "line 3 has 2 fields.*decimal comma",
    ),
    "an unquoted comma": ("c,a,b\nDoe, J.,1.5,2.5\n", {}, r"line 2 has 4 fields.*comma inside an unquoted field"),
    "an unquoted comma and points": ("c,a,b\n1,2,1.5,2.5\n", {}, "line 2 has 4 fields.*comma inside an unquoted field"),
    "an unquoted semicolon": ("a;b;c\n1;2;x;y;z\n", {}, "line 2 has 5 fields.*semicolon inside an unquoted field"),
    "unquoted blanks": ("a b c\n1 2 Doe J. III\n", {}, "line 2 has 5 fields.*blank inside an unquoted field"),
    "row names twice": ("a b\nx 1 2\nx 3 4\n", {}, "line 2 has 3 fields"),
    "points beside commas": ("a;b\n0,5;1.5\n", {}, r"decimal point, but the file has decimal commas; got '1\.5'"),
    "points and commas in one": ("a;b\n1.234,5;2\n", {}, r"decimal point.*got '1\.234,5'"),
    "commas and a point": ("a;b\n1,234.5;2\n", {}, r"decimal point.*got '1,234\.5'"),
    "thousands": ("a;b\n1,234;12,500\n", {}, "between thousands; got '1,234'"),
    "millions": ("a;b\n1,234,567;1,5\n", {}, "not a finite number; got '1,234,567'"),
}
UNREADABLE |= {
    f"{text} for a number": (f"a,b\n1,2\n3,{text}\n", {}, "line 3, column 1 is not a finite number")
    for text in (
        "nan",
        "inf",
        "-Infinity",
        "1_000",
        "0x1p3",
        "1e999",
        "1e99999",
        "1.5D+00",
        "\u0661",
        "5\u00a0000",
        "1+2j",
    )
}
UNREADABLE |= {
    f"{text} in the first line": (f"{text},1\n2,3\n", {"columns": (0, 1)}, "line 1, column 0 is not a finite number")
    for text in ("nan", "-inf", "NA", "x")
}
UNREADABLE |= {
    f"{text} for a class": (f"a,b,c\n1,2,x\n3,4,{text}\n", {"label_column": "c"}, "term.file: .*missing in line 3")
    for text in ("nan", "NaN", "NA", "N/A", "None", "", "<NA>", '""', "null")
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_samples_that_cannot_be_read(tmp_path: Path, case: str) -> None:
    text, columns, message = UNREADABLE[case]
    path = tmp_path / "data.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        SamplesTerm(file=path, **{"columns": ("a", "b"), **columns}).read("term")


def test_samples_in_no_text_file(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"\xff\xfe\x00")
    for name, message in (("data.csv", "UTF-8"), ("nowhere.csv", "No such file"), (".", "cannot read")):
        with pytest.raises(InputError, match=rf"term\.file: .*{message}"):
            SamplesTerm(file=tmp_path / name, columns=(0,)).read("term")


@pytest.mark.parametrize(
    ("written", "classes", "labels"),
    [
        ("no yes no", ("no", "yes"), [0, 1, 0]),
        ("10 9 9.0", ("9", "10"), [1, 0, 0]),
        ("9.0 10.0", ("9.0", "10.0"), [0, 1]),
        ("+1 -1 1", ("-1", "1"), [1, 0, 1]),
        ("-0 0 0.", ("0",), [0, 0, 0]),
        ("1000002 1000001", ("1000001", "1000002"), [1, 0]),
        ("10000000000000002 10000000000000001", ("10000000000000001", "10000000000000002"), [1, 0]),
        ("1e3 1000 999", ("999", "1000", "1e3"), [2, 1, 0]),
        ("7 007 8", ("007", "7", "8"), [1, 0, 2]),
        ("0.1 0.10 0.1000000001", ("0.1", "0.10", "0.1000000001"), [0, 1, 2]),
        ("inf 2 10", ("10", "2", "inf"), [2, 1, 0]),
        ("1_0 10", ("10", "1_0"), [1, 0]),
        ("True False", ("False", "True"), [1, 0]),
        ("Na a", ("Na", "a"), [0, 1]),
    ],
)
def test_classes_are_called_as_they_are_written(
    tmp_path: Path, written: str, classes: tuple[str, ...], labels: list[int]
) -> None:
    rows = "".join(f"{i},{text}\n" for i, text in enumerate(written.split()))
    (tmp_path / "data.csv").write_text(f"a,c\n{rows}")
    samples = SamplesTerm(file=tmp_path / "data.csv", columns=("a",), label_column="c").read("term")
    assert samples.classes == classes
    assert samples.labels.tolist() == labels
