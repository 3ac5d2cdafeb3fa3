"""Tables that name code of the user's own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Discriminator, Field, Strict, StringConstraints, Tag

from eulerian.app.config.values import FilePath, Formula, Real, Section
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.user import find_object
from eulerian.objective.framework import count_parameters, started_at

ImportPath = Annotated[
    str, Strict(), StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")
]


class CodeSection(BaseModel):
    """What tables share that name code of the user's own.

    Attributes:
        object: the import path: a module, a colon, and a name in it.
        folder: where the module is looked for besides the usual places, relative to the TOML file.
    """

    object: ImportPath = Field(description='an import path like "package.module:name"', examples=["mymodule:name"])
    folder: FilePath = Field(
        default=Path("."),
        validate_default=True,
        description="the folder of the module, relative to the TOML file",
        examples=["code"],
    )

    @property
    def code(self) -> str:
        """The import path."""
        return self.object

    def load(self, key: str) -> Any:
        """The object itself; ``key``: of the table. Not collective.

        Raises:
            InputError: there is none, or importing it fails.
        """
        return find_object(self.object, self.folder, f"{key}.object")


class TrainedCode(CodeSection):
    """What tables share that name costs of the user's own, which may have parameters that are trained.

    Attributes:
        readout: where its parameters start; by default where the code starts them itself.
    """

    readout: Annotated[tuple[Real, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="numbers that the parameters of the cost itself start from",
        examples=[[0.0, 1.0]],
    )

    def started(self, key: str) -> Any:
        """The object, with its parameters at ``readout``. Arguments and errors as for ``load``."""
        found = self.load(key)
        return found if self.readout is None else started_at(found, self.readout, f"{key}.readout")

    def readout_size(self, key: str, n_labels: int, columns: int) -> int:  # noqa: ARG002 - of built-in ones
        """Number of its trained parameters; the code is loaded for it."""
        return count_parameters(self.load(key))

    def started_at(self, readout: Floats, n_labels: int) -> Self:  # noqa: ARG002 - of built-in ones
        """The same with trained parameters (r,) to start from."""
        return self.model_copy(update={"readout": tuple(readout.tolist())}) if readout.size else self


class PythonPotential(TrainedCode, Section):
    """A potential of the user's own: a function V(x) of points (n, dim)."""

    kind: Literal["python"] = "python"


@contextmanager
def renamed(key: str, other: str) -> Iterator[None]:
    """Errors about one table name another one, which is of the same kind."""
    try:
        yield
    except InputError as error:
        if not f"{error.key}.".startswith(f"{key}."):
            raise
        name = other + (error.key or "").removeprefix(key)
        raise InputError(error.what, key=name, value=error.value, remedy=error.remedy) from error


def _potential_tag(value: object) -> str:
    return "python" if isinstance(value, Mapping | PythonPotential) else "formula"


Potential = Annotated[
    Annotated[Formula, Tag("formula")] | Annotated[PythonPotential, Tag("python")], Discriminator(_potential_tag)
]
