"""Fields as a user makes them, and what a problem makes of them in its domain."""

import subprocess
import sys

import numpy as np
import pytest

import eulerian as eu
from eulerian.base.errors import InputError
from eulerian.fields import Frame, NormalisedField, in_box
from eulerian.fields.features import Affine, RandomFeatures, Rbf, Residual, Translation

pytestmark = pytest.mark.one_process

BOX = ((-1.0, 0.0), (1.0, 3.0), 2.0)
OWN = Frame((0.0, 1.5), (1.0, 1.5), 0.75, 2.0)
WIDE = Frame((0.0, 1.5), (0.25, 0.375), 0.1875, 2.0)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (eu.Mlp(2, [16]), NormalisedField(eu.Mlp(2, (16,)), WIDE)),
        (eu.Linear(2), Affine(2, frame=OWN)),
        (eu.Linear(2, "translation", zero_init=False), Translation(2, zero_init=False, frame=OWN)),
        (eu.Linear(2, "rbf", 5, n_labels=3), NormalisedField(Rbf(2, 5, n_labels=3), OWN)),
        (eu.Linear(2, "random", seed=4), NormalisedField(RandomFeatures(2, 16, seed=4), OWN)),
        (eu.Linear(2, "residual", 3, seed=4), NormalisedField(Residual(2, 3, seed=4), OWN)),
        (NormalisedField(eu.Mlp(2), Frame.raw(2)), NormalisedField(eu.Mlp(2), Frame.raw(2))),
    ],
)
def test_every_field_says_how_it_is_used_in_a_domain(field, expected):
    framed = in_box(field, *BOX)
    assert framed == expected
    assert in_box(framed, (-9.0, -9.0), (9.0, 9.0), 2.0) == framed or not isinstance(framed, NormalisedField)
    assert framed.n_labels == field.n_labels


def test_nodal_velocities_stay_and_start_in_units_of_the_box():
    nodes = np.array([[1.0, 1.0], [0.0, 0.0]])
    field = in_box(eu.Nodal(nodes, zero_init=False), *BOX)
    start, drawn = field.init(np.random.default_rng(0)), np.random.default_rng(0).standard_normal(4)
    np.testing.assert_allclose(start, 0.75 * 0.1 * drawn)
    np.testing.assert_array_equal(field.value(np.arange(4.0), nodes), [[2.0, 3.0], [0.0, 1.0]])
    assert field.at_nodes_only


class Plain(Affine):
    """A user's class without a word about frames."""

    in_box = None


class Asking(Plain):
    normalised = True


def test_fields_of_others_are_asked_by_attribute():
    plain, asking = Plain(2), Asking(2)
    assert in_box(plain, *BOX) is plain
    assert in_box(asking, *BOX) == NormalisedField(asking, OWN)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("mlp", "^field: str is no VectorField: it has no n_params, init, value, vjp"),
        (None, "^field: NoneType is no VectorField"),
        (eu.Mlp(3, [8]), "^field: the field was built for dimension 3"),
    ],
)
def test_what_is_no_field_of_this_dimension_is_refused(field, message):
    with pytest.raises(InputError, match=message):
        in_box(field, *BOX)


def test_unknown_features_are_refused():
    with pytest.raises(InputError, match="must be one of affine, translation, rbf, random, residual"):
        eu.Linear(2, "wavelets")


def test_the_rooms_of_other_libraries_open_when_they_are_named():
    """`eulerian.jax` after `import eulerian` alone; JAX is not loaded before."""
    pytest.importorskip("jax")
    program = (
        "import sys\nimport eulerian\nassert 'jax' not in sys.modules\n"
        "import eulerian.fields\nassert 'jax' not in sys.modules\n"
        "print(eulerian.jax.equinox_field.__name__, eulerian.jax.flax_field.__name__, eulerian.jax.jax_field.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["equinox_field", "flax_field", "jax_field"]
