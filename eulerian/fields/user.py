"""What the user's own code holds: find the object, make a field of it, and check that it keeps the protocol."""

import importlib
import importlib.machinery
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.base import REQUIRED, VectorField, install, raised, returned

KEY = "field.object"
WRAPPERS = (
    "A model of another library becomes a field by equinox_field, flax_field or jax_field of eulerian.jax, or "
    "torch_field of eulerian.torch."
)


@final
@dataclass(frozen=True)
class _Library:
    """The packages of its models' classes, by which they are recognised, and how they are wrapped."""

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


def load_field(
    name: str,
    folder: Path | str = ".",
    *,
    dim: int,
    n_labels: int = 0,
    points: Floats | None = None,
) -> VectorField:
    """The field called ``name``: an instance, or what a class or function makes of ``dim`` and ``n_labels``.

    A class or function is called with those of the arguments ``dim`` and ``n_labels`` that it names, or with ``dim``
    alone if it needs one argument of another name.

    Args:
        name: "package.module:object"; the module is importable, or a file or package in ``folder``.
        folder: searched first while the module is imported, and only then.
        dim: space dimension.
        n_labels: number of labels that the field must distinguish; 0 calls it without a label.
        points: (2, dim) where the field is tried out, unless it is ``normalised``; by default near the origin.

    Raises:
        InputError: the object is missing, cannot be made, or does not keep the protocol.
    """
    field = find_object(name, folder)
    _refuse_model(field, name)
    if isinstance(field, type | partial) or inspect.isroutine(field):
        field = _made(field, name, {"dim": dim, "n_labels": n_labels})
        _refuse_model(field, f"{name}()")
    tried_at = np.linspace(0.1, 0.4, 2 * dim).reshape(2, dim) if points is None else points
    if getattr(field, "normalised", False):
        tried_at = np.repeat([[-0.3], [0.2]], dim, axis=1)
    inputs: dict[str, object] = {"label": n_labels - 1} if n_labels else {}
    if getattr(field, "time_dependent", False):
        inputs["time"] = 0.0
    _Trial(field, name, inputs).check(dim, tried_at)
    return cast("VectorField", field)


def find_object(name: str, folder: Path | str = ".", key: str = KEY) -> Any:
    """What an import path names.

    Args:
        name: "package.module:object"; the module is importable, or a file or package in ``folder``.
        folder: searched first while the module is imported, and only then.
        key: that names it, for messages.

    Raises:
        InputError: there is no such thing, or importing it fails.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise InputError("is no import path", key=key, value=name, remedy='Write "package.module:name".')
    return _attribute(_module(name, module_name, Path(folder).resolve(), key), name, attribute, key)


def _module(name: str, module_name: str, folder: Path, key: str) -> Any:
    top = module_name.partition(".")[0]
    if _lives_in(top, folder):
        _forget_namesake(name, top, folder, key)
    with _searched_first(folder):
        try:
            return importlib.import_module(module_name)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
                raise InputError(
                    f"no module named {error.name!r}",
                    key=key,
                    value=name,
                    remedy=f"Install it, or put {top}.py into the folder {folder}.",
                ) from error
            raise raised(f"importing {module_name!r} raised", error, name, _extra(error), key) from error


def _lives_in(top: str, folder: Path) -> bool:
    return (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()


def _forget_namesake(name: str, top: str, folder: Path, key: str) -> None:
    """Make way for the module ``top`` of this folder if one of the same name was loaded from another folder.

    Raises:
        InputError: the namesake belongs to Python or to an installed package, where forgetting it would do harm.
    """
    loaded = sys.modules.get(top)
    if loaded is None or folder in Path(getattr(loaded, "__file__", None) or "").resolve().parents:
        return
    if top in sys.builtin_module_names or importlib.machinery.PathFinder.find_spec(top) is not None:
        raise InputError(
            f"{top!r} is also the name of an installed module", key=key, value=name, remedy="Rename the file."
        )
    for module in [module for module in sys.modules if module == top or module.startswith(f"{top}.")]:
        del sys.modules[module]


@contextmanager
def _searched_first(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    importlib.invalidate_caches()  # the file may be younger than the finder's last look
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def _attribute(module: Any, name: str, attribute: str, key: str) -> Any:
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = ", ".join(sorted(entry for entry in dir(found) if not entry.startswith("_"))[:20])
            raise InputError(
                f"there is no {part!r} in {module.__name__}", key=key, value=name, remedy=f"It has: {public}."
            )
        found = getattr(found, part)
    return found


def _refuse_model(found: Any, name: str) -> None:
    """Refuse a model, or a class of models, that is no field by itself; no library is imported for that.

    Raises:
        InputError: it is one; the remedy is what to write instead.
    """
    if all(callable(getattr(found, method, None)) for method in ("value", "vjp")):
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
            remedy=f"Wrap it where it is made: from eulerian.{library.wrapper} import {function}; "
            f"field = {call}. Then name that field.",
        )


def _made(factory: Callable[..., Any], name: str, offered: dict[str, int]) -> Any:
    try:
        signature = inspect.signature(factory)
        keywords = {key: value for key, value in offered.items() if key in signature.parameters}
        arguments = () if keywords or _binds(signature) else (offered["dim"],)
        signature.bind(*arguments, **keywords)
    except (TypeError, ValueError) as error:
        raise InputError(
            "cannot be called without arguments or with the dimension alone",
            key=KEY,
            value=name,
            remedy="Name an instance, or a class or function of no argument, of dim, or of dim and n_labels that makes "
            f"it. {WRAPPERS}",
        ) from error
    try:
        return factory(*arguments, **keywords)
    except InputError:  # a field made by this package's own adapters says best what is wrong
        raise
    except (Exception, SystemExit) as error:
        raise raised("making the field raised", error, name) from error


def _binds(signature: inspect.Signature) -> bool:
    try:
        signature.bind()
    except TypeError:
        return False
    return True


@final
@dataclass(frozen=True)
class _Trial:
    """Methods of a field that nobody has tried yet, called once each.

    Attributes:
        field: of the user's.
        name: its import path, for messages.
        inputs: the keywords that it asks for: label and time.
    """

    field: Any
    name: str
    inputs: dict[str, object]

    def check(self, dim: int, x: Floats) -> None:
        """Try n_params, init, value and vjp at the points x (2, dim).

        Raises:
            InputError: a method is missing, raises, or returns something of another kind than promised.
        """
        missing = [method for method in REQUIRED if not callable(getattr(self.field, method, None))]
        if missing:
            remedy = f"See eulerian.VectorField for what every method takes and returns. {WRAPPERS}"
            raise self._error(f"{type(self.field).__name__} is no VectorField: it has no {', '.join(missing)}", remedy)
        p = self._called("n_params", dim)
        if isinstance(p, bool) or not isinstance(p, int | np.integer) or p < 1:
            raise self._error(f"n_params({dim}) must be a whole number of at least 1, it is {p!r}")
        theta = returned("init", self._called("init", np.random.default_rng(0)), (int(p),), key=KEY, name=self.name)
        if not np.all(np.isfinite(theta)):
            raise self._error("init returned values that are not finite")
        self._check_values(theta, x)
        gradient = self._called("vjp", theta, x, np.ones_like(x), **self.inputs)
        returned("vjp", gradient, theta.shape, key=KEY, name=self.name)

    def _check_values(self, theta: Floats, x: Floats) -> None:
        v, alone = self._value(theta, x), self._value(theta, x[1:])
        if not np.all(np.isfinite(v)):
            where = f"at the initial parameters and the points {x.tolist()}"
            raise self._error(f"value returned numbers that are not finite, {where}")
        # It may compute in float32. A network that mixes the points of a batch would have another θ-gradient on every
        # number of ranks, because ranks hold different points.
        if not np.allclose(alone, v[1:], rtol=1e-4, atol=1e-4 * float(np.max(np.abs(v)))):
            raise self._error(
                "the velocity of a point must depend on that point only, but it changes with the other points or with "
                "every call",
                "Normalise over fixed statistics instead of the points at hand, and switch off random layers.",
            )

    def _value(self, theta: Floats, x: Floats) -> Floats:
        return returned("value", self._called("value", theta, x, **self.inputs), x.shape, key=KEY, name=self.name)

    def _called(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        try:
            return getattr(self.field, method)(*arguments, **keywords)
        except InputError:  # of this package's own adapters, which know best what is wrong
            raise
        except (Exception, SystemExit) as error:
            raise raised(f"{method} raised", error, self.name) from error

    def _error(self, what: str, remedy: str | None = None) -> InputError:
        return InputError(what, key=KEY, value=self.name, remedy=remedy)


def _extra(error: BaseException) -> str | None:
    """How to get the library whose absence stopped an import, where it belongs to an extra of this package."""
    top = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    extra = {"jax": "jax", "equinox": "jax", "flax": "jax", "torch": "torch"}.get(top)
    return install(extra) if extra else None
