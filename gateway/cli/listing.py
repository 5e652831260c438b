"""Lists of messages: which ones, page after page, in as much room as there is."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import Any
from urllib.parse import quote

import click

from gateway.cli import lifeline, plain
from gateway.cli.backend_words import state_of
from gateway.cli.columns import Columns, cut
from gateway.cli.common import Api, Command, checked_by, named, said
from gateway.cli.errors import Failed
from gateway.cli.plain import moment, say

# As gateway.spool.STATES, which is not loaded for that.
STATES = ("queued", "held", "in_doubt", "sent", "done", "failed", "corrupt", "unfinished")
_PAGE = 1000
_COLUMNS = Columns(
    ("QUEUE ID", "STATE", "ACCEPTED", "SIZE", "BACKEND", "NEXT TRY", "FROM", "TO", "LAST ANSWER"),
    {"BACKEND": 7, "NEXT TRY": 9, "FROM": 12, "TO": 12, "LAST ANSWER": 11},
    ("LAST ANSWER", "SIZE", "BACKEND", "NEXT TRY", "ACCEPTED", "FROM", "TO", "STATE"),
)
Row = Mapping[str, Any]


def _time(_context: object, parameter: click.Parameter, given: str | None) -> str | None:
    """What is no time is wrong use; what the time is, the service finds out."""
    from gateway.config.durations import parse_moment

    try:
        if given is not None:
            parse_moment(given, plain.now())
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from None
    return given


def _peer(context: object, parameter: click.Parameter, given: str | None) -> str | None:
    from ipaddress import ip_address

    text = said(context, parameter, given)
    try:
        return str(ip_address(text.strip())) if text else None
    except ValueError:
        raise click.BadParameter(f'"{text}" is no IP address', param=parameter) from None


def filter_options(
    backend: str = "--backend", states: Sequence[str] = STATES
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``backend``: what the option for it is called where --backend means something else."""

    def add(command: Command) -> Command:
        duration, when = (
            checked_by("durations", "parse_duration"),
            "as 2026-11-20T10:15Z or 10:15 (UTC), or an age as 2h.",
        )
        for option in (
            click.option("--older", metavar="AGE", callback=duration, help="Older than this, as 2h."),
            click.option("--until", metavar="WHEN", callback=_time, help=f"Accepted before this: {when}"),
            click.option("--since", metavar="WHEN", callback=_time, help=f"Accepted since: {when}"),
            click.option("--state", type=click.Choice(states), help="In this state; in_doubt: held, no answer came."),
            click.option("--peer", metavar="IP", callback=_peer, help="From this address of the network."),
            click.option("--client", metavar="NAME", callback=said, shell_complete=named("clients"),
                         help="From this client."),
            click.option(
                "--to", "recipient", metavar="WHO", callback=said,
                help="With this recipient: an address, a domain, *@*.example.com, or a name without a domain.",
            ),
            click.option("--from", "sender", metavar="WHO", callback=said,
                         help='With this sender, also as it was before it was rewritten; "<>": bounces.'),
            click.option(backend, "backend", metavar="NAME", callback=said, shell_complete=named("backends"),
                         help="Waiting for this backend, or sent by it."),
        ):  # fmt: skip
            command = option(command)
        return command

    return add


def find(api: Api, limit: int, **query: Any) -> tuple[list[dict[str, Any]], Row]:
    """At most so many, and the last page they came with; however long it takes."""
    rows: list[dict[str, Any]] = []
    onward = "after" if query.get("order") == "oldest" else "before"
    while True:
        page = api.get("messages", limit=min(_PAGE, limit - len(rows)), **query)
        rows += page["messages"]
        if not page["next"] or len(rows) >= limit:
            return rows, page
        query = {**query, onward: page["next"]}


def refuse_unknown(api: Api, name: str | None, client: str | None = None) -> None:
    """What was removed from the settings is known as long as any mail is: it may still wait for that backend."""
    if client and not find(api, 1, client=client)[0]:
        api.get(f"clients/{quote(client, safe='')}")
    if name and name not in (backends := api.get("backends")) and not find(api, 1, backend=name)[0]:
        raise Failed(f"no backend {name}; there are {', '.join(backends)}")


@dataclass(frozen=True, slots=True)
class Listing:
    """What is to be shown: the rows, how many there are in all, and as how much each backend works."""

    rows: Sequence[Row]
    total: int
    more: bool
    backends: Mapping[str, Row]

    @classmethod
    def of(cls, api: Api, limit: int, query: Mapping[str, Any]) -> Listing:
        rows, _ = find(api, limit, **query)
        total, more = len(rows), False
        if len(rows) == limit:
            counted = api.get("messages", **{**query, "limit": 1, "total": 1})
            total, more = max(total, counted["total"]), counted["total_more"]
        return cls(rows, total, more, api.get("backends"))

    def lines(self, width: int | None) -> Iterator[str]:
        """A table no wider than that; None is as wide as it likes."""
        cells = [_cells(row, self.backends) for row in self.rows]
        last = ""
        for line, row in zip(_COLUMNS.lines(cells, width), [None, *self.rows], strict=True):
            yield line
            fix = lifeline.to_do(row) if row else ""
            if fix and fix != last:  # many wait for the same
                yield cut(f"  {fix}", width)
            last = fix or last
        for name in sorted({name for row in self.rows if row["state"] == "queued" for name in row["backends"]}):
            if self.backends.get(name, {}).get("paused_by") == "operator":
                yield f"{name}: {state_of(self.backends[name])}; to resume it now: gateway backend resume {name}"
        if self.more or self.total > len(self.rows):
            yield f"showing {len(self.rows):,} of {'more than ' if self.more else ''}{self.total:,}; more with --limit"


def _cells(row: Row, backends: Mapping[str, Row]) -> tuple[str, ...]:
    received, due = plain.relative(moment(row["received_at"])), plain.relative(moment(row["next_attempt_at"]))
    names, whom = ",".join(row["backends"]), lifeline.addresses(row["recipients"], row["recipient_count"])
    if row["state"] == "queued" and not any(_works(backends, name) for name in row["backends"]):
        due = f"when {names} works"
    return (
        row["id"],
        lifeline.state(row),
        received,
        plain.size(row["size"]),
        names,
        due,
        row["sender"] or "<>",
        whom,
        row["detail"],
    )


def _works(backends: Mapping[str, Row], name: str) -> bool:
    return name in backends and not backends[name].get("paused_by")


def watch(draw: Callable[[int | None], Iterator[str]]) -> None:
    """Draw again every two seconds over what is there, on a screen of its own, until ^C."""
    if not sys.stdout.isatty():
        raise click.UsageError("--watch needs a terminal")
    wanted = True

    def interrupt(*_: object) -> None:
        nonlocal wanted
        wanted = False  # what is raised within a finalizer is lost
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    click.echo("\x1b[?1049h\x1b[?25l", nl=False)  # the other screen, no cursor (xterm)
    try:
        while wanted:
            size = get_terminal_size()
            lines = [f"{plain.stamp(plain.now())}  every 2 s, ^C ends", *draw(size.columns)][: size.lines - 1]
            shown = "".join(f"{cut(plain.visible(line), size.columns)}\x1b[K\n" for line in lines)
            click.echo(f"\x1b[H{shown}\x1b[J", nl=False)
            plain.pause(2.0)
    except KeyboardInterrupt:
        pass
    finally:
        click.echo("\x1b[?25h\x1b[?1049l", nl=False)
        signal.signal(signal.SIGINT, before)


def say_lines(lines: Iterator[str]) -> None:
    say("\n".join(lines))
