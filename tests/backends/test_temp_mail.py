"""temp_mail against a strict fake of the Worker: requests, every text that is known, log-ins by token."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.backends.json.temp_mail import TempMailSettings
from gateway.model import CannotTell, Verdict
from tests.backends import kit
from tests.backends.json_fakes import SECRET, TOKEN, TempMailFake, Way, open_way, way_to
from tests.backends.kit import RAW, http, spooled
from tests.fakes import until

CLIENT = {"token": "client"}
HOURS_LEFT = timedelta(hours=12)  # START is noon


way = way_to(TempMailFake)


lent = way_to(TempMailFake, **CLIENT)  # each message brings the token of its client


# -- the request -----------------------------------------------------------------------------------------------------

NAMED = b"From: Me <a@corp.example>\r\nTo: Admin <b@x.example>\r\nSubject: S\r\n\r\nbody"


@pytest.mark.parametrize("endpoint", ["external", "api"])
@pytest.mark.parametrize("token", ["client", TOKEN])
async def test_the_request_is_what_the_worker_reads(tmp_path: Path, endpoint: str, token: str) -> None:
    fake = TempMailFake(password=SECRET)
    async with open_way(tmp_path, fake, endpoint=endpoint, token=token) as way:
        message = replace(spooled("b@x.example", "z@x.example"), secret=TOKEN if token == "client" else "")
        outcomes = await way.deliver(message, NAMED)
    assert {outcome.verdict for outcome in outcomes.values()} == {Verdict.SENT}
    first, second = way.web.requests
    assert first.path == ("/external/api/send_mail" if endpoint == "external" else "/api/send_mail")
    assert (first.headers["x-custom-auth"], first.headers["x-lang"]) == (SECRET, "en")
    body = {"from_name": "Me", "to_mail": "b@x.example", "to_name": "Admin", "subject": "S", "is_html": False}
    own = {"token": TOKEN} if endpoint == "external" else {}
    assert json.loads(first.body) == {**body, **own, "content": "body"}
    assert json.loads(second.body) == {**body, **own, "content": "body", "to_mail": "z@x.example", "to_name": ""}


async def test_a_message_whose_token_cannot_be_read_waits(lent: Way) -> None:
    """A lost spool.key is our trouble, so no bounce, and one message's, so no pause of the backend."""
    outcome = (await lent.send("b@x.example"))["b@x.example"]
    assert (outcome.verdict, outcome.code, outcome.enhanced) == (Verdict.DEFERRED, None, "4.7.0")
    assert "put the spool.key it was sealed with back" in outcome.fix
    assert lent.backend.capabilities.own_token
    assert lent.web.requests == []


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (
            b"From: a@corp.example\r\n\r\nbody",
            'without a subject cannot be sent through backend "way" (Subject); set empty_subject: fill on backends.way',
        ),
        (b"From: a@corp.example\r\nSubject: \r\n\r\nbody", "without a subject"),
        (b"From: a@corp.example\r\nSubject: s\r\n\r\n", "without a text"),
    ],
)
async def test_what_the_worker_calls_empty_is_refused(way: Way, raw: bytes, words: str) -> None:
    outcome = await way.one(raw=raw)
    assert (outcome.verdict, outcome.enhanced) == (Verdict.REJECTED, "5.6.3")
    assert words in outcome.detail
    assert way.web.requests == []


async def test_a_report_of_ours_is_sent_without_its_own_fields(way: Way) -> None:
    """Bounces carry Auto-Submitted and References, which nobody could tell the gateway to leave out."""
    raw = b"From: a@corp.example\r\nSubject: s\r\nAuto-Submitted: auto-replied\r\nReferences: <1@x>\r\n\r\nbody"
    outcomes = await way.backend.send(replace(spooled("b@x.example"), bounce=True), raw)
    assert outcomes["b@x.example"].verdict is Verdict.SENT


async def test_a_flood_of_forged_tokens_waits_in_line(lent: Way) -> None:
    """Few are asked about at a time and few wait: mail needs the connections, too."""
    running = most = 0
    gate = asyncio.Event()

    async def slow(_: kit.Request) -> bytes:
        nonlocal running, most
        running, most = running + 1, max(most, running + 1)
        await gate.wait()
        running -= 1
        return http(401, "Invalid address credential")

    lent.web.handler = slow
    asked = [asyncio.create_task(lent.backend.verify(f"{TOKEN}{number}")) for number in range(300)]
    await until(lambda: most == 8 and sum(task.done() for task in asked) == 100)
    gate.set()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert {one if isinstance(one, str) else type(one) for one in found} == {"", CannotTell}
    assert most == 8


async def test_an_empty_subject_can_be_filled(tmp_path: Path) -> None:
    async with open_way(tmp_path, TempMailFake(), empty_subject="fill") as way:
        assert (await way.one(raw=b"From: a@corp.example\r\n\r\nbody")).verdict is Verdict.SENT
        await way.one()
        assert [subject for subject, _ in way.fake.texts()] == ["(no subject)", "hello"]


def test_the_settings() -> None:
    good = {"base_url": "https://mail.example.org/", "token": "client"}
    assert TempMailSettings.model_validate(good).verifies
    assert not TempMailSettings.model_validate({**good, "token": TOKEN}).verifies
    assert {"token", "site_password"} <= set(TempMailSettings.secret_keys())  # so there are token_file and ..._file
    for missing in good:
        with pytest.raises(ValidationError, match=missing):
            TempMailSettings.model_validate({key: value for key, value in good.items() if key != missing})
    assert TOKEN not in repr(TempMailSettings.model_validate({**good, "token": TOKEN}))


# -- answers ---------------------------------------------------------------------------------------------------------

FAILED = "Failed to send mail "
SIGNATURE = f"token({TOKEN}) signature mismatched"
# status, text, verdict and enhanced code where the token is the settings', and where it is the client's; pause; fix
Row = tuple[int, str, tuple[Verdict, str], tuple[Verdict, str], timedelta | None, str]


def both(verdict: Verdict, enhanced: str) -> tuple[tuple[Verdict, str], tuple[Verdict, str]]:
    return (verdict, enhanced), (verdict, enhanced)


OURS, THEIRS = (Verdict.MISCONFIGURED, "4.7.0"), (Verdict.REJECTED, "5.7.8")
ANSWERS: list[Row] = [
    (400, f"{FAILED}No balance", OURS, (Verdict.REJECTED, "5.7.1"), None, "request_send_mail_access"),
    (400, f"{FAILED}Server daily send quota has been reached", *both(Verdict.THROTTLED, "4.4.5"), HOURS_LEFT, ""),
    (400, f"{FAILED}Server monthly send quota has been reached", *both(Verdict.THROTTLED, "4.4.5"),
     HOURS_LEFT + timedelta(days=10), ""),
    (400, f"{FAILED}Address is blocked", *both(Verdict.REJECTED, "5.7.1"), None, ""),
    (400, f"{FAILED}Invalid recipient address", *both(Verdict.REJECTED, "5.1.1"), None, ""),
    (400, f"{FAILED}Subject is empty", *both(Verdict.REJECTED, "5.6.0"), None, ""),
    (400, f"{FAILED}Content is empty", *both(Verdict.REJECTED, "5.6.0"), None, ""),
    (400, f"{FAILED}Invalid domain", OURS, (Verdict.REJECTED, "5.7.1"), None, ""),
    (400, f"{FAILED}Please enable resend, smtp or SEND_MAIL for this domain (x.org)",
     *both(Verdict.MISCONFIGURED, "4.3.5"), None, "RESEND_TOKEN"),
    (400, f"{FAILED}Address not found", OURS, THEIRS, None, "credential"),
    (400, "Address not found", OURS, THEIRS, None, "credential"),
    (400, f"{FAILED}invalid JWT token: {TOKEN}", OURS, THEIRS, None, "credential"),
    (400, f"{FAILED}{SIGNATURE}", OURS, THEIRS, None, "credential"),
    (400, f"{FAILED}JwtTokenSignatureMismatched", OURS, THEIRS, None, "credential"),
    (400, "JWT_SECRET is not set, please contact the administrator", *both(Verdict.MISCONFIGURED, "4.3.5"), None, ""),
    (400, "DB is not available, please contact the administrator", *both(Verdict.MISCONFIGURED, "4.3.5"), None, ""),
    (400, f"{FAILED}Resend error: invalid_token x", *both(Verdict.DEFERRED, "4.0.0"), None, ""),
    (400, f"{FAILED}whatever else", *both(Verdict.DEFERRED, "4.0.0"), None, ""),
    (400, f"{FAILED}D1_ERROR: no such table", *both(Verdict.IN_DOUBT, "4.4.2"), None, ""),
    (401, "You have enabled the private site password, please provide the password", OURS, OURS, None, "site_password"),
    (401, "Invalid address credential", OURS, THEIRS, None, "credential"),
    (403, "Access denied: IP 192.0.2.1 is blacklisted", *both(Verdict.MISCONFIGURED, "4.7.0"), None, "access control"),
    (404, "404 Not Found", *both(Verdict.MISCONFIGURED, "4.3.5"), None, "base_url"),
    (429, "IP=192.0.2.1 Rate limit exceeded for /api/send_mail", *both(Verdict.THROTTLED, "4.4.5"), None, ""),
    (429, "IP=192.0.2.1 Exceeded daily limit of 5 requests", *both(Verdict.THROTTLED, "4.4.5"), None, ""),
    (500, "TypeError Cannot read properties", *both(Verdict.DEFERRED, "4.3.0"), None, ""),
    (200, "", *both(Verdict.IN_DOUBT, "4.4.2"), None, ""),
    (200, "<html>", *both(Verdict.DEFERRED, "4.4.0"), None, "base_url"),
    (200, '{"status":"no"}', *both(Verdict.IN_DOUBT, "4.4.2"), None, ""),
]  # fmt: skip


@pytest.mark.parametrize(("status", "text", "ours", "theirs", "wait", "fix"), ANSWERS)
@pytest.mark.parametrize("client", [False, True], ids=["own token", "client's token"])
async def test_every_text_has_its_verdict(
    tmp_path: Path, client: bool, status: int, text: str, ours: Any, theirs: Any, wait: timedelta | None, fix: str
) -> None:
    async with open_way(tmp_path, TempMailFake(), **(CLIENT if client else {})) as way:
        way.fake.answers = [http(status, text)]
        message = replace(spooled("b@x.example"), secret=TOKEN if client else "")
        outcome = (await way.deliver(message, RAW))["b@x.example"]
        assert (outcome.verdict, outcome.enhanced) == (theirs if client else ours)
        assert (outcome.code, outcome.said_by, outcome.retry_after) == (status, "http", wait)
        assert (bool(outcome.fix), fix in outcome.fix) == (bool(fix), True)
        assert TOKEN not in outcome.detail
        if TOKEN not in text:
            assert text in outcome.detail


@pytest.mark.parametrize(("endpoint", "verdict"), [("api", Verdict.REJECTED), ("external", Verdict.MISCONFIGURED)])
async def test_a_401_without_a_known_text(tmp_path: Path, endpoint: str, verdict: Verdict) -> None:
    """Only /api has the token looked at before the message; elsewhere 401 is the site's password."""
    async with open_way(tmp_path, TempMailFake(), **CLIENT, endpoint=endpoint) as way:
        way.fake.answers = [http(401, "Unauthorized")]
        message = replace(spooled("b@x.example"), secret=TOKEN)
        assert (await way.deliver(message, RAW))["b@x.example"].verdict is verdict


async def test_a_text_that_nobody_knows_is_tried_a_few_times(way: Way) -> None:
    for attempt in (1, 4, 5, 40):
        outcome = await way.one(http(400, f"{FAILED}Resend error: x"), attempt=attempt)
        expected = (Verdict.DEFERRED, "4.0.0") if attempt < 5 else (Verdict.REJECTED, "5.0.0")
        assert (outcome.verdict, outcome.enhanced) == expected


async def test_a_text_that_nobody_knows_does_not_hold_up_the_others(way: Way) -> None:
    way.fake.answers = [http(400, f"{FAILED}Resend error: x")]
    outcomes = await way.send("y@x.example", "z@x.example")
    assert [outcome.verdict.name for outcome in outcomes.values()] == ["DEFERRED", "SENT"]


@pytest.mark.parametrize(
    ("now", "day", "month"),
    [
        ((2026, 12, 31, 23, 59, 59), 1, 1),
        ((2027, 2, 1, 0, 0, 0), 86_400, 28 * 86_400),
        ((2028, 2, 29, 12, 0, 0), 43_200, 43_200),
        ((2027, 1, 31, 0, 0, 0), 86_400, 86_400),
    ],
)
async def test_quotas_last_until_the_day_or_month_ends_in_utc(
    way: Way, now: tuple[int, ...], day: int, month: int
) -> None:
    way.clock.advance((datetime(*now, tzinfo=UTC) - way.clock.now()).total_seconds())  # type: ignore[arg-type, misc]
    for quota, seconds in (("daily", day), ("monthly", month)):
        outcome = await way.one(http(400, f"{FAILED}Server {quota} send quota has been reached"))
        assert outcome.retry_after == timedelta(seconds=seconds)


# -- log-ins ---------------------------------------------------------------------------------------------------------


async def test_a_good_token_is_asked_about_once_in_five_minutes(lent: Way) -> None:
    for seconds, asked in ((0, 1), (299, 1), (2, 2), (10, 2)):
        lent.clock.advance(seconds)
        assert await lent.backend.verify(TOKEN) == "a@corp.example"
        assert len(lent.web.requests) == asked
    assert lent.web.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in repr(vars(lent.backend))


async def test_a_bad_token_is_asked_about_once_in_half_a_minute(lent: Way) -> None:
    for seconds, asked in ((0, 1), (29, 1), (2, 2)):
        lent.clock.advance(seconds)
        assert await lent.backend.verify("bad") == ""
        assert len(lent.web.requests) == asked
    lent.fake.tokens["gone"] = ""  # 400: an address that is no more
    assert await lent.backend.verify("gone") == ""


async def test_log_ins_at_once_ask_once(lent: Way) -> None:
    gate = asyncio.Event()

    async def slow(request: kit.Request) -> bytes:
        await gate.wait()
        answer = lent.fake(request)
        assert isinstance(answer, bytes)
        return answer

    lent.web.handler = slow
    tasks = [asyncio.create_task(lent.backend.verify(TOKEN)) for _ in range(20)]
    await until(lambda: len(lent.web.requests) == 1)
    tasks[0].cancel()  # whoever hung up does not take the answer from the others
    gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == ["a@corp.example"] * 19
    assert lent.fake.looked == 1


@pytest.mark.parametrize(
    "answer",
    [
        http(500, "Error"),
        http(503),
        http(429, "slow down"),
        http(403, "Access denied"),
        http(404, "no"),
        http(200, "<html>"),
        http(200, {"address": None}),
        http(200, {"address": ""}),
        http(200, {"address": 7}),
        http(401, "You have enabled the private site password, please provide the password"),
        http(400, "DB is not available, please contact the administrator"),
        None,
    ],
)
async def test_what_cannot_be_told_is_no_refusal_and_not_remembered(lent: Way, answer: bytes | None) -> None:
    good = lent.web.handler
    lent.web.handler = (lambda _: answer) if answer else kit.reset_at_once
    with pytest.raises(CannotTell) as error:
        await lent.backend.verify(TOKEN)
    assert TOKEN not in str(error.value)
    (line,) = lent.log.lines
    assert (line["event"], line["backend"]) == ("token_not_verified", "way")
    assert TOKEN not in str(line)
    lent.web.handler = good
    assert await lent.backend.verify(TOKEN) == "a@corp.example"


async def test_only_a_thousand_tokens_are_remembered(lent: Way) -> None:
    lent.web.handler = lambda _: http(200, {"address": "a@corp.example"})
    for start in range(0, 1000, 50):
        await asyncio.gather(*(lent.backend.verify(f"t{number}") for number in range(start, start + 50)))
    await lent.backend.verify("one too many")
    for number in range(950, 1000):
        await lent.backend.verify(f"t{number}")
    assert len(lent.web.requests) == 1001
    for number in range(50):  # one of the oldest had to go
        await lent.backend.verify(f"t{number}")
    assert len(lent.web.requests) > 1001


async def test_closing_ends_what_is_being_asked(lent: Way) -> None:
    lent.web.handler = kit.hang
    task = asyncio.create_task(lent.backend.verify(TOKEN))
    await until(lambda: len(lent.web.requests) == 1)
    await lent.backend.aclose()
    with pytest.raises(CannotTell):
        await task


# -- check -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "password", "ok", "summary", "fix"),
    [
        ({}, "", True, "the token is good", ""),
        ({"token": "bad"}, "", False, "HTTP 401", "the token is not good"),
        ({"site_password": "wrong"}, SECRET, False, "HTTP 401", "site_password"),
        ({}, SECRET, True, "the token is good", ""),
        (CLIENT, SECRET, True, "the site answers", ""),
        (CLIENT | {"site_password": "wrong"}, SECRET, False, "HTTP 401", "site_password"),
    ],
)
async def test_check_sends_nothing_and_says_what_to_do(
    tmp_path: Path, settings: dict[str, Any], password: str, ok: bool, summary: str, fix: str
) -> None:
    async with open_way(tmp_path, TempMailFake(password=password), **settings) as way:
        check = await way.backend.check()
        assert (check.ok, summary in check.summary, fix in check.fix) == (ok, True, True)
        assert check.facts.get("address", "") == ("a@corp.example" if ok and "token" not in settings else "")
        assert {request.method for request in way.web.requests} == {"GET"}
        assert not any(secret in f"{check}" for secret in (TOKEN, SECRET))


async def test_check_of_a_site_that_is_another(way: Way) -> None:
    for answer in (http(404, "404 Not Found"), http(200, "<html>")):
        way.web.handler = lambda _, answer=answer: answer  # type: ignore[misc]
        check = await way.backend.check()
        assert not check.ok
        assert "base_url" in check.fix
