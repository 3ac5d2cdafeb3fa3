"""Fields of the user's own: find the object, make the field, and check that it keeps the protocol."""

import importlib
import importlib.machinery
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError, explained
from eulerian.fields.base import VectorField
from eulerian.fields.models import KEY, WRAPPERS, refuse_model

NEEDED = ("n_params", "init", "value", "vjp")
NEEDED_BY_JACOBIAN = ("jacobian", "jacobian_vjp", "jacobian_vjp_x")


def load_field(
    name: str,
    folder: Path | str = ".",
    *,
    dim: int,
    n_labels: int = 0,
    points: Floats | None = None,
    needs_jacobian: bool = False,
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
        needs_jacobian: ``jacobian``, ``jacobian_vjp`` and ``jacobian_vjp_x`` must be there too.

    Raises:
        InputError: the object is missing, cannot be made, or does not keep the protocol.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise InputError("is no import path", key=KEY, value=name, remedy='Write "package.module:name".')
    field = _attribute(_module(name, module_name, Path(folder).resolve()), name, attribute)
    refuse_model(field, name)
    if isinstance(field, type | partial) or inspect.isroutine(field):
        field = _made(field, name, {"dim": dim, "n_labels": n_labels})
        refuse_model(field, f"{name}()")
    tried_at = np.linspace(0.1, 0.4, 2 * dim).reshape(2, dim) if points is None else points
    if getattr(field, "normalised", False):
        tried_at = np.repeat([[-0.3], [0.2]], dim, axis=1)
    _check_protocol(field, name, dim, n_labels - 1 if n_labels else None, tried_at, needs_jacobian)
    return cast("VectorField", field)


def _module(name: str, module_name: str, folder: Path) -> Any:
    top = module_name.partition(".")[0]
    if _lives_in(top, folder):
        _forget_namesake(name, top, folder)
    with _searched_first(folder):
        try:
            return importlib.import_module(module_name)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
                raise InputError(
                    f"no module named {error.name!r}",
                    key=KEY,
                    value=name,
                    remedy=f"Install it, or put {top}.py into the folder {folder}.",
                ) from error
            raise _failure(f"importing {module_name!r} raised", name, error, _extra(error)) from error


def _lives_in(top: str, folder: Path) -> bool:
    return (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()


def _forget_namesake(name: str, top: str, folder: Path) -> None:
    """Make way for the module ``top`` of this folder if one of the same name was loaded from another folder.

    Raises:
        InputError: the namesake belongs to Python or to an installed package, where forgetting it would do harm.
    """
    loaded = sys.modules.get(top)
    if loaded is None or folder in Path(getattr(loaded, "__file__", None) or "").resolve().parents:
        return
    if top in sys.builtin_module_names or importlib.machinery.PathFinder.find_spec(top) is not None:
        raise InputError(
            f"{top!r} is also the name of an installed module", key=KEY, value=name, remedy="Rename the file."
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


def _attribute(module: Any, name: str, attribute: str) -> Any:
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = ", ".join(sorted(entry for entry in dir(found) if not entry.startswith("_"))[:20])
            raise InputError(
                f"there is no {part!r} in {module.__name__}", key=KEY, value=name, remedy=f"It has: {public}."
            )
        found = getattr(found, part)
    return found


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
        raise _failure("making the field raised", name, error) from error


def _binds(signature: inspect.Signature) -> bool:
    try:
        signature.bind()
    except TypeError:
        return False
    return True


def _check_protocol(field: Any, name: str, dim: int, label: int | None, x: Floats, needs_jacobian: bool) -> None:
    """Try every method once, at two points.

    Raises:
        InputError: a method is missing, raises, or returns something of another kind than promised.
    """
    needed = NEEDED + (NEEDED_BY_JACOBIAN if needs_jacobian else ())
    missing = [method for method in needed if not callable(getattr(field, method, None))]
    if missing:
        raise InputError(
            f"{type(field).__name__} is no VectorField: it has no {', '.join(missing)}",
            key=KEY,
            value=name,
            remedy=f"See eulerian.fields.VectorField for what every method takes and returns. {WRAPPERS}",
        )
    p = _called(name, "n_params", field.n_params, dim)
    if isinstance(p, bool) or not isinstance(p, int | np.integer) or p < 1:
        raise InputError(f"n_params({dim}) must be a whole number of at least 1, it is {p!r}", key=KEY, value=name)
    theta = _array(name, "init", (int(p),), _called(name, "init", field.init, np.random.default_rng(0)))
    if not np.all(np.isfinite(theta)):
        raise InputError("init returned values that are not finite", key=KEY, value=name)
    keywords: dict[str, object] = {} if label is None else {"label": label}
    if getattr(field, "time_dependent", False):
        keywords["time"] = 0.0
    w, n = np.ones_like(x), len(x)
    v = _array(name, "value", (n, dim), _called(name, "value", field.value, theta, x, **keywords))
    if not np.all(np.isfinite(v)):
        raise InputError(
            f"value returned numbers that are not finite, at the initial parameters and the points {x.tolist()}",
            key=KEY,
            value=name,
        )
    alone = _array(name, "value", (1, dim), _called(name, "value", field.value, theta, x[1:], **keywords))
    if not np.allclose(alone, v[1:], rtol=1e-4, atol=1e-4 * float(np.max(np.abs(v)))):  # it may compute in float32
        raise InputError(
            "the velocity of a point must depend on that point only, but it changes with the other points or with "
            "every call",
            key=KEY,
            value=name,
            remedy="Normalise over fixed statistics instead of the points at hand, and switch off random layers.",
        )
    _array(name, "vjp", (int(p),), _called(name, "vjp", field.vjp, theta, x, w, **keywords))
    if needs_jacobian:
        square = _array(
            name, "jacobian", (n, dim, dim), _called(name, "jacobian", field.jacobian, theta, x, **keywords)
        )
        for method, shape in (("jacobian_vjp", (int(p),)), ("jacobian_vjp_x", (n, dim))):
            outcome = _called(name, method, getattr(field, method), theta, x, np.ones_like(square), **keywords)
            _array(name, method, shape, outcome)


def _called(name: str, method: str, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    try:
        return function(*arguments, **keywords)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise _failure(f"{method} raised", name, error) from error


def _array(name: str, method: str, shape: tuple[int, ...], outcome: Any) -> Floats:
    try:
        array = np.asarray(outcome, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{method} must return an array of numbers, it returned {type(outcome).__name__}", key=KEY
        ) from error
    if array.shape != shape:
        raise InputError(
            f"{method} must return an array of shape {shape}, it returned shape {array.shape}", key=KEY, value=name
        )
    return array


def _extra(error: BaseException) -> str | None:
    """How to get the library whose absence stopped an import, where it belongs to an extra of this package."""
    top = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    extra = {"jax": "jax", "equinox": "jax", "flax": "jax", "torch": "torch"}.get(top)
    return f'Install it: pip install "eulerian[{extra}]".' if extra else None


def _failure(what: str, name: str, error: BaseException, remedy: str | None = None) -> InputError:
    return InputError(
        f"{what} {explained(error)}",
        key=KEY,
        value=name,
        remedy=remedy or "The fault is in the code that field.object names.",
    )
