"""`eulerian compare`: both methods find the same numbers, on any number of ranks, and what they cannot is refused."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import LABELLINGS, NO_DENSITY_COSTS, problem_config

from eulerian.analysis import wasserstein
from eulerian.app import tasks
from eulerian.app.build.network import build
from eulerian.app.config import Config, parse_config
from eulerian.app.runs.comparison import comparison_table
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.study_table import read_study
from eulerian.app.tasks.study import StudyPlan, refined, run_study
from eulerian.base.errors import InputError, RejectedEvaluation

pytestmark = pytest.mark.two_ranks

CELLS = {1: 60, 2: 12, 3: 6}
KL = {
    "kind": "kl",
    "target": [{"kind": "gaussian", "mean": [0.2, 0.1], "std": 0.3, "label": y, "weight": 1.0 + y} for y in range(2)],
}
TRAINED = {"kind": "cross_entropy", "trainable": True}


def tables(dim: int = 1, labelling: str = LABELLINGS[0], degree: int = 1, **objective: Any) -> dict[str, Any]:
    """A flow that stays away from the walls, with costs that both methods have, and few particles."""
    config = problem_config(
        dim,
        degree,
        labelling,
        CELLS[dim],
        objective={**NO_DENSITY_COSTS, "potential": "x**2", **objective},
        field={"horizon": 0.3, "output_scale": 0.6 if dim < 3 else 0.4},
        particles={"count": 2000, "sampling": "sobol", "replicates": 4},
        output={"densities": 0},
    )
    for term in config["density"]["initial"]:
        term["std"] = 0.17
    return config


def compared(config: dict[str, Any], path: Path, comm: MPI.Comm, **options: Any) -> dict[str, Any]:
    return tasks.run_compare(parse_config(config, path, output=path / "run"), comm, **options)


CASES = {
    "1-D": tables(1, degree=2),
    "2-D, labels": tables(2, LABELLINGS[1]),
    "2-D, a field per label": tables(2, LABELLINGS[2]),
    "2-D, readout": tables(2, LABELLINGS[1], terminal=TRAINED),
    "2-D, kl": tables(2, LABELLINGS[1], terminal=KL),
    "3-D": tables(3),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small transport plans."""
    monkeypatch.setattr(wasserstein, "PLAN_POINTS", 300)


@pytest.mark.parametrize("case", CASES)
def test_both_methods_agree(comm: MPI.Comm, tmp_path: Path, case: str) -> None:
    document = compared(CASES[case], tmp_path, comm)
    found, mesh = document["compare"], document["objective"]
    assert document["status"] == "done", document["reason"]
    assert found["particles"] == 2000
    coarse = 3.0 if case == "3-D" else 1.0
    for name, value in found["parts"].items():
        assert value == pytest.approx(mesh[name], rel=0.04 * coarse, abs=1e-12), name
    assert found["objective"] == found["parts"]["total"] == pytest.approx(sum(found["parts"].values()) / 2.0)
    assert found["gradient_cosine"] > 1.0 - 2e-3 * coarse
    assert 1e-7 < found["gradient_relative_error"] < 0.08 * coarse
    unknowns = document["mesh"]["dofs"] * len(document["mass"]["final"])
    assert found["gradient_reference"] == ("mesh" if unknowns >= 2000 else "particles")
    assert 0.0 < found["gradient_sampling_error"] < 0.05
    assert 0.0 < found["interval"]["total"] < 0.1 * found["objective"]
    assert found["interval"]["parameters"] == 0.0
    assert found["l1_density"] < 0.1 * coarse
    assert found["l1_density"] == pytest.approx(sum(found["l1_density_by_label"]))
    assert found["l1_density"] < found["l1_kernel_estimate"] < 0.5 or case == "3-D"
    assert np.array(found["moments"]["mean"]) == pytest.approx(np.array(document["moments"]["mean"]), abs=0.02)
    assert np.array(found["moments"]["covariance"]) == pytest.approx(
        np.array(document["moments"]["covariance"]), abs=0.01 * coarse
    )
    assert found["outside"] <= (1e-3 if case == "3-D" else 0.0)  # cells are large there, and so are tails
    for clock in ("seconds", "cpu_seconds"):
        for method in ("mesh", "particles"):
            assert 0.0 < found[clock][method]["value"] < found[clock][method]["value_and_gradient"]
    if wasserstein.available():
        assert found["wasserstein2"] < 1.5 * found["wasserstein2_floor"]
        assert found["sliced_wasserstein2"] < found["wasserstein2"] * 1.001
        assert found["wasserstein_note"] is None
    assert "NaN" not in (tmp_path / "run" / "result.json").read_text()
    assert "Gradients: the two differ by" in comparison_table(document)


@pytest.mark.figures
@pytest.mark.parametrize(("case", "more"), [("1-D", {"compare.png"}), ("3-D", set())])
def test_figures(comm: MPI.Comm, tmp_path: Path, case: str, more: set[str]) -> None:
    compared(CASES[case], tmp_path, comm)
    comm.barrier()
    figures = {path.name for path in (tmp_path / "run" / "figures").glob("*.png")}
    assert {"compare.png", "parts.png"} & figures == {"parts.png", *more}


NUMBERS = ("gradient_cosine", "gradient_relative_error", "gradient_sampling_error", "l1_density", "l1_kernel_estimate")


@pytest.mark.parametrize("case", ["1-D", "2-D, a field per label"])
def test_the_numbers_do_not_depend_on_the_ranks(comm: MPI.Comm, tmp_path: Path, case: str) -> None:
    """This rank alone against all of them; on one rank, what comes out twice."""
    alone = tmp_path / f"alone{comm.rank}"
    one = compared(CASES[case], alone, MPI.COMM_SELF)["compare"]
    all_ = compared(CASES[case], tmp_path, comm)["compare"]
    assert comm.allgather(all_) == [all_] * comm.size
    for name in (*NUMBERS, "objective"):
        assert all_[name] == pytest.approx(one[name], rel=1e-7), name
    assert all_["interval"] == pytest.approx(one["interval"], rel=1e-7)
    if wasserstein.available():
        for name in ("wasserstein2", "sliced_wasserstein2", "wasserstein2_floor"):  # draws are sensitive to rounding
            assert all_[name] == pytest.approx(one[name], rel=1e-5), name


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("objective", "congestion", 0.1),
        ("objective", "entropy", 0.1),
        ("objective", "terminal", {"kind": "l2", "target": [{"kind": "gaussian", "mean": [0.0], "std": 0.3}]}),
        ("field", "kind", "free"),
    ],
)
def test_what_particles_cannot_is_refused_at_once(
    comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, key: str, value: Any
) -> None:
    config = tables(1)
    config[table] = {**config[table], key: value}
    if value == "free":
        config["field"] = {"kind": "free", "layers": 3}
    monkeypatch.setattr(
        "eulerian.app.tasks.compare.build_on_adapted_mesh", lambda *_: pytest.fail("something was built")
    )
    with pytest.raises(InputError, match=key):
        compared(config, tmp_path, comm)
    assert not (tmp_path / "run").exists()


def test_a_flow_that_cannot_be_evaluated(comm: MPI.Comm, tmp_path: Path) -> None:
    config = tables(1)
    config["solver"] = {"max_steps_per_layer": 1}
    with pytest.raises(RejectedEvaluation, match="on the mesh"):
        compared(config, tmp_path, comm)
    comm.barrier()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"


def test_without_pot_distances_are_unknown(comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wasserstein, "available", lambda: False)
    document = compared(tables(1), tmp_path, comm)
    found = document["compare"]
    assert document["status"] == "done"
    assert found["wasserstein2"] is found["sliced_wasserstein2"] is found["wasserstein2_floor_by_label"] is None
    assert "eulerian[compare]" in found["wasserstein_note"]
    assert "eulerian[compare]" in comparison_table(document)


def test_particles_that_leave_are_told(comm: MPI.Comm, tmp_path: Path) -> None:
    config = tables(1)
    config["field"] = {"kind": "linear", "features": "translation", "theta": [[2.5]], "layers": 2, "horizon": 0.4}
    document = compared(config, tmp_path, comm)
    assert document["compare"]["outside"] > 0.05
    assert "outside the domain" in comparison_table(document)


# -- the study -------------------------------------------------------------------------------------------------------

PLAN = StudyPlan(degrees=(1, 2), halvings=(-2, -1, 0, 1), counts=(64, 256, 1024), replicates=6, reference_count=8192)


@pytest.fixture(scope="module")
def studied(comm: MPI.Comm, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A study on the line, made once."""
    path = Path(comm.bcast(str(tmp_path_factory.mktemp("study")) if comm.rank == 0 else None, 0))
    return path, compared(tables(1, jacobian=0.0), path, comm, study=PLAN)


def test_methods_converge_at_their_rates(studied: tuple[Path, dict[str, Any]]) -> None:
    _, document = studied
    rates = document["study"]["rates"]
    assert rates["mesh, degree 1"]["gradient_error"] > 1.4  # 1.8 and rising on finer meshes
    assert rates["mesh, degree 1"]["density_error"] == pytest.approx(2.0, abs=0.4)
    assert rates["mesh, degree 2"]["density_error"] == pytest.approx(3.0, abs=0.6)
    errors = {degree: [] for degree in (1, 2)}
    for rung in document["study"]["rungs"][:7]:
        errors[rung["degree"]].append(rung["gradient_error"])
    assert max(fine / coarse for coarse, fine in zip(errors[1], errors[2], strict=False)) < 0.03
    assert rates["random particles"]["gradient_error"] == pytest.approx(0.5, abs=0.2)
    assert rates["random particles"]["objective_error"] == pytest.approx(0.5, abs=0.3)
    assert rates["sobol particles"]["gradient_error"] > 0.8
    assert 0.2 < rates["random particles"]["density_error"] < 0.6
    assert {name: rate["power_of"] for name, rate in rates.items()} == {
        "mesh, degree 1": "h",
        "mesh, degree 2": "h",
        "random particles": "1/N",
        "sobol particles": "1/N",
    }


def test_the_finest_of_both_methods_agree(studied: tuple[Path, dict[str, Any]]) -> None:
    _, document = studied
    study = document["study"]
    assert study["reference_gradient_error"] < 1e-4
    assert study["disagreement"] < min(1e-3, 20.0 * study["expected_disagreement"])


@pytest.mark.figures
def test_a_study_is_kept(studied: tuple[Path, dict[str, Any]]) -> None:
    path, document = studied
    rows = read_study(path / "run" / "study.csv")
    rungs = document["study"]["rungs"]
    assert [row["ladder"] for row in rows] == [rung["ladder"] for rung in rungs]
    assert len(rows) == 8 + 6
    for row, rung in zip(rows, rungs, strict=True):
        for name in ("objective", "objective_error", "gradient_error", "density_error", "cpu_gradient", "h"):
            expected = np.nan if rung[name] is None else rung[name]
            assert row[name] == pytest.approx(expected, nan_ok=True)
    with (path / "run" / "study.csv").open() as file:
        assert next(csv.reader(file))[:2] == ["ladder", "degree"]
    assert (path / "run" / "figures" / "study.png").is_file()
    # The run's own last evaluation is on the configuration's mesh.
    assert document["mesh"]["cells"] == 60
    assert document["moments"]["mean"] is not None


def test_meshes_of_a_study() -> None:
    def levels(domain: dict[str, Any], dim: int, halvings: Sequence[int] | None = None) -> list[int]:
        config = parse_config({**tables(1), "domain": domain}, ".") if dim == 1 else parse_config(tables(dim), ".")
        return StudyPlan((1,), None if halvings is None else tuple(halvings)).levels(config, dim)

    line = {"lower": [-1.0], "upper": [1.0]}
    assert levels({"box": {**line, "cells": [48]}}, 1) == [-2, -1, 0, 1]
    assert levels({"box": {**line, "cells": [6]}}, 1) == [-1, 0, 1]
    assert levels({"box": {**line, "cells": [7]}}, 1) == [0, 1]
    assert levels({"box": {**line, "cells": [7]}, "refine": 2}, 1) == [-2, -1, 0, 1]
    assert levels({"box": {**line, "cells": [48]}}, 1, [3, 0]) == [0, 3]
    assert levels({}, 3) == [-1, 0]


def test_a_mesh_is_made_finer_and_coarser(comm: MPI.Comm) -> None:
    def cells(config: Config) -> int:
        return build(config, comm).density_space.mesh.topology.index_map(1).size_global

    config = parse_config(tables(1), ".")
    assert cells(refined(config, -2, 1)) == 15
    assert cells(refined(config, 1, 2)) == 120
    again = parse_config(tables(1), ".", ["domain.refine=1"])
    assert cells(refined(again, -1, 1)) == 60
    assert cells(refined(again, -2, 1)) == 30


def test_a_mesh_that_cannot_be_halved(comm: MPI.Comm) -> None:
    config = parse_config(tables(1), ".")
    problem = build(config, comm)
    with pytest.raises(InputError, match="two meshes"):
        run_study(config, problem, problem.initial_theta, StudyPlan((1,), (0,)), Progress())
