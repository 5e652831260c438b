"""The tables of the spool. Times are integer microseconds since 1970 (UTC); absent text is ''.

``expires_at`` and ``finished_at`` of a message, both times of a delivery and ``next_at`` are of the spool's own time
(steady), which nobody can set; all others are what the machine's clock showed.

``message``, ``recipient`` and ``delivery`` rows are small and hot; the bytes stand apart in ``body``, so that a change
of state never rewrites them. They are clustered by queue id (WITHOUT ROWID), so that one look-up finds all.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Index, text
from sqlmodel import Field, SQLModel

_CLUSTERED = {"sqlite_with_rowid": False}
_QUEUED = text("state = 'queued'")


def _one_of(*states: str) -> CheckConstraint:
    """Looked at by the integrity check at start, too: a damaged state would drop its row out of every queue."""
    return CheckConstraint(f"state IN {states}", name="known_state")


class Message(SQLModel, table=True):
    """``state`` is queued, held, done, failed or corrupt and follows from the recipients (transaction)."""

    __table_args__ = (
        # What waits, by its id and with all that is asked of it; two indexes instead would cost every message.
        Index("message_open", "id", "state", "expires_at", "finished_at", sqlite_where=text("finished_at IS NULL")),
        Index("message_by_state", "state", sqlite_where=text("state <> 'queued'")),
        Index("message_by_message_id", "message_id"),
        Index("message_by_sender", "sender_key"),
        Index("message_by_original", "original_key", sqlite_where=text("original_key <> ''")),
        Index("message_by_client", "client", "id", "peer"),  # each client's at the end of its own; a peer by its copies
        Index("message_by_resend", "resend_of", sqlite_where=text("resend_of <> ''")),
        Index("message_by_finish", "finished_at", sqlite_where=text("finished_at IS NOT NULL")),
        Index("message_with_body", "state", "finished_at", sqlite_where=text("has_body AND finished_at IS NOT NULL")),
        _one_of("queued", "held", "done", "failed", "corrupt"),
        _CLUSTERED,
    )

    id: str = Field(primary_key=True)
    state: str
    sender: str
    sender_key: str  # keys.key_of, to search by
    message_id: str
    header_from: str
    client: str
    login: str
    listener: str
    peer: str
    pin: str
    ret: str
    envid: str
    smtputf8: bool
    eightbit: bool
    bounce: bool
    delay_notified: bool
    has_body: bool
    size: int
    checksum: int  # seal.intact over envelope and bytes
    received_at: int
    expires_at: int
    finished_at: int | None
    features: str = Field(sa_column_kwargs={"server_default": "?"})  # names of features; "?": nobody has looked
    sealed: bytes | None  # the client's own token, by vault.Vault; gone when the message has ended
    authors: str = Field(sa_column_kwargs={"server_default": "[]"})  # JSON list of From and Sender addresses
    original: str = Field(sa_column_kwargs={"server_default": ""})  # the sender, or author, that was rewritten
    original_key: str = Field(sa_column_kwargs={"server_default": ""})
    how: str = Field(sa_column_kwargs={"server_default": ""})  # JSON: how it came and what was decided, for people
    resend_of: str = Field(sa_column_kwargs={"server_default": ""})  # the message that an operator sent again by this


class Body(SQLModel, table=True):
    """A large one may lie in a segment (segments.Segments); then ``raw`` is empty."""

    __table_args__ = (Index("body_by_segment", "segment", "start", "length", sqlite_where=text("segment > 0")),)

    message_id: str = Field(primary_key=True)
    raw: bytes
    segment: int = Field(sa_column_kwargs={"server_default": text("0")})
    start: int = Field(sa_column_kwargs={"server_default": text("0")})
    length: int = Field(sa_column_kwargs={"server_default": text("0")})


class _Answer(SQLModel):
    """What was last said (model.Outcome); the verdict may also be interrupted or corrupt, or "" for nothing yet."""

    verdict: str
    code: int | None
    enhanced: str
    detail: str
    remote_id: str
    scope: str = Field(sa_column_kwargs={"server_default": ""})
    said_by: str = Field(sa_column_kwargs={"server_default": ""})
    fix: str = Field(sa_column_kwargs={"server_default": ""})


class Recipient(_Answer, table=True):
    """``state`` is queued, sent, failed or held; ``backend`` is the one it waits for or left by."""

    __table_args__ = (Index("recipient_by_key", "key"), _one_of("queued", "held", "sent", "failed"), _CLUSTERED)

    message_id: str = Field(primary_key=True)
    address: str = Field(primary_key=True)
    n: int  # place in the envelope
    key: str  # keys.key_of
    backend: str
    state: str
    notify: str
    orcpt: str
    updated_at: int


class Delivery(SQLModel, table=True):
    """What one message has to do by one backend, the unit of scheduling. ``state`` is queued, held or done.

    An attempt that is under way stands here, and becomes a row of ``attempt`` when it ends. ``delivery_due`` has its
    number, so that a start reads that index alone (and the state, without which SQLite looks up each row);
    ``delivery_astray`` has those of what does not wait any more.
    """

    __table_args__ = (
        Index("delivery_due", "backend", "next_attempt_at", "attempt_id", "state", sqlite_where=_QUEUED),
        Index("delivery_oldest", "backend", "received_at", "message_id", sqlite_where=_QUEUED),
        Index("delivery_held", "backend", "in_doubt", "received_at", "state", sqlite_where=text("state = 'held'")),
        Index("delivery_astray", "attempt_id", sqlite_where=text("attempt_id IS NOT NULL AND state <> 'queued'")),
        _one_of("queued", "held", "done"),
        _CLUSTERED,
    )

    message_id: str = Field(primary_key=True)
    backend: str = Field(primary_key=True)
    n: int  # in which order those of a message came up
    state: str
    next_attempt_at: int
    received_at: int
    attempts: int
    sticky: bool  # an attempt may have been taken by this backend: never fail over
    in_doubt: int  # attempts in a row that ended without an answer
    attempt_id: int | None  # under way: its row is yet to be; the rest is of it, or of the last one
    started_at: int | None
    addresses: str = Field(sa_column_kwargs={"server_default": ""})  # JSON list
    owner: str = Field(sa_column_kwargs={"server_default": ""})  # of several instances, the one that makes it


class Attempt(_Answer, table=True):
    """One try that has ended, or one of its answers where recipients got different ones."""

    __table_args__ = (
        Index("attempt_of_message", "message_id"),
        Index("attempt_by_remote_id", "remote_id", sqlite_where=text("remote_id <> ''")),
    )

    id: int | None = Field(primary_key=True)
    message_id: str
    backend: str
    addresses: str  # JSON list
    started_at: int
    ended_at: int | None
    owner: str = Field(sa_column_kwargs={"server_default": ""})  # of several instances, the one that made it


class Event(SQLModel, table=True):
    """What a provider said of mail after it took it (model.DeliveryEvent). ``source`` is poll, webhook, report or
    trace."""

    __table_args__ = (
        Index("event_once", "message_id", "backend", "remote_id", "address", "key", unique=True),
        _one_of("queued", "delivered", "bounced", "failed"),
    )

    id: int | None = Field(primary_key=True)
    message_id: str
    backend: str
    address: str  # "" is every recipient handed over as remote_id
    remote_id: str
    state: str
    detail: str
    reported_at: int
    key: str
    source: str


class Poll(SQLModel, table=True):
    """What a provider is still to be asked about, and how often it was."""

    __table_args__ = (Index("poll_due", "backend", "next_at"), _CLUSTERED)

    message_id: str = Field(primary_key=True)
    backend: str = Field(primary_key=True)
    remote_id: str = Field(primary_key=True)
    next_at: int
    asked: int


class Bounce(SQLModel, table=True):
    """What the sender of a message was told of it: by the bounce of this id, or why not. See records.Told."""

    __table_args__ = (
        Index("bounce_of_message", "message_id"),
        Index("bounce_for_digest", "id", sqlite_where=text("reason = 'digest'")),
    )

    id: int | None = Field(primary_key=True)
    message_id: str
    kind: str
    bounce_id: str
    reason: str
    made_at: int


class Clock(SQLModel, table=True):
    """One row: what the spool's time and the machine's clock were when it was last looked at."""

    id: int | None = Field(primary_key=True)
    spool_at: int
    wall_at: int


class Step(SQLModel, table=True):
    """The machine's clock was set from ``was_at`` to ``now_at``, after the attempt ``attempt_id``."""

    id: int | None = Field(primary_key=True)
    spool_at: int
    was_at: int
    now_at: int
    attempt_id: int


class Token(SQLModel, table=True):
    """A token that was minted here or revoked by its id; never the token itself."""

    jti: str = Field(primary_key=True)
    key: str
    subject: str
    note: str
    issued_at: int
    expires_at: int | None
    revoked_at: int | None


class Revocation(SQLModel, table=True):
    """All tokens of a subject issued before this time are void."""

    subject: str = Field(primary_key=True)
    before: int
