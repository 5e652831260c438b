"""What was seen of one address at one listener. All of it is bounded, whatever a hostile client sends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from gateway.address import domain_of

LONGEST = 254  # characters kept of anything a client says; RFC 5321 4.5.3.1.3 gives a path as many
_TEXT = 200  # of a refusal's text
_REFUSALS = 16


class Counts:
    """How often each text came, for the first ``most`` of them; ``others`` counts what came beyond these."""

    __slots__ = ("most", "others", "seen")

    def __init__(self, most: int) -> None:
        self.most, self.others = most, 0
        self.seen: dict[str, int] = {}

    def add(self, text: str, count: int = 1) -> None:
        text = text[:LONGEST] if text.isascii() else text[:LONGEST].encode("utf-8", "replace").decode()
        if text in self.seen or len(self.seen) < self.most:
            self.seen[text] = self.seen.get(text, 0) + count
        else:
            self.others += count

    @property
    def whole(self) -> bool:
        """Whether nothing was left out."""
        return not self.others

    def plain(self) -> dict[str, Any]:
        return {"seen": self.seen, "others": self.others}

    def read(self, found: Mapping[str, Any]) -> None:
        """As ``plain`` gave it. Raises what a damaged file makes it raise."""
        for text, count in found["seen"].items():
            self.add(str(text), int(count))
        self.others += int(found["others"])


class Most:
    """How many came within a clock's minute or hour (``seconds``), at most."""

    __slots__ = ("_count", "_seconds", "_slot", "most")

    def __init__(self, seconds: int) -> None:
        self._seconds, self._slot, self._count, self.most = seconds, -1, 0, 0

    def add(self, at: datetime) -> None:
        slot = int(at.timestamp()) // self._seconds
        self._count = self._count + 1 if slot == self._slot else 1
        self._slot, self.most = slot, max(self.most, self._count)


# By name: of what there are how many told apart.
KINDS: Mapping[str, int] = {
    "helo": 4, "tls": 6, "logins": 6, "clients": 4, "senders": 20, "authors": 20, "domains": 30, "bare": 5,
    "tls_failed": 4,
}  # fmt: skip


class Seen:
    """One address at one listener.

    ``mails`` counts transactions: those ``accepted``, those ``heard`` out, and those refused. ``blind`` are those of
    which the recipients were never said, ``headless`` those whose header was not. ``clear_logins`` are log-ins tried
    without TLS, ``bare`` senders without a domain; such recipients count as of the domain "". Sizes are octets.
    """

    def __init__(self, listener: str, peer: str, at: datetime) -> None:
        self.listener, self.peer, self.first, self.last = listener, peer, at, at
        self.connections = self.mails = self.accepted = self.heard = self.recipients = 0
        self.blind = self.headless = self.clear_logins = self.odd = self.unclear = 0
        self.sized = self.least = self.largest = self.octets = 0
        self.helo, self.tls, self.logins, self.clients, self.senders, self.authors, self.domains, self.bare, \
            self.tls_failed = (Counts(most) for most in KINDS.values())  # fmt: skip
        self.minute, self.hour = Most(60), Most(3600)
        self.refusals: dict[tuple[str, int, str, str], tuple[int, str]] = {}
        self.other_refusals = 0
        self.changed = True

    def said(self, at: datetime, helo: str, tls: str) -> None:
        """Something came; its greeting and TLS as far as known."""
        self.changed = True
        self.first, self.last = min(self.first, at), max(self.last, at)
        if helo:
            self.helo.add(helo)
        self.tls.add(tls or "none")

    def mail(self, at: datetime, sender: str, *, recipients: Iterable[str], known: bool) -> None:
        """A transaction. ``sender`` is as it was given, ``recipients`` those that were asked for; not ``known``: they
        were never said."""
        self.mails += 1
        self.minute.add(at)
        self.hour.add(at)
        self.sender(sender)
        for one in recipients:
            self.recipient(one)
        self.blind += not known

    def sender(self, address: str) -> None:
        """Of the envelope, as it was given."""
        self._address(address, self.senders)

    def size(self, size: int) -> None:
        """Of a message; 0 is not known."""
        if size:
            self.least = min(self.least, size) if self.sized else size
            self.sized, self.largest, self.octets = self.sized + 1, max(self.largest, size), self.octets + size

    def recipient(self, address: str) -> None:
        self.recipients += 1
        local, at, _ = address.rpartition("@")
        self.domains.add(domain_of(address) if at else "")
        self.odd += any(sign in local for sign in "%!@")

    def header(self, addresses: Iterable[str] | None, *, plain: bool = True) -> None:
        """Who stands in From and Sender; None: the header was not seen. Not ``plain``: a reader could see others."""
        if addresses is None:
            self.headless += 1
            return
        self.unclear += not plain
        for one in addresses:
            self._address(one, self.authors)

    def _address(self, address: str, where: Counts) -> None:
        if address and address != "<>":
            (where if "@" in address else self.bare).add(address)
        elif where is self.senders:
            where.add("<>")

    def refused(self, stage: str, code: int, enhanced: str, reason: str, text: str) -> None:
        key = stage, code, enhanced, reason
        if key in self.refusals or len(self.refusals) < _REFUSALS:
            self.refusals[key] = self.refusals.get(key, (0, ""))[0] + 1, text[:_TEXT]
        else:
            self.other_refusals += 1

    @property
    def reasons(self) -> set[str]:
        return {key[3] for key in self.refusals}

    def plain(self) -> dict[str, Any]:
        """As JSON; ``of`` reads it again."""
        return {
            "listener": self.listener, "peer": self.peer, "first_at": _written(self.first),
            "last_at": _written(self.last), **{name: getattr(self, name) for name in _NUMBERS},
            "per_minute": self.minute.most, "per_hour": self.hour.most,
            **{name: getattr(self, name).plain() for name in KINDS},
            "refusals": [
                {"stage": stage, "code": code, "enhanced": enhanced, "reason": reason, "count": count, "text": text}
                for (stage, code, enhanced, reason), (count, text) in self.refusals.items()
            ],
            "other_refusals": self.other_refusals,
        }  # fmt: skip

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Seen:
        """Raises KeyError, TypeError, ValueError, AttributeError for what ``plain`` did not give."""
        first, last = (datetime.fromisoformat(found[name]) for name in ("first_at", "last_at"))
        seen = cls(str(found["listener"]), str(found["peer"]), first)
        seen.last = last
        for name in _NUMBERS:
            setattr(seen, name, int(found[name]))
        seen.minute.most, seen.hour.most = int(found["per_minute"]), int(found["per_hour"])
        for name in KINDS:
            getattr(seen, name).read(found[name])
        for one in found["refusals"][:_REFUSALS]:
            key = str(one["stage"]), int(one["code"]), str(one["enhanced"]), str(one["reason"])
            seen.refusals[key] = int(one["count"]), str(one["text"])[:_TEXT]
        seen.other_refusals = int(found["other_refusals"])
        return seen


_NUMBERS = (
    "connections", "mails", "accepted", "heard", "recipients", "blind", "headless", "clear_logins", "odd", "unclear",
    "sized", "least", "largest", "octets",
)  # fmt: skip


def _written(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
