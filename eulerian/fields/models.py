"""Models of other libraries that were named as they are: which function makes a field of them."""

from dataclasses import dataclass
from typing import Any

from eulerian.base.errors import InputError

KEY = "field.object"
WRAPPERS = (
    "A model of another library becomes a field by equinox_field, flax_field or jax_field of eulerian.fields.jax, or "
    "torch_field of eulerian.fields.torch."
)


@dataclass(frozen=True)
class _Library:
    """How its models are told from other objects, by the packages of their classes, and how they are wrapped."""

    name: str
    package: str
    wrapper: str
    call: str


_LIBRARIES = (
    _Library("an Equinox", "equinox", "jax", "equinox_field({model})"),
    _Library("a Flax (nnx)", "flax.nnx", "jax", "flax_field({model})"),
    _Library("a Flax (linen)", "flax.linen", "jax", "flax_field({model}, {model}.init(key, x))"),
    _Library("a torch", "torch.nn", "torch", "torch_field({model})"),
)
_METHODS = ("value", "vjp")


def refuse_model(found: Any, name: str) -> None:
    """Refuse a model, or a class of models, that is no field by itself; no library is imported for that.

    Raises:
        InputError: it is one; the remedy is what to write instead.
    """
    if all(callable(getattr(found, method, None)) for method in _METHODS):
        return
    kind = found if isinstance(found, type) else type(found)
    packages = [ancestor.__module__ for ancestor in kind.__mro__]
    for library in _LIBRARIES:
        if not any(f"{package}.".startswith(f"{library.package}.") for package in packages):
            continue
        what = (
            f"is the class {kind.__name__} of {library.name} module" if found is kind else f"is {library.name} module"
        )
        model = f"{kind.__name__}(...)" if found is kind else name.rpartition(":")[2]
        function, call = library.call.partition("(")[0], library.call.format(model=model)
        raise InputError(
            f"{what}, not a field",
            key=KEY,
            value=name,
            remedy=f"Wrap it where it is made: from eulerian.fields.{library.wrapper} import {function}; "
            f"field = {call}. Then name that field.",
        )
