"""What the HTTP backends share: asking, Retry-After, and tables that turn a status and its words into a verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from gateway.backends.shared.base import safe
from gateway.fetch import Answer, Fetch, Lost, NotSent
from gateway.model import Outcome, Verdict

_LONGEST = timedelta(days=1)
_BYTES_PER_SECOND = 250_000  # the slowest uplink that a large body is given time for


@dataclass(frozen=True, slots=True)
class Row:
    """One line of an error table. ``code`` (or one of them) ends the provider's, ``text`` is searched in its words.

    ``pause`` is how long to wait at least; the provider may ask for more.
    """

    statuses: Collection[int]
    verdict: Verdict
    enhanced: str
    code: str | tuple[str, ...] = ""
    text: str = ""
    pause: timedelta | None = None

    def fits(self, status: int, code: str, words: str) -> bool:
        return (
            status in self.statuses
            and code.endswith(self.code)
            and (not self.text or re.search(self.text, words, re.IGNORECASE) is not None)
        )


# For every status that a backend's own table does not name; the last row fits whatever is left.
COMMON = (
    Row((429,), Verdict.THROTTLED, "4.4.5"),
    Row((408, 425, *range(500, 600)), Verdict.DEFERRED, "4.3.0"),
    Row((403,), Verdict.THROTTLED, "4.4.5", text=r"quota|rate.?limit"),
    Row((401, 403), Verdict.MISCONFIGURED, "4.7.0"),
    # An unpaid account, a wrong URL or a proxy: none of them is the message's fault.
    Row((402, 404, 405, 407, *range(300, 400)), Verdict.MISCONFIGURED, "4.3.5"),
    Row((413,), Verdict.REJECTED, "5.3.4"),
    Row(range(400, 500), Verdict.REJECTED, "5.6.0"),
    Row(range(1000), Verdict.IN_DOUBT, "4.4.2"),
)


def judge(
    answer: Answer,
    rows: Sequence[Row],
    *,
    code: str,
    words: str,
    now: datetime,
    secrets: Sequence[str] = (),
    fixes: Sequence[tuple[str, str]] = (),
) -> Outcome:
    """The outcome of an answer that is not a success: the first row that fits decides.

    So does the first of ``fixes``, patterns searched in "status code: words", about what a person has to do.
    """
    row = next(row for row in (*rows, *COMMON) if row.fits(answer.status, code, words))
    detail = safe(f"HTTP {answer.status} {code.rpartition('.')[2]} {words}", *secrets)
    wait = None
    if row.verdict in (Verdict.DEFERRED, Verdict.THROTTLED, Verdict.MISCONFIGURED):
        waits = [wait for wait in (retry_after(answer.headers, now), row.pause) if wait]
        wait = max(waits, default=None)
    said = f"{answer.status} {code}: {words}"
    fix = next((fix for pattern, fix in fixes if re.search(pattern, said, re.IGNORECASE)), "")
    return with_fix(Outcome(row.verdict, answer.status, row.enhanced, detail, retry_after=wait, said_by="http"), fix)


def start_of(answer: Answer) -> str:
    """The words of an answer in which no error was found."""
    return answer.body[:500].decode("utf-8", "replace")


def with_fix(outcome: Outcome, fix: str) -> Outcome:
    """The outcome with what a person has to do about it, where there is something."""
    return replace(outcome, detail=f"{outcome.detail}; to do: {fix}") if fix else outcome


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """The Retry-After header (RFC 9110, 10.2.3: seconds or a date), at most a day; None if absent, past or nonsense."""
    value = headers.get("retry-after", "").strip()
    try:
        if re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII):
            wait = timedelta(seconds=min(float(value), _LONGEST.total_seconds()))
        else:
            moment = parsedate_to_datetime(value)
            wait = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now
    except (ValueError, TypeError, OverflowError):
        return None
    return min(wait, _LONGEST) if wait > timedelta(0) else None


def read_json(body: bytes) -> dict[str, Any]:
    """A JSON object; empty for anything else, however broken."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


async def ask(
    fetch: Fetch,
    url: str,
    *,
    headers: Mapping[str, str],
    content: bytes | None = None,
    timeout: timedelta,
    method: str = "POST",
) -> Answer | Outcome:
    """By default POST JSON. Without an answer: DEFERRED where nothing was sent, IN_DOUBT where something may have been.

    A large body gets more time than ``timeout``: a second for each 250 kB.
    """
    deadline = timeout.total_seconds() + len(content or b"") // _BYTES_PER_SECOND
    sent = {"content-type": "application/json", "accept": "application/json", **headers}
    if content is None:
        del sent["content-type"]
    try:
        return await fetch.request(method, url, headers=sent, content=content, deadline=deadline)
    except NotSent as error:
        return Outcome(Verdict.DEFERRED, None, "4.4.1", safe(str(error)))
    except Lost as error:
        return Outcome(Verdict.IN_DOUBT, None, "4.4.2", safe(str(error)))
