"""gmail against a strict fake of Google: what is asked, who gets what, every known answer."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

import httplib2
import pytest
from google.oauth2 import service_account
from googleapiclient.discovery import build
from googleapiclient.http import MediaIoBaseUpload
from pydantic import ValidationError

from gateway.backends import settings_types
from gateway.backends.google import gmail
from gateway.backends.google.gmail import Gmail, GmailSettings
from gateway.config import ConfigError
from gateway.config.loading import load
from gateway.model import Outcome, Scope, Verdict
from tests.backends import kit
from tests.backends.gmail_fake import (
    MAILBOX,
    SEND,
    GoogleFake,
    Way,
    authorized_user_info,
    error,
    open_way,
    service_account_info,
    stored,
)
from tests.backends.kit import RAW, http
from tests.backends.test_calls import CASES, people, raw_of
from tests.fakes import START, FakeClock, until

HOUR = timedelta(hours=1)
V = Verdict


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[Way]:
    async with open_way(tmp_path) as value:
        yield value


def verdicts(outcomes: dict[str, Outcome]) -> list[str]:
    return [outcome.verdict.name for outcome in outcomes.values()]


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "one of them"),
        ({"service_account_file": "a", "authorized_user_file": "b"}, "one of them"),
        ({"mailbox": "me", "service_account_file": "a"}, "needs an authorized_user_file"),
        ({"mailbox": "sender", "authorized_user_file": "a"}, "needs a service_account_file"),
        ({"mailbox": "sender", "service_account_file": "a"}, "needs senders, such as"),
        ({"mailbox": "nobody", "service_account_file": "a"}, "give an address, sender or me"),
        ({"service_account_file": "a", "api_base": "http://gmail.googleapis.com"}, "not encrypted"),
        ({"service_account_file": "a", "token_url": "http://oauth2.googleapis.com"}, "not encrypted"),
        ({"service_account_file": "a", "max_recipients": 501}, "less than or equal to 500"),
        ({"service_account_file": "a", "max_recipients": 0}, "greater than or equal to 1"),
        ({"service_account_file": "a", "quota_units": 99}, "greater than or equal to 100"),
        ({"service_account_file": "a", "senders": ["corp.example"]}, "not an address pattern"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        GmailSettings.model_validate({"mailbox": MAILBOX} | changes)


@pytest.mark.parametrize(
    ("settings", "info", "senders"),
    [
        ({}, {}, (MAILBOX,)),
        ({"senders": ["*@corp.example"]}, {}, ("*@corp.example",)),
        ({"mailbox": "sender", "senders": ["*@corp.example"]}, {}, ("*@corp.example",)),
        ({"mailbox": "me"}, authorized_user_info(), (MAILBOX,)),
        ({"mailbox": "me", "senders": ["x@corp.example"]}, authorized_user_info(account=None), ("x@corp.example",)),
        ({}, authorized_user_info(), (MAILBOX,)),
    ],
)
async def test_senders_are_those_that_gmail_would_not_replace(
    tmp_path: Path, settings: dict[str, Any], info: dict[str, Any], senders: tuple[str, ...]
) -> None:
    """An unknown From is replaced with 200, so the door has to refuse it."""
    async with open_way(tmp_path, info or None, **settings) as way:
        assert way.backend.capabilities.senders == senders
        assert (way.backend.capabilities.max_bytes, way.backend.capabilities.null_sender) == (36_700_160, False)


async def test_without_an_account_in_the_file_somebody_has_to_say_who_sends(tmp_path: Path) -> None:
    file = stored(tmp_path, authorized_user_info(account=None))
    async with kit.context(tmp_path) as context:
        with pytest.raises(ValueError, match=r"backends\.gm\.mailbox: .* put that address here, or set senders"):
            Gmail("gm", GmailSettings(mailbox="me", authorized_user_file=file), context)


def test_senders_are_no_claims(tmp_path: Path) -> None:
    """They would match nobody: a backend does not know who has logged in."""
    backend = {"type": "gmail", "mailbox": MAILBOX, "senders": ["{email}"]}
    backend["service_account_file"] = str(stored(tmp_path, service_account_info()))
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"backends": {"g": backend}, "state_dir": str(tmp_path)}))
    with pytest.raises(ConfigError, match=r"backends\.g\.senders: \{sub\} and \{email\} stand for claims"):
        load(config, {}, settings_types())


async def test_a_file_that_is_no_sign_in_is_named_as_such(tmp_path: Path) -> None:
    """Whose it is would be the wrong question."""
    file = stored(tmp_path, {"installed": {"client_id": "x"}})
    async with kit.context(tmp_path) as context:
        with pytest.raises(ValueError, match=r"backends\.gm\.mailbox: .* is an OAuth client.*gateway auth google"):
            Gmail("gm", GmailSettings(mailbox="me", authorized_user_file=file), context)


# -- the request -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 2_000_000], ids=["small", "large"])
async def test_the_request_is_what_googles_own_client_sends(way: Way, size: int) -> None:
    raw = RAW + (b"x" * 70 + b"\r\n") * (size // 72)
    outcome = await way.one(raw=raw)
    service = build("gmail", "v1", http=httplib2.Http(), static_discovery=True)
    media = MediaIoBaseUpload(io.BytesIO(raw), mimetype="message/rfc822")
    theirs = service.users().messages().send(userId="me", media_body=media)
    (ours,) = way.sends
    parts, oracle = urlsplit(ours.path), urlsplit(theirs.uri)
    assert (ours.method, parts.path) == (theirs.method, oracle.path)
    assert f"{oracle.scheme}://{oracle.netloc}" == GmailSettings.model_fields["api_base"].default
    assert {*parse_qsl(parts.query), ("alt", "json")} == set(parse_qsl(oracle.query))  # json is the default
    assert ours.headers["content-type"] == theirs.headers["content-type"]
    assert ours.headers["accept"] == theirs.headers["accept"]
    assert ours.body == theirs.body == raw
    assert way.fake.delivered[0].mailbox == MAILBOX
    assert (outcome.verdict, outcome.code, outcome.remote_id) == (V.SENT, 200, "19a3f0c2d4e5b601")


async def test_a_retry_carries_the_same_bytes(way: Way) -> None:
    """One Message-ID over retries: nothing is made anew at send time."""
    raw = b"Message-ID: <one@corp.example>\r\n" + RAW
    await way.one(http(503), raw=raw)
    await way.one(raw=raw)
    first, second = way.sends
    assert first.body == second.body == raw


async def test_what_grows_over_the_limit_by_its_bcc_is_refused_and_not_tried(way: Way) -> None:
    raw = RAW.ljust(way.backend.capabilities.max_bytes, b"x")
    outcomes = await way.send("b@x.example", "blind@x.example", raw=raw)
    assert {(outcome.verdict, outcome.enhanced) for outcome in outcomes.values()} == {(V.REJECTED, "5.3.4")}
    assert way.sends == []
    assert verdicts(await way.send("b@x.example", raw=raw)) == ["SENT"]


# -- who gets it, and what they see ----------------------------------------------------------------------------------

# name, fields, envelope, and To and Cc as everybody sees them
MORE: list[tuple[str, list[str], list[str], list[str], list[str]]] = [
    ("Cc only", ["Cc: c@x.org"], ["c@x.org"], [], ["c@x.org"]),
    ("a Bcc, addressed", ["To: a@x.org", "Bcc: z@x.org"], ["a@x.org", "z@x.org"], ["a@x.org"], []),
    ("a Bcc, not addressed", ["To: a@x.org", "bcc: y@x.org,", " z@x.org"], ["a@x.org"], ["a@x.org"], []),
    ("Bcc only", ["Bcc: z@x.org, y@x.org"], ["z@x.org"], [], []),
    ("somebody else addressed", ["To: a@x.org", "Cc: b@x.org"], ["q@x.org"], [], []),
    ("named twice", ["To: a@x.org, a@x.org", "Cc: A@x.org"], ["a@x.org"], ["a@x.org", "a@x.org"], ["A@x.org"]),
    ("a group", ["To: T: a@x.org, b@x.org;, c@x.org"], ["a@x.org", "c@x.org"], ["a@x.org", "c@x.org"], []),
    ("an encoded comma", ["Cc: =?utf-8?b?RG9lLCBKw6TDvA==?= <a@x.org>"], ["a@x.org"], [], ["a@x.org"]),
    ("resent", ["Resent-To: r@x.org", "Resent-Cc: s@x.org", "To: a@x.org"], ["r@x.org"], [], []),
    (
        "below the MIME fields",
        ["MIME-Version: 1.0", "Content-Type: text/plain", "To: a@x.org", "Cc: b@x.org, n@x.org", "Bcc: n@x.org"],
        ["a@x.org", "b@x.org", "z@x.org"],
        ["a@x.org"],
        ["b@x.org"],
    ),
]


def as_gmail_shows(name: str, fields: list[str], envelope: list[str], calls: Any) -> Any:
    """A row of the shared table: what other APIs need a call of their own for goes as Bcc."""
    named = " ".join(fields).lower()
    to, cc = ([one for call in calls for one in call[place] if one.lower() in named] for place in (0, 1))
    return name, fields, envelope, to, cc


MATRIX = [*(as_gmail_shows(*case) for case in CASES), *MORE]


@pytest.mark.parametrize(
    ("fields", "envelope", "to", "cc"), [case[1:] for case in MATRIX], ids=[case[0] for case in MATRIX]
)
async def test_gmail_mails_exactly_the_envelope_and_discloses_nobody(
    way: Way, fields: list[str], envelope: list[str], to: list[str], cc: list[str]
) -> None:
    """Promise 3, with deliveries computed from the header as Gmail does. One call is enough: it hides Bcc."""
    outcomes = await way.send(*envelope, raw=raw_of(fields))
    assert {address: outcome.verdict for address, outcome in outcomes.items()} == dict.fromkeys(envelope, V.SENT)
    (delivery,) = way.fake.delivered
    assert {one.lower() for one in delivery.people} == {one.lower() for one in envelope}
    assert (people(delivery.seen, "to"), people(delivery.seen, "cc")) == (to, cc)
    assert b"\nbcc:" not in delivery.seen.lower()
    hidden = {one.lower() for one in envelope} - {one.lower() for one in to + cc}
    resent = " ".join(field for field in fields if field.startswith("Resent-"))
    assert not any(one.encode() in delivery.seen.lower() for one in hidden if one not in resent)
    assert delivery.seen.endswith(b"\r\n\r\nbody\r\n")


async def test_more_recipients_than_a_call_takes_go_in_several(way: Way) -> None:
    """Each call discloses its own visible people only, and hides its own blind ones only."""
    visible = [f"p{number}@x.example" for number in range(150)]
    blind = [f"z{number}@x.example" for number in range(90)]
    raw = b"From: a@corp.example\r\nTo: " + ",\r\n ".join(visible).encode() + b"\r\n\r\nbody\r\n"
    outcomes = await way.send(*visible, *blind, raw=raw)
    assert set(verdicts(outcomes)) == {"SENT"}
    assert [len(delivery.people) for delivery in way.fake.delivered] == [100, 100, 40]
    assert [one for delivery in way.fake.delivered for one in delivery.people if one in visible] == visible
    assert sorted(one for delivery in way.fake.delivered for one in delivery.people) == sorted(visible + blind)
    assert not any(one.encode() in delivery.seen for delivery in way.fake.delivered for one in blind)
    assert len({outcome.remote_id for outcome in outcomes.values()}) == 3


async def test_header_only_reject_and_max_recipients_are_settings(tmp_path: Path) -> None:
    async with open_way(tmp_path, header_only="reject", max_recipients=1) as way:
        raw = raw_of(["To: b@x.example, c@x.example"])
        assert verdicts(await way.send("b@x.example", raw=raw)) == ["REJECTED"]
        assert verdicts(await way.send("b@x.example", "c@x.example", raw=raw)) == ["SENT", "SENT"]
        assert [delivery.people for delivery in way.fake.delivered] == [["b@x.example"], ["c@x.example"]]


# -- every answer ----------------------------------------------------------------------------------------------------

LATER = "2026-11-20T12:10:00.000Z"  # ten minutes after START
ANSWERS: list[tuple[bytes, Verdict, str, timedelta | None, str]] = [
    (error(400, "invalidArgument", "Invalid To header"), V.REJECTED, "5.1.3", None, "Invalid To header"),
    (error(400, "invalidArgument", "Recipient address required"), V.REJECTED, "5.1.3", None, "required"),
    (error(400, "invalidArgument", "'raw' RFC822 payload message string or uploading message required"),
     V.REJECTED, "5.6.0", None, "please report it"),
    (error(400, "invalidArgument", "something else"), V.REJECTED, "5.6.0", None, "something else"),
    (error(400, "failedPrecondition", "Mail service not enabled"), V.MISCONFIGURED, "4.7.0", None, "licence"),
    (error(400, "", "Precondition check failed.", status="FAILED_PRECONDITION"),
     V.MISCONFIGURED, "4.7.0", None, "licence"),
    (error(400, "invalidArgument", "Message too large"), V.REJECTED, "5.3.4", None, "too large"),
    (error(413, "uploadTooLarge", "Request is too large."), V.REJECTED, "5.3.4", None, "too large"),
    (error(403, "insufficientPermissions", "Request had insufficient authentication scopes."),
     V.MISCONFIGURED, "4.7.0", None, "gmail.send"),
    (error(403, "accessNotConfigured", "Gmail API has not been used in project 1 before or it is disabled."),
     V.MISCONFIGURED, "4.7.0", None, "enable the Gmail API"),
    (error(403, "", "Gmail API has not been used in project 1", status="SERVICE_DISABLED"),
     V.MISCONFIGURED, "4.7.0", None, "enable the Gmail API"),
    (error(403, "domainPolicy", "The domain administrators have disabled Gmail apps."),
     V.MISCONFIGURED, "4.7.0", None, "admin.google.com"),
    (error(403, "forbidden", "Delegation denied for a@corp.example"), V.MISCONFIGURED, "4.7.0", None, "mailbox"),
    (error(403, "rateLimitExceeded", "Rate Limit Exceeded"), V.THROTTLED, "4.4.5", None, ""),
    (error(403, "userRateLimitExceeded", f"User-rate limit exceeded.  Retry after {LATER}"),
     V.THROTTLED, "4.4.5", timedelta(minutes=10), ""),
    (error(403, "quotaExceeded", "Quota exceeded for quota metric"), V.THROTTLED, "4.4.5", None, ""),
    (error(403, "somethingNew", "Over the quota"), V.THROTTLED, "4.4.5", None, ""),
    (error(403, "somethingNew", "No"), V.MISCONFIGURED, "4.7.0", None, ""),
    (error(403, "dailyLimitExceeded", "Daily Limit Exceeded"), V.THROTTLED, "4.4.5", HOUR, "Quotas"),
    (error(403, "dailyLimitExceeded", f"Retry after {LATER}"), V.THROTTLED, "4.4.5", HOUR, "Quotas"),
    (error(403, "dailyLimitExceeded", "Retry after 2026-11-20T15:00:00Z"), V.THROTTLED, "4.4.5", 3 * HOUR, ""),
    (error(404, "notFound", "Not Found", status="NOT_FOUND"), V.MISCONFIGURED, "4.3.5", None, "api_base"),
    (error(429, "rateLimitExceeded", "Too many concurrent requests for user"), V.THROTTLED, "4.4.5", None, ""),
    (error(429, "", "no", status="RESOURCE_EXHAUSTED"), V.THROTTLED, "4.4.5", None, ""),
    (error(429, "rateLimitExceeded", f"Mail sending limits. Retry after {LATER}", retry="60"),
     V.THROTTLED, "4.4.5", timedelta(minutes=10), ""),
    (error(429, "rateLimitExceeded", "x", retry="60"), V.THROTTLED, "4.4.5", timedelta(minutes=1), ""),
    (error(429, "rateLimitExceeded", "Retry after 2026-11-19T12:00:00Z"), V.THROTTLED, "4.4.5", None, ""),
    (error(429, "rateLimitExceeded", "Retry after 2027-11-19T12:00:00Z"), V.THROTTLED, "4.4.5", 24 * HOUR, ""),
    (error(429, "rateLimitExceeded", "Retry after 2026-99-19T12:00:00Z"), V.THROTTLED, "4.4.5", None, ""),
    (error(500, "backendError", "Backend Error"), V.DEFERRED, "4.3.0", None, ""),
    (error(502, "", ""), V.DEFERRED, "4.3.0", None, ""),
    (error(503, "backendError", f"Retry after {LATER}"), V.DEFERRED, "4.3.0", timedelta(minutes=10), ""),
    (http(504, "<html>"), V.DEFERRED, "4.3.0", None, ""),
    (http(302, "", {"Location": "https://elsewhere.example"}), V.MISCONFIGURED, "4.3.5", None, ""),
    # 200 that says nothing: it may have been sent
    (http(200), V.IN_DOUBT, "4.4.2", None, ""),
    (http(200, "OK"), V.IN_DOUBT, "4.4.2", None, ""),
    (http(200, "[]"), V.IN_DOUBT, "4.4.2", None, ""),
    (http(200, {"threadId": "1"}), V.IN_DOUBT, "4.4.2", None, ""),
    (http(200, {"id": ""}), V.IN_DOUBT, "4.4.2", None, ""),
    (http(200, {"error": "x"}), V.IN_DOUBT, "4.4.2", None, ""),
    (http(400, {"error": {"errors": "x", "details": [1, {}], "message": None}}), V.REJECTED, "5.6.0", None, ""),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "verdict", "enhanced", "wait", "words"), ANSWERS)
async def test_every_answer_has_its_verdict(
    way: Way, answer: bytes, verdict: Verdict, enhanced: str, wait: timedelta | None, words: str
) -> None:
    """Reason, then status, then HTTP; the time to come back stands in the text."""
    outcome = await way.one(answer)
    assert (outcome.verdict, outcome.enhanced, outcome.retry_after) == (verdict, enhanced, wait), outcome
    assert outcome.code == int(answer.split()[1])
    assert words in f"{outcome.detail} {outcome.fix}"
    assert ("request_refused" in [name for name, _ in way.signals.warnings]) == ("report it" in words)


async def test_the_reason_may_stand_in_the_details(way: Way) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED"}
    body = {"error": {"code": 403, "message": "no", "status": "PERMISSION_DENIED", "details": [info]}}
    outcome = await way.one(http(403, body))
    assert outcome.verdict is V.MISCONFIGURED
    assert "enable the Gmail API" in outcome.fix


async def test_the_token_stays_out_of_the_details(way: Way) -> None:
    def gossip(request: kit.Request) -> bytes:
        return error(
            400, "invalidArgument", f"bad {request.headers['authorization']} and {next(iter(way.fake.tokens))}"
        )

    outcome = await way.one(gossip)
    assert "hunter2" not in f"{outcome}"
    assert "***" in outcome.detail


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (kit.reset_at_once, "connection lost before the answer"),
        (kit.reset_in_body, "the answer broke off"),
        (kit.garbage, "unintelligible answer"),
        (kit.hang, "no answer within 0.2 s"),
    ],
)
async def test_a_lost_answer_is_in_doubt(tmp_path: Path, handler: kit.Handler, words: str) -> None:
    """The body went out; whoever would have come after it is not tried, and not in doubt."""
    timeout = timedelta(seconds=0.2) if handler is kit.hang else "5s"
    async with open_way(tmp_path, timeout=timeout, max_recipients=1) as way:
        way.fake.answers = [handler]
        outcomes = await way.send("b@x.example", "z@x.example")
        assert verdicts(outcomes) == ["IN_DOUBT", "DEFERRED"]
        assert words in outcomes["b@x.example"].detail
        assert {(one.code, one.scope) for one in outcomes.values()} == {(None, Scope.MESSAGE)}
        assert len(way.sends) == 1


# -- tokens ----------------------------------------------------------------------------------------------------------


async def test_a_refused_token_is_replaced_once_and_the_message_sent_again(way: Way) -> None:
    assert (await way.one()).verdict is V.SENT
    way.fake.tokens.clear()
    assert (await way.one()).verdict is V.SENT
    assert len(way.fake.token_requests) == 2
    assert len(way.sends) == 3
    assert len(way.fake.delivered) == 2


async def test_a_new_token_that_is_refused_too_pauses_the_backend(way: Way) -> None:
    refused = error(401, "authError", "Invalid Credentials", status="UNAUTHENTICATED")
    outcome = await way.one(refused, refused, refused)
    assert (outcome.verdict, outcome.code, outcome.enhanced) == (V.MISCONFIGURED, 401, "4.7.0")
    assert "api_base and token_url" in outcome.fix
    assert (len(way.sends), len(way.fake.token_requests)) == (2, 2)


async def test_a_hundred_sends_at_once_cause_one_refresh(tmp_path: Path) -> None:
    """Single flight, and whoever comes late with the refused token gets the new one."""
    async with open_way(tmp_path, quota_units=1_000_000) as way:
        assert (await way.one()).verdict is V.SENT
        way.fake.tokens.clear()
        outcomes = await asyncio.gather(*(way.send("b@x.example", queue_id=f"Q{number}") for number in range(100)))
        assert {verdict for outcome in outcomes for verdict in verdicts(outcome)} == {"SENT"}
        assert len(way.fake.token_requests) == 2
        assert len(way.fake.delivered) == 101


async def test_while_no_token_can_be_had_everything_waits_and_nothing_is_lost(way: Way) -> None:
    way.fake.token_answers = [http(503)] * 3
    for number in range(7):  # a minute, in steps of ten seconds: every failure counts for five
        outcome = await way.one()
        if len(way.fake.token_requests) <= 3 and outcome.verdict is not V.SENT:
            assert (outcome.verdict, outcome.code, outcome.enhanced) == (V.DEFERRED, None, "4.4.1"), number
        way.clock.advance(10)
    assert outcome.verdict is V.SENT
    assert len(way.sends) == len(way.fake.delivered) == 4
    assert [result for result, _ in way.signals.refreshes] == ["unavailable"] * 3 + ["ok"]


# -- mailbox: sender -------------------------------------------------------------------------------------------------


async def test_each_author_sends_from_his_own_mailbox(tmp_path: Path) -> None:
    async with open_way(tmp_path, mailbox="sender", senders=["*"]) as way:
        for author in (MAILBOX, "c@corp.example", "A@corp.example", ""):
            way.fake.users.add(author)
            assert verdicts(await way.send("b@x.example", author=author)) == ["SENT"]
        boxes = [delivery.mailbox for delivery in way.fake.delivered]
        assert boxes == [MAILBOX, "c@corp.example", MAILBOX, MAILBOX]  # without From the envelope sender is the author
        assert len(way.fake.token_requests) == 2


async def test_an_author_without_a_mailbox_is_the_messages_fault(tmp_path: Path) -> None:
    async with open_way(tmp_path, mailbox="sender", senders=["*"]) as way:
        outcome = (await way.send("b@x.example", author="gone@corp.example"))["b@x.example"]
        assert (outcome.verdict, outcome.enhanced) == (V.REJECTED, "5.1.8")
        assert "gone@corp.example" in outcome.detail
        assert verdicts(await way.send("b@x.example", author=MAILBOX)) == ["SENT"]


@pytest.mark.parametrize(("reason", "status"), [("failedPrecondition", 400), ("forbidden", 403)])
async def test_one_of_many_mailboxes_that_gmail_does_not_serve_pauses_nobody_else(
    tmp_path: Path, reason: str, status: int
) -> None:
    async with open_way(tmp_path, mailbox="sender", senders=["*"]) as way:
        outcome = await way.one(error(status, reason, "Mail service not enabled"), author=MAILBOX)
        assert (outcome.verdict, outcome.code, outcome.retry_after) == (V.DEFERRED, status, HOUR)
        assert outcome.fix


async def test_a_token_that_is_refused_for_one_mailbox_rests_that_alone(tmp_path: Path) -> None:
    """However often; for three different ones in a row it is refused for all, and the backend pauses."""
    refused = error(401, "authError", "Invalid Credentials", status="UNAUTHENTICATED")
    async with open_way(tmp_path, mailbox="sender", senders=["*"]) as way:
        authors = [f"u{number}@corp.example" for number in range(3)]
        way.fake.users |= {*authors, MAILBOX}
        for _ in range(4):
            outcome = await way.one(refused, refused, author=authors[0])
            assert (outcome.verdict, outcome.scope, outcome.retry_after) == (V.DEFERRED, Scope.MESSAGE, HOUR)
        assert (await way.one(refused, refused, author=authors[1])).verdict is V.DEFERRED
        outcome = await way.one(refused, refused, author=authors[2])
        assert (outcome.verdict, outcome.scope) == (V.MISCONFIGURED, Scope.BACKEND)
        assert verdicts(await way.send("b@x.example", author=MAILBOX)) == ["SENT"]
        assert (await way.one(refused, refused, author=authors[2])).verdict is V.DEFERRED


async def test_many_mailboxes_at_once_do_not_starve_the_loop_of_threads(tmp_path: Path) -> None:
    """Whoever waits for a token needs the loop, and it needs its threads to look up names; the key is read once."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    authors = [f"u{number}@corp.example" for number in range(5)]
    info = service_account_info(private_key_id="read for the first time")
    read = service_account.Credentials.from_service_account_info
    async with open_way(tmp_path, info, mailbox="sender", senders=["*"]) as way:
        way.fake.users |= set(authors)
        url = way.web.url.replace("127.0.0.1", "localhost") + "/token"
        way.backend = Gmail("gm", way.settings.model_copy(update={"token_url": url}), way.context)
        with mock.patch.object(service_account.Credentials, "from_service_account_info", side_effect=read) as reading:
            async with asyncio.timeout(5):
                answers = await asyncio.gather(*(way.send("b@x.example", author=author) for author in authors))
        assert [verdicts(one) for one in answers] == [["SENT"]] * 5
        assert reading.call_count == 1


async def test_a_throttled_mailbox_rests_alone(tmp_path: Path) -> None:
    async with open_way(tmp_path, mailbox="sender", senders=["*"]) as way:
        way.fake.answers = [error(429, "rateLimitExceeded", f"Retry after {LATER}")]
        outcome = (await way.send("b@x.example", author=MAILBOX))["b@x.example"]
        assert (outcome.verdict, outcome.retry_after) == (V.DEFERRED, timedelta(minutes=10))
        assert verdicts(await way.send("b@x.example", author="c@corp.example")) == ["SENT"]
        assert verdicts(await way.send("b@x.example", author=MAILBOX)) == ["DEFERRED"]
        assert len(way.sends) == 2
        way.clock.advance(600)
        assert verdicts(await way.send("b@x.example", author=MAILBOX)) == ["SENT"]


async def test_tokens_of_the_least_recently_used_mailbox_are_forgotten(tmp_path: Path) -> None:
    authors = ["c@corp.example", "d@corp.example", "c@corp.example", "e@corp.example", "c@corp.example"]
    with mock.patch.object(gmail, "_CACHES", 2):
        async with open_way(tmp_path, mailbox="sender", senders=["*"]) as way:
            way.fake.users |= set(authors)
            for author in [*authors, "d@corp.example"]:
                await way.send("b@x.example", author=author)
            assert len(way.fake.token_requests) == 4  # c, d, e, and d once more


# -- pace ------------------------------------------------------------------------------------------------------------


async def test_a_minute_has_as_many_sends_as_the_quota_allows(tmp_path: Path) -> None:
    """A send costs 100 units."""
    async with open_way(tmp_path, quota_units=300) as way:
        tasks = [asyncio.create_task(way.send("b@x.example", queue_id=f"Q{number}")) for number in range(5)]
        await until(lambda: sum(task.done() for task in tasks) == 3)
        assert len(way.sends) == 3
        way.clock.advance(60)
        await asyncio.gather(*tasks)
        assert len(way.sends) == 5


async def test_four_calls_at_a_time_for_one_mailbox(way: Way) -> None:
    gate, running, most = asyncio.Event(), 0, 0

    async def slow(request: kit.Request) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return http(200, {"id": "1"})

    way.fake.answers = [slow] * 12
    tasks = [asyncio.create_task(way.send("b@x.example", queue_id=f"Q{number}")) for number in range(12)]
    await until(lambda: running == 4)
    await way.context.fetch.request("GET", way.web.url, deadline=5)  # whoever else had set out is there by now
    gate.set()
    await asyncio.gather(*tasks)
    assert most == 4


async def test_closing_is_safe_while_others_still_ask_for_tokens(tmp_path: Path) -> None:
    """They get their turn as it lets go of one mailbox after the other."""
    async with open_way(tmp_path, mailbox="sender", senders=["*"]) as way:
        way.fake.token_answers = [kit.hang] * 3
        authors = [MAILBOX, "c@corp.example", "c@corp.example"]
        first = [asyncio.create_task(way.send("b@x.example", author=author)) for author in authors[:2]]
        await until(lambda: len(way.fake.token_requests) == 2)
        closing = asyncio.create_task(way.backend.aclose())
        late = asyncio.create_task(way.send("b@x.example", author=MAILBOX))
        await closing
        way.fake.token_answers = []
        assert [verdicts(one) for one in await asyncio.gather(*first)] == [["DEFERRED"]] * 2
        assert set(await late) == {"b@x.example"}


# -- check -----------------------------------------------------------------------------------------------------------


async def test_check_says_who_sends_by_which_token(tmp_path: Path) -> None:
    async with open_way(tmp_path) as way:
        check = await way.backend.check()
    assert check.ok
    assert {key: check.facts[key] for key in ("identity", "mailbox", "scopes", "token until")} == {
        "identity": "sa@proj.iam.gserviceaccount.com",
        "mailbox": MAILBOX,
        "scopes": "https://www.googleapis.com/auth/gmail.send",
        "token until": f"{START + timedelta(seconds=3599):%Y-%m-%d %H:%M:%SZ}",
    }
    assert way.sends == []


@pytest.mark.parametrize(
    ("senders", "summary", "fix"),
    [
        (["*@corp.example"], "knows the service account", "add one whole address"),
        (["*@corp.example", MAILBOX], f"to send as {MAILBOX}", ""),
    ],
)
async def test_check_of_many_mailboxes_tries_one_that_is_named(
    tmp_path: Path, senders: list[str], summary: str, fix: str
) -> None:
    async with open_way(tmp_path, mailbox="sender", senders=senders) as way:
        check = await way.backend.check()
    assert check.ok
    assert summary in check.summary
    assert fix in check.fix
    assert bool(check.fix) == bool(fix)


async def test_check_asks_again_whatever_came_last(tmp_path: Path) -> None:
    async with open_way(tmp_path, authorized_user_info(refresh_token="1//old")) as way:
        first = await way.backend.check()
        assert not first.ok
        assert "gateway auth google --backend gm" in first.fix
        assert (await way.one()).verdict is V.MISCONFIGURED
        assert len(way.fake.token_requests) == 1
        stored(tmp_path, authorized_user_info())  # what signing in again does
        assert (await way.backend.check()).ok
        assert (await way.one()).verdict is V.SENT


@pytest.mark.parametrize("info", [service_account_info(), authorized_user_info()], ids=["service", "user"])
async def test_nothing_secret_is_told(tmp_path: Path, info: dict[str, Any]) -> None:
    """Not even where Google repeats it."""
    async with open_way(tmp_path, info) as way:
        outcomes = [await way.one(), await way.one(error(403, "forbidden", "no"))]
        way.fake.tokens.clear()
        text = " ".join(str(info.get(name)) for name in ("refresh_token", "client_secret", "private_key"))
        way.fake.token_answers = [http(400, {"error": "invalid_grant", "error_description": text})]
        outcomes.append(await way.one())
        check = await way.backend.check()
        told = f"{outcomes} {check} {way.settings!r} {way.signals}"
    assert "***" in told
    assert "hunter2" not in told
    assert "PRIVATE KEY" not in told


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"method": "PUT"}, 405),
        ({"path": SEND.replace("uploadType=media", "uploadType=multipart")}, 404),
        ({"path": SEND.replace("/me/", "/b@corp.example/")}, 404),
        ({"path": "/gmail/v1/users/me/messages/send"}, 404),
        ({"content-type": "application/json"}, 400),
        ({"accept": "*/*"}, 400),
        ({"authorization": "Bearer unknown"}, 401),
        ({"authorization": "Bearer old"}, 401),
        ({"authorization": "Bearer nobody"}, 400),
        ({"body": RAW.replace(b"\r\n", b"\n")}, 400),
        ({"body": b"From: a@corp.example\r\n\r\n"}, 400),
        ({"body": b"To: " + b"a@x.org, " * 101 + b"\r\n\r\n"}, 400),
        ({"body": b"To: @x\r\n\r\n"}, 400),
        ({"body": bytes(36_700_161)}, 413),
    ],
)
def test_the_fake_is_as_strict_as_gmail(change: dict[str, Any], status: int) -> None:
    fake = GoogleFake(FakeClock())
    good, old = START + HOUR, START
    fake.tokens = {"good": (MAILBOX, good), "old": (MAILBOX, old), "nobody": ("", good)}
    given = {"method": "POST", "path": SEND, "body": RAW, "authorization": "Bearer good"}
    given |= {"content-type": "message/rfc822", "accept": "application/json", **change}
    headers = {name: given[name] for name in ("authorization", "content-type", "accept")}
    answer = fake(kit.Request(given["method"], given["path"], headers, given["body"], mock.Mock(), mock.Mock()))
    assert isinstance(answer, bytes)
    assert int(answer.split()[1]) == status
    assert len(fake.delivered) == (status == 200)
