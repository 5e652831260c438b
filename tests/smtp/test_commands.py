"""Command lines taken apart: once for all sessions, and nothing secret is kept."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from gateway.model import Refusal
from gateway.smtp.commands import Commands, StrayLogin

ANSWER = b"AHVzZXIAcGFzc3dvcmQ="  # \0user\0password


class Verbs(dict[bytes, str]):
    """Counts how often a verb is looked for, which is how often a line is looked at."""

    def __init__(self) -> None:
        super().__init__({name: name.decode().lower() for name in (b"MAIL", b"RCPT", b"AUTH", b"NOOP")})
        self.looks = Counter[object]()

    def __contains__(self, name: object) -> bool:
        self.looks[name] += 1
        return super().__contains__(name)


@pytest.mark.parametrize(
    ("line", "found", "looks"),
    [
        (b"MAIL FROM:<a@b>", ("mail", b"FROM:<a@b>", "mail"), 1),
        (b"mail  from:<a@b> ", ("mail", b"from:<a@b>", "mail"), 1),
        (b"NOOP", ("noop", b"", "command"), 1),
        (b"NOOP " + b"x" * 300, ("noop", b"x" * 300, "command"), 2),
        (b"AUTH PLAIN " + ANSWER, ("auth", b"PLAIN " + ANSWER, "auth"), 2),
        (b"auth login", ("auth", b"login", "auth"), 2),
        (b"RCPT TO:<" + ANSWER + b"@x>", "rcpt", 2),
        (b"NOOP " + ANSWER, "command", 2),
        (ANSWER, "unknown_command", 2),
        (b"cGFzc3dvcmQ=", "unknown_command", 2),
    ],
)
def test_what_is_remembered(line: bytes, found: Any, looks: int) -> None:
    """A line in order, and short. No AUTH, nothing that holds an answer to it, nothing that could be one."""
    verbs = Verbs()
    commands = Commands(verbs)
    for _ in range(2):
        try:
            said: object = commands(line)
        except StrayLogin as stray:
            said = stray.stage
        except Refusal as refusal:
            said = refusal.reason
        assert said == found
    assert sum(verbs.looks.values()) == looks
