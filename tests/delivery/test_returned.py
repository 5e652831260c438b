"""Mail that came back after a backend had handed it over: matched, told once, and never at the cost of sending."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.delivery.returned import EVERY, LATEST, OFTEN, SOON
from gateway.model import Outcome, Scope, Verdict
from gateway.returned import Failed, Look, Returned, Wanted
from gateway.spool import MessageDetail
from tests.delivery.kit import FULL, House, house
from tests.fakes import ScriptedBackend, until

MAILBOX = "noreply@corp.example"
GONE = Failed(("a@x.org",), "5.1.1", "550 5.1.1 no such user")
DENIED = Outcome(Verdict.MISCONFIGURED, 403, "4.7.0", "HTTP 403 ErrorAccessDenied", scope=Scope.BACKEND, fix="grant it")


class Mailbox(ScriptedBackend):
    """Sends, and finds by the next line of ``finds`` what came back; after the last there is nothing."""

    returns = "report"

    def __init__(self, name: str = "b", *outcomes: Outcome) -> None:
        super().__init__(name, *outcomes)
        self.finds: list[Look | Outcome | Exception] = []
        self.places: list[str] = []
        self.looks = 0
        self.wanted: list[bool] = []

    async def returned(self, place: str, wanted: Wanted) -> Look | Outcome:
        self.places.append(place)
        line = self.finds.pop(0) if self.finds else Look((), place)
        if isinstance(line, Look):
            self.wanted += [await wanted(one) for one in line.found]
        self.looks += 1
        if isinstance(line, Exception):
            raise line
        return line


def back(*named: str, failed: Sequence[Failed] = (GONE,), **more: Any) -> Returned:
    return Returned(named, tuple(failed), **{"told": MAILBOX} | more)


@asynccontextmanager
async def opened(path: Path, backend: Mailbox, **changes: Any) -> AsyncIterator[House]:
    async with house(path, backend, **changes) as at:
        await until(lambda: backend.looks > 0 and at.clock.asleep("returned"))
        yield at


async def look(at: House, *finds: Look | Outcome | Exception, seconds: float = EVERY) -> None:
    """One look for each line, to its end."""
    (backend,) = at.backends
    assert isinstance(backend, Mailbox)
    backend.finds += finds
    for _ in finds:
        looks = backend.looks
        at.clock.advance(seconds)
        await until(lambda before=looks: backend.looks > before and at.clock.asleep("returned"))


async def sent(at: House, *addresses: str, ident: str = "<m1@h>", **more: Any) -> str:
    found = await at.put("b", *addresses, message_id=ident, **more)
    await at.settled(found, "done")
    return found


async def life(at: House, ident: str) -> MessageDetail:
    detail = await at.spool.show(ident)
    assert detail is not None
    return detail


async def came_back(at: House, ident: str) -> list[tuple[str, str, str, str]]:
    return [(row.address, row.state, row.detail, row.source) for row in (await life(at, ident)).events]


async def test_it_is_seen_in_the_life_of_the_message_and_its_sender_hears_of_it(tmp_path: Path) -> None:
    backend = Mailbox()
    async with opened(tmp_path, backend) as at:
        ident = await sent(at)
        await look(at, Look((back("<other@h>", "<m1@h>", subject="Invoice 12"),), "p1"))
        await look(at, Look((), "p1"))
        assert await came_back(at, ident) == [("a@x.org", "bounced", "550 5.1.1 no such user", "report")]
        detail = await life(at, ident)
        assert detail.state == "done"  # taken it was
        (told,) = detail.bounces
        (bounce, raw) = backend.calls[-1]
        assert (bounce.id, bounce.envelope.sender) == (told.bounce_id, "")
        assert [one.address for one in bounce.envelope.recipients] == ["s@x.org"]
        for words in (
            b"Final-Recipient: rfc822; a@x.org",
            b"Action: failed",
            b"Status: 5.1.1",
            b"Invoice 12",
            b"<m1@h>",
        ):
            assert words in raw
        assert at.logged("delivery_event")[0]["id"] == ident


async def test_said_again_it_counts_once_whatever_is_said(tmp_path: Path) -> None:
    """Two reports of one failure, a forger's included, make one event and one bounce; also over a restart."""
    backend = Mailbox()
    other = back("<m1@h>", failed=[Failed(("A@X.ORG",), "5.7.1", "something else")])
    async with opened(tmp_path, backend) as at:
        ident = await sent(at)
        await look(at, Look((back("<m1@h>"), other, back("<m1@h>")), "p1"), Look((other,), "p2"))
        assert len(await came_back(at, ident)) == 1
        assert len((await life(at, ident)).bounces) == 1
        assert backend.wanted == [True, True, True, False]  # in the last look it was known
    again = Mailbox()
    async with opened(tmp_path, again, later=60) as at:
        assert again.places[0] == "p2"  # where the last one had come to
        await look(at, Look((other,), "p3"))
        assert len(await came_back(at, ident)) == 1


UNMATCHED = {
    "no such Message-ID": back("<unknown@h>"),
    "no name": back(),
    "another recipient": back("<m1@h>", failed=[Failed(("z@x.org",), "5.1.1")]),
    "called otherwise": back(remote_id="r77"),
    "hostile": back("<m1@h>' OR 1=1 --", failed=[Failed(("\0",), "5.1.1", "\0")]),
}


async def test_what_is_not_of_our_mail_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, Mailbox()) as at:
        ident = await sent(at, "a@x.org", "b@x.org")
        for what, report in UNMATCHED.items():
            await look(at, Look((report,), "p"))
            assert await came_back(at, ident) == [], what
        assert (await life(at, ident)).bounces == ()


async def test_what_this_backend_has_not_sent_cannot_come_back_to_it(tmp_path: Path) -> None:
    """Mail that waits, mail of another backend, and mail of long ago: whoever says that it failed has made it up."""
    backend = Mailbox("b", Outcome(Verdict.SENT), Outcome(Verdict.DEFERRED))
    async with opened(tmp_path, backend) as at:
        old = await sent(at, ident="<old@h>")
        at.clock.advance(LATEST.total_seconds() + 1)
        waiting = await at.put("b", message_id="<waits@h>")
        await at.tried(waiting)
        await look(at, Look((back("<waits@h>"), back("<old@h>")), "p"))
        assert (await came_back(at, waiting), await came_back(at, old)) == ([], [])


async def test_of_several_recipients_only_those_who_failed(tmp_path: Path) -> None:
    """One report may tell of several; one bounce then tells the sender of all of them."""
    backend = Mailbox()
    async with opened(tmp_path, backend) as at:
        ident = await sent(at, "a@x.org", "b@x.org", "c@x.org")
        failed = [GONE, Failed(("c@x.org",), "5.2.2", "552 5.2.2 full"), Failed(("z@x.org",))]
        await look(at, Look((back("<m1@h>", failed=failed),), "p"), Look((), "p"))
        assert [row[0] for row in await came_back(at, ident)] == ["a@x.org", "c@x.org"]
        raw = backend.calls[-1][1]
        assert (b"a@x.org" in raw, b"b@x.org" in raw, b"c@x.org" in raw, b"z@x.org" in raw) == (
            True,
            False,
            True,
            False,
        )


async def test_mail_that_went_on_to_another_address_is_his_to_whom_it_was_sent(tmp_path: Path) -> None:
    async with opened(tmp_path, Mailbox()) as at:
        ident = await sent(at)
        await look(at, Look((back("<m1@h>", failed=[Failed(("z@y.org",), "5.1.1", "550 gone")]),), "p"))
        assert await came_back(at, ident) == [("a@x.org", "bounced", "5.1.1 550 gone (for z@y.org)", "report")]


# the settings of bounces, and of mail of various kinds why nobody is told ("": somebody is)
NOBODY = ("provider", "null_sender", "null_sender")
TOLD: list[tuple[dict[str, str], tuple[str, ...]]] = [
    ({}, ("", *NOBODY)),
    ({"mode": "digest"}, ("", *NOBODY)),  # which is for what fails here
    ({"later": "false"}, ("later", *NOBODY)),
    ({"mode": "off"}, ("off",) * 4),
]


@pytest.mark.parametrize(("bounces", "reasons"), TOLD)
async def test_who_is_told(tmp_path: Path, bounces: dict[str, str], reasons: tuple[str, ...]) -> None:
    """Never a bounce of a bounce, and never one into the mailbox where the report lies: neither can loop."""
    backend = Mailbox()
    kinds: tuple[dict[str, Any], ...] = ({}, {"sender": "NoReply@corp.example"}, {"sender": ""}, {"bounce": True})
    async with opened(tmp_path, backend, bounces=bounces) as at:
        for n, (more, reason) in enumerate(zip(kinds, reasons, strict=True)):
            ident, calls = await sent(at, ident=f"<{n}@h>", **more), len(backend.calls)
            await look(at, Look((back(f"<{n}@h>"),), "p"), Look((), "p"))
            assert len(await came_back(at, ident)) == 1
            (told,) = (await life(at, ident)).bounces
            assert (told.reason, bool(told.bounce_id)) == (reason, not reason)
            assert len(backend.calls) == calls + (not reason)


async def test_who_asked_not_to_be_told_is_not(tmp_path: Path) -> None:
    async with opened(tmp_path, Mailbox()) as at:
        ident = await sent(at, notify="NEVER")
        await look(at, Look((back("<m1@h>"),), "p"))
        assert (len(await came_back(at, ident)), (await life(at, ident)).bounces) == (1, ())


@pytest.mark.parametrize("fault", [DENIED, Outcome(Verdict.DEFERRED, detail="503"), RuntimeError("bug")])
async def test_what_goes_wrong_there_never_rests_the_backend(tmp_path: Path, fault: Outcome | Exception) -> None:
    """It is a problem of its own: at once where somebody has to do something, else when it lasts."""
    backend = Mailbox()
    async with opened(tmp_path, backend) as at:
        await look(at, fault)
        found = at.dispatcher.comebacks()["b"]
        assert (found.unread is not None) == (fault is DENIED)
        await look(at, *[fault] * 7)
        assert found.unread is not None
        assert (found.unread.fix == "grant it") == (fault is DENIED)
        assert at.paused_by("b") == ""
        await sent(at)
        await look(at, Look((), "p"))
        assert found.unread is None
        assert len(at.logged("returns_unread")) == 1


async def test_where_to_go_on_is_kept_after_what_was_found(tmp_path: Path) -> None:
    """A disk that takes no mail takes no event either: it is found again, from where it was."""
    backend = Mailbox()
    async with opened(tmp_path, backend) as at:
        ident = await sent(at)
        at.refuse("come_back", FULL)
        await look(at, Look((back("<m1@h>"),), "p1"))
        assert await came_back(at, ident) == []
        await look(at, Look((back("<m1@h>"),), "p1", more=True), seconds=SOON)
        await look(at, Look((), "p2"), seconds=SOON)  # soon again, for there was more
        assert backend.places[-3:] == ["", "", "p1"]
        assert len(await came_back(at, ident)) == 1


async def test_a_report_that_nobody_foresaw_keeps_no_other_from_being_seen(tmp_path: Path) -> None:
    """It is reported as a bug, once: a loop that begins anew would read it again and again."""
    async with opened(tmp_path, Mailbox()) as at:
        one, other = await sent(at), await sent(at, ident="<m2@h>")
        at.refuse("come_back", RuntimeError("unforeseen"))
        await look(at, Look((back("<m1@h>"), back("<m2@h>")), "p"))
        assert (await came_back(at, one), len(await came_back(at, other))) == ([], 1)
        assert [line["where"] for line in at.logged("bug")] == ["returned.b"]


async def test_an_address_to_which_mail_keeps_coming_back_is_known_to_the_operator(tmp_path: Path) -> None:
    """Also after a restart, and not for ever; what may pass (4.x.x) says nothing of an address."""
    full = Failed(("b@x.org",), "4.2.2", "452 full")
    backend = Mailbox()
    async with opened(tmp_path, backend) as at:
        for n in range(OFTEN):
            assert at.dispatcher.comebacks()["b"].dead == ()
            await sent(at, "a@x.org", "b@x.org", ident=f"<{n}@h>")
            await look(at, Look((back(f"<{n}@h>", failed=[GONE, full]),), f"p{n}"))
        (dead,) = at.dispatcher.comebacks()["b"].dead
        assert (dead.address, dead.count, dead.said) == ("a@x.org", OFTEN, "550 5.1.1 no such user")
    async with opened(tmp_path, Mailbox(), later=3600) as at:
        assert [one.address for one in at.dispatcher.comebacks()["b"].dead] == ["a@x.org"]
        at.clock.advance(timedelta(days=31).total_seconds())
        assert at.dispatcher.comebacks()["b"].dead == ()


async def test_what_has_no_way_to_look_is_not_asked(tmp_path: Path) -> None:
    backend = Mailbox()
    backend.returns = ""
    async with house(tmp_path, backend) as at:
        await sent(at)
        at.clock.advance(EVERY * 3)
        assert (backend.looks, at.dispatcher.comebacks(), at.dispatcher.alive) == (0, {}, True)
