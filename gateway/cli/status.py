"""``gateway status``: how it goes, on one screen, with what needs somebody first."""

from __future__ import annotations

import shutil
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from gateway.cli.common import config_option, connect, example, json_option
from gateway.cli.errors import BadConfig, Failed, NoService, Starting, TryAgain
from gateway.cli.plain import moment, relative, say, show_json, span, stamp
from gateway.health.words import number, octets, state_word

Json = Mapping[str, Any]
_EVERY = 2.0  # seconds between looks with --watch
_WIDEST = 120  # columns of running text
_SAID = 200  # characters of the other side's words
_ENDS = 5
_SOON = 30  # days
_NONE = "No service is running."
_SOON_OR_NO_MORE = "The service is starting, or stopping."
_CORRECT = (
    "\nCorrect that until this finds nothing: gateway check-config. Then: systemctl start gateway, or gateway serve"
)


@click.command(epilog=example("gateway status --watch"))
@click.option("--watch", is_flag=True, help="Show it anew every 2 seconds, until Ctrl-C; not with --json.")
@json_option
@config_option
def status(watch: bool, as_json: bool) -> None:
    """How it goes, and what needs you: service, backends, queue, listeners, disk, what ends soon, last refusals.

    Exit code 0 if everything is all right, 1 if something needs you, 75 if no service runs.
    """
    if watch and as_json:
        raise click.UsageError("give --watch or --json, not both")
    if not watch:
        found, code = _look()
        show_json(found) if as_json else say("\n".join(lines(found, width())))
        raise SystemExit(code)
    never = threading.Event()
    while True:
        try:
            text = "\n".join(lines(_look()[0], width()))
        except Failed as error:  # a service that starts or stops: later it may answer
            text = error.message
        click.clear()
        say(text)
        never.wait(_EVERY)


def _look() -> tuple[Json, int]:
    """The status, and the exit code. Where no service runs, what the spool knows, or why nobody can look.

    Raises Failed where it is not known whether one runs.
    """
    try:
        with connect() as api:
            found = api.get("status")
            if not api.running:
                return {**found, "why": _start()}, TryAgain.exit_code
            return found, 1 if found["problems"] else 0
    except (NoService, BadConfig) as error:
        why = error.message + (_CORRECT if isinstance(error, BadConfig) else "")
        verdict = _SOON_OR_NO_MORE if isinstance(error, Starting) else _NONE
        return {"running": False, "verdict": verdict, "problems": [], "why": why}, TryAgain.exit_code


def _start() -> str:
    from gateway.cli import whose
    from gateway.cli.common import chosen_file

    return whose.meant(chosen_file()).absent().message


def width() -> int:
    """Of a terminal; what goes into a file or another program is not cut for one."""
    return min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)


def lines(found: Json, columns: int) -> Iterator[str]:
    """The verdict, what needs somebody, and the rest in few lines."""
    yield from _wrapped(found["verdict"], columns)
    if not found["running"]:
        yield from str(found["why"]).splitlines()
    for problem in found["problems"]:
        yield ""
        yield from block(problem, columns)
    if "version" not in found:  # nobody could look
        return
    yield ""
    yield from _wrapped(_service(found), columns)
    yield from ("", *(line if len(line) <= columns else f"{line[: columns - 1]}…" for line in _backends(found)))
    yield ""
    yield from _facts(found, columns)


def block(problem: Json, columns: int) -> Iterator[str]:
    """What, since when, what it costs, what to do, and the other side's words."""
    since = moment(problem["since"])
    yield from _wrapped(problem["what"], columns, "!! " if problem["severity"] == "bad" else "!  ")
    when = f"Since {stamp(since)}, {relative(since)}. " if since else ""
    yield from _wrapped(f"{when}{problem['cost']}", columns, "   ")
    yield from _wrapped(f"To do: {problem['fix']}", columns, "   ")
    for line in problem["said"].splitlines()[:5]:
        yield from _wrapped(f"Said: {line[:_SAID]}", columns, "   ")


def _wrapped(text: str, columns: int, head: str = "") -> list[str]:
    below = " " * len(head)
    return textwrap.wrap(
        text, columns, initial_indent=head, subsequent_indent=below, break_long_words=False, break_on_hyphens=False
    )


def _service(found: Json) -> str:
    parts = [f"gateway {found['version']} on {found['hostname']}"]
    if found["running"]:
        parts.append(f"up {span(found['uptime_seconds'])}")
    parts.append(f"settings: {found['settings']['file'] or 'built-in default'}")
    return ", ".join(parts)


def _backends(found: Json) -> list[str]:
    counts, oldest = found["queue"], found["oldest"]
    rows: list[Sequence[str]] = [("BACKEND", "STATE", "WAITING", "OLDEST", "HELD", "LAST SENT", "AS")]
    for name, one in found["backends"].items():
        waits = counts.get(name, {})
        state = state_word(one.get("state", ""), one.get("who", ""))
        ahead = moment(one.get("paused_until"))
        state += f", {'next try' if one['state'] != 'paused' else 'until'} {ahead:%H:%M:%SZ}" if ahead else ""
        age, sent = relative(moment(oldest.get(name))), relative(moment(one.get("last_success")))
        numbers = (str(waits.get("queued", 0)), age, str(waits.get("held", 0)))
        rows.append((name, state, *numbers, sent, one.get("title", one["type"])))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(wide) for cell, wide in zip(row, widths, strict=True)).rstrip() for row in rows]


def _owners(backends: Json) -> str:
    """Which instance works which backends, where several share the queue."""
    owners = sorted({one["owner"] for one in backends.values() if one["owner"]})
    of = {owner: ", ".join(name for name, one in backends.items() if one["owner"] == owner) for owner in owners}
    return "; ".join(f"{owner}: {names}" for owner, names in of.items())


def _facts(found: Json, columns: int) -> Iterator[str]:
    """One line for each thing that is as it should be; words hang in a column."""
    for head, text in (
        ("Worked by", _owners(found["backends"])),
        ("Listeners", _listeners(found)),
        ("Queue", _queue(found)),
        ("Database" if found["spool"]["database"] else "Disk", _disk(found["spool"])),
        ("Ends soon", _ends(found["ends"])),
        ("Refused", _refused(found["refusals"])),
        ("Clock", _clock(found["clock"])),
        ("Learning", _learning(found["learning"])),
        *(("Settings", warning) for warning in found["settings"]["warnings"][:3]),
    ):
        if text:
            yield from _wrapped(text, columns, f"{head:10} ")


def _listeners(found: Json) -> str:
    def told(one: Json) -> str:
        deaf = "" if one["accepting"] else ", NOT LISTENING"
        return f"{one['name']} {one['bind']} ({one['tls']}, {one['connections']} open{deaf})"

    return "; ".join(map(told, found["listeners"].values()))


def _queue(found: Json) -> str:
    sums = {state: sum(one.get(state, 0) for one in found["queue"].values()) for state in ("queued", "held")}
    doubt, damaged = sum(found["in_doubt"].values()), found["damaged"]
    parts = [
        f"{sums['queued']:,} waiting",
        f"{sums['held']:,} held" + (f", {doubt:,} of them in doubt" if doubt else ""),
    ]
    return ", ".join([*parts, f"{damaged:,} damaged"] if damaged else parts)


def _disk(spool: Json) -> str:
    shut = f"; NO NEW MAIL ({spool['shut']}): {spool['fix']}" if spool["shut"] else ""
    if spool["database"]:
        more = "" if spool["room_bytes"] is None else f", room for {octets(spool['room_bytes'])} more"
        return f"{spool['database']}, it has {octets(spool['used_bytes'])}{more}{shut}"
    free, total, reserve = (octets(spool[f"{name}_bytes"]) for name in ("free", "total", "reserve"))
    return f"{free} free of {total}, the spool has {octets(spool['used_bytes'])}, {reserve} stay free{shut}"


def _ends(ends: Sequence[Json]) -> str:
    soon = [one for one in ends if one["step"] is not None]
    told = [f"{one['of']}: {one['what'].lower()} {_when(one)}" for one in soon[:_ENDS]]
    more = [f"and {len(soon) - _ENDS} more"] if len(soon) > _ENDS else []
    return "; ".join([*told, *more]) or f"nothing within {_SOON} days"


def _when(one: Json) -> str:
    at = moment(one["ends_at"])
    return f"{at:%Y-%m-%d} ({relative(at)})"


def _refused(rows: Sequence[Json]) -> str:
    if not rows:
        return "nobody lately"
    row = rows[0]
    times = f", {number(row['count'], 'time')}" if row["count"] > 1 else ""
    who = row["peer"] or row["client"] or "somebody"
    return f"last {relative(moment(row['last_at']))}: {who}{times}, {row['reason']}; see: gateway refused"


def _learning(learning: Json) -> str:
    if not learning["on"]:
        return ""
    until = moment(learning["until"]) if not learning["ended_at"] else None
    heard = dict.fromkeys(one for networks in learning["hear_out"].values() for one in networks)
    loud = f"; HEARS OUT {', '.join(heard)}, and accepts nothing of that" if heard else ""
    return f"at {', '.join(learning['listeners'])}{f' until {stamp(until)}' if until else ''}{loud}; see: gateway learn"


def _clock(clock: Json) -> str:
    said = {True: "follows one of the network", False: "does not follow one of the network: see timedatectl"}
    return said.get(clock["synchronised"], "")
