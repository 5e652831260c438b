"""Keys that must be the same wherever instances share a spool: digests of them lie in the table ``cluster``.

An instance with another spool.key could open no sign-in and no client's token that the others have sealed, and would
seal what they cannot open; one with another signing key would refuse the tokens that they have made.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.spool.engine import Connection
from gateway.spool.records import SpoolError

_WHAT = b"gateway: the same key at all instances"
_SPOOL = "spool.key"
_FIRST = "INSERT INTO cluster (id, key, made_at) VALUES (1, :key, :now) ON CONFLICT (id) DO NOTHING"
_KNOWN = "SELECT key FROM cluster WHERE id = 1 @lock"
_NEXT = "UPDATE cluster SET key = :key WHERE id = 1"
_OTHERS = "SELECT name FROM instance WHERE name <> :me ORDER BY started_at, name"
_LOST = (
    "if it is gone for good, run this in the database: DELETE FROM cluster; "
    "then sign in again where backends need a sign-in, and have what clients sent with tokens of their own sent again"
)


@dataclass(frozen=True, slots=True)
class HeldKey:
    """``secret`` is the key itself: what is equal wherever the key is, however its file is written."""

    file: Path
    secret: bytes = field(repr=False)

    def digest(self) -> str:
        """Tells only who has the key that it is this one (RFC 2104)."""
        return hmac.digest(self.secret, _WHAT, "sha256").hex()


@dataclass(frozen=True, slots=True)
class HeldKeys:
    """Those of this machine: what seals secrets, and by their names what signs tokens."""

    spool: HeldKey
    signing: Mapping[str, HeldKey]


def agree(connection: Connection, render: Callable[[str], str], keys: HeldKeys, *, me: str, now: int) -> None:
    """Within a transaction, before ``me`` joins: the first to come says which keys they are. Raises SpoolError.

    A signing key may be replaced while no other instance is there, spool.key never: what it has sealed would be lost.
    """
    mine = {_SPOOL: keys.spool.digest()} | {_named(name): key.digest() for name, key in keys.signing.items()}
    connection.all(render(_FIRST), {"key": json.dumps(mine), "now": now})
    known = check(connection, render, keys.spool, me=me)
    others = _others(connection, render, me)
    for name, key in keys.signing.items():
        if others and known.get(_named(name), mine[_named(name)]) != mine[_named(name)]:
            changed = "; to replace it, stop all instances, put the new file everywhere, and start them again"
            what = f"The key that signs tokens (auth.keys.{name})"
            raise SpoolError(_refusal(what, key.file, key.file.name, others) + changed)
    if known | mine != known:
        connection.all(render(_NEXT), {"key": json.dumps(known | mine)})


def check(connection: Connection, render: Callable[[str], str], key: HeldKey, *, me: str = "") -> dict[str, str]:
    """Within a transaction: what was agreed on, by name. Raises SpoolError where ``key`` is not that spool.key."""
    rows = connection.all(render(_KNOWN), {})
    known = _read(rows[0]["key"]) if rows else {}
    if known.get(_SPOOL) != key.digest():
        others = _others(connection, render, me)
        otherwise = "" if others else f"; {_LOST}"
        raise SpoolError(_refusal("The key that opens secrets", key.file, _SPOOL, others) + otherwise)
    return known


def _others(connection: Connection, render: Callable[[str], str], me: str) -> list[str]:
    return [str(row["name"]) for row in connection.all(render(_OTHERS), {"me": me})]


def _named(name: str) -> str:
    return f"auth.keys.{name}"


def _read(text: object) -> dict[str, str]:
    try:
        found = json.loads(str(text))
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _refusal(what: str, file: Path, name: str, others: list[str]) -> str:
    whose = f"instance {others[0]}" if others else "the machine where the gateway ran before, or from its backup"
    source = f"copy {name} from {whose} to {file} (mode 0600, owned by the user of the service)"
    return f"{what}, {file}, is not the one that this spool's instances share: {source}"
