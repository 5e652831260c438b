"""Addresses that are close to one that nobody has, for who mistyped it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import SequenceMatcher

from gateway.spool.queries import Reader

_MOST = 10_000  # addresses that are compared
_CLOSE = 0.8  # of 1, as difflib counts
_SHOWN = 3
_COUNTED = 1001  # messages
# Each key once, by going from one to the next: whatever the number of messages.
_KEYS = """
WITH RECURSIVE known(key) AS (
    SELECT min({column}) FROM {table} WHERE {column} >= :start AND {column} <> ''
    UNION ALL SELECT (SELECT min({column}) FROM {table} WHERE {column} > known.key) FROM known WHERE key IS NOT NULL
    LIMIT :most)
SELECT json_group_array(key) AS keys FROM known WHERE key IS NOT NULL"""
RECIPIENTS = _KEYS.format(table="recipient", column="key")
SENDERS = _KEYS.format(table="message", column="sender_key")
_ADDRESS = """
SELECT coalesce((SELECT address FROM recipient WHERE key = :key LIMIT 1),
    (SELECT sender FROM message WHERE sender_key = :key LIMIT 1)) AS address"""
_COUNT = """
SELECT count(*) AS n FROM (SELECT message_id FROM recipient WHERE key = :key
    UNION SELECT id FROM message WHERE sender_key = :key LIMIT :most)"""


def closest(wanted: str, known: Sequence[str]) -> list[str]:
    """The few that are most like it. Slow for many: not on the loop."""
    matcher = SequenceMatcher(b=wanted, autojunk=False)
    found = []
    for key in known:
        if abs(len(key) - len(wanted)) > 3:
            continue
        matcher.set_seq1(key)
        if matcher.real_quick_ratio() >= _CLOSE and matcher.quick_ratio() >= _CLOSE:
            found.append((matcher.ratio(), key))
    return [key for ratio, key in sorted(found, reverse=True)[:_SHOWN] if ratio >= _CLOSE]


async def keys(reader: Reader, wanted: str) -> list[str]:
    """All of them, or of many the first ones, and those behind where the one that is wanted would stand."""
    domain = wanted.partition("@")[0]
    starts = ("", wanted[: domain.rfind(".") + 2])  # the key has the top-level domain first, then the one below it
    found: dict[str, None] = {}
    for text in (RECIPIENTS, SENDERS):
        for start in starts:
            some = json.loads((await reader.all(text, most=_MOST, start=start))[0]["keys"])
            found |= dict.fromkeys(some)
            if len(some) < _MOST:  # from the first on: that is all of them
                break
    return list(found)


async def counted(reader: Reader, keys: Sequence[str]) -> list[tuple[str, int]]:
    """As they are spelled, and how many messages have each, up to 1,001."""
    found = []
    for key in keys:
        address = str((await reader.all(_ADDRESS, key=key))[0]["address"])
        found.append((address, int((await reader.all(_COUNT, key=key, most=_COUNTED))[0]["n"])))
    return found
