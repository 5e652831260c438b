"""The package describes itself truly: one version, every import declared, every named file there."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from gateway import __version__
from tests.packaging.kit import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Import names that differ from the distribution, and modules that a declared one promises to bring.
DISTRIBUTION = {
    "dns": "dnspython",
    "jwt": "pyjwt",
    "cryptography": "pyjwt",  # extra: crypto
    "yaml": "pyyaml",
    "pydantic_core": "pydantic",
    "sqlalchemy": "sqlmodel",
    "httpx_aiohttp": "httpx-aiohttp",
    "aiohttp": "httpx-aiohttp",
    "google": "google-auth",
    "markupsafe": "jinja2",  # what it hands out
    "prometheus_client": "prometheus-client",
}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[~=<>! ;]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


def imported() -> set[str]:
    """Top-level names of everything the package imports from outside itself and the standard library."""
    found: set[str] = set()
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"gateway"}


def test_the_version_is_written_down_once() -> None:
    """hatchling reads it from gateway/__init__.py; nowhere else may it grow old."""
    assert re.fullmatch(r"\d+\.\d+\.\d+([ab.]\w+)?", __version__)
    assert "version" not in PROJECT["project"]
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "gateway/__init__.py"


def test_the_changelog_knows_the_version() -> None:
    """A release without its notes is not one; before the first, the notes stand under Unreleased."""
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{__version__}]" in text or ("## [Unreleased]" in text and __version__ in text)


def test_everything_imported_is_declared() -> None:
    """What only happens to be installed on a developer's machine is missing on a user's."""
    declared = names(PROJECT["project"]["dependencies"])
    for extra in ("uvloop", "postgresql"):
        declared |= names(PROJECT["project"]["optional-dependencies"].get(extra, []))
    missing = {name for name in imported() if DISTRIBUTION.get(name, name) not in declared}
    assert missing == set()


@pytest.mark.parametrize("target", PROJECT["project"]["scripts"].values())
def test_each_command_has_its_function(target: str) -> None:
    """An entry point that names nothing installs well and fails at the first call."""
    module, _, attribute = target.partition(":")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_files_named_by_the_metadata_are_there() -> None:
    """Readme, licence and the contents of the source distribution."""
    project = PROJECT["project"]
    wanted = [project["readme"], *project["license-files"]]
    wanted += [path.strip("/") for path in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]]
    assert [path for path in wanted if not (ROOT / path).exists()] == []


def test_the_licence_is_apache_2() -> None:
    """The declared licence is the one whose text lies here."""
    assert PROJECT["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_wheel_has_what_pages_are_made_of(tmp_path: Path) -> None:
    """Templates, style, script and icons lie in the package: hatchling takes them along, and nothing ignores them."""
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    pages = ROOT / "gateway/http/pages"
    wanted = {str(path.relative_to(ROOT)) for kind in ("templates", "static") for path in (pages / kind).iterdir()}
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())
