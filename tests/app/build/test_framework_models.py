"""Models of JAX and PyTorch in whole problems: J and ∇J of the built-in network, on every number of ranks."""

from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import LABELLINGS, problem_config, theta_with_layers

from eulerian.app.build.network import build, build_particles
from eulerian.app.config import parse_config
from eulerian.app.tasks import run_verify
from eulerian.base.errors import InputError
from eulerian.control.reduced import ReducedProblem
from eulerian.fields.frame import Frame, NormalisedField, unwrapped

pytestmark = pytest.mark.two_ranks

# What users write, but for the double precision that the comparison needs.
EQUINOX = """
    import equinox as eqx, jax
    from eulerian.jax import equinox_field
    model = eqx.nn.MLP({inputs}, 2, 5, 2, activation=jax.numpy.tanh, key=jax.random.key(0))
    field = equinox_field(model, dtype="float64"{given})
"""
TORCH = """
    from torch import nn
    from eulerian.torch import torch_field
    model = nn.Sequential(nn.Linear({inputs}, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2))
    field = torch_field(model, dtype="float64"{given})
"""
# The built-in network with the time added to the first coordinate before and to the velocity after it.
BUILT_IN_IN_TIME = """
    import numpy as np
    from eulerian.fields import Mlp

    class Timed(Mlp):
        time_dependent = True

        def value(self, theta, x, time):
            return super().value(theta, x + [time, 0.0]) * (1.0 + time)

        def vjp(self, theta, x, w, time):
            return super().vjp(theta, x + [time, 0.0], w * (1.0 + time))

        def jacobian(self, theta, x, time):
            return super().jacobian(theta, x + [time, 0.0]) * (1.0 + time)

        def jacobian_vjp(self, theta, x, w, time):
            return super().jacobian_vjp(theta, x + [time, 0.0], w * (1.0 + time))

        def jacobian_vjp_x(self, theta, x, w, time):
            return super().jacobian_vjp_x(theta, x + [time, 0.0], w * (1.0 + time))

    field = Timed(2, (5, 5))
"""
EQUINOX_IN_TIME = """
    import equinox as eqx, jax
    from eulerian.jax import equinox_field

    class Timed(eqx.Module):
        network: eqx.nn.MLP

        def __call__(self, x, *, time):
            return self.network(x + time * jax.numpy.array([1.0, 0.0])) * (1.0 + time)

    network = eqx.nn.MLP(2, 2, 5, 2, activation=jax.numpy.tanh, key=jax.random.key(0))
    field = equinox_field(Timed(network), dtype="float64", time_dependent=True, inputs="separate")
"""
TORCH_IN_TIME = """
    import torch
    from torch import nn
    from eulerian.torch import torch_field

    class Timed(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2))

        def forward(self, x, *, time):
            return self.network(x + time * torch.tensor([1.0, 0.0], dtype=x.dtype)) * (1.0 + time)

    field = torch_field(Timed(), dtype="float64", time_dependent=True, inputs="separate")
"""
without_torch = pytest.mark.skipif(find_spec("torch") is None, reason='the extra "eulerian[torch]" is not installed')
LIBRARIES = ["equinox", pytest.param("torch", marks=without_torch)]
PLAIN = {"equinox": EQUINOX, "torch": TORCH}
IN_TIME = {"equinox": EQUINOX_IN_TIME, "torch": TORCH_IN_TIME}


class Models:
    """Users' modules in a folder that all ranks see."""

    def __init__(self, comm: MPI.Comm, folder: Path) -> None:
        self.comm, self.folder = comm, folder

    def section(self, text: str, name: str = "mymodel", **keys: Any) -> dict[str, Any]:
        """Keys of the section [field] for a module with this text."""
        if self.comm.rank == 0:
            (self.folder / f"{name}.py").write_text(dedent(text), encoding="utf-8")
        self.comm.barrier()
        shared = {"layers": 3, "horizon": 0.6}
        return {**shared, "kind": "python", "object": f"{name}:field", "folder": str(self.folder), **keys}


@pytest.fixture
def models(comm: MPI.Comm, tmp_path: Path) -> Models:
    return Models(comm, tmp_path)


def config_with(field: dict[str, Any], labelling: str = LABELLINGS[0], **tables: Any) -> Any:
    return parse_config({**problem_config(2, 1, labelling, 4, **tables), "field": field})


def agree(one: ReducedProblem, other: ReducedProblem, theta: np.ndarray) -> None:
    """The same J, parts and ∇J to a relative 1e-10."""
    value, gradient = one.value_and_gradient(theta)
    foreign, foreign_gradient = other.value_and_gradient(theta)
    assert foreign == pytest.approx(value, rel=1e-10)
    assert other.parts == pytest.approx(one.parts, rel=1e-10)
    assert np.max(np.abs(gradient)) > 1e-3
    assert np.linalg.norm(foreign_gradient - gradient) <= 1e-10 * np.linalg.norm(gradient)


@pytest.mark.parametrize("labelling", LABELLINGS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_equal_weights_give_equal_objectives_and_gradients(comm, models, library, labelling):
    by_label = labelling == LABELLINGS[2]
    built_in = {"kind": "mlp", "hidden": [5, 5], "layers": 3, "horizon": 0.6, "zero_init": False, "output_scale": 1.5}
    built_in["label_dependent"] = by_label
    given = {"inputs": 4 if by_label else 2, "given": ", n_labels=2" if by_label else ""}
    foreign = models.section(PLAIN[library].format(**given), label_dependent=by_label)
    config = config_with(built_in, labelling)
    own = build(config, comm, NormalisedField(unwrapped(build(config, comm).field), Frame.raw(2)))
    agree(own, build(config_with(foreign, labelling), comm), theta_with_layers(own, size=0.3))


@pytest.mark.parametrize("library", LIBRARIES)
def test_models_in_time_with_tied_layers(comm, models, library):
    """The usual neural ODE: one row of parameters, the time is an input."""
    own = build(config_with(models.section(BUILT_IN_IN_TIME, "own", tied=True)), comm)
    other = build(config_with(models.section(IN_TIME[library], "other", tied=True)), comm)
    theta = other.initial_theta + 0.5 * np.random.default_rng(0).standard_normal(other.initial_theta.shape)
    assert theta.shape == (1, 57)
    agree(own, other, theta)


@pytest.mark.parametrize("library", LIBRARIES)
def test_particles_of_models_in_time(comm, models, library):
    """With every derivative that there is: the log-density of kl and the Jacobian cost."""
    kl = {"kind": "kl", "target": [{"kind": "gaussian", "mean": [0.4, 0.2], "std": 0.3}]}
    objective = {"terminal": kl, "congestion": 0.0, "entropy": 0.0}
    particles = {"count": 60, "replicates": 4, "steps_per_layer": 1}

    def on_particles(text, name):
        field = models.section(text, name, tied=True)
        return build_particles(config_with(field, objective=objective, particles=particles), comm)

    own, other = on_particles(BUILT_IN_IN_TIME, "own"), on_particles(IN_TIME[library], "other")
    theta = other.initial_theta + 0.5 * np.random.default_rng(0).standard_normal(other.initial_theta.shape)
    agree(own, other, theta)


def test_a_model_drawn_without_a_seed_starts_alike_on_all_ranks(comm, models):
    text = """
        import numpy as np
        from eulerian.jax import jax_field
        field = jax_field(lambda p, x: p @ x, np.random.default_rng().standard_normal((2, 2)))
    """
    problem = build(config_with(models.section(text)), comm)
    start = comm.bcast(problem.initial_theta, 0)
    np.testing.assert_array_equal(problem.initial_theta, start)


@pytest.mark.skipif(MPI.COMM_WORLD.size == 1, reason="needs ranks that differ")
def test_fixed_parts_drawn_without_a_seed_are_refused(comm, models):
    text = """
        import numpy as np
        from eulerian.jax import jax_field
        fixed = np.random.default_rng().standard_normal((2, 2))
        field = jax_field(lambda p, x: p * (fixed @ x), np.ones(2))
    """
    with pytest.raises(InputError, match=r"mymodel:field.*Give a seed"):
        build(config_with(models.section(text)), comm)


def test_a_model_that_does_not_fit_is_refused_on_all_ranks(comm, models):
    with pytest.raises(InputError, match=r"cannot be applied to 2 coordinates"):
        build(config_with(models.section(EQUINOX.format(inputs=3, given=""))), comm)
    with pytest.raises(InputError, match=r"wrapped without labels.*n_labels"):
        build(
            config_with(models.section(EQUINOX.format(inputs=2, given=""), label_dependent=True), LABELLINGS[2]), comm
        )


@pytest.mark.mpi
@pytest.mark.parametrize("library", ["jax", pytest.param("torch", marks=without_torch)])
def test_either_library_may_come_first(library, mpirun):
    """Libraries with threads beside MPI and PETSc, on two ranks, imported in both orders."""
    job = (
        "import importlib, os\n"
        f"names = ['{library}', 'eulerian.app.build.network']\n"
        "for name in names if os.environ.get('PMI_RANK', '0') == '0' else reversed(names):\n"
        "    importlib.import_module(name)\n"
        f"import eulerian.fields.{library}\n"
        "print('fine')\n"
    )
    done = mpirun(2, job)
    assert (done.returncode, done.stdout.split()) == (0, ["fine", "fine"]), done.stderr
    assert "Warning" not in done.stderr


def test_threads_are_shared_among_ranks(monkeypatch):
    from eulerian.fields.framework import threads_per_rank

    for name in ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_per_rank() is None
    monkeypatch.setenv("MPI_LOCALNRANKS", "1")
    assert threads_per_rank() is None
    monkeypatch.setenv("MPI_LOCALNRANKS", "64")
    assert threads_per_rank() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(160)), raising=False)
    assert threads_per_rank() == 2
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    assert threads_per_rank() == 1


@pytest.mark.parametrize("limited", [False, True])
def test_a_model_in_float32_is_verified_in_float64(comm, models, limited):
    """The three lines of the documentation, with the precision that JAX has by default."""
    text = """
        import equinox as eqx, jax
        from eulerian.jax import equinox_field
        field = equinox_field(eqx.nn.MLP(2, 2, 5, 2, key=jax.random.key(0)))
    """
    if limited:
        text += "\n        from eulerian import SpeedLimit\n        field = SpeedLimit(field, 0.2)\n"
    config = {**problem_config(2, 1, LABELLINGS[0], 4), "field": models.section(text)}
    config["output"] = {"directory": str(models.folder / "run"), "densities": 0}
    document = run_verify(parse_config(config), comm)
    assert document["status"] == "done", document["reason"]
    assert min(document["verify"]["taylor_rates"]) > 1.9
    # λ/2 ∫∫|v|²ρ, λ = 0.5 and T = 0.6
    assert (document["objective"]["kinetic"] <= 0.25 * 0.6 * 0.2**2) == limited
