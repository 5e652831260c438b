"""What the documentation tells people to type works: commands, options, and the script of the README."""

from __future__ import annotations

import re
import shlex
import smtplib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import pytest

from gateway.cli.root import cli
from tests.flow.kit import Gateway
from tests.packaging.kit import PAGES, ROOT, blocks, rows


def typed() -> Iterator[tuple[str, str]]:
    """(place, command) of every line in a shell block that calls ``gateway``."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for offset, line in enumerate(block.text.splitlines(), 1):
                parts = (part.strip() for part in re.split(r"&&|;", line))
                calls = (part for part in parts if re.match(r"(\S*/)?gateway ", part))
                yield from ((f"{page.name}:{block.line + offset}", call) for call in calls)


def context(command: click.Command) -> click.Context:
    """As the program makes them: click keeps the help option that it made first."""
    return click.Context(command, help_option_names=["-h", "--help"])


def commands(group: click.Group, above: str = "") -> Iterator[str]:
    for name in group.list_commands(context(group)):
        command = group.get_command(context(group), name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{above}{name} ")
        else:
            yield above + name


@pytest.mark.parametrize(("place", "line"), list(typed()))
def test_command_exists_with_these_options(place: str, line: str) -> None:
    """Command names and options are those of the program; a slip fails as it would for the reader."""
    words = shlex.split(line.partition("<")[0].rstrip("& "), comments=True)[1:]
    command: click.Command = cli
    while isinstance(command, click.Group):
        _, words, _ = command.make_parser(context(command)).parse_args(words)
        if not words and command.invoke_without_command:
            return
        assert words, f"{place}: {line} is no complete command"
        found = command.get_command(context(command), words.pop(0)) if words else None
        assert found is not None, f"{place}: no such command"
        command = found
    command.make_parser(context(command)).parse_args(words)


def test_the_readme_lists_every_command() -> None:
    """What is not in the table is not found."""
    table = " ".join(cells[0] for cells in rows(ROOT / "README.md", "command"))
    listed = set(re.findall(r"[\w-]+", table))
    assert [name for name in commands(cli) if not set(name.split()) <= listed] == []


def test_the_documented_script_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's script, with the token that its own command mints; only the port is another one here."""
    [script] = [block.text for block in blocks(ROOT / "README.md", "python")]
    with Gateway(tmp_path) as gateway:
        token = gateway.run("token", "mint", "--sub", "me").stdout.strip()
        filled, places = re.subn(r'token = "eyJ..."', f'token = "{token}"', script)
        assert places == 1
        monkeypatch.setattr(smtplib, "SMTP", partial(_connect, smtplib.SMTP, gateway.port))
        exec(compile(filled, "README.md", "exec"), {})
        gateway.wait(lambda: [row["state"] for row in gateway.json("queue", "list", "--state", "all")] == ["done"])
        [found] = gateway.json("trace", "you@example.com")
    assert (found["client"], found["login"]) == ("tokens", "me")


def _connect(connect: type[smtplib.SMTP], port: int, host: str, documented: int) -> smtplib.SMTP:
    assert (host, documented) == ("localhost", 8025)
    return connect("127.0.0.1", port)  # a bare chroot has no /etc/hosts
