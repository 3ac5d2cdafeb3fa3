"""The directive ``configuration``: every table and key of a configuration, generated from the models.

A key has an anchor of its own: ``configuration.md#objective.kinetic``. Keys of one kind have its name in theirs, as in
``configuration.md#field.mlp.hidden``, and the first of these also goes without it: ``configuration.md#field.hidden``.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.addnodes import desc_signature
from sphinx.application import Sphinx
from sphinx.domains.std import ConfigurationValue
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata, OptionSpec

from eulerian.app.config import Config
from eulerian.app.config.keys import is_list
from eulerian.app.config.messages import sections_in
from eulerian.app.config.schema import kind_of, meaning, sentence, summary
from eulerian.app.config.toml import dump_key
from eulerian.app.config.values import Section

# Tables that are described in one place: keys that hold such, and those whose kinds have the keys of another's.
ELSEWHERE = {"target": "density.initial", "kernel": "objective.interaction"}
SAME_KINDS = {"objective.at": "objective.terminal"}

_LARGE, _TINY = 1e9, 1e-30  # limits beyond are not worth a word


class ConfigurationKey(ConfigurationValue):
    """``confval`` with anchors that are the keys themselves; the name that it is shown by need not be unique."""

    option_spec: ClassVar[OptionSpec] = {**ConfigurationValue.option_spec, "anchors": directives.unchanged_required}

    def add_target_and_index(self, name: str, sig: str, signode: desc_signature) -> None:  # noqa: ARG002
        """Note all anchors, and the key in the index and for the search."""
        anchors = self.options["anchors"].split()
        signode["ids"] += anchors
        self.state.document.note_explicit_target(signode)
        self.indexnode["entries"].append(("pair", f"{name}; configuration", anchors[0], "", None))
        self.env.domains.standard_domain.note_object("confval", anchors[0], anchors[0], location=signode)


class Configuration(SphinxDirective):
    """All tables, as sections of the page."""

    def run(self) -> list[nodes.Node]:
        """Generate Markdown and have it parsed."""
        for file in Path(inspect.getfile(Config)).parent.glob("*.py"):
            self.env.note_dependency(str(file))
        return self.parse_text_to_nodes("\n".join(Page().lines()), allow_section_headings=True)


@dataclass
class Page:
    """The Markdown of the directive.

    Attributes:
        taken: anchors that are in use.
    """

    taken: set[str] = field(default_factory=set)

    def lines(self) -> Iterator[str]:
        """All tables in the order of the file."""
        for key in Config.model_fields:
            yield from self.table(key, Config.model_fields[key].annotation, 2, meaning(Config, key))

    def table(self, key: str, annotation: Any, level: int, about: str) -> Iterator[str]:
        """A table, or the kinds that it may be, and the tables in it."""
        sections = sections_in(annotation)
        brackets = "[[{}]]" if is_list(annotation) else "[{}]"
        yield from self.heading(key, level, f"`{brackets.format(key)}`")
        yield from ("", sentence(prose(about)), "")
        if len(sections) == 1 and not kind_of(sections[0]):
            yield from self.keys(key, sections[0], "", set(sections[0].model_fields), level)
            return
        shared = set.intersection(*(set(section.model_fields) for section in sections)) - {"kind"}
        shared = {name for name in shared if len({repr(section.model_fields[name]) for section in sections}) == 1}
        shared = shared if len(sections) > 1 else set()
        if len(sections) > 1:
            place = SAME_KINDS.get(key, key)
            links = [
                f"[`{kind}`](#{anchor(f'{place}.{kind}')})"
                for s in sections
                if (kind := kind_of(s)) != "fixed" or place == key
            ]
            yield from (f"The key `kind` says what the other keys are: {', '.join(links)}.", "")
            yield from self.keys(key, sections[0], "", shared, level)
        if key in SAME_KINDS:
            yield from ("", f"The other keys are those of [`{SAME_KINDS[key]}`](#{anchor(SAME_KINDS[key])}).", "")
            return
        for section in sections:
            kind = kind_of(section)
            own = [name for name in section.model_fields if name not in shared and name != "kind"]
            yield from self.heading(f"{key}.{kind}", level + 1, f'`{key}`: `kind = "{kind}"`')
            yield from ("", sentence(prose(summary(section))), "")
            yield from self.keys(key, section, kind, set(own), level + 1)

    def heading(self, key: str, level: int, text: str) -> Iterator[str]:
        """A heading with its anchor."""
        label = f"({anchor(key)})=" if "." in key else ""  # MyST has one for other tables, by their heading
        yield from ("", label, f"{'#' * level} {text}")

    def keys(self, key: str, section: type[Section], kind: str, names: set[str], level: int) -> Iterator[str]:
        """Some keys of a table, and then the tables among them that are not described elsewhere."""
        schema = section.model_json_schema()
        tables = []
        listed = [name for name in section.model_fields if name in names]
        if len(listed) > 1:
            links = [f"[`{name}`](#{key}.{kind}.{name})" if kind else f"[`{name}`](#{key}.{name})" for name in listed]
            yield from ("Keys: " + ", ".join(links) + ".", "")
        for name in section.model_fields:
            if name in names:
                yield from self.entry(key, section, kind, name, schema)
                inner = section.model_fields[name].annotation
                if sections_in(inner) and name not in ELSEWHERE:
                    tables.append((name, inner))
        for name, inner in tables:
            yield from self.table(f"{key}.{name}", inner, level + 1, meaning(section, name))

    def entry(self, key: str, section: type[Section], kind: str, name: str, schema: Mapping[str, Any]) -> Iterator[str]:
        """One key."""
        found, info = schema["properties"][name], section.model_fields[name]
        anchors = [f"{key}.{kind}.{name}"] if kind else []
        if f"{key}.{name}" not in self.taken:
            anchors.append(f"{key}.{name}")
        self.taken.update(anchors)
        yield from ("", f"::::{{configuration-key}} {key}.{name}", f":anchors: {' '.join(anchors)}")
        yield from (":no-contents-entry:", "")
        yield from (sentence(prose(meaning(section, name) or info.description or "")), "")
        examples = " or ".join(f"`{dump_key(name, example)}`" for example in info.examples or ())
        default = code(found["default"]) if "default" in found else "none"
        told = ["*required*" if info.is_required() else f"*default* {default}", f"*example* {examples}"]
        if sections_in(info.annotation):
            place = ELSEWHERE.get(name, f"{key}.{name}")
            told.insert(0, f"*see* [`{place}`](#{anchor(place)})")
        yield " · ".join([f"*type* {words(found)}", *told])
        yield "::::"


def anchor(key: str) -> str:
    """The anchor of a table, or of a kind of it."""
    return key.replace(".", "-")


def prose(text: str) -> str:
    """A docstring's words as Markdown: nothing in them is markup but code, and quoted values are code."""
    parts = re.split(r'(``.*?``|"[\w .:/-]+")', text)
    return "".join(
        f"`{part.strip('`')}`" if part[:1] in {"`", '"'} else re.sub(r"([\\*_\[\]<>$#])", r"\\\1", part)
        for part in parts
    )


def code(value: Any) -> str:
    """A value as TOML writes it."""
    return f"`{dump_key('k', value).partition(' = ')[2]}`"


def words(schema: Mapping[str, Any], plural: str = "") -> str:
    """The type of a key in words; ``plural`` is "s" for several."""
    for name in ("anyOf", "oneOf"):
        if any("type" in each or "const" in each or "$ref" in each for each in schema.get(name, ())):
            return " or ".join(dict.fromkeys(words(each, plural) for each in schema[name]))
    if "enum" in schema:
        return ", ".join(code(value) for value in schema["enum"])
    if "const" in schema:
        return code(schema["const"])
    kind = "object" if "$ref" in schema else schema["type"]
    if kind == "array":
        return f"list{plural} of " + _entries(schema)
    if kind == "string":
        return ("path" if schema.get("format") == "path" else "text") + plural
    if kind in ("number", "integer"):
        return f"{'' if kind == 'number' else 'whole '}number{plural}{_limits(schema)}"
    return {"boolean": "`true` or `false`", "object": f"table{plural}"}.get(str(kind), f"number{plural} or ±`inf`")


def _entries(schema: Mapping[str, Any]) -> str:
    if "prefixItems" in schema:
        return f"{len(schema['prefixItems'])} {words(schema['prefixItems'][0], 's')}"
    count = f"{schema.get('minItems', 0)} to {schema['maxItems']} " if "maxItems" in schema else ""
    return count + words(schema["items"], "s")


def _limits(schema: Mapping[str, Any]) -> str:
    limits = {
        name: schema[name] for name in ("exclusiveMinimum", "minimum", "exclusiveMaximum", "maximum") if name in schema
    }
    if 0 < limits.get("minimum", 0) < _TINY:
        limits |= {"exclusiveMinimum": 0}
        del limits["minimum"]
    limits = {name: limit for name, limit in limits.items() if abs(limit) < _LARGE}
    if limits.keys() == {"minimum", "maximum"}:
        return f" from {limits['minimum']} to {limits['maximum']}"
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    return (
        "".join(f" {signs[name]} {limits[name]:g}" for name in signs if name in limits)
        .replace(" <", ", <")
        .replace(" ≤", ", ≤")
    )


def note_anchors(app: Sphinx, doctree: nodes.document) -> None:
    """Let links such as ``configuration.md#objective.kinetic`` find anchors: MyST knows those of headings only."""
    metadata = app.env.metadata[app.env.current_document.docname]
    slugs = dict(metadata.get("myst_slugs", {}))
    for key in doctree.findall(desc_signature):
        slugs |= {name: (0, name, key.get("fullname", name)) for name in key["ids"]}
    for table in doctree.findall(nodes.section):
        slugs |= {name: (0, name, table.next_node(nodes.title).astext()) for name in table["ids"]}
    metadata["myst_slugs"] = slugs


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directives."""
    app.add_directive("configuration", Configuration)
    app.add_directive("configuration-key", ConfigurationKey)
    app.connect("doctree-read", note_anchors)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
