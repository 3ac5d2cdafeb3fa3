"""Certificates: the bound is a bound, the distance is right, and the sentence says what has to be said."""

import math
from typing import Any

from mpi4py import MPI

import pytest
from paths import MESHES

from eulerian.app.build.network import build
from eulerian.app.config import parse_config
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.bounds import certificate
from eulerian.bounds.certificate import certify
from eulerian.bounds.continuous import ContinuousBounds
from eulerian.control.control import ControlProblem
from eulerian.ideal.problem import LABEL_BY_LABEL, PARTS
from eulerian.objective.terminal import Terminal, TerminalValue

# Q1a: the exact value of the idealised problem is 0.614864864865.
QUADRATIC = """
[domain]
box = { lower = [-4.0], upper = [4.0], cells = [80] }
[density]
degree = 2
[[density.initial]]
kind = "gaussian"
mean = [-0.4]
std = 0.6
[field]
kind = "linear"
features = "affine"
layers = 8
horizon = 1.5
[objective]
kinetic = 0.7
jacobian = 0.1
parameters = 0.2
[objective.terminal]
kind = "quadratic"
target = [1.3]
weight = 2.0
"""
VALUE = 0.614864864865
COST = 0.6**2 + 1.7**2  # of staying

LABELS = """
density.initial=[{kind="gaussian", mean=[-0.4], std=0.6}, {kind="gaussian", mean=[0.4], std=0.6, label=1}]
"""
CORNER = """
[domain]
file = "l_shape.msh"
[[density.initial]]
kind = "gaussian"
mean = [-0.5, -0.5]
std = 0.15
[field]
kind = "linear"
features = "affine"
layers = 4
[objective]
kinetic = 1.0
[objective.terminal]
kind = "expression"
value = "1 - x"
"""


def evaluated(comm: MPI.Comm, text: str, *overrides: str) -> ControlProblem:
    problem = build(parse_config(text, MESHES, [override.strip() for override in overrides]), comm)
    problem.value(problem.initial_theta)
    return problem


def test_hopf_lax(comm: MPI.Comm) -> None:
    problem = evaluated(comm, QUADRATIC)
    found = certify(problem)
    assert found.bound == "hopf_lax"
    assert found.ideal == pytest.approx(VALUE, rel=1e-5)
    assert found.gap == pytest.approx(COST - VALUE, rel=1e-5)
    assert found.relative_gap == pytest.approx(COST / VALUE - 1.0, rel=1e-5)
    assert abs(found.ideal - VALUE) <= found.error + 1e-6 * VALUE  # the box cuts the density's tails off
    assert 0.0 < found.error < 1e-3 * VALUE  # as good as the sentence needs it
    assert found.statement == (
        "Terminal loss and kinetic energy add up to 3.25, which is 2.64 (429 %) above the lower bound 0.614865 "
        f"± {found.error:.1g} for any flow (Hopf–Lax)."
    )


def test_costs_of_parameters_and_gradients_do_not_count(comm: MPI.Comm) -> None:
    problem = evaluated(comm, QUADRATIC, "field.theta=[[-0.3, 0.9]]")
    found = certify(problem)
    parts = problem.parts
    assert parts["jacobian"] > 1e-3
    assert parts["parameters"] > 1e-3
    assert found.gap == pytest.approx(parts["terminal"] + parts["kinetic"] - VALUE, rel=1e-4)
    assert 0.0 < found.gap < 0.2


@pytest.mark.two_ranks
def test_convex_bound(comm: MPI.Comm) -> None:
    records: list[Any] = []
    problem = evaluated(comm, QUADRATIC, "density.degree=1")
    found = certify(problem, bound="convex", slabs=16, gap_tolerance=5e-3, callback=records.append)
    assert found.bound == "convex"
    (second,) = (i for i in range(1, len(records)) if records[i].iteration < records[i - 1].iteration)
    own, other = records[second - 1], records[-1]
    assert found.ideal == own.dual
    # What the variance of ∇φ takes off the value comes on top.
    assert found.error > 2.0 * abs(own.dual - other.dual) + max(own.gap, other.gap)
    assert 0.97 * VALUE < found.ideal < 1.001 * VALUE
    assert abs(found.ideal - VALUE) <= found.error < 0.03 * VALUE
    assert "(the dual of the convex problem, discretised on two meshes and 16 time slabs)" in found.statement
    assert "above an estimate of the lower bound, " in found.statement
    assert f" ± {found.error:.1g} for any flow" in found.statement


@pytest.mark.one_process
def test_where_the_domain_is_not_convex(comm: MPI.Comm) -> None:
    """Without walls everything would move by T/λ to the right, at 1 − x̄ − T/(2λ) = 1."""
    problem = evaluated(comm, CORNER)
    found = certify(problem)
    assert found.bound == "hopf_lax"
    assert found.ideal > 1.1  # the way to the right leads around the corner
    assert found.gap > 0.0
    of_mesh = certify(problem, bound="convex", gap_tolerance=5e-3)
    assert of_mesh.bound == "convex"
    assert of_mesh.ideal == pytest.approx(found.ideal, rel=0.03)


TARGET = 'objective.terminal={kind="%s", target=[{kind="gaussian", mean=[0.5], std=0.5}]}'
COSTS = {
    "": [],
    "potential": ['objective.potential="x**2/2 - 2"'],
    "entropy": ["objective.congestion=0.2", "objective.entropy=0.3"],
}


@pytest.mark.parametrize(
    ("kind", "costs"), [("kl", ""), ("l2", ""), ("kl", "entropy"), ("quadratic", "potential"), ("quadratic", "entropy")]
)
def test_targets_and_running_costs(comm: MPI.Comm, kind: str, costs: str) -> None:
    terminal = [] if kind == "quadratic" else [TARGET % kind]
    overrides = COSTS[costs]
    problem = evaluated(comm, QUADRATIC, *terminal, "density.degree=1", "field.theta=[[-0.1, 0.5]]", *overrides)
    found = certify(problem, gap_tolerance=2e-3, residual_tolerance=1e-3, slabs=12)
    parts = {name: problem.parts.get(name, 0.0) for name in PARTS}
    cost = sum(parts.values())
    assert found.bound == ("convex" if costs else "transform")
    assert ("an estimate of the lower bound" in found.statement) is bool(costs)
    assert 0.0 < found.error < (0.05 if costs else 1e-4) * sum(map(abs, parts.values()))
    assert found.gap == pytest.approx(cost - found.ideal, rel=1e-12)
    assert 0.0 < found.gap < (1.0 if kind == "quadratic" else 0.3)
    assert ("running costs of the density add up to" in found.statement) is bool(costs)
    assert ("of the sizes of its parts" in found.statement) is bool(costs)
    if not costs:
        assert found.relative_gap == pytest.approx(found.gap / abs(found.ideal), rel=1e-12)
    else:  # parts of both signs: the bound may be anywhere, even at 0
        size = found.gap / found.relative_gap
        assert size > 1.01 * abs(found.ideal)
        assert size == pytest.approx(sum(abs(part) for part in parts.values()), rel=0.5)
    if costs:
        with pytest.raises(InputError, match="not linear" if terminal else "running costs of the density"):
            certify(problem, bound="hopf_lax")


@pytest.mark.two_ranks
def test_ideal_velocities_are_nearly_optimal(comm: MPI.Comm) -> None:
    """What the convex solver finds costs nearly as little where the density of a network is transported."""
    costs = [*COSTS["entropy"], 'objective.potential="0.3*exp(-8*x**2)"']
    field = 'field={kind="free", theta="ideal", layers=12, horizon=1.5}'
    problem = evaluated(comm, QUADRATIC, TARGET % "kl", field, "ideal.gap_tolerance=2e-3", *costs)
    found = certify(problem, gap_tolerance=2e-3)
    assert 0.0 < found.relative_gap < 0.05


@pytest.mark.two_ranks
def test_labels_and_congestion(comm: MPI.Comm) -> None:
    targets = "objective.terminal={kind='quadratic', targets=[[1.3],[-1.3]], weight=2.0}"
    labelled = QUADRATIC, LABELS, targets, "density.degree=1", "field.label_dependent=true"
    settings: Any = {"gap_tolerance": 1e-2, "residual_tolerance": 1e-3, "slabs": 8}
    found = certify(evaluated(comm, *labelled, "objective.congestion=0.2"), **settings)
    assert LABEL_BY_LABEL in found.statement
    assert found.gap > 0.0
    assert math.isnan(found.relative_gap)
    assert "%" not in found.statement
    assert LABEL_BY_LABEL not in certify(evaluated(comm, *labelled, 'objective.potential="x"'), **settings).statement


def test_no_bound_for_a_functional_of_ones_own(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Terminal):
        def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
            raise NotImplementedError

    problem = evaluated(comm, QUADRATIC)
    monkeypatch.setattr(problem, "terminal", Own())
    with pytest.raises(InputError, match="no bound is known"):
        certify(problem)


@pytest.mark.two_ranks
def test_without_kinetic_energy(comm: MPI.Comm) -> None:
    problem = evaluated(comm, QUADRATIC, "objective.kinetic=0.0")
    found = certify(problem)
    assert found.ideal == pytest.approx(0.0, abs=1e-9)  # everything in the target
    assert found.gap == pytest.approx(COST, rel=1e-5)
    corner = evaluated(comm, CORNER, "objective.kinetic=0.0")
    assert certify(corner).ideal == pytest.approx(0.0, abs=1e-9)  # everything behind the corner
    with pytest.raises(InputError) as caught:
        certify(corner, bound="convex")
    assert caught.value.key == "kinetic"


@pytest.mark.parametrize("sees_labels", [False, True])
def test_labels(comm: MPI.Comm, sees_labels: bool) -> None:
    """On the line what a field that does not see the label can attain is known, and no way of theirs is open to it."""
    targets = "objective.terminal={kind='quadratic', targets=[[1.3],[-1.3]], weight=2.0}"
    problem = evaluated(comm, QUADRATIC, LABELS, targets, f"field.label_dependent={str(sees_labels).lower()}")
    found = certify(problem)
    assert found.bound == ("hopf_lax" if sees_labels else "monotone")
    if sees_labels:
        assert found.ideal == pytest.approx(VALUE, rel=1e-5)  # both labels have the way of the one above
    else:
        assert 2.0 * VALUE < found.ideal < COST
    assert "which this field does not see" not in found.statement
    assert found.relative_gap == pytest.approx(found.gap / found.ideal)


@pytest.mark.parametrize("sees_labels", [False, True])
def test_labels_in_the_plane(comm: MPI.Comm, sees_labels: bool) -> None:
    plane = QUADRATIC.replace(
        "[-4.0], upper = [4.0], cells = [80]", "[-4.0, -3.0], upper = [4.0, 3.0], cells = [16, 12]"
    )
    labels = LABELS.replace("[-0.4]", "[-0.4, 0.0]").replace("[0.4]", "[0.4, 0.0]")
    targets = "objective.terminal={kind='quadratic', targets=[[1.3, 0.0],[-1.3, 0.0]], weight=2.0}"
    problem = evaluated(comm, plane, labels, targets, f"field.label_dependent={str(sees_labels).lower()}")
    found = certify(problem)
    assert found.bound == "hopf_lax"
    # β/2 (|m0 − c|² + tr S0), and β/2 of it is VALUE on the line
    assert found.ideal == pytest.approx(VALUE * (1.7**2 + 2 * 0.6**2) / COST, rel=1e-4)
    assert ("which this field does not see" in found.statement) is not sees_labels
    assert ("%" in found.statement) is sees_labels
    assert math.isnan(found.relative_gap) is not sees_labels


def test_labels_with_one_loss_need_one_velocity(comm: MPI.Comm) -> None:
    """Then a field that does not see labels can attain the bound."""
    found = certify(evaluated(comm, QUADRATIC, LABELS))
    assert "does not see" not in found.statement
    assert found.relative_gap == pytest.approx(found.gap / found.ideal)


@pytest.mark.parametrize("kind", ["kl", "l2"])
def test_labels_with_targets(comm: MPI.Comm, kind: str) -> None:
    target = f"[{LABELS.split('=', 1)[1].strip()[1:-1]}]".replace("-0.4", "0.1")
    terminal = f'objective.terminal={{kind="{kind}", target={target}}}'
    problem = evaluated(comm, QUADRATIC, LABELS, terminal, "density.degree=1")
    found = certify(problem, gap_tolerance=1e-2, residual_tolerance=1e-3, slabs=8)
    assert "which this field does not see" in found.statement
    assert "%" not in found.statement
    assert math.isnan(found.relative_gap)


def test_a_trained_readout(comm: MPI.Comm) -> None:
    """The bound is for the readout of the last θ, not for the one at the start."""
    readout = "objective.terminal={kind='cross_entropy', trainable=true, weights=[[-1.0],[1.0]]}"
    problem = evaluated(comm, QUADRATIC, LABELS, readout, "field.label_dependent=true")
    start = certify(problem)
    assert "for the readout as trained" in start.statement
    theta = problem.initial_theta
    theta[-4:-2] *= 3.0
    problem.value(theta)
    after = certify(problem)
    assert 0.0 < after.ideal < 0.8 * start.ideal
    assert after.gap > 0.0


def known(monkeypatch: pytest.MonkeyPatch, value: float, error: float = 0.0) -> None:
    """Let the bound of the continuous problem be something else."""
    bounds = ContinuousBounds(value, value, error, "hopf_lax", True, abs(value))
    monkeypatch.setattr(certificate, "continuous_bounds", lambda *_, **__: bounds)


def test_below_the_bound(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, 5.0)
    found = certify(evaluated(comm, QUADRATIC))
    assert found.gap == pytest.approx(COST - 5.0, rel=1e-5)
    assert "1.75 (35 %) below the lower bound 5 ± 0 for any flow (Hopf–Lax); to be below it is an" in found.statement


@pytest.mark.parametrize("error", [0.3, 0.2])
def test_below_the_bound_within_its_error(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch, error: float) -> None:
    """A flow that is verified may be that far below, no farther; what the mesh says of one is another matter."""
    known(monkeypatch, 2.5, error)
    problem = evaluated(comm, QUADRATIC)
    verified = dict.fromkeys(PARTS, 0.0) | {"terminal": 2.0, "kinetic": 0.25}
    statement = certify(problem, verified=verified).statement
    assert ("within the errors of both" in statement) is (error > 0.25)
    assert ("an error of the discretisation" in statement) is (error < 0.25)


def test_a_bound_of_zero_has_no_percentage(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, 0.0)
    found = certify(evaluated(comm, QUADRATIC))
    assert math.isnan(found.relative_gap)
    assert "3.25 above the lower bound 0 ± 0 for" in found.statement
    assert "%" not in found.statement


@pytest.mark.parametrize("value", [0.01, -2.0])
def test_bounds_that_are_no_measure(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Far below the parts of J, or negative."""
    known(monkeypatch, value)
    found = certify(evaluated(comm, QUADRATIC))
    assert math.isnan(found.relative_gap)
    assert "it would tell nothing" in found.statement
    assert "%" not in found.statement


def test_the_flow_itself_is_held_against_the_bound(comm: MPI.Comm) -> None:
    verified = dict.fromkeys(PARTS, 0.0) | {"terminal": 2.0, "kinetic": 0.25}
    found = certify(evaluated(comm, QUADRATIC), verified=verified)
    assert found.gap == pytest.approx(2.25 - VALUE, rel=1e-5)
    assert "of the flow itself add up to 2.25" in found.statement
    unknown = certify(evaluated(comm, QUADRATIC), verified=verified | {"kinetic": math.nan})
    assert unknown.gap == pytest.approx(COST - VALUE, rel=1e-5)
    assert "the costs are those of the mesh" in unknown.statement
