"""What one address does, over all listeners: the few facts that a client section is made of. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.address import domain_of, parse_address
from gateway.config.values import parse_pattern
from gateway.learn.seen import Counts, Seen
from gateway.model import BadAddress

# Refused for who it was or what it asked for: what a client section changes.
FOR_WHOM = frozenset(("relay_denied", "auth_required", "tls_required", "sender_denied", "recipient_denied"))
# Nobody's scanner has an address there that a provider would let it send as.
FREE_MAIL = frozenset((
    "gmail.com", "googlemail.com", "outlook.com", "hotmail.com", "live.com", "msn.com", "yahoo.com", "aol.com",
    "icloud.com", "me.com", "gmx.de", "gmx.net", "web.de", "t-online.de", "proton.me", "protonmail.com", "mail.ru",
    "yandex.ru", "qq.com", "163.com",
))  # fmt: skip
_MANY_DOMAINS = 3  # of senders: more than a device or a program has
_MANY_PER_HOUR = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """``senders`` and ``recipients`` are patterns; None: they cannot be told, and ``open`` says why.

    ``unfit`` is what was given as a sender and is no address. ``doubt``: why it should not be let in unseen, or "".
    """

    peer: str
    seen: tuple[Seen, ...]
    senders: frozenset[str] | None
    recipients: frozenset[str] | None
    default_domain: str = ""
    unfit: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    doubt: str = ""

    @property
    def mails(self) -> int:
        return sum(one.mails for one in self.seen)

    @property
    def accepted(self) -> int:
        return sum(one.accepted for one in self.seen)

    @property
    def heard(self) -> int:
        return sum(one.heard for one in self.seen)

    @property
    def per_minute(self) -> int:
        """At most, of all listeners together."""
        return sum(one.minute.most for one in self.seen)

    @property
    def largest(self) -> int:
        """Octets, 0 where no size is known."""
        return max(one.largest for one in self.seen)

    @property
    def reasons(self) -> set[str]:
        return set().union(*(one.reasons for one in self.seen))

    @property
    def clients(self) -> set[str]:
        """Who it was, where its mail was accepted."""
        return {name for one in self.seen for name in one.clients.seen}

    def names(self, kind: str) -> list[str]:
        """All texts of one kind (as seen.KINDS), the most frequent first."""
        total: dict[str, int] = {}
        for one in self.seen:
            counts: Counts = getattr(one, kind)
            for text, count in counts.seen.items():
                total[text] = total.get(text, 0) + count
        return sorted(total, key=lambda text: (-total[text], text))


@dataclass(slots=True)
class _Found:
    """On the way to ``Habits``."""

    senders: set[str] = field(default_factory=set)
    unfit: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)


def habits(peer: str, seen: Iterable[Seen], domain: str) -> Habits:
    """``domain`` is what would complete names that have none."""
    all_seen = tuple(seen)
    found = _Found()
    bare = [name for one in all_seen for name in one.bare.seen]
    for one in all_seen:
        for text in (*one.senders.seen, *one.authors.seen):
            _sender(found, text)
    for name in bare:
        _sender(found, f"{name}@{domain}")
    senders = _senders(found, all_seen)
    nameless = bool(bare) or any("" in one.domains.seen for one in all_seen)
    recipients = _recipients(found, all_seen, domain)
    return Habits(
        peer=peer, seen=all_seen, senders=senders, recipients=recipients, default_domain=domain if nameless else "",
        unfit=tuple(found.unfit), open=tuple(found.open), doubt=_doubt(all_seen, found.senders),
    )  # fmt: skip


def _sender(found: _Found, text: str) -> None:
    if text == "<>":
        return
    try:
        found.senders.add(parse_pattern(parse_address(text)).lower())
    except (BadAddress, ValueError):
        found.unfit.append(text)


def _senders(found: _Found, seen: tuple[Seen, ...]) -> frozenset[str] | None:
    if not all(one.senders.whole and one.authors.whole and one.bare.whole for one in seen):
        found.open.append("it has more senders than were kept apart")
        return None
    if any(one.unclear for one in seen):
        found.open.append("its From header does not name one plain address, so no list of senders would let it in")
        return None
    if any(one.headless for one in seen):
        found.open.append("its From header was not seen: if it is refused for it, add that address to senders")
    return frozenset(found.senders)


def _recipients(found: _Found, seen: tuple[Seen, ...], own: str) -> frozenset[str] | None:
    if any(one.blind for one in seen):
        found.open.append("whom it writes to was not seen, for it was refused before it could say so")
    elif any(one.odd for one in seen):
        found.open.append("it writes to addresses with % or ! in them, which no list of domains lets through")
    elif not all(one.domains.whole for one in seen):
        found.open.append("it writes to more domains than were kept apart")
    else:
        patterns = {f"*@{domain or own}" for one in seen for domain in one.domains.seen}
        try:
            return frozenset(map(parse_pattern, patterns))
        except ValueError:
            found.open.append("it writes to an address literal")
    return None


def _doubt(seen: tuple[Seen, ...], senders: set[str]) -> str:
    domains = {domain_of(one) for one in senders}
    if len(domains) > _MANY_DOMAINS or not all(one.senders.whole for one in seen):
        return f"sends as {len(domains)} domains or more: a mail server that forwards, or an infected PC"
    if any(not one.domains.whole and one.hour.most > _MANY_PER_HOUR for one in seen):
        return "writes much mail to very many domains: a newsletter, or an infected PC"
    return ""
