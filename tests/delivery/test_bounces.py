"""Who is told what of mail that fails, is late or was passed on."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.config.models import RetrySettings
from gateway.delivery.bounces import Bouncer
from gateway.delivery.retry import Decision
from gateway.events import Events
from gateway.model import Capabilities, Envelope, Outcome, Recipient, Verdict
from tests import builders
from tests.builders import GREYLISTED, NO_USER, RAW
from tests.delivery.kit import DEFERRED, REJECTED, house
from tests.fakes import SENT, START, ScriptedBackend, until

ACTIONS = (b"failed", b"relayed")


async def test_a_rejection_bounces_and_fails(tmp_path: Path) -> None:
    """A permanent refusal makes one bounce by the null sender to the sender; the message ends as failed."""
    backend = ScriptedBackend("b", REJECTED, SENT)
    async with house(tmp_path, backend) as at:
        identifier = await at.put("b")
        await at.settled(identifier, "failed")
        await until(lambda: len(backend.calls) == 2)
        bounce, raw = backend.calls[1]
        assert bounce.envelope.sender == ""
        assert [r.address for r in bounce.envelope.recipients] == ["s@x.org"]
        assert b"no such user" in raw


@pytest.mark.parametrize(("sender", "notify"), [("", ""), ("s@x.org", "NEVER"), ("s@x.org", "SUCCESS")])
async def test_nobody_is_told_who_must_not_be(tmp_path: Path, sender: str, notify: str) -> None:
    """No bounce for the null sender, nor where NOTIFY does not ask for failures."""
    backend = ScriptedBackend("b", REJECTED)
    async with house(tmp_path, backend) as at:
        identifier = await at.put("b", sender=sender, notify=notify)
        await at.settled(identifier, "failed")
        assert [row.id for row in await at.spool.find()] == [identifier]


async def test_a_bounce_is_never_bounced(tmp_path: Path) -> None:
    """When the bounce is refused too, it fails alone."""
    backend = ScriptedBackend("b", REJECTED)
    async with house(tmp_path, backend) as at:
        await at.settled(await at.put("b"), "failed")
        await until(lambda: len(backend.calls) == 2)
        await at.settled(backend.calls[1][0].id, "failed")
        assert len(await at.spool.find()) == 2


RELAY = Outcome(Verdict.REJECTED, enhanced="5.7.1", detail="c@x.org: recipient not allowed")


@pytest.mark.parametrize("untold", ["", "sender_denied"])
async def test_who_was_refused_on_the_way_in_is_accounted_for(tmp_path: Path, untold: str) -> None:
    """Nobody listens when a file is picked up: its sender gets a bounce, or the log says why not; others their mail."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend) as at:
        refused, many = {"c@x.org": RELAY}, builders.envelope("a@x.org", "c@x.org")
        message = builders.new_message("a@x.org", ident=at.ids(), envelope=many, refused=refused)
        await at.dispatcher.refuse(message, untold)
        await at.settled(message.id, "failed")
        await until(lambda: len(backend.calls) == 1 + (not untold))
        mail = {call.envelope.sender: (call.envelope.recipients, raw) for call, raw in backend.calls}
        assert mail["s@example.com"][0] == (Recipient("a@x.org"),)
        detail = await at.spool.show(message.id)
        assert detail is not None
        assert [(row.state, row.enhanced, row.detail) for row in detail.recipients] == [
            ("sent", "2.0.0", "ok"),
            ("failed", "5.7.1", "c@x.org: recipient not allowed"),
        ]
        if untold:
            at.events.flush()
            assert '"reason":"sender_denied"' in at.log.getvalue()
        else:
            assert b"Reason: c@x.org: recipient not allowed\r\n" in mail[""][1]


async def test_all_refused_on_the_way_in(tmp_path: Path) -> None:
    """The message is kept as failed, no backend ever sees it, and nothing of it is counted as queued."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend) as at:
        message = builders.new_message("c@x.org", ident=at.ids(), deliveries={}, refused={"c@x.org": RELAY})
        await at.dispatcher.refuse(message)
        assert await at.state(message.id) == "failed"
        await until(lambda: [call.envelope.sender for call, _ in backend.calls] == [""])
        await at.queued("b", 0)
        assert set(at.spool.counts().values()) <= {0}
        assert await at.spool.raw(message.id) == RAW


async def test_success_is_reported_where_asked(tmp_path: Path) -> None:
    """NOTIFY=SUCCESS into a world without DSN gives one relayed report (RFC 3461 5.2.2)."""
    backend = ScriptedBackend("b")
    async with house(tmp_path, backend) as at:
        await at.put("b", notify="SUCCESS,FAILURE")
        await until(lambda: len(backend.calls) == 2)
        assert b"Action: relayed" in backend.calls[1][1]


async def test_the_sender_hears_of_a_delay_once(tmp_path: Path) -> None:
    """After four hours without success one delay notice goes to the sender."""
    slow, other = ScriptedBackend("slow", DEFERRED), ScriptedBackend("other")
    async with house(tmp_path, slow, other, routes=("slow",), bounces={"backend": "other"}) as at:
        await at.put("slow")
        for n in range(1, 11):
            await until(lambda n=n: len(slow.calls) >= n)
            await until(lambda: at.dispatcher.status()["slow"].in_flight == 0)
            at.clock.advance(3700)
        await at.rounds(lambda: other.calls)
        assert len(other.calls) == 1
        assert b"Action: delayed" in other.calls[0][1]
        assert b"Diagnostic-Code: smtp; 451 4.7.1 greylisted" in other.calls[0][1]


def bouncer(ids: Callable[[], str] = lambda: "M2", able: Capabilities | None = None, **sections: Any) -> Bouncer:
    config = builders.settings("b", retry=RetrySettings(), **sections)
    events = Events(CollectorRegistry(), format="json", level="error", stream=io.StringIO())
    return Bouncer(config, builders.routing(config, able and {"b": able}), events, ids, random.Random(1))


def failed(outcome: Outcome = NO_USER) -> Decision:
    return Decision({"a@example.org": "failed"}, {"a@example.org": outcome}, failed=("a@example.org",))


def test_one_mail_for_each_thing_that_happened() -> None:
    """What failed and what was passed on have one mail each (RFC 3464 2.3.3); what waits is for another time."""
    addresses = ("failed@x.org", "late@x.org", "sent@x.org", "next@x.org")
    recipients = tuple(Recipient(address, notify="SUCCESS,FAILURE,DELAY") for address in addresses)
    message = builders.spooled_message(envelope=Envelope("s@example.com", recipients))
    outcomes = dict(zip(addresses, (NO_USER, GREYLISTED, SENT, replace(SENT, dsn=True)), strict=True))
    decision = Decision({}, outcomes, failed=("failed@x.org",), pending=("late@x.org",))
    numbers = itertools.count()
    made = bouncer(lambda: f"M{next(numbers)}").bounces(message, RAW, "b", decision, START)
    assert [b"Action: %b" % action in one.raw for one, action in zip(made.messages, ACTIONS, strict=True)] == [True] * 2
    assert not any(b"next@x.org" in one.raw for one in made.messages)


@pytest.mark.parametrize(
    ("able", "sender", "features"),
    [
        (Capabilities(1_000_000), "", {"report": ""}),
        (Capabilities(1_000_000, null_sender=False), "post@example.com", {}),
        (Capabilities(1_000_000, null_sender=False, senders=("other@example.com",)), None, None),
        (Capabilities(100), None, None),
    ],
)
def test_as_what_it_leaves(able: Capabilities, sender: str | None, features: dict[str, str] | None) -> None:
    """Under the null sender (RFC 5321 4.5.5) where a backend can, else under our own address, else not at all."""
    found = bouncer(able=able, bounces={"from": "post@example.com"}).bounces(
        builders.spooled_message(), RAW, "b", failed(), START
    )
    assert [(one.envelope.sender, one.features, one.bounce) for one in found.messages] == (
        [] if sender is None else [(sender, features, True)]
    )


def test_a_tenant_tells_its_senders_itself() -> None:
    """Under its own address, also where that has to be the envelope's; others hear of theirs as ever."""
    sections = {"bounces": {"from": "post@example.com"}, "clients": {"c": {"token": "c"}, "x": {"token": "x"}}}
    tenants = {"acme": {"clients": ["c"], "bounces": {"from": "post@acme.example"}}}
    made = bouncer(able=Capabilities(1_000_000, null_sender=False), **sections, tenants=tenants)
    for client, author in (("c", "post@acme.example"), ("x", "post@example.com")):
        message = builders.spooled_message(client=client)
        (one,) = made.bounces(message, RAW, "b", failed(), START).messages
        assert (one.envelope.sender, one.header_from, one.authors) == (author, author, (author,))
        assert f"<{author}>".encode() in one.raw.partition(b"\r\n\r\n")[0]


def test_a_copy_for_the_operator() -> None:
    """Bounces go to ``copy_to`` too, once."""
    made = bouncer(bounces={"copy_to": "admin@example.com"}).bounces(
        builders.spooled_message(), RAW, "b", failed(), START
    )
    (one,) = made.messages
    assert [recipient.address for recipient in one.envelope.recipients] == ["s@example.com", "admin@example.com"]
    assert one.deliveries == {"b": ("s@example.com", "admin@example.com")}


def test_root_of_this_machine_is_told_where_he_reads() -> None:
    """A bounce to cron's own sender goes whom he stands for; what was asked for is what it speaks of."""
    local = bouncer(aliases={"root": "admin@example.com"}, bounces={"copy_to": "admin@example.com"})
    lost = builders.spooled_message(sender="root@localhost")
    to = (Recipient("a@example.org", "", "rfc822;team@relay.test"),)
    made = local.bounces(replace(lost, envelope=replace(lost.envelope, recipients=to)), RAW, "b", failed(), START)
    (one,) = made.messages
    assert [recipient.address for recipient in one.envelope.recipients] == ["admin@example.com"]
    text = " ".join(one.raw.decode().split())
    assert "Subject: Undelivered mail: team@relay.test" in text
    assert "could not be delivered to: <team@relay.test> (whose mail goes to <a@example.org>) Reason:" in text
    assert "Original-Recipient: rfc822; team@relay.test Final-Recipient: rfc822; a@example.org" in text


def test_a_bounce_that_cannot_be_made_holds_nothing_up() -> None:
    """What became of the message is written down all the same."""

    def broken() -> str:
        raise RuntimeError("bug")

    made = bouncer(broken).bounces(builders.spooled_message(), RAW, "b", failed(), START)
    assert made.messages == ()


async def test_the_status_of_what_came_too_late(tmp_path: Path) -> None:
    """At the end of the lifetime: 4.4.7 and the last words, with the code of those who said it and no other."""
    backend, other = ScriptedBackend("b", DEFERRED), ScriptedBackend("other")
    async with house(tmp_path, backend, other, routes=("b",), bounces={"backend": "other"}) as at:
        identifier = await at.put("b", expires_at=at.clock.now() + timedelta(seconds=30))
        await at.tried(identifier)
        at.clock.advance(31)
        await at.settled(identifier, "failed")
        await until(lambda: len(other.calls) == 1)
        _, raw = other.calls[0]
        assert b"Status: 4.4.7\r\n" in raw
        assert b"Diagnostic-Code: smtp; 451" in raw
