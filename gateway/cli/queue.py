"""``gateway queue ...``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from gateway.cli import lifeline, plain
from gateway.cli.columns import room, wide_option
from gateway.cli.common import config_option, connect, example, json_option, one_id, takes_no_word
from gateway.cli.listing import STATES, Listing, filter_options, find, refuse_unknown, say_lines, watch
from gateway.cli.orders import VERBS
from gateway.cli.plain import moment, say, show_json
from gateway.cli.trace import show


@click.group()
def queue() -> None:
    """Look at the queue, and change what happens to its messages."""


def _instead(word: str) -> str:
    """What finds one message, or those of somebody."""
    if word.isalnum() and word.isupper():
        return f"one message: gateway queue show {word}"
    return f"mail to it: --to {word}, from it: --from {word}, and whatever became of that: gateway trace {word}"


@queue.command("list", epilog=example("gateway queue list --to example.com --since 2h --oldest"))
@takes_no_word(_instead)
@filter_options(states=(*STATES, "all"))
@click.option("--oldest", is_flag=True, help="The oldest first.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="At most so many, newest first.")
@wide_option
@click.option("--watch", "watching", is_flag=True, help="Show it again every 2 seconds, until ^C.")
@json_option
@config_option
def list_(oldest: bool, limit: int, wide: bool, watching: bool, as_json: bool, **filters: str | None) -> None:
    """What is not finished yet, newest first; with --state also what is."""
    state = filters["state"] or "unfinished"
    query = {**filters, "order": "oldest" if oldest else "", "state": "" if state == "all" else state}
    if watching and not as_json:
        return watch(lambda width: _draw(limit, query, None if wide else width))
    with connect() as api:
        if as_json:
            return show_json(find(api, limit, **query)[0])
        listing = Listing.of(api, limit, query)
        narrowed = any(filters.values())
        dropped = [] if narrowed else api.get("drop")["folders"]
        if not listing.rows:
            refuse_unknown(api, filters["backend"], filters["client"])
    if listing.rows:
        say_lines(listing.lines(None if wide else room()))
    else:
        say(_nothing(filters) if narrowed else "Mail queue is empty")
    return say_dropped(dropped)


def _draw(limit: int, query: Mapping[str, Any], width: int | None) -> Iterator[str]:
    """The list as it is now, or why it cannot be seen: a service that is being restarted comes back."""
    try:
        with connect(offline=False) as api:
            listing = Listing.of(api, limit, query)
    except click.ClickException as error:
        yield error.message
        return
    yield from listing.lines(width) if listing.rows else ["nothing"]


def _nothing(filters: Mapping[str, str | None]) -> str:
    """Nobody takes "not there" for "not looked at"."""
    who = filters["recipient"] or filters["sender"]
    where = "" if filters["state"] else " among what is not finished (--state all: of all that is kept)"
    if filters["state"] == "all" and not any(text for name, text in filters.items() if name != "state"):
        return "No mail yet; to send a test: gateway send-test --to you@example.com"
    return f"No such message{where}" + (f"; where else to look: gateway trace {who}" if who else "")


@queue.command(epilog=example("gateway queue dropped"))
@json_option
@config_option
def dropped(as_json: bool) -> None:
    """What waits in the maildrop and in pickup folders, and what was put aside there."""
    with connect() as api:
        folders = api.get("drop")["folders"]
    if as_json:
        return show_json(folders)
    return say_dropped(folders, everything=True)


def say_dropped(folders: Sequence[Mapping[str, Any]], *, everything: bool = False) -> None:
    """A table of the files; folders without any are left out unless ``everything`` is wanted."""
    for one in folders:
        if everything or one["waiting"] or one["corrupt"] or one["reason"]:
            known = one["waiting"] or not one["reason"]  # who cannot look does not know that nothing waits
            text = f"{one['name']}: " + (f"{one['waiting']} waiting in " if known else "") + one["path"]
            text += f", {one['corrupt']} that are no mail in its folder corrupt" if one["corrupt"] else ""
            say(f"{text}: {one['reason']}" if one["reason"] else text)
    rows = [
        (file["file"], plain.relative(moment(file["dropped_at"])), plain.size(file["size"]), f"user id {file['owner']}",
         file["sender"], lifeline.addresses(file["recipients"]))
        for one in folders
        for file in one["files"]
    ]  # fmt: skip
    if rows:
        plain.table(("FILE", "DROPPED", "SIZE", "BY", "FROM", "TO"), rows)


_COUNTED = ("queued", "held", "corrupt")


@queue.command(epilog=example("gateway queue summary"))
@json_option
@config_option
def summary(as_json: bool) -> None:
    """How much waits for which backend, and since when."""
    with connect() as api:
        status = api.get("status")
        messages = {state: api.get("messages", state=state, limit=1, total=1)["total"] for state in _COUNTED}
    if as_json:
        return show_json({"queue": status["queue"], "oldest": status["oldest"], "messages": messages})
    rows = [
        (name, states.get("queued", 0), states.get("held", 0), plain.relative(moment(status["oldest"].get(name))))
        for name, states in sorted(status["queue"].items())
        if states.get("queued") or states.get("held")
    ]
    plain.table(("BACKEND", "QUEUED", "HELD", "OLDEST"), rows) if rows else say("Mail queue is empty")
    if total := sum(messages.values()):
        parts = ", ".join(f"{number:,} {state}" for state, number in messages.items() if number)
        say(f"{total:,} message{'s' if total != 1 else ''}: {parts}; one that goes by two backends is in two lines")
    for step in reversed(status.get("clock", {}).get("steps", ())):
        say(f"note: {lifeline.step(step)}; no mail expires or waits because of that")
    return None


queue.add_command(show)


@queue.command(epilog=example("gateway queue cat 1K1EQM5KE2HT7 > message.eml"))
@click.argument("queue_id", callback=one_id)
@config_option
def cat(queue_id: str) -> None:
    """The message byte for byte, as it will be sent."""
    with connect() as api:
        click.echo(api.raw(queue_id), nl=False)


for verb in VERBS:
    queue.add_command(verb)
