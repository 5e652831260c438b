"""Who was turned away: rows that are written a second later, kept for a while, and found again. Times in microseconds.

None of it is mail: what is written here never takes the room that settling mail needs.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values are always bound

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from ipaddress import ip_network
from itertools import takewhile
from typing import Any

from gateway.address import comparable
from gateway.model import Network
from gateway.networks import plain_address, prefix_length
from gateway.pools import look_through_mail
from gateway.spool.counting import HOUR
from gateway.spool.door_tables import Refusal
from gateway.spool.queries import Reader
from gateway.spool.records import micros, record
from gateway.spool.scope import Scope
from gateway.spool.sql import insert_into
from gateway.spool.transaction import Transaction

MOST = 100_000  # rows
_LESS = 95_000  # rows that are left when there were more, so that it is not looked through again and again
_STEP = 1000  # rows past their time that go at once
COLUMNS = (
    "id first_at last_at count listener stage reason peer near mixed helo tls client user sender recipients size code"
    " enhanced text detail"
)
_LAST = ["last_at", "peer", "helo", "tls", "client", "user", "recipients", "size", "code", "enhanced", "text", "detail"]
_ADD = (
    f"{insert_into(Refusal, COLUMNS)} ON CONFLICT (id) DO UPDATE SET count = refusal.count + excluded.count, "
    + ", ".join(f'"{name}" = excluded."{name}"' for name in _LAST)
)
# What goes first: strangers who came once or twice, then those who came again, then clients and our own networks.
_TRIM = """
DELETE FROM refusal WHERE id IN (SELECT id FROM refusal ORDER BY near, count > 2, last_at LIMIT :surplus)"""
# Written while the clock was ahead: from now on it is kept like the others.
_RECALL = f"""
UPDATE refusal SET first_at = @least(first_at, :latest), last_at = :latest
WHERE id IN (SELECT id FROM refusal WHERE last_at > :ahead LIMIT {_STEP})"""
_FADE = "DELETE FROM refusal WHERE id IN (SELECT id FROM refusal WHERE last_at <= :before LIMIT :limit) RETURNING id"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalFilter:
    """Which refusals: those that meet everything given.

    ``q`` is an address of mail or of a host, a network, a domain, a client, user name, HELO or reason, or a pattern
    with ``*``. ``scope``: only of a tenant's clients, while they were.
    """

    q: str = ""
    reason: str = ""
    since: datetime | None = None
    until: datetime | None = None
    scope: Scope | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalRow:
    """One row, as the table has it. ``count`` refusals between ``first_at`` and ``last_at``; all else of the last."""

    id: str
    first_at: datetime
    last_at: datetime
    count: int
    listener: str
    stage: str
    reason: str
    code: int
    enhanced: str
    text: str
    detail: str
    peer: str
    helo: str
    tls: str
    client: str
    user: str
    sender: str
    recipients: tuple[str, ...]
    size: int
    mixed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalPage:
    """Newest first. ``next`` is the ``before`` of the next page, "" on the last.

    ``reasons`` counts the refusals of all pages by reason, whatever reason was asked for. ``kept`` and ``since`` are
    the rows looked at, and from when the oldest is.
    """

    rows: tuple[RefusalRow, ...]
    next: str
    reasons: Mapping[str, int]
    kept: int
    since: datetime | None


def add(tx: Transaction, rows: Sequence[tuple[Any, ...]], counts: Mapping[tuple[str, str], int]) -> None:
    """Rows in the order of COLUMNS; a row that is there already grows. ``counts`` are by way in and client."""
    for row in rows:
        tx.later(_ADD, row)
    for (listener, client), n in counts.items():
        tx.tally.add("refused", listener=listener, client=client, n=n)


def sweep(tx: Transaction, before: int, latest: int) -> int:
    """Remove what was last seen ``before``, and what is too much; returns how many. ``latest``: no time is later."""
    tx.all(_RECALL, latest=latest, ahead=latest + HOUR)
    gone = len(tx.all(_FADE, before=before, limit=_STEP))
    rows: int = tx.all("SELECT count(*) AS n FROM refusal")[0]["n"]
    if rows <= MOST:
        return gone
    tx.all(_TRIM, surplus=rows - _LESS)
    return gone + rows - _LESS


# Those of the page, and by reason how many. What has to be looked through is, once; of all an index has both.
_FOUND = """
WITH hit AS {} (SELECT id, last_at, reason, count FROM refusal WHERE {})
SELECT * FROM (SELECT 1 AS shown, id, reason, count AS n FROM hit WHERE {} AND {}
    ORDER BY last_at DESC, id DESC LIMIT :limit) AS page
UNION ALL SELECT 0, 0, reason, sum(count) FROM hit GROUP BY reason"""
_KEPT = "SELECT count(*) AS kept, min(first_at) AS since_at FROM refusal WHERE {}"


async def find(reader: Reader, which: RefusalFilter, limit: int, before: str) -> RefusalPage:
    """Raises ValueError for a ``before`` that none of our pages ended with."""
    meets, values = await _condition(reader, which)
    newer, cursor = _behind(before)
    once = "MATERIALIZED" if which.q else "NOT MATERIALIZED"
    statement = _FOUND.format(once, meets, "reason = :reason" if which.reason else "TRUE", newer)
    found = await reader.all(statement, **values, **cursor, reason=which.reason, limit=limit)
    ids = [row["id"] for row in found if row["shown"]]
    page = "SELECT * FROM refusal WHERE id @in(:ids) ORDER BY last_at DESC, id DESC"
    rows = await reader.all(page, ids=ids) if ids else ()
    counts = sorted((-row["n"], row["reason"]) for row in found if not row["shown"])
    seen, whose = which.scope.refusals() if which.scope else ("TRUE", {})
    whole = (await reader.all(_KEPT.format(seen), **whose))[0]
    return RefusalPage(
        rows=tuple(_row(row) for row in rows),
        next=f"{rows[-1]['last_at']}-{rows[-1]['id']}" if len(rows) == limit else "",
        reasons={reason: -n for n, reason in counts},
        kept=whole["kept"],
        since=record(_Since, whole).since_at,
    )


async def last(reader: Reader, limit: int, client: str = "", scope: Scope | None = None) -> list[RefusalRow]:
    """The newest, of everybody or of one client; nothing is counted, so it takes next to no time."""
    whose = "client = :client" if client else "TRUE"
    seen, values = scope.refusals() if scope else ("TRUE", {})
    newest = f"SELECT * FROM refusal WHERE {whose} AND {seen} ORDER BY last_at DESC, id DESC LIMIT :limit"
    return [_row(row) for row in await reader.all(newest, client=client, limit=limit, **values)]


@dataclass(frozen=True, slots=True)
class _Since:
    since_at: datetime | None


def _row(row: Any) -> RefusalRow:
    return record(RefusalRow, row, id=f"{row['id']:016x}", recipients=tuple(json.loads(row["recipients"])))


def _behind(before: str) -> tuple[str, dict[str, int]]:
    if not before:
        return "TRUE", {}
    last_at, _, ident = before.partition("-")
    if not (last_at.isdecimal() and ident.isdecimal() and len(before) < 40):
        raise ValueError("before: give what the page before ended with (next)")
    return "(last_at, id) < (:last_at, :id)", {"last_at": int(last_at), "id": int(ident)}


# -- what was asked for as a condition -------------------------------------------------------------------------------

_NAMES = ("peer", "client", "user", "sender", "helo", "reason", "listener", "stage")
_LONGEST = 300  # characters of what is looked for
# Whatever name it stands in: who looks for a word looks closer only at where that is.
_SAID = " OR ".join(f"\"{name}\" @like :bare ESCAPE '\\'" for name in dict.fromkeys(("sender", "recipients", *_NAMES)))
_LISTED = "lower(recipients) LIKE :listed ESCAPE '\\'"


async def _condition(reader: Reader, which: RefusalFilter) -> tuple[str, dict[str, Any]]:
    meets: list[str] = ["TRUE"]
    values: dict[str, Any] = {}
    if which.scope is not None:
        seen, values = which.scope.refusals()
        meets.append(seen)
    if which.since:
        meets.append("last_at >= :since")
        values["since"] = micros(which.since)
    if which.until:
        meets.append("first_at <= :until")
        values["until"] = micros(which.until)
    if which.q.strip() == "<>":
        meets.append("sender = '<>'")
    elif (q := which.q.replace("\0", "\ufffd").strip().strip("<>")[:_LONGEST]) and (network := _network(q)):
        one = network.num_addresses == 1
        values["peers"] = [str(network.network_address)] if one else await _peers(reader, network)
        meets.append("peer @in(:peers)")
    elif q:
        found = (*_any_of(q, values), _LISTED)
        values["bare"] = f"%{_plain(max(re.split(r'[*?]', values['key']), key=len))}%"
        meets.append(f"({_SAID}) AND ({' OR '.join(found)})")
    return " AND ".join(meets), values


def _network(q: str) -> Network | None:
    """An address is a network of one."""
    try:
        return ip_network(str(plain_address(q)) if "/" not in q else q, strict=False)
    except ValueError:
        return None


def _inside(network: Network, peers: Sequence[str]) -> list[str]:
    return [peer for peer in peers if prefix_length([network], peer) >= 0]


def _plain(text: str) -> str:
    """For LIKE; @like takes ASCII letters of either case for the same."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


async def _peers(reader: Reader, network: Network) -> list[str]:
    """Those of a network, of the ones that begin as all its addresses do."""
    start = _start(network)
    known = "SELECT DISTINCT peer FROM refusal WHERE substr(peer, 1, :n) = :start OR substr(peer, 1, 7) = '::ffff:'"
    peers = [row["peer"] for row in await reader.all(known, start=start, n=len(start))]
    return await look_through_mail(partial(_inside, network, peers))  # strangers can make them many


def _start(network: Network) -> str:
    """What the text of every address in it begins with (RFC 5952: the first zeros may be left out)."""
    if network.version == 4:
        parts = str(network.network_address).split(".")[: network.prefixlen // 8]
        return ".".join(parts) + "." * (0 < len(parts) < 4)
    words = network.network_address.exploded.split(":")[: network.prefixlen // 16]
    whole = [word.lstrip("0") for word in takewhile(lambda word: word != "0000", words)]
    return ":".join(whole) + ":" * (0 < len(whole) < 8)


def _any_of(q: str, values: dict[str, Any]) -> list[str]:
    """A name meets what is the same; without an @ also a domain, one above it, and what stands before the @."""
    key = values["key"] = comparable(q) if "@" in q else q.lower()
    text = _plain(key).replace("*", "%").replace("?", "_")
    values["text"], values["listed"] = text, f'%"{text}"%'
    found = [f"lower(\"{name}\") LIKE :text ESCAPE '\\'" for name in _NAMES]
    if "@" in q or "*" in q:
        return found
    values |= {"at": f"%@{text}", "below": f"%.{text}", "local": f"{text}@%", "listed": f'%@{text}"%'}
    values |= {"listed_below": f'%.{text}"%', "listed_local": f'%"{text}@%'}
    for name in ("sender", "user"):
        found += [f"lower(\"{name}\") LIKE :{way} ESCAPE '\\'" for way in ("at", "local")]
        found.append(f"lower(\"{name}\") LIKE :below ESCAPE '\\'")
    found += [f"lower(recipients) LIKE :{way} ESCAPE '\\'" for way in ("listed_below", "listed_local")]
    return found
