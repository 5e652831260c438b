"""An administrator signs in to Microsoft: by device code (RFC 8628), or with a browser (RFC 7636). Nothing is kept.

No ``offline_access`` is asked for, so there is no refresh token: the access token lives for an hour, in memory.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from gateway.backends.shared.oauth import claims
from gateway.clock import Clock
from gateway.fetch import Answer, Fetch, Lost, NotSent
from gateway.strangers import lenient_json
from gateway.visible import visible

AUTHORITY = "https://login.microsoftonline.com"
COMMAND_LINE_TOOLS = "14d82eec-204b-4c2f-b7e8-296a70dab67e"  # Microsoft Graph Command Line Tools, in every tenant
_DEADLINE = 30.0
_BLOCKED = 60.0  # seconds of silence, then the page may say what is never said here
_HINT = "Does the page say error 53003, or that you may not get there? Your tenant blocks device codes: --browser."
_UNHEARD = 10
_FIXES = {
    "53003": "a Conditional Access policy blocks this way to sign in: try --browser (or --device), or another machine",
    "530033": "a policy wants a managed device: run this on one, or try --browser",
    "53000": "a policy wants a compliant device: run this on one, or try --browser",
    "50105": "your tenant wants users assigned to this application: register one of your own, and give --client-id",
    "7000112": "your tenant has switched this application off: register one of your own, and give --client-id",
    "65001": "nobody has consented: a Global Administrator must sign in once and accept",
    "90094": "only an administrator may consent: sign in as Global Administrator, or let one do it",
    "700016": "there is no such application in this tenant: look at --client-id and --tenant",
    "7000218": "the application is none for people: switch on Authentication > Allow public client flows",
    "authorization_declined": "it was declined at the page: run it again, and accept",
    "access_denied": "it was declined at the page: run it again, and accept",
    "expired_token": "the code has expired: run it again with --resume",
    "code_expired": "the code has expired: run it again with --resume",
    "bad_verification_code": "the code was not taken: run it again with --resume",
}


class NotSignedIn(Exception):
    """Why, in Microsoft's words; ``fix`` what to do."""

    def __init__(self, text: str, fix: str = "") -> None:
        super().__init__(text)
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Access:
    """``tenant`` is its id; ``who`` signed in."""

    token: str = field(repr=False)
    tenant: str
    who: str


@dataclass(slots=True)
class SignIn:
    fetch: Fetch
    clock: Clock
    client_id: str
    tenant: str
    scopes: tuple[str, ...]
    authority: str = AUTHORITY

    @property
    def _scope(self) -> str:
        return " ".join((*self.scopes, "openid", "profile"))

    async def by_device(self, show: Callable[[str], None]) -> Access:
        """``show`` gets what the person has to do. Raises NotSignedIn."""
        flow = self._body(await self._post("devicecode", {"client_id": self.client_id, "scope": self._scope}))
        if not flow.get("device_code") or not flow.get("user_code"):
            raise _failure(flow)
        show(visible(str(flow.get("message") or f"{flow.get('verification_uri')} {flow['user_code']}")))
        interval, began = max(1.0, float(flow.get("interval") or 5)), self.clock.monotonic()
        ends, hinted, unheard = began + float(flow.get("expires_in") or 900), False, 0
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "client_id": self.client_id}
        while self.clock.monotonic() < ends:
            await self.clock.sleep(interval)
            if not hinted and self.clock.monotonic() - began >= _BLOCKED:
                show(_HINT)
                hinted = True
            try:
                answer = await self._post("token", {**form, "device_code": str(flow["device_code"])})
            except NotSignedIn:
                unheard += 1
                if unheard >= _UNHEARD:
                    raise
                continue
            unheard, body = 0, self._body(answer)
            if answer.status == 200 and body.get("access_token"):
                return _access(body)
            if body.get("error") == "slow_down":
                interval += 5  # RFC 8628 3.5
            elif body.get("error") != "authorization_pending" and answer.status < 500:
                raise _failure(body)
        raise NotSignedIn("the code has expired", _FIXES["expired_token"])

    def page(self, redirect: str) -> tuple[str, str, str]:
        """The address to open, and the state and the verifier that belong to it."""
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(64)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        asked = {
            "response_type": "code", "client_id": self.client_id, "redirect_uri": redirect, "scope": self._scope,
            "state": state, "code_challenge": challenge, "code_challenge_method": "S256", "prompt": "select_account",
        }  # fmt: skip
        return f"{self.authority}/{self.tenant}/oauth2/v2.0/authorize?{urlencode(asked)}", state, verifier

    async def redeem(self, answer: Mapping[str, str], verifier: str, redirect: str) -> Access:
        """What the page sent back. Raises NotSignedIn."""
        if "code" not in answer:
            raise _failure(answer)
        form = {
            "grant_type": "authorization_code", "client_id": self.client_id, "code": answer["code"],
            "redirect_uri": redirect, "code_verifier": verifier, "scope": self._scope,
        }  # fmt: skip
        body = self._body(await self._post("token", form))
        if not body.get("access_token"):
            raise _failure(body)
        return _access(body)

    async def _post(self, what: str, form: Mapping[str, str]) -> Answer:
        url = f"{self.authority}/{self.tenant}/oauth2/v2.0/{what}"
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        try:
            return await self.fetch.request(
                "POST", url, headers=headers, content=urlencode(form).encode(), deadline=_DEADLINE
            )
        except (NotSent, Lost) as error:
            raise NotSignedIn(str(error), "see whether this machine reaches login.microsoftonline.com") from None

    @staticmethod
    def _body(answer: Answer) -> dict[str, Any]:
        return lenient_json(answer.body) or {"error": f"HTTP {answer.status}"}


def _access(body: Mapping[str, Any]) -> Access:
    # Straight from Microsoft over TLS: the signature needs no check (OpenID Connect Core 3.1.3.7).
    told = claims(str(body.get("id_token") or "")) or claims(str(body["access_token"]))
    if not told.get("tid"):
        raise NotSignedIn("Microsoft did not say which tenant this is", "sign in with a work or school account")
    return Access(str(body["access_token"]), str(told["tid"]), str(told.get("preferred_username") or "somebody"))


def _failure(body: Mapping[str, Any]) -> NotSignedIn:
    error, words = str(body.get("error") or "no token"), str(body.get("error_description") or "").partition("\r\n")[0]
    given = body.get("error_codes")
    codes = [str(one) for one in given] if isinstance(given, list) else []
    codes += [code for code in _FIXES if f"AADSTS{code}:" in words]
    fix = next((_FIXES[code] for code in (*codes, error) if code in _FIXES), "")
    return NotSignedIn(visible(f"{error}: {words}" if words else error)[:600], fix)
