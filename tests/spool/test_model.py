"""The spool against a model of it: whatever is done in whatever order, both say the same."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.model import Outcome, Verdict
from gateway.spool import Claim, Filter
from tests.builders import IN_DOUBT, SENT
from tests.fakes import FakeClock
from tests.spool_kit import DEFERRED, LEASE, REJECTED, At, blank, of, opened, settlement

T = TypeVar("T")
BACKENDS = ("a", "b")
MINUTE = timedelta(minutes=1)
ANSWERS = st.sampled_from(
    [(SENT, "sent"), (REJECTED, "failed"), (DEFERRED, "queued"), (IN_DOUBT, "queued"), (IN_DOUBT, "held")]
)


@dataclass
class Delivery:
    due: datetime
    attempts: int = 0
    sticky: bool = False
    claim: Claim | None = None


@dataclass
class Mail:
    """Recipients as address -> [backend, state], and a delivery for each backend it was ever in."""

    recipients: dict[str, list[str]]
    deliveries: dict[str, Delivery] = field(default_factory=dict)

    def waiting(self, backend: str) -> set[str]:
        return {address for address, (where, state) in self.recipients.items() if (where, state) == (backend, "queued")}

    def delivery_state(self, backend: str) -> str:
        states = {state for where, state in self.recipients.values() if where == backend}
        return next((state for state in ("queued", "held") if state in states), "done")

    def state(self) -> str:
        states = {state for _, state in self.recipients.values()}
        return next((state for state in ("queued", "held", "failed") if state in states), "done")


class SpoolMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(prefix="spool-"))
        self.mails: dict[str, Mail] = {}
        self.stale: list[Claim] = []
        self.clock = FakeClock()
        self.number = self.deleted = 0
        self.at: At
        self.run(self.open())

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def open(self) -> None:
        self.stack = AsyncExitStack()
        self.at = await self.stack.enter_async_context(opened(blank(self.directory), clock=self.clock))

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.run(self.stack.aclose())
            self.runner.close()
            shutil.rmtree(self.directory)

    def busy(self) -> list[tuple[str, Mail, str, Delivery]]:
        deliveries = [
            (ident, mail, backend, delivery)
            for ident, mail in self.mails.items()
            for backend, delivery in mail.deliveries.items()
        ]
        return [each for each in deliveries if each[3].claim is not None]

    @rule(backends=st.lists(st.sampled_from(BACKENDS), min_size=1, max_size=3))
    def put(self, backends: list[str]) -> None:
        self.number += 1
        ident = f"M{self.number:03d}"
        addresses = [f"{n}.{ident}@x.org" for n in range(len(backends))]
        where = {
            backend: tuple(a for a, chosen in zip(addresses, backends, strict=True) if chosen == backend)
            for backend in backends
        }
        self.run(self.at.put(*addresses, ident=ident, deliveries=where, received_at=self.now))
        recipients = {address: [backend, "queued"] for address, backend in zip(addresses, backends, strict=True)}
        self.mails[ident] = Mail(recipients, {backend: Delivery(self.now) for backend in where})

    @rule(backend=st.sampled_from(BACKENDS), limit=st.integers(1, 3))
    def claim(self, backend: str, limit: int) -> None:
        claims = self.run(self.at.claim(backend, now=self.now, limit=limit))
        due = {
            ident: mail.deliveries[backend].due
            for ident, mail in self.mails.items()
            if backend in mail.deliveries
            and mail.delivery_state(backend) == "queued"
            and mail.deliveries[backend].due <= self.now
        }
        assert len(claims) == min(limit, len(due))
        latest = max((due[claim.message.id] for claim in claims), default=self.now)
        assert all(when >= latest for ident, when in due.items() if ident not in {c.message.id for c in claims})
        for claim in claims:
            mail = self.mails[claim.message.id]
            delivery = mail.deliveries[backend]
            if delivery.claim is not None:
                self.stale.append(delivery.claim)
                delivery.sticky = True
            delivery.due, delivery.attempts, delivery.claim = self.now + LEASE, delivery.attempts + 1, claim
            assert {r.address for r in claim.message.envelope.recipients} == mail.waiting(backend)
            assert (claim.message.attempt, claim.sticky) == (delivery.attempts, delivery.sticky)

    @rule(data=st.data(), elsewhere=st.booleans(), counted=st.booleans(), again=st.integers(0, 2))
    def settle(self, data: st.DataObject, elsewhere: bool, counted: bool, again: int) -> None:
        if not (busy := self.busy()):
            return
        _, mail, backend, delivery = data.draw(st.sampled_from(busy))
        claim, delivery.claim = delivery.claim, None
        assert claim is not None
        answers = {r.address: data.draw(ANSWERS) for r in claim.message.envelope.recipients}
        doubt = any(outcome.verdict is Verdict.IN_DOUBT for outcome, _ in answers.values())
        target = ("b" if backend == "a" else "a") if elsewhere and not doubt else backend
        due = self.now + again * MINUTE
        self.conclude(claim, answers, target, due, counted)
        delivery.due, delivery.attempts = due, delivery.attempts - (not counted)
        delivery.sticky = delivery.sticky or doubt
        for address, (_, state) in answers.items():
            mail.recipients[address][1] = self.outcome(mail.recipients[address][1], state)
        if target != backend:
            there = mail.deliveries.get(target)
            if there is None:
                mail.deliveries[target] = Delivery(due, delivery.attempts, delivery.sticky)
            else:
                there.sticky = there.sticky or delivery.sticky
                if there.claim is None:
                    there.due = min(there.due, due) if mail.delivery_state(target) == "queued" else due
            for address in mail.waiting(backend):
                mail.recipients[address][0] = target

    @staticmethod
    def outcome(before: str, after: str) -> str:
        if before == "sent" or after == "queued":
            return before
        return before if after == "held" and before != "queued" else after

    def conclude(
        self, claim: Claim, answers: dict[str, tuple[Outcome, str]], backend: str, due: datetime, counted: bool
    ) -> None:
        outcomes = {address: outcome for address, (outcome, _) in answers.items()}
        states = {address: state for address, (_, state) in answers.items()}
        then = {"backend": backend, "next_attempt_at": due, "ended_at": self.now, "count_attempt": counted}
        self.run(self.at.spool.settle(settlement(claim, outcomes, states=states, **then)))

    @rule(data=st.data())
    def settle_late(self, data: st.DataObject) -> None:
        """A send that outlived its lease, or its message: only what was sent counts."""
        if not self.stale:
            return
        claim = self.stale.pop(data.draw(st.integers(0, len(self.stale) - 1)))
        answers = {r.address: data.draw(ANSWERS) for r in claim.message.envelope.recipients}
        self.conclude(claim, answers, claim.backend, self.now, counted=True)
        if mail := self.mails.get(claim.message.id):
            for address, (_, state) in answers.items():
                if state == "sent":
                    mail.recipients[address][1] = "sent"

    @rule(data=st.data())
    def release_claims(self, data: st.DataObject) -> None:
        if not (busy := self.busy()):
            return
        _, _, _, delivery = data.draw(st.sampled_from(busy))
        claim, delivery.claim = delivery.claim, None
        assert claim is not None
        self.run(self.at.spool.release_claims([claim]))
        delivery.attempts, delivery.due = delivery.attempts - 1, self.now

    @rule(data=st.data(), action=st.sampled_from(["hold", "release", "retry", "delete"]))
    def operate(self, data: st.DataObject, action: str) -> None:
        ids = data.draw(st.lists(st.sampled_from(sorted(self.mails)), unique=True)) if self.mails else []
        changed = []
        for ident in ids:
            mail = self.mails[ident]
            before = str(mail)
            if action == "delete":
                self.deleted += mail.state() in ("queued", "held")
                self.stale += [
                    delivery.claim for delivery in self.mails.pop(ident).deliveries.values() if delivery.claim
                ]
                changed.append(ident)
                continue
            resting = {backend: delivery for backend, delivery in mail.deliveries.items() if delivery.claim is None}
            if action == "retry":
                hurried = [
                    delivery for backend, delivery in resting.items() if mail.delivery_state(backend) == "queued"
                ]
                for delivery in hurried:
                    delivery.due = min(delivery.due, self.now)
                changed += [ident] if hurried else []
                continue
            source, target = ("queued", "held") if action == "hold" else ("held", "queued")
            for backend, delivery in resting.items():
                if action == "release" and mail.delivery_state(backend) == "held":
                    delivery.due = self.now
            for recipient in mail.recipients.values():
                recipient[1] = target if recipient[1] == source else recipient[1]
            changed += [ident] if str(mail) != before else []
        found: list[str] = []
        number = self.run(getattr(self.at.spool, action)(of(*ids, "unknown"), self.now, found.extend))
        assert (number, sorted(found)) == (len(changed), sorted(changed))

    @rule(minutes=st.integers(1, 6))
    def wait(self, minutes: int) -> None:
        self.clock.advance(60 * minutes)

    @rule()
    def reopen(self) -> None:
        """Claims not settled are interrupted, and due again."""
        self.run(self.stack.aclose())
        self.run(self.open())
        for _, _, _, delivery in self.busy():
            assert delivery.claim is not None
            delivery.due, delivery.sticky = self.now + delivery.claim.in_doubt * MINUTE, True
            self.stale.append(delivery.claim)
            delivery.claim = None

    @invariant()
    def both_say_the_same(self) -> None:
        if not hasattr(self, "at"):
            return
        for ident, mail in self.mails.items():
            state, recipients, deliveries = self.run(self.at.states(ident))
            assert recipients == {address: where[1] for address, where in mail.recipients.items()}
            assert deliveries == {backend: mail.delivery_state(backend) for backend in mail.deliveries}
            assert state == mail.state()
        counted = Counter(
            (backend, mail.delivery_state(backend)) for mail in self.mails.values() for backend in mail.deliveries
        )
        assert self.at.spool.counts() == {key: n for key, n in counted.items() if key[1] != "done"}
        queued = Counter(mail.state() for mail in self.mails.values())
        flow = self.run(self.at.spool.flow(self.now, 24, timedelta(hours=1)))
        assert flow.before == 0  # what came in is what went out and what waits, at any moment
        assert (flow.total.accepted, flow.total.deleted) == (self.number, self.deleted)
        assert flow.waiting == {state: queued[state] for state in ("queued", "held", "corrupt")}
        assert len(self.run(self.at.spool.find(Filter(state="queued")))) == queued["queued"]


SpoolMachine.TestCase.settings = settings(
    max_examples=10,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestSpoolMachine = SpoolMachine.TestCase
