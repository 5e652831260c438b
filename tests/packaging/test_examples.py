"""Every settings example in the documentation is accepted by the loader."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gateway.backends import settings_types
from gateway.config.loading import Loaded, load
from tests.packaging.kit import PAGES, Block, blocks

# What an example may refer to without showing it.
AROUND = {
    "clients": {"tokens": {"token": "*"}, "printers": {"networks": ["192.0.2.0/24"]}},
    "backends": {
        "s2g": {"type": "smtp2go", "api_key": "api-example"},
        "smart": {"type": "smtp", "host": "smtp.example.net"},
    },
    "routes": [{"backend": "s2g"}],
}
FILES = re.compile(r"(?:_file|certificate|private_key): ([\w.-]+)")  # what an example names must lie beside it
OTHER_PROGRAMS = {"services", "groups"}  # compose.yaml, Prometheus rules
EXAMPLES = [
    block for page in PAGES for block in blocks(page, "yaml") if not OTHER_PROGRAMS & yaml.safe_load(block.text).keys()
]


def load_text(folder: Path, text: str) -> Loaded:
    for name in FILES.findall(text):
        (folder / name).write_text("an example, and long enough for every check of its length\n")
        (folder / name).chmod(0o600)
    path = folder / "config.yaml"
    path.write_text(text.replace("$scrypt$...", "$scrypt$ln=14,r=8,p=1$c2FsdHNhbHQ$" + "A" * 43))
    return load(path, {"STATE_DIRECTORY": str(folder)}, settings_types())


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: f"{block.page}:{block.line}")
def test_example_is_valid(block: Block, tmp_path: Path) -> None:
    """What a reader copies must start; sections that the example leaves out are filled in."""
    given = yaml.safe_load(block.text)
    missing = {key: part for key, part in AROUND.items() if key not in given}
    if len(given.get("backends", ())) == 1:
        missing.pop("routes", None)  # everything goes there
    load_text(tmp_path, block.text + (yaml.safe_dump(missing) if missing else ""))


def test_the_hs256_example_needs_nothing_else(tmp_path: Path) -> None:
    """The README promises: with this file and a secret, any HS256 token may log in."""
    block = next(block for block in EXAMPLES if block.page == "README.md" and "HS256" in block.text)
    loaded = load_text(tmp_path, block.text)
    assert loaded.settings.auth.keys["app"].algorithm == "HS256"
    assert loaded.settings.clients["tokens"].token == "*"


def test_there_are_examples() -> None:
    """An empty parametrisation would pass."""
    assert len(EXAMPLES) > 8
