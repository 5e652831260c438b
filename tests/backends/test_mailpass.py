"""mailpass against a strict fake of its API: requests, every answer that is known, batches."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.model import DeliveryEvent, Outcome, Verdict
from tests.backends.json_fakes import SECRET, MailpassFake, Way, mail, open_way, way_to
from tests.backends.kit import http

QUARTER = timedelta(minutes=15)


way = way_to(MailpassFake)


async def test_the_request_is_what_the_api_describes(way: Way) -> None:
    raw = mail("To: b@x.example, d@x.example", "Cc: c@x.example", "Reply-To: r@corp.example")
    raw = raw.replace(b"From: a@corp.example", b"From: =?utf-8?q?K=C3=BCche?= <a@corp.example>")
    people = ("b@x.example", "c@x.example", "d@x.example", "z@x.example")
    outcomes = await way.send(*people, raw=raw)
    (request,) = way.web.requests
    assert (request.method, request.path) == ("POST", "/api/v1/mail/send")
    assert way.fake.taken == [
        {
            "from_email": "a@corp.example",
            "from_name": "Küche",
            "reply_to": "r@corp.example",
            "to": "b@x.example",
            "cc": ["d@x.example", "c@x.example"],
            "bcc": ["z@x.example"],
            "subject": "s",
            "text": "body\n",
            "metadata": {"spool_id": "Q1"},
        }
    ]
    sent = Outcome(Verdict.SENT, 200, "2.0.0", "HTTP 200 <m1@mailpass.im>", "<m1@mailpass.im>", said_by="http")
    assert outcomes == dict.fromkeys(people, sent)


def coded(code: str, text: str = "words") -> dict[str, Any]:
    return {"success": False, "error": {"code": code, "message": text}}


def flat(code: str, text: str = "words") -> dict[str, Any]:
    return {"success": False, "error": code, "message": text}


def sent(**data: Any) -> dict[str, Any]:
    return {"success": True, "data": {"message_id": "<m@mailpass.im>", "status": "sent", **data}}


ANSWERS: list[tuple[int, Any, Verdict, str, timedelta | None, str]] = [
    (400, coded("VALIDATION_ERROR", "'to' is no address"), Verdict.REJECTED, "5.1.3", None, ""),
    (400, flat("VALIDATION_ERROR", "subject missing"), Verdict.REJECTED, "5.6.0", None, ""),
    (401, "", Verdict.MISCONFIGURED, "4.7.0", None, "api_key"),
    (403, coded("FORBIDDEN"), Verdict.MISCONFIGURED, "4.7.0", None, "permission mail"),
    (404, "", Verdict.MISCONFIGURED, "4.3.5", None, "base_url"),
    (422, coded("NO_SMTP_PROVIDER"), Verdict.MISCONFIGURED, "4.7.0", None, "SMTP provider"),
    (422, flat("NO_SMTP_PROVIDER"), Verdict.MISCONFIGURED, "4.7.0", None, "SMTP provider"),
    (422, coded("OTHER"), Verdict.REJECTED, "5.6.0", None, ""),
    (429, coded("SEND_LIMIT_EXCEEDED"), Verdict.THROTTLED, "4.4.5", QUARTER, "rate"),
    (429, "", Verdict.THROTTLED, "4.4.5", None, ""),
    (500, coded("SEND_FAILED"), Verdict.DEFERRED, "4.0.0", None, ""),
    (500, flat("SEND_FAILED"), Verdict.DEFERRED, "4.0.0", None, ""),
    (500, "oops", Verdict.DEFERRED, "4.3.0", None, ""),
    # 200 does not mean sent
    (200, coded("SEND_FAILED"), Verdict.DEFERRED, "4.0.0", None, ""),
    (200, {"success": False}, Verdict.DEFERRED, "4.0.0", None, ""),
    (200, {"success": False, "error": {"message": "x"}}, Verdict.DEFERRED, "4.0.0", None, ""),
    (200, sent(status="failed", error_message="550 no"), Verdict.DEFERRED, "4.0.0", None, ""),
    (200, sent(status="Error"), Verdict.DEFERRED, "4.0.0", None, ""),
    (200, sent(message_id=None), Verdict.IN_DOUBT, "4.4.2", None, ""),
    (200, {"data": sent()["data"]}, Verdict.IN_DOUBT, "4.4.2", None, ""),
    (200, {"success": "true", "data": sent()["data"]}, Verdict.IN_DOUBT, "4.4.2", None, ""),
    (200, {"success": True, "data": []}, Verdict.IN_DOUBT, "4.4.2", None, ""),
    (200, "OK", Verdict.IN_DOUBT, "4.4.2", None, ""),
]


@pytest.mark.parametrize(("status", "body", "verdict", "enhanced", "wait", "fix"), ANSWERS)
async def test_every_answer_has_its_verdict(
    way: Way, status: int, body: Any, verdict: Verdict, enhanced: str, wait: timedelta | None, fix: str
) -> None:
    outcome = await way.one(http(status, body))
    assert (outcome.verdict, outcome.code, outcome.enhanced, outcome.retry_after) == (verdict, status, enhanced, wait)
    assert outcome.detail.startswith(f"HTTP {status}")
    assert (bool(outcome.fix), fix in outcome.fix) == (bool(fix), True)


async def test_a_limit_lasts_a_quarter_of_an_hour_at_least(way: Way) -> None:
    limit = coded("SEND_LIMIT_EXCEEDED")
    assert (await way.one(http(429, limit, {"Retry-After": "60"}))).retry_after == QUARTER
    assert (await way.one(http(429, limit, {"Retry-After": "3600"}))).retry_after == 4 * QUARTER


async def test_a_send_that_failed_does_not_hold_up_the_others(way: Way) -> None:
    """SEND_FAILED may be one recipient's fault for good: his mail waits out its time alone."""
    way.fake.answers = [http(500, coded("SEND_FAILED"))]
    outcomes = await way.send("y@x.example", "z@x.example", attempt=40)
    assert [outcome.verdict.name for outcome in outcomes.values()] == ["DEFERRED", "SENT"]


# -- batches ---------------------------------------------------------------------------------------------------------


batch = way_to(MailpassFake, batch=True)


LIST = mail("To: list@corp.example")


async def test_a_batch_is_for_people_who_do_not_see_each_other(batch: Way) -> None:
    people = [f"p{number}@x.example" for number in range(130)]
    batch.fake.verdicts = {"p3@x.example": "failed", "p120@x.example": "failed"}
    outcomes = await batch.send(*people, raw=LIST)
    assert [request.path for request in batch.web.requests] == ["/api/v1/mail/send-batch"] * 2
    left = {address: outcome.verdict for address, outcome in outcomes.items() if outcome.verdict is not Verdict.SENT}
    assert left == dict.fromkeys(("p3@x.example", "p120@x.example"), Verdict.DEFERRED)
    assert (outcomes["p0@x.example"].remote_id, outcomes["p129@x.example"].remote_id) == ("q0", "q29")
    assert batch.fake.people() == [one for one in people if one not in left]


@pytest.mark.parametrize(
    ("recipients", "fields"),
    [
        (["b@x.example"], ["To: b@x.example"]),
        (["b@x.example", "c@x.example"], ["To: b@x.example", "Cc: c@x.example"]),
        (["b@x.example", "z@x.example"], ["To: b@x.example"]),
        (["y@x.example", "z@x.example"], ["To: list@corp.example", "Reply-To: r@corp.example"]),
    ],
    ids=["one", "cc", "bcc", "reply_to"],
)
async def test_what_a_batch_does_not_document_goes_by_itself(
    batch: Way, recipients: list[str], fields: list[str]
) -> None:
    outcomes = await batch.send(*recipients, raw=mail(*fields))
    assert {outcome.verdict for outcome in outcomes.values()} == {Verdict.SENT}
    assert {request.path for request in batch.web.requests} == {"/api/v1/mail/send"}


def result(*entries: tuple[str, str] | str) -> bytes:
    messages = [{"to": one[0], "status": one[1], "queue_id": "q"} if isinstance(one, tuple) else one for one in entries]
    return http(200, {"success": True, "data": {"messages": messages}})


Y, Z = "y@x.example", "z@x.example"


@pytest.mark.parametrize(
    ("answer", "verdicts"),
    [
        (result((Y, "queued"), (Z, "sent")), ["SENT", "SENT"]),
        (result((Y.upper(), "queued"), (Z, "failed")), ["SENT", "DEFERRED"]),
        (result((Z, "queued"), (Y, "failed")), ["IN_DOUBT", "IN_DOUBT"]),  # in another order: whose is whose?
        (result((Y, "queued")), ["SENT", "IN_DOUBT"]),
        (result(), ["IN_DOUBT", "IN_DOUBT"]),
        (result("x", (Z, "queued")), ["IN_DOUBT", "SENT"]),
        (http(200, {"success": True}), ["IN_DOUBT", "IN_DOUBT"]),
        (http(200, coded("SEND_FAILED")), ["DEFERRED", "DEFERRED"]),
        (http(422, coded("NO_SMTP_PROVIDER")), ["MISCONFIGURED", "MISCONFIGURED"]),
        (http(429, coded("SEND_LIMIT_EXCEEDED")), ["THROTTLED", "THROTTLED"]),
    ],
)
async def test_every_entry_of_a_batch_is_read_by_place_and_address(
    batch: Way, answer: bytes, verdicts: list[str]
) -> None:
    batch.fake.answers = [answer]
    outcomes = await batch.send(Y, Z, raw=LIST)
    assert [outcomes[address].verdict.name for address in (Y, Z)] == verdicts
    assert {outcome.said_by for outcome in outcomes.values()} == {"http"}


# -- what became of it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("sent", "queued"),
        ("delivered", "delivered"),
        ("open", "delivered"),
        ("failed", "failed"),
        ("bounced", "bounced"),
    ],
)
async def test_the_state_of_a_mail(way: Way, status: str, state: str) -> None:
    message = {"status": status, "error_message": "550 why", "events": []}
    way.fake.states = {"<m1@mailpass.im>": {"success": True, "data": {"message": message}}}
    assert await way.backend.status("<m1@mailpass.im>") == DeliveryEvent("<m1@mailpass.im>", state, f"{status} 550 why")
    assert way.web.requests[0].path == "/api/v1/mail/status/%3Cm1@mailpass.im%3E"  # "@" may stand there (RFC 3986 3.3)
    assert (await way.backend.status("<m2@mailpass.im>")).verdict is Verdict.DEFERRED


@pytest.mark.parametrize(("settings", "ok"), [({}, True), ({"api_key": "wrong"}, False)])
async def test_check_sends_nothing(tmp_path: Path, settings: dict[str, Any], ok: bool) -> None:
    async with open_way(tmp_path, MailpassFake(), **settings) as way:
        check = await way.backend.check()
        assert (check.ok, "api_key of backends.way" in check.fix) == (ok, not ok)
        assert {request.method for request in way.web.requests} == {"GET"}
        assert SECRET not in f"{check}"
