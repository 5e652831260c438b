"""``gateway man`` and ``gateway completion``: made from the commands themselves, so they are true of this version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

import gateway
from gateway.cli.common import example
from gateway.cli.errors import Failed
from gateway.cli.plain import say

_EXIT = (
    ("0", "done"),
    ("1", "failed, or something is wrong"),
    ("2", "wrong use of the command"),
    ("74", "standard input or output is closed or full"),
    ("75", "try again later: the service does not run or cannot now"),
    ("78", "the configuration is wrong"),
)
_FILES = (
    ("/etc/gateway/config.yaml", "the settings, unless --config or $GATEWAY_CONFIG names another file"),
    ("/var/lib/gateway", "the queue and the keys of the installed service"),
)


@click.command(epilog=example("gateway man --to /usr/local/share/man/man1"))
@click.option(
    "--to", "folder", metavar="DIRECTORY", required=True, type=click.Path(path_type=Path), help="Made if it is missing."
)
def man(folder: Path) -> None:
    """Write the manual pages of this version into a directory: then "man gateway-queue" finds them."""
    root = click.get_current_context().find_root()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pages(root.command, "gateway"):
            (folder / f"{name}.1").write_text(text)
            say(str(folder / f"{name}.1"))
    except OSError as error:
        raise Failed(f"cannot write {error.filename}: {error.strerror}") from None


@click.command(
    epilog=example(
        "gateway completion bash > /etc/bash_completion.d/gateway",
        "gateway completion zsh > /usr/local/share/zsh/site-functions/_gateway",
        "gateway completion fish > /etc/fish/completions/gateway.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes the Tab key complete commands, options and names in this shell."""
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root()
    made = get_completion_class(shell)
    assert made is not None  # click knows the three
    click.echo(made(root.command, {}, "gateway", "_GATEWAY_COMPLETE").source())


def pages(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """The page of a command and those of the commands below it: name, and text for man(7)."""
    yield name.replace(" ", "-"), "\n".join(_page(command, name)) + "\n"
    for one in _below(command).values():
        yield from pages(one, f"{name} {one.name}")


def _below(command: click.Command) -> dict[str, click.Command]:
    if not isinstance(command, click.Group):
        return {}
    context = click.Context(command)
    found = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return {name: one for name, one in found.items() if one is not None and not one.hidden}


def _page(command: click.Command, name: str) -> Iterator[str]:
    title, context = name.replace(" ", "-"), click.Context(command, info_name=name, help_option_names=["-h", "--help"])
    lines = [line.strip() for line in (command.help or "").splitlines()]
    yield f'.TH "{_text(title.upper())}" "1" "" "gateway {_text(gateway.__version__)}" "gateway"'
    yield from (".SH NAME", f"{_text(title)} \\- {_text(command.get_short_help_str(200).rstrip('.'))}")
    yield from (".SH SYNOPSIS", f".B {_text(name)}", _text(" ".join(command.collect_usage_pieces(context))))
    yield from (".SH DESCRIPTION", *(_text(line) if line else ".PP" for line in lines))
    below = _below(command)
    if below:
        yield ".SH COMMANDS"
        for each, one in below.items():
            yield from (".TP", f".B {_text(each)}", _text(one.get_short_help_str(200)))
    yield ".SH OPTIONS"
    for parameter in command.get_params(context):
        if record := parameter.get_help_record(context):
            yield from (".TP", f".B {_text(record[0])}", _text(record[1]))
    if command.epilog:
        yield from (".SH EXAMPLES", ".nf", *(_text(line) for line in _examples(command.epilog)), ".fi")
    for heading, rows in (("EXIT STATUS", _EXIT), ("FILES", _FILES)):
        yield f".SH {heading}"
        for term, text in rows:
            yield from (".TP", f".B {_text(term)}", _text(text))
    yield ".SH SEE ALSO"
    yield from (f".BR {_text(other)} (1)" for other in [f"{title}-{each}" for each in below] or ["gateway"])


def _examples(epilog: str) -> list[str]:
    return [line.strip() for line in epilog.replace("\b", "").splitlines()[1:] if line.strip() and line[0] == " "]


def _text(words: str) -> str:
    """What groff takes for a request, an escape or a fancy hyphen is the character itself."""
    safe = words.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe
