"""`objective.interaction`, and the terminal kinds `mmd` and `interaction`: their keys, and what is refused."""

from typing import Any

import pytest
from configurations import small

from eulerian.app.build.particles import refuse_on_particles
from eulerian.app.config import parse_config
from eulerian.base.errors import InputError
from eulerian.objective.interactions import InteractionEnergy, MaximumMeanDiscrepancy
from eulerian.objective.kernels import GaussianInteraction, QuadraticInteraction

pytestmark = pytest.mark.one_process

NORMAL = {"kind": "gaussian", "mean": [0.2], "std": 0.4}
QUADRATIC = {"kind": "quadratic", "weight": -0.5}
GAUSSIAN = {"kind": "gaussian", "weight": 2.0, "width": 0.3}
NEAR = {"kind": "quadratic", "target": [0.5]}
KERNELS = (QuadraticInteraction(-0.5), GaussianInteraction(2.0, 0.3))


def objective(**keys: Any) -> Any:
    return small(objective={"kinetic": 0.5, "terminal": NEAR, **keys})


@pytest.mark.parametrize(
    ("given", "expected"), [(QUADRATIC, KERNELS[:1]), ([GAUSSIAN], KERNELS[1:]), ([QUADRATIC, GAUSSIAN], KERNELS)]
)
def test_one_kernel_or_several(given: Any, expected: Any) -> None:
    config = parse_config(objective(interaction=given))
    assert parse_config(config.to_toml()) == config
    assert tuple(config.objective.costs().interaction) == expected


def test_terminal_costs() -> None:
    config = parse_config(objective(terminal={"kind": "interaction", "kernel": [QUADRATIC, GAUSSIAN]}))
    assert config.objective.terminal.cost(config.objective, print) == InteractionEnergy(*KERNELS)
    config = parse_config(objective(terminal={"kind": "mmd", "target": [NORMAL], "width": 0.4, "weight": 3.0}))
    cost = config.objective.terminal.cost(config.objective, lambda terms, *, projected: (len(terms), projected))
    assert cost == MaximumMeanDiscrepancy((1, True), 0.4, 3.0)
    refuse_on_particles(config)


@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        ({"interaction": {"kind": "gaussian", "weight": 1.0}}, "objective.interaction.width", "is missing"),
        ({"interaction": [QUADRATIC, {**GAUSSIAN, "width": 0.0}]}, "objective.interaction.1.width", "greater than 0"),
        ({"interaction": {"kind": "morse", "weight": 1.0}}, "objective.interaction.kind", "unknown kind"),
        ({"interaction": {**QUADRATIC, "width": 1.0}}, "objective.interaction.width", "unknown key"),
        ({"interaction": []}, "objective.interaction", "1 or more"),
        ({"terminal": {"kind": "interaction"}}, "objective.terminal.kernel", "is missing"),
        ({"terminal": {"kind": "mmd", "target": [NORMAL]}}, "objective.terminal.width", "is missing"),
    ],
)
def test_what_is_wrong_is_named(keys: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        parse_config(objective(**keys))
    assert caught.value.key == key


def test_particles_take_common_steps() -> None:
    config = parse_config(objective(interaction=QUADRATIC), overrides=("particles.method=dopri5",))
    with pytest.raises(InputError, match=r"particles\.method"):
        refuse_on_particles(config)
