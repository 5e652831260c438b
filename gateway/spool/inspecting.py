"""What a spool is and whether it is whole, for a person: asked of one moment of it, also while it is in use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.spool.moving import Side, checked

Tell = Callable[[int], object]  # so many messages were looked at
_STATES = "SELECT state, count(*) AS n FROM message GROUP BY state ORDER BY state"
_UNDER_WAY = "SELECT count(*) AS n FROM delivery WHERE attempt_id IS NOT NULL"
_BACKENDS = "SELECT name, owner, paused FROM backend ORDER BY name"
_INSTANCES = "SELECT name, number, version, started_at FROM instance ORDER BY name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An instance that shares the spool. ``lives``: the database has a session of it. ``works``: backends."""

    name: str
    number: int
    version: str
    lives: bool
    works: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """``bytes`` of disk; ``messages`` by state; ``bodies`` are messages whose bytes are kept."""

    place: str
    engine: str
    version: str
    bytes: int
    messages: Mapping[str, int]
    bodies: int
    under_way: int
    instances: Sequence[Member] = ()
    backends: Mapping[str, str] = field(default_factory=dict)  # by which instance each is worked


class Looked(Side, Protocol):
    @property
    def engine(self) -> str: ...

    @property
    def version(self) -> str: ...

    def ask(self, statement: str) -> Sequence[Mapping[str, Any]]: ...

    def size(self) -> int:
        """Bytes. Raises OSError."""

    def living(self) -> Sequence[str]:
        """The names of instances that have it open."""


def about(side: Looked) -> About:
    living = set(side.living())
    owners = {str(row["name"]): str(row["owner"]) for row in side.ask(_BACKENDS)}
    members = [
        Member(
            name=row["name"],
            number=row["number"],
            version=row["version"],
            lives=row["name"] in living,
            works=tuple(name for name, owner in owners.items() if owner == row["name"]),
        )
        for row in side.ask(_INSTANCES)
    ]
    return About(
        place=side.name,
        engine=side.engine,
        version=side.version,
        bytes=side.size(),
        messages={str(row["state"]): int(row["n"]) for row in side.ask(_STATES)},
        bodies=side.count("body"),
        under_way=int(side.ask(_UNDER_WAY)[0]["n"]),
        instances=members,
        backends=owners,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """``verified`` messages meet their checksum, ``damaged`` do not; ``wrong`` is what else is."""

    verified: int
    damaged: Sequence[str]
    wrong: Sequence[str]


def check(look: Callable[[], AbstractContextManager[Looked]], wrong: Sequence[str], tell: Tell) -> Health:
    """Every message that has its bytes yet. What is deleted meanwhile seems damaged: so those are looked at twice."""
    verified, found = 0, set[str]()
    with look() as side:
        for ident, good in checked(side):
            verified += good
            found |= set() if good else {ident}
            tell(verified + len(found))
    if found:
        with look() as side:
            found &= {ident for ident, good in checked(side) if not good}
    return Health(verified=verified, damaged=sorted(found), wrong=wrong)
