"""The JSON schema of a configuration, for editors: what pydantic says of the models, in the words of TOML.

TOML has no null, so that a key that may be missing is a key that is not required. Where a table is one of several kinds
its ``kind`` has to be there. What a key means comes from the docstring of its section, and what is expected of it from
its own description.
"""

import inspect
import math
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any, final

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

# What pydantic calls limits where a validator of ours comes before them.
_LIMITS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}


@final
class Says:
    """What a type says in the schema beside what pydantic knows of it: an annotation.

    Args:
        more: keywords of JSON Schema.
    """

    def __init__(self, **more: Any) -> None:
        self._more = more

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), **self._more}


@final
class NotKinds:
    """Kinds of a table that are there only to be refused in words: an annotation that leaves them out of the schema.

    Args:
        kinds: their names.
    """

    def __init__(self, *kinds: str) -> None:
        self._kinds = kinds

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        choices = {kind: choice for kind, choice in schema["choices"].items() if kind not in self._kinds}
        return handler({**schema, "choices": choices})


@final
class OrOne:
    """A list that may also be written as its only entry: an annotation."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        return {"anyOf": [found["items"], found]}


@final
class TomlSchema(GenerateJsonSchema):
    """From pydantic's models to the schema of their tables in a TOML file."""

    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        """The whole, with its dialect and its name."""
        version = import_module("eulerian").__version__
        found = super().generate(schema, mode)
        for each in _tables(found):
            _rename_limits(each)
            if "examples" in each:
                each["examples"] = [example for example in each["examples"] if _is_json(example)]
        title, models = found.pop("title", ""), found.pop("$defs", {})
        name = {"$schema": self.schema_dialect, "$id": f"urn:eulerian:{title.lower()}:{version}"}
        return {**name, "title": f"{title} of eulerian {version}", **found, "$defs": models}

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the same for all
        """Keys are called what they are called, see ``model_schema``."""
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """There is no null."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Nor is it a default."""
        found = super().default_schema(schema)
        if found.get("default", 0) is None:
            del found["default"]
        return found

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """One of several kinds, which ``kind`` tells where that is what pydantic goes by."""
        found = super().tagged_union_schema(schema)
        found.pop("discriminator", None)
        if isinstance(schema["discriminator"], str):
            found["required"] = [schema["discriminator"]]
        return found

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """A table: its keys with what they mean and what is expected of them."""
        found = super().model_schema(schema)
        section = schema["cls"]
        keys = found.get("properties", {})
        for key, value in keys.items():
            told = {"title": key, "description": described(section, key)}
            keys[key] = {**told, **{name: x for name, x in value.items() if name not in told}}
        if "kind" in keys:
            del keys["kind"]["default"]  # it has to be told
        title = section.model_config.get("title") or kind_of(section) or section.__name__.lower()
        return {**found, "title": title, "description": f"{summary(section).rstrip('.')}."}


def kind_of(section: type[BaseModel]) -> str:
    """What ``kind`` is in a table that has one; "" in others."""
    return str(section.model_fields["kind"].default) if "kind" in section.model_fields else ""


def summary(section: type[BaseModel]) -> str:
    """The first sentences of a section's docstring; "" without."""
    return inspect.cleandoc(section.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def meaning(section: type[BaseModel], key: str) -> str:
    """What the docstring of the class that declares a key says of it; "" where nothing is said."""
    if key == "kind":
        return summary(section)
    declaring = [each for each in section.__mro__ if key in inspect.get_annotations(each)]
    return next((text for each in declaring if (text := _attributes(each).get(key))), "")


def described(section: type[BaseModel], key: str) -> str:
    """A key in full: what it means, and what is expected of it."""
    expected = section.model_fields[key].description
    sentences = [text for text in (meaning(section, key), expected and f"Expected: {expected}") if text]
    return " ".join(sentence(text) for text in sentences).replace("``", "")


def sentence(text: str) -> str:
    """A phrase as a sentence; what begins with a symbol, such as λ, keeps it."""
    first = text[0].upper() if re.match(r"[a-z]+[ ,:;.'-]", text) else text[0]
    return f"{first}{text[1:]}".rstrip(".") + "."


def _attributes(section: type) -> dict[str, str]:
    """What the part "Attributes" of a docstring says of each."""
    _, _, block = inspect.cleandoc(vars(section).get("__doc__") or "").partition("Attributes:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", block, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _tables(item: Any) -> Iterator[dict[str, Any]]:
    """Every table below an item, itself included."""
    if isinstance(item, dict):
        yield item
    for inner in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
        yield from _tables(inner)


def _is_json(value: object) -> bool:
    """Whether JSON can hold a value: it knows no infinity."""
    parts = value if isinstance(value, list) else [value]
    return all(not isinstance(part, float) or math.isfinite(part) for part in parts) and "inf" not in map(str, parts)


def _rename_limits(table: dict[str, Any]) -> None:
    """Limits by their names in JSON Schema, and of two the narrower."""
    for name, keyword in _LIMITS.items():
        if isinstance(table.get(name), int | float):
            table[keyword] = table.pop(name)
    if "exclusiveMinimum" in table and table.get("minimum", math.inf) <= table["exclusiveMinimum"]:
        del table["minimum"]
    if "exclusiveMaximum" in table and table.get("maximum", -math.inf) >= table["exclusiveMaximum"]:
        del table["maximum"]
