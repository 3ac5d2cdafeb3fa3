"""Named arrays of a run that are kept in its folder, so that what is drawn of them can be drawn again."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Self

from eulerian.app.runs.files import write_arrays
from eulerian.base.npz import read_arrays


@dataclass(frozen=True)
class ArrayRecord:
    """A frozen dataclass of arrays that is a file, too. Not collective: for one rank.

    Attributes:
        CONTENTS: what errors call the arrays.
    """

    CONTENTS: ClassVar[str]

    def save(self, path: Path) -> None:
        """Write all arrays to an ``.npz`` file."""
        write_arrays(path, {field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            InputError: it is missing or not such a file.
        """
        return cls(**read_arrays(path, [field.name for field in fields(cls)], cls.CONTENTS))

    @classmethod
    def load_if_there(cls, path: Path) -> Self | None:
        """The same; None where there is no such file."""
        return cls.load(path) if path.is_file() else None
