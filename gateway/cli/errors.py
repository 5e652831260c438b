"""How a command fails: the text on standard error, and the exit code (sysexits.h)."""

from __future__ import annotations

import click


class Failed(click.ClickException):
    """Ends the command with this text on stderr and exit code 1."""


class TryAgain(Failed):
    """Nothing is wrong with the command; later it may work."""

    exit_code = 75


class BadConfig(Failed):
    """The configuration must be corrected first."""

    exit_code = 78


class NoService(Failed):
    """Nobody answers; ``found`` says where that was tried."""

    def __init__(self, found: str) -> None:
        unseen = "One that started before state_dir or http.socket was changed may still run: then restart it."
        super().__init__(f"no service is running{found}; start it with: gateway serve\n{unseen}")
