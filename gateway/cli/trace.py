"""``gateway trace``, ``gateway acts`` and ``gateway queue show``: what became of mail, and who did what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from gateway.cli import lifeline, plain
from gateway.cli.columns import Columns, wide_option
from gateway.cli.common import Api, config_option, connect, example, json_option, one_id, said
from gateway.cli.errors import Failed
from gateway.cli.plain import moment, say, show_json, stamp

ACTS = Columns(
    ("NUMBER", "WHEN", "WHO", "BY", "DID", "MESSAGES", "WHAT"),
    {"WHO": 6, "WHAT": 12},
    ("BY", "MESSAGES", "WHO", "WHEN", "WHAT"),
)
_RECIPIENTS, _EDGE = 20, 10  # of more recipients than these the first and last ten are listed
_all_option = click.option("--all", "whole", is_flag=True, help="Nothing cut or left out.")


@click.command(epilog=example("gateway queue show 1K1EQM5KE2HT7"))
@click.argument("queue_id", callback=one_id)
@_all_option
@json_option
@config_option
def show(queue_id: str, whole: bool, as_json: bool) -> None:
    """One message: its life, its recipients, its parts."""
    with connect() as api:
        detail = api.get(f"messages/{queue_id}", content=1, all=int(whole))
    if as_json:
        return show_json(detail)
    say("\n".join(lifeline.lines(detail)) + "\n")
    _recipients(detail["recipients"], whole=whole)
    if found := detail["content"]:
        say()
        plain.table(("PART", "SIZE", "FILE NAME"),
                    [(part["type"], plain.size(part["size"]), part["name"]) for part in found["parts"]])  # fmt: skip
        if found["more"]:
            say(f"and {found['more']} more parts")
    if kept := moment(detail["kept_until"]):
        say(f"\nThe text is kept until {stamp(kept)}: gateway queue cat {queue_id}")
    return None


def _recipients(rows: Sequence[Mapping[str, Any]], *, whole: bool) -> None:
    left = 0 if whole or len(rows) <= _RECIPIENTS else len(rows) - 2 * _EDGE
    listed = [*rows[:_EDGE], *rows[-_EDGE:]] if left else rows
    cells = [(row["address"], row["state"], row["backend"], lifeline.answer(row)) for row in listed]
    plain.table(("RECIPIENT", "STATE", "BACKEND", "LAST ANSWER"), cells)
    if left:
        say(f"The first and last {_EDGE} of {len(rows)}; see {left} more with --all")


@click.command(epilog=example("gateway trace max@example.com"))
@click.argument("what")
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1, 1000), help="At most so many messages.")
@_all_option
@json_option
@config_option
def trace(what: str, limit: int, whole: bool, as_json: bool) -> None:
    """What became of a message.

    WHAT is a queue id, a Message-ID, an address as it was sent or as it was rewritten, a domain, a pattern as
    *@example.com, a name without a domain, the provider's id, or the network address of the device. Of several
    messages the newest is told in full.
    """
    with connect() as api:
        found = api.get("trace", what=what, limit=limit)
        rows = found["messages"]
        told = rows if as_json else rows[:1]
        details = [api.get(f"messages/{row['id']}", all=int(whole)) for row in told]
    if not rows:
        raise Failed(_nothing(what.strip(), found))
    if as_json:
        return show_json(details)
    if len(rows) > 1:
        cells = [(row["id"], stamp(moment(row["received_at"])), lifeline.state(row), row["sender"] or "<>",
                  lifeline.addresses(row["recipients"], row["recipient_count"])) for row in rows]  # fmt: skip
        plain.table(("QUEUE ID", "ACCEPTED", "STATE", "FROM", "TO"), cells)
        say(f"\nThe newest of them; another one: gateway trace {rows[1]['id']}\n")
    say("\n".join(lifeline.lines(details[0])))
    if found["more"]:
        say(f"\nThere are more; see them with --limit {10 * limit}")
    return None


def _nothing(what: str, found: Mapping[str, Any]) -> str:
    """What was looked at, how long it is kept, what is close to it, and where else to look."""
    *most, last = found["looked_at"]
    lines = [f"no message has {what} as {', '.join(most)} or {last}, in the {found['kept']} that are kept."]
    lines += [
        f"{act['name'] or 'Somebody'} deleted it at {stamp(moment(act['made_at']))}: gateway acts {act['id']}"
        for act in found["acts"]
    ]
    if found["near"]:
        near = ", ".join(f"{one['address']} ({one['messages']})" for one in found["near"])
        lines.append(f"Close to it: {near}.")
    return "\n".join([*lines, "Where else to look:", *(f"  {line}" for line in found["elsewhere"])])


def _number(_context: object, _parameter: object, given: str | None) -> int | None:
    if given is None or (given.isascii() and given.isdigit() and int(given[:18])):
        return int(given[:18]) if given else None
    raise click.UsageError(f"{given} is no number of an act; what was done to a message: gateway acts --of {given}")


@click.command(epilog=example("gateway acts --limit 20"))
@click.argument("number", required=False, callback=_number)
@click.option("--of", "message", metavar="ID", callback=said, help="What was done to this message.")
@click.option("--did", "verb", metavar="VERB", callback=said, help="Only what did this, as hold, delete or pause.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="At most so many.")
@wide_option
@json_option
@config_option
def acts(number: int | None, message: str | None, verb: str | None, limit: int, wide: bool, as_json: bool) -> None:
    """Who did what, the last first; with NUMBER one act and which messages it changed."""
    with connect() as api:
        found = _one(api, number) if number else api.get("acts", limit=limit, message=message, verb=verb)["acts"]
    if as_json:
        return show_json(found)
    rows = found if isinstance(found, list) else [found]
    if not rows:
        return say("Nothing was ordered" + (f" about {message}" if message else ""))
    cells = [
        (
            row["id"],
            stamp(moment(row["made_at"])),
            row["name"] or "-",
            row["way"],
            row["verb"],
            row["count"] or "-",
            _about(row),
        )
        for row in rows
    ]
    ACTS.show(cells, wide=wide)
    if number and found["messages"]:
        say("\n" + "\n".join(found["messages"]))
    return None


def _about(row: Mapping[str, Any]) -> str:
    """Which messages, where they were named one by one, and what else is known of it."""
    named = not row["what"].startswith("all")
    return ": ".join(filter(None, (lifeline.addresses(row["messages"], row["count"]) if named else "", row["what"])))


def _one(api: Api, number: int) -> dict[str, Any]:
    """With all of its messages."""
    found: dict[str, Any] = api.get(f"acts/{number}")
    while found["next"]:
        page = api.get(f"acts/{number}", after=found["next"])
        found["messages"] += page["messages"]
        found["next"] = page["next"]
    return found
