"""Fields of PyTorch modules: laws, agreement with the built-in network, precision, export, and what is refused."""

import copy
import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='the extra "eulerian[torch]" is not installed')

from framework_laws import (  # noqa: E402
    LABELS,
    Sample,
    check_derivatives,
    check_label_and_time,
    check_pieces,
    check_shapes,
)
from torch import nn  # noqa: E402

from eulerian.base.errors import InputError  # noqa: E402
from eulerian.fields import Mlp, load_field  # noqa: E402
from eulerian.fields.torch import torch_field  # noqa: E402

# Fields know nothing of other ranks: what depends on them is in tests/test_foreign_models.py.
pytestmark = pytest.mark.one_process
DOUBLE = {"dtype": "float64"}


def mlp(inputs=2, outputs=2, activation=nn.Tanh):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(inputs, 6), activation(), nn.Linear(6, 6), activation(), nn.Linear(6, outputs))


class Bumps(nn.Module):
    """No network of layers: bumps whose centres move with the time, weighed by label; not all of it is trained."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(1)
        self.centres = nn.Parameter(torch.tensor(rng.standard_normal((4, 2))))
        self.velocities = nn.Parameter(torch.tensor(rng.standard_normal((4, 2))))
        self.by_label = nn.Embedding(LABELS, 2, dtype=torch.float64)
        self.width = nn.Parameter(torch.tensor(0.7), requires_grad=False)
        self.register_buffer("drift", torch.ones(2, dtype=torch.float64))

    def forward(self, x, *, label, time):
        offsets = x[..., None, :] - self.centres - time * self.drift
        bumps = torch.exp(-(offsets**2).sum(dim=-1) / self.width)
        return self.by_label(label) * (bumps @ self.velocities)


class Sine(nn.Module):
    """A frequency shared by two layers, in a module that takes one point."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(2, 2, bias=False)
        self.two = nn.Linear(2, 2, bias=False)
        self.two.weight = self.one.weight

    def forward(self, x):
        assert x.ndim == 1
        return torch.sin(self.two(torch.sin(self.one(x))))


class Shift(nn.Module):
    """A velocity that does not depend on the point."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([1.0, -2.0]))

    def forward(self, x):
        return self.shift.expand(x.shape)


MAKERS = {
    "mlp": lambda: torch_field(mlp(), **DOUBLE),
    "mlp, label and time": lambda: torch_field(mlp(3 + LABELS), n_labels=LABELS, time_dependent=True, **DOUBLE),
    "dropout and normalisation": lambda: torch_field(
        nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5), nn.Softplus(), nn.Dropout(0.5), nn.Linear(5, 2)), **DOUBLE
    ),
    "bumps": lambda: torch_field(Bumps(), n_labels=LABELS, time_dependent=True, inputs="separate", **DOUBLE),
    "shared weights, one by one": lambda: torch_field(Sine(), batched=False, **DOUBLE),
    "shift": lambda: torch_field(Shift(), **DOUBLE),
    "affine": lambda: torch_field(nn.Linear(2, 2), **DOUBLE),
}


@pytest.fixture(scope="module", params=MAKERS)
def field(request):
    return MAKERS[request.param]()


def test_derivatives(field):
    check_derivatives(field, 2, step=1e-5, tolerance=1e-7)


@pytest.mark.parametrize("kind", ["mlp, label and time", "shared weights, one by one", "shift"])
def test_many_points_and_none(kind):
    check_pieces(MAKERS[kind](), 2)


def test_labels_and_times(field):
    check_label_and_time(field, 2)


def test_shapes(field):
    check_shapes(field, 2)


@pytest.mark.parametrize("dim", [1, 3])
def test_other_dimensions(dim):
    check_derivatives(torch_field(mlp(dim, dim), **DOUBLE), dim, step=1e-5, tolerance=1e-7)


@pytest.mark.parametrize(("ours", "theirs"), [("tanh", nn.Tanh), ("softplus", nn.Softplus), ("relu", nn.ReLU)])
def test_a_torch_mlp_is_the_built_in_one(ours, theirs):
    """θ has the same order, so that a θ of one can be given to the other."""
    built_in = Mlp(2, (6, 6), ours, n_labels=LABELS, zero_init=False)
    c = Sample(torch_field(mlp(2 + LABELS, activation=theirs), n_labels=LABELS, **DOUBLE), 2)
    arguments = {"value": (), "vjp": (c.w,), "jacobian": (), "jacobian_vjp": (c.ww,), "jacobian_vjp_x": (c.ww,)}
    for method, cotangent in arguments.items():
        foreign = getattr(c.field, method)(c.theta, c.x, *cotangent, **c.given)
        own = getattr(built_in, method)(c.theta, c.x, *cotangent, **c.given)
        np.testing.assert_allclose(foreign, own, rtol=1e-12, atol=1e-13)


def test_float32_inside_float64_outside():
    module = mlp()
    single, double = torch_field(module), torch_field(module, **DOUBLE)
    c = Sample(single, 2)
    theta = c.theta.astype(np.float32).astype(float)
    v, exact = single.value(theta, c.x), double.value(theta, c.x)
    assert v.dtype == np.float64
    assert 1e-9 < np.max(np.abs(v - exact)) < 1e-5
    np.testing.assert_allclose(single.vjp(theta, c.x, c.w), double.vjp(theta, c.x, c.w), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(single.in_double().value(theta, c.x), exact)
    np.testing.assert_array_equal(single.value(theta, c.x), v)
    assert double.in_double() is double
    assert all(p.dtype == torch.float32 for p in module.parameters())


def test_the_wrapped_module_stays_as_it_is():
    """And what becomes of it later does not reach the field."""
    module = nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)).train()
    before = copy.deepcopy(module.state_dict())
    field = torch_field(module, **DOUBLE)
    c = Sample(field, 2)
    v = field.value(c.theta, c.x)
    field.vjp(c.theta, c.x, c.w)
    assert module.training
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    with torch.no_grad():  # must not reach the field either: it needs gradients
        module[1].running_mean += 1.0
        np.testing.assert_array_equal(field.value(c.theta, c.x), v)
        assert field.vjp(c.theta, c.x, c.w).any()


@pytest.mark.parametrize("kind", ["mlp", "shared weights, one by one"])
def test_a_trained_row_becomes_a_module(kind, tmp_path):
    field = MAKERS[kind]()
    c = Sample(field, 2)
    theta = np.stack([c.theta, c.theta + c.delta])
    np.savez(tmp_path / "theta.npz", theta=theta)
    modules = field.modules(tmp_path / "theta.npz")
    assert len(modules) == 2
    for row, module in zip(theta, modules, strict=True):
        module.double()
        with torch.no_grad():
            v = [module(point).numpy() for point in torch.from_numpy(c.x)]
        np.testing.assert_allclose(v, field.value(row, c.x), rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="theta: an array of shape"):
        field.modules(theta[:, 1:])


def test_the_start_is_the_module_or_a_fresh_draw():
    theta = torch_field(mlp()).init(np.random.default_rng(5))
    np.testing.assert_array_equal(theta[:12], mlp()[0].weight.detach().double().numpy().ravel())
    state = torch.random.get_rng_state()
    fresh = torch_field(mlp(), initialise=lambda: nn.Sequential(*(copy.deepcopy(layer) for layer in drawn())))
    one, same, other = (fresh.init(np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    assert torch.equal(state, torch.random.get_rng_state())
    with pytest.raises(InputError, match="another structure"):
        torch_field(mlp(), initialise=lambda: nn.Linear(2, 2)).init(np.random.default_rng(5))


def drawn():
    return nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))


class Odd(nn.Linear):
    """A linear map and something wrong with its values."""

    def __init__(self, change):
        super().__init__(2, 2)
        self.change = change

    def forward(self, x):
        return self.change(super().forward(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nn.Tanh, "holds no parameters"),
        (lambda: nn.Linear(2, 2).requires_grad_(False), "holds no parameters"),
        (lambda: nn.Linear(2, 2, dtype=torch.complex64), "weight is torch.complex64"),
        (lambda: nn.LazyLinear(2), "no shape yet"),
        (lambda: nn.Linear(2, 1), r"must return shape \(2, 2\) for 2 points of dimension 2, it returns \(2, 1\)"),
        (lambda: nn.Linear(3, 2), "cannot be applied to 2 coordinates: RuntimeError"),
        (lambda: Odd(lambda v: (v, 1)), "must return an array, it returns tuple"),
        (lambda: Odd(lambda v: v.sign().long()), "floating-point numbers, it returns torch.int64"),
        (lambda: Odd(lambda v: v * 1j), "floating-point numbers, it returns torch.complex64"),
        (lambda: Odd(lambda v: v * float("nan")), "not finite"),
        (lambda: lambda x: x, r"must be a torch.nn.Module; got 'function'"),
    ],
)
def test_modules_that_do_not_fit(make, message, monkeypatch):
    module = type(sys)("a_users_module")
    module.field = lambda: torch_field(make())
    monkeypatch.setitem(sys.modules, "a_users_module", module)
    with pytest.raises(InputError, match=message) as error:
        load_field("a_users_module:field", dim=2)
    assert error.value.key == "field.object"


def test_wrong_ways_to_ask():
    with pytest.raises(InputError, match="dtype"):
        torch_field(mlp(), dtype="float16")
    field = torch_field(mlp(), n_labels=LABELS, time_dependent=True)
    theta = field.init(np.random.default_rng(0))
    with pytest.raises(InputError, match="2 coordinates, 3 label entries, the time"):
        field.value(theta, np.zeros((1, 2)), 0, 0.0)


@pytest.mark.mpi
def test_without_the_extra():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from eulerian.base.errors import InputError\n"
        "try:\n    import eulerian.torch\n"
        "except InputError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert 'pip install "eulerian[torch]"' in done.stdout
