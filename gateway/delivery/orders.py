"""What a worker goes by: where mail may go, how long to wait, what senders hear. Made at start and at each reload."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime

from gateway.config.models import RetrySettings
from gateway.delivery.bounces import Bouncer, Bounces
from gateway.delivery.breaker import CircuitBreaker, State
from gateway.delivery.retry import Decision
from gateway.model import Message, NewMessage, Outcome, Scope, SpooledMessage, Verdict
from gateway.routing import Freight, Routing
from gateway.spool import Claim, Delivery, Settlement, Spool

_DONE = (Verdict.SENT, Verdict.REJECTED)


@dataclass(frozen=True, slots=True)
class Orders:
    """Swapped as a whole; ``breakers`` are those of the backends that have a worker now, a view of what is."""

    routing: Routing
    retry: RetrySettings
    bouncer: Bouncer
    breakers: Mapping[str, CircuitBreaker]
    rng: random.Random

    def ways(self, message: SpooledMessage, recipients: Sequence[str] | None = None) -> tuple[str, ...]:
        """Backends, in failover order, that may carry it for all of these (default: all of its) recipients.

        Of bounces the settings of now decide, not those of when they were written.
        """
        if recipients is None:
            recipients = [recipient.address for recipient in message.envelope.recipients]
        freight = Freight.of(message)
        if message.bounce:
            freight = replace(freight, pin=self.bouncer.settings.bounces.backend or "")
        return self.routing.ways(freight, recipients)

    def free(self, backend: str, now: float) -> bool:
        """Whether it has a worker and does not rest; ``now`` in monotonic seconds."""
        breaker = self.breakers.get(backend)
        return breaker is not None and not breaker.is_open(now)

    def elsewhere(self, delivery: Delivery, now: float) -> str:
        """Who may take what waits for a backend that rests, "" for nobody; what may have been taken stays."""
        ways = () if delivery.sticky else self.ways(delivery.message)
        return next((name for name in ways if name != delivery.backend and self.free(name, now)), "")

    def next_way(self, claim: Claim, outcomes: Mapping[str, Outcome], now: float) -> tuple[str, str]:
        """Whom what is left after an attempt waits for, and who may take it at once instead, "" for nobody.

        Failover tries those that come later in the route. What waits for its own sake waits for one that works: from
        one that rests it would be taken elsewhere before its time.
        """
        if claim.sticky or any(outcome.verdict is Verdict.IN_DOUBT for outcome in outcomes.values()):
            return claim.backend, ""
        left = [address for address, outcome in outcomes.items() if outcome.verdict not in _DONE]
        if not left:
            return claim.backend, ""
        ways = self.ways(claim.message, left)
        later = ways[ways.index(claim.backend) + 1 :] if claim.backend in ways else ways
        works = [name for name in ways if name in self.breakers and self.breakers[name].state(now) is State.CLOSED]
        return [*works, *ways, claim.backend][0], next((name for name in later if self.free(name, now)), "")

    def untried(self, backend: str, now: float) -> Outcome:
        """Why what waits for it has not been tried, for the sender; ``now`` in monotonic seconds."""
        breaker = self.breakers.get(backend)
        if breaker is None:
            return _untried("4.3.5", "its backend is not configured any more")
        if breaker.state(now) is not State.CLOSED:
            return replace(_untried("4.3.2", f"the backend rests: {breaker.reason}"), fix=breaker.fix)
        return _untried("4.4.5", "other mail goes first")

    async def settle(
        self,
        spool: Spool,
        claim: Claim,
        raw: bytes,
        decision: Decision,
        now: datetime,
        *,
        started_at: datetime | None = None,
        poll_at: datetime | None = None,
        written: Collection[str] = (),
    ) -> bool:
        """Write down a decision with the mail its senders get: the same after a try and on giving up.

        Whether the sender is told of what failed.

        ``now`` and ``started_at`` are what the machine's clock shows, ``poll_at`` is of the spool's time. Of those
        ``written`` the spool knows already. Raises SpoolTrouble, and then nothing is said of that mail.
        """
        tried_at = None if started_at is None else now
        bounces = self.bouncer.bounces(claim.message, raw, claim.backend, decision, now, tried_at=tried_at)
        settlement = Settlement(
            claim=claim,
            ended_at=now,
            outcomes={address: one for address, one in decision.outcomes.items() if address not in written},
            states={address: state for address, state in decision.states.items() if address not in written},
            next_attempt_at=decision.next_attempt_at,
            backend=decision.backend or claim.backend,
            bounces=bounces.messages,
            told=bounces.told,
            count_attempt=decision.count_attempt,
            started_at=started_at,
            poll_at=poll_at,
        )
        await spool.settle(settlement)
        self.bouncer.tell(claim.message, bounces)
        return bounces.heard

    async def refuse(self, spool: Spool, message: NewMessage, now: datetime, *, untold: str) -> None:
        """Keep a message that came without a client who could hear who of its recipients is refused, or all of them.

        Its sender gets a bounce with it, unless ``untold`` says why not. Raises SpoolTrouble.
        """
        same = {each.name: getattr(message, each.name) for each in fields(Message)}
        everyone = tuple(recipient.address for recipient in message.envelope.recipients)
        original = SpooledMessage(**same, queued_at=spool.now(), size=len(message.raw), everyone=everyone)
        decision = Decision(dict.fromkeys(message.refused, "failed"), message.refused, failed=tuple(message.refused))
        bounces = Bounces({"failed": untold})
        if not untold:
            bounces = self.bouncer.bounces(original, message.raw, "", decision, now)
        await spool.put(message, *bounces.messages, told=bounces.told)
        self.bouncer.tell(original, bounces)


def _untried(enhanced: str, why: str) -> Outcome:
    """By RFC 3463 3.4 and 3.5."""
    return Outcome(Verdict.DEFERRED, enhanced=enhanced, detail=f"not tried yet: {why}", scope=Scope.BACKEND)
