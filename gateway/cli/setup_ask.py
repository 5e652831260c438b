"""Questions of ``gateway setup``: each is also an option, and each answer is judged at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from gateway.cli.errors import Failed
from gateway.cli.plain import say

Judge = Callable[[str], str]  # the answer as it is taken; raises ValueError


@dataclass(frozen=True, slots=True)
class Asker:
    """``talks``: somebody is at a terminal. Without him what is not given is the default, or wrong use."""

    talks: bool

    def take(
        self, option: str, given: str | None, text: str, judge: Judge, *, default: str | None = None,
        choices: Sequence[str] = (), secret: bool = False,
    ) -> str:  # fmt: skip
        """The answer given as ``option``, else asked for until it is good. Raises UsageError."""
        if given is not None or not self.talks:
            if (answer := given if given is not None else default) is None:
                raise click.UsageError(f"nobody can be asked here: give {option} ({text})")
            try:
                return self._judged(answer, judge, choices)
            except ValueError as error:
                raise click.BadParameter(str(error), param_hint=option) from None
        while True:
            shown = f"{text} ({', '.join(choices)})" if choices else text
            answer = click.prompt(shown, default=default, hide_input=secret, show_default=bool(default), err=True)
            try:
                return self._judged(str(answer).strip(), judge, choices)
            except ValueError as error:
                say(f"  {error}", err=True)

    def _judged(self, answer: str, judge: Judge, choices: Sequence[str]) -> str:
        if choices and answer not in choices:
            raise ValueError(f'"{answer}" is none of {", ".join(choices)}')
        return judge(answer)

    def agree(self, text: str, *, yes: bool) -> None:
        """Go on, or not. Raises Abort."""
        if yes:
            return
        if not self.talks:
            raise click.UsageError("nobody can be asked here: add --yes, or look first with --dry-run")
        if not click.confirm(text, default=True, err=True):
            raise click.Abort


def any_text(answer: str) -> str:
    if not answer or not answer.isprintable():
        raise ValueError("is empty, or holds a control character: type it anew")
    return answer


def optional(answer: str) -> str:
    return any_text(answer) if answer else ""


def address(answer: str) -> str:
    from gateway.address import parse_address
    from gateway.model import BadAddress

    try:
        found = parse_address(answer)
    except BadAddress as error:
        raise ValueError(f'"{answer}": {error.text}; write for example noreply@example.com') from None
    if "@" not in found:
        raise ValueError(f'"{answer}" has no domain; write for example noreply@example.com')
    return found


def network(answer: str) -> str:
    from gateway.config.values import parse_network

    return str(parse_network(answer.strip()))


def networks(answer: str) -> str:
    return " ".join(map(network, answer.replace(",", " ").split()))


def bind(answer: str) -> str:
    """Where nobody listens yet."""
    from gateway.config.values import parse_bind
    from gateway.ports import holder

    _, port = parse_bind(answer)
    if port and (who := holder(port)):
        raise ValueError(f"port {port} is taken by {who}: stop that, or take another port")
    return answer


def port(answer: str) -> str:
    if answer and not (answer.isdecimal() and 0 < int(answer) < 65536):
        raise ValueError(f'"{answer}" is no port; write a number such as 587, or nothing')
    return answer


def name_of_client(answer: str) -> str:
    import re

    if not re.fullmatch("[a-z][a-z0-9_]{0,39}", answer):
        raise ValueError(f'"{answer}" is no name: a-z first, then a-z, 0-9 and _')
    return answer


def file_there(answer: str) -> str:
    path = Path(answer).expanduser()
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise ValueError(f"{path} is empty")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    return str(path.absolute())


def secret_from(file: str) -> str:
    """What stands in a file, or on standard input for "-". Raises Failed."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, ValueError) as error:
        raise Failed(f"{file}: {getattr(error, 'strerror', None) or 'it is no text'}") from None
    if not (found := text.strip("\r\n")) or "\n" in found:
        raise Failed(f"{file}: must hold the secret, in one line")
    return found


JUDGES: dict[str, Judge] = {"port": port, "username": optional, "tls": any_text, "region": any_text}
