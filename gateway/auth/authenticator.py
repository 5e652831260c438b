"""Who is speaking: by network, by token or by device password."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from gateway.auth.clients import Clients
from gateway.auth.jwks import Jwks
from gateway.auth.keys import Key, load_keys, verify
from gateway.auth.passwords import Passwords
from gateway.auth.tokens import LEEWAY, Invalid, Parsed, candidates, check, looks_like_token, parse, signer
from gateway.clock import Clock
from gateway.config.models import Settings
from gateway.events import Events
from gateway.fetch import Fetch
from gateway.model import CannotTell, Client, LoginToken, Refusal, Verifies

# ``Refusal.reason`` of a login is one of these; its text never tells them apart.
REASONS = frozenset({
    "auth_failed", "auth_unavailable", "busy", "token_malformed", "token_unknown_key", "token_signature",
    "token_claims", "token_audience", "token_expired", "token_not_yet", "token_revoked", "unknown_client",
    "wrong_user", "wrong_network",
})  # fmt: skip


class Revocations:
    """Tokens that are dead before their time. ``jtis`` are dead whichever key signed them."""

    def __init__(self, jtis: Iterable[str] = (), subjects: Mapping[str, datetime] | None = None) -> None:
        self._jtis = {("", jti) for jti in jtis}
        self._subjects = dict(subjects or {})

    def revoke_jti(self, jti: str, *, key: str = "") -> None:
        """One token; without ``key``, whichever key signed it."""
        self._jtis.add((key, jti))

    def revoke_subject(self, subject: str, before: datetime) -> None:
        """All of a subject's tokens issued before that time, or without saying when."""
        self._subjects[subject] = max(before, self._subjects.get(subject, before))

    def is_revoked(self, token: LoginToken) -> bool:
        before = self._subjects.get(token.subject)
        too_old = before is not None and (token.issued_at is None or token.issued_at < before)
        return too_old or not self._jtis.isdisjoint({("", token.jti), (token.key, token.jti)})


class Authenticator:
    """Built from valid settings; raises ValueError that names the setting of a bad key or hash.

    ``providers`` are the backends that know tokens of their own, by name.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        fetch: Fetch,
        events: Events,
        revocations: Revocations,
        providers: Mapping[str, Verifies] = {},
    ) -> None:
        self._clock = clock
        self._revocations = revocations
        self._clients = Clients(settings)
        self._keys = load_keys(settings)
        self._jwks = {name: Jwks(key, fetch, clock, events) for name, key in self._keys.items() if key.public is None}
        hashes = {
            name: known.password_hash.get_secret_value()
            for name, known in settings.clients.items()
            if known.password_hash is not None
        }
        self._passwords = Passwords(hashes, clock)
        self._providers = {
            name: providers[known.login]
            for name, known in settings.clients.items()
            if known.login is not None and known.login in providers
        }

    def by_network(self, peer: str) -> Client | None:
        """The client that this address is without a login."""
        return self._clients.by_network(peer)

    async def login(self, user: str, password: str, peer: str) -> Client:
        """Raises Refusal: 535 5.7.8 with one text whatever was wrong, or 454 4.7.0 when it cannot be told now."""
        try:
            if looks_like_token(password):
                parsed = parse(password)
                if (lent := await self._by_provider(user, parsed, peer)) is not None:
                    return lent
                fits = candidates(self._keys, parsed)
                key = signer(fits, parsed) or await self._published_signer(fits, parsed)
                return self._clients.by_token(self._checked(key, parsed), parsed.claims, user, peer)
            if not await self._passwords.verify(user, password):
                raise Invalid("auth_failed")
            return self._clients.by_name(user, peer)
        except Invalid as error:
            raise _refused(error) from None

    async def _by_provider(self, user: str, parsed: Parsed, peer: str) -> Client | None:
        """The client whose provider signed this token, None where none did. Raises Refusal 454, Invalid.

        Only a token that says what such tokens say, and that is nobody's whom we know, is shown to a provider.
        """
        asked = {user: self._providers[user]} if user in self._providers else self._providers
        if not asked or not isinstance(parsed.claims.get("address"), str) or self._ours(parsed):
            return None
        unsure = False
        for name, provider in asked.items():
            try:
                if address := await provider.verify(parsed.text):
                    return self._clients.by_provider(name, address, user, peer, parsed.text)
            except CannotTell:
                unsure = True
        if unsure:
            raise Refusal(454, "4.7.0", "Temporary authentication failure, try again later", "auth_unavailable")
        return None

    def _ours(self, parsed: Parsed) -> bool:
        """Signed by a key of ours, or perhaps by one that an issuer of ours publishes."""
        try:
            fits = candidates(self._keys, parsed)
        except Invalid:
            return False
        return any(key.public is None for key in fits) or signer(fits, parsed) is not None

    async def admin_token(self, text: str) -> str:
        """The subject of a token for the HTTP interface, signed by a key of our own. Raises Refusal 535."""
        try:
            parsed = parse(text)
            return self._checked(signer(candidates(self._keys, parsed), parsed), parsed, admin=True).subject
        except Invalid as error:
            raise _refused(error) from None

    def still_valid(self, client: Client) -> bool:
        """Whether a client that came in may go on: still configured, its token neither expired nor revoked."""
        token = client.token
        if token is None:
            return client.name in self._clients
        in_time = token.expires_at is None or self._clock.now() - LEEWAY < token.expires_at
        known = client.name in self._clients and token.key in self._keys
        return known and in_time and not self._revocations.is_revoked(token)

    async def aclose(self) -> None:
        self._passwords.close()
        for jwks in self._jwks.values():
            await jwks.aclose()

    async def _published_signer(self, fits: Iterable[Key], parsed: Parsed) -> Key | None:
        unavailable: Refusal | None = None
        for key in fits:
            try:
                found = await self._jwks[key.name].find(parsed.header.get("kid")) if key.public is None else []
            except Refusal as refusal:
                unavailable = refusal
                continue
            if any(verify(parsed.text, public, key.settings.algorithm) for public in found):
                return key
        if unavailable is not None:
            raise unavailable
        return None

    def _checked(self, key: Key | None, parsed: Parsed, *, admin: bool = False) -> LoginToken:
        if key is None:
            raise Invalid("token_signature")
        token = check(key, parsed.claims, self._clock.now(), admin=admin)
        if self._revocations.is_revoked(token):
            raise Invalid("token_revoked")
        return token


def _refused(error: Invalid) -> Refusal:
    return Refusal(535, "5.7.8", "Authentication credentials invalid", error.reason)
