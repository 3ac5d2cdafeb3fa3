"""What particles gather, and the derivatives of it."""

from typing import Any

import numpy as np
import pytest

from eulerian.base.arrays import Floats
from eulerian.fields import Affine, Mlp
from eulerian.fields.piecewise import PiecewiseField
from eulerian.objective.costs import Costs
from eulerian.objective.point_functions import as_point_function
from eulerian.particles.right_hand_side import Motion, RightHandSide

pytestmark = pytest.mark.one_process

DIM = 3
POTENTIAL = as_point_function("x*y + exp(z/2)", DIM, "test")
CHOICES: list[dict[str, Any]] = [
    {},
    {"terms": Costs(kinetic=0.7).velocity_terms},
    {"terms": Costs(jacobian=0.4).velocity_terms},
    {"potential": POTENTIAL},
    {"log_density": True},
    {"terms": Costs(kinetic=0.7, jacobian=0.4).velocity_terms, "potential": POTENTIAL, "log_density": True},
]


def motion(theta: Floats | None = None, sign: float = 1.0, **costs: Any) -> Motion:
    field = Mlp(DIM, (6,), n_labels=2, zero_init=False)
    theta = field.init(np.random.default_rng(1)) if theta is None else theta
    layered = PiecewiseField(field, [0.25, 0.75], label_dependent=True)
    return Motion(RightHandSide(layered, DIM, **costs), 1, theta, 1, sign)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("costs", CHOICES, ids=lambda costs: "+".join(costs) or "none")
def test_derivatives(costs: dict[str, Any], sign: float) -> None:
    rng = np.random.default_rng(7)
    here = motion(None, sign, **costs)
    x, theta = rng.standard_normal((5, DIM)), here.theta
    w, dx, dtheta = (rng.standard_normal(shape) for shape in ((5, here.rates.width), x.shape, theta.shape))
    by_point, by_theta = here.vjp(x, here.velocity(x), w)
    e = 1e-5
    ahead, behind = (motion(theta + s * dtheta, sign, **costs).value(x + s * dx) for s in (e, -e))
    slope = np.vdot(w, ahead - behind) / (2 * e)
    assert np.vdot(by_point, dx) + np.vdot(by_theta, dtheta) == pytest.approx(slope, rel=1e-7)


def test_columns_are_what_they_are_called() -> None:
    matrix = np.array([[1.0, 2.0], [-0.5, 0.3]])
    theta, x = np.concatenate([matrix.ravel(), [0.1, 0.2]]), np.array([[0.5, -1.0], [2.0, 0.0]])
    potential = as_point_function("x + 10*y", 2, "test")
    rates = RightHandSide(
        PiecewiseField(Affine(2), [0.5]), 2, Costs(3.0, 5.0).velocity_terms, potential, log_density=True
    )
    assert rates.names == ("kinetic", "jacobian", "potential", "log_density")
    v = x @ matrix.T + [0.1, 0.2]
    columns = [1.5 * (v**2).sum(1), np.full(2, 2.5 * (matrix**2).sum()), x @ [1.0, 10.0], np.full(2, -1.3)]
    np.testing.assert_allclose(Motion(rates, 0, theta).value(x), np.column_stack([v, *columns]), rtol=1e-14)
