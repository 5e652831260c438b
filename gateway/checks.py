"""What a backend tells of itself: whether it could send, step by step, and how much of its limits is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable
from urllib.parse import urlsplit

Result = Literal["good", "wrong", "untried"]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was looked at, in plain words, or that only a sent message shows; ``said``: what was answered."""

    result: Result
    text: str
    said: str = ""


def good(text: str, said: str = "") -> Step:
    return Step("good", text, said)


def wrong(text: str, said: str = "") -> Step:
    return Step("wrong", text, said)


def untried(text: str) -> Step:
    """``text`` says whether what; nothing but a message shows it."""
    return Step("untried", f"{text}. Only a sent message shows that.")


def reached(url: str) -> Step:
    """The host of an API has answered; with https it has shown a certificate that is trusted."""
    place = urlsplit(url)
    return good(f"{place.hostname} is reached{', its certificate is good' if place.scheme == 'https' else ''}.")


def unreached(url: str, said: str) -> Step:
    return wrong(f"{urlsplit(url).hostname} is not reached.", said)


@dataclass(frozen=True, slots=True)
class Check:
    """The answer of ``backend check``: is it usable, in plain words, and what to do if not.

    ``steps`` in the order in which they were made; the first that is wrong ends it.
    """

    ok: bool
    summary: str
    fix: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Use:
    """So much of a limit is used: ``used`` of ``most`` in any ``seconds``, or at once where they are 0."""

    what: str
    used: float
    most: float
    unit: str
    seconds: float = 0.0


@runtime_checkable
class Metered(Protocol):
    """A backend that keeps to limits of its provider."""

    def uses(self) -> Sequence[Use]:
        """How much of them is used just now; of several mailboxes the one that has least left."""


@runtime_checkable
class Forgetful(Protocol):
    """A backend that remembers for some seconds what it was refused, so that not each message asks."""

    def forget(self) -> None:
        """Ask anew."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """What came of a look at a key that renews itself.

    ``result``: kept (nothing was due), waits (a new one is there and not good yet), renewed, removed (an old one) or
    failed. The next look is due in ``again`` seconds. ``trouble``: why it failed last, "" where it did not.
    """

    result: Literal["kept", "waits", "renewed", "removed", "failed"]
    summary: str
    again: float
    ends: datetime | None = None
    trouble: str = ""
    fix: str = ""


@runtime_checkable
class Renews(Protocol):
    """A backend that may have such a key."""

    async def renew(self, *, ordered: bool = False) -> Renewed | None:
        """Look, and do what is due; ``ordered``: begin now. None: its key does not renew itself."""
