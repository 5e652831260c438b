"""Backend ``graph``: Microsoft 365 and outlook.com by Microsoft Graph, which mails whoever stands in To, Cc and Bcc."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import quote

from pydantic import Field, model_validator

from gateway.address import comparable
from gateway.backends.microsoft import tokens
from gateway.backends.microsoft.api import Api, error_of
from gateway.backends.microsoft.draft import Draft, attach_all, draft_of, lacks
from gateway.backends.microsoft.entra import GRAPH, EntraSettings
from gateway.backends.microsoft.mailbox import Found, Mailbox
from gateway.backends.microsoft.mime import prepare
from gateway.backends.microsoft.probes import GraphProbes
from gateway.backends.microsoft.returns import returns_of
from gateway.backends.shared.base import (
    CHARSETS,
    LARGE,
    Charset,
    Context,
    NoAnswer,
    aside,
    base64_of,
    effort,
    limited,
    safe,
    unrecorded,
)
from gateway.backends.shared.calls import Call, carry_out, plan
from gateway.backends.shared.mailboxes import Mailboxes
from gateway.backends.shared.most import Most
from gateway.backends.shared.oauth import TokenCache, claims, in_token_thread
from gateway.backends.shared.over_http import OverHttpSettings
from gateway.backends.shared.returning import Returning
from gateway.backends.shared.stores import Shared
from gateway.checks import Check, Renewed, Step, Use, good, reached, unreached, untried, wrong
from gateway.config import values
from gateway.config.durations import parse_duration
from gateway.config.finding import Examined
from gateway.model import Capabilities, Outcome, Progress, Scope, SpooledMessage, Verdict, same_for_all
from gateway.quota import Rate
from gateway.ratelimit import Budget
from gateway.strangers import lenient_json

_WHOLE = 3_000_000  # bytes of MIME: a request may have 4 MB and base64 takes 4/3
_REQUEST = 3_140_000  # ... with what is added here, blind recipients above all
_DRAFTED = 36_700_160  # bytes; Exchange's usual limit for a message
_UPLOADS = (150_000_000, 300.0)  # bytes in seconds for one mailbox
_AT_ONCE = 4  # requests for one mailbox
_IDS = uuid.UUID("5b1d3c7e-9a41-4a7e-8a52-6c1f0e9d2b34")
_RBAC = "none in the token; with RBAC for Applications they stand in Exchange: Test-ServicePrincipalAuthorization"
_HINT = "set large_messages: draft on backends.{name}, which needs Mail.ReadWrite"


class GraphSettings(OverHttpSettings, EntraSettings):
    """How to get tokens, which mailbox sends, and what may be done with drafts in it.

    ``mailbox``: an address, "sender" (the From address) or "me" (who signed in). ``default_charset`` is what
    text of a large mail is in that names nothing and is not UTF-8. ``later_bounces``: where to look for mail that
    came back.
    """

    label: ClassVar[str] = "Microsoft 365"
    type: Literal["graph"] = "graph"
    mailbox: values.Mailbox
    senders: tuple[values.Pattern, ...] = ()
    large_messages: Literal["refuse", "draft"] = "refuse"
    safe_send: bool = False
    max_recipients: Annotated[int, Field(ge=1, le=1000)] = 500
    mailbox_rate: values.RateLimit = Rate(30, parse_duration("1m"))
    concurrency: Annotated[int, Field(ge=1, le=1000)] = _AT_ONCE
    header_only: Literal["strip", "reject"] = "strip"
    quoted_printable: Literal["keep", "base64"] = "keep"
    default_charset: Charset = ""
    later_bounces: Literal["off", "mailbox", "trace"] = "off"

    @property
    def known_as(self) -> Mapping[str, str]:
        return {"mailbox": self.mailbox}

    @property
    def oauth(self) -> bool:
        return True

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.mailbox == "me" and not (self.device_login and self.senders):
            raise ValueError("mailbox me needs device_login, and in senders the address that signs in")
        if self.mailbox == "sender" and self.later_bounces == "mailbox":
            raise ValueError("later_bounces: mailbox needs one mailbox; with mailbox sender only trace can see them")
        if self.cloud != "global" and self.later_bounces == "trace":
            raise ValueError("later_bounces: trace is there in the global cloud only, set mailbox instead")
        return self

    def identity(self, name: str, state_dir: Path, shared: Shared | None = None) -> tokens.Identity:
        """Who asks for tokens; for device logins with the permissions that the settings need, and no more."""
        scopes = tuple(dict.fromkeys((*self.sending, *self.reading)))
        return self.right(name, state_dir, shared, GRAPH[self.cloud], scopes)

    @property
    def sending(self) -> tuple[str, ...]:
        """The scopes without which nothing is sent."""
        return self._scopes("Mail.Send", *(["Mail.ReadWrite"] if self.drafts else []))

    @property
    def reading(self) -> tuple[str, ...]:
        """Those for later_bounces: where they were not granted, mail is sent all the same."""
        if self.later_bounces == "trace":
            return (f"{GRAPH[self.cloud]}/ExchangeMessageTrace.Read.All",)
        return self._scopes("Mail.ReadWrite" if self.drafts else "Mail.Read") if self.later_bounces == "mailbox" else ()

    def _scopes(self, *names: str) -> tuple[str, ...]:
        whose = "" if self.mailbox == "me" else ".Shared"
        return tuple(f"{GRAPH[self.cloud]}/{name}{whose}" for name in names)

    def examine(self, name: str, state_dir: Path) -> Examined:
        yield from super().examine(name, state_dir)
        yield from self.examine_right(self.identity(name, state_dir))

    @property
    def drafts(self) -> bool:
        """Whether drafts are made, which takes more than the permission to send."""
        return self.safe_send or self.large_messages == "draft"


@dataclass(frozen=True, slots=True)
class _Load:
    """A call made ready: a body of base64, or a draft."""

    size: int
    note: str
    body: bytes = b""
    draft: Draft | None = None


class Graph(Returning):
    """A call for up to ``max_recipients`` people: sendMail with MIME, or by way of a draft."""

    def __init__(self, name: str, settings: GraphSettings, context: Context) -> None:
        self.name = name
        self._settings = settings
        self._clock = context.clock
        self._many = settings.mailbox == "sender"
        fixed = () if self._many or settings.mailbox == "me" else (settings.mailbox,)
        own = Capabilities(_WHOLE, null_sender=False, senders=settings.senders or fixed, size_hint=_HINT)
        if settings.large_messages == "draft":
            lacking = lacks(settings.default_charset)
            own = replace(own, max_bytes=_DRAFTED, whole_bytes=_WHOLE, lacks=lacking, size_hint="", remedies=CHARSETS)
        self.capabilities = limited(own, settings)
        everything = settings.identity(name, context.state_dir, context.shared)
        self._identity = replace(everything, scopes=settings.sending)
        source = tokens.token_source(self._identity, context.clock, context.signals.credential_ends)
        self._tokens = TokenCache(name, source, context)
        self._renewal = settings.renewal(self._identity, context)
        self._caches = [self._tokens]
        settings.tell_of_secret(name, context.signals.credential_ends)
        root = settings.api_base or GRAPH[settings.cloud]
        self._api = Api(name, root, self._tokens, context, settings.timeout, self._many)
        self._most = Most(settings.max_recipients, name, context)
        rate = settings.mailbox_rate
        self._mailboxes = Mailboxes(
            context.clock,
            many=self._many,
            in_flight=_AT_ONCE,
            calls=lambda: Budget(rate.count, rate.period.total_seconds()),
            bytes_=lambda: Budget(*_UPLOADS),
        )
        self._place_of_returns = returns_of(
            settings.later_bounces,
            self._reading(replace(everything, scopes=settings.reading), context),
            self._place(settings.mailbox).path,
            mailbox=settings.mailbox,
            senders=settings.senders,
            signed_in=settings.device_login,
            turn=partial(self._mailboxes.turn, settings.mailbox, calls=0),
        )

    def _reading(self, identity: tokens.Identity, context: Context) -> Api:
        """An application has one token for everything; a person's is for what is asked for."""
        if identity.store is None or not identity.scopes:
            return self._api
        source = tokens.token_source(identity, context.clock, context.signals.credential_ends)
        self._caches.append(reader := TokenCache(self.name, source, context))
        return replace(self._api, tokens=reader)

    async def send(self, message: SpooledMessage, raw: bytes, progress: Progress = unrecorded) -> dict[str, Outcome]:
        settings = self._settings
        mailbox = (message.header_from or message.envelope.sender) if self._many else settings.mailbox
        try:
            found = await self._look(mailbox, message) if message.doubtful else Found()
        except NoAnswer as error:
            return same_for_all(message, error.outcome)
        everyone = message.envelope.recipients
        arrived = [one.address for one in everyone if comparable(one.address) in found.addresses]
        detail = f"sent by an earlier attempt{found.note}"
        sent = Outcome(Verdict.SENT, enhanced="2.0.0", detail=detail, remote_id=message.doubt_id)
        envelope = replace(message.envelope, recipients=tuple(one for one in everyone if one.address not in arrived))
        known = message.everyone or tuple(one.address for one in everyone)  # who has got it is no stranger
        rest = replace(message, envelope=envelope, everyone=known)
        planned = partial(plan, rest, raw, per_call=self._most.now(), header_only=settings.header_only, hides_bcc=True)
        size = effort(raw)
        make = partial(self._call, mailbox, message.id, size)
        outcomes = await carry_out(rest, planned, make, self._clock, progress, slow=size >= LARGE)
        noted = {address: replace(one, detail=one.detail + found.note) for address, one in outcomes.items()}
        return dict.fromkeys(arrived, sent) | noted

    async def check(self) -> Check:
        """Sends nothing: a token, what it permits as far as it says so, and whether the API answers."""
        settings, identity = self._settings, self._identity
        known = {name: getattr(settings, name) for name in ("cloud", "tenant", "client_id", "mailbox")}
        facts = {"api": self._api.root, "authority": identity.authority, **known}
        facts = {name: value for name, value in facts.items() if value}
        if identity.store:
            facts["signed in"] = await in_token_thread(partial(tokens.signed_in_as, identity.store)) or "nobody"
        facts |= await self._renewal.facts() if self._renewal else {}
        self._tokens.forget_failure()
        try:
            token = await self._tokens.get()
        except NoAnswer as error:
            failing = wrong("Microsoft gives no token: the sign-in is refused, or not possible.", error.outcome.detail)
            return Check(False, error.outcome.detail, error.outcome.fix, facts, (failing, self._untried()))
        steps = [good("Microsoft accepts the sign-in and gives a token.")]
        said = claims(token)  # for show only: Microsoft may change or encrypt its tokens whenever it likes
        granted = [*(said.get("roles") or []), *str(said.get("scp") or "").split()]
        facts["permissions"] = " ".join(granted) or _RBAC
        facts["look-up after a lost answer"] = _has(granted, "Mail.Read") or "not possible without Mail.Read"
        # With Mail.Send alone the answer is 403, and will do.
        path = "/users?$top=1&$select=id" if self._many else f"{self._place(settings.mailbox).path}?$select=id"
        try:
            answer = await self._api.call("GET", path)
        except NoAnswer as error:
            failing = unreached(self._api.root, error.outcome.detail)
            fix = "check api_base and the way there"
            return Check(False, error.outcome.detail, fix, facts, (*steps, failing, self._untried()))
        steps.append(reached(self._api.root))
        if answer.status not in (200, 403, 429) or not lenient_json(answer.body):
            code, words = error_of(answer)
            fix = "check cloud, tenant and api_base" if answer.status == 401 else "check mailbox, cloud and api_base"
            fix = "try again" if answer.status >= 500 else self._api.judge(answer).fix or fix
            detail = safe(f"HTTP {answer.status} {code} {words}")
            failing = wrong("The API does not answer for this mailbox.", detail)
            return Check(False, detail, fix, facts, (*steps, failing, self._untried()))
        steps += [good(f"The mailbox {settings.mailbox} exists.")] if answer.status == 200 and not self._many else []
        for needed in ("Mail.Send", *(("Mail.ReadWrite",) if settings.drafts else ())):
            if granted and not _has(granted, needed):
                why = "" if needed == "Mail.Send" else ", which safe_send and large_messages need"
                fix = f"grant {needed}{why}, unless RBAC for Applications does (docs/microsoft365.md)"
                # An application may have it by RBAC in Exchange, of which the token knows nothing.
                lacks, sure = f"the token does not name {needed}", bool(said.get("scp"))
                step = (
                    wrong(f"The permission {needed} is missing.") if sure else untried(f"Whether RBAC gives {needed}")
                )
                return Check(not sure, lacks, fix, facts, (*steps, step, self._untried()))
        steps += [good(f"The permissions are there: {' '.join(granted)}.")] if granted else []
        return Check(True, "a token was given and the API answers", facts=facts, steps=(*steps, self._untried()))

    def _untried(self) -> Step:
        whose = {"sender": "each sender", "me": "who signed in"}.get(self._settings.mailbox, self._settings.mailbox)
        return untried(f"Whether it may send as {whose}")

    async def renew(self, *, ordered: bool = False) -> Renewed | None:
        return await self._renewal.look(ordered=ordered) if self._renewal else None

    def uses(self) -> tuple[Use, ...]:
        return self._mailboxes.uses("mailbox_rate", "messages")

    def probes(self) -> GraphProbes:
        settings, identity = self._settings, self._identity
        return GraphProbes(
            urls=(self._api.root, identity.authority),
            api=self._api,
            cloud=settings.cloud,
            client_id=settings.client_id,
            mailbox=settings.mailbox,
            drafts=settings.drafts,
            reads=tuple(one.rpartition("/")[2].removesuffix(".Shared") for one in settings.reading),
            token=self._tokens.get,
        )

    def forget(self) -> None:
        """Ask for tokens anew, whatever came last."""
        for cache in self._caches:
            cache.forget_failure()

    async def aclose(self) -> None:
        for cache in self._caches:
            await cache.aclose()

    async def _look(self, mailbox: str, message: SpooledMessage) -> Found:
        """Raises NoAnswer."""
        async with self._mailboxes.turn(mailbox, calls=0):
            return await self._place(mailbox).look(message.message_id, message.doubt_id, drafts=self._settings.drafts)

    async def _call(self, mailbox: str, queue_id: str, size: int, call: Call) -> Mapping[str, Outcome]:
        load = await aside(size, partial(self._load, call, size))
        async with self._mailboxes.turn(mailbox, size=load.size):
            outcome = await self._deliver(load, self._place(mailbox), queue_id, call.addresses)
        if outcome.scope is Scope.RECIPIENT and outcome.verdict is Verdict.DEFERRED and len(call.addresses) > 1:
            self._most.learn(len(call.addresses) // 2)
        outcome = self._mailboxes.judged(mailbox, outcome)
        if outcome.verdict is Verdict.SENT:
            outcome = replace(outcome, detail=outcome.detail + load.note)
        return dict.fromkeys(call.addresses, outcome)

    def _load(self, call: Call, size: int) -> _Load:
        """Runs in a thread when the message is large. Raises CannotCarry, BadMessage."""
        limit = _REQUEST if self._settings.quoted_printable == "base64" else 0
        raw, note = prepare(call.content(), base64_up_to=limit)
        if size > _WHOLE and self._settings.large_messages == "draft":
            draft = draft_of(raw, self._settings.default_charset)
            return _Load(len(raw), draft.note, draft=draft)
        body = base64_of(raw)
        return _Load(len(body), note, body)

    async def _deliver(self, load: _Load, place: Mailbox, queue_id: str, addresses: tuple[str, ...]) -> Outcome:
        if load.draft:
            fill = partial(attach_all, self._api, load.draft.files)
            return await place.send_by_draft(load.draft.fields, "application/json", fill)
        if self._settings.safe_send:
            return await place.send_by_draft(load.body, "text/plain")
        return await place.send_mime(load.body, str(uuid.uuid5(_IDS, " ".join((queue_id, *addresses)))))

    def _place(self, mailbox: str) -> Mailbox:
        return Mailbox(self._api, "/me" if mailbox == "me" else f"/users/{quote(mailbox, safe='@')}")


def _has(granted: list[str], wanted: str) -> str:
    return next((one for one in granted if one.startswith(wanted)), "")
