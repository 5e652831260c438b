"""Reports to senders: which recipients deserve one, as what, and by which backend it leaves."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway import bounce, policy
from gateway.bounce import Failure
from gateway.config.models import Settings
from gateway.events import Events
from gateway.model import CannotCarry, Envelope, NewMessage, Outcome, Recipient, SpooledMessage
from gateway.routing import Routing


@dataclass(frozen=True, slots=True)
class Reporter:
    """Builds bounces, delay notices and relayed reports as new messages; says why when there is none."""

    settings: Settings
    routing: Routing
    events: Events
    ids: Callable[[], str]
    rng: random.Random

    def reports(
        self,
        original: SpooledMessage,
        raw: bytes,
        backend: str,
        by_action: Mapping[str, Mapping[str, Outcome]],
        now: datetime,
    ) -> tuple[NewMessage, ...]:
        """One report for each action (failed, delayed, relayed) that a recipient's NOTIFY asks for (RFC 3461 4.1)."""
        found = []
        for action, outcomes in by_action.items():
            failures = [
                Failure(recipient, outcomes[recipient.address], backend, action)
                for recipient in original.envelope.recipients
                if recipient.address in outcomes and wanted(recipient, action)
            ]
            if failures and (report := self._build(original, raw, failures, now)):
                self.events.bounced(original, report.id, action)
                found.append(report)
        return tuple(found)

    def _build(
        self, original: SpooledMessage, raw: bytes, failures: Sequence[Failure], now: datetime
    ) -> NewMessage | None:
        bounces = self.settings.bounces
        if original.bounce or not original.envelope.sender or bounces.mode == "off":
            # Never a bounce of a bounce (RFC 5321 6.1).
            self.events.bounce_suppressed(original, "off" if bounces.mode == "off" else "null_sender")
            return None
        utf8 = original.envelope.smtputf8
        targets = tuple(dict.fromkeys(filter(None, (original.envelope.sender, bounces.copy_to))))
        size = min(len(raw), 50_000) + 20_000
        for sender in policy.bounce_senders(bounces):
            freight = policy.bounce_freight(bounces, self.settings.hostname, sender, size, smtputf8=utf8)
            try:
                deliveries = self.routing.deliveries(freight, targets)
            except CannotCarry:
                continue
            identifier = self.ids()
            header_from = policy.bounce_author(bounces, self.settings.hostname)
            report = bounce.build(
                hostname=self.settings.hostname,
                sender=header_from,
                message=original,
                original=raw,
                failures=failures,
                now=now,
                message_id=f"<{identifier}@{self.settings.hostname}>",
                boundary=f"={identifier}-{self.rng.getrandbits(64):016x}",
                retry_until=original.expires_at if failures[0].action == "delayed" else None,
                plain=bool(sender),
            )
            return NewMessage(
                id=identifier,
                envelope=Envelope(sender, tuple(Recipient(target) for target in targets), smtputf8=utf8, eightbit=True),
                raw=report,
                deliveries=deliveries,
                received_at=now,
                expires_at=now + self.settings.retry.lifetime,
                client=policy.BOUNCES,
                message_id=f"<{identifier}@{self.settings.hostname}>",
                header_from=header_from,
                authors=(header_from,),
                pin=bounces.backend or "",
                bounce=True,
                features=freight.features,
            )
        self.events.bounce_suppressed(original, "no_backend")
        return None


def wanted(recipient: Recipient, action: str) -> bool:
    """Does NOTIFY ask for this report? Absent means failures and delays (RFC 3461 4.1)."""
    asked = {word.strip().upper() for word in recipient.notify.split(",")} if recipient.notify else {"FAILURE", "DELAY"}
    return {"failed": "FAILURE", "delayed": "DELAY", "relayed": "SUCCESS"}[action] in asked
