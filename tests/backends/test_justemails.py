"""justemails against a strict fake of its API: requests, every answer that is known, header fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.model import DeliveryEvent, Outcome, Verdict
from tests.backends.json_fakes import SECRET, JustemailsFake, Way, mail, open_way, way_to
from tests.backends.kit import http

way = way_to(JustemailsFake)


async def test_each_recipient_has_a_call_and_sees_only_himself(way: Way) -> None:
    outcomes = await way.send("b@x.example", "c@x.example", raw=mail("To: b@x.example", "Cc: c@x.example"))
    assert [(request.method, request.path) for request in way.web.requests] == [("POST", "/api/v1/send")] * 2
    same = {"from": "a@corp.example", "subject": "s", "text": "body\n"}
    assert way.fake.taken == [{**same, "to": "b@x.example"}, {**same, "to": "c@x.example"}]
    assert outcomes["c@x.example"] == Outcome(Verdict.SENT, 200, "2.0.0", "HTTP 200 msg_2", "msg_2", said_by="http")


def said(code: str, text: str) -> dict[str, str]:
    return {"error": code, "message": text}


ANSWERS: list[tuple[int, Any, Verdict, str, str]] = [
    (400, said("VALIDATION_ERROR", "The 'to' field is required."), Verdict.REJECTED, "5.1.3", ""),
    (400, said("VALIDATION_ERROR", "The 'subject' field is required."), Verdict.REJECTED, "5.6.0", ""),
    (401, said("UNAUTHORIZED", "Invalid key"), Verdict.MISCONFIGURED, "4.7.0", "api_key"),
    (403, said("FORBIDDEN", "no"), Verdict.MISCONFIGURED, "4.7.0", "api_key"),
    (404, said("NOT_FOUND", "no"), Verdict.MISCONFIGURED, "4.3.5", "base_url"),
    (409, said("CONFLICT", "exists"), Verdict.REJECTED, "5.6.0", ""),
    (422, said("DOMAIN_NOT_VERIFIED", "domain not verified"), Verdict.MISCONFIGURED, "4.7.0", "verify the domain"),
    (429, said("RATE_LIMITED", "slow down"), Verdict.THROTTLED, "4.4.5", ""),
    (500, said("INTERNAL", "oops"), Verdict.DEFERRED, "4.3.0", ""),
    (502, "bad gateway", Verdict.DEFERRED, "4.3.0", ""),
    (200, "", Verdict.IN_DOUBT, "4.4.2", ""),
    (201, {"status": "queued"}, Verdict.IN_DOUBT, "4.4.2", ""),
    (204, "", Verdict.IN_DOUBT, "4.4.2", ""),
]


@pytest.mark.parametrize(("status", "body", "verdict", "enhanced", "fix"), ANSWERS)
async def test_every_answer_has_its_verdict(
    way: Way, status: int, body: Any, verdict: Verdict, enhanced: str, fix: str
) -> None:
    outcome = await way.one(http(status, body))
    assert (outcome.verdict, outcome.code, outcome.enhanced) == (verdict, status, enhanced)
    assert outcome.retry_after is None
    expected = f"HTTP {status} {body['error']} {body['message']}" if "message" in body else f"HTTP {status}"
    assert outcome.detail.startswith(expected)
    assert (bool(outcome.fix), fix in outcome.fix) == (bool(fix), True)


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_an_id_is_what_counts_as_taken(way: Way, status: int) -> None:
    way.fake.status = status
    outcome = await way.one()
    assert (outcome.verdict, outcome.code, outcome.remote_id) == (Verdict.SENT, status, "msg_1")


OWN = [
    "Message-ID: <1@x>",
    "X-Tag: a\r\n\tb",
    "In-Reply-To: <0@x>",
    "References: <00@x>\r\n <0@x>",
    "List-Unsubscribe: <mailto:u@x>",
    "Received: from x by y",
    "Resent-Bcc: blind@x.example",
    "X-Utf8: ü",
]


async def test_with_headers_the_message_s_own_fields_go_along(tmp_path: Path) -> None:
    async with open_way(tmp_path, JustemailsFake(), headers=True) as way:
        assert not {"headers", "threading"} & way.backend.capabilities.lacks
        assert (await way.one(raw=mail("To: b@x.example", *OWN))).verdict is Verdict.SENT
        assert way.fake.taken[0]["headers"] == {
            "Message-ID": "<1@x>",
            "X-Tag": "a b",
            "In-Reply-To": "<0@x>",
            "References": "<00@x> <0@x>",
            "List-Unsubscribe": "<mailto:u@x>",
            "X-Utf8": "ü",
        }
        assert way.log.lines == []
        twice = await way.one(raw=mail("To: b@x.example", "X-Tag: a", "x-tag: b"))
        assert (twice.verdict, twice.enhanced) == (Verdict.REJECTED, "5.6.3")
        assert "x-tag" in twice.detail


async def test_without_headers_none_go_along(tmp_path: Path) -> None:
    async with open_way(tmp_path, JustemailsFake(), unsupported_headers="drop") as way:
        assert (await way.one(raw=mail("To: b@x.example", *OWN))).verdict is Verdict.SENT
        assert "headers" not in way.fake.taken[0]
        assert [line["what"] for line in way.log.lines] == [
            "headers: X-Tag, List-Unsubscribe, Resent-Bcc, X-Utf8",
            "threading: In-Reply-To, References",
        ]


@pytest.mark.parametrize(
    ("status", "state"),
    [("delivered", "delivered"), ("bounced", "bounced"), ("failed", "failed"), ("queued", "queued")],
)
async def test_the_state_of_a_mail(way: Way, status: str, state: str) -> None:
    way.fake.states = {"msg_1": {"id": "msg_1", "status": status, "deliveredAt": None}}
    assert await way.backend.status("msg_1") == DeliveryEvent("msg_1", state, status)
    assert (await way.backend.status("msg_2")).verdict is Verdict.DEFERRED


@pytest.mark.parametrize(
    ("settings", "ok", "words", "fix"),
    [
        ({}, True, "the key is accepted", ""),
        ({"api_key": "wrong"}, False, "HTTP 401", "api_key of backends.way"),
    ],
)
async def test_check_asks_for_a_mail_that_does_not_exist(
    tmp_path: Path, settings: dict[str, Any], ok: bool, words: str, fix: str
) -> None:
    async with open_way(tmp_path, JustemailsFake(), **settings) as way:
        check = await way.backend.check()
        assert (check.ok, words in check.summary, fix in check.fix) == (ok, True, True)
        assert [request.method for request in way.web.requests] == ["GET"]
        assert SECRET not in f"{check}"


@pytest.mark.parametrize(
    ("answer", "fix"),
    [
        (http(404, "<html>nothing here</html>"), "base_url"),
        (http(200, "<html>a web site</html>"), "base_url"),
        (http(301, "", {"Location": "/"}), "base_url"),
        (http(503), "later"),
        (http(429), "later"),
    ],
)
async def test_check_says_what_to_do(way: Way, answer: bytes, fix: str) -> None:
    way.fake.states = {"msg_000000000000": answer}
    check = await way.backend.check()
    assert not check.ok
    assert fix in check.fix
