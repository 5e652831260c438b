"""``gateway refused``: who was turned away, why, and how to let him in."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import click

from gateway.cli import lifeline, plain
from gateway.cli.common import config_option, connect, example, json_option, said
from gateway.cli.errors import Failed
from gateway.cli.plain import moment, say, show_json, stamp
from gateway.visible import visible

_WIDTH = 100  # columns of a sentence
_INDENT = "    "


def _moment(_context: object, parameter: click.Parameter, given: str | None) -> str | None:
    from gateway.config.durations import parse_moment

    try:
        return given if given is None else parse_moment(given, plain.now()).isoformat()
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from None


@click.command(epilog=example("gateway refused 192.0.2.41 --since 2d"))
@click.argument("what", required=False, default="")
@click.option("--reason", metavar="NAME", callback=said, help="Only for this reason, as relay_denied.")
@click.option("--since", metavar="TIME", callback=_moment, help="From then on.")
@click.option("--until", metavar="TIME", callback=_moment, help="Up to then.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="At most so many lines.")
@click.option("--wide", is_flag=True, help="All that is known: HELO, TLS, user name, every word of the reply.")
@json_option
@config_option
def refused(
    what: str, reason: str | None, since: str | None, until: str | None, limit: int, wide: bool, as_json: bool
) -> None:
    """Who was turned away at the door, newest first, and how to let him in.

    WHAT is an address of a device or of mail, a network, a domain, a client, a user name, a reason, or a pattern as
    *@example.com. Alike refusals of an hour are one line with a count. A TIME is an age, as 2h, or 2026-11-20T10:15.
    """
    with connect() as api:
        found = api.get("refusals", q=what, reason=reason, limit=limit, **{"from": since, "to": until})
        status: Mapping[str, Any] = {} if found["refusals"] or as_json else api.get("status")
    if as_json:
        return show_json(found)
    if not found["refusals"]:
        return _nothing(what, found, status, narrowed=bool(reason or since or until))
    told: set[tuple[str, str]] = set()
    for row in found["refusals"]:
        for line in _lines(row, wide=wide, told=told):
            say(line)
        say()
    counts = ", ".join(f"{name} {count}" for name, count in found["reasons"].items())
    lines = f"{len(found['refusals'])} line{'s' * (len(found['refusals']) != 1)}"
    say(f"{'More than ' * bool(found['next'])}{lines}; refusals by reason: {counts}")
    if found["next"]:
        say(f"There are more; see them with --limit {min(1000, 10 * limit)}, or --until")
    return None


def _lines(row: Mapping[str, Any], *, wide: bool, told: set[tuple[str, str]]) -> Iterator[str]:
    most = None if wide else 120
    times = f"  {row['count']} times since {stamp(moment(row['first_at']))[11:]}" if row["count"] > 1 else ""
    yield f"{stamp(moment(row['last_at']))}{times}  {_who(row)}"
    if of := _mail(row, most):
        yield f"{_INDENT}{of}"
    codes = " ".join(filter(None, (str(row["code"] or ""), row["enhanced"], row["reason"])))
    yield f"{_INDENT}{visible(row['why'], most=None if wide else 200)}  [{codes}]"
    if wide:
        for name in ("stage", "helo", "tls", "user", "text", "detail"):
            if row[name]:
                yield f"{_INDENT}{name}: {visible(row[name], most=None)}"
    yield from _fix(row, told)


def _who(row: Mapping[str, Any]) -> str:
    if row["mixed"]:
        who = f"{row['client'] or row['peer']}, many senders" if row["client"] or row["peer"] else "many addresses"
    elif row["client"]:
        who = f"{row['client']} ({row['peer']})" if row["peer"] else row["client"]
    else:
        who = row["peer"] or "this machine"
    name = f", login {visible(row['user'], most=60)}" if row["user"] and row["stage"] == "auth" else ""
    return f"{who}{name}, at {row['listener']}"


def _mail(row: Mapping[str, Any], most: int | None) -> str:
    parts = [f"from {visible(row['sender'], most)}"] if row["sender"] else []
    parts += [f"to {visible(lifeline.addresses(row['recipients']), most)}"] if row["recipients"] else []
    return ", ".join([*parts, *([plain.size(row["size"])] if row["size"] else [])])


def _fix(row: Mapping[str, Any], told: set[tuple[str, str]]) -> Iterator[str]:
    """Once for each who and why: a list of the same lines to paste helps nobody."""
    what = (row["fix"], row["yaml"])
    if what in told:
        yield f"{_INDENT}to do: as above"
        return
    told.add(what)
    text = textwrap.wrap(visible(row["fix"], most=None), _WIDTH, subsequent_indent=_INDENT * 2)
    yield f"{_INDENT}to do: " + "\n".join(text)
    for line in row["yaml"].splitlines():
        yield f"{_INDENT * 3}{line}"
    if row["command"]:
        yield f"{_INDENT * 2}{'then' if row['yaml'] else 'by'}: {row['command']}"


def _nothing(what: str, found: Mapping[str, Any], status: Mapping[str, Any], *, narrowed: bool) -> None:
    """An answer for who did not ask for anybody; else what was looked at, and where the mistake is."""
    kept = found["kept"]
    since = f" since {stamp(moment(found['since']))}" if found["since"] else ""
    if status["spool"]["shut"]:  # then nothing is written, not even who is turned away
        raise Failed(
            "no new mail is taken now: everybody is told to try again, and is listed here once there is room\n"
            "What to do: gateway status. Until then: journalctl -u gateway | grep rejected"
        )
    if not what and not narrowed:
        return say("Nobody was turned away.")
    open_ = ", ".join(f"{name} {one['bind']}" for name, one in status["listeners"].items() if one["accepting"])
    asked = f"with {what} in it" if what else "within that"
    lines = [
        f"nobody was turned away {asked}: {kept} lines{since} were looked at.",
        "If it was not accepted either (gateway trace), it never reached this machine: look at server name and port on"
        " the device.",
        f"Open here: {open_}." if open_ else "No listener is open here: no service is running.",
    ]
    raise Failed("\n".join(lines))
