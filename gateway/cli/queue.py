"""``gateway queue ...``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from gateway.cli import lifeline, plain
from gateway.cli.common import Api, checked_by, config_option, connect, json_option, said
from gateway.cli.errors import Failed
from gateway.cli.plain import moment, say, show_json
from gateway.cli.trace import show

_PENDING = ("queued", "held", "corrupt")
_PAGE = 1000


def _filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--older", metavar="AGE", callback=checked_by("durations", "parse_duration"), help="Older than this, as 2h."
        ),
        click.option("--to", "recipient", metavar="ADDRESS", callback=said, help="With this recipient."),
        click.option("--from", "sender", metavar="ADDRESS", callback=said, help="With this envelope sender."),
        click.option("--backend", metavar="NAME", callback=said, help="Waiting for this backend, or sent by it."),
    ):
        command = option(command)
    return command


def _queue_id(_context: object, _parameter: object, given: Any) -> Any:
    found = tuple(one.strip().upper() for one in (given if isinstance(given, tuple) else (given,)))
    if not all(found):
        raise click.UsageError("give a queue id")
    if odd := [one for one in found if "/" in one]:  # it would be another path
        raise Failed(f"no message {odd[0]}")
    return found if isinstance(given, tuple) else found[0]


def _find(api: Api, states: tuple[str, ...], limit: int, **filters: str | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for state in states:
        before, left = "", limit
        while left:
            page = api.get("messages", state=state, limit=min(_PAGE, left), before=before, **filters)
            rows += page["messages"]
            before, left = page["next"], left - len(page["messages"])
            left = left if before else 0
    return sorted(rows, key=lambda row: str(row["id"]), reverse=True)[:limit]


@click.group()
def queue() -> None:
    """Look at the queue, and change what happens to its messages."""


@queue.command("list")
@_filter_options
@click.option("--state", type=click.Choice([*_PENDING, "done", "failed", "all"]), help="Default: all unfinished ones.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="At most so many, newest first.")
@json_option
@config_option
def list_(state: str | None, limit: int, as_json: bool, **filters: str | None) -> None:
    """What waits in the queue, newest first."""
    states = _PENDING if state is None else ("" if state == "all" else state,)
    with connect() as api:
        rows, backends = _find(api, states, limit, **filters), api.get("backends")
        dropped = [] if as_json or state or any(filters.values()) else api.get("drop")["folders"]
        if not rows:
            _refuse_unknown(api, filters["backend"])
    if as_json:
        return show_json(rows)
    if not rows:
        say("No such message" if state or any(filters.values()) else "Mail queue is empty")
        return say_dropped(dropped)
    header = ("QUEUE ID", "STATE", "ACCEPTED", "SIZE", "BACKEND", "NEXT TRY", "FROM", "TO", "LAST ANSWER")
    plain.table(header, (_line(row, backends) for row in rows), list(map(lifeline.to_do, rows)))
    _say_more(limit, len(rows))
    return say_dropped(dropped)


@queue.command()
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


def _refuse_unknown(api: Api, name: str | None) -> None:
    """A backend that was removed is known as long as any mail is: it may still wait for it."""
    if name and name not in (backends := api.get("backends")) and not _find(api, ("",), 1, backend=name):
        raise Failed(f"no backend {name}; there are {', '.join(backends)}")


def _say_more(limit: int, shown: int) -> None:
    if shown == limit:
        say(f"There may be more; see them with --limit {10 * limit}")


def _line(row: dict[str, Any], backends: dict[str, Any]) -> tuple[str, ...]:
    received, due = plain.relative(moment(row["received_at"])), plain.relative(moment(row["next_attempt_at"]))
    names, whom = ",".join(row["backends"]), lifeline.addresses(row["recipients"], row["recipient_count"])
    if row["state"] == "queued" and not any(_works(backends, name) for name in row["backends"]):
        due = f"when {names} works"
    sender, detail = row["sender"] or "<>", row["detail"]
    return (row["id"], row["state"], received, plain.size(row["size"]), names, due, sender, whom, detail)


def _works(backends: dict[str, Any], name: str) -> bool:
    return name in backends and not backends[name].get("paused_by")


@queue.command()
@json_option
@config_option
def summary(as_json: bool) -> None:
    """How much waits for which backend, and since when."""
    with connect() as api:
        status = api.get("status")
    if as_json:
        return show_json({"queue": status["queue"], "oldest": status["oldest"]})
    rows = [
        (name, states.get("queued", 0), states.get("held", 0), plain.relative(moment(status["oldest"].get(name))))
        for name, states in sorted(status["queue"].items())
        if states.get("queued") or states.get("held")
    ]
    plain.table(("BACKEND", "QUEUED", "HELD", "OLDEST"), rows) if rows else say("Mail queue is empty")
    for step in reversed(status.get("clock", {}).get("steps", ())):
        say(f"note: {lifeline.step(step)}; no mail expires or waits because of that")
    return None


queue.add_command(show)


@queue.command()
@click.argument("queue_id", callback=_queue_id)
@config_option
def cat(queue_id: str) -> None:
    """The message byte for byte, as it will be sent."""
    with connect() as api:
        click.echo(api.raw(queue_id), nl=False)


def _action(name: str, text: str) -> None:
    @queue.command(name, help=f"{text} Give queue ids (- reads them from standard input), --all or filters.")
    @click.argument("ids", nargs=-1, metavar="[ID]...", callback=_queue_id)
    @click.option("--all", "everything", is_flag=True, help="Every message that this can be done to.")
    @click.option("--yes", is_flag=True, help="Do not ask, when no ids are given.")
    @_filter_options
    @json_option
    @config_option
    def command(ids: tuple[str, ...], everything: bool, yes: bool, as_json: bool, **filters: str | None) -> None:
        chosen = {key: value for key, value in filters.items() if value}
        if bool(ids) == bool(everything or chosen):
            raise click.UsageError("give either queue ids, or --all or filters")
        if "-" in ids:
            ids = (*(one for one in ids if one != "-"), *sys.stdin.read().upper().split())
        elif not ids and not yes and not (sys.stdin.isatty() and click.confirm(f"{name} all messages that fit?")):
            raise click.UsageError(f"to {name} all messages that fit needs --yes")
        with connect() as api:
            result = api.post(f"messages/{name}", {"filter": chosen} if everything or chosen else {"ids": ids})
            changed, unchanged = result["changed"], result["unchanged"]
            if not changed:
                _refuse_unknown(api, filters["backend"])
            if name == "retry" and changed:
                _warn_paused(api, set(ids).difference(unchanged), chosen)
        show_json(result) if as_json else say("\n".join(_done(name, result)))
        if ids and unchanged:
            raise Failed(f"nothing to {name}, or no such message: {' '.join(unchanged)}")


def _done(name: str, result: Mapping[str, Any]) -> Iterator[str]:
    """What was done, and whom nobody tells."""
    changed = result["changed"]
    yield f"{name}: {changed} of {changed + len(result['unchanged'])} messages"
    if name == "bounce" and changed:
        yield f"senders told: {result['told']}" + (
            " (bounce_suppressed in the log says why not all)" if result["told"] < changed else ""
        )
    if left := result.get("left"):
        yield (
            f"left alone: {left} with the null sender or bounces of our own, which tell somebody that mail failed; "
            "to give these up, and tell nobody: give their ids, or --from '<>'"
        )
    if bounces := result.get("bounces"):
        yield f"to tell a sender that mail failed: {bounces} of them; nobody does so now"


def _warn_paused(api: Api, ids: set[str], chosen: dict[str, str]) -> None:
    """What is due still waits for its backend: one question for each that rests. No ids: all that are chosen."""
    page = {"before": f"{max(ids)}~", "limit": _PAGE} if ids else {"limit": 1}  # a hint: beyond a page it is left out
    for name, backend in api.get("backends").items():
        if not backend.get("paused_by") or chosen.get("backend", name) != name:
            continue
        waiting = api.get("messages", **chosen | {"backend": name}, state="queued", **page)["messages"]
        if any(not ids or row["id"] in ids for row in waiting):
            until = moment(backend["paused_until"])
            state = backend["paused_by"].replace("operator", "paused by the operator")
            state += f" until {until:%H:%M:%SZ}" if until else ""
            say(f"{name} is {state}; to try now: gateway backend resume {name}", err=True)


_action("retry", "Try these messages again now.")
_action("hold", "Keep these messages until they are released.")
_action("release", "Let held messages go.")
_action("delete", "Remove these messages for good; nobody is told.")
_action("bounce", "Give up on these messages and tell their senders; bounces only if named by id or --from.")
