"""Overrides with several values each, and the product of them: ``--set field.hidden=[16],[32,32]``."""

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, final

from eulerian.app.config.tables import parse_value
from eulerian.base.errors import InputError

_MOST = 10_000
_LONGEST_VALUE, _LONGEST_NAME = 40, 200  # letters of a folder's name, which may be no longer than 255

_OPENING = {"[": "]", "{": "}", "(": ")"}
# A quote that follows upon a letter is an apostrophe.
_QUOTE = re.compile(r"\"|(?<![^\W_])'")
_QUOTED = re.compile(r""""(?:\\.|[^"\\])*"|(?<![^\W_])'[^']*'""")

_EXAMPLE = "Separate values by commas, as in objective.kinetic=0.1,0.5 or field.hidden=[16],[32,32]."


@final
@dataclass(frozen=True)
class Combination:
    """One value for every key.

    Attributes:
        name: made of the values of the keys that have several; different from all others, and fit for a folder.
        overrides: ``KEY=VALUE``, in the order in which they were given.
        values: of the keys that have several, as TOML reads them.
    """

    name: str
    overrides: tuple[str, ...]
    values: Mapping[str, Any]


@final
@dataclass(frozen=True)
class Combinations:
    """All combinations of the values of some keys, the last key's changing fastest.

    Attributes:
        keys: that have several values, with these as they were written.
        all: the combinations.
    """

    keys: Mapping[str, tuple[str, ...]]
    all: tuple[Combination, ...]

    @classmethod
    def of(cls, settings: Sequence[str]) -> Self:
        """Those of ``KEY=VALUE,VALUE,…``; a key with one value has that in all of them.

        Raises:
            InputError: for a malformed setting; for a key with a value twice; where no key has several values, or there
                are more combinations than anybody means.
        """
        given = [_split(setting) for setting in settings]
        keys = {key: values for key, values in given if len(values) > 1}
        for key, times in Counter(key for key, _ in given).items():
            if key in keys and times > 1:
                raise InputError("is set more than once", key=f"--set {key}", remedy="Give all its values at once.")
        if not keys:
            what = "no key has several values, so there is nothing to sweep"
            raise InputError(what, key="--set", remedy=_EXAMPLE)
        count = math.prod(map(len, keys.values()))
        if count > _MOST:
            raise InputError(f"there are more than {_MOST} combinations", key="--set", value=count)
        short, slugs = _short_names(list(keys)), {key: _slugs(values) for key, values in keys.items()}
        found = []
        for choice in itertools.product(*(range(len(values)) for values in keys.values())):
            chosen = dict(zip(keys, choice, strict=True))
            name = _cut(",".join(f"{short[key]}={slugs[key][i]}" for key, i in chosen.items()), _LONGEST_NAME)
            overrides = tuple(f"{key}={values[chosen.get(key, 0)]}" for key, values in given)
            values = {key: parse_value(keys[key][i], key) for key, i in chosen.items()}
            found.append(Combination(name, overrides, values))
        return cls(keys, tuple(found))


def _split(setting: str) -> tuple[str, tuple[str, ...]]:
    """The key of a setting, and its values."""
    key, equals, text = setting.partition("=")
    key = key.strip()
    if not equals or not key:
        raise InputError("needs a key and its values", key="--set", value=setting, remedy=_EXAMPLE)
    values = tuple(value.strip() for value in _top_level(text, key))
    if not all(values):
        raise InputError("a value is missing", key=f"--set {key}", value=text, remedy=_EXAMPLE)
    twice = [value for value, times in Counter(values).items() if times > 1]
    if twice:
        raise InputError("a value is given twice", key=f"--set {key}", value=twice[0], remedy="Leave one out.")
    return key, values


def _top_level(text: str, key: str) -> list[str]:
    """What stands between the commas that are in no brackets and no quotes."""
    bare = _QUOTED.sub(lambda found: "x" * len(found[0]), text)
    values, expected, start = [], [found[0] for found in _QUOTE.finditer(bare)], 0
    for place, letter in enumerate(bare):
        if letter in _OPENING:
            expected.append(_OPENING[letter])
        elif letter in _OPENING.values():
            if not expected or letter != expected.pop():
                raise InputError(f"there is a {letter} too much", key=f"--set {key}", value=text, remedy=_EXAMPLE)
        elif letter == "," and not expected:
            values.append(text[start:place])
            start = place + 1
    if expected:
        raise InputError(f"there is a {expected[-1]} missing", key=f"--set {key}", value=text, remedy=_EXAMPLE)
    return [*values, text[start:]]


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last parts of dotted keys, as many as tell them apart."""
    parts = {key: key.split(".") for key in keys}
    found = {}
    for key, own in parts.items():
        for count in range(1, len(own) + 1):
            tail = own[-count:]
            if tail[0].isdecimal() and count < len(own):  # the number of an entry says nothing by itself
                continue
            if sum(other[-count:] == tail for other in parts.values()) == 1:
                break
        found[key] = _plain(".".join(tail))
    return found


def _slugs(values: Sequence[str]) -> list[str]:
    """Values as parts of a folder's name, all different."""
    plain = [_cut(_plain(value), _LONGEST_VALUE) for value in values]
    twice = {slug for slug, times in Counter(plain).items() if times > 1}
    return [
        f"{slug}-{_digest(value)}" if slug in twice or not slug else slug
        for slug, value in zip(plain, values, strict=True)
    ]


def _plain(text: str) -> str:
    """Letters, digits and ``. + - _``, which stands for commas, too; brackets and quotes go, all else is a dash."""
    bare = re.sub(r"[\[\]{}()\"'\s]+", "", text).replace(",", "_")
    return re.sub(r"[^\w.+-]+", "-", bare, flags=re.ASCII)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 9]}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
