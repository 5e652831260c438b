"""gmail, mail that came back: by history and headers alone, or by the whole report; only ever looked at."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.backends.google.gmail import GmailSettings
from gateway.backends.google.returns import METADATA, READONLY
from gateway.model import Outcome, Verdict
from gateway.returned import Failed, Look, Returned
from tests.backends.gmail_fake import MAILBOX, SCOPE, Way, authorized_user_info, error, open_way
from tests.backends.gmail_returns_fake import Arrived, ReturnsFake
from tests.reports.ndr_kit import ORIGINAL_ID, exchange, gmail, ordinary, postfix


@asynccontextmanager
async def opened(path: Path, how: str = "metadata", **more: Any) -> AsyncIterator[tuple[Way, ReturnsFake]]:
    async with open_way(path, kind=ReturnsFake, **{"later_bounces": how} | more) as way:
        assert isinstance(way.fake, ReturnsFake)
        yield way, way.fake


async def always(one: Returned) -> bool:
    return True


async def look(way: Way, place: str = "") -> Look:
    found = await way.backend.returned(place, always)
    assert isinstance(found, Look), found
    return found


async def refused(way: Way, place: str = "") -> Outcome:
    found = await way.backend.returned(place, always)
    assert isinstance(found, Outcome), found
    return found


def test_settings_that_cannot_work_are_refused() -> None:
    values = {"mailbox": "sender", "service_account_file": "a", "senders": ["*@corp.example"]}
    with pytest.raises(ValidationError, match="later_bounces needs one mailbox"):
        GmailSettings.model_validate(values | {"later_bounces": "full"})


async def test_unless_it_is_wanted_nothing_is_looked_at(tmp_path: Path) -> None:
    async with open_way(tmp_path) as way:
        assert way.backend.returns == ""


async def test_headers_tell_who_failed_and_of_which_message(tmp_path: Path) -> None:
    """With the least scope: no body is asked for, and what is only late or of others says nothing."""
    async with opened(tmp_path) as (way, fake):
        fake.mail = [
            Arrived(gmail(), thread="19a3"),
            Arrived(gmail(late=True)),
            Arrived(postfix()),  # says in its body alone what it is about
            Arrived(ordinary("text/plain")),
            Arrived(gmail(whom="c@x.example"), ("SPAM",)),
            Arrived(b"From: a@corp.example\r\n\r\nours", ("SENT",)),
            Arrived(b"", gone=True),
        ]
        found = await look(way)
        assert way.backend.returns == "report"
        first, second = sorted(found.found, key=lambda one: one.failed[0].addresses)
        assert first == Returned((ORIGINAL_ID,), (Failed(("b@x.example",)),), remote_id="19a3", told=MAILBOX)
        assert second.failed == (Failed(("c@x.example",)),)
        assert {one.partition(" ")[2] for one in fake.got} == {"metadata"}
        assert found.more is False


async def test_the_whole_report_tells_why(tmp_path: Path) -> None:
    """Also what other servers sent; nothing but reports is read."""
    async with opened(tmp_path, "full") as (way, fake):
        fake.mail = [Arrived(gmail()), Arrived(postfix()), Arrived(gmail(late=True)), Arrived(ordinary("text/plain"))]
        fake.mail.append(Arrived(exchange(whom="e@x.example") + b"x" * 1_500_000))
        found = await look(way)
        told = sorted((one.failed[0].addresses[0], one.failed[0].enhanced, one.named) for one in found.found)
        ids = (ORIGINAL_ID,)
        expected = [("b@x.example", "5.1.1", ids), ("b@x.example", "5.1.1", ids), ("e@x.example", "5.1.10", ids)]
        assert told == expected
        assert sorted(one for one in fake.got if one.endswith("raw")) == ["m0 raw", "m1 raw", "m2 raw", "m4 raw"]


async def test_the_next_look_reads_only_what_is_new(tmp_path: Path) -> None:
    async with opened(tmp_path) as (way, fake):
        fake.mail = [Arrived(gmail())]
        place = (await look(way)).place
        fake.mail += [Arrived(gmail(whom="c@x.example")), Arrived(b"From: a@corp.example\r\n\r\n", ("SENT",))]
        fake.got.clear()
        found = await look(way, place)
        assert [one.failed[0].addresses for one in found.found] == [("c@x.example",)]
        assert fake.got == ["m1 metadata"]  # and of our own mail nothing
        assert (await look(way, found.place)).found == ()
        assert len((await look(way, place.replace(MAILBOX, "other@corp.example"))).found) == 2  # another mailbox


async def test_what_history_has_forgotten_is_listed(tmp_path: Path) -> None:
    """After a week without a look, say."""
    async with opened(tmp_path) as (way, fake):
        place = (await look(way)).place
        fake.mail, fake.oldest = [Arrived(gmail())], 1
        found = await look(way, place)
        assert len(found.found) == 1
        assert (await look(way, found.place)).found == ()


async def test_a_busy_mailbox_takes_several_looks(tmp_path: Path) -> None:
    """And nothing of it is lost between them."""
    async with opened(tmp_path, quota_units=1_000_000) as (way, fake):
        place = (await look(way)).place
        fake.mail = [Arrived(gmail(whom=f"u{n}@x.example")) for n in range(160)]
        people: list[str] = []
        looks = 0
        while True:
            found = await look(way, place)
            place, looks = found.place, looks + 1
            people += [one.failed[0].addresses[0] for one in found.found]
            if not found.more:
                break
        assert people == [f"u{n}@x.example" for n in range(160)]
        assert looks == 4  # of 50 messages each


@pytest.mark.parametrize(("how", "scope"), [("metadata", METADATA), ("full", READONLY)])
async def test_a_missing_scope_is_named_and_mail_is_sent_all_the_same(tmp_path: Path, how: str, scope: str) -> None:
    """A service account has two tokens, each for one thing."""
    async with opened(tmp_path, how) as (way, fake):
        fake.scopes = ()
        outcome = await refused(way)
        assert outcome.verdict is Verdict.MISCONFIGURED
        assert scope in outcome.fix
        assert (await way.one()).verdict is Verdict.SENT
        asked = [form["assertion"] for form in fake.token_requests]
        assert len(asked) == 2


async def test_a_sign_in_without_the_scope_is_named(tmp_path: Path) -> None:
    async with open_way(tmp_path, authorized_user_info(), kind=ReturnsFake, later_bounces="full") as way:
        outcome = await refused(way)
        assert re.search(r"gmail\.readonly besides gmail\.send.*gateway auth google --backend gm", outcome.fix)
        assert (await way.one()).verdict is Verdict.SENT
        way.fake.granted = f"{SCOPE} {METADATA} {READONLY}"  # which counts as if it had gmail.metadata alone
        assert isinstance(way.fake, ReturnsFake)
        way.fake.mail = [Arrived(gmail())]
        assert "gmail.readonly" in (await refused(way)).fix


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (error(429, "rateLimitExceeded", "slow down", retry="30"), Verdict.THROTTLED),
        (error(503, "backendError", "away"), Verdict.DEFERRED),
    ],
)
async def test_other_answers_say_when_to_come_again(tmp_path: Path, answer: bytes, verdict: Verdict) -> None:
    async with opened(tmp_path) as (way, fake):
        fake.answers = [answer]
        assert (await refused(way)).verdict is verdict
