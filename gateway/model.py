"""The nouns of the house: what a message, a client, a backend and an outcome are. Standard library only.

Absent text is "" and never None. Times are aware UTC datetimes. Addresses are kept as the client spelled them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from typing import ClassVar, Literal, Protocol, runtime_checkable

from gateway.checks import Check
from gateway.quota import Quota, Rate
from gateway.rewritten import Rewritten

Network = IPv4Network | IPv6Network
# What a message is made of (message.FEATURES), and where each stands in it; None: nobody has looked.
Features = Mapping[str, str] | None
SaidBy = Literal["smtp", "http", "gateway"]


class Refusal(Exception):
    """A no to a client: reply code, enhanced code (RFC 3463) and a text that may be shown to it.

    ``reason`` is the metric label, of a closed set (events.REASONS). What goes wrong below the door is a Fault.
    """

    def __init__(self, code: int, enhanced: str, text: str, reason: str) -> None:
        super().__init__(f"{code} {enhanced} {text}")
        self.code, self.enhanced, self.text, self.reason = code, enhanced, text, reason


class Fault(Exception):
    """What keeps a message or a request from going on, in words that may be shown. ``kind`` is one of ``KINDS``."""

    KINDS: ClassVar[frozenset[str]] = frozenset(("",))

    def __init__(self, text: str, kind: str = "") -> None:
        super().__init__(text)
        self.text, self.kind = text, kind


class SpoolTrouble(Fault):
    """The spool did not write it down: nothing of it counts, and it may be asked for again."""


class SpoolFull(SpoolTrouble):
    """There is no room on its disk."""


class SpoolUnavailable(SpoolTrouble):
    """It cannot be written for another reason; the log has it."""


class BadAddress(Fault, ValueError):
    """No mailbox in the sense of RFC 5321 4.1.2: the form, the domain, or characters that need SMTPUTF8."""

    KINDS = frozenset(("syntax", "domain", "utf8"))


class BadMessage(Fault, ValueError):
    """The bytes are no message that can be read."""


class CannotCarry(Fault):
    """No backend can take this message for this recipient as it is. ``enhanced`` (RFC 3463) is for a bounce."""

    KINDS = frozenset(("too_big", "no_route", "not_configured", "token", "null_sender", "utf8", "sender", "feature"))

    def __init__(self, kind: str, enhanced: str, text: str) -> None:
        super().__init__(text, kind)
        self.enhanced = enhanced


class HookRefused(Fault):
    """A call to a webhook that is not its provider's, or that makes no sense."""

    KINDS = frozenset(("unsigned", "unintelligible"))


class CannotTell(Fault):
    """Whether a client's token is good cannot be found out now."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """One RCPT TO. ``notify`` and ``orcpt`` are the DSN parameters as given (RFC 3461), case preserved."""

    address: str
    notify: str = ""
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the SMTP transaction said. ``sender`` "" is the null sender; ``original`` is whose place it took, if any."""

    sender: str
    recipients: tuple[Recipient, ...]
    smtputf8: bool = False
    eightbit: bool = False
    ret: str = ""
    envid: str = ""
    original: str = ""


@dataclass(frozen=True, slots=True)
class SenderRewrite:
    """Replace envelope sender and header From by ``to``: always, or only where the sender is not allowed."""

    to: str
    always: bool


@dataclass(frozen=True, slots=True)
class LoginToken:
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
    ``secret`` is the client's own token where the backend sends with that, ``proof`` what let it in (gateway.auth).
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
    quota: Quota | None = None
    connections: int | None = None
    default_domain: str = ""  # of addresses without one
    redirect_to: str = ""  # who gets all of it
    copy_to: tuple[str, ...] = ()
    token: LoginToken | None = None
    secret: str = field(default="", repr=False)
    proof: object = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is known of an accepted message all its life.

    ``authors`` are the From and Sender addresses that readers see. ``pin`` is the backend a token or client demands.
    ``bounce``: a report of ours, never bounced itself. ``secret``: the client's own token, where that is sent with.
    """

    id: str
    envelope: Envelope
    received_at: datetime
    expires_at: datetime
    client: str
    message_id: str = ""
    header_from: str = ""
    authors: tuple[str, ...] = ()
    pin: str = ""
    bounce: bool = False
    features: Features = None
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage(Message):
    """On its way into the spool: the stamped bytes and its deliveries.

    ``deliveries`` maps a backend's name to the addresses it is to deliver to; every recipient is in exactly one, or
    among the ``refused``, who are kept as failed. ``resend_of``: the message of which this is another copy.
    ``held``: why nobody gets it until somebody has looked, or "".
    """

    raw: bytes
    deliveries: Mapping[str, tuple[str, ...]]
    login: str = ""
    listener: str = ""
    peer: str = ""
    how: str = ""  # as gateway.how notes it
    rewritten: Sequence[Rewritten] = ()
    refused: Mapping[str, Outcome] = field(default_factory=dict)
    resend_of: str = ""
    held: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledMessage(Message):
    """What delivery and a backend see. ``envelope.recipients`` holds only those this attempt is for.

    ``everyone`` is the whole envelope as accepted, whatever backend or state; () where it is not known.
    ``own_token``: a token of the client's own is kept with it; ``secret`` is given to attempts only.
    ``doubtful``: an earlier attempt may have been taken; ``doubt_id`` is what the provider called it then, if known;
    ``interrupted`` is whom it was for where a crash cut it off. ``queued_at``, ``expires_at``: of the spool's time.
    """

    queued_at: datetime  # as received_at, but by a clock that nobody can set (spool.steady)
    size: int
    own_token: bool = False
    attempt: int = 1
    everyone: tuple[str, ...] = ()
    doubtful: bool = False
    doubt_id: str = ""
    interrupted: tuple[str, ...] = ()


class Verdict(Enum):
    """What one attempt meant for one recipient (design: the seam)."""

    SENT = "sent"
    REJECTED = "rejected"  # this message or recipient can never pass
    DEFERRED = "deferred"  # try again
    THROTTLED = "throttled"  # the backend pauses; the message loses no patience
    MISCONFIGURED = "misconfigured"  # the backend pauses and the operator is alarmed
    IN_DOUBT = "in_doubt"  # the body went out and no usable answer came back


class Scope(Enum):
    """Whom an outcome is about, and so who has to wait: only BACKEND rests the backend."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    BACKEND = "backend"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict with the other side's own words.

    ``code`` is a reply code of SMTP or HTTP that was really received, by ``said_by``; ``enhanced`` (RFC 3463) came with
    it or says the same for a bounce, and decides nothing. ``detail`` is for operators and bounces, never for clients;
    ``fix`` is what a person has to do. ``dsn``: the next hop took over the sender's notification request (RFC 3461).
    """

    verdict: Verdict
    code: int | None = None
    enhanced: str = ""
    detail: str = ""
    remote_id: str = ""
    retry_after: timedelta | None = None
    dsn: bool = False
    scope: Scope = Scope.MESSAGE
    said_by: SaidBy = "gateway"
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can carry, so that the door can refuse up front.

    ``max_bytes`` counts raw MIME; ``size_hint`` says what would allow more. ``senders`` are patterns of the From
    addresses it can send as, () is any. Mail of up to ``whole_bytes`` leaves as it is; larger mail is rebuilt from its
    parts, and ``lacks`` what cannot be; ``remedies`` say for some of it which setting lets it be dropped.
    ``own_token``: only mail of clients that logged in with a token of its provider. ``quoted``: an address that
    a careless reader takes for another arrives as it is, ``"a@evil.example, b"@example.com`` (CVE-2025-13033).
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
    quoted: bool = True


# Writes down who got it, between two calls for one message: a crash then leaves no doubt of them. False: it cannot now.
Progress = Callable[[Mapping[str, Outcome]], Awaitable[bool]]


class Backend(Protocol):
    """A way out. ``send`` answers for everybody, raises for nothing expected, and tells ``progress`` between calls."""

    @property
    def name(self) -> str: ...
    @property
    def capabilities(self) -> Capabilities: ...
    async def send(self, message: SpooledMessage, raw: bytes, progress: Progress = ...) -> Mapping[str, Outcome]: ...
    async def check(self) -> Check: ...
    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class DeliveryEvent:
    """What a provider says of mail after it took it: ``state`` is queued, delivered, bounced or failed.

    ``address`` "": everybody handed over as ``remote_id``. ``key`` tells reports apart; one sent twice keeps it.
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
class Tracked(Protocol):
    """A backend that can be asked what became of a message."""

    async def status(self, remote_id: str) -> DeliveryEvent | Outcome:
        """An Outcome where there was no usable answer."""


@runtime_checkable
class CallsBack(Protocol):
    """A backend whose provider calls back. ``hook`` is False while no secret for that is configured."""

    @property
    def hook(self) -> bool: ...
    def called_back(self, headers: Mapping[str, str], body: bytes) -> Sequence[DeliveryEvent]:
        """Header names are lower case. Raises HookRefused: not from the provider, or unintelligible."""


@runtime_checkable
class Verifies(Protocol):
    """A backend whose provider knows the clients: their own token is the password, and is used to send."""

    async def verify(self, token: str) -> str:
        """The address the token belongs to, "" for a token that is not good. Raises CannotTell."""


def same_for_all(message: SpooledMessage, outcome: Outcome) -> dict[str, Outcome]:
    """One outcome for every recipient of the attempt."""
    return {recipient.address: outcome for recipient in message.envelope.recipients}
