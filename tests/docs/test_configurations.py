"""Whole configurations in the documentation are right for the JSON schema, too: editors find nothing wrong there."""

import re
import tomllib

import pytest
from code_blocks import Block, blocks, pages
from paths import ROOT

from eulerian.app.config import Config

pytestmark = pytest.mark.one_process

jsonschema = pytest.importorskip("jsonschema")
if not hasattr(jsonschema, "Draft202012Validator"):
    pytest.skip("jsonschema is older than this dialect: scripts/setup renews the environment", allow_module_level=True)

SCHEMA = Config.model_json_schema()
WHOLE = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}:{block.line}")
    for page in pages()
    for block in blocks(page)
    if block.language == "toml" and re.match(r"# [\w-]+\.toml\b", block.text)
]


@pytest.mark.parametrize("block", WHOLE)
def test_the_schema_agrees(block: Block) -> None:
    jsonschema.validate(tomllib.loads(block.text), SCHEMA, cls=jsonschema.Draft202012Validator)
