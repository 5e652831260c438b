"""What can be found out about a backend beyond its check, without sending: permissions, senders, traces in the DNS.

Asked by the doctor alone. What a provider does not tell is said to be unseen, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

Level = Literal["bad", "warn", "unknown", "note", "good"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A finding about one backend (gateway.doctor.finding.Finding), whose keys it has."""

    key: str
    level: Level
    what: str
    fix: str = ""
    said: str = ""
    paste: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """How a receiver tells that mail from a domain came by this backend in order.

    ``spf``: the part that its SPF record needs, "" where SPF is not looked up there (``below`` then says where) or not
    known. ``addresses``: a server that has no such part sends from these, as far as one can see from outside.
    ``selectors`` are where the key stands, of which one is enough; () where that is not known. ``records`` are names
    below the domain that must be aliases of others. ``dkim_fix`` and ``dkim_paste`` say how the key is published.
    """

    provider: str
    spf: str = ""
    addresses: tuple[str, ...] = ()
    below: bool = False
    selectors: tuple[str, ...] = ()
    records: Mapping[str, str] = field(default_factory=dict)
    dkim_fix: str = ""
    dkim_paste: str = ""


@dataclass(frozen=True)
class Probes:
    """Nothing is known. Providers' own replace what can be asked there.

    ``urls`` are where HTTPS goes; connections to them are looked at.
    """

    urls: tuple[str, ...] = ()

    async def permissions(self, largest: int) -> Sequence[Observed]:
        """Whether what the settings need is granted. ``largest``: bytes of a message that clients may hand in."""
        return ()

    async def may_send_as(self, addresses: Sequence[str]) -> Sequence[Observed]:
        """Whether the provider lets us send as each of these."""
        return ()

    async def traces(self, domain: str) -> Traces | None:
        """None where nothing is known of how it sends."""
        return None


@runtime_checkable
class Probed(Protocol):
    """A backend of which more can be found out."""

    def probes(self) -> Probes: ...


MICROSOFT = "Microsoft 365"
GOOGLE = "Google"


def of_microsoft(domain: str, include: str = "spf.protection.outlook.com") -> Traces:
    """https://learn.microsoft.com/defender-office-365/email-authentication-spf-configure and ...-dkim-configure: the
    aliases hold the tenant's name and another part that only Exchange tells."""
    return Traces(
        provider=MICROSOFT,
        spf=f"include:{include}",
        selectors=("selector1", "selector2"),
        dkim_fix="ask Exchange Online PowerShell for the two aliases, add them, then switch signing on: "
        "security.microsoft.com > Email authentication settings > DKIM",
        dkim_paste=f"Get-DkimSigningConfig -Identity {domain} | Format-List Selector1CNAME, Selector2CNAME\n"
        f"Set-DkimSigningConfig -Identity {domain} -Enabled $true",
    )


def of_google(domain: str) -> Traces:
    """https://support.google.com/a/answer/33786 and /174124: "google" is the selector unless another was chosen."""
    return Traces(
        provider=GOOGLE,
        spf="include:_spf.google.com",
        selectors=("google",),
        dkim_fix="admin.google.com > Apps > Google Workspace > Gmail > Authenticate email shows the record: add it,"
        " press Start authentication there (it has another name if you chose another prefix)",
        dkim_paste=f'google._domainkey.{domain}. IN TXT "v=DKIM1; k=rsa; p=..."',
    )


SMTP2GO_FIX = "app.smtp2go.com > Sending > Verified Senders > Sender domains shows the records"


def of_smtp2go(domain: str, return_path: str = "", selector: str = "") -> Traces:
    """Its return path stands below the domain, so the domain's own SPF record need not name it
    (https://support.smtp2go.com/hc/en-gb/articles/28543815517209); the names have a number of the account's."""
    records = {f"{return_path}.{domain}": "return.smtp2go.net"} if return_path else {}
    paste = "".join(f"{name}. IN CNAME {target}.\n" for name, target in records.items())
    paste += f"{selector}._domainkey.{domain}. IN CNAME dkim.smtp2go.net.\n" if selector else ""
    return Traces(
        provider="SMTP2GO",
        below=True,
        selectors=(selector,) if selector else (),
        records=records,
        dkim_fix=SMTP2GO_FIX,
        dkim_paste=paste.strip(),
    )
