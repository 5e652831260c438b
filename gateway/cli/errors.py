"""How a command fails: the text on standard error, and the exit code (sysexits.h)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

TYPED = "gateway.typed"  # in click's context: what was typed behind "gateway", for whoever has to type it again


class Failed(click.ClickException):
    """Ends the command with this text on stderr and exit code 1."""


class TryAgain(Failed):
    """Nothing is wrong with the command; later it may work."""

    exit_code = 75


class BadConfig(Failed):
    """The configuration must be corrected first; ``found`` are its errors as objects, for --json."""

    exit_code = 78

    def __init__(self, message: str, found: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.found = list(found)


class NoService(TryAgain):
    """Nobody answers; the text says where that was tried, and what starts a service."""


class Starting(NoService):
    """A service is there that does not listen yet, or no more."""
