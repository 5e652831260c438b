"""What the spool hands out and takes in: frozen records, times as aware UTC datetimes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from gateway.model import NewMessage, Outcome, SpooledMessage
from gateway.spool.listing import MessageRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_LAST = (datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH) // MICROSECOND
R = TypeVar("R")
DeliveryId = tuple[str, str]  # of a delivery: its message and its backend


class SpoolError(Exception):
    """The spool cannot be opened; the text tells the operator why and what to do."""


def micros(moment: datetime) -> int:
    """Microseconds since 1970. Raises TypeError for a naive datetime."""
    return (moment - _EPOCH) // MICROSECOND


def moment(value: int) -> datetime:
    """A damaged value comes out as a time, too: the checksum finds it where it matters."""
    return _EPOCH + timedelta(microseconds=min(max(value, 0), _LAST))


def record(kind: type[R], row: Any, **more: Any) -> R:
    """Fill a record of this kind from columns of the same names; columns named ``..._at`` are times."""
    for column in fields(kind):  # type: ignore[arg-type] # R is one of the records below
        if column.name in row and column.name not in more:
            value = row[column.name]
            if column.name.endswith("_at") and value is not None:
                value = moment(value)
            more[column.name] = bool(value) if column.type == "bool" else value
    return kind(**more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What one message still has to do by one backend. ``message.envelope`` holds only the recipients waiting for it.

    ``sticky``: an earlier attempt was interrupted or in doubt, so never fail over; ``in_doubt``: how many in a row.
    ``doubted`` are the recipients whom the last of these left in doubt.
    """

    backend: str
    message: SpooledMessage
    sticky: bool
    in_doubt: int
    doubted: tuple[str, ...] = ()

    @property
    def delivery_id(self) -> DeliveryId:
        return self.message.id, self.backend


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Delivery):
    """A delivery taken for one attempt, whose row is already written."""

    attempt_id: int


@dataclass(frozen=True, slots=True)
class Taken:
    """Claims, and the bodies of the small ones by queue id; large ones are read when they are sent.

    ``due``: when the backend's next delivery falls due, by the spool's time, counting what is under way but not what is
    busy; None is never. At once, where there were as many as could be taken.
    """

    claims: tuple[Claim, ...] = ()
    bodies: Mapping[str, bytes] = field(default_factory=dict)
    due: datetime | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """Of a worker who has nothing else to do, for one delivery of a message that is on its way in.

    ``taken`` is called once, with the claim for so long a ``lease`` once it is on disk, or None where it came to
    nothing, and the message's bytes. False gives the claim back: nobody wants it any more.
    """

    lease: timedelta
    taken: Callable[[Claim | None, bytes], bool]


@dataclass(frozen=True, slots=True)
class Told:
    """What a sender hears of his mail: ``kind`` is failed, delayed or relayed.

    ``bounce_id`` is the queue id of the bounce that says it; "" where there is none, and ``reason`` says why.
    """

    kind: str
    bounce_id: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a claim. ``states`` maps addresses to sent, failed, queued or held.

    What stays queued is due at ``next_attempt_at`` of the spool's time by ``backend``. ``bounces`` go in with it or not
    at all. ``under_way``: the attempt goes on for these, and only what has become of the others is written down.
    ``poll_at``: when, by the spool's time, to ask the provider first what became of what was sent; None is never.
    """

    claim: Claim
    ended_at: datetime
    outcomes: Mapping[str, Outcome]
    states: Mapping[str, str]
    next_attempt_at: datetime | None
    backend: str
    bounces: tuple[NewMessage, ...] = ()
    told: tuple[Told, ...] = ()
    count_attempt: bool = True
    started_at: datetime | None = None
    poll_at: datetime | None = None
    under_way: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a provider said; verdict "" is no answer yet."""

    backend: str
    verdict: str
    code: int | None
    enhanced: str
    detail: str
    remote_id: str
    scope: str
    said_by: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientRow(Said):
    """A recipient with the last answer to it."""

    address: str
    state: str
    notify: str
    orcpt: str
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow(Said):
    """An attempt, or one of its answers; without ``ended_at`` it is under way. Interrupted means: maybe sent."""

    recipients: tuple[str, ...]
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class EventRow:
    """What a provider said after it took the mail: by itself (webhook), asked (poll), in a report that came
    back (report) or in its list of what failed (trace)."""

    backend: str
    address: str
    remote_id: str
    state: str
    detail: str
    reported_at: datetime
    source: str


@dataclass(frozen=True, slots=True)
class Poll:
    """What a provider is to be asked about, at which time, and how often it was asked already."""

    message_id: str
    backend: str
    remote_id: str
    next_at: datetime
    asked: int


@dataclass(frozen=True, slots=True)
class Late:
    """A message of whose delay its sender was not told: what waits of it, and what was said last, by recipient.

    ``queued_at`` is since when it waits, of the spool's time. Without ``deliveries`` some of it is under way.
    """

    ident: str
    deliveries: tuple[Delivery, ...]
    said: Mapping[str, RecipientRow]
    queued_at: datetime

    @property
    def message(self) -> SpooledMessage:
        """Its ``envelope`` holds the recipients of one delivery only."""
        return self.deliveries[0].message


@dataclass(frozen=True, slots=True)
class Notice:
    """What the sender of a message is told of its delay, as long as all of these deliveries wait."""

    message_id: str
    delivery_ids: tuple[DeliveryId, ...]
    bounces: tuple[NewMessage, ...]
    told: tuple[Told, ...]


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    backend: str
    state: str
    next_attempt_at: datetime
    attempts: int
    sticky: bool
    in_doubt: int


@dataclass(frozen=True, slots=True)
class BounceRow(Told):
    """When it was decided, by the machine's clock."""

    made_at: datetime = _EPOCH


@dataclass(frozen=True, slots=True)
class ClockStep:
    """The machine's clock was set: what it would have shown, and what it showed, when so many attempts were made."""

    was_at: datetime
    now_at: datetime
    after: int = 0


@dataclass(frozen=True, slots=True)
class ActRow:
    """What somebody ordered, and how many messages it changed: ``messages`` are the first 20 of them. ``tenant`` is
    whose log-in it was, "" for an operator's."""

    id: int
    made_at: datetime
    name: str
    way: str
    verb: str
    what: str
    count: int
    messages: tuple[str, ...] = ()
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class RestRow:
    """A backend did not work: ``by`` is the cause as in delivery.breaker, ``who`` ordered it, ``detail`` was said."""

    backend: str
    since_at: datetime
    ended_at: datetime | None
    by: str
    who: str
    detail: str
    fix: str


@dataclass(frozen=True, slots=True)
class AskedRow:
    """What became of a recipient: ``address`` was asked for ("" for a copy that nobody asked for), ``became`` gets it.

    ``why`` is alias, redirect or copy, ``rule`` the setting that says so.
    """

    address: str
    became: str
    why: str
    rule: str


@dataclass(frozen=True, slots=True)
class MessageDetail:
    """The whole life of a message, oldest attempt first. ``how`` was noted when it was accepted (gateway.how).

    ``copies`` are the messages by which it was sent again, ``asked`` who was asked for where another gets the mail.
    """

    message: MessageRow
    recipients: tuple[RecipientRow, ...]
    attempts: tuple[AttemptRow, ...]
    deliveries: tuple[DeliveryRow, ...]
    events: tuple[EventRow, ...]
    bounces: tuple[BounceRow, ...] = ()
    clock_steps: tuple[ClockStep, ...] = ()
    acts: tuple[ActRow, ...] = ()
    rests: tuple[RestRow, ...] = ()
    copies: tuple[str, ...] = ()
    asked: tuple[AskedRow, ...] = ()
    how: str = ""

    @property
    def state(self) -> str:
        return self.message.state


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token minted here or revoked by id. Times may be given as ISO 8601 text; ValueError if they are not aware."""

    jti: str
    key: str = ""
    subject: str = ""
    note: str = ""
    issued_at: datetime = _EPOCH
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("issued_at", "expires_at", "revoked_at"):
            given: object = getattr(self, name)
            value = datetime.fromisoformat(given) if isinstance(given, str) else given
            if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
                raise ValueError(f"{name} is not a time with a zone")
            object.__setattr__(self, name, value)
