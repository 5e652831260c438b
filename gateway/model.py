"""The nouns of the house: what a message, a client, a backend and an outcome are. Standard library only.

Absent text is "" and never None. Times are aware UTC datetimes. Addresses are kept as the client spelled them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol, runtime_checkable

Network = IPv4Network | IPv6Network
# What a way out must carry (message.FEATURES), and where it stands in the message; None: nobody has looked.
Needs = Mapping[str, str] | None


class Refusal(Exception):
    """A refusal that may be shown to an SMTP client: reply code, enhanced code (RFC 3463) and a safe text.

    ``reason`` is the metric label and comes from a closed set (events.REASONS).
    """

    def __init__(self, code: int, enhanced: str, text: str, reason: str) -> None:
        super().__init__(f"{code} {enhanced} {text}")
        self.code = code
        self.enhanced = enhanced
        self.text = text
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Recipient:
    """One RCPT TO. ``notify`` and ``orcpt`` are the DSN parameters as given (RFC 3461), case preserved."""

    address: str
    notify: str = ""
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the SMTP transaction said. ``sender`` "" is the null sender."""

    sender: str
    recipients: tuple[Recipient, ...]
    smtputf8: bool = False
    eightbit: bool = False
    ret: str = ""
    envid: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``count`` messages in any ``period``."""

    count: int
    period: timedelta


@dataclass(frozen=True, slots=True)
class SenderRewrite:
    """Replace envelope sender and header From by ``to``: always, or only where the sender is not allowed."""

    to: str
    always: bool


@dataclass(frozen=True, slots=True)
class Token:
    """What must stay true of the token behind a login while the connection lives."""

    key: str
    subject: str
    jti: str
    issued_at: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Client:
    """Who is speaking and what they may do; decided at connect or login, config and token claims already merged.

    ``senders`` and ``recipients`` are groups of patterns; every group needs a match (a claim narrows, never widens).
    ``secret`` is the client's own token where the backend sends with that.
    """

    name: str
    login: str = ""
    senders: tuple[tuple[str, ...], ...] = ()
    recipients: tuple[tuple[str, ...], ...] = ()
    rewrite: SenderRewrite | None = None
    backend: str = ""
    max_size: int | None = None
    max_recipients: int | None = None
    rate: Rate | None = None
    token: Token | None = None
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class NewMessage:
    """An accepted message on its way into the spool: envelope, stamped bytes and the lanes it will leave by.

    ``lanes`` maps a backend's name to the addresses it is to deliver first; every recipient is in exactly one lane.
    ``bounce`` marks a report of ours: it is never bounced itself. ``pin`` is the backend a token or client demands.
    """

    id: str
    envelope: Envelope
    raw: bytes
    lanes: Mapping[str, tuple[str, ...]]
    received_at: datetime
    expires_at: datetime
    client: str
    login: str = ""
    listener: str = ""
    peer: str = ""
    message_id: str = ""
    header_from: str = ""
    pin: str = ""
    bounce: bool = False
    needs: Needs = None
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class SpooledMessage:
    """What delivery and a backend see. ``envelope.recipients`` holds only those this attempt is for.

    ``everyone`` is the whole envelope as accepted, whatever lane or state; () where it is not known.
    ``doubtful``: an earlier attempt may have been taken; ``doubt_id`` is what the provider called it then, if known;
    ``interrupted`` is whom it was for where a crash cut it off.
    """

    id: str
    envelope: Envelope
    size: int
    received_at: datetime
    expires_at: datetime
    client: str
    message_id: str = ""
    header_from: str = ""
    pin: str = ""
    bounce: bool = False
    delay_notified: bool = False
    attempt: int = 1
    everyone: tuple[str, ...] = ()
    needs: Needs = None
    doubtful: bool = False
    doubt_id: str = ""
    interrupted: tuple[str, ...] = ()
    secret: str = field(default="", repr=False)


class Verdict(Enum):
    """What one attempt meant for one recipient (design: the seam)."""

    SENT = "sent"
    REJECTED = "rejected"  # this message or recipient can never pass
    DEFERRED = "deferred"  # try again
    THROTTLED = "throttled"  # the backend pauses; the message loses no patience
    MISCONFIGURED = "misconfigured"  # the backend pauses and the operator is alarmed
    IN_DOUBT = "in_doubt"  # the body went out and no usable answer came back


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict with the provider's own words.

    ``detail`` is for operators and reports, never for SMTP clients. ``retry_after`` is the provider's hint.
    ``dsn`` says that the next hop took over the sender's notification request (RFC 3461).
    """

    verdict: Verdict
    code: int | None = None
    enhanced: str = ""
    detail: str = ""
    remote_id: str = ""
    retry_after: timedelta | None = None
    dsn: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What a backend can carry, so that the door can refuse up front.

    ``max_bytes`` counts raw MIME; ``size_hint`` says what would allow more. ``senders`` are patterns of the From
    addresses it can send as, () is any. Mail of up to ``whole_bytes`` leaves as it is; larger mail is rebuilt from its
    parts, and ``lacks`` what cannot be; ``remedies`` say for some of it which setting lets it be dropped.
    ``own_token``: only mail of clients that logged in with a token of its provider.
    """

    max_bytes: int
    null_sender: bool = True
    smtputf8: bool = True
    senders: tuple[str, ...] = ()
    lacks: frozenset[str] = frozenset()
    whole_bytes: int = 0
    size_hint: str = ""
    remedies: Mapping[str, str] = field(default_factory=dict)
    own_token: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """The answer of ``backend check``: is it usable, in plain words, and what to do if not."""

    ok: bool
    summary: str
    fix: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


class Backend(Protocol):
    """A way out. ``send`` answers for every recipient and raises for nothing that is expected."""

    @property
    def name(self) -> str: ...

    @property
    def limits(self) -> Limits: ...

    async def send(self, message: SpooledMessage, raw: bytes) -> Mapping[str, Outcome]: ...

    async def check(self) -> Check: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """What a provider says of mail after it took it: ``state`` is queued, delivered, bounced or failed.

    ``address`` "" means every recipient that was handed over as ``remote_id``. ``key`` tells two reports apart and is
    the same when one is sent twice.
    """

    remote_id: str
    state: str
    detail: str = ""
    address: str = ""
    key: str = ""

    @property
    def final(self) -> bool:
        return self.state != "queued"


@runtime_checkable
class Follows(Protocol):
    """A backend that can be asked what became of a message."""

    async def status(self, remote_id: str) -> Progress | Outcome:
        """An Outcome where there was no usable answer."""


@runtime_checkable
class Hooked(Protocol):
    """A backend whose provider calls back. ``hook`` is False while no secret for that is configured."""

    @property
    def hook(self) -> bool: ...

    def reports(self, headers: Mapping[str, str], body: bytes) -> Sequence[Progress]:
        """Header names are lower case. Raises Refusal: 535 not from the provider, 501 unintelligible."""


@runtime_checkable
class Verifies(Protocol):
    """A backend whose provider knows the clients: their own token is the password, and is used to send."""

    async def verify(self, token: str) -> str:
        """The address the token belongs to. Raises Refusal: 535 refused, 454 cannot be told now."""


def same_for_all(message: SpooledMessage, outcome: Outcome) -> dict[str, Outcome]:
    """One outcome for every recipient of the attempt."""
    return {recipient.address: outcome for recipient in message.envelope.recipients}
