"""``gateway auth ...``: sign in to a provider once, so that the service may send with nobody at the keyboard."""

from __future__ import annotations

import click

from gateway.cli.auth_google import google
from gateway.cli.auth_microsoft import microsoft


@click.group()
def auth() -> None:
    """Sign in to a provider once, so that the service may send."""


auth.add_command(google)
auth.add_command(microsoft)
