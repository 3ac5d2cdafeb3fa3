"""``eulerian schema``: printed, or written to a file that is not overwritten unasked."""

import json
from pathlib import Path

import pytest
from jobs import Here

from eulerian.app.config import Config

pytestmark = pytest.mark.one_process


def test_the_schema_is_printed(here: Here) -> None:
    assert json.loads(here("schema").stdout) == json.loads(json.dumps(Config.model_json_schema()))
    assert here("schema", "--quiet").stdout.startswith("{")


def test_the_schema_is_written(tmp_path: Path, here: Here) -> None:
    said = here("schema", "--output", "eulerian.schema.json").stdout
    assert "#:schema ./eulerian.schema.json" in said
    file = tmp_path / "eulerian.schema.json"
    assert json.loads(file.read_text("utf-8"))["properties"].keys() == Config.model_fields.keys()
    file.write_text("mine")
    assert "--overwrite" in here("schema", "--output", file.name, code=1).stderr
    assert file.read_text() == "mine"
    assert here("schema", "--output", file.name, "--overwrite", "-q").stdout == ""
    assert file.read_text("utf-8").startswith("{")
    (tmp_path / "dangling.json").symlink_to("elsewhere.json")
    here("schema", "--output", "dangling.json", code=1)


def test_a_configuration_that_names_its_schema_is_read(tmp_path: Path, here: Here) -> None:
    here("init", "gaussian")
    file = tmp_path / "gaussian.toml"
    file.write_text(f"#:schema ./eulerian.schema.json\n{file.read_text('utf-8')}", "utf-8")
    small = ["--set", "domain.box.cells=[4,4]", "--set", "output.densities=0"]
    here("solve", "gaussian.toml", "--quiet", *small)
