"""Mail to senders about theirs: who deserves a bounce, a delay notice or a success report, and how it leaves."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway import policy
from gateway.bounce import ORIGINAL_LIMIT, Failure, Report
from gateway.config.models import Settings
from gateway.delivery.retry import Decision
from gateway.events import Events
from gateway.model import CannotCarry, Envelope, NewMessage, Recipient, SpooledMessage, Verdict
from gateway.routing import Freight, Routing
from gateway.spool import Told

_ASKED_AS = {"failed": "FAILURE", "delayed": "DELAY", "relayed": "SUCCESS"}  # in NOTIFY (RFC 3461 4.1)
_DEFAULT = {"FAILURE", "DELAY"}
_OVERHEAD = 20_000


@dataclass(frozen=True, slots=True)
class Bounces:
    """By what is to be reported of a message: one of ours that says it, or why there is none.

    ``delayed``: its delay has been dealt with and is not to be noticed again.
    """

    by_action: Mapping[str, NewMessage | str]
    delayed: bool

    @property
    def messages(self) -> tuple[NewMessage, ...]:
        return tuple(one for one in self.by_action.values() if isinstance(one, NewMessage))

    @property
    def told(self) -> tuple[Told, ...]:
        """As the spool keeps it beside the message."""
        made = self.by_action.items()
        return tuple(
            Told(kind, one.id) if isinstance(one, NewMessage) else Told(kind, reason=one) for kind, one in made
        )


@dataclass(frozen=True, slots=True)
class Bouncer:
    """Builds bounces, delay notices and relayed reports as new messages."""

    settings: Settings
    routing: Routing
    events: Events
    ids: Callable[[], str]
    rng: random.Random

    def bounces(
        self, original: SpooledMessage, raw: bytes, backend: str, decision: Decision, now: datetime, spool_now: datetime
    ) -> Bounces:
        """What failed, what is late for the first time, and what was passed on without confirmation, one mail each.

        ``now`` is what the machine's clock shows; by ``spool_now`` mail grows old.
        Never raises: without a settlement what was sent would be sent again.
        """
        late = bool(decision.pending) and self._is_late(original, spool_now)
        by_action = {
            "failed": {address: decision.outcomes[address] for address in decision.failed},
            "delayed": {address: decision.outcomes[address] for address in decision.pending if late},
            # RFC 3461 5.2.2: who takes over the request confirms the rest himself.
            "relayed": {a: o for a, o in decision.outcomes.items() if o.verdict is Verdict.SENT and not o.dsn},
        }
        made: dict[str, NewMessage | str] = {}
        try:
            for action, outcomes in by_action.items():
                failures = [
                    Failure(recipient, outcomes[recipient.address], backend, action)
                    for recipient in original.envelope.recipients
                    if recipient.address in outcomes and _asks_for(recipient, action)
                ]
                if failures:
                    made[action] = self._build(original, raw, failures, now, original.expires_at + (now - spool_now))
        except Exception as error:
            self.events.bug("bounces", error)
        return Bounces(made, late)

    def tell(self, original: SpooledMessage, bounces: Bounces) -> None:
        """What has become of reporting, for the log: once it is on disk."""
        for action, made in bounces.by_action.items():
            if isinstance(made, NewMessage):
                self.events.bounced(original, made.id, action)
            else:
                self.events.bounce_suppressed(original, made)

    def _is_late(self, original: SpooledMessage, now: datetime) -> bool:
        notice = self.settings.retry.delay_notice
        return timedelta(0) < notice <= now - original.queued_at and not original.delay_notified

    def _build(
        self, original: SpooledMessage, raw: bytes, failures: Sequence[Failure], now: datetime, end: datetime
    ) -> NewMessage | str:
        bounces = self.settings.bounces
        if original.bounce or not original.envelope.sender or bounces.mode == "off":
            # Never a bounce of a bounce (RFC 5321 6.1).
            return "off" if bounces.mode == "off" else "null_sender"
        targets = tuple(dict.fromkeys(filter(None, (original.envelope.sender, bounces.copy_to))))
        found = self._way(targets, min(len(raw), ORIGINAL_LIMIT) + _OVERHEAD, smtputf8=original.envelope.smtputf8)
        if found is None:
            return "no_backend"
        freight, deliveries = found
        identifier, hostname = self.ids(), self.settings.hostname
        header_from = policy.bounce_author(bounces, hostname)
        content = Report(
            hostname=hostname,
            sender=header_from,
            message=original,
            original=raw,
            failures=failures,
            now=now,
            message_id=f"<{identifier}@{hostname}>",
            boundary=f"={identifier}-{self.rng.getrandbits(64):016x}",
            retry_until=end if failures[0].action == "delayed" else None,
            plain=bool(freight.sender),
        ).build()
        recipients = tuple(Recipient(target) for target in targets)
        return NewMessage(
            id=identifier,
            envelope=Envelope(freight.sender, recipients, smtputf8=freight.smtputf8, eightbit=True),
            raw=content,
            deliveries=deliveries,
            received_at=now,
            expires_at=now + self.settings.retry.lifetime,
            client=freight.client,
            message_id=f"<{identifier}@{hostname}>",
            header_from=header_from,
            authors=freight.authors,
            pin=freight.pin,
            bounce=True,
            features=freight.features,
        )

    def _way(
        self, targets: Sequence[str], size: int, *, smtputf8: bool
    ) -> tuple[Freight, Mapping[str, tuple[str, ...]]] | None:
        """As what it leaves and by whom: under the null sender where a backend can, else under our own address."""
        bounces, hostname = self.settings.bounces, self.settings.hostname
        for sender in policy.bounce_senders(bounces):
            freight = policy.bounce_freight(bounces, hostname, sender, size, smtputf8=smtputf8)
            with suppress(CannotCarry):
                return freight, self.routing.deliveries(freight, targets)
        return None


def _asks_for(recipient: Recipient, action: str) -> bool:
    """Absent, NOTIFY means failures and delays (RFC 3461 4.1)."""
    asked = {word.strip().upper() for word in recipient.notify.split(",")} if recipient.notify else _DEFAULT
    return _ASKED_AS[action] in asked
