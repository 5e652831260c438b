"""Manual pages and completion: made from the commands, and taken by groff, man and real shells."""

from __future__ import annotations

import os
import shlex
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
    assert complete(path_with_gateway, typed) == ([offered], "")


def complete(environ: dict[str, str], typed: str) -> tuple[list[str], str]:
    """What a real bash offers for the last word, and what it says on stderr."""
    words = typed.split()
    script = f"""source <(gateway completion bash)
        COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}
        _gateway_completion gateway {words[-1]} {words[-2]}; echo "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, env=environ, check=False)
    return done.stdout.split(), done.stderr


NAMES = [
    ("gateway queue list --backend of", ["office", "offsite"]),
    ("gateway queue reroute --backend s", ["smart"]),
    ("gateway queue list --client pr", ["printers"]),
    ("gateway queue list --state hel", ["held"]),
    ("gateway backend pause smart", ["smart"]),
    ("gateway client show pr", ["printers"]),
    ("gateway token mint --backend x", []),
]


@pytest.mark.parametrize(("typed", "offered"), NAMES, ids=[typed for typed, _ in NAMES])
def test_bash_completes_names(
    path_with_gateway: dict[str, str], tmp_path: Path, typed: str, offered: list[str]
) -> None:
    """From the settings, which need not even be right: no service runs here."""
    file = tmp_path / "config.yaml"
    file.write_text("backends: {office: {type: wrong}, offsite: {}, smart: {}}\nclients: {printers: {}}\n")
    assert complete(path_with_gateway | {"GATEWAY_CONFIG": str(file)}, typed) == (offered, "")


@pytest.mark.parametrize("text", [None, "backends: [", "backends: 3"], ids=["none", "no YAML", "no mapping"])
def test_settings_that_cannot_be_read_complete_nothing(
    path_with_gateway: dict[str, str], tmp_path: Path, text: str | None
) -> None:
    """The Tab key prints no error into the line that is typed."""
    file = tmp_path / "config.yaml"
    if text is not None:
        file.write_text(text)
    assert complete(path_with_gateway | {"GATEWAY_CONFIG": str(file)}, "gateway backend pause o") == ([], "")


def test_completion_goes_by_the_file_that_was_typed(path_with_gateway: dict[str, str], tmp_path: Path) -> None:
    """--config stands in the line already."""
    (tmp_path / "other.yaml").write_text("backends: {other: {}}\n")
    typed = f"gateway backend pause --config {tmp_path / 'other.yaml'} o"
    assert complete(path_with_gateway, typed) == (["other"], "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_the_script(path_with_gateway: dict[str, str], shell: str) -> None:
    """Nothing in it is a mistake there."""
    done = subprocess.run(
        ["gateway", "completion", shell], capture_output=True, text=True, env=path_with_gateway, check=True
    )
    assert "_GATEWAY_COMPLETE" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n", "/dev/stdin"], input=done.stdout, text=True, check=True)


LEAVES = [(name, one) for name, one in commands() if not isinstance(one, click.Group)]


def examples(command: click.Command) -> list[str]:
    return [line.strip() for line in (command.epilog or "").splitlines()[2:]]


@pytest.mark.parametrize(("name", "command"), LEAVES, ids=[name for name, _ in LEAVES])
def test_every_command_has_an_example_that_can_be_typed(name: str, command: click.Command, pages: Path) -> None:
    """Help ends with it, the manual shows it, and the command's own options and arguments allow it."""
    assert examples(command), "give it an epilog=example(...)"
    shown = CliRunner().invoke(cli, [*name.split()[1:], "--help"]).output.rstrip()
    assert shown.endswith(examples(command)[-1])
    for line in examples(command):
        words = shlex.split(line.partition(" > ")[0].partition(" < ")[0])
        assert words[: len(name.split())] == name.split()
        command.make_context(name, words[len(name.split()) :])
        page = (pages / f"{name.replace(' ', '-')}.1").read_text().partition(".SH EXAMPLES")[2]
        assert line in page.replace("\\-", "-").replace("\\(aq", "'")


# What only changes something, or prints what is no record: a secret, bytes, a schema that is JSON anyway.
WITHOUT_JSON = {
    "gateway auth google", "gateway auth microsoft", "gateway backend pause", "gateway backend resume",
    "gateway completion", "gateway config schema", "gateway demo", "gateway man", "gateway migrate-from",
    "gateway queue cat", "gateway serve", "gateway setup",
    "gateway token mint", "gateway token revoke",
}  # fmt: skip


def test_every_command_that_reads_has_json() -> None:
    """For programs; a new command is in this list or has it."""
    without = {name for name, one in LEAVES if not any("--json" in each.opts for each in one.params)}
    assert without == WITHOUT_JSON
