"""Paths through convex flows: they follow the mass, keep inside, and do not depend on the ranks."""

from mpi4py import MPI

import numpy as np
import pytest
from paths import ROOT
from problems import warped_mesh

from eulerian.app.build.network import build_ideal
from eulerian.app.config import parse_config
from eulerian.bounds.hopf_lax import hopf_lax
from eulerian.bounds.paths import flow_paths, starting_points, straight_paths
from eulerian.ideal.dynamic_ot import ConvexSolution, solve_convex
from eulerian.ideal.functionals import LinearFunctional
from eulerian.ideal.problem import IdealProblem, PathBundle
from eulerian.mesh.cell_walk import CellWalk

TRIANGLES = (np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.array([[0, 1, 2], [3, 2, 1]]))


def l_shape(n: int) -> tuple[np.ndarray, np.ndarray]:
    """[0, 2]² without the square x > 1, y < 1, in squares of side 1/n cut in two."""
    number = {(i, j): i * (2 * n + 1) + j for i in range(2 * n + 1) for j in range(2 * n + 1)}
    x = np.array(list(number), dtype=float) / n
    squares = [(i, j) for i in range(2 * n) for j in range(2 * n) if i < n or j >= n]
    cells = [[number[i, j], number[i + 1, j], number[i + 1, j + 1]] for i, j in squares]
    cells += [[number[i, j], number[i, j + 1], number[i + 1, j + 1]] for i, j in squares]
    return x, np.array(cells)


# -- CellWalk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_points_are_found(dim: int) -> None:
    mesh = warped_mesh(MPI.COMM_SELF, dim, {1: 30, 2: 12, 3: 6}[dim])
    x, cells = mesh.geometry.x[:, :dim], mesh.geometry.dofmaps[0]
    walk = CellWalk(x, cells)
    points = np.random.default_rng(0).uniform(-0.9, 0.9, (200, dim))
    for found, at, weights in (walk.enter(points), walk.move(points, np.zeros(200, dtype=np.int64))):
        assert found == pytest.approx(points, abs=1e-12)
        assert np.all(weights >= 0.0)
        assert np.einsum("mi,mid->md", weights, x[cells[at]]) == pytest.approx(points, abs=1e-12)


def test_points_slide_along_walls() -> None:
    walk = CellWalk(*TRIANGLES)
    start = np.zeros(3, dtype=np.int64)
    found, cells, _ = walk.move(np.array([[0.3, -0.2], [1.4, 0.6], [1.5, 1.5]]), start)
    assert found == pytest.approx(np.array([[0.3, 0.0], [1.0, 0.6], [1.0, 1.0]]), abs=1e-12)
    assert cells.tolist() == [0, 1, 1]


def test_no_walk_passes_a_wall_but_corners_are_turned() -> None:
    """From below the corner (1, 1) of the L, far to the right behind the wall x = 1, and then up and right."""
    walk = CellWalk(*l_shape(6))
    here, cells, _ = walk.enter(np.array([[0.9, 0.5]]))
    blocked, at, _ = walk.move(here + np.array([[0.9, 0.0]]), cells)
    assert blocked == pytest.approx(np.array([[1.0, 0.5]]), abs=1e-12)
    for _ in range(60):
        blocked, at, _ = walk.move(blocked + np.array([[0.02, 0.03]]), at)
    assert blocked[0] == pytest.approx([1.0 + 0.02 * 44, 2.0], abs=0.04)


def test_points_outside_come_in() -> None:
    walk = CellWalk(*l_shape(6))
    found, _, _ = walk.enter(np.array([[1.3, 0.9], [-1.0, 0.52]]))
    assert found == pytest.approx(np.array([[1.3, 1.0], [0.0, 0.52]]), abs=1e-12)


# -- paths -----------------------------------------------------------------------------------------------------------


def problem(comm: MPI.Comm, dim: int, n_labels: int = 1) -> IdealProblem:
    """Gaussians that a quadratic loss calls to one side."""
    cells = {1: 60, 2: 16, 3: 8}[dim]
    initial = [
        {"kind": "gaussian", "mean": [-0.3, 0.2, 0.1][:dim], "std": 0.22, "label": y, "weight": 1.0 + y}
        for y in range(n_labels)
    ]
    targets = [[0.6 - 1.3 * y, *[-0.1, 0.0][: dim - 1]] for y in range(n_labels)]
    config = {
        "domain": {"box": {"lower": [-1.0] * dim, "upper": [1.0] * dim, "cells": [cells] * dim}},
        "density": {"initial": initial},
        "field": {"kind": "free", "layers": 8, "horizon": 0.5},
        "objective": {"kinetic": 0.5, "terminal": {"kind": "quadratic", "targets": targets}},
    }
    return build_ideal(parse_config(config, "."), comm)


def solve(ideal: IdealProblem) -> ConvexSolution:
    return solve_convex(ideal, gap_tolerance=3e-3, residual_tolerance=3e-4, max_iterations=600)


@pytest.mark.parametrize(("dim", "n_labels", "share"), [(1, 1, 0.02), (1, 2, 0.03), (2, 2, 0.1), (3, 1, 0.3)])
def test_paths_are_those_of_hopf_lax(comm: MPI.Comm, dim: int, n_labels: int, share: float) -> None:
    """Where Hopf–Lax applies, the paths through the convex flow end where the exact ones do, up to the mesh."""
    ideal = problem(comm, dim, n_labels)
    assert isinstance(ideal.functional, LinearFunctional)
    flow = solve(ideal).flow
    exact = hopf_lax(ideal)
    found, straight = flow_paths(flow, 30, 5), straight_paths(exact, flow, 30, 5)
    assert found.times == pytest.approx([0.0, 0.125, 0.25, 0.375, 0.5])
    assert found.paths.shape == straight.paths.shape == (30, 5, dim)
    assert found.paths[:, 0] == pytest.approx(straight.paths[:, 0], abs=1e-12)
    assert np.array_equal(found.labels, straight.labels)
    assert np.bincount(found.labels).tolist() == ([30] if n_labels == 1 else [10, 20])
    size = np.sqrt(np.mean((straight.paths[:, -1] - straight.paths[:, 0]) ** 2))
    apart = np.sqrt(np.mean((found.paths - straight.paths) ** 2, axis=(0, 2)))
    assert np.all(apart / size < share)


def test_the_paths_do_not_depend_on_the_ranks(comm: MPI.Comm) -> None:
    everywhere = flow_paths(solve(problem(comm, 2)).flow, 20, 5)
    alone = flow_paths(solve(problem(MPI.COMM_SELF, 2)).flow, 20, 5)
    assert everywhere.paths == pytest.approx(alone.paths, abs=1e-3)
    assert everywhere.paths[:, 0] == pytest.approx(alone.paths[:, 0], abs=1e-12)
    for other in comm.allgather(everywhere):
        assert all(np.array_equal(one, two) for one, two in zip(everywhere, PathBundle(*other), strict=True))


@pytest.mark.parametrize("dim", [1, 2])
def test_starting_points_share_out_the_mass(comm: MPI.Comm, dim: int) -> None:
    """Their moments are those of ρ_0, but for the spread inside the parts."""
    ideal = problem(comm, dim)
    flow = solve_convex(ideal, max_iterations=10).flow
    x, labels = starting_points(flow, 64)
    assert labels.tolist() == [0] * 64
    assert x.mean(axis=0) == pytest.approx([-0.3, 0.2][:dim], abs=1e-3)
    assert np.all(np.abs(x.std(axis=0) / 0.22 - 1.0) < {1: 0.02, 2: 0.12}[dim])
    alone = starting_points(solve_convex(problem(MPI.COMM_SELF, dim), max_iterations=10).flow, 64)[0]
    assert x == pytest.approx(alone, abs=1e-12)


def test_a_label_of_little_mass_has_a_path(comm: MPI.Comm) -> None:
    ideal = problem(comm, 1, n_labels=2)
    flow = solve_convex(ideal, max_iterations=10).flow
    _, labels = starting_points(flow, 1)
    assert labels.tolist() == [0, 1]


def test_walls_hold(comm: MPI.Comm) -> None:
    """A linear loss behind a wall: points reach it, slide to the corner and turn it; none leaves the domain."""
    config = {
        "domain": {"file": "meshes/l_shape.msh"},
        "density": {"initial": [{"kind": "gaussian", "mean": [-0.5, -0.5], "std": 0.12}]},
        "field": {"kind": "free", "layers": 12},
        "objective": {"kinetic": 1.0, "terminal": {"kind": "quadratic", "target": [0.6, 0.3], "weight": 2.0}},
    }
    ideal = build_ideal(parse_config(config, ROOT), comm)
    bundle = flow_paths(solve_convex(ideal, gap_tolerance=2e-2, residual_tolerance=5e-4).flow, 24)
    x, y = np.moveaxis(bundle.paths, 2, 0)
    assert np.all(np.maximum(np.abs(x), np.abs(y)) <= 1.0 + 1e-12)
    assert np.all((x <= 1e-12) | (y >= -1e-12))
    assert np.mean(x[:, -1] > 0.05) > 0.7
