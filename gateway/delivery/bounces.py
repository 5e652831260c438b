"""Mail to senders about theirs: who deserves a bounce, a delay notice or a success report, and how it leaves."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from email.message import EmailMessage
from typing import cast

from gateway import policy
from gateway.bounce import ORIGINAL_LIMIT, Failure, Report
from gateway.config.aliases import Aliases
from gateway.config.checks import given_aliases
from gateway.config.models import Settings
from gateway.config.tenants import tenant_of
from gateway.delivery.retry import Decision
from gateway.events import Events
from gateway.model import CannotCarry, Envelope, NewMessage, Outcome, Recipient, SaidBy, SpooledMessage, Verdict
from gateway.routing import Freight, Routing
from gateway.spool import Late, RecipientRow, Told

_ASKED_AS = {"failed": "FAILURE", "delayed": "DELAY", "relayed": "SUCCESS"}  # in NOTIFY (RFC 3461 4.1)
_DEFAULT = {"FAILURE", "DELAY"}
_VERDICTS = {verdict.value: verdict for verdict in Verdict}
_OVERHEAD = 20_000
_LETTER = 200_000  # octets: no digest is longer
DIGEST = "digest"  # in the place of a bounce: the sender hears of it together with other mail of his (digests.py)


@dataclass(frozen=True, slots=True)
class Bounces:
    """By what is to be reported of a message: one of ours that says it, or why there is none."""

    by_action: Mapping[str, NewMessage | str]

    @property
    def heard(self) -> bool:
        """Whether the sender is told of what failed, now or in a digest."""
        failed = self.by_action.get("failed")
        return isinstance(failed, NewMessage) or failed == DIGEST

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
    """Builds bounces, delay notices and relayed reports as new messages.

    ``works`` says of a backend whether it sends now: where it need not, no report waits behind the mail it is about.
    """

    settings: Settings
    routing: Routing
    events: Events
    ids: Callable[[], str]
    rng: random.Random
    works: Callable[[str], bool] = lambda name: True

    def bounces(
        self,
        original: SpooledMessage,
        raw: bytes,
        backend: str,
        decision: Decision,
        now: datetime,
        *,
        tried_at: datetime | None = None,
    ) -> Bounces:
        """What failed and what was passed on without confirmation, one mail each.

        ``now`` is what the machine's clock shows. ``tried_at`` is None where this was not decided after a try.
        Never raises: without a settlement what was sent would be sent again.
        """
        by_action = {
            "failed": {address: decision.outcomes[address] for address in decision.failed},
            # RFC 3461 5.2.2: who takes over the request confirms the rest himself.
            "relayed": {a: o for a, o in decision.outcomes.items() if o.verdict is Verdict.SENT and not o.dsn},
        }
        made: dict[str, NewMessage | str] = {}
        try:
            for action, outcomes in by_action.items():
                failures = [
                    Failure(recipient, outcomes[recipient.address], backend, action, tried_at)
                    for recipient in original.envelope.recipients
                    if recipient.address in outcomes and wants(recipient, action)
                ]
                if failures:
                    made[action] = self._build(original, raw, failures, now)
        except Exception as error:
            self.events.bug("bounces", error)
        return Bounces(made)

    def asks(self, late: Late) -> bool:
        """Whether a notice of its delay is to be written, for which the message has to be read."""
        return not self._silent(late.message) and any(True for _ in _late_recipients(late))

    def delayed(
        self, late: Late, raw: bytes, untried: Callable[[str], Outcome], now: datetime, spool_now: datetime
    ) -> Bounces:
        """One mail about all that waits of a message. ``untried`` says why a backend has not tried.

        ``now`` is what the machine's clock shows; by ``spool_now`` mail grows old. Never raises.
        """
        made: dict[str, NewMessage | str] = {}
        try:
            failures = [
                Failure(recipient, last or untried(backend), backend, "delayed", tried_at if last else None)
                for recipient, backend, last, tried_at in _late_recipients(late)
            ]
            if failures:
                end = late.message.expires_at + (now - spool_now)
                made["delayed"] = self._build(late.message, raw, failures, now, end)
        except Exception as error:
            self.events.bug("bounces", error)
        return Bounces(made)

    def returned(
        self, original: SpooledMessage, header: bytes, failures: Sequence[Failure], now: datetime, untold: str
    ) -> Bounces:
        """Of mail that came back after a backend had handed it over: at once, whatever is kept for a digest.

        ``header`` is what is left of the original; ``untold`` why its sender is not told, or "". Never raises.
        """
        made: dict[str, NewMessage | str] = {}
        try:
            if wanted := [failure for failure in failures if wants(failure.recipient, "failed")]:
                of = replace(original, envelope=replace(original.envelope, ret="HDRS"))
                why = self._silent(original) or untold
                made["failed"] = why or self._build(of, header, wanted, now, at_once=True)
        except Exception as error:
            self.events.bug("bounces", error)
        return Bounces(made)

    def tell(self, original: SpooledMessage, bounces: Bounces) -> None:
        """What has become of reporting, for the log: once it is on disk."""
        for action, made in bounces.by_action.items():
            if isinstance(made, NewMessage):
                self.events.bounced(original, made.id, action)
            elif made != DIGEST:
                self.events.bounce_suppressed(original, made)

    def _silent(self, original: SpooledMessage) -> str:
        """Why its sender hears nothing, "" where he does. Never a bounce of a bounce (RFC 5321 6.1)."""
        if self.settings.bounces.mode == "off":
            return "off"
        return "null_sender" if original.bounce or not original.envelope.sender else ""

    def _build(
        self,
        original: SpooledMessage,
        raw: bytes,
        failures: Sequence[Failure],
        now: datetime,
        retry_until: datetime | None = None,
        *,
        at_once: bool = False,
    ) -> NewMessage | str:
        bounces = self.settings.bounces
        if why := self._silent(original):
            return why
        if bounces.mode == "digest" and not at_once and failures[0].action != "relayed":
            return DIGEST
        return self._of(original.client)._report(original, raw, failures, now, retry_until)

    def _of(self, client: str) -> Bouncer:
        """Who tells senders of this client: its tenant has an address of its own for that, or not."""
        settings = self.settings
        tenant = tenant_of(settings, "clients", client)
        own = settings.tenants[tenant].bounces.sender if tenant else None
        bounces = settings.bounces.model_copy(update={"sender": own}) if own else settings.bounces
        return replace(self, settings=settings.model_copy(update={"bounces": bounces})) if own else self

    def _report(
        self,
        original: SpooledMessage,
        raw: bytes,
        failures: Sequence[Failure],
        now: datetime,
        retry_until: datetime | None,
    ) -> NewMessage | str:
        bounces, targets = self.settings.bounces, self._targets(original.envelope.sender)
        found = self._way(targets, min(len(raw), ORIGINAL_LIMIT) + _OVERHEAD, smtputf8=original.envelope.smtputf8)
        if found is None:
            return "no_backend"
        freight, deliveries = found
        identifier, hostname = self.ids(), self.settings.hostname
        content = Report(
            hostname=hostname,
            sender=policy.bounce_author(bounces, hostname),
            message=original,
            original=raw,
            failures=failures,
            now=now,
            message_id=f"<{identifier}@{hostname}>",
            boundary=f"={identifier}-{self.rng.getrandbits(64):016x}",
            retry_until=retry_until,
            plain=bool(freight.sender),
        ).build()
        how = {"of": original.id, "kind": failures[0].action}
        return self._message(identifier, targets, content, freight, deliveries, now, how)

    def letter(self, sender: str, write: Callable[[str, str], EmailMessage], now: datetime) -> NewMessage | None:
        """Plain mail of ours to a sender about his, never bounced itself; None where no backend can carry it.

        ``write`` is given who stands in From, and the queue id.
        """
        bounces = self.settings.bounces
        targets = self._targets(sender)
        utf8 = not all(map(str.isascii, targets))
        found = None if bounces.mode == "off" else self._way(targets, _LETTER, smtputf8=utf8, plain=True)
        if found is None:
            return None
        freight, deliveries = found
        identifier = self.ids()
        mail = write(policy.bounce_author(bounces, self.settings.hostname), identifier)
        mail["To"], mail["Date"] = ", ".join(f"<{target}>" for target in targets), now
        return self._message(identifier, targets, mail.as_bytes(), freight, deliveries, now, {"kind": DIGEST})

    def _targets(self, sender: str) -> tuple[str, ...]:
        """Who hears of it. A sender may be root of this machine, who is somebody else: then that one does."""
        settings = self.settings
        aliases = Aliases.of(given_aliases(settings)) if settings.aliases else None
        whom = (aliases.becomes(sender) if aliases is not None else ()) or (sender,)
        return tuple(dict.fromkeys(filter(None, (*whom, settings.bounces.copy_to))))

    def _message(
        self,
        identifier: str,
        targets: Sequence[str],
        content: bytes,
        freight: Freight,
        deliveries: Mapping[str, tuple[str, ...]],
        now: datetime,
        how: Mapping[str, str],
    ) -> NewMessage:
        hostname, recipients = self.settings.hostname, tuple(Recipient(target) for target in targets)
        return NewMessage(
            id=identifier,
            envelope=Envelope(freight.sender, recipients, smtputf8=freight.smtputf8, eightbit=True),
            raw=content,
            deliveries=deliveries,
            received_at=now,
            expires_at=now + self.settings.retry.lifetime,
            client=freight.client,
            message_id=f"<{identifier}@{hostname}>",
            header_from=policy.bounce_author(self.settings.bounces, hostname),
            authors=freight.authors,
            pin=freight.pin,
            bounce=True,
            how=json.dumps(how),
            features=freight.features,
        )

    def _way(
        self, targets: Sequence[str], size: int, *, smtputf8: bool, plain: bool = False
    ) -> tuple[Freight, Mapping[str, tuple[str, ...]]] | None:
        """As what it leaves and by whom: under the null sender where a backend can, else under our own address."""
        bounces, hostname = self.settings.bounces, self.settings.hostname
        for sender in policy.bounce_senders(bounces):
            freight = policy.bounce_freight(bounces, hostname, sender, size, smtputf8=smtputf8)
            freight = replace(freight, features={}) if plain else freight
            with suppress(CannotCarry):
                return freight, self.routing.deliveries(freight, targets, self.works)
        return None


def _late_recipients(late: Late) -> Iterator[tuple[Recipient, str, Outcome | None, datetime]]:
    """Who of them is to be told of, by which backend he waits, what was said last and when; None for nothing."""
    for delivery in late.deliveries:
        for recipient in delivery.message.envelope.recipients:
            if (said := late.said.get(recipient.address)) and wants(recipient, "delayed"):
                yield recipient, delivery.backend, _last(said), said.updated_at


def _last(said: RecipientRow) -> Outcome | None:
    if said.verdict not in _VERDICTS:
        return None
    by = cast("SaidBy", said.said_by or "gateway")
    return Outcome(_VERDICTS[said.verdict], said.code, said.enhanced, said.detail, said_by=by, fix=said.fix)


def wants(recipient: Recipient, action: str) -> bool:
    """Absent, NOTIFY means failures and delays (RFC 3461 4.1)."""
    asked = {word.strip().upper() for word in recipient.notify.split(",")} if recipient.notify else _DEFAULT
    return _ASKED_AS[action] in asked
