"""Numbers that go wrong: NaN, overflow, step caps, searches that fail, descents that stand still, mass at the wall.

Every fault is a run of its own (see ``numerical_case.py``).
"""

import math
from collections.abc import Iterable

from harness import Fault
from numerical_case import Case

GROUP = "numerical trouble"
FAILED, ENDED = ("failed",), ("converged", "max_iterations")
AFFINE = 'kind = "linear"\nfeatures = "affine"'
NEVER = (0.0, 0.0)


def _given() -> Iterable[Case]:
    """θ that is given."""
    for number in (math.nan, math.inf, -math.inf):
        yield Case(
            f"θ with {number}", None, ("field.theta", "not finite"), code=1, theta=[[number, 0.0]], quick=number < 0.0
        )
    for number in (1e308, -1e308, 1e160):
        yield Case(f"θ with {number:g}", FAILED, ("time steps", "max_steps_per_layer"), theta=[[0.0, number]])
        yield Case(f"θ with {number:g}, solve", FAILED, ("time steps",), theta=[[0.0, number]], command="solve")
    yield Case("θ of 1e-320", ENDED, theta=[[1e-320, 1e-320]], iterates=True)
    yield Case(
        "θ too fast for the step cap",
        FAILED,
        ("time steps", "max_steps_per_layer is 3"),
        {"solver": "max_steps_per_layer = 3"},
        theta=[[0.0, 2.0]],
        quick=True,
    )
    yield Case(
        "θ too fast for the step cap, 2 ranks",
        FAILED,
        ("time steps", "max_steps_per_layer is 3"),
        {"solver": "max_steps_per_layer = 3"},
        theta=[[0.0, 2.0]],
        ranks=2,
    )
    yield Case(
        "trial points above the step cap",
        (*ENDED, "failed"),
        (),
        {"solver": "max_steps_per_layer = 4", "terminal": 'kind = "quadratic"\ntarget = [2.5]', "parameters": 0.0},
        iterates=True,
    )


def _user() -> Iterable[Case]:
    """Fields of the user's own."""
    start = ("velocity is not finite", "layer")
    yield Case("NaN velocity from the start", FAILED, start, trouble=("nan", 0, None), quick=True)
    yield Case("NaN velocity from the start, solve", FAILED, start, trouble=("nan", 0, None), command="solve")
    yield Case("infinite velocity from the start", FAILED, start, trouble=("inf", 0, None))
    yield Case("NaN velocity far out", FAILED, start, trouble=("nan far out", 0, None))
    yield Case(
        "NaN velocity from the start on rank 1",
        None,
        ("field.object", "not the same on all ranks"),
        trouble=("nan", 0, 1),
        ranks=2,
        code=1,
    )
    for kind in ("nan", "inf"):
        yield Case(
            f"{kind} velocity from the 21st call on",
            FAILED,
            ("velocity is not finite", "kept"),
            trouble=(kind, 20, None),
            iterates=True,
            quick=kind == "nan",
        )
    yield Case(
        "NaN velocity from the 21st call on, rank 1 of 2",
        FAILED,
        ("velocity is not finite", "kept"),
        trouble=("nan", 20, 1),
        ranks=2,
        iterates=True,
    )
    for kind in ("nan", "fast"):
        yield Case(
            f"{kind} velocity for large θ",
            FAILED,
            ("of its trial points", "kept"),
            trouble=(f"{kind} for large theta", 0, None),
            iterates=True,
        )
    for kind in ("raises", "wrong shape"):
        words = ("FloatingPointError", "own trouble") if kind == "raises" else ("shape",)
        yield Case(
            f"field {kind} from the 21st call on", FAILED, (*words, "kept"), trouble=(kind, 20, None), iterates=True
        )
        yield Case(
            f"field {kind} from the 21st call on, rank 1 of 2",
            FAILED,
            (*words, "kept"),
            trouble=(kind, 20, 1),
            ranks=2,
            iterates=True,
        )
    for kind in ("nan", "inf"):
        slope = ("gradient is not finite", "layer")
        yield Case(f"{kind} slope from the start", FAILED, slope, trouble=(f"{kind} slope", 0, None), quick=True)
        yield Case(
            f"{kind} slope from the 9th call on",
            FAILED,
            (*slope, "kept"),
            trouble=(f"{kind} slope", 8, None),
            iterates=True,
            quick=kind == "nan",
        )
        yield Case(
            f"{kind} slope from the 9th call on, rank 1 of 2",
            FAILED,
            (*slope, "kept"),
            trouble=(f"{kind} slope", 8, 1),
            ranks=2,
            iterates=True,
        )
    yield Case(
        "slope raises from the 9th call on",
        FAILED,
        ("FloatingPointError", "kept"),
        trouble=("slope raises", 8, None),
        iterates=True,
    )
    for kind, first in (("uphill slope", 0), ("uphill slope", 8), ("slope of one sign", 8)):
        yield Case(
            f"{kind} from call {first + 1} on",
            FAILED,
            ("line search", "gradient", "kept"),
            trouble=(kind, first, None),
            iterates=True,
            quick=first == 0,
        )
    for rank in (None, 1):
        yield Case(
            f"NaN velocity on the second of two levels, {'all ranks' if rank is None else 'rank 1 of 2'}",
            FAILED,
            ("velocity is not finite", "kept"),
            {"optimiser": "levels = 2"},
            trouble=("nan on the finest mesh", 12, rank),
            ranks=1 if rank is None else 2,
        )
    yield Case(
        "NaN velocity at the start of the second of two levels",
        FAILED,
        ("velocity is not finite", "level 2 of 2", "kept"),
        {"optimiser": "levels = 2"},
        trouble=("nan on the finest mesh", 4, None),
    )
    for kind, words in (("nan", "not finite"), ("nan slope", "gradient is not finite")):
        yield Case(
            f"{kind} from the 201st call on, particles",
            FAILED,
            (words, "kept"),
            trouble=(kind, 200, None),
            command="train --method particles",
            iterates=True,
        )
    yield Case("noise in the velocity", (*ENDED, "failed"), (), trouble=("noise", 0, None), iterates=True)


def _objectives() -> Iterable[Case]:
    """Losses and costs."""
    for formula in ("exp(exp(3 * x**2))", "log(x)", "1 / (x - x)", "sqrt(x)", "-exp(exp(3 * x**2))"):
        yield Case(
            f"terminal loss {formula}",
            None,
            ("objective.terminal", "not finite"),
            {"terminal": f'kind = "expression"\nvalue = "{formula}"'},
            code=1,
            quick=formula == "log(x)",
        )
    big = {"terminal": 'kind = "expression"\nvalue = "1e300 * exp(x**2)"'}
    yield Case("terminal loss of 1e300", FAILED, ("norm of the gradient overflows", "weights"), big)
    yield Case(
        "parts of J whose sum overflows",
        FAILED,
        ("J is not finite", "sum"),
        {"terminal": 'kind = "expression"\nvalue = "1.7e308"', "running": 'potential = "1e308"'},
    )
    constant = {"terminal": 'kind = "expression"\nvalue = "0 * x + 3"'}
    yield Case("constant loss", ("converged",), ("gradient",), constant, iterates=True, quick=True)
    yield Case("zero loss", ("converged",), (), {"terminal": 'kind = "expression"\nvalue = "0"'}, iterates=True)
    for method in ("bncg", "blmvm"):
        optimiser = f'method = "{method}"'
        yield Case(f"constant loss, {method}", ("converged",), (), constant | {"optimiser": optimiser}, iterates=True)
    yield Case("nothing but the terminal loss", ENDED, (), {"kinetic": 0.0, "parameters": 0.0}, iterates=True)
    yield Case("nothing but a constant loss", ("converged",), (), constant | {"kinetic": 0.0, "parameters": 0.0})
    yield Case(
        "negative objective",
        ENDED,
        (),
        {"terminal": 'kind = "expression"\nvalue = "-exp(-(x - 1)**2)"'},
        iterates=True,
    )
    yield Case(
        "objective without a lower bound in θ",
        (*ENDED, "failed"),
        (),
        {"kinetic": 0.0, "parameters": 0.0, "terminal": 'kind = "expression"\nvalue = "-x"'},
        iterates=True,
        warned=True,
    )
    yield Case("entropy", ENDED, (), {"running": "entropy = 0.01"}, iterates=True)


def _densities() -> Iterable[Case]:
    """Densities that underflow, touch the wall or gather in a cell."""
    yield Case("density that underflows", ENDED, (), {"initial": "mean = [-0.5]\nstd = 0.03"}, iterates=True)
    yield Case(
        "density without limiter",
        ENDED,
        (),
        {"initial": "mean = [-0.5]\nstd = 0.05", "solver": "limiter = false"},
    )
    against = {"terminal": 'kind = "quadratic"\ntarget = [1.0]'}
    yield Case("mass against the wall", ("done",), (), against, theta=[[0.0, 5.0]], command="solve", warned=True)
    yield Case(
        "mass against the wall, 2 ranks",
        ("done",),
        (),
        against,
        theta=[[0.0, 5.0]],
        command="solve",
        warned=True,
        ranks=2,
        quick=True,
    )
    yield Case(
        "trained against the wall",
        ENDED,
        (),
        {"terminal": 'kind = "quadratic"\ntarget = [4.0]', "kinetic": 0.01},
        warned=True,
        iterates=True,
    )


def _optimisers() -> Iterable[Case]:
    """Options and budgets."""
    yield Case("one iteration", ("max_iterations",), ("limit of 1",), {"iterations": 1}, iterates=True)
    yield Case("no iteration", ("max_iterations",), ("limit of 0",), {"iterations": 0}, iterates=True)
    yield Case(
        "unknown option value",
        FAILED,
        ("optimiser.petsc_options",),
        {"optimiser": 'petsc_options = "-tao_ls_type nonsense"'},
        code=1,
    )
    yield Case(
        "one function value per search",
        (*ENDED, "failed"),
        (),
        {"optimiser": 'petsc_options = "-tao_ls_max_funcs 1"'},
        iterates=True,
    )
    yield Case(
        "few evaluations at most",
        ("max_iterations",),
        ("evaluations",),
        {"optimiser": 'petsc_options = "-tao_max_funcs 3"'},
        iterates=True,
    )
    yield Case(
        "unit steps that are far too long",
        (*ENDED, "failed"),
        (),
        {
            "optimiser": 'petsc_options = "-tao_ls_type unit"',
            "iterations": 6,
            "terminal": 'kind = "quadratic"\ntarget = [2.0]\nweight = 50.0',
        },
        iterates=True,
    )
    yield Case(
        "a tolerance of nothing: the descent stands still",
        (*ENDED,),
        (),
        {"optimiser": "gradient_tolerance = 1e-300", "iterations": 200},
        iterates=True,
    )
    for method in ("bncg", "blmvm", "cg", "bqnls"):
        yield Case(
            f"NaN velocity from the 21st call on, {method}",
            FAILED,
            ("velocity is not finite", "kept"),
            {"optimiser": f'method = "{method}"'},
            trouble=("nan", 20, None),
            iterates=True,
        )
        yield Case(
            f"NaN slope from the 9th call on, {method}",
            FAILED,
            ("gradient is not finite", "kept"),
            {"optimiser": f'method = "{method}"'},
            trouble=("nan slope", 8, None),
            iterates=True,
        )
    yield Case(
        "a method that minimises something else", FAILED, ("owlqn",), {"optimiser": 'method = "owlqn"'}, iterates=True
    )


def faults(quick: bool) -> Iterable[Fault]:
    """Every case, or the quick ones."""
    for cases in (_given, _user, _objectives, _densities, _optimisers):
        for case in cases():
            if case.quick or not quick:
                yield Fault(GROUP, case.name, case.inject)
