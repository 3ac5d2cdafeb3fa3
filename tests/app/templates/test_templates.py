"""The templates: found, copied with all that they need, and right."""

import csv
import os
import tomllib
from pathlib import Path

import meshio
import numpy as np
import pytest
from paths import MESHES, PACKAGE, ROOT

from eulerian.app.config import Adapt, check_dimension, parse_config, read_config
from eulerian.app.config.model import Config
from eulerian.app.templates import available, copy_template, suggested_command
from eulerian.base.errors import InputError, collected_warnings

pytestmark = pytest.mark.one_process


def test_names() -> None:
    assert available() == ("branching", "crowds", "dumbbell", "gaussian", "images", "moons", "transport", "wine")


@pytest.mark.parametrize("name", available())
def test_copies_are_complete(name: str, tmp_path: Path) -> None:
    files = copy_template(name, tmp_path / "deep" / "er")
    assert files[0] == tmp_path / "deep" / "er" / f"{name}.toml"
    assert sorted(files) == sorted((tmp_path / "deep" / "er").iterdir())
    config = read_config(files[0])  # all files that it names are there
    check_dimension(config, 2)
    assert parse_config(config.to_toml()) == config
    assert config.output.directory == Path("runs") / name
    text = files[0].read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert suggested_command(files[0]) == ("ideal" if name == "transport" else "train")
    assert f"eulerian {suggested_command(files[0])} {name}.toml" in text


@pytest.mark.parametrize("name", available())
def test_most_keys_are_explained(name: str) -> None:
    lines = (PACKAGE / "app" / "templates" / name / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    keys = [line for line in lines if "=" in line and not line.startswith("#")]
    assert sum("#" in line for line in keys) >= 0.6 * len(keys)
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", available())
def test_nothing_is_outside(name: str, tmp_path: Path) -> None:
    """No mass that matters is cut off, no class is lost, no picture is scaled otherwise than meant."""
    from eulerian.app.build.network import build, build_ideal

    config = read_config(copy_template(name, tmp_path)[0])
    told: list[str] = []
    with collected_warnings(told.append):
        (build_ideal if suggested_command(config_file(name)) == "ideal" else build)(config)
    assert told == []


def config_file(name: str) -> Path:
    return PACKAGE / "app" / "templates" / name / f"{name}.toml"


def test_the_first_template_shows_every_section() -> None:
    text = (PACKAGE / "app" / "templates" / "gaussian" / "gaussian.toml").read_text(encoding="utf-8")
    assert set(tomllib.loads(text)) == set(Config.model_fields) - {"adapt"}  # a fixed mesh is simpler
    start = text.index("# [adapt]")
    end = text.index("\n\n", start)
    shown = text[:start] + text[start:end].replace("# [", "[").replace("\n# ", "\n") + text[end:]
    assert Config.model_validate(tomllib.loads(shown)).adapt == Adapt()


def test_exact_optimum_of_the_gaussian(tmp_path: Path) -> None:
    file = copy_template("gaussian", tmp_path)[0]
    config = read_config(file)
    term, terminal, lam = config.density.initial[0], config.objective.terminal, config.objective.kinetic
    assert term.kind == "gaussian"
    assert terminal.kind == "quadratic"
    assert terminal.target is not None
    assert term.std is not None
    beta = lam / config.field.horizon * terminal.weight / (lam / config.field.horizon + terminal.weight)
    distance = sum((m - c) ** 2 for m, c in zip(term.mean, terminal.target, strict=True))
    assert f"{beta / 2 * (distance + 2 * term.std**2):.3f}" == "0.565"
    assert "0.565" in file.read_text(encoding="utf-8")


def test_exact_optimum_of_the_transport(tmp_path: Path) -> None:
    """λ/(2T) W², of two Gaussians whose covariances commute."""
    file = copy_template("transport", tmp_path)[0]
    config = read_config(file)
    start, terminal = config.density.initial[0], config.objective.terminal
    assert start.kind == "gaussian"
    assert terminal.kind == "fixed"
    end = terminal.target[0]
    assert end.kind == "gaussian"
    assert start.std is not None
    assert end.covariance is not None
    stretch = sum((np.sqrt(end.covariance[axis][axis]) - start.std) ** 2 for axis in range(2))
    distance = sum((a - b) ** 2 for a, b in zip(start.mean, end.mean, strict=True))
    value = config.objective.kinetic / (2 * config.field.horizon) * (distance + stretch)
    assert f"{value:.5f}" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "mesh"), [("crowds", "dumbbell.msh"), ("dumbbell", "dumbbell.msh"), ("wine", "disk.msh")]
)
def test_meshes_are_those_of_the_project(name: str, mesh: str, tmp_path: Path) -> None:
    copy_template(name, tmp_path)
    assert (tmp_path / mesh).read_bytes() == (MESHES / mesh).read_bytes()


def wine(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Points and classes of a file of the template."""
    with (PACKAGE / "app" / "templates" / "wine" / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    points = np.array([[float(row["pc1"]), float(row["pc2"])] for row in rows])
    return points, np.array([int(row["class"]) for row in rows])


def test_wine_data() -> None:
    (points, classes), (held_out, others) = wine("wine_training.csv"), wine("wine_held_out.csv")
    assert np.bincount(classes).tolist() == [40, 48, 32]
    assert np.bincount(others).tolist() == [59 // 3, 71 // 3, 48 // 3]
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(points.std(axis=0), 1, atol=1e-6)
    assert abs(np.mean(points[:, 0] * points[:, 1])) < 1e-5  # principal components are uncorrelated
    assert not {tuple(point) for point in points} & {tuple(point) for point in held_out}
    nodes = meshio.read(MESHES / "disk.msh").points
    largest = np.hypot(*np.concatenate([points, held_out]).T).max()
    assert largest + 8 * 0.2 < np.hypot(*nodes[:, :2].T).max(), "room for the tails of the kernels"


def test_wine_trains_on_the_training_file_only(tmp_path: Path) -> None:
    files = copy_template("wine", tmp_path)
    (term,) = read_config(files[0]).density.initial
    assert term.kind == "samples"
    assert Path(term.file).name == "wine_training.csv"
    assert "wine_held_out.csv" in {file.name for file in files}


@pytest.mark.parametrize("name", ["", "unknown", "../gaussian", "gaussian/", "/etc", ".", "__pycache__", "GAUSSIAN"])
def test_unknown_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="branching, crowds, dumbbell, gaussian, images, moons, transport, wine"):
        copy_template(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_never_overwrites_unless_told(tmp_path: Path) -> None:
    (tmp_path / "disk.msh").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"disk\.msh would be overwritten"):
        copy_template("wine", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["disk.msh"]
    files = copy_template("wine", tmp_path, overwrite=True)
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert (tmp_path / "disk.msh").read_bytes() == (ROOT / "meshes" / "disk.msh").read_bytes()


def test_templates_with_the_same_mesh_share_a_folder(tmp_path: Path) -> None:
    copy_template("crowds", tmp_path)
    assert [file.name for file in copy_template("dumbbell", tmp_path)] == ["dumbbell.toml", "dumbbell.msh"]
    with pytest.raises(InputError, match=r"dumbbell\.toml would be overwritten"):
        copy_template("dumbbell", tmp_path)


def test_links_are_replaced_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    os.symlink(outside, tmp_path / "gaussian.toml")
    with pytest.raises(InputError, match="overwritten"):
        copy_template("gaussian", tmp_path)
    copy_template("gaussian", tmp_path, overwrite=True)
    assert not outside.exists()
    assert not (tmp_path / "gaussian.toml").is_symlink()


def test_folders_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "gaussian.toml").mkdir()
    for target in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(InputError, match="cannot be written"):
            copy_template("gaussian", target)
    with pytest.raises(InputError, match="cannot be written"):
        copy_template("gaussian", tmp_path, overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "gaussian.toml"]
