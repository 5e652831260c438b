"""Microsoft Graph as it answers: the calls with their tokens, and what every error means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from gateway.backends.shared.base import Context, NoAnswer
from gateway.backends.shared.http import exchange, judge, start_of
from gateway.backends.shared.oauth import TokenCache, authorized
from gateway.backends.shared.table import TOO_BIG, Row
from gateway.fetch import Answer
from gateway.model import Outcome, Scope, Verdict
from gateway.strangers import lenient_json
from gateway.url import check_url

IMMUTABLE = {"prefer": 'IdType="ImmutableId"'}  # an id that stays when the draft becomes sent mail
_HOUR = timedelta(hours=1)
_ANY = range(300, 600)


def _row(
    verdict: Verdict, enhanced: str, codes: str, *,
    pause: timedelta | None = None, scope: Scope | None = None, fix: str = "",
) -> Row:  # fmt: skip
    return Row(_ANY, verdict, enhanced, code=tuple(codes.split()), pause=pause, scope=scope, fix=fix)


_RECIPIENTS = "ErrorInvalidRecipients ErrorMissingRecipients ErrorInvalidSmtpAddress"
TOO_MANY = "ErrorExceededMaxRecipientLimit"
_SEND_AS = "From and Sender must be the mailbox or what it has Send As for, see docs/microsoft365.md"
_ACCESS = (
    "grant the application Mail.Send with admin consent, or by RBAC for Applications in Exchange for that mailbox "
    "(docs/microsoft365.md, Permissions)"
)
_UNBLOCK = "unblock the account (Microsoft Defender, Restricted entities)"
_ROOM = "the mailbox is full: make room, its Sent Items first"
_NONE = "no such mailbox: check backends.{name}.mailbox"
_ONLINE = "the mailbox must be in Exchange Online"
NO_MAILBOX = (
    _row(
        Verdict.MISCONFIGURED, "4.3.5", "ErrorInvalidUser Request_ResourceNotFound ErrorNonExistentMailbox", fix=_NONE
    ),
    _row(Verdict.MISCONFIGURED, "4.3.5", "MailboxNotEnabledForRESTAPI MailboxNotSupportedForRESTAPI", fix=_ONLINE),
)
# https://learn.microsoft.com/graph/errors and https://learn.microsoft.com/exchange/client-developer/
# web-service-reference/responsecode
ROWS = (
    _row(Verdict.REJECTED, "5.7.0", "ErrorVirusDetected"),
    _row(Verdict.REJECTED, "5.6.0", "ErrorMimeContentInvalidBase64String ErrorMimeContentInvalid"),
    _row(Verdict.REJECTED, "5.1.3", _RECIPIENTS, scope=Scope.RECIPIENT),
    _row(Verdict.REJECTED, "5.3.4", "ErrorMessageSizeExceeded RequestEntityTooLarge", fix=TOO_BIG),
    Row((400, 413), Verdict.REJECTED, "5.3.4", code="BadRequest", text="maximum request length", fix=TOO_BIG),
    _row(Verdict.DEFERRED, "4.5.3", TOO_MANY, scope=Scope.RECIPIENT, fix="lower backends.{name}.max_recipients"),
    _row(Verdict.REJECTED, "5.7.1", "ErrorSendAsDenied", fix=_SEND_AS),
    *NO_MAILBOX,
    _row(Verdict.MISCONFIGURED, "4.7.0", "InvalidAuthenticationToken unauthenticated"),
    _row(Verdict.MISCONFIGURED, "4.7.0", "ErrorAccessDenied", fix=_ACCESS),
    _row(Verdict.MISCONFIGURED, "4.7.0", "ErrorMessageSubmissionBlocked", fix=_UNBLOCK),
    _row(Verdict.MISCONFIGURED, "4.7.0", "ErrorAccountSuspend ErrorAccountDisabled"),
    _row(Verdict.THROTTLED, "4.4.5", "ErrorExceededMessageLimit ErrorExceededHourlyMessageLimit", pause=_HOUR),
    _row(Verdict.THROTTLED, "4.4.5", "ErrorSubmissionQuotaExceeded", pause=_HOUR),
    _row(Verdict.DEFERRED, "4.2.2", "ErrorQuotaExceeded", pause=_HOUR, fix=_ROOM),
    _row(Verdict.DEFERRED, "4.2.2", "quotaLimitReached", pause=_HOUR),
    _row(Verdict.DEFERRED, "4.3.0", "ErrorIrresolvableConflict ErrorStaleObject ErrorItemNotFound"),
    _row(Verdict.THROTTLED, "4.4.5", "ApplicationThrottled TooManyRequests activityLimitReached"),
    Row((429,), Verdict.THROTTLED, "4.4.5"),
    Row((504,), Verdict.IN_DOUBT, "4.4.2"),  # whatever it says: such mail has arrived, four times over
    _row(Verdict.DEFERRED, "4.3.0", "ErrorServerBusy ErrorMailboxStoreUnavailable ErrorMailboxMoveInProgress"),
    _row(Verdict.DEFERRED, "4.3.0", "ErrorMailboxFailover ErrorTimeoutExpired ErrorInternalServerError"),
    _row(Verdict.DEFERRED, "4.3.0", "serviceNotAvailable"),
    Row((507, 509), Verdict.DEFERRED, "4.3.0"),
)
# Codes that alone say what is wrong.
KNOWN = {code: row for row in ROWS if row.code != "BadRequest" for code in row.code}


@dataclass(frozen=True, slots=True)
class Api:
    """Calls for backend ``name`` with a token of ours, relative to ``root``.

    ``many``: they are made for several mailboxes, so what is wrong with one of them is no fault of the backend.
    """

    name: str
    root: str
    tokens: TokenCache
    context: Context
    timeout: timedelta
    many: bool

    async def call(
        self, method: str, path: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request; where its token is refused, one more with a fresh one. Raises NoAnswer."""

        async def request(token: str) -> Answer:
            sent = {"authorization": f"Bearer {token}", **(headers or {})}
            return await self._request(method, f"{self.root}/v1.0{path}", content, sent)

        answer, _ = await authorized(self.tokens, request)
        return answer

    async def upload(
        self, method: str, url: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A request to an upload session: its URL is the permission, and our token is none of its business.

        Raises NoAnswer.
        """
        try:
            check_url(url)
        except ValueError as error:
            detail = f"upload session: {error}"
            raise NoAnswer(Outcome(Verdict.DEFERRED, enhanced="4.3.0", detail=detail)) from None
        return await self._request(method, url, content, headers or {})

    async def _request(self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        fetch, timeout = self.context.fetch, self.timeout
        return await exchange(fetch, url, headers=headers, content=content, timeout=timeout, method=method)

    def judge(self, answer: Answer) -> Outcome:
        """What an answer that is no success means, and what to do about it."""
        code, words = error_of(answer)
        outcome = judge(answer, ROWS, name=self.name, code=code, words=words, now=self.context.clock.now())
        if self.many and KNOWN.get(code) in NO_MAILBOX:
            return replace(outcome, verdict=Verdict.REJECTED, enhanced="5.1.8", scope=Scope.MESSAGE)
        if self.many and code and answer.status != 401 and outcome.verdict is Verdict.MISCONFIGURED:
            wait = outcome.retry_after or _HOUR
            return replace(outcome, verdict=Verdict.DEFERRED, scope=Scope.MESSAGE, retry_after=wait)
        return outcome


def error_of(answer: Answer) -> tuple[str, str]:
    """The most specific code that we know, else the outermost, and the words for it."""
    error = lenient_json(answer.body).get("error")
    if not isinstance(error, dict):
        return "", start_of(answer)
    codes: list[str] = []
    place: Any = error
    while isinstance(place, dict) and len(codes) < 10:
        codes.append(str(place.get("code") or ""))
        place = place.get("innerError") or place.get("innererror")
    known = [code for code in codes if code in KNOWN]
    return (known or codes)[-1 if known else 0], str(error.get("message") or "")


@contextmanager
def unsent(where: str) -> Iterator[None]:
    """Calls from before the sending: whatever becomes of them, nobody has got anything. Raises NoAnswer, as they do."""
    try:
        yield
    except NoAnswer as error:
        outcome = replace(error.outcome, detail=f"{where}: {error.outcome.detail}")
        if outcome.verdict is Verdict.IN_DOUBT:
            silent = outcome.said_by == "gateway"  # no answer at all: for all we know nobody is there
            outcome = replace(outcome, verdict=Verdict.DEFERRED, scope=Scope.BACKEND if silent else Scope.MESSAGE)
        raise NoAnswer(outcome) from None
