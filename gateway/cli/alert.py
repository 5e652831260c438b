"""``gateway alert ...``: who is told what needs somebody, and whether that works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from gateway.cli import plain
from gateway.cli.columns import Columns, wide_option
from gateway.cli.common import config_option, connect, example, json_option
from gateway.cli.errors import Failed
from gateway.cli.plain import moment, say, show_json

COLUMNS = Columns(
    ("SINCE", "OVER", "SEVERITY", "TOLD BY", "STILL TO TELL", "WHAT"),
    {"WHAT": 12},
    ("STILL TO TELL", "TOLD BY", "OVER", "SEVERITY"),
)


@click.group()
def alert() -> None:
    """Who is told what needs somebody: by mail, webhook or command (setting alerts)."""


@alert.command("list", epilog=example("gateway alert list"))
@wide_option
@json_option
@config_option
def list_(wide: bool, as_json: bool) -> None:
    """What was told, the newest first."""
    with connect(offline=False) as api:
        found = api.get("alerts")
    if as_json:
        return show_json(found)
    if not found["ways"]:
        say("Nobody is told. Write  alerts: {to: [admin@example.com]}  into the settings, then: gateway reload")
    rows = [
        (plain.stamp(moment(row["since"])), plain.stamp(moment(row["over_at"])), row["severity"],
         ",".join(row["told"]) or "-", ",".join(row["owed"]) or "-", row["what"])
        for row in found["alerts"]
    ]  # fmt: skip
    if rows:
        return COLUMNS.show(rows, wide=wide)
    return say("Nothing was told yet. What needs you now: gateway status") if found["ways"] else None


def _whom(found: Mapping[str, Any]) -> str:
    return str(next(iter(found.get("alerts.to") or ("ADDRESS",))))


@alert.command(epilog=example("gateway alert test"))
@json_option
@config_option
def test(as_json: bool) -> None:
    """Send a test alert by every way, and say which of them took it. Exit code 1: not all did."""
    with connect(offline=False) as api:
        ways = api.post("alerts/test")["ways"]
        found = {one["key"]: one["value"] for one in api.get("settings", q="alerts.to")["settings"]}
    if as_json:
        show_json({"ways": ways})
    for way, why in ways.items() if not as_json else ():
        taken = "taken" if way != "mail" else f"queued; whether it was sent: gateway trace {_whom(found)}"
        say(f"{way}: {f'FAILED: {why}' if why else taken}")
    if any(ways.values()):
        raise Failed("not every way works")
