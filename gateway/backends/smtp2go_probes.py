"""What SMTP2GO tells of an account beyond the key's permissions: verified domains and addresses, and their records.

https://developers.smtp2go.com/reference/view-all-sender-domains and .../view-all-single-sender-emails
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.address import a_labels, comparable
from gateway.backends.shared.base import NoAnswer, safe
from gateway.backends.shared.probe import Observed, Probes, Traces, of_smtp2go
from gateway.fetch import Answer
from gateway.strangers import lenient_json

_DOMAINS, _SINGLE = "/domain/view", "/single_sender_emails/view"
_NEEDED = "/email/mime"
_KEYS = "app.smtp2go.com > Sending > API Keys > Permissions"
_VERIFY = "app.smtp2go.com > Sending > Verified Senders: add it, then follow the link or add the records"


@dataclass(frozen=True, kw_only=True)
class Smtp2goProbes(Probes):
    """``post`` asks the API and raises NoAnswer."""

    post: Callable[[str, bytes], Awaitable[Answer]]

    async def permissions(self, largest: int) -> Sequence[Observed]:
        listed = await self._list("/api_keys/permissions", "")
        if listed is None:
            return ()  # the check tells of that
        allowed = [str(one) for one in listed]
        if not any(_NEEDED in one for one in allowed):
            return ()
        found = [Observed(key="permission_good", level="good", what=f"the key may use {_NEEDED}")]
        spare = [one for one in allowed if not any(each in one for each in (_NEEDED, _DOMAINS, _SINGLE, "permissions"))]
        if spare:
            what = f"the key may use {len(spare)} endpoints more than are needed: {safe(', '.join(spare[:6]))}"
            fix = f"{_KEYS}: leave {_NEEDED}, and {_DOMAINS} and {_SINGLE} for the doctor"
            found.append(Observed(key="permission_excess", level="note", what=what, fix=fix))
        return found

    async def may_send_as(self, addresses: Sequence[str]) -> Sequence[Observed]:
        domains, single = await self._domains(), await self._list(_SINGLE, "senders")
        if domains is None and single is None:
            what = "which senders are verified is not told to this key"
            fix = f"{_KEYS}: let it use these two as well, or look at Sending > Verified Senders"
            return [Observed(key="sender_unseen", level="unknown", what=what, fix=fix, paste=f"{_DOMAINS}\n{_SINGLE}")]
        whole = {
            name for name, one in (domains or {}).items() if one.get("dkim_verified") and one.get("rpath_verified")
        }
        rows = [one for one in single or () if isinstance(one, dict)]
        alone = {comparable(str(one.get("email_address"))) for one in rows if one.get("verified")}
        return [self._verified(one, whole, alone, all_seen=None not in (domains, single)) for one in addresses]

    def _verified(self, address: str, domains: set[str], alone: set[str], *, all_seen: bool) -> Observed:
        domain = a_labels(address.rpartition("@")[2])
        if domain in domains or comparable(address) in alone:
            what = f"SMTP2GO has verified {domain if domain in domains else address}"
            return Observed(key="sender_good", level="good", what=what)
        shown = domain if address.startswith("anybody@") else address
        if not all_seen:
            what, fix = f"whether SMTP2GO has verified {shown} is only half seen by this key", f"{_KEYS}: allow both"
            return Observed(key="sender_unseen", level="unknown", what=what, fix=fix, paste=f"{_DOMAINS}\n{_SINGLE}")
        what = f"SMTP2GO has not verified {shown}: mail from it is refused"
        return Observed(key="sender_unverified", level="bad", what=what, fix=_VERIFY)

    async def traces(self, domain: str) -> Traces | None:
        known = await self._domains()
        if known is None or domain not in known:
            return of_smtp2go(domain)
        one = known[domain]
        return of_smtp2go(domain, _label(one.get("rpath_selector")), _label(one.get("dkim_selector")))

    async def _domains(self) -> dict[str, Mapping[str, Any]] | None:
        """By name; None where the key may not look."""
        listed = await self._list(_DOMAINS, "domains")
        if listed is None:
            return None
        inner = [one.get("domain") for one in listed if isinstance(one, dict)]
        return {a_labels(str(one.get("fulldomain") or "")): one for one in inner if isinstance(one, dict)}

    async def _list(self, path: str, name: str) -> list[Any] | None:
        """``data``, or what stands in it under ``name``; None where there is no usable answer."""
        try:
            answer = await self.post(path, b"{}")
        except NoAnswer:
            return None
        data = lenient_json(answer.body).get("data") if answer.status == 200 else None
        found = data.get(name) if name and isinstance(data, dict) else data
        return found if isinstance(found, list) else None


def _label(text: object) -> str:
    """A name of the DNS, from a stranger."""
    return text if isinstance(text, str) and text.replace("-", "").replace("_", "").isalnum() else ""
