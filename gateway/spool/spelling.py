"""What the marks of a statement stand for (engine.py), and its places, in a database's own words."""

from __future__ import annotations

import re
from functools import lru_cache

_PAIRS = r"SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(\1)"
_UNNESTED = (
    r"SELECT pair->>0, pair->>1 FROM jsonb_array_elements("
    r"CAST(nullif(CAST(\1 AS TEXT), '{}') AS JSONB)) AS pairs(pair)"  # no pairs at all come as a list
)
_ROWS = re.compile(r"WITH v\(([^()]*)\)\s+AS \(VALUES \(([?, ]*)\)\)")
_NAMED = re.compile(r"(?<![\w:'])(:)([a-z_]\w*)")
# Of the columns of such rows, by name: no value says of what type it is where it is NULL.
_TYPES = dict.fromkeys(
    [
        "id",
        "attempt_id",
        "until",
        "started_at",
        "ended_at",
        "now",
        "due",
        "uncount",
        "code",
        "at",
        "n",
        "next_attempt_at",
        "received_at",
        "expires_at",
    ],
    "bigint",
) | {"doubt": "boolean"}
_WORDS = {
    "@instr(": "strpos(",
    "@like": "ILIKE",
    "@least(": "least(",
    "@greatest(": "greatest(",
    "@lock": "FOR UPDATE",
    "@skip": "FOR UPDATE SKIP LOCKED",
}
_LISTED = re.compile(r"@list\((\w+)\)( FILTER \(WHERE [^()]*\))?")
_LARGE = 256 * 1024  # octets: a larger body is read in slices, and not with its claim


@lru_cache(maxsize=512)
def sqlite(statement: str) -> str:
    """Lists are bound as JSON."""
    listed = re.sub(r"@in\((:\w+)\)", r"IN (SELECT value FROM json_each(\1))", statement)
    listed = re.sub(r"@pairs\((:\w+)\)", rf"IN ({_PAIRS})", listed)
    told = re.sub(r"@by\((\w+)\)", r"INDEXED BY \1", listed)
    told = _LISTED.sub(r"json_group_array(\1)\2", told)
    told = re.sub(r"@raw\(([\w.]+)\)", r"\1", told).replace("@lock", "").replace("@skip", "")
    return (
        told.replace("@least(", "min(")
        .replace("@greatest(", "max(")
        .replace("@instr(", "instr(")
        .replace("@like", "LIKE")
    )


@lru_cache(maxsize=1024)
def postgresql(statement: str) -> str:
    """For psycopg: lists are bound as arrays, lists of pairs as JSON."""
    text = statement.replace("%", "%%")
    text = re.sub(r"@in\((:\w+)\)", r"= ANY(\1)", text)
    text = re.sub(r"@pairs\((:\w+)\)", rf"IN ({_UNNESTED})", text)
    text = re.sub(r"@by\(\w+\)", "", text)
    small = rf"CASE WHEN octet_length(\1) > {_LARGE} THEN ''::bytea ELSE \1 END AS raw"
    text = re.sub(r"@raw\(([\w.]+)\)", small, text)
    text = _LISTED.sub(r"CAST(coalesce(json_agg(\1)\2, '[]') AS TEXT)", text)
    for mark, word in _WORDS.items():
        text = text.replace(mark, word)
    text = _ROWS.sub(_typed, text).replace("?", "%s")
    return _NAMED.sub(r"%(\2)s", text)


def _typed(found: re.Match[str]) -> str:
    names = [name.strip() for name in found[1].split(",")]
    places = ", ".join(f"?::{_TYPES.get(name, 'text')}" for name in names)
    return f"WITH v({found[1]}) AS (VALUES ({places}))"
