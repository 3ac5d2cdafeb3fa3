"""Parameters and curvature carried to another mesh with other layers: they mean what they meant before."""

from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import LABELLINGS, problem_config
from thinning import thinned

from eulerian.app.build.network import build
from eulerian.app.config import parse_config
from eulerian.base.arrays import Floats
from eulerian.control.control import ControlProblem
from eulerian.fields.nodal import Nodal
from eulerian.optimise import Curvature
from eulerian.optimise.transfer import Transfer
from eulerian.transport.nodal_interpolant import NodalField

READOUT = {"terminal": {"kind": "cross_entropy", "trainable": True}}
FREE = {"kind": "free", "zero_init": False, "seed": 1}

# Labelling, and what is set in the table [field] and in [objective].
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "mlp": (LABELLINGS[0], {}, {}),
    "linear": (LABELLINGS[0], {"kind": "linear", "features": "rbf", "width": 5}, {}),
    "mlp, a field per label": (LABELLINGS[2], {}, {}),
    "linear, a field per label": (LABELLINGS[2], {"kind": "linear", "features": "affine"}, {}),
    "tied": (LABELLINGS[0], {"tied": True}, {}),
    "readout": (LABELLINGS[1], {}, READOUT),
    "tied, a field per label, readout": (LABELLINGS[2], {"tied": True}, READOUT),
}


def problem_of(
    comm: MPI.Comm, labelling: str, field: dict[str, Any], objective: dict[str, Any], layers: int, cells: int = 4
) -> ControlProblem:
    table = problem_config(2, 1, labelling, cells, objective=objective)
    own = {"label_dependent": labelling == LABELLINGS[2], "horizon": 0.6, **field}
    table["field"] = {**(own if "kind" in own else {**table["field"], **own}), "layers": layers}
    if own.get("kind") == "free":
        table["objective"]["jacobian"] = 0.1
    return build(parse_config(table), comm)


def random_theta(problem: ControlProblem, seed: int = 0) -> Floats:
    shape = problem.initial_theta.shape
    return np.asarray(np.random.default_rng(seed).standard_normal(shape))


def velocities(problem: ControlProblem, theta: Floats, x: Floats, times: Floats) -> Floats:
    """v at points and times, of every label."""
    rows, _ = problem.split(theta)
    layers = np.minimum((times / problem.horizon * problem.n_layers).astype(int), problem.n_layers - 1)
    labels = range(len(problem.groups))
    return np.array([[problem.layered.value(k, rows[k], x, label) for label in labels] for k in layers])


@pytest.mark.two_ranks
@pytest.mark.parametrize(("before", "after"), thinned([(1, 1), (1, 3), (2, 4), (3, 6), (2, 6), (4, 8)], {(2, 6)}))
@pytest.mark.parametrize("case", CASES)
def test_split_layers_leave_the_velocity_at_any_time(comm: MPI.Comm, case: str, before: int, after: int) -> None:
    source, target = problem_of(comm, *CASES[case], before), problem_of(comm, *CASES[case], after)
    theta = random_theta(source)
    carried = Transfer(source, target).theta(theta)
    assert carried.shape == target.initial_theta.shape
    times = (np.arange(48) + 0.5) * (0.6 / 48)  # never at an end of a layer
    x = np.random.default_rng(1).uniform(-1.0, 1.0, (5, 2))
    np.testing.assert_array_equal(velocities(target, carried, x, times), velocities(source, theta, x, times))
    np.testing.assert_array_equal(target.split(carried)[1], source.split(theta)[1])


@pytest.mark.two_ranks
def test_odd_numbers_of_layers_and_joined_ones(comm: MPI.Comm) -> None:
    """Each layer takes the row that is there at its middle."""
    expected = {(3, 2): [0, 2], (2, 3): [0, None, 1], (4, 2): [None, None], (5, 3): [0, 2, 4], (3, 5): [0, 0, 1, 2, 2]}
    for (before, after), rows in expected.items():
        source, target = (problem_of(comm, *CASES["mlp"], layers) for layers in (before, after))
        theta = random_theta(source)
        carried = Transfer(source, target).theta(theta)
        for row, number in zip(carried, rows, strict=True):
            if number is not None:
                np.testing.assert_array_equal(row, theta[number])
            assert any(np.array_equal(row, other) for other in theta)


def test_there_and_back(comm: MPI.Comm) -> None:
    """From coarse to fine nothing is lost."""
    coarse, fine = problem_of(comm, *CASES["readout"], 2), problem_of(comm, *CASES["readout"], 4, cells=8)
    theta = random_theta(coarse)
    np.testing.assert_array_equal(Transfer(fine, coarse).theta(Transfer(coarse, fine).theta(theta)), theta)


# -- free fields -----------------------------------------------------------------------------------------------------

FREE_CASES = [(LABELLINGS[0], 1), (LABELLINGS[2], 1), (LABELLINGS[0], 2)]


def free_problem(comm: MPI.Comm, dim: int, degree: int, labelling: str, cells: int, layers: int) -> ControlProblem:
    """A free field; its velocities are of the densities' degree, at least one."""
    table = problem_config(dim, degree, labelling, cells, objective={"jacobian": 0.0})
    for term in table["density"]["initial"]:  # a narrow one takes its time on large cells
        squares = "+".join(f"({name} - {mean})**2" for name, mean in zip("xyz", term.pop("mean"), strict=False))
        term.pop("std")
        term |= {"kind": "expression", "value": f"exp(-({squares})/2)"}
    table["field"] = {**FREE, "layers": layers, "horizon": 0.3, "label_dependent": labelling == LABELLINGS[2]}
    return build(parse_config(table), comm)


def at(problem: ControlProblem, theta: Floats, x: Floats) -> Floats:
    """A free field's velocity between its nodes, in every layer, of every label."""
    assert isinstance(problem.field, Nodal)
    between = NodalField.gather(problem.velocity_space, problem.field)
    labels = range(problem.field.n_labels) if problem.field.n_labels else [None]
    return np.array([[between.value(row, x, label) for label in labels] for row in theta])


@pytest.mark.parametrize(("labelling", "degree"), FREE_CASES)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_free_field_is_the_same_function_on_a_finer_mesh(
    comm: MPI.Comm, dim: int, labelling: str, degree: int
) -> None:
    """The finite elements of a mesh are among those of the mesh with halved cells."""
    cells = 1 if dim == 3 else 3
    coarse, fine = (free_problem(comm, dim, degree, labelling, n * cells, n) for n in (1, 2))
    theta = random_theta(coarse)
    carried = Transfer(coarse, fine).theta(theta)
    assert carried.shape == fine.layer_shape
    assert carried.shape[1] > theta.shape[1]
    x = np.random.default_rng(1).uniform(-1.0, 1.0, (40, dim))
    before, after = at(coarse, theta, x), at(fine, carried, x)
    np.testing.assert_allclose(after[0], before[0], rtol=1e-9, atol=1e-11)
    np.testing.assert_array_equal(carried[1], carried[0])


@pytest.mark.parametrize(("labelling", "degree"), FREE_CASES)
def test_a_free_field_is_interpolated_on_a_coarser_mesh(comm: MPI.Comm, labelling: str, degree: int) -> None:
    """The nodes of the coarse mesh are nodes of the fine one: there the velocity stays."""
    coarse, fine = (free_problem(comm, 2, degree, labelling, 3 * n, n) for n in (1, 2))
    theta = random_theta(fine)
    carried = Transfer(fine, coarse).theta(theta)
    assert carried.shape == coarse.layer_shape
    assert isinstance(coarse.field, Nodal)
    found, expected = (at(*each, coarse.field.nodes)[-1] for each in ((coarse, carried), (fine, theta)))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
    back = Transfer(coarse, fine).theta(carried)
    np.testing.assert_allclose(Transfer(fine, coarse).theta(back), carried, rtol=1e-9, atol=1e-11)


# -- curvature -------------------------------------------------------------------------------------------------------


def convex_pairs(problem: ControlProblem, m: int = 4) -> Curvature:
    """Pairs of a random quadratic."""
    rng = np.random.default_rng(2)
    steps = rng.standard_normal((m, problem.n_params))
    return Curvature(steps, steps * rng.uniform(0.5, 3.0, problem.n_params))


def products(pairs: Curvature) -> Floats:
    return np.asarray(np.sum(pairs.steps * pairs.slopes, axis=1))


@pytest.mark.two_ranks
@pytest.mark.parametrize(("before", "after"), thinned([(2, 4), (4, 2), (3, 3)], {(2, 4)}))
@pytest.mark.parametrize("case", [*CASES, "free", "free, a field per label"])
def test_pairs_keep_their_product(comm: MPI.Comm, case: str, before: int, after: int) -> None:
    """It is the change of J's slope along the step."""
    what = CASES.get(case) or (LABELLINGS[2] if "label" in case else LABELLINGS[0], FREE, {})
    source, target = (problem_of(comm, *what, n, cells=m) for n, m in ((before, 2), (after, 4)))
    pairs = convex_pairs(source)
    carried = Transfer(source, target).curvature(pairs)
    if before <= after:  # where layers are left out a pair may lose its convexity
        assert len(carried) == len(pairs)
    assert carried.steps.shape == carried.slopes.shape == (len(carried), target.n_params)
    kept = np.isclose(products(pairs)[:, None], products(carried), rtol=1e-9).any(axis=0)
    assert kept.all()
    transfer = Transfer(source, target)
    for step in pairs.steps[: len(carried)] if len(carried) == len(pairs) else []:
        assert any(np.array_equal(transfer.theta(step).ravel(), other) for other in carried.steps)


def test_slopes_are_gradients_of_the_same_j(comm: MPI.Comm) -> None:
    """J' of the split layers is that of the whole ones, shared among them: it tells every change of J as before."""
    source, target = problem_of(comm, *CASES["readout"], 2), problem_of(comm, *CASES["readout"], 6)
    pairs, transfer = convex_pairs(source), Transfer(source, target)
    carried = transfer.curvature(pairs)
    other = random_theta(source, 5)
    expected, found = pairs.slopes @ other, carried.slopes @ transfer.theta(other)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_no_pairs(comm: MPI.Comm) -> None:
    source, target = problem_of(comm, *CASES["mlp"], 1), problem_of(comm, *CASES["mlp"], 2)
    carried = Transfer(source, target).curvature(Curvature(*np.empty((2, 0, source.n_params))))
    assert carried.steps.shape == carried.slopes.shape == (0, target.n_params)


@pytest.mark.parametrize("case", ["mlp", "free"])
def test_the_same_on_any_number_of_ranks(comm: MPI.Comm, case: str) -> None:
    """On all ranks the same bits; on one, up to rounding."""
    what = CASES.get(case) or (LABELLINGS[0], FREE, {})
    found = []
    for each in (comm, MPI.COMM_SELF):
        source, target = problem_of(each, *what, 2, cells=2), problem_of(each, *what, 4, cells=5)
        transfer = Transfer(source, target)
        carried = transfer.curvature(convex_pairs(source))
        found.append((transfer.theta(random_theta(source)), carried.steps, carried.slopes))
    assert len(set(comm.allgather(b"".join(array.tobytes() for array in found[0])))) == 1
    for mine, alone in zip(*found, strict=True):
        np.testing.assert_allclose(mine, alone, rtol=1e-10, atol=1e-12)
