"""``gateway ui-login``: the way into the operator's pages."""

from __future__ import annotations

import click

from gateway.cli import plain
from gateway.cli.common import config_option, connect, example, json_option
from gateway.cli.plain import moment, say, show_json


@click.command("ui-login", epilog=example("gateway ui-login --role read"))
@click.option(
    "--role", type=click.Choice(["read", "operate", "admin"]), help="What the link allows (default: all you may)."
)
@click.option("--tenant", metavar="NAME", help="Shows the mail of this tenant only (default: everybody's).")
@click.option("--end-all", is_flag=True, help="Sign everybody out, and make links that were not used void.")
@json_option
@config_option
def login(role: str | None, tenant: str | None, end_all: bool, as_json: bool) -> None:
    """Print a link that opens the operator's pages in a browser.

    It works once, within 5 minutes. Whoever opens it is signed in for at most 8 hours, under your name.
    """
    with connect(offline=False) as api:
        if end_all:
            ended = api.post("signins/end")["ended"]
            return show_json({"ended": ended}) if as_json else say(f"ended: {ended} (sign-ins, and links not used)")
        made = api.post("signins", {"role": role or "", "tenant": tenant or ""})
    if as_json:
        return show_json(made)
    ends = moment(made["expires_at"])
    say(made["url"])
    for other in made["urls"][1:]:
        say(f"on this machine also: {other}", err=True)
    role = f"{made['role']}, tenant {made['tenant']}" if made["tenant"] else made["role"]
    return say(f"for {made['name']} ({role}); works once, until {plain.stamp(ends)}", err=True)
