"""θ in a file of its own, with the box that it is relative to."""

import warnings
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest

import eulerian as eu
from eulerian.fields.theta_file import read_frame, read_theta

pytestmark = pytest.mark.two_ranks

TABLES: dict[str, Any] = {
    "domain": {"box": {"lower": [2.0], "upper": [5.0], "cells": [12]}},
    "density": {"initial": [{"kind": "gaussian", "mean": [3.0], "std": 0.4}]},
    "field": {"kind": "mlp", "hidden": [4], "layers": 2, "zero_init": False, "horizon": 0.5},
    "objective": {"kinetic": 0.5, "terminal": {"kind": "quadratic", "target": [4.0]}},
}


def test_it_is_the_same_flow_in_a_configuration(comm: MPI.Comm, tmp_path: Path) -> None:
    problem = eu.build(TABLES, comm)
    theta = 1.5 * problem.initial_theta
    file = eu.save_theta(tmp_path / "mine", problem, theta)
    assert file == tmp_path / "mine.npz"
    comm.barrier()
    config = eu.parse_config(TABLES).replace({"field.theta": str(file)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = eu.build(config, comm)
    np.testing.assert_array_equal(again.initial_theta, theta)
    assert again.value(again.initial_theta) == problem.value(theta)
    # On another box the network is the same map.
    wider = eu.build(config.replace({"domain.box": {"lower": [0.0], "upper": [8.0], "cells": [8]}}), comm)
    points = np.array([[2.5], [4.5]])
    here, there = (eu.Flow(each, theta).velocity(0.1, points) for each in (problem, wider))
    np.testing.assert_allclose(there, here, rtol=1e-13)


def test_without_the_box_there_is_a_warning_that_names_the_way(comm: MPI.Comm, tmp_path: Path) -> None:
    problem = eu.build(TABLES, comm)
    if comm.rank == 0:
        np.savez(tmp_path / "theta.npz", theta=problem.initial_theta)
    comm.barrier()
    config = eu.parse_config(TABLES).replace({"field.theta": str(tmp_path / "theta.npz")})
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        eu.build(config, comm)
    said = [str(each.message) for each in found if issubclass(each.category, eu.EulerianWarning)]
    assert ["eulerian.save_theta(file, problem, theta)" in text for text in said] == [True] * (comm.rank == 0)


def test_readouts_and_fields_without_a_box(comm: MPI.Comm, tmp_path: Path) -> None:
    space = eu.DensitySpace(eu.box_mesh([0.0, 0.0], [4.0, 4.0], [4, 4], comm=comm), degree=1, labels=2)
    rho = space.project(
        [eu.LabelledShape(eu.Gaussian([1.0, 1.0], std=0.5)), eu.LabelledShape(eu.Gaussian([3.0, 3.0], std=0.5), 1)]
    )
    loss, time = eu.CrossEntropyLoss(np.eye(2), np.zeros(2), trained=True), eu.TimeGrid(1.0, 2)
    problem = eu.ControlProblem(space, eu.Linear(2, "affine"), rho, loss, eu.Costs(kinetic=0.1), time)
    file = eu.save_theta(str(tmp_path / "theta.npz"), problem, problem.initial_theta)
    comm.barrier()
    layers, readout = read_theta(file, "file")
    np.testing.assert_array_equal(np.concatenate([layers.ravel(), readout]), problem.initial_theta)
    assert read_frame(file, "file") is None
    with pytest.raises(eu.InputError, match="numbers are needed"):
        eu.save_theta(tmp_path / "theta.npz", problem, np.zeros(3))
