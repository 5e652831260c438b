"""The shared table of HTTP statuses, Retry-After, and what may be shown of a provider's words."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.shared.base import safe
from gateway.backends.shared.http import COMMON, judge, retry_after
from gateway.backends.shared.table import Row
from gateway.fetch import Answer
from gateway.model import Outcome, Scope, Verdict
from gateway.strangers import lenient_json
from tests.fakes import START

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


STATUSES: list[tuple[tuple[int, ...], str, Verdict, str]] = [
    ((400, 409, 422), "", Verdict.REJECTED, "5.6.0"),
    ((413,), "", Verdict.REJECTED, "5.3.4"),
    ((401, 403), "", Verdict.MISCONFIGURED, "4.7.0"),
    ((402, 404, 405, 407, 410, 411, 426, 431, 451, 301, 302, 308), "", Verdict.MISCONFIGURED, "4.3.5"),
    ((403,), "Quota exceeded", Verdict.THROTTLED, "4.4.5"),
    ((403,), "rate limit hit", Verdict.THROTTLED, "4.4.5"),
    ((429,), "", Verdict.THROTTLED, "4.4.5"),
    ((408, 421, 423, 425, 500, 502, 503, 504, 509), "", Verdict.DEFERRED, "4.3.0"),
    ((100, 202, 600), "", Verdict.IN_DOUBT, "4.4.2"),
    ((200,), "no idea", Verdict.IN_DOUBT, "4.4.2"),
]


@pytest.mark.parametrize(
    ("status", "words", "verdict", "enhanced"), [(status, *rest) for statuses, *rest in STATUSES for status in statuses]
)
def test_a_status_that_no_table_names(status: int, words: str, verdict: Verdict, enhanced: str) -> None:
    """An unpaid account, a wrong URL, a proxy and a ban are never the message's fault."""
    outcome = judge(Answer(status, {}, b""), (), name="way", code="", words=words, now=START)
    assert (outcome.verdict, outcome.code, outcome.enhanced) == (verdict, status, enhanced)
    instead = ", a redirect in place of an answer" if 300 <= status < 400 else ""
    assert outcome.detail == f"HTTP {status}{instead} {words}".strip()
    assert outcome.retry_after is None


def test_every_status_fits_a_row_and_temporary_verdicts_have_temporary_codes() -> None:
    for status in range(1000):
        row = next(row for row in COMMON if row.fits(status, "", ""))
        assert row.enhanced.startswith("5." if row.verdict is Verdict.REJECTED else "4."), status


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", timedelta(seconds=120)),
        (" 7 ", timedelta(seconds=7)),
        ("1.5", timedelta(seconds=1.5)),
        ("0", None),
        ("1000000000", DAY),
        ("9" * 400, DAY),
        ("1e9", None),
        ("-5", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        ("Fri, 20 Nov 2026 12:01:00 GMT", MINUTE),
        ("Friday, 20-Nov-26 12:01:00 GMT", MINUTE),
        ("Fri Nov 20 12:01:00 2026", MINUTE),
        ("Fri, 20 Nov 2026 14:01:00 +0200", MINUTE),
        ("Fri, 20 Nov 2026 11:00:00 GMT", None),
        ("Fri, 20 Nov 2099 12:01:00 GMT", DAY),
        ("Fri, 99 Nov 2026 12:01:00 GMT", None),
    ],
)
def test_retry_after_in_every_form(value: str, expected: timedelta | None) -> None:
    assert retry_after({"retry-after": value}, START) == expected


@pytest.mark.parametrize(
    ("status", "words", "verdict", "scope"),
    [
        (400, "Account suspended", Verdict.MISCONFIGURED, Scope.BACKEND),
        (400, "Recipient b@x.example: account disabled", Verdict.REJECTED, Scope.MESSAGE),
        (422, 'The subject "Invoice 12 past due, payment required" is not valid', Verdict.REJECTED, Scope.MESSAGE),
        (422, "Your subscription has expired", Verdict.MISCONFIGURED, Scope.BACKEND),
        (400, "insufficient credits", Verdict.MISCONFIGURED, Scope.BACKEND),
        (400, "From domain is not verified", Verdict.MISCONFIGURED, Scope.MESSAGE),
        (400, "Daily sending limit reached", Verdict.THROTTLED, Scope.MESSAGE),
        (400, "attachment exceeds the daily limit of the size", Verdict.REJECTED, Scope.MESSAGE),
        (400, "the account number in the text is not a number", Verdict.REJECTED, Scope.MESSAGE),
    ],
)
def test_our_account_is_no_message_s_fault(status: int, words: str, verdict: Verdict, scope: Scope) -> None:
    """Promise 4: what it may send is used up, it is blocked or unpaid, its sender is not verified: nothing bounces."""
    outcome = judge(Answer(status, {}, b"{}"), (), name="way", code="", words=words, now=START)
    assert (outcome.verdict, outcome.scope, bool(outcome.fix)) == (verdict, scope, verdict is Verdict.MISCONFIGURED)


@pytest.mark.parametrize(
    ("status", "verdict", "scope"),
    [
        (200, Verdict.DEFERRED, Scope.BACKEND),
        (202, Verdict.DEFERRED, Scope.BACKEND),
        (400, Verdict.DEFERRED, Scope.MESSAGE),
        (403, Verdict.MISCONFIGURED, Scope.BACKEND),
        (413, Verdict.REJECTED, Scope.MESSAGE),
        (502, Verdict.DEFERRED, Scope.MESSAGE),
    ],
)
@pytest.mark.parametrize(
    "body", [b"<!DOCTYPE html><html>Please sign in", b" <html><body>recipient refused", b"sign in"]
)
def test_a_web_page_is_not_the_api(body: bytes, status: int, verdict: Verdict, scope: Scope) -> None:
    """A proxy, a portal, a wrong URL: nothing was taken, so nothing is in doubt, and nothing bounces."""
    headers = {} if b"<" in body else {"content-type": "text/html; charset=utf-8"}
    rows = (Row((400,), Verdict.REJECTED, "5.1.1", text="recipient", scope=Scope.RECIPIENT),)
    answer = Answer(status, headers, body)
    outcome = judge(answer, rows, name="way", code="", words=body.decode(), now=START)
    assert (outcome.verdict, outcome.scope) == (verdict, scope)


def test_a_date_goes_with_the_clock_of_who_sent_it() -> None:
    """A clock that is an hour wrong, ours or theirs, makes no hour of a minute, and no nonsense of it either."""
    for theirs in ("11:00", "12:00", "13:00"):
        headers = {"date": f"Fri, 20 Nov 2026 {theirs}:00 GMT", "retry-after": f"Fri, 20 Nov 2026 {theirs}:40 GMT"}
        assert retry_after(headers, START) == timedelta(seconds=40)
    assert retry_after({"date": "soon", "retry-after": "Fri, 20 Nov 2026 12:01:00 GMT"}, START) == MINUTE


@given(st.text(max_size=60))
def test_retry_after_never_fails_and_stays_in_bounds(value: str) -> None:
    wait = retry_after({"retry-after": value}, START)
    assert wait is None or timedelta(0) < wait <= DAY


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (429, timedelta(seconds=30)),
        (503, timedelta(seconds=30)),
        (401, timedelta(seconds=30)),
        (400, None),
        (202, None),
    ],
)
def test_a_hint_counts_only_where_there_is_something_to_wait_for(status: int, expected: timedelta | None) -> None:
    answer = Answer(status, {"retry-after": "30"}, b"")
    assert judge(answer, (), name="way", code="", words="", now=START).retry_after == expected


def test_a_row_without_hint_waits_its_own_time_and_the_first_row_decides() -> None:
    rows = (
        Row((429,), Verdict.THROTTLED, "4.4.5", code="SPECIAL", pause=MINUTE, fix="see backends.{name}"),
        Row((429,), Verdict.REJECTED, "5.6.0", text="no+pe"),
    )

    def judged(code: str, words: str, **headers: str) -> Outcome:
        return judge(Answer(429, headers, b""), rows, name="way", code=code, words=words, now=START)

    assert judged("E.SPECIAL", "nope").retry_after == MINUTE
    assert judged("E.SPECIAL", "", **{"retry-after": "300"}).retry_after == 5 * MINUTE
    assert judged("E.OTHER", "NOOOPE").verdict is Verdict.REJECTED
    assert judged("E.OTHER", "else").retry_after is None
    assert (judged("E.SPECIAL", "").fix, judged("E.OTHER", "").fix) == ("see backends.way", "")


@pytest.mark.parametrize(
    ("verdict", "scope"),
    [
        (Verdict.THROTTLED, Scope.BACKEND),
        (Verdict.MISCONFIGURED, Scope.BACKEND),
        (Verdict.DEFERRED, Scope.MESSAGE),
        (Verdict.REJECTED, Scope.MESSAGE),
        (Verdict.IN_DOUBT, Scope.MESSAGE),
    ],
)
def test_a_row_is_about_what_its_verdict_rests_unless_it_says_otherwise(verdict: Verdict, scope: Scope) -> None:
    """A provider that answers at all is not away: its 503 is about this message, its 429 about the account."""
    plain, special = Row((200,), verdict, "4.0.0"), Row((200,), verdict, "4.0.0", scope=Scope.RECIPIENT)
    assert plain.outcome("http", 200, "x", {}).scope is scope
    assert special.outcome("http", 200, "x", {}).scope is Scope.RECIPIENT


@pytest.mark.parametrize(
    ("text", "secrets", "shown"),
    [
        ("plain words", (), "plain words"),
        ("two\r\nlines\tand \x00\x1b[31m more", (), "two lines and [31m more"),
        ("Key api-0123456789abcdef0123456789abcdef is not valid", (), "Key *** is not valid"),
        ("Authorization: Bearer abcdefghijklmnopqrstuvwxyz0123", (), "Authorization: ***"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.abc_-x refused", (), "token *** refused"),
        ("you sent " + "QUJD" * 30 + "==", (), "you sent ***"),
        ("535 wrong password hunter2", ("hunter2", ""), "535 wrong password ***"),
        ("550 5.7.30 Basic authentication is not supported", (), "550 5.7.30 Basic authentication is not supported"),
        ("250 queued as 4XyZ12AbCdEf0123456789", (), "250 queued as 4XyZ12AbCdEf0123456789"),
        ("\u202espoofed\u202c", (), "spoofed"),
        ("x " * 400, (), "x " * 149 + "x…"),
    ],
)
def test_a_providers_words_become_one_safe_line(text: str, secrets: tuple[str, ...], shown: str) -> None:
    assert safe(text, *secrets) == shown


@given(st.text(max_size=2000))
def test_shown_text_is_always_short_and_printable(text: str) -> None:
    shown = safe(text)
    assert len(shown) <= 300
    assert shown == "" or shown.isprintable()


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b"null", b"{", b"\xff\xfe{", b"[" * 100_000, b'{"a":' * 50_000, b"1e999999"]
)
def test_json_that_is_no_object_is_empty(body: bytes) -> None:
    assert lenient_json(body) == {}
