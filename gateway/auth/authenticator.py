"""Who is speaking: by network, by token or by device password."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gateway.actor import Actor
from gateway.auth.clients import Clients
from gateway.auth.guesses import Guesses
from gateway.auth.jwks import Jwks
from gateway.auth.keys import Key, Public, load_keys, verify
from gateway.auth.passwords import Login, Passwords
from gateway.auth.tokens import (
    LEEWAY,
    Invalid,
    Parsed,
    Revocations,
    candidates,
    check,
    is_short_text,
    narrowing,
    parse,
    role_of,
    signer,
    tenant_of,
    token_in,
)
from gateway.clock import Clock
from gateway.config.models import Settings, users
from gateway.events import Events
from gateway.fetch import Fetch
from gateway.lastuse import Kind, LastUse
from gateway.model import CannotTell, Client, LoginToken, Refusal, Verifies
from gateway.networks import neighbour, prefix_length

# ``Refusal.reason`` of a login is one of these; its text never tells them apart.
REASONS = frozenset({
    "auth_failed", "auth_unavailable", "busy", "too_many_failures", "token_malformed", "token_unknown_key",
    "token_signature", "token_claims", "token_audience", "token_expired", "token_not_yet", "token_revoked",
    "unknown_client", "wrong_user", "wrong_network",
})  # fmt: skip

_GUESSES = frozenset({"auth_failed", "token_malformed", "token_unknown_key", "token_signature"})
_TORN = re.compile(r"\W*(?:bearer\s+)?eyJ", re.IGNORECASE)  # how every token begins: {" in base64
_MAILBOX = re.compile(r"[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,9}[A-Za-z]{2,24}", re.ASCII)


class LoginRefused(Refusal):
    """A refused login. ``user`` is what a log may say of the user name: never what may be a password or a token.

    ``guess`` is the same for the same user name and password, and says nothing about them; b"" where it was none, as
    a token whose signature holds. ``detail`` tells the operator which token it was and what is wrong with it,
    ``client`` whose login it was, where only the rest was wrong.
    """

    def __init__(
        self, refusal: Refusal, user: str = "", guess: bytes = b"", *, detail: str = "", client: str = ""
    ) -> None:
        super().__init__(refusal.code, refusal.enhanced, refusal.text, refusal.reason)
        self.user, self.guess, self.detail, self.client = user, guess, detail, client


@dataclass(frozen=True, slots=True)
class _Signed:
    """What proves a token: the configured key, and which of those that its issuer publishes."""

    key: Key
    public: Public | None


class Authenticator:
    """Built from valid settings; raises ValueError that names the setting of a bad key or hash.

    ``providers`` are the backends that know tokens of their own, by name; ``guesses`` and ``uses`` outlive these
    settings.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        fetch: Fetch,
        events: Events,
        revocations: Revocations,
        providers: Mapping[str, Verifies] = {},
        guesses: Guesses | None = None,
        uses: LastUse | None = None,
    ) -> None:
        self._clock = clock
        self._revocations = revocations
        self._clients = Clients(settings)
        self._keys = load_keys(settings)
        asked = {name: key for name, key in self._keys.items() if key.public is None}
        self._jwks = {name: Jwks(key, _way(key, fetch, events), clock, events) for name, key in asked.items()}
        self._users = dict(users(settings.clients))
        hashes = {user: settings.clients[name].password_hash for user, name in self._users.items()}
        secrets = {user: text.get_secret_value() for user, text in hashes.items() if text}
        self._guesses = guesses or Guesses()
        self._uses = LastUse() if uses is None else uses
        self._passwords = Passwords(secrets, clock, self._guesses)
        self._names = {"jwt", *self._users, *settings.clients}
        self._names |= {known.token for known in settings.clients.values() if known.token}
        self._providers = {
            name: providers[known.login]
            for name, known in settings.clients.items()
            if known.login is not None and known.login in providers
        }

    def by_network(self, peer: str) -> Client | None:
        """The client that this address is without a login."""
        return self._clients.by_network(peer)

    async def login(self, user: str, password: str, peer: str) -> Client:
        """Raises LoginRefused: 535 5.7.8 with one text whatever was wrong, or 454 4.7.0 when it cannot be told now.

        A token is judged whatever came before: nobody guesses signatures. Passwords are judged as Guesses allows.
        """
        detail, client = "", ""
        token = token_in(password)
        try:
            if token:
                return await self._by_token(user, parse(token), peer)
            return await self._by_password(user.casefold(), password, peer)
        except Invalid as error:
            refusal, client = _refused(error), error.client
            detail = _told(error, token or password)
        except Refusal as error:
            refusal = error
        except CannotTell:
            refusal = Refusal(454, "4.7.0", "Temporary authentication failure", "auth_unavailable")
        guess = self._guesses.mark(user, password) if refusal.reason in _GUESSES else b""
        raise LoginRefused(refusal, self._shown(user, password), guess, detail=detail, client=client)

    async def _by_token(self, user: str, parsed: Parsed, peer: str) -> Client:
        if (lent := await self._by_provider(user, parsed, peer)) is not None:
            return lent
        fits = candidates(self._keys, parsed)
        held = signer(fits, parsed)
        proof = _Signed(held, held.public) if held else await self._published(fits, parsed)
        now = self._clock.now()
        try:
            checked = check(proof.key if proof else None, parsed.claims, now, self._revocations)
        except Invalid as error:
            if error.reason == "token_revoked":
                self._note("revoked", str(parsed.claims.get("jti", "")), peer)
            raise
        client = replace(self._clients.by_token(checked, parsed.claims, user, peer), proof=proof)
        self._note("token", checked.jti, peer)
        return client

    def _note(self, kind: Kind, name: str, peer: str) -> None:
        if name:
            self._uses.note(kind, name, self._clock.now(), peer)

    async def _by_password(self, user: str, password: str, peer: str) -> Client:
        name, trusted = self._users.get(user, ""), self._clients.trusts(peer)
        here = not name or self._clients.admits(name, peer)
        if not await self._passwords.verify(Login(user, password, neighbour(peer), here, trusted)):
            raise Invalid("token_malformed" if _TORN.match(password) else "auth_failed")
        client = replace(self._clients.by_name(name, peer), proof=self._passwords.of(user))
        self._note("password", name, peer)
        return client

    def _shown(self, user: str, password: str) -> str:
        """Names that are known here, and addresses. People type their password where the name belongs."""
        if not user or user in self._names or user.casefold() in self._names:
            return user
        if _MAILBOX.fullmatch(user) and password.casefold() not in self._names:
            return user
        return f"unknown, {len(user)} characters"

    async def _by_provider(self, user: str, parsed: Parsed, peer: str) -> Client | None:
        """The client whose provider signed this token, None where none did. Raises CannotTell, Invalid.

        Only a token that says what such tokens say, and that is nobody's whom we know, is shown to a provider.
        """
        asked = {user: self._providers[user]} if user in self._providers else self._providers
        if not asked or not isinstance(parsed.claims.get("address"), str) or self._ours(parsed):
            return None
        unsure: CannotTell | None = None
        for name, provider in asked.items():
            try:
                if address := await provider.verify(parsed.text):
                    return replace(self._clients.by_provider(name, address, user, peer, parsed.text), proof=provider)
            except CannotTell as error:
                unsure = error
        if unsure:
            raise unsure
        return None

    def _ours(self, parsed: Parsed) -> bool:
        """Signed by a key of ours, or perhaps by one that an issuer of ours publishes."""
        try:
            fits = candidates(self._keys, parsed)
        except Invalid:
            return False
        return any(key.public is None for key in fits) or signer(fits, parsed) is not None

    def admin_token(self, text: str, peer: str) -> Actor:
        """Whose token for the HTTP interface it is, signed by a key of our own. Raises Refusal 535.

        Its claim ``networks`` narrows where it is good, as at the door.
        """
        try:
            parsed = parse(text)
            key = signer(candidates(self._keys, parsed), parsed)
            token = check(key, parsed.claims, self._clock.now(), self._revocations, admin=True)
            within = narrowing(parsed.claims).networks
            if within is not None and prefix_length(within, peer) < 0:
                raise Invalid("wrong_network", f"the token's own networks do not hold {peer}")
            self._note("token", token.jti, "")
            return Actor(token.subject, "token", role_of(parsed.claims), tenant_of(parsed.claims))
        except Invalid as error:
            raise _refused(error) from None

    def still_valid(self, client: Client) -> bool:
        """Whether a client that came in may go on: what let it in is configured as it was, neither ended nor revoked.

        Compares and computes nothing. Raises CannotTell where the issuer's keys have been out of reach for too long.
        """
        if client.name not in self._clients:
            return False
        match client.proof, client.token:
            case _Signed(key, public), LoginToken() as token:
                if self._keys.get(key.name) != key or self._revocations.is_revoked(token):
                    return False
                if token.expires_at is not None and self._clock.now() - LEEWAY >= token.expires_at:
                    return False
                return key.public is not None or self._jwks[key.name].holds(public)
            case None, _:
                return True
            case proof, _:
                known = self._providers.get(client.name) if client.secret else self._passwords.of(self._user_of(client))
                return proof == known

    def unsure(self, client: Client) -> bool:
        """Whether ``still_valid`` relies on keys of an issuer that should be looked at again first."""
        jwks = self._jwks.get(client.token.key) if client.token else None
        return jwks is not None and jwks.old

    async def look_again(self, client: Client) -> None:
        """Ask the issuer; at most so long as a login would."""
        if client.token and (jwks := self._jwks.get(client.token.key)):
            await jwks.refresh()

    def take_over(self, before: Authenticator) -> None:
        """What issuers told under the settings before these."""
        for name, jwks in self._jwks.items():
            if before._keys.get(name) == self._keys[name]:
                jwks.take_over(before._jwks[name])

    def replaced(self, before: Authenticator) -> list[str]:
        """The keys whose files hold something else than before, though their settings are the same."""
        both = [(name, key, before._keys[name]) for name, key in self._keys.items() if name in before._keys]
        return [name for name, key, old in both if key.settings == old.settings and key.public != old.public]

    def _user_of(self, client: Client) -> str:
        return next((user for user, name in self._users.items() if name == client.name), "")

    async def aclose(self) -> None:
        self._passwords.close()
        for jwks in self._jwks.values():
            await jwks.aclose()

    async def _published(self, fits: Iterable[Key], parsed: Parsed) -> _Signed | None:
        unsure: CannotTell | None = None
        for key in (key for key in fits if key.public is None):
            try:
                for public in await self._jwks[key.name].find(parsed.header.get("kid")):
                    if verify(parsed.text, public, key.settings.algorithm):
                        return _Signed(key, public)
            except CannotTell as error:
                unsure = error
        if unsure:
            raise unsure
        return None


def _told(error: Invalid, password: str) -> str:
    """Which token it was, as it says itself, and what is wrong with it. Nothing of what may be a password."""
    if error.reason == "auth_failed":
        return ""
    try:
        claims = parse(password).claims
    except Invalid:
        claims = {}
    named = [f"{name} {claims[name]}" for name in ("jti", "sub") if is_short_text(claims.get(name))]
    length = [f"{len(password)} characters"] if error.reason in ("token_malformed", "token_signature") else []
    return "; ".join((*named, *filter(None, [error.words]), *length))


def _refused(error: Invalid) -> Refusal:
    return Refusal(535, "5.7.8", "Authentication credentials invalid", error.reason)


def _way(key: Key, fetch: Fetch, events: Events) -> Fetch:
    """``fetch`` with the authorities that the key's settings add. Raises OSError for a file that cannot be used."""

    def kept(files: str, why: str) -> None:
        events.warning("trust_kept", key=key.name, file=files, detail=why)

    return fetch.by(key.settings.ca_file, None, kept) if key.settings.ca_file else fetch
