"""`eulerian plot --animate`: the film of a run folder, on any number of ranks, and what is refused."""

from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from PIL import Image
from run_folders import leave_run
from test_push import AFFINE, B, T, config, exact

from eulerian.app.config import parse_config
from eulerian.app.figures import animation
from eulerian.app.figures.animation_figure import AnimationData
from eulerian.app.tasks import run_animate, run_ideal
from eulerian.base.errors import InputError, RejectedEvaluation

pytestmark = pytest.mark.two_ranks


def film_of(monkeypatch: pytest.MonkeyPatch, comm: MPI.Comm, run: Path, **options: Any) -> AnimationData:
    """What would be drawn, on all ranks."""
    kept: list[AnimationData] = []
    monkeypatch.setattr(animation, "write_animation", lambda _path, film, _fps: kept.append(film))
    run_animate(run, comm, **{"frames": 5, **options})
    film: AnimationData = comm.bcast(kept[0] if kept else None)
    return film


def mass(film: AnimationData) -> Any:
    """Of every label at every time, for density of degree 1 on triangles or intervals, (n, K)."""
    corners = film.points
    size = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])) / (2.0 if film.dim == 2 else 1.0)
    return np.einsum("tcmk,c->tk", film.density, size) / film.points.shape[1]


def test_densities_and_particles_of_an_affine_flow(
    comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = leave_run(comm, tmp_path / "run", config(2), [AFFINE])
    film = film_of(monkeypatch, comm, run, particles=96)
    assert np.allclose(film.times, np.linspace(0.0, T, 5))
    assert film.points.shape == (128, 3, 2)
    assert np.allclose(mass(film), [1 / 3, 2 / 3], atol=1e-6)
    assert np.array_equal(np.bincount(film.labels), [32, 64])
    np.testing.assert_allclose(film.positions[-1], exact(film.positions[0]), atol=1e-6)
    centre = np.einsum("tcmk,cmd->tkd", film.density, film.points)
    centre /= film.density.sum(axis=(1, 2))[..., None]
    for k in range(2):  # both are carried by one flow
        np.testing.assert_allclose(film.positions[:, film.labels == k].mean(axis=1), centre[:, k], atol=0.05)
    assert film.names == ("0", "1")


def test_points_do_not_depend_on_the_number_of_ranks(
    comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = leave_run(comm, tmp_path / "run", config(2), [AFFINE])
    alone = leave_run(MPI.COMM_SELF, tmp_path / f"alone{comm.rank}", config(2), [AFFINE])
    film, single = film_of(monkeypatch, comm, run), film_of(monkeypatch, MPI.COMM_SELF, alone)
    np.testing.assert_allclose(film.positions, single.positions, atol=1e-12)
    order, other = (np.lexsort(f.points.mean(axis=1).round(9).T) for f in (film, single))
    np.testing.assert_allclose(film.density[:, order].mean(axis=2), single.density[:, other].mean(axis=2), atol=1e-6)


def test_an_animation_is_written(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", config(2), [AFFINE])
    path = run_animate(run, comm, frames=3, particles=8, fps=5)
    comm.barrier()
    assert path == run / "figures" / "animation.gif"
    with Image.open(path) as image:
        assert image.n_frames == 3


def test_a_line_has_fewer_particles(comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = config(domain={"box": {"lower": [-1.0], "upper": [1.0], "cells": [16]}})
    table["density"]["initial"] = [{"kind": "gaussian", "mean": [0.0], "std": 0.2}]
    table["objective"] = {"terminal": {"kind": "quadratic", "target": [0.0]}}
    run = leave_run(comm, tmp_path / "run", table, [[0.5, 0.1]])
    assert film_of(monkeypatch, comm, run).positions.shape == (5, 60, 1)
    assert film_of(monkeypatch, comm, run, particles=0).positions.shape == (5, 0, 1)


def test_a_readout_and_labels_with_flows_of_their_own(
    comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = {"kind": "cross_entropy", "weights": [[1.0, 2.0], [0.5, -1.0]], "bias": [0.1, 0.0], "trainable": True}
    field = {"features": "translation", "label_dependent": True}
    table = config(2, field=field, objective={"terminal": terminal})
    table["objective"]["terminal"] = terminal
    run = leave_run(comm, tmp_path / "run", table, [[0.2, 0.0, 0.0, -0.2]], np.arange(6.0))
    film = film_of(monkeypatch, comm, run, particles=20)
    shift = np.array([[0.2, 0.0], [0.0, -0.2]])[film.labels] * T
    np.testing.assert_allclose(film.positions[-1] - film.positions[0], shift, atol=1e-12)


def test_an_ideal_run(comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = [{"kind": "gaussian", "mean": [0.3], "std": 0.2}]
    table = {
        "domain": {"box": {"lower": [-1.5], "upper": [1.5], "cells": [32]}},
        "density": {"initial": [{"kind": "gaussian", "mean": [-0.3], "std": 0.2}]},
        "field": {"kind": "mlp", "hidden": [4], "layers": 4},
        "objective": {"kinetic": 1.0, "terminal": {"kind": "fixed", "target": target}},
        "ideal": {"gap_tolerance": 0.01, "residual_tolerance": 0.01},
        "output": {"directory": str(tmp_path / "run"), "densities": 0},
    }
    run_ideal(parse_config(table), comm)
    film = film_of(monkeypatch, comm, tmp_path / "run", particles=16)
    np.testing.assert_allclose(film.positions[-1].mean() - film.positions[0].mean(), 0.6, atol=0.03)
    assert np.allclose(mass(film), 1.0, atol=1e-5)


def test_particles_alone_where_the_density_cannot_be_solved_for(
    comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = leave_run(comm, tmp_path / "run", config(solver={"max_steps_per_layer": 1}), [AFFINE])
    film = film_of(monkeypatch, comm, run, particles=10)
    assert not film.density.any()
    assert film.density.shape == (5, 128, 3, 1)
    np.testing.assert_allclose(film.positions[-1], exact(film.positions[0]), atol=1e-6)
    with pytest.raises(RejectedEvaluation, match="max_steps_per_layer"):
        run_animate(run, comm, particles=0)
    assert not (run / "figures").exists()


def test_a_field_without_a_jacobian_is_animated(
    comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if comm.rank == 0:
        (tmp_path / "bare_field_of_animate.py").write_text(
            "import numpy as np\n"
            "class Bare:\n"
            "    def n_params(self, dim): return dim\n"
            "    def init(self, rng): return np.zeros(2)\n"
            "    def value(self, theta, x): return np.tile(theta, (len(x), 1))\n"
            "    def vjp(self, theta, x, w): return w.sum(axis=0)\n"
            "field = Bare()\n"
        )
    comm.barrier()
    table = config(field={"kind": "python", "object": "bare_field_of_animate:field"})
    del table["field"]["features"]
    run = leave_run(comm, tmp_path / "run", table, [B])
    film = film_of(monkeypatch, comm, run, particles=5)
    np.testing.assert_allclose(film.positions[-1] - film.positions[0], np.tile(B * T, (5, 1)), atol=1e-12)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"frames": 1}, r"--frames: .*from 2 to 600"),
        ({"particles": -1}, r"--particles: .*from 0"),
        ({"particles": 1}, r"--particles: every one of the 2 labels"),
        ({"fps": 100.0}, r"--fps: .*to 50"),
        ({"fps": float("nan")}, r"--fps: .*to 50"),
    ],
)
def test_numbers_that_make_no_film(comm: MPI.Comm, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    run = leave_run(comm, tmp_path / "run", config(2), [AFFINE])
    with pytest.raises(InputError, match=said):
        run_animate(run, comm, **options)


def test_a_folder_that_does_not_fit(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", config(), [AFFINE[:5]])
    with pytest.raises(InputError, match="does not fit"):
        run_animate(run, comm)
