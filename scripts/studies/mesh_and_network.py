"""Train the templates, and hold J and ρ(T) of the mesh against those of the trained network itself.

    python scripts/studies/mesh_and_network.py [NAME ...]

One process, about five minutes for all. The true values are those by characteristics, with which every training ends
(`verified` in its `result.json`); the table is printed as Markdown. `thin moons` is the template `moons` with a
bandwidth of 0.1 and λ = 0.02: there a descent that is charged for the mesh's own ρ log ρ (`objective.entropy_form =
"density"`, the row after it) is paid for numerical diffusion.
"""

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

from eulerian.app import templates
from eulerian.app.config import read_config
from eulerian.app.tasks import run_train

THIN = ("density.initial.0.bandwidth=0.1", "objective.kinetic=0.02")
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "gaussian": ("gaussian", ()),
    "wine": ("wine", ()),
    "wine, [adapt]": ("wine", ("adapt.density=0.1", "adapt.objective=0.01")),
    "dumbbell": ("dumbbell", ()),
    "moons": ("moons", ()),
    "thin moons": ("moons", THIN),
    "thin moons, ρ log ρ": ("moons", (*THIN, "objective.entropy_form=density")),
    "images": ("images", ()),
    "crowds": ("crowds", ()),
}
COLUMNS = ("template", "cells", "J of the mesh", "J of the network", "off by", "L¹ of ρ(T)", "resolved", "its seconds")
QUIET = ("ideal.certificate=none", "output.figures=false", "output.densities=0")


def trained(name: str) -> dict[str, Any]:
    """The result of one case."""
    template, overrides = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        file = templates.copy_template(template, Path(folder))[0]
        config = read_config(file, (*QUIET, *overrides), output=Path(folder) / "run")
        return run_train(config)


def row(name: str, result: dict[str, Any]) -> list[str]:
    """What the table says of a result."""
    found, mesh = result["verified"], result["objective"]["total"]
    true = found["objective"]["total"]
    nats = CASES[name][0] == "moons"
    off = math.nan if true is None else mesh - true
    share = found["seconds"] / result["seconds"]["solve"]
    return [
        name,
        str(result["mesh"]["cells"]),
        f"{mesh:.6f}",
        "unknown" if true is None else f"{true:.6f}",
        f"{off:+.4f} nats" if nats else f"{100 * off / true:+.2f} %",
        ", ".join(f"{error:.3f}" for error in found["density_l1"]),
        "yes" if result["resolved"] else "no",
        f"{found['seconds']:.1f} ({100 * share:.0f} % of the training)",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}; all by default")
    names = parser.parse_args().names or list(CASES)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name in names:
        print(f"| {' | '.join(row(name, trained(name)))} |", flush=True)


if __name__ == "__main__":
    main()
