"""graph, mail that came back: reports in the mailbox by delta queries, or the message trace; only ever looked at."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.backends.microsoft.graph import GraphSettings
from gateway.model import Outcome, Verdict
from gateway.returned import Look, Returned
from tests.backends.graph_fake import CLIENT, MAILBOX, SECRET, TENANT, QuickClock, Way, error, open_way
from tests.backends.graph_returns_fake import TRACE, Letter, ReturnsFake, trace
from tests.backends.kit import http
from tests.reports.ndr_kit import ORIGINAL_ID, exchange, ordinary

READ = "Mail.Send Mail.Read"


@asynccontextmanager
async def opened(path: Path, permissions: str = READ, **settings: Any) -> AsyncIterator[tuple[Way, ReturnsFake]]:
    fake = ReturnsFake(QuickClock(), permissions=permissions)
    async with open_way(path, fake, **{"later_bounces": "mailbox"} | settings) as way:
        yield way, fake


async def always(one: Returned) -> bool:
    return True


async def look(way: Way, place: str = "", wanted: Any = always) -> Look:
    found = await way.backend.returned(place, wanted)
    assert isinstance(found, Look), found
    return found


async def refused(way: Way, place: str = "") -> Outcome:
    found = await way.backend.returned(place, always)
    assert isinstance(found, Outcome), found
    return found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"later_bounces": "mailbox", "mailbox": "sender"}, "needs one mailbox; .* only trace"),
        ({"later_bounces": "trace", "cloud": "usgov"}, "in the global cloud only"),
        ({"later_bounces": "inbox"}, "'off', 'mailbox' or 'trace'"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    values = {"tenant": TENANT, "client_id": CLIENT, "client_secret": SECRET, "mailbox": MAILBOX} | changes
    with pytest.raises(ValidationError, match=words):
        GraphSettings.model_validate(values)


async def test_unless_it_is_wanted_nothing_is_looked_at(tmp_path: Path) -> None:
    async with opened(tmp_path, later_bounces="off") as (way, _):
        assert way.backend.returns == ""


async def test_reports_are_found_in_inbox_and_junk(tmp_path: Path) -> None:
    """What somebody else wrote is not read, and nothing is changed there."""
    async with opened(tmp_path) as (way, fake):
        fake.letters = [
            Letter(exchange("de")),
            Letter(b"secret", sender="ann@x.example", name="Ann"),
            Letter(exchange(whom="c@x.example"), sender="MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@c.example"),
            Letter(exchange(whom="d@x.example"), sender="noreply@mx.example", name="Mail Delivery System"),
            Letter(exchange(whom="e@x.example"), sender=None, folder="junkemail"),
            Letter(ordinary("text/plain")),
            Letter(b"", gone=True),
        ]
        found = await look(way)
        assert way.backend.returns == "report"
        assert [one.failed[0].addresses[0][0] for one in found.found] == ["b", "c", "d", "e"]
        assert {(one.named, one.told) for one in found.found} == {((ORIGINAL_ID,), MAILBOX)}
        assert (found.others, found.more, len(fake.asked)) == (2, False, 6)
        assert {request.method for request in way.web.requests if request.path.startswith("/v1.0")} == {"GET"}


async def test_the_next_look_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    """By our own root, wherever the link leads: a token goes nowhere else. Another mailbox begins anew."""
    async with opened(tmp_path) as (way, fake):
        fake.letters = [Letter(exchange())]
        first = await look(way)
        assert "https://graph.microsoft.com" in first.place
        fake.letters.append(Letter(exchange(whom="c@x.example")))
        second = await look(way, first.place)
        assert [one.failed[0].addresses for one in second.found] == [("c@x.example",)]
        assert (await look(way, second.place)).found == ()
        assert len((await look(way, json.dumps(json.loads(second.place) | {"of": "/users/other"}))).found) == 2
        assert len((await look(way, "no json")).found) == 2


async def test_a_busy_mailbox_takes_several_looks(tmp_path: Path) -> None:
    async with opened(tmp_path) as (way, fake):
        fake.letters = [Letter(b"x", sender="ann@x.example")] * 600 + [Letter(exchange())]
        first = await look(way)
        assert (first.found, first.more, fake.calls.count("delta inbox")) == ((), True, 10)
        second = await look(way, first.place)
        assert (len(second.found), second.more) == (1, False)


@pytest.mark.parametrize("answer", [None, error(400, "syncStateNotFound")])
async def test_what_the_server_has_forgotten_is_begun_anew(tmp_path: Path, answer: bytes | None) -> None:
    async with opened(tmp_path) as (way, fake):
        fake.letters = [Letter(exchange())]
        place = (await look(way)).place
        fake.forgotten = answer is None
        fake.answers["delta inbox"] = [answer] if answer else []
        assert len((await look(way, place)).found) == 1


async def test_a_mailbox_without_junk_is_looked_at_all_the_same(tmp_path: Path) -> None:
    async with opened(tmp_path) as (way, fake):
        fake.junk, fake.letters = False, [Letter(exchange())]
        assert len((await look(way)).found) == 1


DENIED: list[tuple[str, dict[str, Any], str, str]] = [
    ("Mail.Send", {}, "HTTP 403 ErrorAccessDenied", "grant the application Mail.Read .* Mail.ReadBasic is not enough"),
    ("Mail.Send Mail.ReadBasic", {}, "HTTP 403 ErrorAccessDenied", "Mail.ReadBasic is not enough"),
    ("Mail.Send", {"later_bounces": "trace"}, "HTTP 403", f"grant the application {TRACE}"),
]


@pytest.mark.parametrize(("permissions", "settings", "said", "fix"), DENIED)
async def test_a_missing_permission_is_named(
    tmp_path: Path, permissions: str, settings: dict[str, Any], said: str, fix: str
) -> None:
    async with opened(tmp_path, permissions, **settings) as (way, fake):
        fake.letters = [Letter(exchange())]
        outcome = await refused(way)
        assert outcome.verdict is Verdict.MISCONFIGURED
        assert said in outcome.detail
        assert re.search(fix, outcome.fix)
        assert (await way.one()).verdict is Verdict.SENT  # by what it may do


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (error(429, "ApplicationThrottled", Retry_After="90"), Verdict.THROTTLED),
        (error(503, "serviceNotAvailable"), Verdict.DEFERRED),
        (http(200, {"value": "?"}), Verdict.DEFERRED),
        (http(200, b"<html>portal"), Verdict.DEFERRED),
    ],
)
async def test_other_answers_say_when_to_come_again(tmp_path: Path, answer: bytes, verdict: Verdict) -> None:
    async with opened(tmp_path) as (way, fake):
        fake.answers["delta inbox"] = [answer]
        outcome = await refused(way)
        assert (outcome.verdict, bool(outcome.retry_after)) == (verdict, verdict is Verdict.THROTTLED)


async def test_who_has_signed_in_sends_without_the_permission_to_read(tmp_path: Path) -> None:
    """A sign-in of before later_bounces was set: its token is for sending, and looking says what to do."""
    async with opened(tmp_path) as (way, _):
        settings = way.settings
        sending, reading = (f"https://graph.microsoft.com/Mail.{name}.Shared" for name in ("Send", "Read"))
        assert (settings.sending, settings.reading) == ((sending,), (reading,))
        values = settings.model_dump() | {"client_secret": None, "device_login": True}
        signed_in = GraphSettings.model_validate({k: v for k, v in values.items() if v is not None})
        assert signed_in.identity("office", tmp_path).scopes == (sending, reading)  # what a person is asked for


# -- message trace ---------------------------------------------------------------------------------------------------

SAID = {"event": "Fail", "action": "", "data": "", "description": "Reason: [{LED=550 5.1.1 no such user}]"}


async def test_the_trace_tells_who_failed_and_why(tmp_path: Path) -> None:
    async with opened(tmp_path, f"Mail.Send {TRACE}", later_bounces="trace") as (way, fake):
        fake.traces = [
            trace("t1", ORIGINAL_ID, "o'b@x.example"),
            trace("t2", "<other@h>"),
            trace("t3", ORIGINAL_ID, "c@x.example", "delivered"),
            trace("t4", ORIGINAL_ID) | {"senderAddress": "somebody@corp.example"},
        ]
        fake.details = {("t1", "o'b@x.example"): [{**SAID, "event": "Receive", "description": "?"}, SAID]}

        async def ours(one: Returned) -> bool:
            return one.named == (ORIGINAL_ID,)

        found = await look(way, wanted=ours)
        (one,) = found.found
        assert (way.backend.returns, one.named, one.told) == ("trace", (ORIGINAL_ID,), MAILBOX)
        (failed,) = one.failed
        assert (failed.addresses, failed.enhanced) == (("o'b@x.example",), "5.1.1")
        assert "no such user" in failed.detail
        assert fake.calls.count("trace") == 2  # of what is not ours nothing more is asked


async def test_only_so_much_is_asked_of_the_trace_at_once(tmp_path: Path) -> None:
    """The tenant has 100 requests in five minutes, for everybody."""
    async with opened(tmp_path, f"Mail.Send {TRACE}", later_bounces="trace") as (way, fake):
        fake.traces = [trace(f"t{n}", f"<{n}@h>") for n in range(1500)]
        fake.details = {(f"t{n}", "b@x.example"): [SAID] for n in range(1500)}
        found = await look(way)
        assert (len(found.found), found.more, fake.calls.count("trace")) == (30, True, 31)

        async def last(one: Returned) -> bool:
            return one.named == ("<1499@h>",)

        assert len((await look(way, wanted=last)).found) == 1  # on the second page


async def test_a_tenant_without_the_service_principal_of_the_trace_is_told_how_to_get_it(tmp_path: Path) -> None:
    async with opened(tmp_path, f"Mail.Send {TRACE}", later_bounces="trace") as (way, fake):
        fake.principal = False
        outcome = await refused(way)
        assert (outcome.verdict, "8bd644d1-64a1-4d4b-ae52-2e0cbf64e373" in outcome.fix) == (Verdict.MISCONFIGURED, True)
