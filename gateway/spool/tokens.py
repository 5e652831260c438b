"""The registry of tokens minted here or revoked: steps within a write transaction, and what is void."""

from __future__ import annotations

from datetime import datetime

from gateway.spool.queries import Reader
from gateway.spool.records import TokenRow, micros, moment, record
from gateway.spool.sql import insert_into
from gateway.spool.tables import Token
from gateway.spool.transaction import Transaction

_ADD = insert_into(Token, "jti key subject note issued_at expires_at revoked_at")
_REVOKE = f"{_ADD} ON CONFLICT (jti) DO UPDATE SET revoked_at = coalesce(token.revoked_at, excluded.revoked_at)"
_REVOKE_SUBJECT = """
INSERT INTO revocation (subject, before) VALUES (:subject, :now)
ON CONFLICT (subject) DO UPDATE SET before = @greatest(revocation.before, excluded.before)"""

# Those made here, whatever time it was where they were made.
_REVOKE_MADE = "UPDATE token SET revoked_at = :now WHERE subject = :subject AND revoked_at IS NULL"


def add(tx: Transaction, row: TokenRow) -> None:
    times = [None if time is None else micros(time) for time in (row.issued_at, row.expires_at, row.revoked_at)]
    tx.later(_ADD, (row.jti, row.key, row.subject, row.note, *times))


def revoke(tx: Transaction, jti: str, subject: str, now: int) -> None:
    """A token minted elsewhere is unknown here; its id is revoked all the same."""
    if jti:
        tx.later(_REVOKE, (jti, "", "", "", now, None, now))
    if subject:
        tx.all(_REVOKE_SUBJECT, subject=subject, now=now)
        tx.all(_REVOKE_MADE, subject=subject, now=now)


_ENDING = """
SELECT t.* FROM token t LEFT JOIN revocation r ON r.subject = t.subject
WHERE t.expires_at BETWEEN :after AND :before AND t.revoked_at IS NULL AND t.expires_at - t.issued_at > :lasting
    AND (r.before IS NULL OR t.issued_at >= r.before)
ORDER BY t.expires_at LIMIT 100"""


async def ending(reader: Reader, after: int, before: int, lasting: int) -> list[TokenRow]:
    """Those that end between these times and were made for longer than ``lasting``; in microseconds."""
    rows = await reader.all(_ENDING, after=after, before=before, lasting=lasting)
    return [record(TokenRow, row) for row in rows]


async def revocations(reader: Reader) -> tuple[set[str], dict[str, datetime]]:
    """Revoked token ids, and for each subject the time before which all its tokens are void."""
    ids = await reader.all("SELECT jti FROM token WHERE revoked_at IS NOT NULL")
    subjects = await reader.all("SELECT subject, before FROM revocation")
    return {row["jti"] for row in ids}, {row["subject"]: moment(row["before"]) for row in subjects}
