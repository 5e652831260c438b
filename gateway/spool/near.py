"""Addresses that are close to one that nobody has, for who mistyped it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from gateway.likeness import distance, is_like
from gateway.spool.keys import AFTER
from gateway.spool.queries import Reader

_MOST = 10_000  # addresses that are compared
_SHOWN = 3
_COUNTED = 1001  # messages
# Each key once, by going from one to the next: whatever the number of messages.
_KEYS = """
WITH RECURSIVE known(key) AS (
    SELECT min({column}) FROM {table} WHERE {column} >= :start AND {column} <> '' AND {column} < :end
    UNION ALL SELECT (SELECT min({column}) FROM {table} WHERE {column} > known.key AND {column} < :end)
    FROM known WHERE key IS NOT NULL)
SELECT @list(key) AS keys FROM (SELECT key FROM known WHERE key IS NOT NULL LIMIT :most) AS them"""
RECIPIENTS = _KEYS.format(table="recipient", column="key")
SENDERS = _KEYS.format(table="message", column="sender_key")
_ADDRESS = """
SELECT coalesce((SELECT address FROM recipient WHERE key = :key LIMIT 1),
    (SELECT sender FROM message WHERE sender_key = :key LIMIT 1)) AS address"""
_COUNT = """
SELECT count(*) AS n FROM (SELECT message_id FROM recipient WHERE key = :key
    UNION SELECT id FROM message WHERE sender_key = :key LIMIT :most) AS them"""


def closest(wanted: str, known: Sequence[str]) -> list[str]:
    """The few that are most like it, in the domain as well as before the @. Slow for many: not on the loop."""
    domain, _, local = wanted.partition("@")
    like, found = {domain: True}, list[tuple[int, str]]()
    for key in known:
        its_domain, _, its_local = key.partition("@")
        if its_domain not in like:
            like[its_domain] = is_like(domain, its_domain)
        if like[its_domain] and (local == its_local or is_like(local, its_local)):
            found.append((distance(wanted, key), key))
    return [key for _, key in sorted(found)[:_SHOWN]]


async def keys(reader: Reader, wanted: str) -> list[str]:
    """All of them, or of many the first ones, and those behind where the one that is wanted would stand."""
    domain = wanted.partition("@")[0]
    start = wanted[: domain.rfind(".") + 2]  # the key has the top-level domain first, then the one below it
    found: dict[str, None] = {}
    for text in (RECIPIENTS, SENDERS):
        for first, end in (("", start), (start, AFTER)):
            some = (await reader.all(text, most=_MOST, start=first, end=end))[0]["keys"]
            found |= dict.fromkeys(json.loads(some))
    return list(found)


async def counted(reader: Reader, keys: Sequence[str]) -> list[tuple[str, int]]:
    """As they are spelled, and how many messages have each, up to 1,001."""
    found = []
    for key in keys:
        address = str((await reader.all(_ADDRESS, key=key))[0]["address"])
        found.append((address, int((await reader.all(_COUNT, key=key, most=_COUNTED))[0]["n"])))
    return found
