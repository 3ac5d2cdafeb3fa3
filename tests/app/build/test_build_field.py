"""From the section [field] to a field and its first parameters."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from eulerian.app.config.field import AnyField, FreeField, LinearField, MlpField, PythonField
from eulerian.base.errors import InputError
from eulerian.fields import (
    Affine,
    Frame,
    Mlp,
    Nodal,
    NormalisedField,
    RandomFeatures,
    Rbf,
    Residual,
    Translation,
)

pytestmark = pytest.mark.one_process

LOWER, UPPER = (-1.0, 0.0), (1.0, 3.0)
BOX = (LOWER, UPPER)


def section(**keys) -> AnyField:
    kinds = {"linear": LinearField, "mlp": MlpField, "free": FreeField, "python": PythonField}
    return kinds[keys["kind"]](**keys)


FRAME = Frame((0.0, 1.5), (1.0, 1.5), 0.75, 2.0)
WIDE = Frame((0.0, 1.5), (0.25, 0.375), 0.1875, 2.0)  # a perceptron's box is from -4 to 4


@pytest.mark.parametrize(
    ("keys", "field"),
    [
        ({"kind": "linear", "features": "affine"}, Affine(2, frame=FRAME)),
        (
            {"kind": "linear", "features": "translation", "zero_init": False},
            Translation(2, zero_init=False, frame=FRAME),
        ),
        (
            {"kind": "linear", "features": "rbf", "width": 5, "label_dependent": True},
            NormalisedField(Rbf(2, 5, n_labels=3), FRAME),
        ),
        ({"kind": "linear", "features": "random", "seed": 4}, NormalisedField(RandomFeatures(2, 16, seed=4), FRAME)),
        (
            {"kind": "linear", "features": "residual", "seed": 4, "width": 3},
            NormalisedField(Residual(2, 3, seed=4), FRAME),
        ),
        ({"kind": "mlp"}, NormalisedField(Mlp(2, (32, 32)), WIDE)),
        (
            {
                "kind": "mlp",
                "hidden": [7],
                "activation": "softplus",
                "output_scale": 0.5,
                "zero_init": False,
                "label_dependent": True,
            },
            NormalisedField(Mlp(2, (7,), "softplus", n_labels=3, zero_init=False, output_scale=0.5), WIDE),
        ),
        (
            {"kind": "python", "object": "eulerian.fields:Affine", "label_dependent": True},
            NormalisedField(Affine(2, n_labels=3), Frame.raw(2)),
        ),
    ],
)
def test_every_kind(keys, field):
    assert section(**keys, horizon=2.0).build(2, 3, np.array(LOWER), np.array(UPPER)) == field


def test_networks_can_be_in_a_frame_of_their_own():
    """Parameters in a file belong to it; those of other fields mean the same everywhere."""
    other = Frame((5.0, 5.0), (1.0, 2.0), 3.0, 4.0)
    for keys in ({"kind": "mlp"}, {"kind": "linear", "features": "rbf"}):
        field = section(**keys).build(2, 1, *BOX, frame=other)
        assert isinstance(field, NormalisedField)
        assert field.frame == other
    affine = section(kind="linear", features="affine")
    assert affine.build(2, 1, *BOX, frame=other) == affine.build(2, 1, *BOX)
    with pytest.raises(InputError, match="belong to a network of dimension 1"):
        section(kind="mlp").build(2, 1, *BOX, frame=Frame.raw(1))


def test_parameters_of_earlier_versions_mean_what_they_meant():
    """A perceptron saw the coordinates; features were laid out in the box; velocities were the user's."""
    assert section(kind="mlp").earlier_frame(*BOX) == Frame.raw(2)
    for features in ("rbf", "random", "residual"):
        frame = section(kind="linear", features=features, horizon=2.0).earlier_frame(*BOX)
        assert frame == Frame(FRAME.centre, FRAME.length, 1.0, 1.0)


def test_free_takes_the_nodes_of_the_mesh():
    nodes = np.array([[1.0, 1.0], [0.0, 0.0]])
    field = section(kind="free", label_dependent=True).build(2, 3, *BOX, nodes)
    assert isinstance(field, Nodal)
    assert field.n_params(2) == 12
    with pytest.raises(InputError, match="needs the nodes"):
        section(kind="free").build(2, 1, *BOX)


def test_the_start_is_one_draw_for_all_layers():
    config = section(kind="mlp", hidden=[4], seed=3, zero_init=False, layers=5)
    field = config.build(2, 1, *BOX)
    theta = config.initial_theta(field, 2)
    assert theta.flags.writeable
    np.testing.assert_array_equal(theta, np.tile(field.init(np.random.default_rng(3)), (5, 1)))
    np.testing.assert_array_equal(theta, config.initial_theta(field, 2))


def test_rows_serve_one_layer_each_or_one_serves_all():
    one = section(kind="linear", features="translation", theta=[[1, 2.5]], layers=3)
    np.testing.assert_array_equal(one.initial_theta(Translation(2), 2), [[1, 2.5]] * 3)
    each = section(kind="linear", features="translation", theta=[[1, 2], [3, 4]], layers=2)
    np.testing.assert_array_equal(each.initial_theta(Translation(2), 2), [[1, 2], [3, 4]])


def test_rows_that_do_not_fit():
    config = section(kind="linear", features="affine", theta=[[1.0, 2.0]], layers=3)
    with pytest.raises(InputError, match=r"field.theta: has shape \(1, 2\), but 3 layers of 6 .*A row by row, then b"):
        config.initial_theta(Affine(2), 2)
    several = section(kind="linear", features="translation", theta=[[1.0], [2.0]], layers=2)
    with pytest.raises(InputError, match=r"field.theta: has shape \(2, 1\), but 2 layers of 2"):
        several.initial_theta(Translation(2), 2)


class TestFile:
    """theta = "theta.npz"."""

    def load(self, path, layers=2):
        config = LinearField.model_construct(kind="linear", features="translation", layers=layers, theta=path)
        return config.initial_theta(Translation(2), 2)

    @pytest.mark.parametrize("theta", [[[1, 2], [3, 4]], [[1, 2]], [1, 2]])
    def test_rows(self, tmp_path, theta):
        path = tmp_path / "theta.npz"
        np.savez(path, theta=np.array(theta), other=np.zeros(3))
        np.testing.assert_array_equal(self.load(path), np.broadcast_to(np.array(theta, float), (2, 2)))

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"weights": np.zeros(2)}, "no array called 'theta'"),
            ({"theta": np.zeros((3, 2))}, r"has shape \(3, 2\)"),
            ({"theta": np.zeros((2, 2, 1))}, r"has shape \(2, 2, 1\)"),
            ({"theta": np.array(1.0)}, r"has shape \(\)"),
            ({"theta": np.array([1.0, np.inf])}, "not finite"),
            ({"theta": np.array(["a", "b"])}, "holds no numbers"),
            ({"theta": np.array([{}, {}], dtype=object)}, "cannot be read"),
        ],
    )
    def test_wrong_contents(self, tmp_path, arrays, message):
        path = tmp_path / "theta.npz"
        np.savez(path, **arrays)
        with pytest.raises(InputError, match=message) as error:
            self.load(path)
        assert error.value.key == "field.theta"

    @pytest.mark.parametrize("content", [None, b"", b"not a zip file", b"PK\x03\x04 cut off"])
    def test_no_such_file(self, tmp_path, content):
        path = tmp_path / "theta.npz"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=r"field.theta: cannot be read"):
            self.load(path)

    def test_a_single_array_is_no_archive(self, tmp_path):
        np.save(tmp_path / "theta.npy", np.zeros((2, 2)))
        with pytest.raises(InputError, match=r"field.theta: cannot be read"):
            self.load(tmp_path / "theta.npy")


def test_the_sections_are_those_of_the_configuration():
    adapter = TypeAdapter(AnyField)
    assert adapter.validate_python({"kind": "mlp"}) == section(kind="mlp")
