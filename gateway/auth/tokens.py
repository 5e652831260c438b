"""Tokens: taken apart strictly, matched to a configured key, their claims checked; and made (RFC 7519, RFC 8725)."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.actor import ROLES, Role
from gateway.address import NOT
from gateway.auth.keys import ADMIN_AUDIENCE, Key, load_keys, sign, verify
from gateway.config.models import Settings
from gateway.config.values import check_choices, parse_choice, parse_network, parse_size
from gateway.model import LoginToken, Network
from gateway.strangers import strict_json

LEEWAY = timedelta(seconds=30)
_MAX_LENGTH = 8192
_MAX_TEXT = 255
_LAST_SECOND = 253_402_300_799  # the end of the year 9999
# Files end in a line break, and what people copy comes with the word before it or in quotes.
_SHAPE = re.compile(r"""\s*(?:bearer\s+)?(["']?)([\w=-]+(?:\.[\w=-]*){2})\1\s*""", re.ASCII | re.IGNORECASE)


class Invalid(Exception):
    """Credentials that do not let anybody in: the reason (authenticator.REASONS) and words for the operator.

    ``client`` is whose they are, where that is beyond doubt.
    """

    def __init__(self, reason: str, words: str = "", client: str = "") -> None:
        super().__init__(words or reason)
        self.reason, self.words, self.client = reason, words, client


@dataclass(frozen=True, slots=True)
class Parsed:
    """A token taken apart; nothing in it is verified."""

    text: str = field(repr=False)
    header: Mapping[str, Any]
    claims: Mapping[str, Any]


Known = tuple[Iterable[str], Mapping[str, datetime]]  # ids, and for each subject the time before which all are void


class Revocations:
    """Tokens that are dead before their time: those with these ids, whichever key signed them, or of these subjects."""

    def __init__(self, jtis: Iterable[str] = (), subjects: Mapping[str, datetime] | None = None) -> None:
        self._under_way: list[Revocations] = []  # what was revoked here since each of the looks began
        self.replace(jtis, subjects or {})

    def replace(self, jtis: Iterable[str], subjects: Mapping[str, datetime]) -> None:
        """These are all."""
        self._jtis = set(jtis)
        self._subjects = dict(subjects)

    async def load(self, read: Callable[[], Awaitable[Known]]) -> None:
        """All that is revoked where others revoke, too; what is revoked here meanwhile is not forgotten for that."""
        self._under_way.append(meanwhile := Revocations())
        try:
            self.replace(*await read())
        finally:
            self._under_way.remove(meanwhile)
        self._jtis |= meanwhile._jtis
        for subject, before in meanwhile._subjects.items():
            self.revoke_subject(subject, before)

    def revoke_jti(self, jti: str) -> None:
        for one in (self, *self._under_way):
            one._jtis.add(jti)

    def revoke_subject(self, subject: str, before: datetime) -> None:
        """All of a subject's tokens issued before that time, or without saying when."""
        for one in (self, *self._under_way):
            one._subjects[subject] = max(before, one._subjects.get(subject, before))

    def is_revoked(self, token: LoginToken) -> bool:
        before = self._subjects.get(token.subject)
        too_old = before is not None and (token.issued_at is None or token.issued_at < before)
        return too_old or token.jti in self._jtis


def token_in(password: str) -> str:
    """The token that a password is, without what came along with it: white space, quotes, "Bearer". "" for none."""
    match = _SHAPE.fullmatch(password)
    return match[2] if match else ""


def parse(text: str) -> Parsed:
    """Take a compact JWS apart. Raises Invalid for anything but the one canonical spelling."""
    try:
        if len(text) > _MAX_LENGTH:
            raise ValueError(f"longer than {_MAX_LENGTH} bytes")
        if text.count(".") != 2:
            raise ValueError("a token has three parts")
        header, claims, _ = [_decode(part) for part in text.split(".")]
        parsed = Parsed(text, strict_json(header), strict_json(claims))
    except ValueError as error:
        raise Invalid("token_malformed", f"this is no token: {error}") from None
    header_type = parsed.header.get("typ", "JWT")
    if not isinstance(header_type, str) or header_type.lower() not in ("jwt", "at+jwt"):
        raise Invalid("token_malformed", "typ is not JWT")  # RFC 8725 section 3.11: a logout token is no login
    if "crit" in parsed.header or "b64" in parsed.header:
        raise Invalid("token_malformed", "it has critical extensions, and none is known here")
    if not isinstance(parsed.header.get("kid", ""), str):
        raise Invalid("token_malformed", "kid is not a text")
    return parsed


def _decode(part: str) -> bytes:
    raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        raise ValueError("not canonical base64url")  # RFC 7515 section 2
    return raw


def candidates(keys: Mapping[str, Key], parsed: Parsed) -> list[Key]:
    """The configured keys this token may be signed with, by its issuer. Raises Invalid when there is none.

    A key with an issuer takes only that issuer's tokens; one without takes those that no other key's issuer claims.
    """
    issuer = parsed.claims.get("iss")
    if not isinstance(issuer, str | None) or ("iss" in parsed.claims and not issuer):
        raise Invalid("token_claims", "iss is not a text")
    claimed = {key.settings.issuer for key in keys.values()}
    fits = [key for key in keys.values() if key.settings.issuer == (issuer if issuer in claimed else None)]
    fits = [key for key in fits if key.settings.algorithm == parsed.header.get("alg")]
    if not fits:
        raise Invalid("token_unknown_key", "no configured key has this issuer and algorithm")
    return fits


def signer(keys: Iterable[Key], parsed: Parsed) -> Key | None:
    """The key held here that signed the token."""
    for key in keys:
        if key.public is not None and verify(parsed.text, key.public, key.settings.algorithm):
            return key
    return None


def check(
    key: Key | None, claims: Mapping[str, Any], now: datetime, revocations: Revocations, *, admin: bool = False
) -> LoginToken:
    """What a token signed by ``key`` says. Raises Invalid. ``admin`` asks for the HTTP interface's audience."""
    if key is None:
        raise Invalid("token_signature", "the signature is wrong")
    subject, jti = _text(claims, "sub"), _text(claims, "jti")
    expires, starts, issued = (_moment(claims, name) for name in ("exp", "nbf", "iat"))
    if not subject:
        raise Invalid("token_claims", "sub is missing")
    if expires is None and key.settings.expiry == "required":
        raise Invalid("token_claims", "exp is missing")
    if expires is not None and now - LEEWAY >= expires:
        raise Invalid("token_expired", f"expired at {expires:%Y-%m-%d %H:%M:%S} UTC, and {_here(now)}")
    if any(moment is not None and moment > now + LEEWAY for moment in (starts, issued)):
        raise Invalid("token_not_yet", f"not valid yet: nbf or iat lies in the future, and {_here(now)}")
    audiences = _texts(claims, "aud") or ()
    wanted = ADMIN_AUDIENCE if admin else key.settings.audience
    if (wanted is not None or "aud" in claims) and wanted not in audiences:
        raise Invalid("token_audience", f"aud is not {wanted or 'expected: the key has no audience configured'}")
    if ADMIN_AUDIENCE in audiences and not admin:
        raise Invalid("token_audience", "is for the HTTP interface only")
    if admin and key.settings.private_key_file is None:
        # Whoever shares a secret, or has an account at the issuer, may send mail but not read everybody's.
        raise Invalid("token_audience", "the HTTP interface takes only tokens of a key with a private_key_file")
    token = LoginToken(key.name, subject, jti, issued, expires)
    if revocations.is_revoked(token):
        raise Invalid("token_revoked", "revoked")
    return token


def _here(now: datetime) -> str:
    """Where every token is refused, it is the clock."""
    return f"the clock of this machine says {now:%Y-%m-%d %H:%M:%S}"


def is_short_text(value: object) -> bool:
    """What a subject or an id must be."""
    return isinstance(value, str) and len(value) <= _MAX_TEXT and value.isprintable()


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name, "")
    if not is_short_text(value) or (name in claims and not value):
        raise Invalid("token_claims", f"{name} is not a short printable text")
    return str(value)


def _texts(claims: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    """A claim that is one text or a list of them; None when it is absent."""
    value = claims.get(name)
    values = [value] if isinstance(value, str) else value
    if name not in claims:
        return None
    if not isinstance(values, list) or not all(isinstance(item, str) and item.isprintable() for item in values):
        raise Invalid("token_claims", f"{name} is not a list of texts")
    return tuple(values)


def _moment(claims: Mapping[str, Any], name: str) -> datetime | None:
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST_SECOND:
        raise Invalid("token_claims", f"{name} is not a time in seconds")
    return datetime.fromtimestamp(value, UTC)


def role_of(claims: Mapping[str, Any]) -> Role:
    """What the bearer of a token for the HTTP interface may do; all, where it does not say. Raises Invalid."""
    role = ROLES.get(_text(claims, "role")) if "role" in claims else Role.ADMIN
    if role is None:
        raise Invalid("token_claims", f"role is none of {', '.join(ROLES)}")
    return role


def tenant_of(claims: Mapping[str, Any]) -> str:
    """Whose mail the bearer of a token for the HTTP interface may see, "" for everybody's. Raises Invalid."""
    return _text(claims, "tenant")


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What a token asks to be held to. None and "" ask for nothing."""

    senders: tuple[str, ...] | None
    recipients: tuple[str, ...] | None
    networks: tuple[Network, ...] | None
    backend: str
    max_size: int | None


def narrowing(claims: Mapping[str, Any]) -> Narrowing:
    """The narrowing claims. Raises Invalid: what cannot be understood must not be ignored."""
    try:
        networks = _texts(claims, "networks")
        size = parse_size(claims["max_size"]) if "max_size" in claims else None
        if size == 0:
            raise ValueError("max_size must be 1 or more")
        return Narrowing(
            senders=_choices(claims, "senders"),
            recipients=_choices(claims, "recipients"),
            networks=None if networks is None else tuple(map(parse_network, networks)),
            backend=_text(claims, "backend"),
            max_size=size,
        )
    except ValueError as error:
        raise Invalid("token_claims", str(error)) from None


def _choices(claims: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    """Raises ValueError for a ``!pattern`` that blocks nobody for being misspelt."""
    given = _texts(claims, name)
    for one in given or ():
        if one.startswith(NOT):
            parse_choice(one)
    return given


def mint(
    settings: Settings, key_name: str, *, subject: str, expires_in: timedelta | None, now: datetime, jti: str,
    claims: Mapping[str, Any],
) -> str:  # fmt: skip
    """A token that this gateway accepts, signed with one of its keys. Raises ValueError in words for the operator.

    ``claims`` are all but sub, jti, iat and exp.
    """
    keys = load_keys(settings)
    if (key := keys.get(key_name)) is None:
        raise ValueError(f"auth.keys.{key_name}: no such key")
    standard = {
        "iss": key.settings.issuer,
        "aud": claims.get("aud", key.settings.audience),
        "sub": subject,
        "jti": jti or None,
        "iat": int(now.timestamp()),
        "exp": None if expires_in is None else int((now + expires_in).timestamp()),
    }
    if twice := sorted(claims.keys() & {"sub", "jti", "iat", "exp"}):
        raise ValueError(f"{', '.join(twice)} cannot be given among the claims")
    payload = {**claims, **{name: value for name, value in standard.items() if value is not None}}
    token = sign(json.dumps(payload, separators=(",", ":"), allow_nan=False).encode(), key)
    try:
        candidates(keys, parse(token))
        check(key, payload, now, Revocations(), admin=_is_admin(payload))
        if "role" in payload:
            if not _is_admin(payload):
                raise Invalid("token_claims", "role is for tokens of the HTTP interface: add --admin")
            role_of(payload)
        if "tenant" in payload:
            if not _is_admin(payload):
                raise Invalid("token_claims", "tenant is for tokens of the HTTP interface: add --admin")
            if (tenant := tenant_of(payload)) not in settings.tenants:
                raise Invalid("token_claims", f'there is no tenant "{tenant}"')
        asked = narrowing(payload)
    except Invalid as error:
        raise ValueError(f"such a token would be refused: {error}") from None
    for patterns in (asked.senders, asked.recipients):
        check_choices(tuple(map(parse_choice, patterns or ())))
    if asked.backend and asked.backend not in settings.backends:
        raise ValueError(f'there is no backend "{asked.backend}"')
    return token


def inspect(settings: Settings, token: str, now: datetime, revocations: Revocations) -> dict[str, Any]:
    """What a token says and whether it would be accepted, in words; never the token itself. Never asks the network.

    ``valid`` is None where only the issuer's published keys can tell. Raises ValueError as load_keys does.
    """
    report: dict[str, Any] = {"valid": False, "verdict": "", "key": "", "header": {}, "claims": {}}
    try:
        parsed = parse(token)
        report["header"] = {name: parsed.header[name] for name in ("alg", "typ", "kid") if name in parsed.header}
        report["claims"] = dict(parsed.claims)
        fits = candidates(load_keys(settings), parsed)
        key = signer(fits, parsed) or next((key for key in fits if key.public is None), None)
        report["key"] = key.name if key else ""
        admin = _is_admin(parsed.claims)
        check(key, parsed.claims, now, revocations, admin=admin)
        narrowing(parsed.claims)
        role = role_of(parsed.claims) if admin else None
        tenant = tenant_of(parsed.claims) if admin else ""
    except Invalid as error:
        return report | {"verdict": str(error)}
    if key and key.public is None:
        return report | {"valid": None, "verdict": f"signature not checked: needs {key.settings.jwks_url}"}
    verdict = (
        "valid"
        if role is None
        else f"valid for the HTTP interface only, to {role.word}{f' the mail of {tenant}' if tenant else ''}"
    )
    return report | {"valid": True, "verdict": verdict}


def _is_admin(claims: Mapping[str, Any]) -> bool:
    return ADMIN_AUDIENCE in (_texts(claims, "aud") or ())
