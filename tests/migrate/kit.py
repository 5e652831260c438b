"""Settings of other relays as their administrators have them, and the command that reads them."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from gateway.backends import settings_types
from gateway.cli.root import cli
from gateway.config.loading import Loaded, load
from gateway.config.locate import SECTIONS

PASSWORD = "s3cret:of^theirs"


def put(folder: Path, **files: str) -> Path:
    """Files by name, in which __ is a dot; returns the folder."""
    for name, text in files.items():
        path = folder / name.replace("__", ".").replace("---", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
    return folder


@dataclass(frozen=True)
class Migrated:
    text: str
    left: str

    @property
    def data(self) -> Any:
        return yaml.safe_load(self.text)

    def loaded(self, folder: Path) -> Loaded:
        """What the service would make of it; files that are named need not be there."""
        file = folder / "loaded.yaml"
        file.write_text(self.text)
        return load(file, {}, settings_types(), spared=SECTIONS)


def run(kind: str, path: Path | str, *more: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["migrate-from", kind, str(path), *more], input=stdin)


def migrate(kind: str, path: Path | str, stdin: str | None = None) -> Migrated:
    done = run(kind, path, stdin=stdin)
    assert done.exit_code == 0, (done.output, done.exception)
    assert PASSWORD not in done.output
    return Migrated(done.stdout, done.stderr)
