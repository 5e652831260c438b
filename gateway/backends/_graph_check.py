"""``backend check`` of Microsoft Graph: a token, what it permits as far as it says so, and whether the API answers."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

from gateway.backends._base import safe
from gateway.backends._graph_api import Api, error_of
from gateway.backends._http import read_json
from gateway.backends._microsoft import Identity, signed_in_as
from gateway.backends._oauth import NoToken, TokenCache
from gateway.model import Check, Outcome

if TYPE_CHECKING:
    from gateway.backends.graph import GraphSettings

_RBAC = "none in the token; with RBAC for Applications they stand in Exchange: Test-ServicePrincipalAuthorization"


async def check(
    settings: GraphSettings, identity: Identity, root: str, tokens: TokenCache, api: Api, path: str
) -> Check:
    """Sends nothing. ``path`` is what to ask the API for; with Mail.Send alone the answer is 403, and will do."""
    facts = {
        "api": root,
        "authority": identity.authority,
        "cloud": settings.cloud,
        "tenant": settings.tenant,
        "client_id": settings.client_id,
        "mailbox": settings.mailbox,
    }
    facts = {name: value for name, value in facts.items() if value}
    if identity.store:
        facts["signed in"] = await asyncio.to_thread(signed_in_as, identity.store) or "nobody"
    tokens.forget_failure()
    try:
        token = await tokens.get()
    except NoToken as error:
        return Check(False, str(error), error.fix, facts)
    claims = _claims(token)
    granted = [*(claims.get("roles") or []), *str(claims.get("scp") or "").split()]
    facts["permissions"] = " ".join(granted) or _RBAC
    facts["look-up after a lost answer"] = _has(granted, "Mail.Read") or "not possible without Mail.Read"
    answer = await api.call("GET", path)
    if isinstance(answer, Outcome):
        return Check(False, answer.detail, "check api_base and the way there", facts)
    if answer.status not in (200, 403, 429) or not read_json(answer.body):
        code, words = error_of(answer)
        fix = "check cloud, tenant and api_base" if answer.status == 401 else "check mailbox, cloud and api_base"
        fix = "try again" if answer.status >= 500 else fix
        return Check(False, safe(f"HTTP {answer.status} {code} {words}"), fix, facts)
    delegated = bool(claims.get("scp"))
    for needed in ("Mail.Send", *(("Mail.ReadWrite",) if settings.drafts else ())):
        # An application may have it by RBAC in Exchange, of which the token knows nothing.
        if granted and not _has(granted, needed):
            why = "" if needed == "Mail.Send" else ", which safe_send and large_messages need"
            fix = f"grant {needed}{why}, unless RBAC for Applications does (docs/microsoft365.md)"
            return Check(not delegated, f"the token does not name {needed}", fix, facts)
    return Check(True, "a token was given and the API answers", facts=facts)


def _has(granted: list[str], wanted: str) -> str:
    return next((one for one in granted if one.startswith(wanted)), "")


def _claims(token: str) -> dict[str, Any]:
    """For show only: Microsoft may change or encrypt its tokens whenever it likes."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, IndexError):
        return {}
    return claims if isinstance(claims, dict) else {}
