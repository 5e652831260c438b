"""Mail that failed, by the message trace of Exchange Online: no mailbox is read, but all of the tenant is listed.

https://learn.microsoft.com/graph/api/resources/exchangemessagetrace: the global cloud only, 100 requests in 5 minutes
for the whole tenant, a window of 10 days.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from gateway.backends.microsoft.api import Api, error_of, unsent
from gateway.backends.shared.base import NoAnswer, refused, safe
from gateway.fetch import Answer
from gateway.reports import code_in
from gateway.returned import Failed, Look, Returned, Wanted
from gateway.strangers import lenient_json

_WINDOW = timedelta(days=3)  # Exchange gives up after one; what failed stays in the list, and is known by then
_PAGES = 5
_DETAILS = 30  # in one look: the rest of the tenant's 100 is for others
_ROOT = "/admin/exchange/tracing/messageTraces"
_FAILED = ("fail", "drop", "defer")
_LONGEST = 400
_GRANT = (
    "grant the application ExchangeMessageTrace.Read.All with admin consent (docs/microsoft365.md, Mail that comes "
    "back), or take later_bounces out of backends.{name}"
)
_SIGN_IN = "sign in again as somebody who may read traces: gateway auth microsoft --backend {name}"
_PRINCIPAL = (
    "make the service principal of the trace, then wait some hours: az ad sp create --id "
    "8bd644d1-64a1-4d4b-ae52-2e0cbf64e373"
)


@dataclass(frozen=True, slots=True)
class Trace:
    """``sender``: the one address that mail leaves from, "" where there may be several."""

    source: ClassVar[str] = "trace"
    api: Api
    sender: str
    signed_in: bool

    async def look(self, place: str, wanted: Wanted) -> Look:
        """All that failed in the window; details only of what is ours and new. Raises NoAnswer."""
        now = self.api.context.clock.now()
        which = f"receivedDateTime ge {now - _WINDOW:%Y-%m-%dT%H:%M:%SZ}"
        which += f" and receivedDateTime le {now:%Y-%m-%dT%H:%M:%SZ} and status eq 'failed'"
        if self.sender:
            which += f" and senderAddress eq '{self.sender.replace(chr(39), chr(39) * 2)}'"
        path: str | None = f"{_ROOT}?$filter={quote(which, safe='')}&$top=1000"
        found: list[Returned] = []
        pages = asked = 0
        with unsent("message trace"):
            while path and pages < _PAGES:
                pages += 1
                body = lenient_json((await self._get(path)).body)
                for ident, row, one in _rows(body.get("value")):
                    if not await wanted(one):
                        continue
                    if asked == _DETAILS:
                        return Look(tuple(found), "", more=True)
                    asked += 1
                    found.append(await self._why(ident, row, one))
                path = _following(body.get("@odata.nextLink"))
        return Look(tuple(found), "", more=path is not None)

    async def _why(self, ident: str, row: dict[str, Any], one: Returned) -> Returned:
        """With the reason, as far as the trace has one."""
        address = str(row["recipientAddress"]).replace("'", "''")
        path = f"{_ROOT}/{quote(ident, safe='')}/getDetailsByRecipient(recipientAddress='{quote(address, safe='@')}')"
        rows = lenient_json((await self._get(path)).body).get("value")
        details = [each for each in rows if isinstance(each, dict)] if isinstance(rows, list) else []
        told = [each for each in details if str(each.get("event") or "").lower().startswith(_FAILED)]
        said = " ".join(str((told or details or [{}])[-1].get(name) or "") for name in ("description", "data")).strip()
        failed = Failed(one.failed[0].addresses, code_in(said), safe(said)[:_LONGEST])
        return Returned(one.named, (failed,), told=one.told, subject=one.subject)

    async def _get(self, path: str) -> Answer:
        answer = await self.api.call("GET", path)
        if answer.status == 200:
            return answer
        code, words = error_of(answer)
        said = f"HTTP {answer.status} {code} {words}"
        if answer.status == 401 and "principal-less" in words:
            raise refused(said, _PRINCIPAL)
        if answer.status == 403 and "Throttl" not in code:
            raise refused(said, (_SIGN_IN if self.signed_in else _GRANT).format(name=self.api.name))
        raise NoAnswer(self.api.judge(answer))


def _rows(value: object) -> Iterator[tuple[str, dict[str, Any], Returned]]:
    for row in value if isinstance(value, list) else ():
        if not isinstance(row, dict) or str(row.get("status") or "").lower() != "failed":
            continue
        ident, name, whom = (row.get(key) for key in ("id", "messageId", "recipientAddress"))
        if all(isinstance(each, str) and each for each in (ident, name, whom)):
            told = str(row.get("senderAddress") or "")
            one = Returned((str(name),), (Failed((str(whom),)),), told=told, subject=str(row.get("subject") or ""))
            yield str(ident), row, one


def _following(link: object) -> str | None:
    """Relative to our own root: our token goes nowhere else."""
    if not isinstance(link, str) or not link:
        return None
    parts = urlsplit(link)
    return f"{parts.path.partition('/v1.0')[2]}?{parts.query}"
