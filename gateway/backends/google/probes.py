"""What Google tells of a sign-in beyond its check: scopes of its token, aliases where these allow to look."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urljoin

from gateway.address import comparable
from gateway.backends.shared.base import Context, NoAnswer, safe
from gateway.backends.shared.http import exchange
from gateway.backends.shared.probe import Observed, Probes, Traces, of_google
from gateway.fetch import Answer
from gateway.model import Verdict
from gateway.strangers import lenient_json

_AUTH = "https://www.googleapis.com/auth/"
_ALL = "https://mail.google.com/"
_SEND = f"{_AUTH}gmail.send"
_SENDING = (_SEND, f"{_AUTH}gmail.compose", f"{_AUTH}gmail.modify", _ALL)
_ALIASES = (_ALL, f"{_AUTH}gmail.modify", f"{_AUTH}gmail.readonly", f"{_AUTH}gmail.settings.basic")
_OF_EVERY_SIGN_IN = ("openid", f"{_AUTH}userinfo.email", f"{_AUTH}userinfo.profile", "email", "profile")
_PATIENCE = timedelta(seconds=15)


@dataclass(frozen=True, kw_only=True)
class GmailProbes(Probes):
    """``token`` gives the access token of a mailbox and raises NoAnswer. ``delegated``: by a service account."""

    name: str
    api_base: str
    token_url: str
    mailbox: str
    address: str
    delegated: bool
    context: Context
    token: Callable[[str], Awaitable[str]]
    reads: str = ""  # the scope that later_bounces needs

    async def permissions(self, largest: int) -> Sequence[Observed]:
        if self.mailbox == "sender":
            return ()  # each mailbox is tried by itself
        scopes = await self._scopes()
        if scopes is None:
            what = "Google did not say which scopes the token has"
            return [Observed(key="permission_unseen", level="unknown", what=what, fix="try again, or send a test")]
        if not set(scopes) & set(_SENDING):
            what = f"the token may not send mail, only: {' '.join(scopes)}"
            return [Observed(key="permission_missing", level="bad", what=what, fix=self._grant(), paste=_SEND)]
        how = "domain-wide delegation is granted" if self.delegated else "the sign-in allows it"
        found = [Observed(key="permission_good", level="good", what=f"the token may send mail: {how}")]
        if spare := [one for one in scopes if one not in (_SEND, self.reads, *_OF_EVERY_SIGN_IN)]:
            what = f"the token may do more than send: {' '.join(spare)}"
            found.append(Observed(key="permission_excess", level="note", what=what, fix=self._grant(), paste=_SEND))
        return found

    def _grant(self) -> str:
        if self.delegated:
            return "admin.google.com > Security > API controls > Domain-wide delegation: this scope and no other"
        return f"sign in again and allow this scope alone: gateway auth google {self.name}"

    async def _scopes(self) -> list[str] | None:
        """https://oauth2.googleapis.com/tokeninfo, with the token in a header, as Google's own libraries ask."""
        try:
            token = await self.token(self.mailbox)
            answer = await self._call("POST", urljoin(self.token_url, "/tokeninfo"), token, b"")
        except NoAnswer:
            return None
        scope = lenient_json(answer.body).get("scope") if answer.status == 200 else None
        return scope.split() if isinstance(scope, str) and scope else None

    async def may_send_as(self, addresses: Sequence[str]) -> Sequence[Observed]:
        if self.mailbox == "sender":
            return [await self._delegation(one) for one in addresses if not one.startswith("anybody@")]
        others = [one for one in addresses if self.address and comparable(one) != comparable(self.address)]
        if not others:
            return ()
        aliases = await self._aliases()
        return [self._alias(one, aliases) for one in others]

    async def _delegation(self, address: str) -> Observed:
        """A token in the name of a mailbox is given only where there is one, and delegation for it."""
        try:
            await self.token(address)
        except NoAnswer as error:
            said, fix = error.outcome.detail, error.outcome.fix
            if error.outcome.verdict is Verdict.REJECTED:
                what = f"the Workspace has no mailbox {address}"
                return Observed(
                    key="mailbox_missing", level="bad", what=what, fix=fix or "correct the address", said=said
                )
            what = f"no token to send as {address}"
            key = "sender_unseen" if error.outcome.verdict is Verdict.DEFERRED else "sender_unverified"
            level: Any = "unknown" if key == "sender_unseen" else "bad"
            return Observed(key=key, level=level, what=what, fix=fix, said=said)
        return Observed(key="mailbox_good", level="good", what=f"Google gives a token to send as {address}")

    async def _aliases(self) -> dict[str, str] | None:
        """Addresses that the mailbox may send as, with their state; None where the scopes do not let us look."""
        if not set(await self._scopes() or ()) & set(_ALIASES):
            return None
        try:
            token = await self.token(self.mailbox)
            answer = await self._call("GET", f"{self.api_base}/gmail/v1/users/me/settings/sendAs", token)
        except NoAnswer:
            return None
        listed = lenient_json(answer.body).get("sendAs") if answer.status == 200 else None
        if not isinstance(listed, list):
            return None
        rows = [one for one in listed if isinstance(one, dict) and one.get("sendAsEmail")]
        return {comparable(str(one["sendAsEmail"])): str(one.get("verificationStatus") or "") for one in rows}

    def _alias(self, address: str, aliases: dict[str, str] | None) -> Observed:
        """Gmail replaces a From that is not its own and says nothing."""
        if aliases is None:
            what = f"whether {self.address} may send as {address} is not seen with the scope gmail.send"
            fix = "see that it stands under Send mail as (gmail.com > Settings > Accounts), and is confirmed"
            return Observed(key="sender_unseen", level="unknown", what=what, fix=fix)
        state = aliases.get(comparable(address))
        if state in ("accepted", ""):
            return Observed(key="sender_good", level="good", what=f"{self.address} may send as {address}")
        what = f"{self.address} may not send as {address}: Gmail would write its own address there"
        what += ", for it is not confirmed yet" if state == "pending" else ""
        fix = "add it under Send mail as (gmail.com > Settings > Accounts) and confirm it"
        return Observed(key="sender_unverified", level="bad", what=what, fix=fix, said=safe(state or ""))

    async def _call(self, method: str, url: str, token: str, content: bytes | None = None) -> Answer:
        headers = {"authorization": f"Bearer {token}"}
        if content is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
        fetch = self.context.fetch
        return await exchange(fetch, url, headers=headers, content=content, timeout=_PATIENCE, method=method)

    async def traces(self, domain: str) -> Traces | None:
        return of_google(domain)
