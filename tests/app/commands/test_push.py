"""New points through the flow of a run: where they end, their density and class, and what is refused."""

import json
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from paths import MESHES
from run_folders import leave_run, numbers, read_csv, write_csv
from scipy.linalg import expm

from eulerian.app.build.network import build
from eulerian.app.config import parse_config, read_config
from eulerian.app.runs.files import plain
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.result import classification
from eulerian.app.tasks import run_ideal, run_push
from eulerian.base.errors import InputError
from eulerian.density.gathered import GatheredDensity

pytestmark = pytest.mark.two_ranks

A = np.array([[0.3, -0.8], [0.5, -0.1]])
B = np.array([0.1, -0.2])
T = 0.5
AFFINE = np.concatenate([A.ravel(), B])
SOFTMAX = {"kind": "cross_entropy", "weights": [[1.0, 2.0], [0.5, -1.0], [0.0, 0.3]], "bias": [0.1, 0.0, -0.2]}


def config(labels: int = 1, **tables: Any) -> dict[str, Any]:
    """Gaussians in a square and an affine field."""
    means = [[0.2, 0.1], [-0.3, 0.2], [0.0, -0.3]]
    table: dict[str, Any] = {
        "domain": {"box": {"lower": [-1.0, -1.0], "upper": [1.0, 1.0], "cells": [8, 8]}},
        "density": {
            "degree": 1,
            "initial": [
                {"kind": "gaussian", "mean": means[y], "std": 0.25, "label": y, "weight": 1.0 + y}
                for y in range(labels)
            ],
        },
        "field": {"kind": "linear", "features": "affine", "layers": 2, "horizon": T},
        "objective": {"terminal": {"kind": "quadratic", "target": [0.0, 0.0]}},
    }
    for name, values in tables.items():
        table[name] = {**table[name], **values} if isinstance(table.get(name), dict) else values
    return table


def exact(x: Any) -> Any:
    """Where the affine flow carries points."""
    big = np.zeros((3, 3))
    big[:2, :2], big[:2, 2] = A, B
    return (np.column_stack([x, np.ones(len(x))]) @ expm(T * big).T)[:, :2]


def random_points(n: int = 40, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(-0.8, 0.8, (n, 2))


def start_density(comm: MPI.Comm, folder: Path) -> GatheredDensity:
    problem = build(read_config(folder / "config.resolved.toml"), comm)
    return GatheredDensity.gather(problem.density_space, problem.initial_density).non_negative()


def test_points_and_log_densities_are_exact_for_an_affine_flow(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", config(), [AFFINE])
    x = random_points()
    x[3] = [4.0, 0.0]  # there is no density
    document = run_push(run, write_csv(comm, tmp_path / "new.csv", ["x", "y"], x), comm)
    table = read_csv(comm, run / "pushed_new.csv")
    assert list(table) == ["x", "y", "outside", "log_density"]
    end = np.stack([numbers(table["x"]), numbers(table["y"])], axis=1)
    np.testing.assert_allclose(end, exact(x), atol=1e-6)
    with np.errstate(divide="ignore"):
        expected = np.log(start_density(comm, run).values(x)[:, 0]) - T * np.trace(A)
    np.testing.assert_allclose(numbers(table["log_density"]), expected, rtol=1e-9)
    assert table["log_density"][3] == "-inf"
    assert table["outside"] == ["true" if i == 3 else "false" for i in range(40)]
    left = int(np.sum(np.delete(np.abs(end).max(axis=1) > 1.0, 3)))
    assert left >= 1
    positive = np.isfinite(expected)
    counts = [document[key] for key in ("points", "start_outside", "end_outside", "without_density")]
    assert counts == [40, 1, left, np.sum(~positive) - 1]
    assert document["mean_log_density"] == pytest.approx(expected[positive].mean(), rel=1e-9)
    assert json.loads((run / "pushed_new.json").read_text()) == document


def test_time_integration_is_that_of_the_configuration_or_of_the_option(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", config(particles={"steps_per_layer": 1}), [AFFINE])
    file = write_csv(comm, tmp_path / "new.csv", ["x", "y"], random_points())
    errors = []
    for overrides in ((), ('particles.method="dopri5"', "particles.tolerance=1e-12")):
        run_push(run, file, comm, overwrite=True, overrides=overrides)
        table = read_csv(comm, run / "pushed_new.csv")
        end = np.stack([numbers(table["x"]), numbers(table["y"])], axis=1)
        errors.append(np.abs(end - exact(random_points())).max())
    assert errors[0] > 1e-7
    assert errors[1] < 1e-10


def test_a_row_for_each_point_on_any_number_of_ranks(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", config(), [AFFINE])
    for n in (1, 2, 5):  # fewer points than ranks, too
        file = write_csv(comm, tmp_path / "few.csv", ["x", "y"], random_points(n))
        run_push(run, file, comm, overwrite=True)
        assert len(read_csv(comm, run / "pushed_few.csv")["x"]) == n


# -- classes ---------------------------------------------------------------------------------------------------------


def test_probabilities_are_the_softmax_of_the_readout(comm: MPI.Comm, tmp_path: Path) -> None:
    table = config(3, objective={"terminal": SOFTMAX | {"trainable": True}})
    readout = np.random.default_rng(1).standard_normal(9)
    run = leave_run(comm, tmp_path / "run", table, [AFFINE], readout)
    x, labels = random_points(), np.arange(40) % 3
    file = write_csv(comm, tmp_path / "new.csv", ["x", "y", "label"], np.column_stack([x, labels]))
    document = run_push(run, file, comm)
    found = read_csv(comm, run / "pushed_new.csv")
    assert list(found) == ["x", "y", "label", "outside", "log_density", "p_0", "p_1", "p_2", "predicted"]
    logits = exact(x) @ readout[:6].reshape(3, 2).T + readout[6:]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack([numbers(found[f"p_{y}"]) for y in range(3)], axis=1), expected, atol=1e-5)
    predicted = logits.argmax(axis=1)
    assert found["predicted"] == [str(label) for label in predicted]
    assert found["label"] == [str(label) for label in labels]
    points = document["accuracy"]["points"]
    assert points["accuracy"] == pytest.approx(np.mean(predicted == labels))
    assert points["correct"] == pytest.approx([np.mean(predicted[labels == y] == y) for y in range(3)])
    densities = document["accuracy"]["densities"]
    assert 0 < densities["accuracy"] < 1
    np.testing.assert_allclose(np.sum(densities["confusion"], axis=1), [14 / 40, 13 / 40, 13 / 40], rtol=1e-9)


def test_logistic_probabilities_are_sigmoids(comm: MPI.Comm, tmp_path: Path) -> None:
    terminal = {"kind": "logistic", "direction": [2.0, -1.0], "offset": 0.3}
    run = leave_run(comm, tmp_path / "run", config(2, objective={"terminal": terminal}), [AFFINE])
    x = random_points()
    run_push(run, write_csv(comm, tmp_path / "new.csv", ["x", "y"], x), comm)
    found = read_csv(comm, run / "pushed_new.csv")
    expected = 1 / (1 + np.exp(-(exact(x) @ [2.0, -1.0] + 0.3)))
    np.testing.assert_allclose(numbers(found["p_1"]), expected, atol=1e-6)
    np.testing.assert_allclose(numbers(found["p_0"]), 1 - expected, atol=1e-6)


def test_other_losses_give_the_posterior(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", config(2), [AFFINE])
    x = random_points()
    x[0] = [5.0, 5.0]
    labels = np.arange(40) % 2
    file = write_csv(comm, tmp_path / "new.csv", ["x", "y", "label"], np.column_stack([x, labels]))
    document = run_push(run, file, comm)
    found = read_csv(comm, run / "pushed_new.csv")
    assert (found["p_0"][0], found["predicted"][0], found["log_density"][0]) == ("", "", "-inf")
    rho = start_density(comm, run).values(x)[1:]
    np.testing.assert_allclose(numbers(found["p_1"][1:]), rho[:, 1] / rho.sum(axis=1), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(numbers(found["log_density"][1:]), np.log(rho.sum(axis=1)) - T * np.trace(A), rtol=1e-8)
    right = np.mean(rho.argmax(axis=1) == labels[1:])  # what starts outside is left out
    assert document["accuracy"]["points"]["accuracy"] == pytest.approx(right)
    assert "correct" in document["accuracy"]["densities"]


def samples_config(file: str, **term: Any) -> dict[str, Any]:
    initial = [{"kind": "samples", "file": file, "columns": ["a", "b"], "label_column": "kind", **term}]
    return config(density={"initial": initial}, objective={"terminal": {**SOFTMAX, "bias": None} | {"bias": [0, 0, 0]}})


def clusters(n: int, seed: int) -> list[list[Any]]:
    rng = np.random.default_rng(seed)
    names = ["red", "blue", "green"]
    means = np.array([[0.4, 0.3], [-0.4, 0.2], [0.0, -0.4]])
    return [[*(means[i % 3] + 0.1 * rng.standard_normal(2)).round(6), names[i % 3]] for i in range(n)]


def test_the_training_samples_are_classified_as_the_run_says(comm: MPI.Comm, tmp_path: Path) -> None:
    file = write_csv(comm, tmp_path / "train.csv", ["kind", "a", "b"], [[k, a, b] for a, b, k in clusters(30, 0)])
    run = leave_run(comm, tmp_path / "run", samples_config("train.csv", bandwidth=0.15), [AFFINE])
    document = run_push(run, file, comm, output=tmp_path / "moved.csv")
    problem = build(read_config(run / "config.resolved.toml"), comm)
    theta = np.tile(AFFINE, (2, 1))
    problem.value(theta)
    expected = plain(classification(problem, theta))["classification"]["final"]
    found = document["accuracy"]["densities"]
    assert found["accuracy"] == pytest.approx(expected["accuracy"], rel=1e-10)
    assert found["correct"] == pytest.approx(expected["correct"], rel=1e-10)
    table = read_csv(comm, tmp_path / "moved.csv")
    assert list(table) == ["a", "b", "kind", "outside", "log_density", "p_blue", "p_green", "p_red", "predicted"]
    assert set(table["predicted"]) <= {"red", "blue", "green"}


def test_classes_keep_their_names_where_some_are_missing(comm: MPI.Comm, tmp_path: Path) -> None:
    write_csv(comm, tmp_path / "train.csv", ["a", "b", "kind"], clusters(30, 0))
    run = leave_run(comm, tmp_path / "run", samples_config("train.csv"), [AFFINE])
    red = [row for row in clusters(30, 1) if row[2] == "red"]
    document = run_push(run, write_csv(comm, tmp_path / "red.csv", ["a", "b", "kind"], red), comm)
    assert document["classes"] == ["blue", "green", "red"]
    for method in ("points", "densities"):
        assert document["accuracy"][method]["correct"][:2] == [None, None]
        assert document["accuracy"][method]["correct"][2] == document["accuracy"][method]["accuracy"]
    alone = run_push(run, write_csv(comm, tmp_path / "one.csv", ["a", "b", "kind"], red[:1]), comm)
    assert alone["accuracy"]["densities"]["accuracy"] is None  # Scott's rule needs more than one point
    assert "Scott" in alone["accuracy"]["densities"]["reason"]
    plain_points = write_csv(comm, tmp_path / "bare.csv", ["b", "a"], [row[:2] for row in red])
    assert "accuracy" not in run_push(run, plain_points, comm)


def test_points_that_start_outside_are_left_out(
    comm: MPI.Comm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Far away or in a hole: they are counted, marked and enter nothing; what ends outside is another count."""
    table = config(2)
    table["domain"] = {"file": str(MESHES / "square_with_hole.msh")}
    table["density"]["initial"] = [
        {"kind": "gaussian", "mean": [1.4 * side, 1.4], "std": 0.1, "label": y} for y, side in enumerate((1, -1))
    ]
    run = leave_run(comm, tmp_path / "run", table, [[0.0, 0.0, 0.0, 0.0, 0.5, 0.0]])  # to the right, by 0.25
    rows = [[1.4, 1.4, 0], [1.8, 1.5, 0], [-1.4, 1.4, 1], [0.0, 0.0, 1], [0.05, 0.0, 1], [30.0, 0.0, 0]]
    file = write_csv(comm, tmp_path / "new.csv", ["x", "y", "label"], rows)
    document = run_push(run, file, comm, progress=Progress.of(comm))
    said = capsys.readouterr().out
    counts = [document[key] for key in ("points", "start_outside", "end_outside", "without_density")]
    assert counts == [6, 3, 1, 0]
    table = read_csv(comm, run / "pushed_new.csv")
    assert table["outside"] == ["false"] * 3 + ["true"] * 3
    assert document["mean_log_density"] == pytest.approx(np.mean(numbers(table["log_density"][:3])))
    for method in ("points", "densities"):
        assert document["accuracy"][method]["accuracy"] in (1.0, None)
    assert document["accuracy"]["points"]["correct"] == [1.0, 1.0]
    if comm.rank == 0:
        assert "3 of 6 points start outside the domain, or in a hole of it" in said
        assert "1 of those that start in the domain end outside it" in said
    far = write_csv(comm, tmp_path / "far.csv", ["x", "y", "label"], rows[3:])
    document = run_push(run, far, comm)
    assert document["mean_log_density"] is None
    assert [document["accuracy"][method]["accuracy"] for method in ("points", "densities")] == [None, None]


def test_classes_keep_their_names_as_they_are_written(comm: MPI.Comm, tmp_path: Path) -> None:
    names = {"red": "1000001", "blue": "1000002", "green": "7"}
    rows = [[a, b, names[k]] for a, b, k in clusters(30, 0)]
    write_csv(comm, tmp_path / "train.csv", ["a", "b", "kind"], rows)
    run = leave_run(comm, tmp_path / "run", samples_config("train.csv"), [AFFINE])
    again = [[a, b, "7.0" if name == "7" else name] for a, b, name in rows]
    document = run_push(run, write_csv(comm, tmp_path / "new.csv", ["a", "b", "kind"], again), comm)
    assert document["classes"] == ["7", "1000001", "1000002"]
    assert read_csv(comm, run / "pushed_new.csv")["kind"] == [row[2] for row in rows]
    codes = [[a, b, name.zfill(9)] for a, b, name in rows]
    file = write_csv(comm, tmp_path / "codes.csv", ["a", "b", "kind"], codes)
    with pytest.raises(InputError, match="a class that the run does not know; got '000000007'"):
        run_push(run, file, comm)


# -- other fields ----------------------------------------------------------------------------------------------------


def test_labels_that_have_flows_of_their_own(comm: MPI.Comm, tmp_path: Path) -> None:
    shift = np.array([[0.2, -0.1], [-0.15, 0.1]])
    field = {"features": "translation", "label_dependent": True}
    run = leave_run(comm, tmp_path / "run", config(2, field=field), [(shift / T).ravel()])
    x, labels = 0.5 * random_points(), np.arange(40) % 2
    file = write_csv(comm, tmp_path / "new.csv", ["x", "y", "label"], np.column_stack([x, labels]))
    run_push(run, file, comm)
    found = read_csv(comm, run / "pushed_new.csv")
    end = x + shift[labels]
    np.testing.assert_allclose(numbers(found["x"]), end[:, 0], atol=1e-12)
    start = start_density(comm, run)
    rho = np.stack([start.values(end - shift[y])[:, y] for y in range(2)], axis=1)
    np.testing.assert_allclose(numbers(found["log_density"]), np.log(rho.sum(axis=1)), rtol=1e-6)
    np.testing.assert_allclose(numbers(found["p_0"]), rho[:, 0] / rho.sum(axis=1), rtol=1e-6)
    bare = write_csv(comm, tmp_path / "bare.csv", ["x", "y"], x)
    with pytest.raises(InputError, match="depends on the label"):
        run_push(run, bare, comm)


@pytest.mark.parametrize("degree", [1, 2])
def test_a_free_field_between_its_nodes(comm: MPI.Comm, tmp_path: Path, degree: int) -> None:
    table = config(field={"kind": "free"}, density={"degree": degree})
    del table["field"]["features"]
    free = build(read_config(leave_run(comm, tmp_path / "run", table, [[0.0]]) / "config.resolved.toml"), comm).field
    run = leave_run(comm, tmp_path / "run", table, [(free.nodes @ A.T + B).ravel()])  # type: ignore[attr-defined]
    x = 0.5 * random_points()
    run_push(run, write_csv(comm, tmp_path / "new.csv", ["x", "y"], x), comm)
    found = read_csv(comm, run / "pushed_new.csv")
    np.testing.assert_allclose(np.stack([numbers(found[c]) for c in "xy"], axis=1), exact(x), atol=1e-6)
    expected = np.log(start_density(comm, run).values(x)[:, 0]) - T * np.trace(A)
    np.testing.assert_allclose(numbers(found["log_density"]), expected, rtol=1e-9)


def test_an_ideal_run_moves_points_too(comm: MPI.Comm, tmp_path: Path) -> None:
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
    x = np.linspace(-0.55, -0.05, 9)[:, None]
    run_push(tmp_path / "run", write_csv(comm, tmp_path / "new.csv", ["x"], x), comm)
    found = numbers(read_csv(comm, tmp_path / "run" / "pushed_new.csv")["x"])
    np.testing.assert_allclose(found, x[:, 0] + 0.6, atol=0.04)  # a translation is optimal


def test_tied_layers_and_a_network(comm: MPI.Comm, tmp_path: Path) -> None:
    table = config(field={"kind": "mlp", "hidden": [5], "tied": True, "zero_init": False})
    del table["field"]["features"]
    row = np.random.default_rng(0).standard_normal(27)
    run = leave_run(comm, tmp_path / "run", table, [row])
    document = run_push(run, write_csv(comm, tmp_path / "new.csv", ["x", "y"], random_points()), comm)
    assert np.isfinite(document["mean_log_density"])


# -- back --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [False, True])
def test_points_that_are_pushed_come_back(comm: MPI.Comm, tmp_path: Path, labelled: bool) -> None:
    """To 1e-6, also where every label has a flow of its own; with the density that they started with."""
    table = config(2, field={"label_dependent": True}) if labelled else config()
    row = np.concatenate([AFFINE[:4], 0.1 * AFFINE[:4], AFFINE[4:], B]) if labelled else AFFINE
    shape = build(parse_config(table), comm).layer_shape[1]
    run = leave_run(comm, tmp_path / "run", table, [np.resize(row, shape)])
    x, labels = 0.6 * random_points(), np.arange(40) % 2
    x[5] = [3.0, 0.0]
    names, rows = (["x", "y", "label"], np.column_stack([x, labels])) if labelled else (["x", "y"], x)
    run_push(run, write_csv(comm, tmp_path / "new.csv", names, rows), comm)
    document = run_push(run, run / "pushed_new.csv", comm, back=True)
    found = read_csv(comm, run / "pulled_pushed_new.csv")
    assert list(found) == [*names, "outside", "log_density"]
    np.testing.assert_allclose(np.stack([numbers(found[c]) for c in "xy"], axis=1), x, atol=1e-6)
    with np.errstate(divide="ignore"):
        expected = np.log(start_density(comm, run).values(x).sum(axis=1))
    np.testing.assert_allclose(numbers(found["log_density"]), expected, rtol=1e-4)
    assert found["outside"][5] == "true"
    assert document["back"]
    assert "accuracy" not in document
    assert json.loads((run / "pulled_pushed_new.json").read_text()) == document


def test_the_likelihood_is_the_same_both_ways(comm: MPI.Comm, tmp_path: Path) -> None:
    target = [{"kind": "gaussian", "mean": [0.1, 0.0], "std": 0.3}]
    run = leave_run(comm, tmp_path / "run", config(objective={"terminal": {"kind": "kl", "target": target}}), [AFFINE])
    run_push(run, write_csv(comm, tmp_path / "new.csv", ["x", "y"], random_points()), comm)
    document = run_push(run, run / "pushed_new.csv", comm, back=True, progress=Progress.of(comm))
    there, back = (read_csv(comm, run / f"{name}.csv") for name in ("pushed_new", "pulled_pushed_new"))
    np.testing.assert_allclose(numbers(back["log_likelihood"]), numbers(there["log_likelihood"]), atol=1e-6)
    assert document["mean_log_likelihood"] is not None


# -- refusals --------------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten_unless_told(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", config(), [AFFINE])
    file = write_csv(comm, tmp_path / "new.csv", ["x", "y"], random_points(3))
    run_push(run, file, comm)
    with pytest.raises(InputError, match=r"exists already.*--overwrite"):
        run_push(run, file, comm)
    run_push(run, file, comm, overwrite=True)
    with pytest.raises(InputError, match="would replace the samples"):
        run_push(run, file, comm, output=file, overwrite=True)
    with pytest.raises(InputError, match=r"end in \.csv"):
        run_push(run, file, comm, output=tmp_path / "out.json")
    with pytest.raises(InputError, match="is a folder"):
        run_push(run, file, comm, output=tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        run_push(run, file, comm, output=tmp_path / "no" / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_samples_that_cannot_be_used(comm: MPI.Comm, tmp_path: Path) -> None:
    run = leave_run(comm, tmp_path / "run", config(2), [AFFINE])
    file = write_csv(comm, tmp_path / "new.csv", ["u", "v", "label"], [[0.1, 0.2, 0], [0.3, 0.4, 7]])
    with pytest.raises(InputError, match="no such column"):
        run_push(run, file, comm)
    with pytest.raises(InputError, match="2 columns"):
        run_push(run, file, comm, columns=("u",))
    with pytest.raises(InputError, match=r"does not know; got '7'.*0, 1"):
        run_push(run, file, comm, columns=("u", "v"))
    with pytest.raises(InputError, match=r"--label-column: no such column; got 'class'"):
        run_push(run, file, comm, columns=(0, 1), label_column="class")
    with pytest.raises(InputError, match="cannot read the samples"):
        run_push(run, tmp_path / "none.csv", comm)
    assert not list(run.glob("pushed*"))


def test_runs_that_cannot_be_used(comm: MPI.Comm, tmp_path: Path) -> None:
    file = write_csv(comm, tmp_path / "new.csv", ["x", "y"], random_points(3))
    empty = tmp_path / "rank-independent"
    if comm.rank == 0:
        empty.mkdir()
    comm.barrier()
    with pytest.raises(InputError, match="no run folder"):
        run_push(empty, file, comm)
    run = leave_run(comm, tmp_path / "run", config(), [AFFINE[:5]])
    with pytest.raises(InputError, match=r"does not fit.*\(2, 6\)"):
        run_push(run, file, comm)
    leave_run(comm, run, config(), [AFFINE], readout=[1.0])
    with pytest.raises(InputError, match="readout must have 0 numbers"):
        run_push(run, file, comm)
    leave_run(comm, run, config(), [AFFINE])
    with pytest.raises(InputError, match=r"only keys of particles.*field\.horizon=2"):
        run_push(run, file, comm, overrides=("field.horizon=2",))
    if comm.rank == 0:
        (run / "theta.npz").unlink()
    comm.barrier()
    with pytest.raises(InputError, match="not complete"):
        run_push(run, file, comm)


def test_a_field_without_a_jacobian(comm: MPI.Comm, tmp_path: Path) -> None:
    if comm.rank == 0:
        (tmp_path / "bare_field_of_push.py").write_text(
            "import numpy as np\n"
            "class Bare:\n"
            "    def n_params(self, dim): return dim\n"
            "    def init(self, rng): return np.zeros(2)\n"
            "    def value(self, theta, x): return np.tile(theta, (len(x), 1))\n"
            "    def vjp(self, theta, x, w): return w.sum(axis=0)\n"
            "field = Bare()\n"
        )
    comm.barrier()
    table = config(field={"kind": "python", "object": "bare_field_of_push:field"})
    del table["field"]["features"]
    run = leave_run(comm, tmp_path / "run", table, [[0.1, 0.2]])
    with pytest.raises(InputError, match="no method jacobian"):
        run_push(run, write_csv(comm, tmp_path / "new.csv", ["x", "y"], random_points(3)), comm)
