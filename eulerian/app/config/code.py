"""Tables that name code of the user's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Strict, StringConstraints, Tag

from eulerian.app.config.values import FilePath, Formula, Section
from eulerian.fields.user import find_object

ImportPath = Annotated[
    str, Strict(), StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")
]


class CodeSection(BaseModel):
    """What tables share that name code of the user's own.

    Attributes:
        object: its import path.
        folder: where the module is looked for besides the usual places.
    """

    object: ImportPath = Field(description='an import path like "package.module:name"')
    folder: FilePath = Field(
        default=Path("."), validate_default=True, description="the folder of the module, relative to the TOML file"
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


class PythonPotential(CodeSection, Section):
    """A potential of the user's own: a function V(x) of points (n, dim)."""

    kind: Literal["python"] = "python"


def _potential_tag(value: object) -> str:
    return "python" if isinstance(value, Mapping | PythonPotential) else "formula"


Potential = Annotated[
    Annotated[Formula, Tag("formula")] | Annotated[PythonPotential, Tag("python")], Discriminator(_potential_tag)
]
