"""Backend ``gmail``: users.messages.send of the Gmail API. Header-driven: it mails To, Cc and Bcc, and hides Bcc."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gateway.backends.google import tokens
from gateway.backends.google.answers import error_of, retry_after_of
from gateway.backends.google.probes import GmailProbes
from gateway.backends.google.returns import LOOKING, READ_SCOPE, Asking, Inbox, scope_of
from gateway.backends.google.tokens import GoogleTokens, read_file
from gateway.backends.shared.base import (
    LARGE,
    Context,
    NoAnswer,
    Url,
    aside,
    canonical,
    effort,
    limited,
    safe,
    unrecorded,
)
from gateway.backends.shared.calls import Call, carry_out, plan
from gateway.backends.shared.http import exchange, judge, start_of, their_now
from gateway.backends.shared.mailboxes import Mailboxes
from gateway.backends.shared.oauth import TokenCache, authorized
from gateway.backends.shared.over_http import OverHttpSettings
from gateway.backends.shared.recent import Recent
from gateway.backends.shared.returning import Returning
from gateway.backends.shared.table import TOO_BIG, Row
from gateway.checks import Check, Step, Use, good, untried, wrong
from gateway.config import values
from gateway.config.finding import Examined, Unfit
from gateway.fetch import Answer
from gateway.model import CannotCarry, Capabilities, Outcome, Progress, Scope, SpooledMessage, Verdict
from gateway.ratelimit import Budget
from gateway.strangers import lenient_json

_MAX_BYTES = 36_700_160  # of the upload, Bcc included
_PATH = "/upload/gmail/v1/users/me/messages/send?uploadType=media"
_COST = 100  # quota units of one send
_IN_FLIGHT = 4  # above an undisclosed number: 429 "Too many concurrent requests for user"
_CACHES = 1000  # mailboxes whose tokens are kept
_HOUR = timedelta(hours=1)
# What is wrong with one of many mailboxes only: its mail waits, that of the others goes on.
_OF_ONE = ("failedPrecondition", "FAILED_PRECONDITION", "forbidden")

_ENABLE = (
    "enable the Gmail API in the project of these credentials: console.cloud.google.com > APIs & Services > Library > "
    "Gmail API > Enable"
)
_SCOPE = "the credentials lack the scope gmail.send: correct the domain-wide delegation, or sign in again"
_DELEGATION = "these credentials may not use that mailbox: check mailbox and the delegation"
_WORKSPACE = "the Workspace forbids it: admin.google.com > Apps > Google Workspace > Gmail, and API controls"
_LICENCE = "the mailbox has no Gmail: give that user a licence with Gmail, or name another mailbox"
_TOKEN = "a new token is refused too: api_base and token_url must belong together"  # noqa: S105
_REPORT = "this is a fault of the gateway: please report it"
_DAILY = "the project's limit for this day is used up: console.cloud.google.com > Quotas"

_SIZE = r"too (large|big)|size.{0,20}exceed|exceed.{0,40}(size|limit)"
_ADDRESS = r"invalid (to|cc|bcc) header|recipient address required"

# https://developers.google.com/workspace/gmail/api/guides/handle-errors; the code is errors[0].reason, else status.
ROWS = (
    Row((400,), Verdict.REJECTED, "5.3.4", text=_SIZE, fix=TOO_BIG),
    Row((400,), Verdict.REJECTED, "5.1.3", text=_ADDRESS, scope=Scope.RECIPIENT),
    Row((400,), Verdict.MISCONFIGURED, "4.7.0", code=("failedPrecondition", "FAILED_PRECONDITION"), fix=_LICENCE),
    Row((400,), Verdict.REJECTED, "5.6.0", text="payload message string", fix=_REPORT),
    Row((401,), Verdict.MISCONFIGURED, "4.7.0", fix=_TOKEN),
    Row((403, 429), Verdict.THROTTLED, "4.4.5", code="dailyLimitExceeded", pause=_HOUR, fix=_DAILY),
    Row((403,), Verdict.THROTTLED, "4.4.5", code=("LimitExceeded", "quotaExceeded", "RESOURCE_EXHAUSTED")),
    Row((403,), Verdict.MISCONFIGURED, "4.7.0", code=("accessNotConfigured", "SERVICE_DISABLED"), fix=_ENABLE),
    Row((403,), Verdict.MISCONFIGURED, "4.7.0", text="has not been used in project", fix=_ENABLE),
    Row((403,), Verdict.MISCONFIGURED, "4.7.0", code=("insufficientPermissions", "SCOPE_INSUFFICIENT"), fix=_SCOPE),
    Row((403,), Verdict.MISCONFIGURED, "4.7.0", text="insufficient authentication scopes", fix=_SCOPE),
    Row((403,), Verdict.MISCONFIGURED, "4.7.0", code="forbidden", fix=_DELEGATION),
    Row((403,), Verdict.MISCONFIGURED, "4.7.0", text="Delegation denied", fix=_DELEGATION),
    Row((403,), Verdict.MISCONFIGURED, "4.7.0", code="domainPolicy", fix=_WORKSPACE),
    Row((404, 405), Verdict.MISCONFIGURED, "4.3.5", fix="check api_base"),
)


class GmailSettings(OverHttpSettings):
    """``mailbox``: an address, ``me`` (whoever has signed in) or ``sender`` (the From address of each message).

    ``senders``: From addresses it may send as; by default just the mailbox. ``quota_units``: what the project may
    spend in a minute for each mailbox; a send costs 100. ``header_only``: people in To or Cc who are not to get this
    message are stripped there, or the message is rejected. ``later_bounces``: how much is read of mail that came back.
    """

    label: ClassVar[str] = "Gmail"
    type: Literal["gmail"] = "gmail"
    mailbox: values.Mailbox
    service_account_file: Path | None = None
    authorized_user_file: Path | None = None
    senders: tuple[values.Pattern, ...] = ()
    max_recipients: Annotated[int, Field(ge=1, le=500)] = 100
    quota_units: Annotated[int, Field(ge=_COST)] = 6000
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 4
    header_only: Literal["strip", "reject"] = "strip"
    later_bounces: Literal["off", "metadata", "full"] = "off"
    api_base: Url = "https://gmail.googleapis.com"
    token_url: Url | None = None

    @property
    def known_as(self) -> Mapping[str, str]:
        return {"mailbox": self.mailbox}

    @property
    def oauth(self) -> bool:
        return True

    @model_validator(mode="after")
    def _one_file_that_fits(self) -> Self:
        service = self.service_account_file is not None
        if service == (self.authorized_user_file is not None):
            raise ValueError("give service_account_file or authorized_user_file, one of them")
        if self.mailbox == "me" and service:
            raise ValueError('mailbox "me" needs an authorized_user_file; a service account needs an address')
        if self.mailbox == "sender" and not service:
            raise ValueError('mailbox "sender" needs a service_account_file with domain-wide delegation')
        if self.mailbox == "sender" and not self.senders:
            # Google's answer to a foreign domain is that of missing delegation, which pauses the backend.
            raise ValueError('mailbox "sender" needs senders, such as ["*@example.com"]: the domains of your Workspace')
        if self.mailbox == "sender" and self.later_bounces != "off":
            raise ValueError('later_bounces needs one mailbox: with mailbox "sender" mail comes back to each of many')
        return self

    @property
    def reading(self) -> str:
        """The scope that later_bounces needs besides that for sending, or ""."""
        return scope_of(self.later_bounces)

    def examine(self, name: str, state_dir: Path) -> Examined:
        yield from super().examine(name, state_dir)
        mailbox = "" if self.mailbox in ("me", "sender") else self.mailbox
        yield from tokens.examine(name, self.file, mailbox, user=self.authorized_user_file is not None)

    @property
    def file(self) -> Path:
        path = self.service_account_file or self.authorized_user_file
        assert path is not None
        return path


class Gmail(Returning):
    """Up to ``max_recipients`` in one call, the blind ones among them in a Bcc that Gmail hides."""

    def __init__(self, name: str, settings: GmailSettings, context: Context) -> None:
        self.name = name
        self._settings = settings
        self._context = context
        self._url = settings.api_base + _PATH
        self._many = settings.mailbox == "sender"
        # Gmail replaces a From that is not its own, and answers 200: nobody may get so far.
        self._address = self._own_address()
        senders = settings.senders or (self._address,)
        own = Capabilities(_MAX_BYTES, null_sender=False, senders=senders)
        self.capabilities = limited(own, settings)
        self._mailboxes = Mailboxes(
            context.clock,
            many=self._many,
            in_flight=_IN_FLIGHT,
            calls=lambda: Budget(settings.quota_units, 60),
            bytes_=lambda: Budget(float("inf"), 60),
            own_tokens=True,
        )
        self._tokens: Recent[str, tuple[GoogleTokens, TokenCache]] = Recent(_CACHES)
        self._reading: TokenCache | None = None
        self._place_of_returns = self._inbox(context)

    async def send(self, message: SpooledMessage, raw: bytes, progress: Progress = unrecorded) -> dict[str, Outcome]:
        settings = self._settings
        mailbox = (message.header_from or message.envelope.sender) if self._many else settings.mailbox
        planned = partial(
            plan, message, raw, per_call=settings.max_recipients, header_only=settings.header_only, hides_bcc=True
        )
        size = effort(raw)
        make = partial(self._call, mailbox, size)
        return await carry_out(message, planned, make, self._context.clock, progress, slow=size >= LARGE)

    async def check(self) -> Check:
        """Gets a token; more cannot be asked with the scope gmail.send."""
        named = next((one for one in self.capabilities.senders if "*" not in one), "")
        mailbox = named if self._many else self._settings.mailbox
        source, cache = self._token_source(mailbox)
        cache.forget_failure()
        facts = {"url": self._settings.api_base, "file": str(self._settings.file)}
        try:
            await cache.get()
        except NoAnswer as error:
            failing, untried_ = wrong("Google gives no token.", error.outcome.detail), _untried(mailbox)
            return Check(False, error.outcome.detail, error.outcome.fix, facts | source.facts(), (failing, untried_))
        facts |= source.facts() | {"token until": f"{cache.ends:%Y-%m-%d %H:%M:%SZ}" if cache.ends else "now"}
        steps = (good(f"Google gives a token to send{f' as {mailbox}' if mailbox else ''}."), _untried(mailbox))
        if not self._many:
            return Check(True, "Google gives a token to send as this mailbox", facts=facts, steps=steps)
        summary = f"Google gives a token to send as {named}" if named else "Google knows the service account"
        fix = "" if named else "add one whole address to senders: only then can delegation be looked at"
        return Check(True, summary, fix, facts, steps)

    def uses(self) -> tuple[Use, ...]:
        return self._mailboxes.uses("quota_units", "units")

    def probes(self) -> GmailProbes:
        settings, token_url = self._settings, self._settings.token_url or tokens.TOKEN_URL
        return GmailProbes(
            urls=(settings.api_base, token_url),
            name=self.name,
            api_base=settings.api_base,
            token_url=token_url,
            mailbox=settings.mailbox,
            address=self._address,
            delegated=settings.service_account_file is not None,
            reads=settings.reading,
            context=self._context,
            token=lambda mailbox: self._token_source(mailbox)[1].get(),
        )

    def forget(self) -> None:
        """Ask for tokens anew, whatever came last."""
        for cache in (*(one for _, one in tuple(self._tokens.values())), *filter(None, (self._reading,))):
            cache.forget_failure()

    def _inbox(self, context: Context) -> Inbox | None:
        """A service account has a token of its own to look, without which mail is sent all the same."""
        settings = self._settings
        if not settings.reading:
            return None
        if settings.service_account_file:
            cache = self._reading = TokenCache(self.name, self._source(settings.mailbox, settings.reading), context)
        else:
            cache = self._token_source(settings.mailbox)[1]
        api = Asking(
            f"{settings.api_base}/gmail/v1/users/me",
            cache,
            context.fetch,
            settings.timeout,
            partial(self._mailboxes.turn, settings.mailbox, calls=LOOKING),
            partial(self._result, token=""),
            READ_SCOPE.format(scope=settings.reading, name=self.name),
        )
        return Inbox(self._address or settings.mailbox, settings.later_bounces == "full", api)

    async def aclose(self) -> None:
        if self._reading:
            await self._reading.aclose()
        for _, cache in tuple(self._tokens.values()):  # sends that end meanwhile use them
            await cache.aclose()

    def _own_address(self) -> str:
        """Whose mailbox it is, "" where that varies. Raises Unfit where it must be known and nobody says."""
        given, file = self._settings.mailbox, self._settings.file
        if given != "me":
            return "" if self._many else given
        problem, fix = f"{file} does not say whose sign-in it is", "put that address here, or set senders"
        try:
            if account := str(read_file(file).get("account") or ""):
                return account
        except NoAnswer as error:
            problem, fix = error.outcome.detail, error.outcome.fix
        if self._settings.senders:
            return ""  # what is wrong with the file is told when a token is needed
        raise Unfit(("backends", self.name, "mailbox"), f"{problem}; {fix}")

    def _token_source(self, mailbox: str) -> tuple[GoogleTokens, TokenCache]:
        if found := self._tokens.get(mailbox.lower()):
            return found
        source = self._source(mailbox, tokens.SCOPE)
        return self._tokens.put(mailbox.lower(), (source, TokenCache(self.name, source, self._context)))

    def _source(self, mailbox: str, scope: str) -> GoogleTokens:
        settings = self._settings
        return GoogleTokens(
            self.name,
            settings.file,
            mailbox if self._many else self._address,
            self._context,
            user=settings.authorized_user_file is not None,
            many=self._many,
            token_url=settings.token_url,
            wanted=scope,
        )

    async def _call(self, mailbox: str, size: int, call: Call) -> dict[str, Outcome]:
        content = await aside(size, lambda: canonical(call.content()))
        if len(content) > _MAX_BYTES:
            text = f"{len(content)} bytes with its blind recipients, Gmail takes at most {_MAX_BYTES}"
            raise CannotCarry("too_big", "5.3.4", text)
        async with self._mailboxes.turn(mailbox, calls=_COST):
            _, cache = self._token_source(mailbox)
            answer, token = await authorized(cache, partial(self._post, content))
            outcome = self._mailboxes.judged(mailbox, self._result(answer, token))
        return dict.fromkeys(call.addresses, outcome)

    async def _post(self, content: bytes, token: str) -> Answer:
        headers = {"authorization": f"Bearer {token}", "content-type": "message/rfc822"}
        fetch, timeout = self._context.fetch, self._settings.timeout
        return await exchange(fetch, self._url, headers=headers, content=content, timeout=timeout)

    def _result(self, answer: Answer, token: str) -> Outcome:
        body, now = lenient_json(answer.body), self._context.clock.now()
        if answer.status == 200 and isinstance(body.get("id"), str) and body["id"]:
            remote_id = safe(body["id"])
            return Outcome(Verdict.SENT, 200, "2.0.0", safe(f"Gmail id {remote_id}"), remote_id, said_by="http")
        code, words = error_of(body)
        words = words or start_of(answer)
        hint = retry_after_of(words, their_now(answer.headers, now))
        outcome = judge(answer, ROWS, name=self.name, code=code, words=words, now=now, secrets=[token], hint=hint)
        if self._many and outcome.verdict is Verdict.MISCONFIGURED and code in _OF_ONE:
            outcome = replace(outcome, verdict=Verdict.DEFERRED, scope=Scope.MESSAGE, retry_after=_HOUR)
        if "payload message string" in words:
            self._context.signals.warning("request_refused", backend=self.name, detail=outcome.detail)
        return outcome


def _untried(mailbox: str) -> Step:
    """The scope gmail.send allows nothing but sending."""
    whose = "the account" if mailbox in ("", "me") else mailbox
    return untried(f"Whether Gmail is turned on for {whose}, and what is left of the day's limit")
