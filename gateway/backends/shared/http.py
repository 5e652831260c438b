"""What the HTTP backends share: calls, Retry-After, and what a status means that no table of theirs names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from gateway.backends.shared.base import NoAnswer, away, safe
from gateway.backends.shared.table import ANY, TOO_BIG, Row, first
from gateway.fetch import Answer, Fetch, Lost, NotSent
from gateway.model import Outcome, Scope, Verdict

_SHORTEST, _LONGEST = timedelta(seconds=1), timedelta(days=1)
_STALE = timedelta(minutes=5)
_BYTES_PER_SECOND = 250_000  # the slowest uplink that a large body is given time for

_UNVERIFIED = r"\b(from|sender|domain)\b.{0,60}\bnot (yet )?(been )?verified\b|\bunverified (from|sender|domain)\b"
# Of ours: a subject that is quoted ("Invoice 12 past due") or a recipient may be spoken of in the same words.
_ACCOUNT = (
    r"^(?!.*\b(recipients?|subject|mailbox)\b).*("
    r"\b(account|subscription|plan|billing|payment|invoice)\b.{0,40}\b(suspended|disabled|blocked|closed|cancell?ed|"
    r"expired|past due|overdue|unpaid|required|not (yet )?(active|activated|approved))\b|"
    r"\binsufficient (credits?|balance|funds)\b)"
)
_SPENT = r"^(?!.*\b(size|attachment|recipient|length)).*\b(daily|hourly|monthly|sending|send)\b.{0,40}\b(limit|quota)\b"
_VERIFY = "verify the sender or its domain at the provider, or set senders so that others are refused"
_LOOK = "look at the account of backends.{name} at the provider"
ELSEWHERE = (
    "this is a web page or a redirect, not the API: check base_url or api_base, and what stands between (proxy, "
    "portal, firewall)"
)
BUSY_403 = Row((403,), Verdict.THROTTLED, "4.4.5", text=r"quota|rate.?limit")
# For every status that a backend's own table does not name; the last row fits whatever is left.
COMMON = (
    Row((429,), Verdict.THROTTLED, "4.4.5"),
    Row((408, 421, 423, 425, *range(500, 600)), Verdict.DEFERRED, "4.3.0"),
    BUSY_403,
    Row((401, 403), Verdict.MISCONFIGURED, "4.7.0"),
    # An unpaid account, a wrong URL, a proxy or a ban: none of them is the message's fault.
    Row(range(300, 400), Verdict.MISCONFIGURED, "4.3.5", fix=ELSEWHERE),
    Row((402,), Verdict.MISCONFIGURED, "4.3.5", fix=_LOOK),
    Row((404, 405, 407, 410, 411, 426, 431, 451), Verdict.MISCONFIGURED, "4.3.5"),
    Row((413,), Verdict.REJECTED, "5.3.4", fix=TOO_BIG),
    # Refused like a message, but not for its fault: our account, or who may send by it.
    Row((400, 409, 422), Verdict.MISCONFIGURED, "4.7.0", text=_UNVERIFIED, scope=Scope.MESSAGE, fix=_VERIFY),
    Row((400, 409, 422), Verdict.MISCONFIGURED, "4.7.0", text=_ACCOUNT, fix=_LOOK),
    Row((400, 409, 422), Verdict.THROTTLED, "4.4.5", text=_SPENT, scope=Scope.MESSAGE),
    Row(range(400, 500), Verdict.REJECTED, "5.6.0"),
    Row(ANY, Verdict.IN_DOUBT, "4.4.2"),
)


def judge(
    answer: Answer,
    rows: Sequence[Row],
    *,
    name: str,
    code: str,
    words: str,
    now: datetime,
    secrets: Sequence[str] = (),
    hint: timedelta | None = None,
) -> Outcome:
    """The outcome of an answer to the backend called ``name`` that is not a success: the first row that fits decides.

    ``secrets`` are kept out of its detail. ``hint``: how long to wait, where that stands elsewhere than in Retry-After.
    """
    row = first((*rows, *COMMON), answer.status, code, words)
    detail = safe(f"HTTP {answer.status}{_instead(answer)} {code.rpartition('.')[2]} {words}", *secrets)
    outcome = row.outcome("http", answer.status, detail, {"name": name})
    if row.verdict in (Verdict.REJECTED, Verdict.IN_DOUBT) and answer.status < 500 and is_page(answer):
        # Nothing of ours got through. A page for a 200 comes to everybody; for a 4xx it may come for this message.
        scope = Scope.BACKEND if answer.status < 400 else Scope.MESSAGE
        return replace(outcome, verdict=Verdict.DEFERRED, enhanced="4.4.0", scope=scope, fix=ELSEWHERE)
    if row.verdict not in (Verdict.DEFERRED, Verdict.THROTTLED, Verdict.MISCONFIGURED):
        return outcome
    waits = filter(None, (retry_after(answer.headers, now), hint, row.pause))
    return replace(outcome, retry_after=max(waits, default=None))


def _instead(answer: Answer) -> str:
    """What came in place of an answer, in words: a portal's page says nothing of that."""
    if answer.status in range(300, 400):
        return ", a redirect in place of an answer"
    return ", a web page in place of an answer:" if answer.status < 300 and is_page(answer) else ""


def is_page(answer: Answer) -> bool:
    """Whether this is a web page, which no API gives. That a body is too large (413) any server may say."""
    html = answer.headers.get("content-type", "").lower().startswith("text/html")
    return answer.status != 413 and (html or re.match(rb"\s*<(!doctype|html)", answer.body, re.IGNORECASE) is not None)


def start_of(answer: Answer) -> str:
    """The words of an answer in which no error was found."""
    charset = re.search(r"charset=[\"']?([\w.:-]+)", answer.headers.get("content-type", ""), re.IGNORECASE)
    try:
        return answer.body[:500].decode(charset[1] if charset else "utf-8", "replace")
    except (LookupError, ValueError):  # no such charset, or one for names only
        return answer.body[:500].decode("utf-8", "replace")


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """The Retry-After header (RFC 9110, 10.2.3: seconds or a date), in bounds; None if absent, past or nonsense."""
    value = headers.get("retry-after", "").strip()
    try:
        if re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII):
            return bounded(timedelta(seconds=min(float(value), _LONGEST.total_seconds())))
        return bounded(_date(value) - their_now(headers, now))
    except (ValueError, TypeError, OverflowError):
        return None


def their_now(headers: Mapping[str, str], now: datetime) -> datetime:
    """The time by the clock of who answers (RFC 9110, 6.6.1), with which its other dates go; else ours."""
    try:
        return _date(headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):
        return now


def bounded(wait: timedelta) -> timedelta | None:
    """A hint between a second and a day; None for no wait at all."""
    return min(max(wait, _SHORTEST), _LONGEST) if wait > timedelta(0) else None


def _date(text: str) -> datetime:
    moment = parsedate_to_datetime(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def exchange(
    fetch: Fetch,
    url: str,
    *,
    headers: Mapping[str, str],
    content: bytes | None = None,
    timeout: timedelta,
    method: str = "POST",
) -> Answer:
    """By default POST JSON. A large body gets more time than ``timeout``: a second for each 250 kB.

    Raises NoAnswer: DEFERRED where nothing was sent, which is the backend's trouble, IN_DOUBT where something may have
    been.
    """
    deadline = timeout.total_seconds() + len(content or b"") // _BYTES_PER_SECOND
    kind = {} if content is None else {"content-type": "application/json"}
    sent = {"accept": "application/json", **kind, **headers}
    try:
        return await fetch.request(method, url, headers=sent, content=content, deadline=deadline)
    except NotSent as error:
        raise away(str(error), error.fix) from None
    except Lost as error:
        # Hardly in doubt: soon again, and not only when the provider must long be done with the first.
        wait = _STALE if error.stale else None
        outcome = Outcome(Verdict.IN_DOUBT, enhanced="4.4.2", detail=safe(str(error)), retry_after=wait)
        raise NoAnswer(outcome) from None
