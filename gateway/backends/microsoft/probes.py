"""What Microsoft tells of an application beyond its check: permissions in its token, and whether mailboxes exist."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from gateway.backends.microsoft.api import Api, error_of
from gateway.backends.shared.base import NoAnswer, safe
from gateway.backends.shared.oauth import claims
from gateway.backends.shared.probe import Observed, Probes, Traces, of_microsoft

# https://learn.microsoft.com/microsoft-365/enterprise/external-domain-name-system-records
_INCLUDES = {
    "usgov": "spf.protection.office365.us",
    "dod": "spf.protection.office365.us",
    "china": "spf.protection.partner.outlook.cn",
}
_USEFUL = ("Mail.Send", "Mail.ReadWrite", "Mail.Read", "Mail.ReadBasic", "User.Read", "User.ReadBasic")
_OF_EVERY_SIGN_IN = ("openid", "profile", "email", "offline_access")


@dataclass(frozen=True, kw_only=True)
class GraphProbes(Probes):
    """``token`` gives an access token and raises NoAnswer. ``mailbox``: address, "me" or "sender"."""

    api: Api
    cloud: str
    client_id: str
    mailbox: str
    drafts: bool
    reads: tuple[str, ...]  # what later_bounces needs
    token: Callable[[], Awaitable[str]]

    async def permissions(self, largest: int) -> Sequence[Observed]:
        """Only what the token says; Microsoft may change or encrypt its tokens, and RBAC in Exchange is not in them."""
        try:
            said = claims(await self.token())
        except NoAnswer:
            return ()  # the check tells of that
        roles = said.get("roles")
        granted = [str(one) for one in roles] if isinstance(roles, list) else []
        delegated = str(said.get("scp") or "").split()
        needed = list(dict.fromkeys(("Mail.Send", *(["Mail.ReadWrite"] if self.drafts else []), *self.reads)))
        missing = [one for one in needed if not _has([*granted, *delegated], one)]
        found = [self._missing(one, delegated=bool(delegated)) for one in missing]
        if not missing:
            what = f"the token has {', '.join(needed)}"
            found.append(Observed(key="permission_good", level="good", what=what))
        if spare := self._spare([*granted, *delegated]):
            what = f"the application has more permissions than are needed: {', '.join(spare[:10])}"
            fix = "take them back: entra.microsoft.com > App registrations > API permissions"
            found.append(Observed(key="permission_excess", level="note", what=what, fix=fix))
        if "Mail.Send" in granted and self.mailbox != "sender":
            what = "by Mail.Send the application may send as every mailbox of the tenant, unless Exchange limits it"
            fix = "limit it to this mailbox by RBAC for Applications (docs/microsoft365.md), then take Mail.Send back"
            found.append(Observed(key="permission_excess", level="note", what=what, fix=fix, paste=self._test()))
        return found

    def _missing(self, needed: str, *, delegated: bool) -> Observed:
        why = "" if needed == "Mail.Send" else ", which safe_send and large_messages: draft need"
        why = ", which later_bounces needs" if needed in self.reads and needed != "Mail.ReadWrite" else why
        if delegated:
            what, fix = f"the sign-in does not allow {needed}{why}", "sign in again, which asks for it"
            paste = f"gateway auth microsoft {self.api.name}"
            return Observed(key="permission_missing", level="bad", what=what, fix=fix, paste=paste)
        what = f"the token does not name {needed}{why}; by RBAC for Applications it may be granted all the same"
        fix = "ask Exchange Online PowerShell; if it is not in scope there either, grant it and give admin consent"
        return Observed(key="permission_unseen", level="unknown", what=what, fix=fix, paste=self._test())

    def _test(self) -> str:
        mailbox = self.mailbox if "@" in self.mailbox else "MAILBOX"
        return f"Test-ServicePrincipalAuthorization -Identity {self.client_id} -Resource {mailbox}"

    def _spare(self, granted: Sequence[str]) -> list[str]:
        spare = [one for one in granted if not _has([one], *_USEFUL, *self.reads) and one not in _OF_EVERY_SIGN_IN]
        return spare if self.drafts else spare + [one for one in granted if one.startswith("Mail.ReadWrite")]

    async def may_send_as(self, addresses: Sequence[str]) -> Sequence[Observed]:
        """Whether there are such mailboxes; what one may send as besides, "Send As", Graph does not tell."""
        if self.mailbox == "me":
            return ()
        own = addresses if self.mailbox == "sender" else [self.mailbox]
        found = [await self._mailbox(one) for one in own if not one.startswith("anybody@")]
        others = [] if self.mailbox == "sender" else [one for one in addresses if one.lower() != self.mailbox.lower()]
        for one in others:
            what = f"whether {self.mailbox} may send as {one} (Send As) is not told by Graph"
            paste = f"Get-RecipientPermission -Identity {one}"
            fix = "ask Exchange Online PowerShell, or send a test"
            found.append(Observed(key="sender_unseen", level="unknown", what=what, fix=fix, paste=paste))
        return found

    async def _mailbox(self, address: str) -> Observed:
        try:
            answer = await self.api.call("GET", f"/users/{quote(address, safe='@')}?$select=id")
        except NoAnswer as error:
            what, fix = f"whether there is a mailbox {address} was not answered", error.outcome.fix or "try again"
            return Observed(key="mailbox_unseen", level="unknown", what=what, fix=fix, said=str(error))
        if answer.status == 200:
            return Observed(key="mailbox_good", level="good", what=f"there is a mailbox {address}")
        code, words = error_of(answer)
        said = safe(f"{answer.status} {code} {words}")
        if answer.status == 404:
            what = f"the tenant has no mailbox {address}"
            fix = "correct the address, or make the mailbox"
            paste = f"Get-EXOMailbox -Identity {address}"
            return Observed(key="mailbox_missing", level="bad", what=what, fix=fix, said=said, paste=paste)
        what = f"whether there is a mailbox {address} is not seen with Mail.Send alone"
        fix = "nothing, if mail goes out"
        return Observed(key="mailbox_unseen", level="unknown", what=what, fix=fix, said=said)

    async def traces(self, domain: str) -> Traces | None:
        return of_microsoft(domain, _INCLUDES.get(self.cloud, "spf.protection.outlook.com"))


def _has(granted: Sequence[str], *wanted: str) -> bool:
    """Also with ".Shared" behind it."""
    return any(one in (each, f"{each}.Shared") for one in granted for each in wanted)
