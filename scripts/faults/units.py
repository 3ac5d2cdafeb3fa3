"""Units and origins that nothing was written for: kilometres, micrometres, places far from the origin."""

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from harness import Fault, Verdict, eulerian

GROUP = "the same problem in other units"
LIMIT = 120.0
SAME = 1e-5  # of J, after few iterations

KINDS = {
    "mlp": 'kind = "mlp"\nhidden = [6]',
    "affine": 'kind = "linear"\nfeatures = "affine"',
    "translation": 'kind = "linear"\nfeatures = "translation"',
    "rbf": 'kind = "linear"\nfeatures = "rbf"\nwidth = 6',
    "random": 'kind = "linear"\nfeatures = "random"\nwidth = 6',
    "residual": 'kind = "linear"\nfeatures = "residual"\nwidth = 6',
    "free": 'kind = "free"',
}
# Where the origin is, the unit of length, and the horizon.
UNITS = {
    "UTM metres": ((5e5, 5.4e6), 1.0, 1.0),
    "10,000 km away": ((1e7, -1e7), 1.0, 1.0),
    "micrometres": ((0.0, 0.0), 1e-6, 1.0),
    "kilometres and hours": ((3e6, 0.0), 1e3, 3600.0),
}
NETWORK = """from eulerian.fields import Mlp
field = Mlp(2, (6,))
"""
MODELS = {
    "an Equinox module": ("equinox", "import equinox as eqx, jax\nfield = eqx.nn.Linear(2, 2, key=jax.random.key(0))"),
    "a class of Equinox modules": ("equinox", "from equinox.nn import MLP as field"),
    "a Flax module": ("flax", "from flax import linen\nfield = linen.Dense(2)"),
    "a torch module": ("torch", "import torch\nfield = torch.nn.Linear(2, 2)"),
    "an object without methods": ("", "field = object()"),
}


def faults(quick: bool) -> Iterable[Fault]:
    """All of them, or a few."""
    kinds, units = (("mlp", "affine"), ("UTM metres",)) if quick else (tuple(KINDS), tuple(UNITS))
    for kind in kinds:
        for unit in units:
            yield Fault(GROUP, f"{kind}, {unit}", lambda folder, k=kind, u=unit: _same_j(folder, k, u, "densities"))
    if not quick:
        yield Fault(GROUP, "particles, UTM metres", lambda folder: _same_j(folder, "mlp", "UTM metres", "particles"))
        yield Fault(GROUP, "a run read back in UTM metres", _read_back)
        yield Fault(GROUP, "θ without its box", _without_box)
    for name, (library, source) in list(MODELS.items())[-1:] if quick else MODELS.items():
        yield Fault("models that are no fields", name, lambda folder, m=library, s=source: _told(folder, m, s))
    yield Fault("models that are no fields", "raw coordinates far away", _warned)


def model(folder: Path, field: str, unit: str | None = None, name: str = "model") -> Path:
    """A configuration in the units; its run folder has its name."""
    (x, y), s, horizon = UNITS[unit] if unit else ((0.0, 0.0), 1.0, 1.0)
    file = folder / f"{name}.toml"
    file.write_text(
        f"""
[domain]
box = {{ lower = [{x - 4 * s!r}, {y - 4 * s!r}], upper = [{x + 4 * s!r}, {y + 4 * s!r}], cells = [10, 10] }}
[[density.initial]]
kind = "gaussian"
mean = [{x - 0.4 * s!r}, {y!r}]
std = {0.9 * s!r}
[field]
{field}
layers = 2
horizon = {horizon!r}
[objective]
kinetic = {0.7 * horizon / s**2!r}
[objective.terminal]
kind = "quadratic"
target = [{x + s!r}, {y + 0.3 * s!r}]
weight = {1 / s**2!r}
[optimiser]
max_iterations = 8
[particles]
count = 400
[ideal]
certificate = "none"
[output]
directory = "{name}"
densities = 0
""",
        encoding="utf-8",
    )
    return file


def result(folder: Path, name: str) -> dict:
    """The result of a run, or nothing."""
    file = folder / name / "result.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _same_j(folder: Path, kind: str, unit: str, method: str) -> Verdict:
    found = []
    for name, where in (("here", None), ("there", unit)):
        file = model(folder, KINDS[kind], where, name)
        done = eulerian(folder, "train", file, "--quiet", "--method", method, limit=LIMIT)
        if done.code:
            return Verdict(False, f"{name}: exit {done.code}, {done.last_line}", done.hung, done.traceback)
        found.append(result(folder, name)["objective"]["total"])
    return Verdict(abs(found[1] - found[0]) <= SAME * abs(found[0]), f"J = {found[0]!r} and {found[1]!r}")


def _read_back(folder: Path) -> Verdict:
    """The run's network on a larger domain is the same function, and so the particles of a file end alike."""
    file = model(folder, KINDS["mlp"], "UTM metres")
    ends = [eulerian(folder, "train", file, "--quiet", limit=LIMIT)]
    (folder / "points.csv").write_text("x,y\n499999.0,5400000.0\n500001.0,5399999.0\n", encoding="utf-8")
    wider = "domain.box.upper=[500006.0, 5400004.0]"
    theta = 'field.theta="model/theta.npz"'
    ends.append(eulerian(folder, "solve", file, "--set", theta, "--set", wider, "--output", "again", "--quiet"))
    ends += [eulerian(folder, "push", run, "--samples", "points.csv") for run in ("model", "again")]
    for done in ends:
        if done.code:
            return Verdict(False, done.last_line, done.hung, done.traceback)
    rows = [
        (folder / run / "pushed_points.csv").read_text(encoding="utf-8").splitlines()[1:] for run in ("model", "again")
    ]
    places = [[float(number) for row in table for number in row.split(",")[:2]] for table in rows]
    away = max(abs(a - b) for a, b in zip(*places, strict=True))
    return Verdict(away < 1e-6, f"ends differ by {away:.2g}")


def _without_box(folder: Path) -> Verdict:
    file = model(folder, KINDS["mlp"])
    done = eulerian(folder, "train", file, "--quiet", limit=LIMIT)
    theta = np.load(folder / "model" / "theta.npz")["theta"]
    np.savez(folder / "old.npz", theta=theta)
    again = eulerian(folder, "solve", file, "--set", 'field.theta="old.npz"', "--output", "old", "--quiet", limit=LIMIT)
    told = any("which box" in each for each in result(folder, "old").get("warnings", []))
    return Verdict(not done.code and not again.code and told, again.last_line, again.hung, again.traceback)


def _told(folder: Path, library: str, source: str) -> Verdict:
    if library and importlib.util.find_spec(library) is None:
        return Verdict(True, f"{library} is not installed")
    (folder / "mine.py").write_text(source + "\n", encoding="utf-8")
    file = model(folder, 'kind = "python"\nobject = "mine:field"')
    done = eulerian(folder, "train", file, limit=LIMIT)
    right = done.code == 1 and "_field" in done.err and not (folder / "model").exists()
    return Verdict(right and not done.traceback, done.last_line, done.hung, done.traceback)


def _warned(folder: Path) -> Verdict:
    (folder / "mine.py").write_text(NETWORK, encoding="utf-8")
    notes = []
    for name, extra, wanted in (("raw", "", True), ("box", "object.__setattr__(field, 'normalised', True)\n", False)):
        (folder / "mine.py").write_text(NETWORK + extra, encoding="utf-8")
        file = model(folder, 'kind = "python"\nobject = "mine:field"', "UTM metres", name)
        done = eulerian(folder, "solve", file, "--quiet", limit=LIMIT)
        warnings = result(folder, name).get("warnings", [])
        if done.code or any("normalised" in each for each in warnings) != wanted:
            notes.append(f"{name}: exit {done.code}, {warnings}, {done.last_line}")
    return Verdict(not notes, "; ".join(notes))
