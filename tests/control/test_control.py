"""The reduced functional: parts, cache, rejected evaluations, θ with a readout, statistics, snapshots."""

import dataclasses
import math
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import LABELLINGS, control_problem, problem_config, theta_with_layers

from eulerian.app.build.network import build
from eulerian.app.config import parse_config
from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError, InputError, RejectedEvaluation
from eulerian.control.control import ControlProblem
from eulerian.objective.parts import part_names

TRAINED = {"kind": "cross_entropy", "trainable": True}


def small(comm: MPI.Comm, labelling: str = LABELLINGS[0], **tables: Any) -> ControlProblem:
    return control_problem(comm, 2, 1, labelling, cells=4, **tables)


def test_j_is_the_sum_of_its_parts(comm: MPI.Comm) -> None:
    problem = small(comm)
    theta = theta_with_layers(problem)
    value, _ = problem.value_and_gradient(theta)
    assert list(problem.parts) == list(part_names())
    assert [name for name in part_names() if abs(problem.parts[name]) < 1e-4] == [
        "intermediate",
        "interaction",
        "running",
    ]
    assert value == pytest.approx(sum(problem.parts.values()), rel=1e-14)


def test_the_last_evaluation_is_kept(comm: MPI.Comm) -> None:
    problem = small(comm)
    theta = theta_with_layers(problem)
    value = problem.value(theta)
    again, gradient = problem.value_and_gradient(theta.copy())
    assert again == value
    assert problem.evaluations == 1
    gradient[:] = 0.0  # the caller's own copy
    assert np.linalg.norm(problem.value_and_gradient(theta)[1]) > 0.0
    assert problem.evaluations == 1
    theta[0, 0] += 1e-8  # the problem keeps its own copy, too
    assert problem.value(theta) != value
    assert problem.evaluations == 2


def test_an_evaluation_can_be_repeated_to_the_bit(comm: MPI.Comm) -> None:
    problem = small(comm)
    theta = theta_with_layers(problem)
    value, gradient = problem.value_and_gradient(theta)
    problem.value(0.5 * theta)
    again, gradient_again = problem.value_and_gradient(theta)
    assert again == value
    np.testing.assert_array_equal(gradient_again, gradient)


def test_all_ranks_see_the_same_bits(comm: MPI.Comm) -> None:
    problem = small(comm, LABELLINGS[2])
    value, gradient = problem.value_and_gradient(theta_with_layers(problem))
    mine = (value, gradient.tobytes(), sorted(problem.parts.items()), problem.running_cost().tobytes())
    assert all(other == mine for other in comm.allgather(mine))


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e8, 1e300])
def test_a_rejected_evaluation(comm: MPI.Comm, bad: float) -> None:
    problem = small(comm)
    theta = theta_with_layers(problem)
    value, _ = problem.value_and_gradient(theta)

    rejected, gradient = problem.value_and_gradient(np.full_like(theta, bad))

    assert rejected == math.inf
    assert not np.any(gradient)
    assert problem.rejection
    assert (problem.evaluations, problem.rejected_evaluations) == (2, 1)
    for act in (lambda: problem.statistics, problem.running_cost, lambda: problem.snapshots(theta * bad, 2)):
        with pytest.raises(RejectedEvaluation):
            act()
    assert problem.value(theta) == value
    assert problem.rejection is None


def test_the_step_cap_rejects(comm: MPI.Comm) -> None:
    free = small(comm)
    theta = theta_with_layers(free)
    free.value(theta)
    cap = max(free.steps)
    assert small(comm, solver={"max_steps_per_layer": cap}).value(theta) == free.value(theta)
    capped = small(comm, solver={"max_steps_per_layer": cap - 1})
    assert capped.value(theta) == math.inf
    assert str(cap - 1) in (capped.rejection or "")


@pytest.mark.two_ranks
@pytest.mark.parametrize("labelling", LABELLINGS)
def test_memory_and_its_limits(comm: MPI.Comm, labelling: str) -> None:
    """The remedy that the message names is one, and the gradient does not depend on it."""
    tables = {"cells": 24, "density": {"degree": 2}, "field": {"layers": 1, "horizon": 0.3}}
    plenty = control_problem(comm, 2, 2, labelling, **tables)
    theta = theta_with_layers(plenty)
    _, expected = plenty.value_and_gradient(theta)
    with pytest.raises(InputError, match=r"solver\.memory.*got '0.1 MiB'") as caught:
        control_problem(comm, 2, 2, labelling, **tables, solver={"memory": "100 KiB"})
    words = str(caught.value).split()
    enough = int(words[words.index("least") + 1])
    little = control_problem(comm, 2, 2, labelling, **tables, solver={"memory": f"{enough} MiB"})
    _, gradient = little.value_and_gradient(theta)
    np.testing.assert_array_equal(gradient, expected)
    with pytest.raises(InputError):
        control_problem(comm, 2, 2, labelling, **tables, solver={"memory": f"{0.85 * (enough - 1):.3f} MiB"})


QUICK = {"output_scale": 3.0}  # so that there are many steps in a layer


def test_smaller_steps_change_little(comm: MPI.Comm) -> None:
    theta = theta_with_layers(small(comm, field=QUICK))
    values = [small(comm, solver={"cfl": cfl}, field=QUICK).value(theta) for cfl in (0.9, 0.45, 0.1)]
    assert values[0] == pytest.approx(values[2], rel=1e-3)
    assert len(set(values)) == 3


def test_labels_without_a_field_of_their_own_share_it(comm: MPI.Comm) -> None:
    """A label-dependent field whose label weights vanish moves all labels as one field does."""
    form = {"objective": {"entropy_form": "density", "power_form": "density"}}  # others treat them differently
    shared, own = small(comm, LABELLINGS[1], **form), small(comm, LABELLINGS[2], **form)
    hidden, dim, n_labels = 5, 2, 2
    theta = theta_with_layers(shared)
    inner = theta[:, : hidden * dim].reshape(-1, hidden, dim)
    padded = np.concatenate([inner, np.zeros((len(theta), hidden, n_labels))], axis=2).reshape(len(theta), -1)
    wide = np.concatenate([padded, theta[:, hidden * dim :]], axis=1)
    assert wide.shape == own.layer_shape

    assert own.value(wide) - own.parts["parameters"] == pytest.approx(
        shared.value(theta) - shared.parts["parameters"], rel=1e-13
    )
    own.value(wide + 0.3)
    assert next(own.snapshots(wide, 2))[2].shape == (2, own.velocity_space.n_nodes, 2)
    assert next(shared.snapshots(theta, 2))[2].shape == (shared.velocity_space.n_nodes, 2)


def test_theta_with_a_readout_is_flat(comm: MPI.Comm) -> None:
    problem = small(comm, LABELLINGS[1], objective={"terminal": TRAINED})
    size = math.prod(problem.layer_shape)
    assert problem.initial_theta.shape == (problem.n_params,) == (size + 6,)
    layers, readout = problem.split(problem.initial_theta)
    assert layers.shape == problem.layer_shape
    assert readout.shape == (6,)
    # |scaling·θ|² = ∫|θ_t|² dt, in which a readout is a parameter that is constant in time: twice the cost for ε = 1.
    theta = np.random.default_rng(0).standard_normal(problem.n_params)
    layers, readout = problem.split(theta)
    expected = problem.grid.layer_time * np.sum(layers**2) + problem.horizon * np.sum(readout**2)
    assert np.sum((problem.scaling * theta) ** 2) == pytest.approx(expected, rel=1e-13)
    no_slope = small(comm, LABELLINGS[1], objective={"terminal": TRAINED, "parameters": 1.0, "parameters_h1": 0.0})
    no_slope.value(0.1 * theta)
    assert 2.0 * no_slope.parts["parameters"] == pytest.approx(0.01 * expected, rel=1e-13)


def test_a_theta_of_the_wrong_size_is_refused(comm: MPI.Comm) -> None:
    problem = small(comm)
    for wrong in (np.zeros(3), np.zeros((2, problem.layer_shape[1])), 0.0):
        with pytest.raises(InputError, match="theta"):
            problem.value(wrong)


def test_gradient_norm_is_that_of_functions_of_time(comm: MPI.Comm) -> None:
    """∇J·θ' = ∫⟨g, θ'⟩dt for g = ∇J/Δt, whose norm in L²(0, T) is |∇J|/√Δt: the same for any number of layers.

    θ is counted in units of the box, which are those of the coordinates here, but for velocities.
    """
    norms = []
    for layers in (2, 6):
        config = problem_config(2, 1, cells=4, objective={"parameters_h1": 0.0})
        config["field"] = {"kind": "linear", "features": "affine", "layers": layers, "horizon": 0.6}
        problem = build(parse_config(config), comm)
        theta = np.tile([0.1, -0.2, 0.3, 0.1, 0.5, -0.4], (layers, 1))
        _, gradient = problem.value_and_gradient(theta)
        norms.append(problem.gradient_norm(gradient))
        assert norms[-1] == pytest.approx(np.linalg.norm(gradient) / 0.6 / math.sqrt(0.6 / layers), rel=1e-13)
    assert norms[0] == pytest.approx(norms[1], rel=2e-2)


def test_statistics_of_a_translation(comm: MPI.Comm) -> None:
    config = problem_config(2, 2, LABELLINGS[1], cells=12)
    config["domain"]["box"] = {"lower": [-2.0, -2.0], "upper": [2.0, 2.0], "cells": [24, 24]}
    config["field"] = {"kind": "linear", "features": "translation", "layers": 2, "horizon": 0.6}
    problem = build(parse_config(config), comm)
    problem.value(np.array([[0.5, 0.0], [0.5, -0.4]]))
    statistics = problem.statistics
    np.testing.assert_allclose(statistics.mass_initial, [1 / 3, 2 / 3], rtol=1e-12)
    np.testing.assert_allclose(statistics.mass_final, [1 / 3, 2 / 3], rtol=1e-12)
    assert statistics.mass_error <= 1e-12
    np.testing.assert_allclose(statistics.mean, [[0.08, 0.01], [0.61, -0.29]], atol=1e-4)
    np.testing.assert_allclose(statistics.covariance, np.tile(0.04 * np.eye(2), (2, 1, 1)), atol=2e-4)
    assert 0.0 <= statistics.boundary_mass < 1e-6
    assert statistics.density_min >= -1e-12
    assert statistics.density_max == pytest.approx(2 / 3 / (2 * np.pi * 0.04), rel=0.05)
    assert statistics.steps_per_layer == problem.steps
    assert statistics.evaluations == 1
    assert statistics.rejected_evaluations == 0


def test_snapshots(comm: MPI.Comm) -> None:
    problem = small(comm, LABELLINGS[1])
    theta = theta_with_layers(problem)
    snapshots = list(problem.snapshots(theta, 4))
    assert [t for t, _, _ in snapshots] == pytest.approx([0.0, 0.2, 0.4, 0.6])
    n = problem.density_space.n_owned
    np.testing.assert_allclose(snapshots[0][1][:n], problem.initial_density[:n], atol=1e-14)
    np.testing.assert_allclose(snapshots[-1][1][:n], problem.final_density[:n], atol=1e-11)
    # Each velocity belongs to the layer that ends then, the first one to the first layer.
    expected = [problem.field.value(row, problem.velocity_space.x) for row in theta[[0, 0, 1, 2]]]
    for (_, _, v), want in zip(snapshots, expected, strict=True):
        np.testing.assert_allclose(v, want, rtol=1e-14)


@pytest.mark.parametrize("labels", [2, 3, 5, 9])
def test_labels_that_move_together_cost_what_they_cost_alone(comm: MPI.Comm, labels: int) -> None:
    """All costs that are linear in the density, and their gradient, are the means over the labels."""

    def problem_of(which: list[int]) -> ControlProblem:
        term = {"kind": "gaussian", "std": 0.2, "weight": 1.0}
        initial = [term | {"mean": [0.1 * y - 0.4, 0.13], "label": label} for label, y in enumerate(which)]
        config = problem_config(2, 1, density={"degree": 1, "initial": initial}, solver={"max_steps_per_layer": 100})
        config["objective"] |= {"parameters": 0.0, "parameters_h1": 0.0, "congestion": 0.0, "entropy": 0.0}
        config["objective"]["terminal"] = {"kind": "quadratic", "target": [0.4, 0.2]}
        return build(parse_config(config), comm)

    together = problem_of(list(range(labels)))
    theta = together.initial_theta
    value, gradient = together.value_and_gradient(theta)
    alone = [problem_of([y]).value_and_gradient(theta) for y in range(labels)]
    assert value == pytest.approx(np.mean([each for each, _ in alone]), rel=1e-11)
    mean = np.mean([each for _, each in alone], axis=0)
    np.testing.assert_allclose(gradient, mean, atol=1e-10 * np.abs(mean).max())


def test_value_at_steps_holds_the_counts(comm: MPI.Comm) -> None:
    problem = small(comm)
    theta = theta_with_layers(problem)
    value, steps = problem.value(theta), problem.steps
    assert problem.value_at_steps(theta, steps) == value
    finer = tuple(3 * n for n in steps)
    assert problem.value_at_steps(theta, finer) != value
    assert problem.value(theta) == value


@dataclasses.dataclass(frozen=True)
class Custom:
    """A translation that can be made to fail, only on the last of ``size`` ranks."""

    fails: str
    last: bool

    def n_params(self, dim: int) -> int:
        return dim

    def init(self, _rng: np.random.Generator) -> Floats:
        return np.zeros(2)

    def value(self, theta: Floats, x: Floats) -> Floats:
        if self.last and self.fails == "value":
            raise ZeroDivisionError("no such velocity")
        v = np.tile(theta, (len(x), 1))
        return v[:, :1] if self.fails == "shape" else v

    def vjp(self, _theta: Floats, _x: Floats, w: Floats) -> Floats:
        if self.last and self.fails == "vjp":
            raise ZeroDivisionError("no such derivative")
        return np.asarray(w.sum(axis=0))

    def jacobian(self, theta: Floats, x: Floats) -> Floats:
        raise NotImplementedError

    def jacobian_vjp(self, theta: Floats, x: Floats, w: Floats) -> Floats:
        raise NotImplementedError


def with_field(comm: MPI.Comm, fails: str) -> ControlProblem:
    config = problem_config(2, 1, cells=4)
    config["field"] = {"kind": "linear", "features": "translation", "layers": 3, "horizon": 0.6}
    problem = build(parse_config(config), comm)
    problem.layered.field = Custom(fails, comm.rank == comm.size - 1)
    return problem


@pytest.mark.parametrize("fails", ["value", "vjp"])
def test_a_field_that_fails_on_one_rank_fails_on_all(comm: MPI.Comm, fails: str) -> None:
    """Told with the place in the user's code; it is no rejected evaluation."""
    problem = with_field(comm, fails)
    with pytest.raises(ComputationError, match=r"ZeroDivisionError.*no such.*test_control") as caught:
        problem.value_and_gradient(np.zeros((3, 2)))
    assert not isinstance(caught.value, RejectedEvaluation)


def test_a_field_of_the_wrong_shape(comm: MPI.Comm) -> None:
    with pytest.raises(InputError, match="shape"):
        with_field(comm, "shape").value(np.zeros((3, 2)))


def test_the_running_cost_adds_up(comm: MPI.Comm) -> None:
    problem = small(comm, LABELLINGS[2], objective={"parameters_h1": 0.0})
    problem.value(theta_with_layers(problem))
    cost = problem.running_cost()
    assert cost.shape == (3,)
    parts = problem.parts
    expected = sum(parts[name] for name in ("kinetic", "jacobian", "potential", "parameters"))
    assert np.sum(cost) * 0.2 == pytest.approx(expected, rel=1e-12)


def test_a_solve_that_breaks_off_leaves_nothing_stale(comm: MPI.Comm) -> None:
    """The trajectories are overwritten then: the gradient at the θ before is solved for anew, not read from them."""
    problem = control_problem(comm, 2, 1)
    theta = problem.initial_theta
    _, expected = problem.value_and_gradient(theta)
    problem.value(0.5 * theta)
    problem.value(theta)
    with pytest.raises(RejectedEvaluation):
        problem.value_at_steps(1e200 * np.ones_like(theta), problem.steps)
    _, gradient = problem.value_and_gradient(theta)
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("tied", [False, True])
def test_the_field_is_asked_once_per_layer_and_once_for_tied_layers(
    comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch, tied: bool
) -> None:
    problem = small(comm, field={"tied": tied, "layers": 3})
    asked: list[int] = []
    value_and_vjp = problem.layered.value_and_vjp

    def watched(layer: int, *rest: Any) -> Any:
        asked.append(layer)
        return value_and_vjp(layer, *rest)

    monkeypatch.setattr(problem.layered, "value_and_vjp", watched)
    monkeypatch.setattr(problem.layered, "value", lambda *_: pytest.fail("a second forward pass"))
    monkeypatch.setattr(problem.layered, "vjp", lambda *_: pytest.fail("the kept pass was not used"))
    problem.value_and_gradient(theta_with_layers(problem))
    assert sorted(asked) == ([0] if tied else [0, 1, 2]) * len(problem.groups)
