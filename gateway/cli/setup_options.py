"""The options of ``gateway setup`` and its kin: every question has one."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import click

KINDS = (
    "microsoft365", "workspace", "gmail", "outlook", "smtp2go", "smtp", "js2mail", "justemails", "mailpass", "capture",
)  # fmt: skip
_Wrap = Callable[[Any], Any]


def _all(*options: _Wrap) -> _Wrap:
    return lambda command: reduce(lambda made, one: one(made), reversed(options), command)


way_options = _all(
    click.option("--provider", "kind", type=click.Choice(KINDS), help="What takes the mail on."),
    click.option("--host", metavar="NAME", help="smtp: the server."),
    click.option("--port", metavar="NUMBER", help="smtp: its port."),
    click.option("--tls", type=click.Choice(("starttls", "implicit", "none")), help="smtp: how."),
    click.option("--username", metavar="NAME", help="smtp: who logs in; empty for nobody."),
    click.option("--secret-file", metavar="FILE", help="Password or API key; - is standard input."),
    click.option("--region", type=click.Choice(("global", "us", "eu", "au")), help="smtp2go: the account's."),
    click.option("--tenant", metavar="ID", help="microsoft365: id or domain."),
    click.option("--client-id", metavar="ID", help="Of the application; of the one to sign in with: microsoft."),
    click.option("--certificate-file", metavar="FILE", help="microsoft365: certificate and key."),
    click.option("--service-account-file", metavar="FILE", help="workspace: the key."),
    click.option("--client-file", metavar="FILE", help="gmail: the Desktop client, to sign in with."),
    click.option("--authorized-user-file", metavar="FILE", help="gmail: the sign-in."),
)
microsoft_options = _all(
    click.option(
        "--mailbox", "mailboxes", multiple=True, metavar="ADDRESS", help="microsoft: may send as (repeatable)."
    ),
    click.option("--tenant-wide", is_flag=True, help="microsoft: may send as every mailbox of the tenant."),
    click.option("--browser/--device", default=False, help="microsoft: how the administrator signs in."),
    click.option("--resume", is_flag=True, help="microsoft: go on with what was begun."),
    click.option("--remove", is_flag=True, help="microsoft: undo what was made."),
    click.option("--graph-url", hidden=True, default="https://graph.microsoft.com"),
    click.option("--login-url", hidden=True, default="https://login.microsoftonline.com"),
)
who_options = _all(
    click.option("--name", metavar="NAME", help="Of the backend in the settings."),
    click.option("--sender", metavar="ADDRESS", help="Mail is sent as, and bounces come from."),
    click.option("--network", "networks", multiple=True, metavar="CIDR", help="May send without a login (repeatable)."),
    click.option("--login", metavar="NAME", help="Make a user name and password for a device."),
    click.option("--listen", "binds", multiple=True, metavar="ADDRESS:PORT", help="Where mail comes in (repeatable)."),
    click.option("--tls-certificate", metavar="FILE", help="Of this machine, for the listeners (STARTTLS)."),
    click.option("--tls-key", metavar="FILE", help="Its key, if it is in a file of its own."),
    click.option("--route", type=click.Choice(("all", "sender")), help="All mail goes by it, or the domain's."),
)
end_options = _all(
    click.option("--test-to", metavar="ADDRESS", help="Send a test mail there; empty for none."),
    click.option("--dry-run", is_flag=True, help="Print the settings and do nothing."),
    click.option("--no-check", is_flag=True, help="Do not ask the provider."),
    click.option("--yes", is_flag=True, help="Do not ask whether to go on."),
)
