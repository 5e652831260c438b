"""graph against a strict fake of Microsoft Graph: what is asked, every answer that is known, and lost answers."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.backends.microsoft.graph import Graph, GraphSettings
from gateway.fetch import Answer, Fetch, NotSent
from gateway.model import Outcome, Verdict
from tests.backends import kit
from tests.backends.graph_fake import CLIENT, MAILBOX, SECRET, TENANT, Way, error, open_way
from tests.backends.kit import RAW, http
from tests.backends.test_calls import CASES, people, raw_of
from tests.fakes import until

HOUR = timedelta(hours=1)
# A lost answer to GET, PUT or DELETE needs two of them: aiohttp asks once more by itself where that does no harm.
MESSAGE_ID = "<it's@corp.example>"
IDENTIFIED = RAW.replace(b"Subject:", f"Message-ID: {MESSAGE_ID}\r\nSubject:".encode())
DOUBT: dict[str, Any] = {"raw": IDENTIFIED, "doubtful": True, "message_id": MESSAGE_ID}
V = Verdict


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[Way]:
    async with open_way(tmp_path) as value:
        yield value


def requests(way: Way, part: str) -> list[kit.Request]:
    return [request for request in way.web.requests if part in request.path]


# -- the request -----------------------------------------------------------------------------------------------------


async def test_the_request_is_what_graph_describes(way: Way) -> None:
    outcome = await way.one()
    (request,) = requests(way, "sendMail")
    assert (request.method, request.path) == ("POST", f"/v1.0/users/{MAILBOX}/sendMail")
    assert request.headers["content-type"] == "text/plain"
    assert request.body == base64.b64encode(RAW)
    given = request.headers["client-request-id"]
    assert uuid.UUID(given)
    assert outcome == Outcome(V.SENT, 202, "2.0.0", f"client-request-id {given}", given, said_by="http")
    assert [form["scope"] for form in way.fake.forms] == ["https://graph.microsoft.com/.default"]


async def test_the_request_id_is_the_same_for_the_same_mail(way: Way) -> None:
    """So that Microsoft's support finds all attempts."""
    for queue_id in ("Q1", "Q1", "Q2"):
        await way.one(id=queue_id)
    first, again, other = way.fake.request_ids
    assert first == again != other


async def test_a_large_message_is_encoded_as_a_small_one(way: Way) -> None:
    raw = RAW + b"".join(bytes(range(32, 127)) + b"\r\n" for _ in range(30_000))
    assert len(raw) < way.backend.capabilities.max_bytes
    assert (await way.one(raw=raw)).verdict is V.SENT
    assert way.fake.delivered == [(["b@x.example"], raw)]


class Nowhere(Fetch):
    """Reaches nobody, and remembers who was asked for."""

    asked = ""

    async def request(self, method: str, url: str, **_: Any) -> Answer:
        self.asked = url
        raise NotSent("nowhere")


OWN = {"cloud": "usgov", "api_base": "https://p.example/g/", "authority": "https://l.example/"}
CLOUDS: list[tuple[dict[str, Any], str, str, str]] = [
    ({}, "graph.microsoft.com", "login.microsoftonline.com", "graph.microsoft.com"),
    ({"cloud": "usgov"}, "graph.microsoft.us", "login.microsoftonline.us", "graph.microsoft.us"),
    ({"cloud": "dod"}, "dod-graph.microsoft.us", "login.microsoftonline.us", "dod-graph.microsoft.us"),
    ({"cloud": "china"}, "microsoftgraph.chinacloudapi.cn", "login.partner.microsoftonline.cn",
     "microsoftgraph.chinacloudapi.cn"),
    (OWN, "p.example/g", "l.example", "graph.microsoft.us"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "api", "login", "resource"), CLOUDS)
async def test_the_cloud_chooses_the_addresses(
    tmp_path: Path, settings: dict[str, Any], api: str, login: str, resource: str
) -> None:
    async with open_way(tmp_path, **{"api_base": None, "authority": None} | settings) as way:
        fetch = Nowhere()
        check = await Graph("office", way.settings, replace(way.context, fetch=fetch)).check()
        await fetch.aclose()
        assert (check.facts["api"], check.facts["authority"]) == (f"https://{api}", f"https://{login}/{TENANT}")
        assert fetch.asked == f"https://{login}/{TENANT}/v2.0/.well-known/openid-configuration"
        assert way.settings.identity("office", tmp_path).resource == f"https://{resource}"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"client_secret": None}, "exactly one of"),
    ({"device_login": True}, "exactly one of"),
    ({"client_id": None}, "client_id is missing"),
    ({"tenant": None}, "tenant is missing"),
    ({"tenant": "common"}, "device_login only"),
    ({"tenant": "a/b"}, "this holds more than that: a tenant is a GUID, or a domain"),
    ({"tenant": f"https://login.microsoftonline.com/{CLIENT}"}, "this holds more than that: a tenant is a GUID"),
    ({"tenant": "Contoso"}, 'a domain that is verified there such as .*"Directory .tenant. ID"'),
    ({"tenant": SECRET}, "this looks like the value of a secret, and a tenant is"),
    ({"tenant": "Contoso", "authority": "https://login.microsoftonline.com"}, "a domain that is verified there"),
    ({"tenant": "a b", "authority": "https://login.example"}, "a tenant is a GUID"),
    ({"client_id": "my mailer"}, 'this looks like a name, and a client_id is a GUID; .*"Application .client. ID"'),
    ({"client_id": SECRET}, "this looks like the value of a secret, and a client_id"),
    ({"client_secret": CLIENT}, 'is a GUID, as the id of a secret or of the app is; what is wanted is its "Value"'),
    ({"mailbox": "nobody"}, "give an address, sender or me"),
    ({"mailbox": "*@corp.example"}, "write mailbox: sender, and the pattern in senders"),
    ({"mailbox": "me"}, "needs device_login"),
    ({"mailbox": "me", "client_secret": None, "device_login": True}, "in senders the address"),
    ({"api_base": "http://graph.example"}, "use https"),
    ({"authority": "http://login.example"}, "use https"),
    ({"max_recipients": 1001}, "max_recipients"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    values = {"tenant": TENANT, "client_id": CLIENT, "client_secret": SECRET, "mailbox": MAILBOX} | changes
    with pytest.raises(ValidationError, match=words):
        GraphSettings.model_validate({name: value for name, value in values.items() if value is not None})


def test_whoever_is_asked_instead_of_microsoft_names_tenants_as_he_likes(tmp_path: Path) -> None:
    values = {"tenant": "t", "authority": "https://login.example", "client_id": CLIENT, "client_secret": SECRET}
    settings = GraphSettings.model_validate(values | {"mailbox": MAILBOX})
    assert settings.identity("office", tmp_path).authority == "https://login.example/t"


@pytest.mark.parametrize(
    ("settings", "senders", "max_bytes", "whole", "lacks"),
    [
        ({}, (MAILBOX,), 3_000_000, 0, False),
        ({"senders": ["*@corp.example"]}, ("*@corp.example",), 3_000_000, 0, False),
        ({"mailbox": "sender"}, (), 3_000_000, 0, False),
        ({"large_messages": "draft"}, (MAILBOX,), 36_700_160, 3_000_000, True),
        ({"large_messages": "draft", "max_size": "5MB"}, (MAILBOX,), 5_000_000, 3_000_000, True),
    ],
)
async def test_what_the_door_is_told(
    tmp_path: Path, settings: dict[str, Any], senders: tuple[str, ...], max_bytes: int, whole: int, lacks: bool
) -> None:
    async with open_way(tmp_path, **settings) as way:
        limits = way.backend.capabilities
        assert (limits.senders, limits.max_bytes, limits.whole_bytes) == (senders, max_bytes, whole)
        unsaid = {"charset", "no_charset"}
        assert limits.lacks == ({"signed", "encrypted", "calendar", "report", "malformed", *unsaid} if lacks else set())
        assert not limits.null_sender
        hint = limits.size_hint.format(name="office")
        assert hint == ("" if lacks else "set large_messages: draft on backends.office, which needs Mail.ReadWrite")


# -- every answer ----------------------------------------------------------------------------------------------------

ANSWERS: list[tuple[int, str, Verdict, str, timedelta | None]] = [
    (400, "ErrorMimeContentInvalidBase64String", V.REJECTED, "5.6.0", None),
    (400, "ErrorMimeContentInvalid", V.REJECTED, "5.6.0", None),
    (400, "ErrorInvalidRecipients", V.REJECTED, "5.1.3", None),
    (400, "ErrorMissingRecipients", V.REJECTED, "5.1.3", None),
    (400, "ErrorInvalidSmtpAddress", V.REJECTED, "5.1.3", None),
    (400, "ErrorMessageSizeExceeded", V.REJECTED, "5.3.4", None),
    (413, "RequestEntityTooLarge", V.REJECTED, "5.3.4", None),
    (413, "", V.REJECTED, "5.3.4", None),
    (400, "BadRequest", V.REJECTED, "5.6.0", None),
    (400, "ErrorInvalidUser", V.MISCONFIGURED, "4.3.5", None),
    (404, "ErrorInvalidUser", V.MISCONFIGURED, "4.3.5", None),
    (404, "Request_ResourceNotFound", V.MISCONFIGURED, "4.3.5", None),
    (400, "ErrorNonExistentMailbox", V.MISCONFIGURED, "4.3.5", None),
    (404, "ErrorNonExistentMailbox", V.MISCONFIGURED, "4.3.5", None),
    (403, "ErrorAccessDenied", V.MISCONFIGURED, "4.7.0", None),
    (403, "ErrorSendAsDenied", V.REJECTED, "5.7.1", None),
    (403, "ErrorExceededMessageLimit", V.THROTTLED, "4.4.5", HOUR),
    (403, "ErrorExceededHourlyMessageLimit", V.THROTTLED, "4.4.5", HOUR),
    (403, "ErrorSubmissionQuotaExceeded", V.THROTTLED, "4.4.5", HOUR),
    (403, "ErrorExceededMaxRecipientLimit", V.DEFERRED, "4.5.3", None),
    (403, "ErrorMessageSubmissionBlocked", V.MISCONFIGURED, "4.7.0", None),
    (403, "ErrorAccountSuspend", V.MISCONFIGURED, "4.7.0", None),
    (403, "ErrorAccountDisabled", V.MISCONFIGURED, "4.7.0", None),
    (403, "ErrorQuotaExceeded", V.DEFERRED, "4.2.2", HOUR),
    (507, "ErrorQuotaExceeded", V.DEFERRED, "4.2.2", HOUR),
    (507, "quotaLimitReached", V.DEFERRED, "4.2.2", HOUR),
    (404, "MailboxNotEnabledForRESTAPI", V.MISCONFIGURED, "4.3.5", None),
    (404, "MailboxNotSupportedForRESTAPI", V.MISCONFIGURED, "4.3.5", None),
    (404, "ErrorItemNotFound", V.DEFERRED, "4.3.0", None),
    (409, "ErrorIrresolvableConflict", V.DEFERRED, "4.3.0", None),
    (412, "ErrorStaleObject", V.DEFERRED, "4.3.0", None),
    (429, "ApplicationThrottled", V.THROTTLED, "4.4.5", None),
    (429, "TooManyRequests", V.THROTTLED, "4.4.5", None),
    (429, "activityLimitReached", V.THROTTLED, "4.4.5", None),
    (429, "", V.THROTTLED, "4.4.5", None),
    (503, "ErrorServerBusy", V.DEFERRED, "4.3.0", None),
    (503, "ErrorMailboxStoreUnavailable", V.DEFERRED, "4.3.0", None),
    (503, "ErrorMailboxMoveInProgress", V.DEFERRED, "4.3.0", None),
    (500, "ErrorMailboxFailover", V.DEFERRED, "4.3.0", None),
    (503, "ErrorTimeoutExpired", V.DEFERRED, "4.3.0", None),
    (500, "ErrorInternalServerError", V.DEFERRED, "4.3.0", None),
    (503, "serviceNotAvailable", V.DEFERRED, "4.3.0", None),
    (509, "", V.DEFERRED, "4.3.0", None),
    (502, "", V.DEFERRED, "4.3.0", None),
    (400, "ErrorVirusDetected", V.REJECTED, "5.7.0", None),
    (500, "ErrorVirusDetected", V.REJECTED, "5.7.0", None),
    (400, "SomethingNew", V.REJECTED, "5.6.0", None),
    (403, "SomethingNew", V.MISCONFIGURED, "4.7.0", None),
    (404, "", V.MISCONFIGURED, "4.3.5", None),
    (302, "", V.MISCONFIGURED, "4.3.5", None),
    # peers.md 18: mail has been sent, and the answer was 504
    (504, "UnknownError", V.IN_DOUBT, "4.4.2", None),
    (504, "ErrorTimeoutExpired", V.IN_DOUBT, "4.4.2", None),
    # anything else than 202 is no success (2.1)
    (200, "", V.IN_DOUBT, "4.4.2", None),
    (201, "", V.IN_DOUBT, "4.4.2", None),
    (204, "", V.IN_DOUBT, "4.4.2", None),
]


@pytest.mark.parametrize(("status", "code", "verdict", "enhanced", "wait"), ANSWERS)
async def test_every_answer_has_its_verdict(
    way: Way, status: int, code: str, verdict: Verdict, enhanced: str, wait: timedelta | None
) -> None:
    outcome = await way.one("sendMail", error(status, code, "words") if code else http(status))
    assert (outcome.verdict, outcome.code, outcome.enhanced, outcome.retry_after) == (verdict, status, enhanced, wait)
    assert outcome.detail.startswith(f"HTTP {status} {code} words".replace("  words", "") if code else f"HTTP {status}")
    assert f"client-request-id {way.web.requests[-1].headers['client-request-id']}" in outcome.detail


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ErrorSendAsDenied", "Send As"),
        ("ErrorAccessDenied", "docs/microsoft365.md"),
        ("ErrorExceededMaxRecipientLimit", "backends.office.max_recipients"),
        ("ErrorInvalidUser", "backends.office.mailbox"),
        ("ErrorMessageSubmissionBlocked", "unblock"),
        ("MailboxNotEnabledForRESTAPI", "Exchange Online"),
        ("ErrorQuotaExceeded", "make room"),
    ],
)
async def test_where_a_person_must_act_the_fix_says_how(way: Way, code: str, words: str) -> None:
    assert words in (await way.one("sendMail", error(403, code))).fix


async def test_the_innermost_code_that_is_known_decides(way: Way) -> None:
    outcome = await way.one("sendMail", error(403, "AccessDenied", inner="ErrorSendAsDenied"))
    assert (outcome.verdict, outcome.enhanced) == (V.REJECTED, "5.7.1")
    outcome = await way.one("sendMail", error(403, "ErrorAccessDenied", inner="whoever"))
    assert (outcome.verdict, outcome.enhanced) == (V.MISCONFIGURED, "4.7.0")


async def test_too_long_a_request_in_the_words_of_graph(way: Way) -> None:
    answer = error(400, "BadRequest", "The maximum request length supported is 4MB.")
    outcome = await way.one("sendMail", answer)
    assert (outcome.verdict, outcome.enhanced) == (V.REJECTED, "5.3.4")


async def test_a_large_mail_answered_with_200_is_too_large(way: Way) -> None:
    """graph-docs 13979: so has mail above some limit been answered, and never sent."""
    outcome = await way.one("sendMail", http(200), raw=RAW + b"x" * 2_400_000)
    assert (outcome.verdict, outcome.code, outcome.enhanced) == (V.REJECTED, 200, "5.3.4")


@pytest.mark.parametrize(
    ("status", "code", "given", "wait"),
    [
        (429, "ApplicationThrottled", "1", timedelta(seconds=1)),
        (429, "ApplicationThrottled", "120", timedelta(seconds=120)),
        (503, "ErrorServerBusy", "7", timedelta(seconds=7)),
        (403, "ErrorExceededMessageLimit", "60", HOUR),
        (403, "ErrorExceededMessageLimit", "7200", 2 * HOUR),
    ],
)
async def test_retry_after_counts(way: Way, status: int, code: str, given: str, wait: timedelta) -> None:
    """Shorter than a minute too; a limit of the day lasts an hour at least. What grows is the pause, not this."""
    assert (await way.one("sendMail", error(status, code, Retry_After=given))).retry_after == wait


LOST = [
    (kit.reset_at_once, "connection lost before the answer"),
    (kit.reset_in_body, "the answer broke off"),
    (kit.garbage, "unintelligible answer"),
    (kit.hang, "no answer within 0.2 s"),
]


@pytest.mark.parametrize(("handler", "words"), LOST)
async def test_a_lost_answer_is_in_doubt(tmp_path: Path, handler: kit.Handler, words: str) -> None:
    async with open_way(tmp_path, timeout=timedelta(seconds=0.2) if handler is kit.hang else "5s") as way:
        outcome = await way.one("sendMail", handler)
        assert (outcome.verdict, outcome.code, outcome.enhanced, outcome.remote_id) == (V.IN_DOUBT, None, "4.4.2", "")
        assert words in outcome.detail


# -- recipients ------------------------------------------------------------------------------------------------------


def visible(fields: list[str], envelope: list[str]) -> set[str]:
    """Of the envelope, those who stand in To or Cc."""
    raw = raw_of(fields)
    named = {one.lower() for name in ("to", "cc") for one in people(raw, name)}
    return {address for address in envelope if address.lower() in named}


MATRIX = [*CASES, ("resent", ["To: a@x.org", "Resent-To: r@x.org", "Resent-Cc: s@x.org"], ["a@x.org", "z@x.org"], [])]


@pytest.mark.parametrize(("fields", "envelope"), [case[1:3] for case in MATRIX], ids=[case[0] for case in MATRIX])
@pytest.mark.parametrize("safe_send", [False, True])
async def test_graph_mails_the_envelope_and_discloses_nobody(
    tmp_path: Path, safe_send: bool, fields: list[str], envelope: list[str]
) -> None:
    """Promise 3. One call: blind recipients stand in Bcc, which Exchange hides; nobody else is mailed."""
    async with open_way(tmp_path, mailbox="me@corp.example", safe_send=safe_send) as way:
        way.fake.mailboxes.add("me@corp.example")
        way.fake.permissions = "Mail.Send Mail.ReadWrite"
        outcomes = await way.send(*envelope, raw=raw_of(fields))
        assert {address: one.verdict for address, one in outcomes.items()} == dict.fromkeys(envelope, V.SENT), outcomes
        ((mailed, raw),) = way.fake.delivered
    assert sorted(person.lower() for person in mailed) == sorted(address.lower() for address in envelope)
    seen = visible(fields, envelope)
    shown = {person.lower() for name in ("to", "cc") for person in people(raw, name)}
    assert shown == {address.lower() for address in seen}
    assert sorted(people(raw, "bcc")) == sorted(set(envelope) - seen)
    assert raw.endswith(b"Subject: s\r\n\r\nbody\r\n")


async def test_more_recipients_than_a_message_may_have_take_several_calls(tmp_path: Path) -> None:
    async with open_way(tmp_path, max_recipients=100) as way:
        crowd = [f"p{number}@x.example" for number in range(230)]
        outcomes = await way.send(*crowd)
        assert {outcome.verdict for outcome in outcomes.values()} == {V.SENT}
        assert [len(served) for served, _ in way.fake.delivered] == [100, 100, 30]
        assert len(set(way.fake.request_ids)) == 3


async def test_the_null_sender_is_refused_and_not_tried(way: Way) -> None:
    outcome = (await way.backend.send(kit.spooled(sender=""), RAW))["b@x.example"]
    assert (outcome.verdict, outcome.enhanced, way.web.requests) == (V.REJECTED, "5.7.1", [])


@pytest.mark.parametrize(("only", "verdict"), [("strip", V.SENT), ("reject", V.REJECTED)])
async def test_people_who_are_not_addressed_are_stripped_or_the_mail_refused(
    tmp_path: Path, only: str, verdict: Verdict
) -> None:
    async with open_way(tmp_path, header_only=only) as way:
        outcome = await way.one(raw=RAW.replace(b"To: b@x.example", b"To: b@x.example, c@x.example"))
        assert (outcome.verdict, "c@x.example" in outcome.detail) == (verdict, True)


# -- doubt -----------------------------------------------------------------------------------------------------------


async def test_after_doubt_whoever_got_it_is_not_mailed_again(way: Way) -> None:
    """Found among the sent mail by its Message-ID; quotes in it do no harm, and the rest is sent."""
    way.fake.permissions = "Mail.Send Mail.ReadBasic.All"
    way.fake.lose = ["sendMail"]
    outcomes = await way.send("b@x.example", "blind@x.example", raw=IDENTIFIED)
    assert {outcome.verdict for outcome in outcomes.values()} == {V.IN_DOUBT}
    outcomes = await way.send("B@X.example", "blind@x.example", "new@x.example", **DOUBT)
    assert {outcome.verdict for outcome in outcomes.values()} == {V.SENT}
    assert [sorted(served) for served, _ in way.fake.delivered] == [
        ["b@x.example", "blind@x.example"],
        ["new@x.example"],
    ]
    assert "sent by an earlier attempt; found in Sent Items" in outcomes["B@X.example"].detail
    assert "not addressed" not in outcomes["new@x.example"].detail


async def test_after_doubt_what_nobody_got_is_sent(way: Way) -> None:
    way.fake.permissions = "Mail.Send Mail.Read"
    outcome = await way.one(**DOUBT)
    assert (outcome.verdict, way.fake.calls[-2:]) == (V.SENT, ["filter", "sendMail"])


async def test_without_the_permission_to_look_it_is_sent_and_noted(way: Way) -> None:
    outcome = await way.one(**DOUBT)
    assert outcome.verdict is V.SENT
    assert outcome.detail.endswith("; not looked up after a lost answer, that needs Mail.Read or Mail.ReadBasic")


async def test_without_message_id_it_is_sent_and_noted(way: Way) -> None:
    outcome = await way.one(doubtful=True)
    assert outcome.detail.endswith("; not looked up, there is no Message-ID")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (kit.reset_at_once, V.DEFERRED),
        (http(503), V.DEFERRED),
        (http(504), V.DEFERRED),
        (http(200, "<html>"), V.DEFERRED),
        (http(200, {"value": None}), V.DEFERRED),
        (http(200, {"value": [{"id": "x"}]}), V.DEFERRED),
        (http(200, {"value": [{"isDraft": False, "toRecipients": [1]}]}), V.DEFERRED),
        (http(200, {"value": [{"isDraft": True}]}), V.SENT),
        (error(429, "ApplicationThrottled"), V.THROTTLED),
        (http(418), V.DEFERRED),
    ],
)
async def test_while_it_cannot_be_looked_up_nothing_is_sent(way: Way, answer: Any, verdict: Verdict) -> None:
    outcome = await way.one("filter", answer, *[answer] * callable(answer), **DOUBT)
    assert outcome.verdict is verdict
    assert bool(way.fake.delivered) == (verdict is V.SENT)


async def test_a_message_id_that_graph_will_not_search_for_bounces_nothing(way: Way) -> None:
    """The look-up is refused, not the mail."""
    outcome = await way.one("filter", error(400, "ErrorInvalidUrlQueryFilter"), **DOUBT)
    assert outcome.verdict is V.SENT
    assert outcome.detail.endswith("Graph refuses to search for its Message-ID")


async def test_every_copy_is_looked_up_and_not_the_first_page(tmp_path: Path) -> None:
    """Graph shows ten items unless asked for more; each call has left one."""
    async with open_way(tmp_path, max_recipients=1) as way:
        way.fake.permissions = "Mail.Send Mail.Read"
        crowd = [f"p{number}@x.example" for number in range(25)]
        await way.send(*crowd, raw=IDENTIFIED)
        await way.send(*crowd, **DOUBT)
        assert len(way.fake.delivered) == 25


async def test_a_token_that_fails_at_the_look_up_sends_nothing(way: Way) -> None:
    outcome = await way.one("token", http(503), **DOUBT)
    assert (outcome.verdict, way.fake.delivered) == (V.DEFERRED, [])


# -- safe_send -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def safe(tmp_path: Path) -> AsyncIterator[Way]:
    async with open_way(tmp_path, safe_send=True) as value:
        value.fake.permissions = "Mail.Send Mail.ReadWrite"
        yield value


async def test_a_safe_send_is_a_draft_and_its_sending(safe: Way) -> None:
    outcome = await safe.one()
    assert safe.fake.delivered == [(["b@x.example"], RAW)]
    draft = next(iter(safe.fake.items))
    assert outcome == Outcome(V.SENT, 202, "2.0.0", "sent from a draft", draft, said_by="http")
    assert safe.fake.calls == ["discovery", "token", "draft", "send"]


@pytest.mark.parametrize(
    ("script", "verdict", "mails"),
    [
        ({"lose": ["send"]}, V.SENT, 1),  # it went out: the draft says so
        ({"send": [kit.reset_at_once]}, V.SENT, 1),  # it did not: once more
        ({"send": [kit.reset_at_once, kit.reset_at_once]}, V.IN_DOUBT, 0),
        ({"send": [http(504)]}, V.SENT, 1),
        ({"lose": ["send"], "get": [http(404)]}, V.SENT, 1),  # on its way to Sent Items
        ({"lose": ["send"], "get": [http(404), http(404)]}, V.IN_DOUBT, 1),
        ({"lose": ["send"], "get": [kit.reset_at_once] * 2}, V.IN_DOUBT, 1),
        ({"lose": ["send"], "get": [http(200, {"isDraft": "?"})]}, V.IN_DOUBT, 1),
        ({"send": [http(503)]}, V.DEFERRED, 0),  # and the draft says that it was not sent
        ({"send": [error(429, "ApplicationThrottled")]}, V.THROTTLED, 0),
        ({"send": [error(403, "ErrorSendAsDenied")]}, V.REJECTED, 0),
        ({"draft": [kit.reset_at_once]}, V.DEFERRED, 0),
        ({"draft": [http(504)]}, V.DEFERRED, 0),
        ({"draft": [http(201, "{}")]}, V.DEFERRED, 0),
        ({"draft": [http(200, {"id": "x"})]}, V.DEFERRED, 0),
        ({"send": [http(403)], "delete": [kit.reset_at_once] * 2}, V.MISCONFIGURED, 0),
    ],
)
async def test_a_draft_tells_what_became_of_a_lost_answer(
    safe: Way, script: dict[str, Any], verdict: Verdict, mails: int
) -> None:
    safe.fake.lose = list(script.pop("lose", []))
    safe.fake.answers = {place: list(answers) for place, answers in script.items()}
    outcome = await safe.one()
    assert outcome.verdict is verdict, outcome
    assert len(safe.fake.delivered) == mails
    kept = verdict in (V.SENT, V.IN_DOUBT) or "delete" in script
    assert len(safe.fake.items) == int(kept)  # nothing is left in Drafts
    if kept and verdict is not V.MISCONFIGURED:
        assert outcome.remote_id == next(iter(safe.fake.items))


async def test_a_draft_that_is_gone_may_have_been_sent(safe: Way) -> None:
    """ErrorItemNotFound is no failure before the draft was asked for."""

    def taken(_: kit.Request) -> bytes:
        safe.fake.deliver(next(iter(safe.fake.items.values())))
        return error(404, "ErrorItemNotFound")

    safe.fake.answers["send"] = [taken]
    assert (await safe.one()).verdict is V.SENT


@pytest.mark.parametrize("sent", [True, False])
async def test_a_later_attempt_looks_at_the_draft_first(safe: Way, sent: bool) -> None:
    """By the id that came with the doubt, which stays when the draft is sent."""
    if sent:
        safe.fake.lose = ["send"]
        safe.fake.answers = {"get": [kit.reset_at_once] * 2}
    else:
        safe.fake.answers = {"send": [kit.reset_at_once, kit.reset_at_once]}
    doubt = await safe.one()
    assert (doubt.verdict, bool(doubt.remote_id)) == (V.IN_DOUBT, True)
    outcome = await safe.one(doubtful=True, doubt_id=doubt.remote_id)
    assert outcome.verdict is V.SENT
    assert len(safe.fake.delivered) == 1
    assert [item.is_draft for item in safe.fake.items.values()] == [False]


async def test_an_id_that_the_mailbox_does_not_know_is_no_obstacle(safe: Way) -> None:
    """Somebody emptied Sent Items, or the id is that of another mailbox: the Message-ID is tried, then it is sent."""
    outcome = await safe.one(**DOUBT, doubt_id="gone/1")
    calls = ["get nothing", "filter", "filter drafts", "draft", "send"]
    assert (outcome.verdict, safe.fake.calls[-5:]) == (V.SENT, calls)


@pytest.mark.parametrize("answer", [None, http(500), http(200, {"value": [7, {"isDraft": True}, {"id": 1}]})])
async def test_what_a_killed_attempt_left_in_drafts_is_removed(safe: Way, answer: bytes | None) -> None:
    """It would stay for ever, and somebody would send it by hand; that it cannot be found stops nothing."""
    safe.fake.answers = {"send": [kit.reset_at_once] * 2, "get": [kit.reset_at_once] * 2}
    await safe.one(raw=IDENTIFIED)
    assert [item.is_draft for item in safe.fake.items.values()] == [True]
    safe.fake.answers = {"filter drafts": [answer]} if answer else {}
    outcome = await safe.one(**DOUBT)
    assert outcome.verdict is V.SENT
    assert [item.is_draft for item in safe.fake.items.values()] == ([True, False] if answer else [False])
    assert len(safe.fake.delivered) == 1


# -- sender mode -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def many(tmp_path: Path) -> AsyncIterator[Way]:
    async with open_way(tmp_path, mailbox="sender") as value:
        value.fake.mailboxes.add("second@corp.example")
        yield value


SECOND: dict[str, Any] = {
    "raw": RAW.replace(b"a@corp.example", b"Second <second@corp.example>"),
    "header_from": "second@corp.example",
}


async def test_the_mailbox_is_that_of_the_from_address(many: Way) -> None:
    assert (await many.one()).verdict is V.SENT
    assert (await many.one(**SECOND)).verdict is V.SENT
    assert [request.path.split("/")[3] for request in requests(many, "sendMail")] == [MAILBOX, "second@corp.example"]


async def test_odd_characters_stay_inside_the_mailbox(many: Way) -> None:
    many.fake.mailboxes.add("a/b?c@corp.example")
    raw = RAW.replace(b"a@corp.example", b"a/b?c@corp.example")
    assert (await many.one(raw=raw, header_from="a/b?c@corp.example")).verdict is V.SENT
    assert requests(many, "sendMail")[0].path == "/v1.0/users/a%2Fb%3Fc@corp.example/sendMail"


@pytest.mark.parametrize(
    ("code", "verdict", "enhanced"),
    [
        ("ErrorInvalidUser", V.REJECTED, "5.1.8"),
        ("Request_ResourceNotFound", V.REJECTED, "5.1.8"),
        ("ErrorNonExistentMailbox", V.REJECTED, "5.1.8"),
        ("MailboxNotEnabledForRESTAPI", V.REJECTED, "5.1.8"),
        ("ErrorAccessDenied", V.DEFERRED, "4.7.0"),
        ("ErrorAccountSuspend", V.DEFERRED, "4.7.0"),
        ("SomethingNew", V.DEFERRED, "4.3.5"),
    ],
)
async def test_what_is_wrong_with_one_mailbox_is_no_fault_of_the_backend(
    many: Way, code: str, verdict: Verdict, enhanced: str
) -> None:
    outcome = await many.one("sendMail", error(404, code))
    assert (outcome.verdict, outcome.enhanced) == (verdict, enhanced)
    assert (await many.one(**SECOND)).verdict is V.SENT


@pytest.mark.parametrize("answer", [http(404), http(302), error(401, "InvalidAuthenticationToken")])
async def test_what_is_wrong_for_every_mailbox_rests_the_backend(many: Way, answer: bytes) -> None:
    assert (await many.one("sendMail", answer, answer)).verdict is V.MISCONFIGURED


async def test_throttling_rests_only_that_mailbox(many: Way) -> None:
    outcome = await many.one("sendMail", error(429, "ApplicationThrottled", Retry_After="60"))
    assert (outcome.verdict, outcome.retry_after) == (V.DEFERRED, timedelta(seconds=60))
    assert (await many.one()).verdict is V.DEFERRED
    assert (await many.one(**SECOND)).verdict is V.SENT
    many.clock.advance(60)
    assert (await many.one()).verdict is V.SENT


async def test_a_mailbox_sends_no_faster_than_exchange_allows(tmp_path: Path) -> None:
    """30 messages a minute: what comes on top waits."""
    async with open_way(tmp_path, mailbox_rate="2/minute", mailbox="sender") as way:
        assert [(await way.one()).verdict for _ in range(3)] == [V.SENT, V.SENT, V.DEFERRED]
        way.clock.advance(61)
        assert (await way.one()).verdict is V.SENT


async def test_four_requests_at_a_time_for_a_mailbox(way: Way) -> None:
    """More are answered with 429."""
    gate, running, most = asyncio.Event(), 0, 0

    async def wait(_: kit.Request) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return http(202)

    way.fake.answers["sendMail"] = [wait] * 10
    tasks = [asyncio.create_task(way.one(id=f"Q{number}")) for number in range(10)]
    await until(lambda: running == 4)
    await way.context.fetch.request("GET", way.web.url, deadline=5)  # whoever else had set out is there by now
    gate.set()
    assert {outcome.verdict for outcome in await asyncio.gather(*tasks)} == {V.SENT}
    assert most == 4


# -- check -----------------------------------------------------------------------------------------------------------


async def test_check_with_just_the_permission_to_send(way: Way) -> None:
    check = await way.backend.check()
    assert check.ok
    assert check.facts["permissions"] == "Mail.Send"
    assert check.facts["tenant"] == TENANT
    assert "not possible" in check.facts["look-up after a lost answer"]
    assert SECRET not in str(check)


@pytest.mark.parametrize(
    ("settings", "permissions", "rbac", "answer", "ok", "words"),
    [
        ({}, "Mail.Send Mail.Read", False, None, True, "Mail.Read"),
        ({"mailbox": "sender"}, "Mail.Send", False, None, True, "the API answers"),
        ({}, "", True, None, True, "Test-ServicePrincipalAuthorization"),
        ({}, "User.Read.All", False, None, True, "grant Mail.Send"),
        ({"safe_send": True}, "Mail.Send", False, None, True, "grant Mail.ReadWrite, which safe_send"),
        ({"safe_send": True}, "Mail.Send Mail.ReadWrite", False, None, True, "the API answers"),
        ({}, "Mail.Send", False, http(200, {"id": "x"}), True, "the API answers"),
        ({}, "Mail.Send", False, error(404, "Request_ResourceNotFound"), False, "no such mailbox"),
        ({}, "Mail.Send", False, http(503), False, "try again"),
        ({}, "Mail.Send", False, error(400, "ErrorInvalidUser"), False, "no such mailbox"),
        ({}, "Mail.Send", False, http(302), False, "what stands between"),
        ({}, "Mail.Send", False, http(200, "<html>"), False, "what stands between"),
        ({}, "Mail.Send", False, kit.reset_at_once, False, "check api_base"),
        ({"client_secret": "wrong"}, "Mail.Send", False, None, False, "not its Secret ID"),
    ],
)
async def test_check_says_what_is_there_and_what_is_missing(
    tmp_path: Path, settings: dict[str, Any], permissions: str, rbac: bool, answer: Any, ok: bool, words: str
) -> None:
    async with open_way(tmp_path, **settings) as way:
        way.fake.permissions, way.fake.rbac = permissions, rbac
        if answer:
            way.fake.answers["profile"] = [answer, answer]
        check = await way.backend.check()
        assert (check.ok, words in f"{check.summary} {check.fix} {check.facts}") == (ok, True), check
        assert way.fake.delivered == []


# -- repairs, seen from the other side -------------------------------------------------------------------------------

QP = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\nSubject:"


@pytest.mark.parametrize(
    ("lines", "note"), [(1, ""), (33_000, "; left in quoted-printable, in base64 it is too large"), (45_000, "")]
)
async def test_mail_that_a_repair_would_make_too_large_goes_as_it_is(tmp_path: Path, lines: int, note: str) -> None:
    """The door took it by its own size."""
    async with open_way(tmp_path, quoted_printable="base64", large_messages="draft") as way:
        way.fake.permissions = "Mail.Send Mail.ReadWrite"
        outcome = await way.one(raw=RAW.replace(b"Subject:", QP) + (b"x" * 70 + b"\r\n") * lines)
        assert (outcome.verdict, outcome.detail.endswith(note)) == (V.SENT, True), outcome
        ((_, arrived),) = way.fake.delivered
        assert (b"quoted-printable" in arrived) == bool(note)


async def test_what_graph_drops_is_told(way: Way) -> None:
    raw = RAW.replace(b"Subject:", b"List-Unsubscribe: <x>\r\nAuto-Submitted: auto-generated\r\nX-Own: 1\r\nSubject:")
    outcome = await way.one(raw=raw)
    assert outcome.detail.endswith("; Graph drops List-Unsubscribe, Auto-Submitted")
    assert way.fake.inbox == [["x-auto-response-suppress", "from", "to", "x-own", "subject"]]


async def test_a_name_that_looks_like_an_address_does_not_cost_the_mail(way: Way) -> None:
    """SMTP2Graph 28: Graph answers ErrorSendAsDenied to such a From."""
    raw = RAW.replace(b"From: a@corp.example", b"From: a@corp.example <a@corp.example>")
    assert (await way.one(raw=raw)).verdict is V.SENT
    assert message_from_bytes(way.fake.delivered[0][1])["from"] == "<a@corp.example>"


async def test_urlsafe_base64_would_have_been_refused(way: Way) -> None:
    """The fake is as strict as Graph; whatever else is wrong with a request is refused as well."""
    token = (await way.one(), next(iter(way.fake.tokens)))[1]
    good = {"authorization": f"Bearer {token}", "content-type": "text/plain"}
    cases = [
        (base64.urlsafe_b64encode(b"\xff\xef" + RAW), good, 400, "ErrorMimeContentInvalidBase64String"),
        (base64.b64encode(RAW), good | {"content-type": "application/json"}, 415, "RequestBodyRead"),
        (base64.b64encode(RAW), good | {"authorization": "Bearer x"}, 401, "InvalidAuthenticationToken"),
        (b"A" * 4_200_000, good, 400, "BadRequest"),
        (base64.b64encode(RAW.replace(b"b@x.example", b"undisclosed:;")), good, 400, "ErrorInvalidRecipients"),
        (base64.b64encode(RAW.replace(b"a@corp", b"x@corp")), good, 403, "ErrorSendAsDenied"),
    ]
    for body, headers, status, code in cases:
        url = f"{way.web.url}/v1.0/users/{MAILBOX}/sendMail"
        answer = await way.context.fetch.request("POST", url, headers=headers, content=body, deadline=5)
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)
