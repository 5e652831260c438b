"""A life line of every kind of entry, made from a real spool in which it happened."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.actor import Actor, Order
from gateway.delivery import BackendStatus
from gateway.delivery.breaker import CircuitBreaker
from gateway.delivery.ownership import Alone
from gateway.delivery.rests import Rests
from gateway.lifeline import Entry, Life, life, shown_row
from gateway.lifeline.entry import KINDS
from gateway.model import DeliveryEvent, Outcome, Recipient, Scope, Verdict
from gateway.rewritten import Rewritten
from gateway.spool import Claim, Filter, Settlement, Told
from tests.builders import AWAY, BAD_LOGIN, GREYLISTED, IN_DOUBT, NO_USER, SENT, START, THROTTLED, envelope, new_message
from tests.builders import settings as made_settings
from tests.spool_kit import At, blank, of, opened, peer, settlement

ONE, TWO = "a@example.org", "b@example.org"
ANNA = Actor("anna", "socket")
MINUTE = timedelta(minutes=1)


class Story:
    """A message in a spool, what happens to it, and what is told of it then."""

    def __init__(self, at: At, directory: Path) -> None:
        self.at = at
        self.directory = directory
        self.id = ""
        self.settings = made_settings("b", "two", retention={"failed_body": "30d"})
        self.backends: dict[str, BackendStatus] | None = {name: _status(name) for name in ("b", "two")}

    async def put(self, *to: str, how: Mapping[str, object] | None = None, **more: Any) -> None:
        self.id = await self.at.put(*(to or (ONE,)), how=json.dumps(how) if how else "", **more)

    async def answer(self, outcome: Outcome | Mapping[str, Outcome], **more: Any) -> None:
        """A try, a minute after the one before."""
        await self.at.settle(outcome, now=self.at.spool.now(), next_attempt_at=self.at.spool.now(), **more)
        self.at.clock.advance(60)

    async def told(self, **more: Any) -> Life:
        found = life(await self.at.show(self.id), self.settings, self.at.clock.now(), self.backends, **more)
        assert {entry.kind for entry in found.entries} <= KINDS
        assert found.entries[-1].kind == "now"
        times = [entry.at for entry in found.entries if entry.at is not None]
        assert times == sorted(times) or any(entry.kind == "clock" for entry in found.entries)
        return found

    async def entry(self, kind: str) -> Entry:
        """The one of its kind."""
        [found] = [entry for entry in (await self.told()).entries if entry.kind == kind]
        return found


def _status(name: str, **more: Any) -> BackendStatus:
    given = {"queued": 1, "in_flight": 0, "paused_until": None, "paused_by": "", "reason": "", "last_success": None}
    return BackendStatus(name=name, type="capture", **{**given, **more})


@pytest_asyncio.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    async with opened(blank(tmp_path)) as at:
        yield Story(at, tmp_path)


HTTP_DENIED = Outcome(
    Verdict.REJECTED, code=403, enhanced="5.7.1", detail="HTTP 403 ErrorSendAsDenied: no", said_by="http",
    scope=Scope.MESSAGE, fix="give it Send As",
)  # fmt: skip
VERDICTS: list[tuple[Outcome, dict[str, Any], str, str]] = [
    # what was answered, its entry, the state then, the end of the line
    (SENT, {"kind": "sent", "title": "b took it", "code": "250 2.0.0", "remote_id": "r1", "meaning": "", "note": ""},
     "sent", "Sent to everybody"),
    (NO_USER, {"kind": "rejected", "title": "b refused it for good", "code": "550 5.1.1", "said": "no such user",
               "meaning": "There is no such address there."}, "failed", "Nothing more happens by itself"),
    (HTTP_DENIED, {"kind": "rejected", "code": "403", "said": "ErrorSendAsDenied: no",
                   "meaning": "The account is not allowed to do this.", "fix": "give it Send As"},
     "failed", "Nothing more happens by itself"),
    (GREYLISTED, {"kind": "deferred", "title": "b: not yet", "code": "451 4.7.1", "said": "greylisted",
                  "note": "It is tried again by itself. Other mail goes on."}, "waiting", "It is kept"),
    (AWAY, {"kind": "deferred", "code": "", "said": "cannot connect: Connection refused",
            "meaning": "Their server is not reached.",
            "note": "All mail for b waits, not only this. It goes out by itself."}, "waiting", "It is kept"),
    (THROTTLED, {"kind": "throttled", "title": "b: not yet, asked to slow down",
                 "note": "b waits as long as it was asked to. This costs the message no try."},
     "waiting", "It is kept"),
    (BAD_LOGIN, {"kind": "misconfigured", "title": "b does not accept us", "fix": "correct the password",
                 "meaning": "They do not accept the user name or password.",
                 "note": "All mail for b waits until this is put right. Nothing is lost."}, "waiting", "It is kept"),
    (IN_DOUBT, {"kind": "in_doubt", "title": "b: no usable answer came", "said": "lost after the dot",
                "note": "It may or may not have arrived: all of it went out, and no usable answer came."},
     "waiting", "It is kept"),
]  # fmt: skip


@pytest.mark.parametrize(("outcome", "shown", "state", "end"), VERDICTS, ids=lambda value: getattr(value, "detail", ""))
async def test_every_verdict(story: Story, outcome: Outcome, shown: dict[str, Any], state: str, end: str) -> None:
    """In a clause, in the other side's words, in plain words, with what is to be done and what follows."""
    await story.put()
    await story.answer(outcome)
    found = await story.told()
    [entry] = [one for one in found.entries if one.kind == shown["kind"]]
    assert {name: getattr(entry, name) for name in shown} == shown
    assert (found.state, found.entries[-1].title, entry.at, entry.backend) == (state, end, START, "b")


async def held(story: Story) -> None:
    await story.put()
    await story.at.spool.hold(of(story.id), START, order=Order(ANNA, "hold"))


async def in_doubt(story: Story) -> None:
    await story.put()
    await story.answer(IN_DOUBT, states={ONE: "held"})


async def partly(story: Story) -> None:
    await story.put(ONE, TWO)
    await story.answer({ONE: SENT, TWO: NO_USER})


async def delivered(story: Story) -> None:
    await story.put()
    await story.answer(SENT)
    await story.at.spool.add_events("b", [DeliveryEvent("r1", "delivered")], "poll")


async def back(story: Story) -> None:
    await story.put(ONE, TWO)
    await story.answer(SENT)
    said = [DeliveryEvent("r1", "delivered"), DeliveryEvent("r1", "bounced", "mailbox full", TWO)]
    await story.at.spool.add_events("b", said, "webhook")


async def corrupt(story: Story) -> None:
    await story.put()
    peer(story.directory, "UPDATE body SET raw = ?", b"\0")
    await story.at.spool.bodies([story.id])


async def expired(story: Story) -> None:
    await story.put()
    await story.answer(Outcome(Verdict.REJECTED, enhanced="4.4.7", detail="gave up; last answer: no"))


async def under_way(story: Story) -> None:
    await story.put()
    await story.at.claim()


async def resting(story: Story) -> None:
    await story.put()
    until = story.at.clock.now() + timedelta(minutes=5)
    rests = _status("b", paused_by="throttled", reason="slow down", paused_until=until)
    story.backends = {"b": rests}


async def by_a_person(story: Story) -> None:
    await story.put()
    story.backends = {"b": _status("b", paused_by="operator", who="anna")}


async def unknown_backend(story: Story) -> None:
    await story.put(backend="gone")


async def no_service(story: Story) -> None:
    await story.put()
    story.backends = None


async def due(story: Story) -> None:
    await story.put()
    await story.at.settle(GREYLISTED, next_attempt_at=START + 5 * MINUTE)


KEPT = "If it cannot be sent within 5 days, it goes back to the sender."
ENDS: list[tuple[Callable[[Story], Awaitable[None]], str, list[tuple[str, str, str]]]] = [
    # what happened, the state, each entry of the end: title, note, what is to be done
    (held, "held", [("Held: nothing happens until somebody decides", "Nobody is told meanwhile.",
                     "gateway queue release ID, or: gateway queue delete ID")]),
    (in_doubt, "in_doubt", [("Held: nothing happens until somebody decides",
                             "Ask a recipient whether it arrived. Nobody is told meanwhile.",
                             "gateway queue release ID, or: gateway queue delete ID")]),
    (partly, "partly_failed", [("b@example.org will not get it", "", ""),
                               ("Nothing more happens by itself",
                                "The text is kept until 2026-12-20 12:00Z. Until then you can send it again.", "")]),
    (delivered, "delivered", [("Delivered to everybody",
                               "The text is gone. What is said here is kept for 90 days.", "")]),
    (back, "sent", [("Taken by the provider, but it did not arrive to b@example.org. Nothing more happens by itself",
                     "The text is gone. What is said here is kept for 90 days.", "")]),
    (corrupt, "damaged", [("It is not sent, and stays for you to look at",
                           "What lies on the disk is not what was accepted.",
                           "look at it: gateway queue cat ID; then: gateway queue delete ID")]),
    (expired, "failed", [("a@example.org will not get it", "", ""),
                         ("Nothing more happens by itself",
                          "The text is kept until 2026-12-20 12:00Z. Until then you can send it again.", "")]),
    (under_way, "waiting", [("b is at it", "", ""),
                            ("It is kept", KEPT, "")]),
    (resting, "waiting", [("It waits until b works again",
                           "b is throttled. It tries again at 2026-11-20 12:05:00Z (in 5 minutes).", ""),
                          ("It is kept", KEPT, "")]),
    (by_a_person, "waiting", [("It waits until b works again",
                               "b is paused by anna until it is resumed or the service is restarted.",
                               "to send it now: gateway backend resume b"),
                              ("It is kept", KEPT, "")]),
    (unknown_backend, "waiting", [("It waits for gone, which is not configured", "",
                                   "put it back, or add a route that matches; then: gateway reload"),
                                  ("It is kept", KEPT, "")]),
    (no_service, "waiting", [("It waits for b", "No service runs, so nothing is sent.", "gateway serve"),
                             ("It is kept", KEPT, "")]),
    (due, "waiting", [("Next try by b at 12:05:00Z", "In 5 minutes.", ""),
                      ("It is kept", KEPT, "")]),
]  # fmt: skip


@pytest.mark.parametrize(("happens", "state", "end"), ENDS, ids=[one[0].__name__ for one in ENDS])
async def test_the_end_is_what_happens_next(
    story: Story, happens: Callable[[Story], Awaitable[None]], state: str, end: list[tuple[str, str, str]]
) -> None:
    """Or that nothing more does; who waits for a person hears what he can do."""
    await happens(story)
    found = await story.told()
    last = [one for one in found.entries if one.kind == "now"]
    [row] = await story.at.spool.find(of(story.id))
    assert (found.state, shown_row(row)) == (state, "sent" if state == "delivered" else state)  # events: not in lists
    assert [(one.title, one.note, one.fix.replace(story.id, "ID")) for one in last] == end
    assert all(one.at is None for one in last)


async def test_how_it_came(story: Story) -> None:
    """Client and how it was known, whence, by what, how large, and what was replied."""
    how = {"with": "ESMTPSA", "by": "token", "helo": "printer\u202e", "tls": "TLSv1.3 AES", "key": "own"}
    at = envelope(ONE, envid="e1", original="")
    at = type(at)(at.sender, (Recipient(ONE, "NEVER"),), envid="e1")
    await story.put(how=how, client="staff", login="anna", peer="192.0.2.1", listener="in", message_id="<1@x>",
                    envelope=at)  # fmt: skip
    entry = await story.entry("accepted")
    assert dict(entry.facts) == {
        "Client": "staff, by its token, key own",
        "Login": "anna",
        "Address": "192.0.2.1, calls itself printer\\u202e",
        "Listener": "in, ESMTPSA, TLSv1.3 AES",
        "Size": "45 B",
        "Message-ID": "<1@x>",
        "Asked for": "notify NEVER, envelope id e1",
    }
    assert entry.note == f"It was told 250 2.0.0 Ok: queued as {story.id}."


@pytest.mark.parametrize(("listener", "words"), [("", "here, by no listener"), ("maildrop", "as a file, in maildrop")])
async def test_no_listener_took_it(story: Story, listener: str, words: str) -> None:
    """What send-test makes comes from inside, what gateway-sendmail takes by a file."""
    await story.put(how={"with": "local", "by": "inside"}, client="cli", listener=listener, peer="")
    facts = dict((await story.entry("accepted")).facts)
    assert (facts["Handed in"], "Listener" in facts) == (words, False)


async def test_what_was_decided(story: Story) -> None:
    """Rewritten from what and why, which line of routes for whom and why, who is hidden, what was changed."""
    how = {
        "with": "SMTP", "by": "network", "rewrite": "not_allowed", "from": "x@dev.local", "blind": [1], "unsent": 2,
        "answers": "x@dev.local",
        "stripped": ["bcc", "return-path"], "added": ["date", "message-id"], "repairs": ["line_ends", "default_domain"],
        "routes": [[2, "recipients: *, backend: b two", "two", "too big for b", [0]], [3, "backend: b", "b", "", [1]]],
    }  # fmt: skip
    to = envelope(ONE, TWO, sender="scan@example.com", original="root@dev.local")
    await story.put(ONE, TWO, how=how, envelope=to, header_from="scan@example.com", pin="b")
    assert (await story.entry("decided")).facts == (
        ("Sender", "root@dev.local became scan@example.com, because client c may not send as it"),
        ("Sender", "From of x@dev.local became scan@example.com, because client c may not send as it. "
                   "Answers go to x@dev.local"),
        ("Way", "a@example.org by two: line 2 of routes (recipients: *, backend: b two); "
                "not by the first one there: too big for b"),
        ("Way", "b@example.org by b: line 3 of routes (backend: b)"),
        ("Demands", "the client may use b only"),
        ("Hidden", "b@example.org: in no To or Cc, and stays undisclosed"),
        ("Hidden", "2 who stand in To or Cc are not mailed again: the envelope does not name them"),
        ("Taken out", "Bcc, Return-Path"),
        ("Added", "Date, Message-ID"),
        ("Mended", "line ends that were no CRLF, addresses without a domain got the client's"),
    )  # fmt: skip


async def test_who_gets_it_instead(story: Story) -> None:
    """Each that was asked for with whom he became and by what; a copy says that it is one. By both it is found."""
    rewritten = (
        Rewritten("root@relay", (ONE, TWO), "alias", "aliases"),
        Rewritten("cron@relay", (ONE, TWO), "alias", "aliases"),
        Rewritten("c@x.example", (ONE,), "redirect", "clients.c.redirect_to"),
        Rewritten("", ("log@x.example",), "copy", "line 2 of routes"),
    )
    no = Outcome(Verdict.REJECTED, enhanced="5.7.1", detail="no line of the setting routes matches")
    to = replace(envelope(ONE, TWO, "log@x.example"), recipients=(
        Recipient(ONE), Recipient(TWO), Recipient("log@x.example", "NEVER")))  # fmt: skip
    await story.put(ONE, TWO, envelope=to, rewritten=rewritten, refused={"log@x.example": no})
    assert "Asked for" not in dict((await story.entry("accepted")).facts)
    assert (await story.entry("decided")).facts == (
        ("Recipient", "root@relay, cron@relay became a@example.org, b@example.org, because aliases says so"),
        ("Recipient", "c@x.example became a@example.org, because clients.c.redirect_to says so"),
        ("Copy", "log@x.example gets one, because line 2 of routes says so. The others do not see that, nor does "
                 "the sender"),
    )  # fmt: skip
    await story.answer(SENT)
    assert (await story.entry("untold")).note == "It was a copy that the settings made (copy_to)."
    for given in ("root@relay", "cron", "x.example", ONE, "log@x.example"):
        for which in (Filter(recipient=given), Filter(address=given), Filter(address=given, state="failed")):
            assert [row.id for row in await story.at.spool.find(which)] == [story.id], given
    assert await story.at.spool.find(Filter(recipient="nobody")) == []
    assert await story.at.spool.find(Filter(recipient="<>")) == []  # a copy was asked for by nobody
    await story.at.spool.delete(of(story.id), START)
    assert peer(story.directory, "SELECT count(*) FROM asked") == [(0,)]


@pytest.mark.parametrize(
    ("noted", "fact"),
    [
        ({"answers": "x@dev.local"}, ". Answers go to x@dev.local"),
        ({}, ""),
    ],
)  # fmt: skip
async def test_one_sender_in_both_places(story: Story, noted: dict[str, object], fact: str) -> None:
    """Envelope and From were the same: one sentence; where answers go is said only where it was changed."""
    to = envelope(ONE, sender="scan@example.com", original="x@dev.local")
    how = {"rewrite": "always", "from": "x@dev.local", **noted}
    await story.put(how=how, envelope=to, header_from="scan@example.com")
    became = "x@dev.local became scan@example.com, because clients.c.rewrite_sender says always"
    assert (await story.entry("decided")).facts == (("Sender", became + fact),)


@pytest.mark.parametrize("how", ["", "{", "[]", '{"routes": 5, "blind": [9]}'])
async def test_what_an_older_version_accepted(story: Story, how: str) -> None:
    """Or where a byte flipped: what is not known is not said, and nothing breaks."""
    story.id = await story.at.put(how=how)
    found = await story.told()
    assert [entry.kind for entry in found.entries] == ["accepted", "now", "now"]


async def test_what_somebody_gave_to_another_backend(story: Story) -> None:
    """His order is why that one has it: no route need lead there, and its own backend may work well."""
    await story.put(how={"routes": [[1, "backend: b", "b", ""]]})
    assert await story.at.spool.reroute([story.id], "two", order=Order(ANNA, "reroute", "all with backend b"))
    (claim,) = await story.at.claim("two", now=story.at.spool.now())
    await story.at.spool.settle(_settled(claim))
    (moved,) = [entry for entry in (await story.told()).entries if entry.kind == "moved"]
    assert (moved.title, moved.note) == ("two has it now", "anna ordered that.")


async def test_failover_and_a_crash(story: Story) -> None:
    """Who has it now and why; what was cut off, and that it may have arrived twice then."""
    await story.put(how={"routes": [[1, "backend: b two", "b", ""]]})
    (first,) = await story.at.claim()
    now = story.at.spool.now()
    await story.at.spool.settle(settlement(first, AWAY, backend="two", next_attempt_at=now))
    story.at.clock.advance(60)
    (claim,) = await story.at.claim("two", now=story.at.spool.now())
    await story.at.spool.aclose()
    async with opened(story.directory, clock=story.at.clock) as at:
        story.at = at
        at.clock.advance(3600)
        (again,) = await at.claim("two", now=at.spool.now())
        await at.spool.settle(_settled(again))
        found = await story.told()
    titles = [entry.title for entry in found.entries]
    assert titles[2:] == ["b: not yet", "two has it now", "two: interrupted", "two took it", "Sent to everybody"]
    assert [entry.said for entry in found.entries if entry.kind == "interrupted"] == [""]
    by_kind = {entry.kind: entry for entry in found.entries}
    assert by_kind["moved"].note == "b did not take it. The route allows it."
    assert by_kind["interrupted"].note == "The service ended in the middle of it. It may have been sent."
    assert by_kind["sent"].note == "The try before this one may have been taken as well: it can have arrived twice."
    assert claim.attempt_id != again.attempt_id


@pytest.mark.parametrize("how", [{}, {"routes": [[1, "backend: b two", "b", ""], [2, "backend: c", "c", ""]]}])
async def test_another_way_is_no_failover(story: Story, how: dict[str, Any]) -> None:
    """Who took it for others has not failed, whether or not it is known what was decided."""
    await story.put(how=how, envelope=envelope("x@a", "y@b", "z@c"), deliveries={"b": ("x@a",), "c": ("y@b", "z@c")})
    (mine,) = await story.at.claim("c")
    await story.at.spool.settle(_settled(mine))
    (other,) = await story.at.claim("b")
    await story.at.spool.settle(settlement(other, AWAY, backend="two", next_attempt_at=story.at.spool.now()))
    (moved,) = await story.at.claim("two")
    await story.at.spool.settle(_settled(moved))
    notes = [entry.note for entry in (await story.told()).entries if entry.kind == "moved"]
    assert notes == ["b did not take it. The route allows it."]


async def test_what_was_found_out_after_a_crash(story: Story) -> None:
    """A backend that can look finds the copy: nothing was sent twice."""
    await story.put()
    await story.answer(IN_DOUBT)
    await story.answer(Outcome(Verdict.SENT, enhanced="2.0.0", detail="sent by an earlier attempt"))
    assert (await story.entry("sent")).note.startswith("It was looked for and found")


TOLD: list[tuple[Told, dict[str, Any], str, str, str]] = [
    # what was decided, bounces in the settings, title, why, the line to paste
    (Told("failed", "B1"), {}, "The sender is told of the failure", "by B1", ""),
    (Told("delayed", "B1"), {}, "The sender is told of the delay", "by B1", ""),
    (Told("relayed", "B1"), {}, "The sender is told of the hand-over", "by B1", ""),
    (Told("failed", reason="digest"), {"mode": "digest"}, "The sender will be told of the failure",
     "It comes with the sender's next digest (bounces.mode).", ""),
    (Told("failed", reason="off"), {"mode": "off"}, "Nobody was told of the failure", "bounces.mode is off.",
     "to tell senders from now on: bounces: {mode: auto}"),
    (Told("failed", reason="null_sender"), {}, "Nobody was told of the failure",
     "It came with the null sender <>: nobody waits for an answer (RFC 5321 6.1).", ""),
    (Told("failed", reason="no_backend"), {}, "Nobody was told of the failure",
     "No backend here can send with the null sender <>, and bounces.from is not set.",
     "set it, and senders are told from then on: bounces: {from: postmaster@relay.example.com}"),
    (Told("failed", reason="no_backend"), {"from": "p@example.com"}, "Nobody was told of the failure",
     "No backend can carry a bounce to the sender, neither as <> nor from p@example.com.",
     "name one that can: bounces: {backend: NAME}"),
    (Told("failed", reason="relay_denied"), {}, "Nobody was told of the failure",
     "Whoever dropped it may not send here: a bounce could go to anybody.", ""),
]  # fmt: skip


@pytest.mark.parametrize(("told", "bounces", "title", "why", "fix"), TOLD)
async def test_whether_the_sender_was_told(
    story: Story, told: Told, bounces: dict[str, Any], title: str, why: str, fix: str
) -> None:
    """By which bounce, with a link to it; or that nobody was, why, and the line that changes it."""
    story.settings = made_settings("b", bounces=bounces)
    await story.put()
    await story.answer(NO_USER, told=(told,))
    entry = await story.entry("told" if told.bounce_id or told.reason == "digest" else "untold")
    assert (entry.title, entry.note, entry.fix, entry.link) == (title, why, fix, told.bounce_id)


@pytest.mark.parametrize(
    ("notify", "title"),
    [("NEVER", "Nobody was told of the failure"), ("", "Whether the sender was told is not known")],
)
async def test_a_failure_without_a_word(story: Story, notify: str, title: str) -> None:
    """The sender asked for none (RFC 3461 4.1); or an older version did not keep it."""
    at = envelope(ONE)
    await story.put(envelope=type(at)(at.sender, (Recipient(ONE, notify),)))
    await story.answer(NO_USER)
    assert (await story.entry("untold")).title == title


async def test_a_copy_and_what_it_is_a_copy_of(story: Story) -> None:
    """Each has a link to the other, and who ordered it."""
    await story.put()
    await story.answer(SENT)
    copy = new_message(resend_of=story.id, received_at=story.at.clock.now())
    await story.at.spool.resend([copy], Order(ANNA, "resend"))
    act = await story.entry("act")
    assert (act.title, act.note, act.link) == ("anna sent it again", f"as {copy.id}", copy.id)
    of, story.id = story.id, copy.id
    made = await story.entry("made")
    assert (made.link, made.note) == (of, f"It is another copy of {of}, which stays as it was.")


async def test_a_bounce_says_of_what(story: Story) -> None:
    """With a link to it."""
    await story.put(how={"of": "M0", "kind": "failed"}, bounce=True, sender="")
    entry = await story.entry("made")
    assert (entry.link, entry.note) == ("M0", "It tells the sender of M0 that his mail failed.")


async def test_what_happened_beside(story: Story) -> None:
    """Later reports, orders with who and how many, and that the clock was set; each at its time."""
    await story.put()
    await story.put()
    await story.at.spool.retry(of(story.id), START, order=Order(ANNA, "retry", "all with backend b"))
    story.at.clock.set(timedelta(hours=2))
    await story.at.spool.keep_time()
    (first, second) = await story.at.claim(now=story.at.spool.now())
    await story.at.spool.settle(_settled(first))
    await story.at.spool.settle(_settled(second))
    await story.at.spool.add_events("b", [DeliveryEvent("r1", "bounced", "mailbox full")], "webhook")
    found = {entry.kind: entry for entry in (await story.told()).entries}
    assert (found["act"].title, found["act"].note) == ("anna asked for another try", "all with backend b")
    assert found["clock"].title == "This machine's clock was set forward by 2 hours"
    assert (found["event"].title, found["event"].said) == ("b reports: bounced", "mailbox full")
    assert found["event"].note == "It said so by itself."


async def test_a_clock_that_is_set_back(story: Story) -> None:
    """What happened later stands below, though its time is an earlier one."""
    await story.put()
    await story.answer(GREYLISTED)
    story.at.clock.set(timedelta(seconds=-7199.9))
    await story.at.spool.keep_time()
    await story.answer(AWAY, ended_at=story.at.clock.now())
    await story.at.spool.retry(of(story.id), story.at.spool.now(), order=Order(ANNA, "retry"))
    told = [entry.title for entry in (await story.told()).entries[1:5]]
    assert told == [
        "b: not yet", "This machine's clock was set back by 2 hours", "b: not yet", "anna asked for another try",
    ]  # fmt: skip


async def test_what_it_waited_for(story: Story) -> None:
    """Why its backend did not work and for how long; not what was over before it came, nor began when it had gone."""
    breaker, rests = CircuitBreaker(), Rests(story.at.spool, story.at.clock, Alone())
    for before in (True, False):
        if not before:
            await story.put(received_at=story.at.clock.now())
        breaker.judge("M", {ONE: AWAY}, story.at.clock.monotonic())
        for _ in range(2):  # it lasts: no other one
            await rests.look({"b": breaker})
        story.at.clock.advance(600)
        breaker.close()
        await rests.look({"b": breaker})
        story.at.clock.advance(60)
    breaker.pause(story.at.clock.monotonic(), None, "anna")
    await rests.look({"b": breaker, "two": CircuitBreaker()})
    found = [entry for entry in (await story.told()).entries if entry.kind == "rest"]
    assert [(entry.title, entry.said, entry.note) for entry in found] == [
        ("b could not be reached", "cannot connect: Connection refused",
         "From 2026-11-20 12:11:00Z for 10 minutes: its mail waited."),
        ("b was paused by anna", "", "Since 2026-11-20 12:22:00Z, and its mail waits."),
    ]  # fmt: skip
    await story.at.spool.rested([], [], anew=True)  # as the next service begins
    await story.answer(SENT, ended_at=story.at.clock.now())
    breaker.pause(story.at.clock.monotonic(), None, "berta")
    await rests.look({"b": breaker})
    assert len([entry for entry in (await story.told()).entries if entry.kind == "rest"]) == 2


async def test_whom_nobody_looked_for(story: Story) -> None:
    """Too many stand in To and Cc: that is not said as though nobody were hidden."""
    await story.put(ONE, how={"with": "SMTP", "by": "network", "crowded": True, "routes": []})
    (hidden,) = (text for name, text in (await story.entry("decided")).facts if name == "Hidden")
    assert hidden.startswith("not looked for: To and Cc are too long")


async def test_many_tries(story: Story) -> None:
    """The first and the last ten, and how many are between; all of them on demand."""
    await story.put()
    for number in range(35):
        await story.answer(Outcome(Verdict.DEFERRED, code=451, detail=f"no {number}", said_by="smtp"))
    tries = [entry for entry in (await story.told()).entries if entry.kind in ("deferred", "more")]
    assert [entry.said for entry in tries] == [*(f"no {n}" for n in range(10)), "", *(f"no {n}" for n in range(25, 35))]
    assert tries[10].title == "15 more tries"
    whole = [entry.said for entry in (await story.told(whole=True)).entries if entry.kind == "deferred"]
    assert len(whole) == 35


async def test_what_strangers_write(story: Story, engine: str) -> None:
    """Nothing in it steers a terminal or turns a line; it is cut at 300 characters, the rest comes on demand."""
    odd = "\x1b[2J\u202eevil\u2066\x00\ufeff " + "x" * 400
    await story.put("\u200fa@example.org", how={"helo": odd, "by": "network"}, peer="192.0.2.1")
    await story.answer(Outcome(Verdict.REJECTED, code=550, detail=odd, said_by="smtp", remote_id=odd, fix=odd))
    for whole, most in ((False, 300 + 6 * 5), (True, 500)):
        for entry in (await story.told(whole=whole)).entries:
            texts = [entry.title, entry.said, entry.code, entry.meaning, entry.fix, entry.note, entry.remote_id]
            texts += [text for _, text in entry.facts]
            assert all(text.isprintable() and len(text) <= most for text in texts)
            if entry.kind == "rejected":
                assert (entry.cut, "x" * 400 in entry.said) == (not whole, whole)
                nul = "\\u0000" if engine == "sqlite" else "\N{REPLACEMENT CHARACTER}"  # PostgreSQL's text has none
                assert entry.said.startswith(f"\\u001b[2J\\u202eevil\\u2066{nul}\\ufeff x")


def _settled(claim: Claim) -> Settlement:
    return settlement(claim, ended_at=claim.message.received_at + timedelta(hours=1))


@pytest.mark.parametrize(
    "how",
    [
        {"routes": 7}, {"routes": [7]}, {"routes": [["1", "", "b", ""]]}, {"routes": [[1, "", "b", "", ["0"]]]},
        {"routes": [[1, 2, 3, 4]]}, {"blind": "x"}, {"blind": [None]}, {"blind": [-1]},
    ],
)  # fmt: skip
async def test_what_was_noted_otherwise_breaks_nothing(story: Story, how: dict[str, Any]) -> None:
    """Another version or a tool may have written it: the rest of the life is told all the same."""
    await story.put(how=how)
    assert (await story.told()).entries[0].kind == "accepted"
