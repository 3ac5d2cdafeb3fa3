"""The figure of the likelihood benchmark: how far above the exact density's value, against seconds."""

from pathlib import Path

import matplotlib as mpl
from chart import BLUE, GREY, ORANGE, STYLE, VERMILION
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from suite import Table

COLOURS = {"eulerian": BLUE, "spline flow": VERMILION, "continuous flow": ORANGE, "kernel estimate": GREY}
MARKS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def draw(data: Table, path: Path) -> Path:
    """A panel for every set, as a PNG.

    Args:
        data: by set, ``true`` and ``results``, which holds the trainings of every method.
        path: of the file.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 5.6), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True).flat
        for axes, (name, found) in zip(panels, data.items(), strict=False):
            panel(axes, name, found)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
        figure.supxlabel("seconds of training on one core", fontsize=8)
        figure.supylabel("held-out −log p, less that of the exact density (nats)", fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return path


def panel(axes: Axes, name: str, found: Table) -> None:
    """Every setting of every method: a step wherever validation said it was better; a dot at the last of these."""
    highest, lowest = 0.0, 1.0
    for method, trainings in found["results"].items():
        best = min(trainings, key=lambda each: each["trace"][-1][1])
        for each in sorted(trainings, key=lambda each: each is best):
            x = [max(row[0], MARKS[0]) for row in each["trace"]]
            y = [max(row[2] - found["true"], 1e-3) for row in each["trace"]]
            lowest = min(lowest, *y)
            label, alpha = (method, 1.0) if each is best else (None, 0.4)
            if method == "kernel estimate":
                axes.axhline(y[0], color=COLOURS[method], ls="--", lw=1, label=label)
                continue
            end = max(each["trained"], x[-1])
            line = {"color": COLOURS[method], "alpha": alpha, "lw": 1.5 if each is best else 0.9}
            axes.step([*x, end], [*y, y[-1]], where="post", label=label, **line)
            axes.plot(x[-1], y[-1], "o", ms=4 if each is best else 2.5, color=COLOURS[method], alpha=alpha)
            highest = max(highest, y[-1])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.8 * lowest, max(1.5, 1.3 * highest))
    axes.xaxis.set_major_locator(FixedLocator(MARKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:.1e}"[0] in "25" else ""))
    axes.tick_params(axis="y", which="minor", labelsize=7)
    axes.grid(color=GREY, alpha=0.2)
    axes.set_title(name, loc="left")
