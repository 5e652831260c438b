"""What is asked of the messages that are kept, and what a list says of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gateway.spool.scope import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which messages: those that meet everything given; without anything, all of them.

    ``state`` is one of filters.STATES. ``backend``: a delivery waits for it or left by it; beside a state of what is
    not finished, a delivery that is not. ``sender``, ``recipient`` and ``address`` (either of them) are addresses,
    domains or patterns, see keys.keys_of; a sender that was rewritten is found by both. ``remote_id`` is a provider's
    name for it, ``verdict`` what was last said to a recipient. ``since`` and ``until`` (not included) are when it was
    accepted, by its id, and ``upto`` is the last id there may be: what came later is not meant. ``untold``: whether
    nobody is told when they are given up, for they are bounces or came with the null sender. ``scope``: only what a
    tenant may see.
    """

    ids: tuple[str, ...] | None = None
    state: str = ""
    backend: str = ""
    client: str = ""
    peer: str = ""
    sender: str = ""
    recipient: str = ""
    address: str = ""
    message_id: str = ""
    remote_id: str = ""
    verdict: str = ""
    since: datetime | None = None
    until: datetime | None = None
    upto: str = ""
    untold: bool | None = None
    scope: Scope | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Which of those that a filter means: at most ``limit``, the newest first or else the ``oldest``.

    ``before`` and ``after`` are ids that are not there any more. The page is always next to the one that is given:
    newest first, those before an id are the next page, and those after it the page in front.
    """

    limit: int = 100
    before: str = ""
    after: str = ""
    oldest: bool = False


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A line of the queue list. ``recipients`` are the first 20 of ``recipient_count``.

    ``detail`` is the last word, with ``verdict``, ``code``, ``enhanced`` and ``said_by`` as in an Outcome, and ``fix``
    what a person has to do about it; ``remote_id`` is how the provider calls the message. ``in_doubt``: it is held
    because no answer came. ``told_by``: the bounce that told the sender that it failed, "" for none. ``resend_of``: the
    message of which this is another copy.
    """

    id: str
    state: str
    sender: str
    recipients: tuple[str, ...]
    recipient_count: int
    backends: tuple[str, ...]
    attempts: int
    next_attempt_at: datetime | None
    detail: str
    fix: str
    size: int
    has_body: bool
    received_at: datetime
    expires_at: datetime
    finished_at: datetime | None
    client: str
    login: str
    listener: str
    peer: str
    message_id: str
    header_from: str
    pin: str
    envid: str
    bounce: bool
    original: str
    resend_of: str
    verdict: str
    code: int | None
    enhanced: str
    said_by: str
    remote_id: str
    sent_count: int
    failed_count: int
    in_doubt: bool
    told_by: str


@dataclass(frozen=True, slots=True)
class Page:
    """``next`` and ``previous`` are the ids to go on from in this order and back, "" for nothing there.

    ``partial``: there may be more of them than are here behind ``next``, where the search stopped.
    """

    messages: tuple[MessageRow, ...]
    next: str
    previous: str
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Total:
    """``more``: there are, or may be, more than were counted."""

    number: int
    more: bool = False
