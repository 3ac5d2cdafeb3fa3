# /// script
# requires-python = ">=3.12"
# dependencies = ["scikit-learn>=1.5"]
# ///
"""Make the data of the wine template: two principal components of the wine recognition data, with the class.

The wine recognition data (178 wines × 13 chemical measurements, three cultivars; Aeberhard and Forina, UCI Machine
Learning Repository, 1992, doi:10.24432/C5PC7J, CC BY 4.0) come with scikit-learn, which is needed here only:
``uv run scripts/make_wine_data.py``. Each measurement is standardised, the two leading principal components are taken,
and each of these is standardised again.
"""

from argparse import ArgumentParser
from pathlib import Path

import numpy as np
from sklearn.datasets import load_wine

TARGET = Path(__file__).resolve().parents[1] / "eulerian" / "templates" / "wine" / "wine.csv"


def principal_components(data: np.ndarray, count: int) -> np.ndarray:
    """The leading components (n, count) of standardised columns, each of mean 0 and variance 1."""
    standard = (data - data.mean(axis=0)) / data.std(axis=0)
    _, _, axes = np.linalg.svd(standard, full_matrices=False)
    # The sign of an axis is arbitrary: make its largest entry positive, so that every machine agrees.
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    scores = standard @ (axes * np.sign(largest)[:, None])[:count].T
    return scores / scores.std(axis=0)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?", type=Path, default=TARGET, help="the CSV file to write")
    target = parser.parse_args().target
    wine = load_wine()
    lines = ["pc1,pc2,class"]
    for (first, second), label in zip(principal_components(wine.data, 2), wine.target, strict=True):
        lines.append(f"{first:.6f},{second:.6f},{label}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines) - 1} rows written to {target}")


if __name__ == "__main__":
    main()
