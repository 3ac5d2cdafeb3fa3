"""One value and one gradient by dolfinx-adjoint, by a tape of UFL forms, and by eulerian, of the same discrete J.

    python scripts/bench/adjoint.py --rivals FOLDER

The same mesh, degree, upwind flux, Runge-Kutta steps and network, no limiter (no other tape differentiates through one)
and a terminal loss only (a running cost would be one more form at every stage). Every stage is a linear problem with
the mass matrix, which the orthonormal basis makes diagonal, so one step of Jacobi solves it.

* dolfinx-adjoint: every stage is a `LinearProblem` on its tape; the tape is recorded once, and what is timed is to
  replay it at new velocities and to differentiate. What is compiled when it is used first is not counted.
* tape of forms: what one would write by hand with DOLFINx: per stage one assembled vector, in reverse the assembled
  action of the transposed form and of its derivative by the velocity; all forms are compiled once.

All three see the network only through nodal velocities, and their gradients by θ must agree.
"""

import importlib.util
import statistics
import time
from pathlib import Path
from typing import Any

from mpi4py import MPI  # noqa: F401 - starts MPI before anything else

import basix.ufl
import cases
import dolfinx
import numpy as np
import ufl
from suite import Benchmark, Report, Runner, Table, in_turns, main, ratios

AGREE = 1e-8


def work(kind: str, cells: int, degree: int, layers: int, steps: int, runs: int) -> Table:
    """Seconds of one value with its gradient, and how far the gradients are apart."""
    shape = {"degree": degree, "layers": layers, "steps": steps, "hidden": [16]}
    problem = cases.problem(cells, **shape, limiter=False, kinetic=0.0)
    theta = problem.initial_theta
    J, gradient = problem.value_and_gradient(theta)
    rival = {"tape": FormTape, "dolfinx-adjoint": DolfinxAdjoint}[kind](problem)

    def ours() -> None:
        problem.forget()
        problem.value_and_gradient(theta)

    started = time.perf_counter()
    other_J, other = rival.value_and_gradient(theta)
    first = time.perf_counter() - started
    mine, theirs = in_turns(runs, ours, lambda: rival.value_and_gradient(theta), warm=0)
    return {
        "dofs": problem.density_space.n_owned * problem.density_space.nd,
        "steps": int(sum(problem.steps)),
        "stages": problem.trajectory.steppers[0].scheme.stages,
        "first": first,
        "eulerian": statistics.median(mine),
        "rival": statistics.median(theirs),
        "times": ratios(theirs, mine),
        "value_error": abs(other_J - J) / abs(J),
        "gradient_error": float(np.linalg.norm(other - gradient) / np.linalg.norm(gradient)),
    }


class Scheme:
    """The discretisation in UFL, and what all rivals share.

    Args:
        problem: eulerian's.
    """

    def __init__(self, problem: Any) -> None:

        self.problem = problem
        space = problem.density_space
        self.degree, self.mesh = space.degree, space.mesh
        cell = self.mesh.topology.cell_name()
        legendre = basix.ufl.element(
            "DG", cell, space.degree, lagrange_variant=basix.LagrangeVariant.legendre, discontinuous=True
        )
        self.V = dolfinx.fem.functionspace(self.mesh, legendre)
        self.W = dolfinx.fem.functionspace(self.mesh, ("Lagrange", max(space.degree, 1), (space.dim,)))
        self.x = self.W.tabulate_dof_coordinates()[:, : space.dim]
        # The same method: stage = α start + (1 − α)(before + Δt B before), Δt a part of the time step.
        scheme = problem.trajectory.steppers[0].scheme
        self.alpha, self.steps = scheme.alpha, problem.steps
        self.dt = [problem.grid.layer_time / n / scheme.coefficient for n in problem.steps]
        self.dx = ufl.Measure("dx", self.mesh, metadata={"quadrature_degree": 3 * space.degree})
        self.dS = ufl.Measure("dS", self.mesh, metadata={"quadrature_degree": 2 * space.degree + 1})

    def flux(self, v: Any, rho: Any, test: Any) -> Any:
        """⟨w, A(v)ρ⟩."""

        n = ufl.FacetNormal(self.mesh)
        s = ufl.dot(v("+"), n("+"))
        size = ufl.sqrt(s * s + self.problem.smoothing**2)
        upwind = 0.5 * (s * (rho("+") + rho("-")) + size * (rho("+") - rho("-")))
        return ufl.inner(rho * v, ufl.grad(test)) * self.dx - (test("+") - test("-")) * upwind * self.dS

    def loss(self, rho: Any) -> Any:
        """½∫|x − target|²ρ."""

        x, dim = ufl.SpatialCoordinate(self.mesh), self.problem.density_space.dim
        return 0.5 * sum((x[i] - cases.TARGETS[dim][i]) ** 2 for i in range(dim)) * rho * self.dx

    def initial(self, rho: Any) -> None:
        """The same initial density: modes of the same basis, cell by cell."""
        rho.x.array[:] = self.problem.initial_density.ravel()

    def velocities(self, theta: Any) -> list[Any]:
        """Nodal velocities (n · dim,) of every layer."""
        return [self.problem.field.value(row, self.x).ravel() for row in theta]

    def pulled_back(self, theta: Any, by_velocity: list[Any]) -> Any:
        """The gradient by θ."""
        field = self.problem.field
        rows = [field.vjp(row, self.x, w.reshape(self.x.shape)) for row, w in zip(theta, by_velocity, strict=True)]
        return np.array(rows)


class DolfinxAdjoint(Scheme):
    """J on the tape of dolfinx-adjoint, which is recorded once and then replayed, as its optimisers do."""

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        self.reduced: Any = None

    def value_and_gradient(self, theta: Any) -> tuple[float, Any]:
        """J and its gradient; the first call records the tape."""
        velocities = self.velocities(theta)
        if self.reduced is None:
            self.record(velocities)
        for v, nodal in zip(self.controls, velocities, strict=True):
            v.x.array[:] = nodal
        J = self.reduced(self.controls)
        return float(J), self.pulled_back(theta, [g.x.array.copy() for g in self.reduced.derivative()])

    def record(self, velocities: list[Any]) -> None:
        """One forward solve."""
        import pyadjoint
        from dolfinx_adjoint import assemble_scalar

        pyadjoint.set_working_tape(pyadjoint.Tape())
        pyadjoint.continue_annotation()
        self.controls, rho = self.forward(velocities)
        J = assemble_scalar(self.loss(rho))
        pyadjoint.pause_annotation()
        self.reduced = pyadjoint.ReducedFunctional(J, [pyadjoint.Control(v) for v in self.controls])

    def forward(self, velocities: list[Any]) -> tuple[list[Any], Any]:
        """The controls, and ρ(T)."""
        from dolfinx_adjoint import Function

        controls = []
        rho = Function(self.V, name="rho")
        self.initial(rho)
        for layer, nodal in enumerate(velocities):
            v = Function(self.W, name=f"v{layer}")
            v.x.array[:] = nodal
            controls.append(v)
            rho = self.step_forward(v, rho, layer)
        return controls, rho

    def step_forward(self, v: Any, rho: Any, layer: int) -> Any:
        """One layer: as many problems as two steps have stages, so that no function is copied."""
        from dolfinx_adjoint import Function

        stages = len(self.alpha)
        states = [Function(self.V) for _ in range(2 * stages)]
        problems: dict[tuple[int, int], Any] = {}
        before = rho
        for step in range(self.steps[layer]):
            current = before
            for i in range(stages):
                target = states[(step % 2) * stages + i]
                key = (0 if step == 0 else 1 + step % 2, i)
                if key not in problems:
                    problems[key] = self.stage(v, before, current, target, i, self.dt[layer])
                current = problems[key].solve()
            before = current
        return before

    def stage(self, v: Any, start: Any, current: Any, target: Any, i: int, dt: float) -> Any:
        """target = α start + (1 − α)(current + Δt B current)."""
        from dolfinx_adjoint import LinearProblem

        trial, test = ufl.TrialFunction(self.V), ufl.TestFunction(self.V)
        alpha = self.alpha[i]
        right = (1 - alpha) * (current * test * self.dx + dt * self.flux(v, current, test))
        if alpha:
            right += alpha * start * test * self.dx
        options = {"ksp_type": "preonly", "pc_type": "jacobi"}
        return LinearProblem(
            trial * test * self.dx, right, u=target, petsc_options=options, adjoint_petsc_options=options
        )


class FormTape(Scheme):
    """J and its reverse with assembled forms, written out."""

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)

        test = ufl.TestFunction(self.V)
        self.v, self.rho, self.lam = (dolfinx.fem.Function(space) for space in (self.W, self.V, self.V))
        product = self.flux(self.v, self.rho, test)
        scalar = self.flux(self.v, self.rho, self.lam)
        self.product = dolfinx.fem.form(product)
        self.transposed = dolfinx.fem.form(ufl.derivative(scalar, self.rho))
        self.by_velocity = dolfinx.fem.form(ufl.derivative(scalar, self.v))
        self.loss_form = dolfinx.fem.form(self.loss(self.rho))
        self.loss_slope = dolfinx.fem.form(ufl.derivative(self.loss(self.rho), self.rho))
        mass = dolfinx.fem.assemble_vector(dolfinx.fem.form(ufl.action(self.mass(), self.ones())))
        self.inverse_mass = 1.0 / mass.array

    def mass(self) -> Any:
        """The mass matrix, which is diagonal."""

        return ufl.TrialFunction(self.V) * ufl.TestFunction(self.V) * self.dx

    def ones(self) -> Any:
        """A function with all coefficients 1: the mass matrix times it is its diagonal."""

        function = dolfinx.fem.Function(self.V)
        function.x.array[:] = 1.0
        return function

    def assembled(self, form: Any) -> Any:
        """A vector."""

        return dolfinx.fem.assemble_vector(form).array

    def value_and_gradient(self, theta: Any) -> tuple[float, Any]:
        """All stages are kept."""
        velocities = self.velocities(theta)
        self.initial(self.rho)
        rho, tape = self.rho.x.array.copy(), []
        for layer, nodal in enumerate(velocities):
            self.v.x.array[:] = nodal
            for _ in range(self.steps[layer]):
                start, befores = rho, []
                for alpha in self.alpha:
                    befores.append(rho)
                    self.rho.x.array[:] = rho
                    slope = self.inverse_mass * self.assembled(self.product)
                    rho = alpha * start + (1 - alpha) * (rho + self.dt[layer] * slope)
                tape.append((layer, befores))
        self.rho.x.array[:] = rho
        J = dolfinx.fem.assemble_scalar(self.loss_form)
        cotangent = self.assembled(self.loss_slope).copy()
        by_velocity = [np.zeros_like(nodal) for nodal in velocities]
        for layer, befores in reversed(tape):
            self.v.x.array[:] = velocities[layer]
            cotangent = self.step_vjp(cotangent, befores, self.dt[layer], by_velocity[layer])
        return float(J), self.pulled_back(theta, by_velocity)

    def step_vjp(self, cotangent: Any, befores: list[Any], dt: float, by_velocity: Any) -> Any:
        """The reverse of one step."""
        start = np.zeros_like(cotangent)
        for alpha, before in zip(reversed(self.alpha), reversed(befores), strict=True):
            start += alpha * cotangent
            inner = (1 - alpha) * cotangent
            self.lam.x.array[:] = dt * self.inverse_mass * inner
            self.rho.x.array[:] = before
            by_velocity += self.assembled(self.by_velocity)
            cotangent = inner + self.assembled(self.transposed)
        return start + cotangent


def measure(runner: Runner) -> Report:
    """The tape of forms always; dolfinx-adjoint where it is installed."""
    report = Report()
    found_rival = runner.rivals is not None and (runner.rivals / "dolfinx_adjoint").is_dir()
    found_rival = found_rival or importlib.util.find_spec("dolfinx_adjoint") is not None
    cells = {1: 12} if runner.quick else {1: 128, 2: 64}
    for degree in cells:
        for kind, what in (("tape", "tape of UFL forms"), ("dolfinx-adjoint", "dolfinx-adjoint")):
            figure = f"{what} / eulerian, DG{degree}, 2-D"
            if kind != "tape" and not found_rival:
                report.add(figure, None, note="not installed: pip install --no-deps, see scripts/README.md")
                continue
            sizes = {"cells": cells[degree], "steps": 6 if runner.quick else 12, "runs": runner.runs}
            case = {"kind": kind, **sizes, "degree": degree, "layers": 4}
            compare(runner, report, figure, case)
    return report


def compare(runner: Runner, report: Report, figure: str, case: Table) -> None:
    """One rival."""
    found = runner.attempt(report, figure, case)
    if not found:
        return
    agree = found["gradient_error"] < AGREE and found["value_error"] < AGREE
    note = f"{found['rival']:.2f} s against {found['eulerian']:.3f} s (first time {found['first']:.1f} s); "
    note += f"{found['dofs']:,} unknowns, {found['steps']} steps; gradients differ by {found['gradient_error']:.0e}"
    report.add(figure, found["times"] if agree else None, note=note if agree else f"NOT THE SAME GRADIENT: {note}")
    report.data[figure] = found


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
