"""The two commands of the README are complete, and .ci/run reads exactly them."""

from __future__ import annotations

import subprocess
import tomllib

import pytest

from tests.packaging.kit import ROOT, blocks

SETUP = "python3 -m venv --without-pip .venv && python3 -m pip --python .venv install -q "
COMMANDS = {
    "run": SETUP + ". && .venv/bin/gateway demo",
    "test": SETUP + "-e '.[test]' && .venv/bin/python -m pytest -q",
}
CI = ROOT / ".ci" / "run"


def readme_command_of_ci(name: str) -> subprocess.CompletedProcess[str]:
    """Call the shell function of .ci/run alone."""
    source = CI.read_text()
    function = source[source.index("readme_command() {") :]
    function = function[: function.index("\n}\n") + 3]
    script = f'set -euo pipefail\n{function}readme_command "$1"'
    return subprocess.run(["bash", "-c", script, "ci", name], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_readme_has_each_command_once_and_in_the_form_that_works_on_a_bare_machine(name: str) -> None:
    """Debian 12 has no ensurepip and an externally managed Python: only --without-pip with pip --python works."""
    mark = f"<!-- command: {name} -->"
    assert [block.text.strip() for block in blocks(ROOT / "README.md", "sh") if block.mark == mark] == [COMMANDS[name]]


@pytest.mark.parametrize("name", COMMANDS)
def test_ci_runs_the_command_that_stands_in_the_readme(name: str) -> None:
    """The script extracts the command instead of repeating it."""
    result = readme_command_of_ci(name)
    assert (result.returncode, result.stdout.strip()) == (0, COMMANDS[name])
    assert COMMANDS[name] not in CI.read_text()


def test_ci_fails_when_the_readme_has_no_such_command() -> None:
    """A README without the mark must not make CI run nothing and pass."""
    result = readme_command_of_ci("absent")
    assert result.returncode != 0
    assert "absent" in result.stderr


def test_ci_script_is_executable_and_parses() -> None:
    """bash reads the whole script before it runs any of it."""
    assert CI.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", str(CI)], check=False).returncode == 0
    assert "set -euo pipefail" in CI.read_text()


def test_extras_named_in_the_commands_exist() -> None:
    """pip only warns about an unknown extra, and the tests would then run without pytest."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"test", "dev"} <= extras.keys()
    assert any(requirement.startswith("pytest~=") for requirement in extras["test"])
