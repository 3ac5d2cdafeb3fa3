"""What a figure of a run is: its name, the files without which there is nothing to draw, and how it is drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from matplotlib.figure import Figure


@final
@dataclass(frozen=True)
class RunFigure:
    """A figure of a run. A new one is a file that ends with one of these, and a line in ``figures.ALL``.

    Attributes:
        name: of its file, without the ending.
        needs: files that must be there, relative to the run folder.
        draw: makes it from a run folder; None where there is nothing to see.
    """

    name: str
    needs: tuple[str, ...]
    draw: Callable[[Path], Figure | None]

    def can_draw(self, folder: Path) -> bool:
        """Whether the run folder has what is needed."""
        return all((folder / file).is_file() for file in self.needs)
