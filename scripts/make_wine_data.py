# /// script
# requires-python = ">=3.12"
# dependencies = ["scikit-learn>=1.5"]
# ///
"""Make the data of the wine template: two principal components of the wine recognition data, with the class.

The wine recognition data (178 wines × 13 chemical measurements, three cultivars; Aeberhard and Forina, UCI Machine
Learning Repository, 1992, doi:10.24432/C5PC7J, CC BY 4.0) come with scikit-learn, which is needed here only:
``uv run scripts/make_wine_data.py``. Every third wine of each class is held out: 58 wines in one file, 120 to train
with in the other. Of the latter each measurement is standardised, the two leading principal components are taken, and
each of these is standardised again; the same map, which knows nothing of them, is applied to the wines held out.
"""

from argparse import ArgumentParser
from pathlib import Path

import numpy as np
from sklearn.datasets import load_wine

TARGET = Path(__file__).resolve().parents[1] / "eulerian" / "app" / "templates" / "wine"
TRAINING, HELD_OUT = "wine_training.csv", "wine_held_out.csv"
EVERY = 3


def held_out(classes: np.ndarray) -> np.ndarray:
    """Every third member of each class, in the order of the data: (n,) booleans."""
    chosen = np.zeros(len(classes), dtype=bool)
    for label in np.unique(classes):
        chosen[np.flatnonzero(classes == label)[EVERY - 1 :: EVERY]] = True
    return chosen


def principal_components(data: np.ndarray, training: np.ndarray, count: int) -> np.ndarray:
    """The leading components (n, count) of standardised columns, of mean 0 and variance 1 over the training rows."""
    standard = (data - data[training].mean(axis=0)) / data[training].std(axis=0)
    _, _, axes = np.linalg.svd(standard[training], full_matrices=False)
    # The sign of an axis is arbitrary: make its largest entry positive, so that every machine agrees.
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    scores = standard @ (axes * np.sign(largest)[:, None])[:count].T
    return scores / scores[training].std(axis=0)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?", type=Path, default=TARGET, help="the folder to write the two files to")
    target = parser.parse_args().target
    wine = load_wine()
    chosen = held_out(wine.target)
    scores = principal_components(wine.data, ~chosen, 2)
    target.mkdir(parents=True, exist_ok=True)
    for name, rows in ((TRAINING, ~chosen), (HELD_OUT, chosen)):
        lines = ["pc1,pc2,class"]
        for (first, second), label in zip(scores[rows], wine.target[rows], strict=True):
            lines.append(f"{first:.6f},{second:.6f},{label}")
        (target / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{len(lines) - 1} rows written to {target / name}")


if __name__ == "__main__":
    main()
