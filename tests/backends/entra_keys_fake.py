"""Entra ID and Graph as far as an application's keys go: strict about proofs, and late to know of a new key.

Made from the documents: learn.microsoft.com/graph/api/application-addkey, application-removekey and
graph/application-rollkey-prooftoken; lag and 401s as users of these calls report them.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.backends.microsoft import keypair
from gateway.backends.microsoft.certificate import Pair
from gateway.backends.microsoft.graph import Graph, GraphSettings
from gateway.backends.shared.stores import Shared
from tests.backends import kit
from tests.backends.gmail_fake import Recorder
from tests.backends.graph_fake import CLIENT, MAILBOX, TENANT, GraphFake, QuickClock, error, refusal
from tests.backends.kit import Request, Web, http
from tests.builders import START
from tests.fakes import FakeClock

OBJECT = "0b1ec700-0000-4000-8000-00000000aaaa"
FIRST = "f1c5717d-0000-4000-8000-000000000001"
_AUDIENCE = "00000002-0000-0000-c000-000000000000"
_MALFORMED = "Authentication_MissingOrMalformed"


@dataclass
class Held:
    """A key of the application, added at ``since`` (monotonic)."""

    certificate: x509.Certificate
    since: float

    def print_(self) -> str:
        return base64.urlsafe_b64encode(self.certificate.fingerprint(hashes.SHA1())).rstrip(b"=").decode()


@dataclass
class KeysFake(GraphFake):
    """``lag``: seconds until the token endpoint knows of a new key; ``proof_lag``: until it can prove anything."""

    keys: dict[str, Held] = field(default_factory=dict)
    lag: float = 0.0
    proof_lag: float = 1200.0
    most: int = 0  # keys held at once so far

    def hold(self, ident: str, certificate: x509.Certificate) -> None:
        self.keys[ident] = Held(certificate, self.clock.monotonic())
        self.most = max(self.most, len(self.keys))

    def _route(self, request: Request) -> tuple[str, Callable[[], bytes]]:
        found = re.fullmatch(r"/v1\.0/applications/([^/]+)/(addKey|removeKey)", urlsplit(request.path).path)
        if not found:
            return super()._route(request)
        return found[2], lambda: self._roll(request, found[1], found[2])

    def _roll(self, request: Request, application: str, what: str) -> bytes:
        if refused := self._allowed(request, MAILBOX):
            return refused
        if request.method != "POST" or request.headers.get("content-type") != "application/json":
            return error(400, "Request_BadRequest")
        if application != OBJECT:
            return error(404, "Request_ResourceNotFound", f"Resource '{application}' does not exist")
        body = json.loads(request.body)
        if not body.get("proof"):
            return error(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
        if not self._proven(body.pop("proof")):
            return error(401, _MALFORMED, "Access Token missing or malformed.")
        return self._add(body) if what == "addKey" else self._remove(body)

    def _proven(self, proof: str) -> bool:
        if "=" in proof or proof.count(".") != 2:
            return False
        now, head = self.clock.now().timestamp(), jwt.get_unverified_header(proof)
        signed = [one for one in self.keys.values() if one.print_() == head.get("x5t")]
        if not signed or head["alg"] != "RS256":
            return False
        held = signed[0]
        valid = held.certificate.not_valid_before_utc <= self.clock.now() <= held.certificate.not_valid_after_utc
        loose = {"verify_exp": False, "verify_nbf": False}  # by the clock of this fake instead
        key: Any = held.certificate.public_key()
        try:
            claims = jwt.decode(proof, key, algorithms=["RS256"], audience=_AUDIENCE, issuer=OBJECT, options=loose)
        except jwt.PyJWTError:
            return False
        lives = claims["nbf"] <= now + 300 and now < claims["exp"] <= claims["nbf"] + 600
        return valid and lives and self.clock.monotonic() - held.since >= self.proof_lag

    def _add(self, body: dict[str, Any]) -> bytes:
        credential = body.get("keyCredential") or {}
        if set(body) != {"keyCredential", "passwordCredential"} or body["passwordCredential"] is not None:
            return error(400, "Request_BadRequest", "passwordCredential")
        if credential.get("keyId"):
            return error(400, "Request_BadRequest", "KeyId value must be null")
        if set(credential) != {"type", "usage", "key"} or credential["type"] != "AsymmetricX509Cert":
            return error(400, "Request_BadRequest", "type")
        if credential["usage"] != "Verify":
            return error(400, "Request_BadRequest", "usage")
        added = x509.load_der_x509_certificate(binascii.a2b_base64(credential["key"], strict_mode=True))
        if not isinstance(added.public_key(), RSAPublicKey) or added.not_valid_after_utc <= self.clock.now():
            return error(400, "KeyCredentialsInvalidEndDate", "Key credential end date is invalid.")
        ident = str(uuid.UUID(int=len(self.calls)))
        self.hold(ident, added)
        return http(200, {"keyId": ident, "type": "AsymmetricX509Cert", "usage": "Verify", "key": None})

    def _remove(self, body: dict[str, Any]) -> bytes:
        if set(body) != {"keyId"}:
            return error(400, "Request_BadRequest", "keyId")
        if body["keyId"] not in self.keys:
            return error(400, "Request_BadRequest", "No credentials found to be removed.")
        del self.keys[body["keyId"]]
        return http(204)

    def _client(self, form: dict[str, str], tenant: str) -> bytes:
        for held in self.keys.values():
            if self.clock.monotonic() - held.since < self.lag:
                continue
            self.certificate = held.certificate
            if self._asserted(form, tenant):
                if not held.certificate.not_valid_before_utc <= self.clock.now() < held.certificate.not_valid_after_utc:
                    return refusal(401, "invalid_client", 1000502, "not within its specified validity period.")
                return super()._client(form, tenant)
        return refusal(401, "invalid_client", 700027, "The certificate is not registered on application.")


@dataclass
class Keys:
    """The backend in front of this fake, with the key that it had at first, and a way to begin anew as after a kill."""

    fake: KeysFake
    settings: GraphSettings
    context: Any
    clock: FakeClock
    signals: Recorder

    def __post_init__(self) -> None:
        self.backend = Graph("office", self.settings, self.context)

    async def restart(self) -> None:
        await self.backend.aclose()
        self.backend = Graph("office", self.settings, self.context)

    async def sends(self) -> bool:
        """By a token of its own, asked for now."""
        other = Graph("office", self.settings, self.context)
        found = await other.check()
        await other.aclose()
        return found.ok


@cache
def _first() -> Pair:
    return keypair.make(START)


@contextlib.asynccontextmanager
async def open_keys(path: Path, shared: Shared | None = None, **settings: Any) -> AsyncIterator[Keys]:
    clock = QuickClock()
    fake, signals = KeysFake(clock), Recorder()
    first = _first()
    file = path / "first.pem"
    file.write_text(first.certificate + first.private_key)
    fake.hold(FIRST, x509.load_pem_x509_certificate(first.certificate.encode()))
    clock.advance(86400)
    async with Web(fake) as web, kit.context(path, clock) as silent:
        fake.url = web.url
        values = {
            "tenant": TENANT, "client_id": CLIENT, "certificate_file": file, "certificate_renew": True,
            "object_id": OBJECT, "certificate_id": FIRST, "mailbox": MAILBOX, "api_base": web.url,
            "authority": web.url, "timeout": "5s",
        } | settings  # fmt: skip
        given = GraphSettings.model_validate(values)
        made = Keys(fake, given, replace(silent, signals=signals, shared=shared), clock, signals)
        try:
            yield made
        finally:
            await made.backend.aclose()
