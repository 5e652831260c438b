"""Exchange Online's logins over SMTP by token: whom tokens are asked for, and why a login is refused.

learn.microsoft.com/exchange/client-developer/legacy-protocols/how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from gateway.backends.microsoft import tokens
from gateway.backends.microsoft.entra import EntraSettings
from gateway.backends.shared.base import Context, Url, refused
from gateway.backends.shared.logins import TokenLogin
from gateway.backends.shared.oauth import TokenCache, claims, in_token_thread
from gateway.backends.shared.over_http import HttpWay
from gateway.backends.shared.stores import Shared
from gateway.backends.shared.table import Row
from gateway.checks import Renewed
from gateway.config.authorities import examine_authorities
from gateway.config.finding import Examined
from gateway.model import Verdict

# Whom an application's tokens are for, and what a person is asked for; those of the national clouds are not tried.
_RESOURCES = {
    "global": ("https://outlook.office365.com", "https://outlook.office.com"),
    "usgov": ("https://outlook.office365.us", "https://outlook.office365.us"),
    "dod": ("https://outlook-dod.office365.us", "https://outlook-dod.office365.us"),
    "china": ("https://partner.outlook.cn", "https://partner.outlook.cn"),
}
_RBAC = "none in the token; with RBAC for Applications they stand in Exchange: Test-ServicePrincipalAuthorization"
_SWITCH = (
    "switch SMTP AUTH on for {mailbox}, which tokens need too: Set-CASMailbox -Identity {mailbox} "
    "-SmtpClientAuthenticationDisabled $false; it counts after some minutes"
)
_POLICY = (
    "exclude this application or sign-in from the Conditional Access policy that blocks it (entra.microsoft.com > "
    "Sign-in logs names it), or switch security defaults off"
)
_GRANT = (
    "let the application send as {mailbox} over SMTP (docs/microsoft365.md): New-ServicePrincipal with the Object ID "
    "of Enterprise applications, the role Application SMTP.SendAsApp, then wait up to two hours; ask Exchange: "
    "Test-ServicePrincipalAuthorization -Identity {client_id} -Resource {mailbox}"
)
_PERSON = (
    "let who signed in use {mailbox}: Add-MailboxPermission -Identity {mailbox} -User WHO -AccessRights FullAccess; "
    "or sign in as it: gateway auth microsoft --backend {name}"
)


def _row(text: str, fix: str, code: int = 535) -> Row:
    return Row((code,), Verdict.MISCONFIGURED, "", text=text, fix=fix)


_POLICIES = r"security defaults|did not meet the criteria|conditional access"
_COMMON = (_row("SmtpClientAuthentication is disabled", _SWITCH), _row(_POLICIES, _POLICY))
_BY_APPLICATION = (*_COMMON, Row((535,), Verdict.MISCONFIGURED, "", fix=_GRANT))
_BY_PERSON = (*_COMMON, Row((535,), Verdict.MISCONFIGURED, "", fix=_PERSON))


class MicrosoftLoginSettings(HttpWay, EntraSettings):
    """Tokens of Entra ID for Exchange. ``resource`` replaces what ``cloud`` stands for."""

    section: ClassVar[str] = "microsoft"
    resource: Url | None = None

    def identity(self, name: str, state_dir: Path, shared: Shared | None = None) -> tokens.Identity:
        """Who asks for tokens."""
        application, person = _RESOURCES[self.cloud]
        scopes = (f"{self.resource or person}/SMTP.Send",)
        return self.right(name, state_dir, shared, self.resource or application, scopes)

    def unfit(self, mailbox: str) -> str:
        """Why these tokens cannot log ``mailbox`` in, "" where they can."""
        if mailbox == "me" and not self.device_login:
            return "mailbox me needs device_login in microsoft; an application needs an address, or sender"
        return ""

    def examine(self, name: str, state_dir: Path, mailbox: str) -> Examined:
        yield from examine_authorities(self.ca_file)
        yield from self.examine_right(self.identity(name, state_dir))

    def login(self, name: str, mailbox: str, context: Context) -> TokenLogin:
        return MicrosoftLogin(name, self, context)

    @property
    def takes_own_sender_only(self) -> bool:
        """Exchange takes MAIL FROM of nobody but the mailbox that has logged in."""
        return True


class MicrosoftLogin:
    """One token of the application, or of who signed in, for all mailboxes."""

    def __init__(self, name: str, settings: MicrosoftLoginSettings, context: Context) -> None:
        self._name = name
        self._identity = settings.identity(name, context.state_dir, context.shared)
        source = tokens.token_source(self._identity, context.clock, context.signals.credential_ends)
        self._cache = TokenCache(name, source, context)
        self._renewal = settings.renewal(self._identity, context)
        settings.tell_of_secret(name, context.signals.credential_ends)
        self.rows: Sequence[Row] = _BY_PERSON if settings.device_login else _BY_APPLICATION
        self.urls = (self._identity.authority,)
        self.known: Mapping[str, str] = {"client_id": settings.client_id or "CLIENT_ID"}

    async def account(self) -> str:
        store = self._identity.store
        if store is None or not (found := await in_token_thread(partial(tokens.signed_in_as, store))):
            raise refused("nobody has signed in yet", f"sign in: gateway auth microsoft --backend {self._name}")
        return found

    async def token(self, mailbox: str) -> str:
        return await self._cache.get()

    async def instead(self, mailbox: str, refused: str) -> str | None:
        return await self._cache.instead(refused)

    async def facts(self, mailbox: str) -> dict[str, str]:
        said = claims(await self._cache.get())  # for show only: Microsoft may change or encrypt its tokens
        granted = [*(said.get("roles") or []), *str(said.get("scp") or "").split()]
        more = await self._renewal.facts() if self._renewal else {}
        return {"authority": self._identity.authority, "permissions": " ".join(map(str, granted)) or _RBAC, **more}

    async def renew(self, *, ordered: bool = False) -> Renewed | None:
        return await self._renewal.look(ordered=ordered) if self._renewal else None

    def forget(self) -> None:
        self._cache.forget_failure()

    async def aclose(self) -> None:
        await self._cache.aclose()
