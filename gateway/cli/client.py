"""``gateway client ...``: who may send what, and when they last did."""

from __future__ import annotations

from typing import Any

import click

from gateway.cli import plain
from gateway.cli.columns import Columns, wide_option
from gateway.cli.common import config_option, connect, example, json_option, named, said, takes_no_word
from gateway.cli.errors import Failed
from gateway.cli.plain import moment, say, show_json

_OVER = {"hold": "held until released", "defer": "told to try again", "refuse": "refused"}
COLUMNS = Columns(
    ("CLIENT", "KNOWN BY", "SENDS AS", "TO", "BY", "RATE USED", "ACCEPTED", "REFUSED", "LAST ACCEPTED"),
    {"KNOWN BY": 10, "SENDS AS": 12, "TO": 8, "BY": 8},
    ("BY", "TO", "RATE USED", "KNOWN BY", "SENDS AS", "REFUSED", "ACCEPTED", "LAST ACCEPTED"),
)


@click.group()
def client() -> None:
    """Who may send: list, show."""


@client.command("list", epilog=example("gateway client list"))
@takes_no_word("one of them: gateway client show {}".format)
@wide_option
@json_option
@config_option
def list_(wide: bool, as_json: bool) -> None:
    """Every client, how it is known, what it may do, and what it did today."""
    with connect() as api:
        found = api.get("clients")["clients"]
    if as_json:
        return show_json(found)
    return COLUMNS.show(map(_row, found), wide=wide) if found else say("No clients: nobody may send.")


def _row(one: Any) -> tuple[object, ...]:
    known, rate = ", ".join(one["known_by"]), "; ".join(_used(one)) or "no limit"
    last = plain.relative(moment(one["last_accepted_at"])) + (" (used to send daily)" if one["silent"] else "")
    ways = (one["sends_as"], one["sends_to"], one["sends_by"])
    return (one["name"], known, *ways, rate, one["accepted_today"], one["refused_today"], last)


def _used(one: Any) -> list[str]:
    """Its rate, then of its quota each number with who of it has used most."""
    rate = [f"{one['rate_used']} of {one['rate']}"] if one["rate"] else []
    return rate + [_number(each) for each in one["quota"]]


def _number(each: Any) -> str:
    recipients = " recipients" * (each["counts"] == "recipients")
    return f"{each['used']} of {each['rate']}{recipients}" + (f" ({each['who']})" if each["who"] else "")


@client.command(epilog=example("gateway client show printers"))
@click.argument("name", callback=said, shell_complete=named("clients"))
@json_option
@config_option
def show(name: str, as_json: bool) -> None:
    """One client with all its limits, and where it last came from."""
    with connect() as api:
        known = {one["name"]: one for one in api.get("clients")["clients"]}
    if name not in known:
        raise Failed(f"no client {name}; there are {', '.join(known) or 'none'}")
    if as_json:
        return show_json(known[name])
    for word, value in _facts(known[name]):
        say(f"{word + ':' if word else '':<16}{value}")
    return None


def _facts(one: Any) -> list[tuple[str, str]]:
    accepted, password = moment(one["last_accepted_at"]), moment(one["password_used_at"])
    facts = [
        ("client", one["name"]),
        ("known by", ", ".join(one["known_by"])),
        ("sends as", one["sends_as"]),
        ("sends to", one["sends_to"]),
        ("sends by", one["sends_by"]),
        ("rate", f"{one['rate']}, {one['rate_used']} used now" if one["rate"] else "no limit"),
        *_quota(one),
        ("largest", one["max_size"] or "as limits.max_size says"),
        ("recipients", str(one["max_recipients"] or "as limits.max_recipients says")),
        ("today", f"{one['accepted_today']} accepted, {one['refused_today']} refused"),
        ("last accepted", _last(accepted, one["last_accepted_from"])),
    ]
    return facts + ([("password used", _last(password, one["password_used_from"]))] if one["password"] else [])


def _quota(one: Any) -> list[tuple[str, str]]:
    """A line for each number of its quota, then what becomes of the rest."""
    facts = [("quota" if not n else "", _number(each)) for n, each in enumerate(one["quota"])]
    if facts:
        each = "" if one["quota_per"] == "client" else f", counted for each {one['quota_per']}"
        facts.append(("over quota", f"{_OVER[one['quota_over']]}{each}"))
    if one["max_connections"] is not None:
        facts.append(("connections", f"{one['connections']} of {one['max_connections']} open"))
    return facts


def _last(when: Any, peer: str) -> str:
    where = f", from {peer}" if peer else ""
    return f"{plain.stamp(when)} ({plain.relative(when)}){where}" if when else "never seen"
