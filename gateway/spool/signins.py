"""Who may look at the operator's pages: links that sign in once, and the sign-ins made of them.

Only hashes of their secrets are kept. Times are of the spool's own time (steady), so that a clock that is set back
makes nothing last longer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Field, SQLModel

from gateway.spool.queries import Reader
from gateway.spool.records import record
from gateway.spool.transaction import Transaction

_SECOND = 1_000_000
_KEPT = 86400 * _SECOND  # after its end, to say of a used link when that was


class Signin(SQLModel, table=True):
    """``key`` is the SHA-256 of the secret; ``kind`` is link or session; ``peer`` is who opened it."""

    key: str = Field(primary_key=True)
    kind: str
    name: str
    role: str
    peer: str
    made_at: int
    seen_at: int
    expires_at: int
    ended_at: int | None  # a link that was used, a session that was signed out
    tenant: str = Field(sa_column_kwargs={"server_default": ""})  # whose mail it shows, "" for everybody's


@dataclass(frozen=True, slots=True, kw_only=True)
class SigninRow:
    """Times as the machine's clock shows them now."""

    key: str
    kind: str
    name: str
    role: str
    peer: str
    made_at: datetime
    seen_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    tenant: str = ""


_ADD = """
INSERT INTO signin (key, kind, name, role, peer, made_at, seen_at, expires_at, ended_at, tenant)
VALUES (:key, :kind, :name, :role, :peer, :now, :now, :ends, NULL, :tenant)"""
_USE = """
UPDATE signin SET ended_at = :now, peer = :peer
WHERE key = :key AND kind = 'link' AND ended_at IS NULL AND expires_at > :now RETURNING *"""


def add(
    tx: Transaction, key: str, name: str, role: str, lasts: timedelta, kind: str = "link", peer: str = "",
    tenant: str = "",
) -> None:  # fmt: skip
    """Whatever ended a day ago goes."""
    tx.all("DELETE FROM signin WHERE expires_at < :before", before=tx.now - _KEPT)
    given = {"key": key, "kind": kind, "name": name, "role": role, "peer": peer, "tenant": tenant}
    tx.all(_ADD, **given, now=tx.now, ends=tx.now + _micros(lasts))


def _micros(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def use(tx: Transaction, link: str, session: str, peer: str, lasts: timedelta) -> bool:
    """A session for a link that is good, which is used up by that; False where it is not, or no longer."""
    if not (found := tx.all(_USE, key=link, peer=peer, now=tx.now)):
        return False
    add(tx, session, found[0]["name"], found[0]["role"], lasts, "session", peer, found[0]["tenant"])
    return True


def seen(tx: Transaction, key: str) -> None:
    tx.all("UPDATE signin SET seen_at = :now WHERE key = :key", key=key, now=tx.now)


def end(tx: Transaction, key: str = "") -> int:
    """This one; or all sessions, and all links that were not used."""
    which = "ended_at IS NULL AND expires_at > :now AND :key IN ('', key)"
    return len(tx.all(f"UPDATE signin SET ended_at = :now WHERE {which} RETURNING key", key=key, now=tx.now))  # noqa: S608


async def find(reader: Reader, key: str, shift: int) -> SigninRow | None:
    rows = await reader.all("SELECT * FROM signin WHERE key = :key", key=key)
    if not rows:
        return None
    found = record(SigninRow, rows[0])
    by: dict[str, Any] = {
        name: value + timedelta(microseconds=shift)
        for name in ("made_at", "seen_at", "expires_at", "ended_at")
        if (value := getattr(found, name)) is not None
    }
    return replace(found, **by)
