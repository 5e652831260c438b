"""Tokens over HTTP, and what the pages do with them: listed with their last use, made, explained, revoked."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway import auth
from gateway.auth.tokens import Invalid, is_short_text, parse
from gateway.http import acts
from gateway.http.described import described, given, needed
from gateway.http.problem import Answer, answer, duration_of, json_body, text_of, truth_of
from gateway.http.service import Service
from gateway.pools import read_files
from gateway.spool import TokenRow


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """A token made or revoked here. ``used_at``: when it last let somebody in; ``tried_at``: when, revoked, it last
    tried to. It may be revoked by its id or with all of its subject.
    """

    jti: str
    key: str
    subject: str
    note: str
    state: Literal["valid", "ended", "revoked"]
    issued_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None
    used_from: str
    tried_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A token to be made. Without ``lifetime`` it never ends; ``admin``: for the HTTP interface."""

    subject: str
    lifetime: timedelta | None
    key: str = "own"
    note: str = ""
    admin: bool = False
    claims: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The one time that a token is told."""

    token: str = field(repr=False)
    jti: str
    expires_at: datetime | None


async def views(service: Service) -> list[TokenView]:
    """In the order in which they were made."""
    now, (_, subjects) = service.clock.now(), await service.spool.revocations()
    return [_view(service, row, subjects.get(row.subject), now) for row in await service.spool.tokens()]


def _view(service: Service, row: TokenRow, void: datetime | None, now: datetime) -> TokenView:
    used, tried = service.spool.uses.of("token", row.jti), service.spool.uses.of("revoked", row.jti)
    revoked = row.revoked_at or (void if void is not None and row.issued_at < void else None)
    ended = row.expires_at is not None and row.expires_at <= now
    return TokenView(
        jti=row.jti,
        key=row.key,
        subject=row.subject,
        note=row.note,
        state="revoked" if revoked else "ended" if ended else "valid",
        issued_at=row.issued_at,
        expires_at=row.expires_at,
        revoked_at=revoked,
        used_at=used.at if used else None,
        used_from=used.peer if used else "",
        tried_at=tried.at if tried else None,
    )


async def mint(service: Service, request: Request, wanted: Wanted) -> Made:
    """Made here and not by the command, which may not reach the key. Only the id and what it is for are remembered.

    Raises HTTPException in words for the operator.
    """
    now, jti = service.clock.now().replace(microsecond=0), secrets.token_hex(6)
    expires = now + wanted.lifetime if wanted.lifetime is not None else None

    def make() -> str:
        auth.ensure_own_key(service.settings)
        claims = {**wanted.claims, **({"aud": auth.ADMIN_AUDIENCE} if wanted.admin else {})}
        return auth.mint(
            service.settings, wanted.key, subject=wanted.subject, expires_in=wanted.lifetime, now=now, jti=jti,
            claims=claims,
        )  # fmt: skip

    try:
        token = await read_files(make)
    except (TypeError, ValueError) as error:
        raise HTTPException(400, str(error)) from None
    await service.spool.add_token(TokenRow(jti, wanted.key, wanted.subject, wanted.note, now, expires))
    for_http = ", for the HTTP interface" if wanted.admin else ""
    await acts.note(service, request, "mint", f"token {jti} of {wanted.subject}{for_http}")
    return Made(token=token, jti=jti, expires_at=expires)


async def revoke(service: Service, request: Request, *, jti: str = "", subject: str = "") -> bool:
    """One token by its id, or all of a subject; whether one of these was made here. Raises HTTPException."""
    _refuse_token(jti or subject)
    if not is_short_text(jti or subject):
        raise HTTPException(400, "no token that is accepted has such an id or subject: it is no short printable text")
    minted = {(row.jti if jti else row.subject) for row in await service.spool.tokens() if row.key}
    await service.revoke(jti=jti, subject=subject)
    await acts.note(service, request, "revoke", f"token {jti}" if jti else f"all tokens of {subject}")
    return (jti or subject) in minted


def _refuse_token(text: str) -> None:
    """A token pasted where its id belongs must not be stored, logged or shown."""
    try:
        jti = parse(text).claims.get("jti")
    except Invalid:
        if not text.startswith("eyJ"):  # every token begins so, also one that was cut off
            return
        jti = None
    fix = f"its id is {jti}: gateway token revoke {jti}" if isinstance(jti, str) and jti else "see: gateway token list"
    raise HTTPException(400, f"that is a token, not an id; {fix}")


# -- over HTTP ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TokenList:
    tokens: list[TokenView]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOrder:
    subject: str = needed("Who it is for.")
    expires: str | None = given("How long it is good, as 90d; without it the token never ends.")
    key: str | None = given("Sign with this key of auth.keys.", "own")
    note: str | None = given("A remark for the list.")
    admin: bool | None = given("For this interface instead of SMTP.", False)
    claims: Mapping[str, Any] | None = given("What it narrows: senders, recipients, networks, backend, role ...", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGiven:
    token: str = needed("The token.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeOrder:
    jti: str | None = given("The id of one token; or")
    subject: str | None = given("all tokens of this subject that were issued until now.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """``valid`` is null where only the issuer's published keys can tell; ``verdict`` says it in words. ``key`` is the
    key of auth.keys that signed it, ``header`` and ``claims`` are what the token says."""

    valid: bool | None
    verdict: str
    key: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Revoked:
    """``revoked`` is the id or the subject; ``known``: one of these was made here."""

    revoked: str
    known: bool


async def list_tokens(service: Service, _request: Request) -> TokenList:
    """Tokens that were made or revoked here."""
    return TokenList(await views(service))


@described(body=TokenOrder, status=201)
async def mint_token(service: Service, request: Request) -> Answer[Made]:
    """Make a token; it is told this once."""
    body = await json_body(request)
    claims, admin = body.get("claims") or {}, truth_of(body, "admin")
    if not isinstance(claims, dict):
        raise HTTPException(400, 'claims must be an object, as {"claims": {"backend": "office"}}')
    wanted = Wanted(
        subject=text_of(body, "subject"),
        lifetime=duration_of(body, "expires"),
        key=text_of(body, "key") or "own",
        note=text_of(body, "note"),
        admin=admin,
        claims=claims,
    )
    return answer(await mint(service, request, wanted), 201)


@described(body=TokenGiven)
async def inspect_token(service: Service, request: Request) -> Inspected:
    """What a token says, and whether it would be accepted now; never the token itself."""
    body = await json_body(request)
    if body.get("token") is None:
        raise HTTPException(400, 'give the token: {"token": "eyJ..."}')
    text = text_of(body, "token")
    revocations = auth.Revocations(*await service.spool.revocations())
    try:
        found = await read_files(partial(auth.inspect, service.settings, text, service.clock.now(), revocations))
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    return Inspected(**found)


@described(body=RevokeOrder)
async def revoke_token(service: Service, request: Request) -> Revoked:
    """Make a token worthless at once, or all of a subject."""
    body = await json_body(request)
    jti, subject = (text_of(body, name).strip() for name in ("jti", "subject"))
    if bool(jti) == bool(subject):
        raise HTTPException(400, 'give {"jti": "..."} or {"subject": "..."}')
    return Revoked(jti or subject, await revoke(service, request, jti=jti, subject=subject))
