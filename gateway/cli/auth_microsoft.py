"""``gateway auth microsoft``: sign in with a browser anywhere, for a backend with device_login."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from gateway.cli.common import chosen_file, config_option, example, named
from gateway.cli.errors import Failed
from gateway.cli.plain import say
from gateway.cli.shared import shared

if TYPE_CHECKING:
    from gateway.backends.microsoft.graph import GraphSettings
    from gateway.backends.microsoft.over_smtp import MicrosoftLoginSettings
    from gateway.backends.microsoft.tokens import Identity
    from gateway.config.models import BackendSettings


@click.command(epilog=example("gateway auth microsoft --backend office"))
@click.option(
    "--backend",
    "name",
    required=True,
    metavar="NAME",
    shell_complete=named("backends"),
    help="A graph backend that has device_login: true, or an smtp backend that has it in microsoft.",
)
@config_option
def microsoft(name: str) -> None:
    """Sign in to Microsoft, so that backend NAME may send as you."""
    from gateway.backends.shared.stores import Unkept, Unreadable
    from gateway.cli import local

    settings = local.settings(chosen_file()).settings
    section = settings.backends.get(name)
    found = _signing(section) if section else None
    if found is None:
        fitting = ", ".join(name for name, one in settings.backends.items() if _signing(one))
        there = f"; there are {fitting}" if fitting else ""
        raise Failed(f"no backend {name} of type graph with device_login: true, or smtp with it in microsoft{there}")
    if not settings.state_dir.is_dir():
        raise Failed(f"{settings.state_dir} does not exist yet; start the service once: gateway serve")
    if not os.access(settings.state_dir, os.W_OK | os.X_OK):  # known before somebody signs in for nothing
        raise Failed(f"you may not write to {settings.state_dir}; run this as the user of the service, or as root")
    identity = found.identity(name, settings.state_dir, shared(settings))
    assert identity.store
    try:
        with suppress(Unreadable):  # else it is known before somebody signs in for nothing
            identity.store.read()
        asyncio.run(_sign_in(found, identity))
    except Unkept as error:
        raise Failed(f"the sign-in cannot be stored: {error}") from None


def _signing(section: BackendSettings) -> GraphSettings | MicrosoftLoginSettings | None:
    """The settings of a sign-in in this backend."""
    from gateway.backends.microsoft.graph import GraphSettings
    from gateway.backends.microsoft.over_smtp import MicrosoftLoginSettings
    from gateway.backends.smtp.settings import SmtpSettings

    found = section.microsoft if isinstance(section, SmtpSettings) else section
    return found if isinstance(found, GraphSettings | MicrosoftLoginSettings) and found.device_login else None


async def _sign_in(settings: GraphSettings | MicrosoftLoginSettings, identity: Identity) -> None:
    from gateway.backends.microsoft.tokens import DeviceLogin
    from gateway.backends.shared.base import NoAnswer
    from gateway.backends.shared.oauth import BlockingHttp
    from gateway.clock import SystemClock
    from gateway.fetch import Fetch

    fetch, clock = Fetch(), SystemClock()
    login = DeviceLogin(identity, BlockingHttp(settings.way(fetch), asyncio.get_running_loop()))
    try:
        say(await asyncio.to_thread(login.start))
        while not (who := await asyncio.to_thread(login.finish)):
            await clock.sleep(login.interval)
    except NoAnswer as error:
        raise Failed(f"{error}\nto do: {error.outcome.fix}" if error.outcome.fix else str(error)) from None
    finally:
        await fetch.aclose()
    say(f"{who} has signed in; now try: gateway backend check {identity.name}")
