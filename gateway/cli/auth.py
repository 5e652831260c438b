"""``gateway auth ...``: sign in to a provider once, so that the service may send with nobody at the keyboard."""

from __future__ import annotations

import click

from gateway.cli.lazy import LazyGroup

_COMMANDS = {
    "google": "gateway.cli.auth_google:google",
    "microsoft": "gateway.cli.auth_microsoft:microsoft",
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def auth() -> None:
    """Sign in to a provider once, so that the service may send."""
