"""Which client belonged to which tenant, and what waits of a tenant's mail.

Times in microseconds of the machine's clock, as queue ids have them.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlmodel import Field, SQLModel

from gateway.spool.queries import Reader
from gateway.spool.scope import EVER, Scope, Term
from gateway.spool.transaction import Transaction


class Membership(SQLModel, table=True):
    """A client belonged to a tenant from then to then, by the machine's clock; ``until_at`` NULL: it does now."""

    __table_args__ = {"sqlite_with_rowid": False}

    client: str = Field(primary_key=True)
    since_at: int = Field(primary_key=True)
    tenant: str
    until_at: int | None


_END = "UPDATE membership SET until_at = :until WHERE client = :client AND since_at = :since"
_BEGIN = """INSERT INTO membership (client, since_at, tenant, until_at) VALUES (:client, :since, :tenant, NULL)
ON CONFLICT (client, since_at) DO UPDATE SET tenant = excluded.tenant, until_at = NULL"""
_PILE = """SELECT d.backend, d.state, count(*) AS n, min(d.received_at) AS since
FROM delivery d CROSS JOIN message WHERE message.id = d.message_id AND d.state = '{}' AND {} GROUP BY 1, 2"""
_DOUBT = """SELECT r.backend, count(DISTINCT r.message_id) AS n FROM message CROSS JOIN recipient r
WHERE r.message_id = message.id AND message.state = 'held' AND message.state <> 'queued' AND r.state = 'held'
    AND r.verdict = 'in_doubt' AND {} GROUP BY 1"""


def belong(tx: Transaction, wanted: Mapping[str, str]) -> int:
    """From now on these clients belong to these tenants, and no others to any; returns how many changed."""
    known = {row["client"]: row for row in tx.all("SELECT * FROM membership WHERE until_at IS NULL")}
    ended = [row for client, row in known.items() if wanted.get(client) != row["tenant"]]
    begun = {
        client: tenant for client, tenant in wanted.items() if client not in known or known[client]["tenant"] != tenant
    }
    for row in ended:
        tx.all(_END, until=max(tx.wall, row["since_at"]), client=row["client"], since=row["since_at"])
    for client, tenant in begun.items():
        since = max(tx.wall, known[client]["since_at"] + 1) if client in known else tx.wall
        tx.all(_BEGIN, client=client, since=since, tenant=tenant)
    return len(ended) + len(begun)


async def scope(reader: Reader, tenant: str, clients: Mapping[str, int]) -> Scope:
    """``clients`` are those of the tenant by the settings in force, which were read at ``clients[""]``: where it is not
    written yet that one has left, nothing is seen that came after that."""
    rows = await reader.all("SELECT * FROM membership WHERE tenant = :tenant ORDER BY since_at", tenant=tenant)
    terms = []
    for row in rows:
        end = EVER if row["client"] in clients else max(clients[""], row["since_at"])
        terms.append(Term(row["client"], row["since_at"], end if row["until_at"] is None else row["until_at"]))
    return Scope(tenant, tuple(terms))


async def piles(reader: Reader, which: Scope) -> Mapping[tuple[str, str], tuple[int, int]]:
    """By (backend, state) how many deliveries are queued or held of these, and since when the first is."""
    meets, values = which.meets()
    rows = await reader.all(" UNION ALL ".join(_PILE.format(one, meets) for one in ("queued", "held")), **values)
    return {(row["backend"], row["state"]): (row["n"], row["since"]) for row in rows}


async def in_doubt(reader: Reader, which: Scope) -> Mapping[str, int]:
    """By backend how many of these are held because nobody knows whether they arrived."""
    meets, values = which.meets()
    return {row["backend"]: row["n"] for row in await reader.all(_DOUBT.format(meets), **values)}
