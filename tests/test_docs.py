"""config.example.yaml is true: it starts as it is, and with every setting switched on it is valid and complete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

import pytest
import yaml

from gateway.backends import settings_types
from gateway.config.loading import load
from gateway.config.models import Settings
from gateway.config.section import Section, classes_in
from gateway.config.show import schema
from tests.config.test_show import accepts

EXAMPLE = Path(__file__).parent.parent / "config.example.yaml"
TYPES = settings_types()


def switched_on() -> str:
    """The example with every "#setting" uncommented; "# explanations" stay comments."""
    return re.sub(r"^( *)#(?=[^ #\n])", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)


def named_files(text: str) -> list[str]:
    return re.findall(r"(?:_file|certificate|private_key): ([\w.-]+)", text)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The switched-on example with the files that it names beside it."""
    text = switched_on()
    special = {".hash": "$scrypt$ln=14,r=8,p=1$c2FsdHNhbHQ$" + "A" * 43, ".url": "https://alerts.example.com/gateway"}
    for name in named_files(text):
        (tmp_path / name).write_text(special.get(Path(name).suffix, "x" * 40))
        (tmp_path / name).chmod(0o600)
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_as_it_is_the_example_is_the_default(tmp_path: Path) -> None:
    """Copied to /etc without a change it does what no file at all does, without a warning."""
    environ = {"STATE_DIRECTORY": str(tmp_path)}
    loaded = load(EXAMPLE, environ, TYPES)
    assert loaded.settings == load(None, environ, TYPES).settings
    assert loaded.warnings == ()


def test_switched_on_the_example_is_valid(example: Path) -> None:
    """Whatever is uncommented fits the rest."""
    loaded = load(example, {}, TYPES)
    assert loaded.warnings == ()
    assert {backend.type for backend in loaded.settings.backends.values()} == set(TYPES)


def setting(model: type[Section], key: str) -> str:
    """What several backends have from a common base counts once, wherever it is shown."""
    owner = next(base for base in reversed(model.__mro__) if issubclass(base, Section) and key in base.file_keys())
    return f"{owner.__name__}.{key}"


def inner(model: type[Section], key: str) -> type[Section] | None:
    """The section that stands at a key, alone or in a list or mapping of such."""
    return next((found for found in classes_in(model.file_keys()[key]) if issubclass(found, Section)), None)


def existing(model: type[Section]) -> Iterator[str]:
    """Every setting within a section."""
    for key in model.file_keys():
        yield setting(model, key)
        if part := inner(model, key):
            yield from existing(part)


def shown(model: type[Section], data: dict[str, Any]) -> Iterator[str]:
    """Every setting that stands in the data, with ``x_file`` as ``x``."""
    for key, value in data.items():
        name = key if key in model.file_keys() else key.removesuffix("_file")
        yield setting(model, name)
        if part := inner(model, name):
            many = isinstance(value, list) or get_origin(model.file_keys()[name]) is dict
            for one in (value.values() if isinstance(value, dict) else value) if many else [value]:
                yield from shown(part, one)


def test_every_setting_is_in_the_example() -> None:
    """A setting that nobody can find does not exist."""
    data = yaml.safe_load(switched_on())
    found = set(shown(Settings, data))
    for section in data["backends"].values():
        found.update(shown(TYPES[section["type"]], section))
    models: list[type[Section]] = [Settings, *TYPES.values()]
    assert found == {name for model in models for name in existing(model)}


@pytest.mark.parametrize("text", [EXAMPLE.read_text(), switched_on()], ids=["as it is", "switched on"])
def test_the_schema_accepts_the_example(text: str) -> None:
    """An editor that uses the schema underlines nothing."""
    whole = schema(TYPES)  # PyYAML reads off as false; editors speak YAML 1.2 and do not
    assert accepts(whole, yaml.safe_load(text.replace("auth: off", 'auth: "off"')), whole)


def test_the_first_line_names_the_schema() -> None:
    """Editors look for it there."""
    assert EXAMPLE.read_text().startswith("# yaml-language-server: $schema=")
