"""Manual pages and completion: made from the commands, and taken by groff, man and real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gateway.cli.root import cli


def commands(command: click.Command = cli, name: str = "gateway") -> Iterator[tuple[str, click.Command]]:
    """Every command that a person can see, with all its words."""
    yield name, command
    context = click.Context(command)
    for each in command.list_commands(context) if isinstance(command, click.Group) else ():
        one = command.get_command(context, each)
        if one and not one.hidden:
            yield from commands(one, f"{name} {each}")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man") / "man1"
    done = CliRunner().invoke(cli, ["man", "--to", str(folder)])
    assert done.exit_code == 0, done.output
    return folder


def test_every_command_has_a_page(pages: Path) -> None:
    """What can be typed can be looked up, under the name that git and systemctl use for such pages."""
    assert {path.stem for path in pages.iterdir()} == {name.replace(" ", "-") for name, _ in commands()}


def test_a_page_says_all_that_help_says(pages: Path) -> None:
    """Each option stands there, as typed."""
    text = (pages / "gateway-queue-list.1").read_text()
    for option in ("\\-\\-backend", "\\-\\-json", "\\-h, \\-\\-help"):
        assert option in text
    assert "gateway queue list" in text


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_groff_finds_nothing_wrong(pages: Path) -> None:
    """No unknown request or escape in any page, whatever stands in a help text."""
    files = sorted(map(str, pages.iterdir()))
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Not a traceback."""
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(cli, ["man", "--to", str(tmp_path / "file" / "man1")])
    assert done.exit_code == 1
    assert f"cannot write {tmp_path / 'file'}" in done.output


@pytest.fixture
def path_with_gateway(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``gateway`` is this one."""
    program = tmp_path / "gateway"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gateway.cli "$@"\n')
    program.chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("typed", "offered"), [("gateway hea", "healthcheck"), ("gateway queue summ", "summary")], ids=["first", "second"]
)
def test_bash_completes(path_with_gateway: dict[str, str], typed: str, offered: str) -> None:
    """The printed script, sourced by a real bash."""
    words = typed.split()
    script = f"""source <(gateway completion bash)
        COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}
        _gateway_completion gateway {words[-1]} {words[-2]}; echo "${{COMPREPLY[@]}}" """
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60, env=path_with_gateway, check=False
    )
    assert (done.stdout.split(), done.stderr) == ([offered], "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_the_script(path_with_gateway: dict[str, str], shell: str) -> None:
    """Nothing in it is a mistake there."""
    done = subprocess.run(
        ["gateway", "completion", shell], capture_output=True, text=True, env=path_with_gateway, check=True
    )
    assert "_GATEWAY_COMPLETE" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n", "/dev/stdin"], input=done.stdout, text=True, check=True)
