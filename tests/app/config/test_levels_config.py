"""Coarser versions of a configuration: cells, degrees and layers of the levels, and where that ends."""

from typing import Any

import pytest
from configurations import BASE
from paths import MESHES

from eulerian.app.config import Config, parse_config
from eulerian.app.config.levels import LEAST_CELLS, coarse_to_fine
from eulerian.base.errors import InputError

pytestmark = pytest.mark.one_process

SQUARE = str(MESHES / "square_with_hole.msh")


def levels_of(levels: int, *overrides: str) -> tuple[Config, ...]:
    return coarse_to_fine(parse_config(BASE, overrides=[f"optimiser.levels={levels}", *overrides]))


def cells(configs: tuple[Config, ...]) -> list[tuple[int, ...]]:
    return [config.domain.box.cells for config in configs if config.domain.box is not None]


def box(*numbers: int) -> str:
    dim = len(numbers)
    return f"domain.box={{lower={[-1.0] * dim}, upper={[1.0] * dim}, cells={list(numbers)}}}"


@pytest.mark.parametrize("degree", [0, 2])
def test_cells_and_layers_are_halved(degree: int) -> None:
    configs = levels_of(4, f"density.degree={degree}")
    assert cells(configs) == [(6, 6), (12, 12), (24, 24), (48, 48)]
    assert [config.field.layers for config in configs] == [2, 4, 8, 8]
    assert {config.density.degree for config in configs} == {degree}


def test_below_degree_1_is_degree_2_on_cells_four_times_as_large() -> None:
    configs = levels_of(4, "domain.box.cells=[128, 96]")
    assert cells(configs) == [(8, 6), (16, 12), (32, 24), (128, 96)]
    assert [config.density.degree for config in configs] == [2, 2, 2, 1]
    assert [config.field.layers for config in configs] == [2, 4, 8, 8]


@pytest.mark.parametrize(
    ("where", "degrees"),
    [(box(9, 9), [2, 1]), (box(7, 5), [1, 1]), (f"domain={{file='{SQUARE}', refine=1}}", [1, 1])],
    ids=["a box of 9", "a box of 7", "a file"],
)
def test_cells_that_can_be_doubled_only_once_keep_their_degree(where: str, degrees: list[int]) -> None:
    assert [config.density.degree for config in levels_of(2, where)] == degrees


def test_one_level_is_the_configuration() -> None:
    config = parse_config(BASE)
    assert config.optimiser.levels == 1
    (only,) = coarse_to_fine(config)
    assert only is config


def test_the_last_one_is_the_configuration_itself() -> None:
    config = parse_config(BASE, overrides=["optimiser.levels=3"])
    assert coarse_to_fine(config)[-1] is config


def test_everything_else_is_left_alone() -> None:
    *coarse, fine = levels_of(3, "field.seed=7")
    for config in coarse:
        same = {"domain": fine.domain, "field": fine.field, "density": fine.density}
        assert config.model_copy(update=same) == fine
        assert config.density.model_copy(update={"degree": fine.density.degree}) == fine.density
        assert config.field.model_copy(update={"layers": fine.field.layers}) == fine.field
        assert (config.domain.box.lower, config.domain.box.upper) == (fine.domain.box.lower, fine.domain.box.upper)


@pytest.mark.parametrize(
    ("fine", "expected"),
    [
        ([48, 24], [(4, 4), (6, 4), (12, 6), (24, 12), (48, 24)]),
        ([9, 7], [(4, 4), (5, 4), (9, 7)]),  # halves are rounded up
        ([64, 2], [(4, 2), (8, 2), (16, 2), (32, 2), (64, 2)]),  # an axis of few cells keeps them
        ([3, 2], [(3, 2)]),
        ([LEAST_CELLS, LEAST_CELLS], [(LEAST_CELLS, LEAST_CELLS)]),
        ([5, LEAST_CELLS], [(4, 4), (5, 4)]),
    ],
)
def test_boxes_keep_a_least_number_of_cells(fine: list[int], expected: list[tuple[int, ...]]) -> None:
    assert cells(levels_of(50, box(*fine), "density.degree=2")) == expected
    assert len(levels_of(len(expected), box(*fine), "density.degree=2")) == len(expected)


@pytest.mark.parametrize(("dim", "zero"), [(1, [0.0]), (3, [0.0, 0.0, 0.0])])
def test_other_dimensions(dim: int, zero: list[float]) -> None:
    more = [f"density.initial.0.mean={zero}", f"objective.terminal.target={zero}"]
    assert cells(levels_of(3, box(*[40] * dim), *more)) == [(5,) * dim, (10,) * dim, (40,) * dim]


def test_refinements_go_first() -> None:
    configs = levels_of(4, "domain.refine=3", "domain.box.cells=[12, 12]")
    assert [config.domain.refine for config in configs] == [0, 0, 1, 3]
    assert cells(configs) == [(6, 6), (12, 12), (12, 12), (12, 12)]


@pytest.mark.parametrize(("layers", "expected"), [(1, [1, 1, 1, 1]), (5, [2, 3, 5, 5]), (100, [25, 50, 100, 100])])
def test_layers_are_halved_below_the_two_finest_levels(layers: int, expected: list[int]) -> None:
    """They are rounded up."""
    for levels in (1, 2, 3, 4):
        found = [config.field.layers for config in levels_of(levels, f"field.layers={layers}")]
        assert found == expected[-levels:]


def test_a_given_theta_is_that_of_the_finest_level_only() -> None:
    rows = [[0.1 * k, 0.2] for k in range(8)]
    given = levels_of(2, f"field={{kind='linear', features='translation', layers=8, theta={rows}}}")
    assert given[0].field.theta is None
    assert given[-1].field.theta is not None


@pytest.mark.parametrize(
    ("refine", "levels", "degree", "expected"),
    [
        (0, 1, 2, [0]),
        (1, 1, 2, [1]),
        (1, 2, 2, [0, 1]),
        (3, 4, 2, [0, 1, 2, 3]),
        (3, 3, 1, [0, 1, 3]),
        (3, 4, 1, [0, 1, 3]),  # one of them is skipped
        (2, 2, 1, [0, 2]),
        (1, 2, 1, [0, 1]),
    ],
)
def test_a_mesh_file_is_refined_less(refine: int, levels: int, degree: int, expected: list[int]) -> None:
    configs = levels_of(levels, f"domain={{file='{SQUARE}', refine={refine}}}", f"density.degree={degree}")
    assert [config.domain.refine for config in configs] == expected
    assert {str(config.domain.file) for config in configs} == {SQUARE}


@pytest.mark.parametrize(("refine", "levels"), [(0, 2), (1, 3), (3, 9)])
def test_a_mesh_file_cannot_be_made_coarser_than_it_is(refine: int, levels: int) -> None:
    with pytest.raises(InputError, match="coarser") as caught:
        levels_of(levels, f"domain={{file='{SQUARE}', refine={refine}}}")
    assert caught.value.key == "optimiser.levels"
    assert caught.value.value == levels
    remedy = str(caught.value.remedy)
    assert f"domain.refine >= {levels - 1}" in remedy
    assert f"at most {refine + 1} levels" in remedy


@pytest.mark.parametrize("levels", [0, -1, 1.5, "true", "many"])
def test_levels_are_counted(levels: Any) -> None:
    with pytest.raises(InputError, match=">= 1") as caught:
        levels_of(levels)
    assert caught.value.key == "optimiser.levels"
