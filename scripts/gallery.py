"""The pictures of the documentation: ``docs/images``, and the commands that make them.

    python scripts/gallery.py
    python scripts/gallery.py --only moons --only banner

Every picture is made in a folder of its own, ``runs/gallery/NAME``, by its commands as they stand on the page
``docs/gallery.md`` (a test holds the two against each other), and then made smaller. Half of the time goes to three
studies, which docs/results/studies.md and accuracy.md tell of. ``--keep`` makes no runs that left
their picture last time. Pictures of benchmarks are not among them: ``scripts/bench`` draws them.
"""

import os
import re
import shutil
import subprocess
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
PNG_LIMIT, GIF_LIMIT = 150, 600  # kB of a file
MARKS = ("white", "black", "#e6e6e6", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # to be kept


@dataclass(frozen=True)
class Picture:
    """A picture of the documentation.

    Attributes:
        name: of its file in ``docs/images``, and of the folder in which it is made.
        commands: that make it, as on the page.
        made: the file that they leave.
        draw: makes ``made`` from the folder, if the commands do not.
        width: pixels at most.
        before: commands that the page shows with another picture.
        page: the page that shows the commands; None where none does.
    """

    name: str
    commands: tuple[str, ...]
    made: str
    draw: Callable[[Path], None] | None = None
    width: int = 1400
    before: tuple[str, ...] = ()
    page: str | None = "docs/gallery.md"

    @property
    def file(self) -> Path:
        """In ``docs/images``."""
        return IMAGES / f"{self.name}{Path(self.made).suffix}"

    @property
    def limit(self) -> int:
        """Bytes at most."""
        return 1000 * (GIF_LIMIT if self.made.endswith(".gif") else PNG_LIMIT)


# -- what this file draws itself -------------------------------------------------------------------------------------


def draw_meshes(folder: Path, run: str, window: tuple[float, float], points: int = 0) -> None:
    """Densities of a run in the plane at t = 0, T/2 and T, with the mesh over them: ``mesh.png``.

    Args:
        folder: in which the run is.
        run: the run folder.
        window: ends of both axes, of what is seen.
        points: as many particles are carried along.
    """
    from matplotlib.figure import Figure

    import eulerian as eu

    loaded = eu.load(folder / run)
    figure = Figure(figsize=(9.0, 3.05), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02)  # type: ignore[union-attr]
    times = (0.0, 0.5 * loaded.flow.horizon, loaded.flow.horizon)
    for axes, t, name in zip(figure.subplots(1, 3), times, ("0", r"T/2", "T"), strict=True):
        _mesh_panel(axes, loaded, t, window, points)
        axes.text(0.04, 0.95, f"$t = {name}$", transform=axes.transAxes, va="top", fontsize=10)
    figure.savefig(folder / "mesh.png", dpi=200, facecolor="white")


def _mesh_panel(axes: Any, run: Any, t: float, window: tuple[float, float], points: int) -> None:
    """One of them."""
    from matplotlib.colors import PowerNorm

    from eulerian.app.figures.colours import DENSITY, VERMILION

    grid = np.linspace(*window, 500)
    nodes = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    density = run.flow.density(t).total(nodes).reshape(len(grid), len(grid))
    norm = PowerNorm(0.6, 0.0, density.max())
    axes.imshow(density, extent=(*window, *window), origin="lower", cmap=DENSITY, norm=norm)
    mesh = run.problem.density_space.mesh.geometry
    axes.triplot(mesh.x[:, 0], mesh.x[:, 1], mesh.dofmaps[0], color="0.35", lw=0.25, alpha=0.6)
    if points:
        x = _moved(run.flow, run.flow.density(0.0).draw(points, seed=0), t)
        axes.plot(*x.T, "o", ms=2.8, mfc=VERMILION, mec="white", mew=0.4)
    axes.set(xlim=window, ylim=window, xticks=[], yticks=[], aspect="equal")
    for spine in axes.spines.values():
        spine.set(color="0.8", lw=0.6)


def _moved(flow: Any, x: Any, end: float) -> Any:
    """Points (n, 2) of time 0 at another, by midpoint steps."""
    steps = 100
    dt = end / steps
    for t in (dt * i for i in range(steps)):
        x = x + dt * flow.velocity(t + 0.5 * dt, x + 0.5 * dt * flow.velocity(t, x))
    return x


def draw_run(folder: Path) -> None:
    """Two figures that a training leaves, one above the other: ``run.png``."""
    pictures = []
    for name in ("densities", "history"):
        with Image.open(folder / "runs" / "gaussian" / "figures" / f"{name}.png") as image:
            pictures.append(_opaque(image, 1400))
    height = sum(picture.height for picture in pictures)
    both = Image.new("RGB", (max(picture.width for picture in pictures), height + 40), "white")
    both.paste(pictures[0], (0, 0))
    both.paste(pictures[1], (0, pictures[0].height + 40))
    both.save(folder / "run.png")


def draw_readme_example(folder: Path) -> None:
    """Run the Python example of the README, and draw the density and the points of its flow: ``from_python.png``."""
    from matplotlib.figure import Figure

    names: dict[str, Any] = {}
    exec(compile(readme_example(), "README.md", "exec"), names)
    flow, start = names["flow"], names["rho0"].draw(len(names["x"]), seed=0)
    grid = np.linspace(-2.4, 2.4, 97)
    nodes = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    for axes, t, points in zip(figure.subplots(1, 2), (0.0, flow.horizon), (start, names["x"]), strict=True):
        density = flow.density(t)(nodes).reshape(len(grid), len(grid))
        image = axes.contourf(grid, grid, density.clip(0.0), levels=20, cmap="Blues")
        axes.plot(*points.T, ".", color="tab:orange", markersize=3)
        axes.set(title=f"$t = {t:g}$", xlabel="$x$", ylabel="$y$", aspect="equal", xlim=(-2.4, 2.4), ylim=(-2.4, 2.4))
        figure.colorbar(image, ax=axes, label="density")
    figure.savefig(folder / "from_python.png", dpi=150)


def readme_example() -> str:
    """The first Python block of README.md."""
    found = re.search(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None, "README.md has no Python block"
    return found[1]


# -- the pictures ----------------------------------------------------------------------------------------------------


def _template(name: str, made: str = "densities.png", *more: str, **options: Any) -> Picture:
    """A picture of the run of a template."""
    command = "ideal" if name == "transport" else "train"
    commands = (f"eulerian init {name}", f"eulerian {command} {name}.toml", *more)
    return Picture(name, commands, f"runs/{name}/figures/{made}", **options)


def _animated(name: str, width: int = 440) -> Picture:
    return _template(name, "animation.gif", f"eulerian plot runs/{name} --animate --frames 40", width=width)


def _study(name: str) -> Picture:
    return Picture(name, (f"python scripts/studies/{name}.py",), f"runs/{name}/{name}.png")


GAUSSIAN = ("eulerian init gaussian",)
PICTURES = (
    _template("gaussian"),
    _template("wine", "classification.png", "eulerian push runs/wine --samples wine_held_out.csv"),
    _animated("moons"),
    _animated("images"),
    _animated("crowds", width=700),
    _template("dumbbell"),
    _template("branching", "times.png"),
    _template("transport", "trajectories.png", width=900),
    Picture(
        "adapted_mesh",
        (
            "eulerian solve gaussian.toml --theta runs/gaussian --output runs/adapted "
            "--set density.degree=1 --set adapt.density=0.05",
        ),
        "mesh.png",
        lambda folder: draw_meshes(folder, "runs/adapted", (-3.0, 3.0)),
        before=(*GAUSSIAN, "eulerian train gaussian.toml"),
    ),
    Picture(
        "interactions",
        (
            "eulerian train gaussian.toml --output runs/apart --set optimiser.max_iterations=30 "
            """--set 'objective.interaction={kind="gaussian",weight=2,width=0.5}'""",
        ),
        "runs/apart/figures/densities.png",
        before=GAUSSIAN,
    ),
    Picture(
        "sweep",
        ("eulerian sweep gaussian.toml --output runs/sweep --set objective.kinetic=0.1,0.2,0.5,1",),
        "runs/sweep/figures/sweep.png",
        before=GAUSSIAN,
    ),
    Picture(
        "space",
        (
            "eulerian train gaussian.toml --output runs/space --set density.degree=1 "
            "--set 'domain.box={lower=[-3,-3,-3],upper=[3,3,3],cells=[12,12,12]}' "
            """--set 'density.initial=[{kind="gaussian",mean=[-0.8,0.3,-0.5],std=0.8}]' """
            "--set objective.terminal.target=[1,-0.5,0.5] --set objective.kinetic=2 --set optimiser.max_iterations=15",
        ),
        "runs/space/figures/densities.png",
        before=GAUSSIAN,
    ),
    _study("obstacles"),
    _study("universal_approximation"),
    _study("densities_and_particles"),
    Picture(
        "banner",
        ("eulerian init moons", "eulerian train moons.toml"),
        "mesh.png",
        lambda folder: draw_meshes(folder, "runs/moons", (-2.9, 2.9), points=120),
        width=1200,
        page=None,
    ),
    Picture("command_line", (*GAUSSIAN, "eulerian train gaussian.toml"), "run.png", draw_run, page=None),
    Picture("from_python", (), "from_python.png", draw_readme_example, page=None),
)


# -- making them -----------------------------------------------------------------------------------------------------


def make(picture: Picture, folder: Path) -> None:
    """Run the commands of a picture in a folder that is made for it, and draw what is to be drawn here."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("meshes", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PATH": path}
    for command in (*picture.before, *picture.commands):
        print(f"$ {command}", flush=True)
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, check=True)
    if picture.draw:
        picture.draw(folder)


def shrink(picture: Picture, source: Path) -> int:
    """Write a picture into ``docs/images``, smaller and in a palette; the size of its file in bytes."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for share in (1.0, 0.85, 0.7):
        _write(source, picture.file, round(share * picture.width))
        if (size := picture.file.stat().st_size) <= picture.limit:
            return size
    raise SystemExit(f"{picture.file} has {size} bytes; the limit is {picture.limit}")


def _write(source: Path, target: Path, width: int) -> None:
    """A picture of at most this width; all frames of an animation in one palette, so that colours do not flicker."""
    from eulerian.app.figures.animation import shared_palette

    frames, shown = [], []
    with Image.open(source) as image:
        for frame in ImageSequence.Iterator(image):
            shown.append(frame.info.get("duration", 0))
            frames.append(np.asarray(_opaque(frame, width)))
    indexed = shared_palette(frames[:: max(1, len(frames) // 8)], MARKS)
    first, *others = map(indexed, frames)
    if others:
        options: dict[str, Any] = {"duration": shown, "loop": 0, "disposal": 1}
        first.save(target, save_all=True, append_images=others, optimize=True, **options)
    else:
        first.save(target, optimize=True)


def _opaque(image: Image.Image, width: int) -> Image.Image:
    """On white, and of at most this width."""
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    size = (min(width, image.width), round(image.height * min(1.0, width / image.width)))
    return white.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make pictures, all of them or those that are named."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    names = [picture.name for picture in PICTURES]
    parser.add_argument("--only", metavar="NAME", action="append", choices=names, help=f"one of {', '.join(names)}")
    parser.add_argument("--keep", action="store_true", help="run nothing that has left its picture the last time")
    options = parser.parse_args(arguments)
    for picture in PICTURES:
        if not options.only or picture.name in options.only:
            folder = ROOT / "runs" / "gallery" / picture.name
            if not (options.keep and (folder / picture.made).is_file()):
                make(picture, folder)
            print(
                f"{picture.file.relative_to(ROOT)}: {shrink(picture, folder / picture.made) / 1000:.0f} kB", flush=True
            )


if __name__ == "__main__":
    main()
