"""Who asks, and what he ordered: kept beside what it changed, so that nobody has to guess who did it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

# socket: the commands; token: a bearer token; page: signed in to the pages; proxy: signed in before a listed proxy;
# signal: SIGHUP; open: nobody said who he is.
Way = Literal["socket", "token", "page", "proxy", "signal", "open"]
_LONGEST = 64  # characters of a name


class Role(IntEnum):
    """What somebody may do; each may what those before it may."""

    NOBODY = 0  # health, metrics, and what providers call
    READ = 1  # everything but the text of mail
    OPERATE = 2  # that, and what happens to mail and backends
    ADMIN = 3  # tokens, settings

    @property
    def word(self) -> str:
        return self.name.lower()


ROLES = {role.word: role for role in Role if role}  # as the claim "role" of a token says it


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks. ``name`` is a user of this machine (socket), a token's subject, or the person who signed in.

    ``tenant`` is whose mail he may see, "" for everybody's.
    """

    name: str
    way: Way
    role: Role = Role.READ
    tenant: str = ""


@dataclass(slots=True, eq=False)
class Order:
    """What somebody ordered: ``verb`` as the command calls it, ``what`` it was about in words, "" where ids say it.

    It may take many steps; ``act`` is where the spool keeps it, from the first on that changed something.
    """

    actor: Actor
    verb: str
    what: str = ""
    act: int | None = None


def is_name(text: str) -> bool:
    """Fit to be shown as who did it."""
    return 0 < len(text) <= _LONGEST and text.isprintable()
