"""smtp2go against a strict fake of its API: what is asked, every answer that is known, and lost answers."""

from __future__ import annotations

import base64
import json
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.backends.smtp2go import Smtp2go, Smtp2goSettings
from gateway.model import HookRefused, Outcome, Scope, Verdict
from tests.backends import json_fakes, kit
from tests.backends.json_fakes import Way, way_to
from tests.backends.kit import KEY, RAW, Smtp2goFake, http, spooled

MINUTE = timedelta(minutes=1)
PREFIX = "E_ApiResponseCodes."


def open_way(path: Path, **settings: Any) -> AbstractAsyncContextManager[Way]:
    return json_fakes.open_way(path, Smtp2goFake(), **settings)


way = way_to(Smtp2goFake)


def nested(code: str, text: str) -> dict[str, Any]:
    return {"request_id": "r", "data": {"error_code": PREFIX + code, "error": text}}


def flat(code: str, text: str, field: str = "") -> dict[str, Any]:
    more = {"field_validation_errors": {"fieldname": "mime_email", "message": field}} if field else {}
    return {"error": text, "error_code": PREFIX + code, **more}


def result(**data: Any) -> dict[str, Any]:
    return {"request_id": "r-7", "data": data}


# -- the request -----------------------------------------------------------------------------------------------------


async def test_the_request_is_what_the_api_describes(way: Way) -> None:
    outcome = await way.one()
    (request,) = way.web.requests
    assert (request.method, request.path) == ("POST", "/v3/email/mime")
    assert request.headers["x-smtp2go-api-key"] == KEY
    assert request.headers["content-type"] == "application/json"
    body = json.loads(request.body)
    assert body == {"mime_email": base64.b64encode(RAW).decode(), "fastaccept": False}
    assert outcome == Outcome(Verdict.SENT, 200, "2.0.0", "request r-1", "e-1", said_by="http")


async def test_a_large_message_is_encoded_as_a_small_one(way: Way) -> None:
    raw = RAW + bytes(range(32, 127)) * 30_000 + b"\r\n"
    assert (await way.send("b@x.example", raw=raw))["b@x.example"].verdict is Verdict.SENT
    assert way.fake.delivered == [(["b@x.example"], raw)]


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "https://api.smtp2go.com/v3"),
        ({"region": "us"}, "https://us-api.smtp2go.com/v3"),
        ({"region": "eu"}, "https://eu-api.smtp2go.com/v3"),
        ({"region": "au"}, "https://au-api.smtp2go.com/v3"),
        ({"region": "au", "base_url": "https://proxy.example/s2g/"}, "https://proxy.example/s2g"),
    ],
)
async def test_the_region_chooses_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], url: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # so that nobody is really asked
    async with kit.context(tmp_path) as context:
        backend = Smtp2go("s2g", Smtp2goSettings.model_validate({"api_key": KEY, **settings}), context)
        assert (await backend.check()).facts == {"url": url}
        able = backend.capabilities
        assert (able.max_bytes, able.null_sender, able.smtputf8) == (37_000_000, False, True)


@pytest.mark.parametrize("base_url", ["http://api.smtp2go.com/v3", "ftp://localhost", "api.smtp2go.com"])
def test_a_base_url_without_encryption_is_refused(base_url: str) -> None:
    with pytest.raises(ValidationError, match="base_url"):
        Smtp2goSettings.model_validate({"api_key": KEY, "base_url": base_url})


# -- every answer ----------------------------------------------------------------------------------------------------

ANSWERS: list[tuple[int, Any, Verdict, str, timedelta | None]] = [
    (400, nested("ENDPOINT_PERMISSION_DENIED", "You do not have permission"), Verdict.MISCONFIGURED, "4.7.0", None),
    (400, flat("ENDPOINT_PERMISSION_DENIED", "You do not have permission"), Verdict.MISCONFIGURED, "4.7.0", None),
    (400, nested("NON_VALIDATING_IN_PAYLOAD", "bad json"), Verdict.REJECTED, "5.6.0", None),
    (400, flat("NON_VALIDATING_IN_PAYLOAD", "bad json", "not base64"), Verdict.REJECTED, "5.6.0", None),
    (400, nested("API_EXCEPTION", "The sender a@corp.example is not verified"), Verdict.MISCONFIGURED, "4.7.0", None),
    (400, flat("API_EXCEPTION", "Unable to verify sender"), Verdict.MISCONFIGURED, "4.7.0", None),
    (400, nested("API_EXCEPTION", "API key ratelimit exceeded"), Verdict.THROTTLED, "4.4.5", MINUTE),
    (400, nested("API_EXCEPTION", "You have reached your monthly limit"), Verdict.THROTTLED, "4.4.5", MINUTE),
    (400, nested("API_EXCEPTION", "quota used up"), Verdict.THROTTLED, "4.4.5", MINUTE),
    (400, nested("API_EXCEPTION", "something else"), Verdict.REJECTED, "5.6.0", None),
    (400, nested("API_EXCEPTION", "The email is too large"), Verdict.REJECTED, "5.3.4", None),
    (400, "Request body exceeds the size limit", Verdict.REJECTED, "5.3.4", None),
    (400, "<html>Bad Request</html>", Verdict.DEFERRED, "4.4.0", None),
    (401, nested("INVALID", "The API key is not valid"), Verdict.MISCONFIGURED, "4.7.0", None),
    (402, nested("API_EXCEPTION", "request failed"), Verdict.MISCONFIGURED, "4.7.0", None),
    (403, nested("DENIED", "not permitted"), Verdict.MISCONFIGURED, "4.7.0", None),
    (404, "Not Found", Verdict.MISCONFIGURED, "4.3.5", None),
    (413, "Payload Too Large", Verdict.REJECTED, "5.3.4", None),
    (429, flat("TOO_MANY", "API key ratelimit exceeded"), Verdict.THROTTLED, "4.4.5", MINUTE),
    (429, "", Verdict.THROTTLED, "4.4.5", MINUTE),
    (500, nested("API_EXCEPTION", "oops"), Verdict.DEFERRED, "4.3.0", None),
    (502, "<html>Bad Gateway</html>", Verdict.DEFERRED, "4.3.0", None),
    (503, "", Verdict.DEFERRED, "4.3.0", None),
    (504, "", Verdict.DEFERRED, "4.3.0", None),
    (302, "", Verdict.MISCONFIGURED, "4.3.5", None),
    # 200 that is none
    (200, nested("ENDPOINT_PERMISSION_DENIED", "no"), Verdict.MISCONFIGURED, "4.7.0", None),
    (200, nested("API_EXCEPTION", "ratelimit"), Verdict.THROTTLED, "4.4.5", MINUTE),
    (200, flat("API_EXCEPTION", "no such thing"), Verdict.REJECTED, "5.6.0", None),
    (200, flat("SOMETHING_NEW", "who knows"), Verdict.IN_DOUBT, "4.4.2", None),
    (
        200,
        result(succeeded=0, failed=1, failures=["b@x.example: on the suppression list"]),
        Verdict.REJECTED,
        "5.1.1",
        None,
    ),
    (200, result(succeeded=0, failed=1, failures=["Invalid recipient address"]), Verdict.REJECTED, "5.1.1", None),
    (200, result(succeeded=0, failed=1, failures=["sender not verified"]), Verdict.MISCONFIGURED, "4.7.0", None),
    (200, result(succeeded=0, failed=1, failures=["rate limit exceeded"]), Verdict.THROTTLED, "4.4.5", MINUTE),
    (200, result(succeeded=0, failed=1, failures=["try later"]), Verdict.DEFERRED, "4.3.0", None),
    (200, result(succeeded=0, failed=1, failures=[]), Verdict.DEFERRED, "4.3.0", None),
    (200, result(succeeded=0, failed=0, failures=[]), Verdict.DEFERRED, "4.3.0", None),
    (200, result(succeeded=0, failed=1, failures="try later"), Verdict.DEFERRED, "4.3.0", None),
    (200, result(succeeded=1, failed=1, failures=["one of them"]), Verdict.IN_DOUBT, "4.4.2", None),
    # 200 without a usable body: it may have been sent
    (200, "", Verdict.IN_DOUBT, "4.4.2", None),
    (200, "OK", Verdict.IN_DOUBT, "4.4.2", None),
    (200, "[]", Verdict.IN_DOUBT, "4.4.2", None),
    (200, {"request_id": "r", "data": {}}, Verdict.IN_DOUBT, "4.4.2", None),
    (200, {"request_id": "r", "data": []}, Verdict.IN_DOUBT, "4.4.2", None),
    (202, {"request_id": "r"}, Verdict.IN_DOUBT, "4.4.2", None),
]


@pytest.mark.parametrize(("status", "body", "verdict", "enhanced", "wait"), ANSWERS)
async def test_every_answer_has_its_verdict(
    way: Way, status: int, body: Any, verdict: Verdict, enhanced: str, wait: timedelta | None
) -> None:
    """Both shapes of an error body; and 200 does not mean sent."""
    outcome = await way.one(http(status, body))
    assert (outcome.verdict, outcome.code, outcome.enhanced, outcome.retry_after) == (verdict, status, enhanced, wait)
    assert outcome.detail.startswith(f"HTTP {status}")
    words = json.dumps(body) + " a redirect in place of an answer" * (status == 302)
    assert all(word in words for word in outcome.detail.split()[3:])


@pytest.mark.parametrize(
    ("data", "remote_id"),
    [
        ({"succeeded": 1, "failed": 0, "failures": [], "email_id": "e-9"}, "e-9"),
        ({"succeeded": 1, "failed": 0, "failures": []}, "r-7"),  # as in the provider's own example
        ({"email_id": "e-9"}, "e-9"),  # as with fastaccept, which "will soon become the default"
    ],
)
async def test_what_counts_as_sent(way: Way, data: dict[str, Any], remote_id: str) -> None:
    outcome = await way.one(http(200, result(**data)))
    assert (outcome.verdict, outcome.remote_id) == (Verdict.SENT, remote_id)


async def test_a_hint_of_the_provider_beats_the_minute(way: Way) -> None:
    assert (await way.one(http(429, "", {"Retry-After": "600"}))).retry_after == 10 * MINUTE


async def test_the_key_stays_out_of_the_details_even_when_the_provider_repeats_it(way: Way) -> None:
    outcome = await way.one(http(401, nested("X", f"key {KEY} unknown")))
    assert KEY not in outcome.detail
    assert "key *** unknown" in outcome.detail


@pytest.mark.parametrize(("handler", "words"), kit.LOST)
async def test_a_lost_answer_is_in_doubt(tmp_path: Path, handler: kit.Handler, words: str) -> None:
    """The body went out."""
    async with open_way(tmp_path, timeout=timedelta(seconds=0.2) if handler is kit.hang else "5s") as way:
        outcome = await way.one(handler)
        assert (outcome.verdict, outcome.code, outcome.enhanced) == (Verdict.IN_DOUBT, None, "4.4.2")
        assert words in outcome.detail


async def test_a_gigabyte_of_answer_is_cut_off_and_in_doubt(way: Way) -> None:
    outcome = await way.one(kit.gigabyte)
    assert (outcome.verdict, outcome.code) == (Verdict.IN_DOUBT, 200)
    assert len(outcome.detail) <= 300


# -- several recipients ----------------------------------------------------------------------------------------------

TWO = b"From: a@corp.example\r\nTo: Bob <b@x.example>, jimb@x.example\r\nCc: c@x.example\r\nSubject: s\r\n\r\nbody\r\n"


async def test_a_failure_that_names_one_recipient_is_his(way: Way) -> None:
    way.fake.answers = [http(200, result(succeeded=1, failed=1, failures=["B@X.example is suppressed"], email_id="e"))]
    outcomes = await way.send("b@x.example", "jimb@x.example", "c@x.example", raw=TWO)
    assert {address: outcome.verdict.name for address, outcome in outcomes.items()} == {
        "b@x.example": "REJECTED",
        "jimb@x.example": "SENT",
        "c@x.example": "SENT",
    }


async def test_where_nothing_was_sent_the_innocent_are_tried_at_once(way: Way) -> None:
    """One mail counts as one: with an address refused, nobody got it."""
    way.fake.answers = [http(200, result(succeeded=0, failed=1, failures=["b@x.example is suppressed"]))]
    outcomes = await way.send("b@x.example", "c@x.example", raw=TWO)
    assert {address: outcome.verdict.name for address, outcome in outcomes.items()} == {
        "b@x.example": "REJECTED",
        "c@x.example": "SENT",
    }
    assert way.fake.delivered[0][0] == ["c@x.example"]


async def test_more_than_a_hundred_visible_recipients_take_several_calls(way: Way) -> None:
    people = [f"p{number}@x.example" for number in range(230)]
    raw = b"From: a@corp.example\r\nTo: " + ",\r\n ".join(people).encode() + b"\r\n\r\nbody\r\n"
    outcomes = await way.send(*people, raw=raw)
    assert {outcome.verdict for outcome in outcomes.values()} == {Verdict.SENT}
    assert [len(served) for served, _ in way.fake.delivered] == [100, 100, 30]
    assert [person for served, _ in way.fake.delivered for person in served] == people


@pytest.mark.parametrize(
    ("answer", "second", "third"),
    [
        (http(400, nested("NON_VALIDATING_IN_PAYLOAD", "x")), "REJECTED", "SENT"),
        (http(200, result(succeeded=0, failed=1, failures=["later"])), "DEFERRED", "SENT"),
        (http(429), "THROTTLED", "THROTTLED"),
        (http(401), "MISCONFIGURED", "MISCONFIGURED"),
        (http(503), "DEFERRED", "DEFERRED"),
        (kit.reset_at_once, "IN_DOUBT", "DEFERRED"),
    ],
    ids=["invalid", "failed", "throttled", "no key", "server error", "lost"],
)
async def test_a_failing_call_keeps_what_was_sent_and_stops_only_where_the_provider_stops(
    way: Way, answer: Any, second: str, third: str
) -> None:
    """The first call's recipients stay SENT; after a fault of the provider the rest is not even tried."""
    good = http(200, result(succeeded=1, failed=0, failures=[], email_id="e-0"))
    way.fake.answers = [good, answer]
    outcomes = await way.send("b@x.example", "blind1@x.example", "blind2@x.example")
    assert [outcome.verdict.name for outcome in outcomes.values()] == ["SENT", second, third]
    assert len(way.web.requests) == (3 if third == "SENT" else 2)
    if second == "IN_DOUBT":
        assert outcomes["blind2@x.example"].scope is Scope.MESSAGE  # the provider was reached: no reason to rest


async def test_an_attempt_takes_ten_minutes_at_most(way: Way) -> None:
    """What is left over waits for the next attempt; the claim's lease is never outlived."""
    good = http(200, result(succeeded=1, failed=0, failures=[], email_id="e-0"))

    def slow(_: kit.Request) -> bytes:
        way.clock.advance(400)
        return good

    way.fake.answers = [slow, slow, slow]
    outcomes = await way.send("b@x.example", "blind1@x.example", "blind2@x.example")
    assert [outcome.verdict.name for outcome in outcomes.values()] == ["SENT", "SENT", "DEFERRED"]
    assert len(way.web.requests) == 2


async def test_the_null_sender_is_refused_and_not_tried(way: Way) -> None:
    outcome = (await way.send("b@x.example", sender=""))["b@x.example"]
    assert (outcome.verdict, outcome.enhanced) == (Verdict.REJECTED, "5.7.1")
    assert way.web.requests == []


async def test_a_header_over_the_cap_is_refused_and_not_tried(way: Way) -> None:
    outcome = (await way.send("b@x.example", raw=b"X: y\r\n" * 20_000 + RAW))["b@x.example"]
    assert (outcome.verdict, outcome.enhanced) == (Verdict.REJECTED, "5.6.0")
    assert way.web.requests == []


@pytest.mark.parametrize(
    ("attempt", "everyone", "verdict"),
    [
        (1, ("b@x.example",), Verdict.REJECTED),
        (1, ("b@x.example", "JIMB@X.example", "c@x.example"), Verdict.SENT),  # they go by another way, or went before
        (2, ("b@x.example", "c@x.example"), Verdict.REJECTED),
    ],
)
async def test_header_only_reject_looks_at_the_whole_envelope(
    tmp_path: Path, attempt: int, everyone: tuple[str, ...], verdict: Verdict
) -> None:
    async with open_way(tmp_path, header_only="reject") as way:
        message = replace(spooled("b@x.example", attempt=attempt), everyone=everyone)
        outcome = (await way.backend.send(message, TWO))["b@x.example"]
        assert outcome.verdict is verdict
        if verdict is Verdict.REJECTED:
            assert (outcome.enhanced, "jimb@x.example" in outcome.detail) == ("5.6.2", True)
            assert way.web.requests == []


async def test_what_was_stripped_is_told(way: Way) -> None:
    """Nothing is dropped in silence."""
    outcome = (await way.send("b@x.example", raw=TWO))["b@x.example"]
    assert outcome.detail == "request r-1; in To or Cc but not addressed, so stripped: c@x.example, jimb@x.example"
    assert way.fake.delivered[0][0] == ["b@x.example"]


# -- webhooks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Bearer", "basic"])
async def test_a_webhook_secret_may_have_any_letter(tmp_path: Path, scheme: str) -> None:
    """What comes in a header is read as Latin-1 by the server."""
    given = "grüße€".encode() if scheme == "Bearer" else base64.b64encode("hook:grüße€".encode())
    body = b"event=delivered&email_id=e-1&rcpt=b%40x.example"
    async with open_way(tmp_path, webhook_secret="grüße€") as way:
        (said,) = way.backend.called_back({"authorization": f"{scheme} {given.decode('latin-1')}"}, body)
        assert (said.remote_id, said.state, said.address) == ("e-1", "delivered", "b@x.example")
        with pytest.raises(HookRefused):
            way.backend.called_back({"authorization": f"{scheme} {given[:-1].decode('latin-1')}"}, body)


# -- check -----------------------------------------------------------------------------------------------------------


async def test_check_asks_what_the_key_may_do(way: Way) -> None:
    assert (await way.backend.check()).ok
    assert [request.path for request in way.web.requests] == ["/v3/api_keys/permissions"]


@pytest.mark.parametrize(
    ("settings", "permissions", "summary", "fix"),
    [
        ({"api_key": "api-wrong"}, ["/email/mime"], "HTTP 401", "api_key"),
        ({}, ["/email/send"], "the key may not use /email/mime", "Permissions"),
    ],
)
async def test_check_says_what_is_wrong(
    tmp_path: Path, settings: dict[str, Any], permissions: list[str], summary: str, fix: str
) -> None:
    async with open_way(tmp_path, **settings) as way:
        way.fake.permissions = permissions
        check = await way.backend.check()
        assert not check.ok
        assert summary in check.summary
        assert fix in check.fix
