"""A file with typing errors gives a ConfigError with plain lines or is valid; nothing else ever comes out."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from gateway.backends import settings_types
from gateway.config import ConfigError
from gateway.config.loading import load
from gateway.config.show import show
from tests.test_docs import named_files, switched_on

PIECES = [
    *"{}[]:,&*!|>'\"%@`#-?~ \n\t\0é0",
    "null",
    "{}",
    "[]",
    "<<: *x",
    "!!int ",
    "1e9",
    "\\0",
    "{null: null}",
    "[[]]",
]


def damaged(text: str, rng: random.Random) -> str:
    """One to four slips: something left out, put in, a line gone, doubled or moved."""
    for _ in range(rng.randint(1, 4)):
        lines, at = text.split("\n"), rng.randrange(len(text))
        line = rng.randrange(len(lines))
        match rng.randrange(4):
            case 0:
                text = text[:at] + text[at + rng.randint(1, 12) :]
            case 1:
                text = text[:at] + rng.choice(PIECES) + text[at:]
            case 2:
                text = "\n".join(lines[:line] + lines[line + 1 :])
            case _:
                text = "\n".join([*lines[:line], rng.choice(lines), *lines[line:]])
    return text


def read(path: Path) -> list[str]:
    """What is said about the file: its errors, or the first line of the settings shown."""
    try:
        return show(load(path, {}, settings_types())).splitlines()[:1]
    except ConfigError as error:
        return error.lines


@pytest.mark.parametrize("seed", range(25))
def test_damage(tmp_path: Path, seed: int) -> None:
    """Also names keep their meaning: every line says where, and nothing is said in Python's words."""
    good = "\n".join(line for line in switched_on().splitlines() if line.strip() and not line.lstrip().startswith("#"))
    for name in named_files(good):
        (tmp_path / name).write_text("$scrypt$ln=14,r=8,p=1$c2FsdHNhbHQ$" + "A" * 43)
    path = tmp_path / "config.yaml"
    path.write_text(damaged(good, random.Random(seed)))
    lines = read(path)
    assert lines
    assert all(line.startswith((f"{path}:", f"# {path}")) for line in lines)
    assert not any(words in line for words in ("Input should", "pydantic", "yaml.org", "Traceback") for line in lines)
