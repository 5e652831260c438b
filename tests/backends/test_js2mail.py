"""js2mail against a strict fake of its API: requests, every answer that is known, repeated calls, webhooks."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.model import CallsBack, DeliveryEvent, HookRefused, Outcome, Recipient, Tracked, Verdict
from tests.backends import kit
from tests.backends.json_fakes import SECRET, Js2mailFake, Way, mail, open_way, way_to
from tests.backends.kit import http, spooled
from tests.fakes import START

HOUR = timedelta(hours=1)
THREE = mail("To: b@x.example", "Cc: c@x.example")


way = way_to(Js2mailFake)


# -- the request -----------------------------------------------------------------------------------------------------


async def test_the_request_is_what_the_api_describes(tmp_path: Path) -> None:
    async with open_way(tmp_path, Js2mailFake(), from_account_id="9a1c") as way:
        outcomes = await way.send("b@x.example", "c@x.example", "z@x.example", raw=THREE)
    (request,) = way.web.requests
    assert (request.method, request.path) == ("POST", "/v1/mail/send")
    assert json.loads(request.body) == {
        "from": "a@corp.example",
        "to": ["b@x.example"],
        "cc": ["c@x.example"],
        "bcc": ["z@x.example"],
        "subject": "s",
        "text": "body\n",
        "idempotencyKey": "gw-Q1-0-7",
        "fromAccountId": "9a1c",
    }
    assert set(outcomes.values()) == {Outcome(Verdict.SENT, 202, "2.0.0", "HTTP 202 id-1", "id-1", said_by="http")}


# -- answers ---------------------------------------------------------------------------------------------------------

ANSWERS: list[tuple[int, Any, Verdict, str]] = [
    (401, {"error": "Unauthorized"}, Verdict.MISCONFIGURED, "4.7.0"),
    (402, {"error": "Payment required"}, Verdict.MISCONFIGURED, "4.7.0"),
    (403, {"error": "Forbidden"}, Verdict.MISCONFIGURED, "4.7.0"),
    (404, "not found", Verdict.MISCONFIGURED, "4.3.5"),
    (429, {"message": "Too many requests"}, Verdict.THROTTLED, "4.4.5"),
    (400, {"message": "to is required"}, Verdict.REJECTED, "5.6.0"),
    (413, "", Verdict.REJECTED, "5.3.4"),
    (422, {"message": "unprocessable"}, Verdict.REJECTED, "5.6.0"),
    (500, "", Verdict.DEFERRED, "4.3.0"),
    (503, "down", Verdict.DEFERRED, "4.3.0"),
    (202, "", Verdict.IN_DOUBT, "4.4.2"),
    (202, {"status": "Queued"}, Verdict.IN_DOUBT, "4.4.2"),
    (202, {"id": 7}, Verdict.IN_DOUBT, "4.4.2"),
]


@pytest.mark.parametrize(("status", "body", "verdict", "enhanced"), ANSWERS)
async def test_every_answer_has_its_verdict(way: Way, status: int, body: Any, verdict: Verdict, enhanced: str) -> None:
    outcome = await way.one(http(status, body))
    assert (outcome.verdict, outcome.code, outcome.enhanced) == (verdict, status, enhanced)
    assert outcome.retry_after is None
    words = body.get("message", "") if isinstance(body, dict) else body
    assert outcome.detail.startswith(f"HTTP {status}")
    assert words in outcome.detail


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_an_id_is_what_counts_as_taken(way: Way, status: int) -> None:
    outcome = await way.one(http(status, {"id": "u-1", "status": "Queued"}))
    assert (outcome.verdict, outcome.remote_id) == (Verdict.SENT, "u-1")


async def test_the_month_s_quota_makes_pauses_of_hours(way: Way) -> None:
    """No Retry-After is documented. Answers to sends under way at once count once; a sent mail starts again."""
    full = http(429, {"message": "Monthly send quota exceeded"})
    waits = []
    for _ in range(7):
        outcome = await way.one(full)
        assert outcome.verdict is Verdict.THROTTLED
        assert (await way.one(full)).retry_after == outcome.retry_after
        assert outcome.retry_after
        waits.append(outcome.retry_after / HOUR)
        way.clock.advance(outcome.retry_after.total_seconds())
    assert waits == [0.25, 0.5, 1, 2, 4, 4, 4]
    assert "plan" in outcome.fix
    await way.one()
    assert (await way.one(full)).retry_after == HOUR / 4


async def test_a_hint_of_the_provider_is_kept(way: Way) -> None:
    hinted = http(429, {"message": "Monthly send quota exceeded"}, {"Retry-After": "36000"})
    assert (await way.one(hinted)).retry_after == 10 * HOUR
    assert (await way.one(http(429, "", {"Retry-After": "7"}))).retry_after == timedelta(seconds=7)


# -- repeated calls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conflict", [False, True], ids=["replayed 202", "409"])
async def test_a_lost_answer_is_repeated_and_nothing_is_sent_twice(way: Way, conflict: bool) -> None:
    way.fake.conflict = conflict
    way.fake.answers = [way.fake.taken_and_lost]
    message = spooled("b@x.example", "c@x.example", "z@x.example")
    lost = await way.deliver(message, THREE)
    assert {outcome.verdict for outcome in lost.values()} == {Verdict.IN_DOUBT}
    (key,) = {outcome.remote_id for outcome in lost.values()}
    again = replace(message, attempt=2, doubtful=True, doubt_id=key)
    outcomes = await way.deliver(again, THREE)
    assert {outcome.verdict for outcome in outcomes.values()} == {Verdict.SENT}
    assert {outcome.code for outcome in outcomes.values()} == {409 if conflict else 202}
    assert sorted(way.fake.people()) == ["b@x.example", "c@x.example", "z@x.example"]


async def test_after_a_crash_nobody_knows_the_key_and_it_is_the_same(way: Way) -> None:
    message = spooled("b@x.example", "z@x.example", "y@x.example")
    await way.deliver(message, mail("To: nobody@x.example"))
    await way.deliver(replace(message, attempt=2, doubtful=True), mail("To: nobody@x.example"))
    assert sorted(way.fake.people()) == ["b@x.example", "y@x.example", "z@x.example"]
    assert len(way.web.requests) == 6


async def test_whoever_joins_a_call_in_doubt_gets_one_of_his_own(way: Way) -> None:
    """He comes from another backend. In this call he would be skipped, in a new one the others would get it twice."""
    way.fake.answers = [way.fake.taken_and_lost]
    everyone = ("b@x.example", "c@x.example", "z@x.example")
    first = replace(spooled("b@x.example", "z@x.example"), everyone=everyone)
    key = (await way.deliver(first, THREE))["b@x.example"].remote_id
    joined = replace(spooled(*everyone), everyone=everyone, doubtful=True, doubt_id=key)
    outcomes = await way.deliver(joined, THREE)
    assert {outcome.verdict for outcome in outcomes.values()} == {Verdict.SENT}
    assert Counter(way.fake.people()) == dict.fromkeys(everyone, 1)


async def test_whoever_joins_after_a_crash_gets_a_call_of_his_own(way: Way) -> None:
    """The key of the call that was cut off is known by whom the attempt was for."""
    everyone = ("b@x.example", "c@x.example", "z@x.example")
    first = replace(spooled("b@x.example", "z@x.example"), everyone=everyone)
    await way.deliver(first, THREE)  # and then the power fails
    joined = replace(spooled(*everyone), everyone=everyone, doubtful=True, interrupted=("b@x.example", "z@x.example"))
    outcomes = await way.deliver(joined, THREE)
    assert {outcome.verdict for outcome in outcomes.values()} == {Verdict.SENT}
    assert Counter(way.fake.people()) == dict.fromkeys(everyone, 1)


async def test_a_retry_for_fewer_recipients_skips_nobody(way: Way) -> None:
    """The first of three calls was taken, the second refused for now: the rest forms the same calls as before."""
    people = [f"p{number}@x.example" for number in range(230)]
    raw = mail("To: " + ",\r\n ".join(people))
    way.fake.answers = [way.fake.take, http(503)]
    message = replace(spooled(*people), everyone=tuple(people))
    outcomes = await way.deliver(message, raw)
    assert Counter(outcome.verdict for outcome in outcomes.values()) == {Verdict.SENT: 100, Verdict.DEFERRED: 130}
    left = tuple(Recipient(one) for one, outcome in outcomes.items() if outcome.verdict is not Verdict.SENT)
    again = replace(message, envelope=replace(message.envelope, recipients=left), attempt=2)
    outcomes = await way.deliver(again, raw)
    assert Counter(outcome.verdict for outcome in outcomes.values()) == {Verdict.SENT: 130}
    assert way.fake.people() == people
    keys = [json.loads(request.body)["idempotencyKey"] for request in way.web.requests]
    assert keys[1] == keys[2]
    assert len(set(keys)) == 3


async def test_a_part_of_a_call_in_doubt_keeps_its_key(way: Way) -> None:
    way.fake.answers = [way.fake.taken_and_lost]
    message = replace(spooled("b@x.example", "c@x.example"), everyone=("b@x.example", "c@x.example"))
    key = (await way.deliver(message, THREE))["b@x.example"].remote_id
    one = replace(message, envelope=replace(message.envelope, recipients=(Recipient("c@x.example"),)), doubt_id=key)
    assert (await way.deliver(one, THREE))["c@x.example"].verdict is Verdict.SENT
    assert way.fake.people() == ["b@x.example", "c@x.example"]


async def test_keys_differ_between_messages_and_fit(way: Way) -> None:
    people = [f"p{number}@x.example" for number in range(1000)]
    raw = mail("To: " + ",\r\n ".join(people))
    await way.send(*people, raw=raw, queue_id="0123456789ABC")
    await way.send(*people, raw=raw, queue_id="0123456789ABD")
    keys = {json.loads(request.body)["idempotencyKey"] for request in way.web.requests}
    assert len(keys) == 20
    assert max(map(len, keys)) <= 64


@pytest.mark.parametrize("doubt", ["gw-OTHER-0-1", "gw-Q1-0-zz", "gw-Q1-999-1", "gw-Q1-0-0", "x", "gw-Q1-0-ffffffff"])
async def test_a_strange_doubt_forgets_nobody(way: Way, doubt: str) -> None:
    message = replace(spooled("b@x.example", "c@x.example"), doubtful=True, doubt_id=doubt)
    outcomes = await way.deliver(message, THREE)
    assert {outcome.verdict for outcome in outcomes.values()} == {Verdict.SENT}
    assert sorted(way.fake.people()) == ["b@x.example", "c@x.example"]


# -- what became of it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("Sent", "delivered"),
        ("Failed", "failed"),
        ("Queued", "queued"),
        ("Processing", "queued"),
        ("Deferred", "queued"),
    ],
)
async def test_the_state_of_a_mail(way: Way, status: str, state: str) -> None:
    way.fake.states = {"a/b": http(404), "a%2Fb": {"id": "a/b", "status": status, "sentAt": None, "error": "why"}}
    assert isinstance(way.backend, Tracked)
    assert await way.backend.status("a/b") == DeliveryEvent("a/b", state, f"{status} why")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (http(404, {"error": "no"}), Verdict.DEFERRED),
        (http(401), Verdict.MISCONFIGURED),
        (http(429), Verdict.THROTTLED),
        (http(500), Verdict.DEFERRED),
        (http(200, "x"), Verdict.IN_DOUBT),
    ],
)
async def test_a_state_that_cannot_be_told(way: Way, answer: bytes, verdict: Verdict) -> None:
    way.fake.states = {"u": answer}
    said = await way.backend.status("u")
    assert isinstance(said, Outcome)
    assert said.verdict is verdict


# -- webhooks --------------------------------------------------------------------------------------------------------

HOOK = "whsec_5f1d3a"
FAILED = json.dumps({"event": "mail.failed", "data": {"id": "u-1", "error": "550 no such user"}}).encode()
NOW = int(START.timestamp())


def signed(body: bytes = FAILED, moment: int | str = NOW, secret: str = HOOK, **more: str) -> dict[str, str]:
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return {"x-js2mail-signature": f"t={moment},v1={digest}", "x-js2mail-delivery-id": "d-1", **more}


hooked = way_to(Js2mailFake, webhook_secret=HOOK)


async def test_a_failure_is_reported(hooked: Way) -> None:
    assert isinstance(hooked.backend, CallsBack)
    assert hooked.backend.hook
    for moment in (NOW, NOW - 300, NOW + 300):
        assert hooked.backend.called_back(signed(moment=moment), FAILED) == (
            DeliveryEvent("u-1", "failed", "550 no such user"),
        )
    again = signed(**{"x-js2mail-delivery-id": "d-2"})  # not signed: a replayed call is no news under any such id
    assert hooked.backend.called_back(again, FAILED)[0].key == ""
    flat = json.dumps({"type": "mail.failed", "id": "u-2"}).encode()
    assert hooked.backend.called_back(signed(flat), flat)[0].remote_id == "u-2"
    other = json.dumps({"event": "mail.sent", "data": {"id": "u-1"}}).encode()
    assert hooked.backend.called_back(signed(other), other) == ()


GOOD = signed()["x-js2mail-signature"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed(secret="other"),
        signed(body=FAILED + b" "),
        signed(moment=NOW - 301),
        signed(moment=NOW + 301),
        signed(moment="-1"),
        signed(moment="1e9"),
        signed(moment="9" * 400),
        *(
            {"x-js2mail-signature": value}
            for value in ("", "t", "=", f"t={NOW}", f"t={NOW},v1=", f"t={NOW},v1=é", GOOD[:-1],
                          GOOD.replace("v1", "v0"), GOOD.replace(",", ";"), ",,,", GOOD.replace("t=", "t=0"))
        ),
    ],
)  # fmt: skip
async def test_what_is_not_from_the_provider_is_refused(hooked: Way, headers: dict[str, str]) -> None:
    with pytest.raises(HookRefused) as refused:
        hooked.backend.called_back(headers, FAILED)
    assert refused.value.kind == "unsigned"
    assert HOOK not in str(refused.value)
    out_of_time = headers in (signed(moment=NOW - 301), signed(moment=NOW + 301))
    assert ("the clock of this machine" in refused.value.text) == out_of_time


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"event":"mail.failed"}', b'{"event":7,"data":{"id":"u"}}', b"\xff"]
)
async def test_what_is_signed_and_says_nothing_is_unintelligible(hooked: Way, body: bytes) -> None:
    with pytest.raises(HookRefused) as refused:
        hooked.backend.called_back(signed(body), body)
    assert refused.value.kind == "unintelligible"


async def test_without_a_secret_there_is_no_webhook(way: Way) -> None:
    """Not even one signed with the empty secret."""
    assert not way.backend.hook
    with pytest.raises(HookRefused) as refused:
        way.backend.called_back(signed(secret=""), FAILED)
    assert refused.value.kind == "unsigned"


async def test_secrets_stay_out_even_when_the_provider_repeats_them(hooked: Way) -> None:
    outcome = await hooked.one(http(400, {"message": f"key {SECRET} and {HOOK}"}))
    said = json.dumps({"event": "mail.failed", "data": {"id": "u", "error": f"{SECRET} {HOOK}"}}).encode()
    (report,) = hooked.backend.called_back(signed(said), said)
    for secret in (SECRET, HOOK):
        assert secret not in f"{outcome} {report} {hooked.backend.capabilities}"
    lost = await hooked.one(kit.reset_at_once)
    assert SECRET not in repr(lost)
