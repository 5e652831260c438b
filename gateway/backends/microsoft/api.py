"""Microsoft Graph as it answers: the calls with their tokens, and what every error means (providers.md 2.8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from gateway.backends.shared.base import Context
from gateway.backends.shared.http import Row, ask, judge, read_json, start_of, with_fix
from gateway.backends.shared.oauth import TokenCache, authorized
from gateway.fetch import Answer
from gateway.model import Outcome, Verdict
from gateway.url import check_url

IMMUTABLE = {"prefer": 'IdType="ImmutableId"'}  # an id that stays when the draft becomes sent mail
_HOUR = timedelta(hours=1)
_BUSY = timedelta(seconds=10)  # "Retry-After: 1" on every 429 has been seen, for hours
_ANY = range(300, 600)


def _rows(verdict: Verdict, enhanced: str, codes: str, pause: timedelta | None = None) -> list[Row]:
    return [Row(_ANY, verdict, enhanced, code=code, pause=pause) for code in codes.split()]


NO_MAILBOX = (
    "ErrorInvalidUser Request_ResourceNotFound ErrorNonExistentMailbox MailboxNotEnabledForRESTAPI "
    "MailboxNotSupportedForRESTAPI"
)
BLOCKED = "ErrorMessageSubmissionBlocked ErrorAccountSuspend ErrorAccountDisabled"
ROWS = (
    *_rows(Verdict.REJECTED, "5.7.0", "ErrorVirusDetected"),
    *_rows(Verdict.REJECTED, "5.6.0", "ErrorMimeContentInvalidBase64String ErrorMimeContentInvalid"),
    *_rows(Verdict.REJECTED, "5.1.3", "ErrorInvalidRecipients ErrorMissingRecipients ErrorInvalidSmtpAddress"),
    *_rows(Verdict.REJECTED, "5.3.4", "ErrorMessageSizeExceeded RequestEntityTooLarge"),
    Row((400, 413), Verdict.REJECTED, "5.3.4", code="BadRequest", text="maximum request length"),
    *_rows(Verdict.REJECTED, "5.5.3", "ErrorExceededMaxRecipientLimit"),
    *_rows(Verdict.REJECTED, "5.7.1", "ErrorSendAsDenied"),
    *_rows(Verdict.MISCONFIGURED, "4.3.5", NO_MAILBOX),
    *_rows(Verdict.MISCONFIGURED, "4.7.0", f"InvalidAuthenticationToken unauthenticated ErrorAccessDenied {BLOCKED}"),
    *_rows(
        Verdict.THROTTLED,
        "4.4.5",
        "ErrorExceededMessageLimit ErrorExceededHourlyMessageLimit ErrorSubmissionQuotaExceeded",
        _HOUR,
    ),
    *_rows(Verdict.DEFERRED, "4.2.2", "ErrorQuotaExceeded quotaLimitReached", _HOUR),
    *_rows(Verdict.DEFERRED, "4.3.0", "ErrorIrresolvableConflict ErrorStaleObject ErrorItemNotFound"),
    *_rows(Verdict.THROTTLED, "4.4.5", "ApplicationThrottled TooManyRequests activityLimitReached", _BUSY),
    Row((429,), Verdict.THROTTLED, "4.4.5", pause=_BUSY),
    Row((504,), Verdict.IN_DOUBT, "4.4.2"),  # whatever it says: such mail has arrived, four times over
    *_rows(
        Verdict.DEFERRED,
        "4.3.0",
        "ErrorServerBusy ErrorMailboxStoreUnavailable ErrorMailboxMoveInProgress ErrorMailboxFailover "
        "ErrorTimeoutExpired ErrorInternalServerError serviceNotAvailable",
    ),
    Row((507, 509), Verdict.DEFERRED, "4.3.0"),
)
# What to do, for those errors that a person has to do something about.
_FIXES = {
    "ErrorSendAsDenied": "From and Sender must be the mailbox or what it has Send As for, see docs/microsoft365.md",
    "ErrorAccessDenied": "the application may not do this in that mailbox, see docs/microsoft365.md, Permissions",
    "ErrorExceededMaxRecipientLimit": "lower backends.{name}.max_recipients",
    "ErrorQuotaExceeded": "the mailbox is full: make room, its Sent Items first",
    "MailboxNotEnabledForRESTAPI": "the mailbox must be in Exchange Online",
    "ErrorMessageSubmissionBlocked": "unblock the account (Microsoft Defender, Restricted entities)",
    **dict.fromkeys(NO_MAILBOX.split()[:3], "no such mailbox: check backends.{name}.mailbox"),
}


class Api:
    """Calls with a token of ours, relative to the root of the API.

    ``many``: they are made for several mailboxes, so what is wrong with one of them is no fault of the backend.
    """

    def __init__(
        self, name: str, root: str, tokens: TokenCache, context: Context, *, timeout: timedelta, many: bool
    ) -> None:
        self._name = name
        self._many = many
        self._root = root
        self._tokens = tokens
        self._timeout = timeout
        self._context = context

    async def call(
        self, method: str, path: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer | Outcome:
        """One request; where its token is refused, one more with a fresh one."""

        async def request(token: str) -> Answer | Outcome:
            sent = {"authorization": f"Bearer {token}", **(headers or {})}
            return await self._request(method, f"{self._root}/v1.0{path}", content, sent)

        answer, _ = await authorized(self._tokens, request)
        return answer

    async def upload(
        self, method: str, url: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer | Outcome:
        """A request to an upload session: its URL is the permission, and our token is none of its business."""
        try:
            check_url(url)
        except ValueError as error:
            return Outcome(Verdict.DEFERRED, 502, "4.3.0", f"upload session: {error}")
        return await self._request(method, url, content, headers or {})

    async def _request(
        self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]
    ) -> Answer | Outcome:
        return await ask(
            self._context.fetch, url, headers=headers, content=content, timeout=self._timeout, method=method
        )

    def judge(self, answer: Answer) -> Outcome:
        """What an answer that is no success means, and what to do about it."""
        code, words = error_of(answer)
        outcome = judge(answer, ROWS, code=code, words=words, now=self._context.clock.now())
        if self._many and code in NO_MAILBOX.split():
            outcome = replace(outcome, verdict=Verdict.REJECTED, enhanced="5.1.8")
        elif self._many and code and answer.status != 401 and outcome.verdict is Verdict.MISCONFIGURED:
            outcome = replace(outcome, verdict=Verdict.DEFERRED, retry_after=outcome.retry_after or _HOUR)
        return with_fix(outcome, _FIXES.get(code, "").format(name=self._name))


def error_of(answer: Answer) -> tuple[str, str]:
    """The most specific code that we know, else the outermost, and the words for it."""
    error = read_json(answer.body).get("error")
    if not isinstance(error, dict):
        return "", start_of(answer)
    codes: list[str] = []
    place: Any = error
    while isinstance(place, dict) and len(codes) < 10:
        codes.append(str(place.get("code") or ""))
        place = place.get("innerError") or place.get("innererror")
    known = [code for code in codes if is_known(code)]
    return (known or codes)[-1 if known else 0], str(error.get("message") or "")


def is_known(code: str) -> bool:
    """Whether the code alone says what is wrong."""
    return code not in ("", "BadRequest") and any(row.code == code for row in ROWS)


def unsent(outcome: Outcome, where: str) -> Outcome:
    """An outcome from before the sending: whatever became of the call, nobody has got anything."""
    verdict = Verdict.DEFERRED if outcome.verdict is Verdict.IN_DOUBT else outcome.verdict
    return replace(outcome, verdict=verdict, detail=f"{where}: {outcome.detail}")
