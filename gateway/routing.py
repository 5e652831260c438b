"""Which backends may carry a message for whom: asked by the door, by delivery and by bounces, answered once. Pure.

Every CannotCarry names what was refused and the setting that allows it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.address import matches
from gateway.config.models import RouteSettings
from gateway.model import CannotCarry, Capabilities, Client, Features, SpooledMessage

# Features of a message (message.FEATURES) in the words of a refusal.
WORDS = {
    "attachments": "attachments",
    "inline_images": "images within the text",
    "signed": "signed mail",
    "encrypted": "encrypted mail",
    "charset": "text whose character set cannot be made out",
    "no_charset": "text that does not say its character set",
    "calendar": "calendar invitations",
    "attached_message": "attached messages",
    "report": "delivery reports",
    "reply_to": "a Reply-To that is not the From",
    "headers": "header fields of their own",
    "threading": "In-Reply-To and References",
    "both_bodies": "text and HTML together",
    "malformed": "malformed mail",
    "no_subject": "mail without a subject",
    "no_text": "mail without a text",
}

_SHOWN = 200  # characters of a line of routes, or of why a backend was passed over
_REMEMBERED = 1000  # answers; when there are more it begins anew
_FEW = 3  # authors of a message whose answer is remembered


@dataclass(frozen=True, slots=True)
class Freight:
    """What routing needs to know of a message; all of it is stored with it, so that the answer stays the same.

    ``client`` is whose it is, ``pin`` the backend it demands ("" for none), ``sender`` the envelope's. ``size`` counts
    bytes. ``authors`` are the From and Sender addresses, () while they are not known. ``own_token``: a token of the
    client's own comes with it.
    """

    client: str
    sender: str
    size: int
    pin: str = ""
    smtputf8: bool = False
    authors: tuple[str, ...] = ()
    features: Features = None
    own_token: bool = False

    @classmethod
    def of(cls, message: SpooledMessage) -> Freight:
        return cls(
            client=message.client,
            sender=message.envelope.sender,
            size=message.size,
            pin=message.pin,
            smtputf8=message.envelope.smtputf8,
            authors=message.authors,
            features=message.features,
            own_token=message.own_token,
        )


@dataclass(frozen=True, slots=True)
class _Asks:
    """What the answers of a routing table depend on, as far as these routes and backends ask for it, and their words.

    Mail that is the same in all this goes the same way, so the answer for it is remembered, and who makes up addresses
    makes up nothing new. A refusal names what it refuses and is never remembered.
    """

    senders: bool
    recipients: bool
    authors: bool
    contents: bool
    copies: bool
    sizes: tuple[int, ...]  # bounds, in order
    words: tuple[str, ...]  # of each route

    @classmethod
    def of(cls, routes: Sequence[RouteSettings], able: Collection[Capabilities]) -> _Asks:
        doubts = not all(one.quoted for one in able)
        return cls(
            senders=any(line.senders for line in routes),
            recipients=doubts or any(line.recipients for line in routes),
            authors=doubts or any(one.senders for one in able),
            contents=any(one.lacks for one in able),
            copies=any(line.copy_to for line in routes),
            sizes=tuple(sorted({size for one in able for size in (one.max_bytes, one.whole_bytes)})),
            words=tuple(map(_words, routes)),
        )

    def key(self, freight: Freight, recipient: str) -> Hashable:
        return (
            freight.client,
            freight.pin,
            freight.smtputf8,
            freight.own_token,
            freight.sender if self.senders else bool(freight.sender),
            recipient if self.recipients else "",
            freight.authors if self.authors else (),
            None if freight.features is None else frozenset(freight.features),
            bisect_left(self.sizes, freight.size),
        )


@dataclass(frozen=True, slots=True)
class Routing:
    """The routing table and what the backends can carry; made at start and at each reload, swapped as a whole."""

    routes: tuple[RouteSettings, ...]
    capabilities: Mapping[str, Capabilities]
    _asks: _Asks = field(init=False, repr=False, compare=False)
    _found: dict[Hashable, tuple[str, ...]] = field(init=False, repr=False, compare=False, default_factory=dict)
    _largest: dict[Hashable, tuple[int, str]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_asks", _Asks.of(self.routes, self.capabilities.values()))

    @property
    def copies(self) -> bool:
        """Whether any line wants copies made."""
        return self._asks.copies

    @property
    def particular(self) -> bool:
        """Whether any backend minds what is in a message, so that somebody has to look."""
        return self._asks.contents

    def backends(self, freight: Freight, recipient: str) -> tuple[str, ...]:
        """In failover order what the settings say: the pin, else the first route that matches; () is none."""
        if freight.pin:
            return (freight.pin,)
        return next((line.backend for line in self.routes if _fits(line, freight, recipient)), ())

    def refusal(self, name: str, freight: Freight, recipients: Iterable[str]) -> CannotCarry | None:
        """Why this backend, whatever the routes say, cannot carry the message for all of these; None where it can."""
        able = self.capabilities.get(name)
        doubts = (_doubt(name, able, freight, recipient) for recipient in recipients)
        return obstacle(name, able, freight) or next(filter(None, doubts), None)

    def usable(self, freight: Freight, recipient: str) -> tuple[str, ...]:
        """Those of ``backends`` that can carry the message, in order. Raises the first one's CannotCarry for none.

        Where nobody has looked at the message, one that may have to refuse it is the last resort: that is a bounce.
        """
        if len(freight.authors) > _FEW:
            return self._usable(freight, recipient)
        key = self._asks.key(freight, recipient)
        if (found := self._found.get(key)) is None:
            found = self._usable(freight, recipient)
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            self._found[key] = found
        return found

    def _usable(self, freight: Freight, recipient: str) -> tuple[str, ...]:
        names = self.backends(freight, recipient)
        if not names:
            raise CannotCarry("no_route", "5.7.1", f"<{recipient}>: no line of the setting routes matches")
        able = {name: self.capabilities.get(name) for name in names}
        obstacles = {
            name: obstacle(name, able[name], freight) or _doubt(name, able[name], freight, recipient) for name in names
        }
        found = [name for name, why in obstacles.items() if why is None]
        if not found:
            raise next(filter(None, obstacles.values()))
        if freight.features is None:
            found = [name for name in found if not self._choosy(name, freight.size)] or found
        return tuple(found)

    def _choosy(self, name: str, size: int) -> bool:
        able = self.capabilities[name]
        return bool(able.lacks) and size > able.whole_bytes

    def ways(self, freight: Freight, recipients: Iterable[str]) -> tuple[str, ...]:
        """Backends, in failover order, that can carry the message for every one of these recipients; () is none."""
        try:
            found = [self.usable(freight, recipient) for recipient in recipients] or [()]
        except CannotCarry:
            return ()
        return tuple(name for name in found[0] if all(name in names for names in found))

    def deliveries(
        self, freight: Freight, recipients: Iterable[str], works: Callable[[str], bool] = lambda name: True
    ) -> dict[str, tuple[str, ...]]:
        """Whom each backend is to deliver to: every recipient by the first that can and ``works``, or else that can.

        Raises CannotCarry.
        """
        found: dict[str, list[str]] = {}
        for recipient in recipients:
            names = self.usable(freight, recipient)
            found.setdefault(next(filter(works, names), names[0]), []).append(recipient)
        return {name: tuple(addresses) for name, addresses in found.items()}

    def line(self, freight: Freight, recipient: str) -> int:
        """The number of the line that says where it goes, from 1 on; 0 where the client demands a backend."""
        if freight.pin or (len(self.routes) == 1 and not self.routes[0].recipients):
            return 0 if freight.pin else 1
        return next((n for n, line in enumerate(self.routes, 1) if _fits(line, freight, recipient)), 0)

    def taken(self, freight: Freight, recipient: str, chosen: str) -> tuple[int, str, str, str]:
        """For people: the line, its words, the backend, and why the one that stands first there did not get it."""
        number = self.line(freight, recipient)
        line = self.routes[number - 1] if number else None
        first = line.backend[0] if line else chosen
        why = self._passed_over(freight, recipient, first) if first != chosen else ""
        return number, self._asks.words[number - 1] if line else "", chosen, why

    def _passed_over(self, freight: Freight, recipient: str, first: str) -> str:
        able = self.capabilities.get(first)
        why = obstacle(first, able, freight) or _doubt(first, able, freight, recipient)
        return why.text[:_SHOWN] if why else f"{first} did not work then"

    def alternatives(self, name: str) -> frozenset[str]:
        """Backends that some route names beside this one: where what waits for it may go."""
        together = {other for line in self.routes if name in line.backend for other in line.backend}
        return frozenset(together - {name})

    def reachable(self, freight: Freight) -> list[tuple[str, ...]]:
        """The backends of each route that such a message may take, whoever it is for, down to one for all the rest.

        () where none can carry it, and at the end where no route takes the rest.
        """
        if freight.pin:
            return [self._able(freight, (freight.pin,))]
        found = []
        for line in self.routes:
            if _matches(line, freight):
                found.append(self._able(freight, line.backend))
                if not line.recipients or "*" in line.recipients:
                    return found
        return [*found, ()]

    def _able(self, freight: Freight, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if obstacle(name, self.capabilities.get(name), freight) is None)

    def largest(self, client: Client, cap: int) -> tuple[int, str]:
        """Bytes for SIZE: the most that any backend this client may reach takes, within ``cap`` and its own limit.

        And what a refusal adds where that is a backend's limit: which one, and the setting that would allow more.
        """
        key = client.name, client.backend, client.max_size, cap
        if (found := self._largest.get(key)) is None:
            found = self._find_largest(client, cap)
            if len(self._largest) >= _REMEMBERED:  # tokens may bring sizes of their own
                self._largest.clear()
            self._largest[key] = found
        return found

    def _find_largest(self, client: Client, cap: int) -> tuple[int, str]:
        lines = (line for line in self.routes if not line.clients or client.name in line.clients)
        names = {client.backend} if client.backend else {name for line in lines for name in line.backend}
        known = {name: self.capabilities[name] for name in sorted(names) if name in self.capabilities}
        own = cap if client.max_size is None else min(cap, client.max_size)
        best = max(known, key=lambda name: known[name].max_bytes, default="")
        if not best or known[best].max_bytes >= own:
            return own, ""
        return known[best].max_bytes, f', the limit of backend "{best}"{_hint(best, known[best])}'


def _words(line: RouteSettings) -> str:
    """As it stands in the settings, without what it leaves open."""
    asked = (("clients", line.clients), ("senders", line.senders), ("recipients", line.recipients))
    given = [f"{name}: {' '.join(patterns)}, " for name, patterns in asked if patterns]
    return f"{''.join(given)[:_SHOWN]}backend: {' '.join(line.backend)}"


def _matches(line: RouteSettings, freight: Freight) -> bool:
    """Whatever the recipient. The null sender matches "" alone, and "*"."""
    if line.clients and freight.client not in line.clients:
        return False
    known = not line.senders or freight.sender in line.senders
    return known or any(matches(pattern, freight.sender) for pattern in line.senders)


def _fits(line: RouteSettings, freight: Freight, recipient: str) -> bool:
    anyone = not line.recipients
    return _matches(line, freight) and (anyone or any(matches(pattern, recipient) for pattern in line.recipients))


def obstacle(name: str, able: Capabilities | None, freight: Freight) -> CannotCarry | None:
    """Why this backend cannot carry it; None where it can."""
    if able is None:
        return CannotCarry("not_configured", "4.3.5", f'backend "{name}" is not configured')
    if freight.size > able.max_bytes:
        text = f'message of {freight.size} bytes is too big, backend "{name}" takes at most {able.max_bytes} bytes'
        return CannotCarry("too_big", "5.3.4", f"{text}{_hint(name, able)}")
    if able.own_token and not freight.own_token:
        text = f'backend "{name}" sends only with the client\'s own token; log in with that (clients: login: {name})'
        return CannotCarry("token", "5.7.1", text)
    if not freight.sender and not able.null_sender:
        return CannotCarry("null_sender", "5.7.1", f'backend "{name}" cannot send with the null sender <>')
    if freight.smtputf8 and not able.smtputf8:
        return CannotCarry("utf8", "5.6.7", f'backend "{name}" cannot carry non-ASCII addresses (SMTPUTF8)')
    return _stranger(name, able, freight.authors) or _loss(name, able, freight)


def _doubt(name: str, able: Capabilities | None, freight: Freight, recipient: str) -> CannotCarry | None:
    for address in (recipient, *freight.authors) if able and not able.quoted else ():
        if '"' in address or "=?" in address:
            text = f'<{address}>: such an address cannot be sent through backend "{name}", it could be read as another'
            return CannotCarry("feature", "5.6.3", f"{text}; write it without quotes, or use another backend")
    return None


def _hint(name: str, able: Capabilities) -> str:
    return f"; {able.size_hint.format(name=name)}" if able.size_hint else ""


def _stranger(name: str, able: Capabilities, authors: Sequence[str]) -> CannotCarry | None:
    """An author that the backend cannot send as."""
    for author in authors if able.senders else ():
        if not any(matches(pattern, author) for pattern in able.senders):
            shown = ", ".join(able.senders[:3]) + " ..." * (len(able.senders) > 3)
            text = f'<{author}>: backend "{name}" sends only as {shown}; send from there (rewrite_sender), or'
            return CannotCarry("sender", "5.7.1", f"{text} add it to backends.{name}.senders if it may")
    return None


def _loss(name: str, able: Capabilities, freight: Freight) -> CannotCarry | None:
    """What would be lost on the way: nobody is to find out by its absence."""
    if freight.features is not None and freight.size > able.whole_bytes:
        above = f" above {able.whole_bytes} bytes" if able.whole_bytes else ""
        for feature, where in freight.features.items():
            if feature not in able.lacks:
                continue
            text = f'{WORDS[feature]} cannot be sent through backend "{name}"{above}{where and f" ({where})"}'
            remedy = able.remedies.get(feature, "").format(name=name)
            return CannotCarry("feature", "5.6.3", f"{text}; {remedy or 'route this client to another backend'}")
    return None
