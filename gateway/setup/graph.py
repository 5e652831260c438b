"""Microsoft Graph on behalf of the administrator who has signed in, in the calls that the set-up needs.

learn.microsoft.com/graph/api/application-post-applications, serviceprincipal-post-serviceprincipals,
rbacapplication-post-roleassignments (the Exchange provider, beta), serviceprincipal-post-approleassignments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from gateway.clock import Clock
from gateway.fetch import Answer, Fetch, Lost, NotSent
from gateway.strangers import lenient_json
from gateway.visible import visible

ROOT = "https://graph.microsoft.com"
_DEADLINE = 30.0
_TRIES = 5  # at an answer that may be another the next time
_FIRST = 2.0  # seconds before the second try, then twice as many
_LAG = 300.0  # seconds in which Exchange hears of a service principal that was just made
_SAID = 400  # characters


class Refused(Exception):
    """Microsoft's answer to one call, in its words; ``status`` 0 is none."""

    def __init__(self, what: str, status: int, code: str, words: str) -> None:
        super().__init__(f"{what}: " + (f"HTTP {status} {code}: {words}" if status else words))
        self.status = status
        self.code = code
        self.words = words


@dataclass(slots=True)
class Graph:
    """``token`` is held in memory only. ``root`` is another one in national clouds and tests."""

    fetch: Fetch
    clock: Clock
    token: str = field(repr=False)
    root: str = ROOT

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """Raises Refused."""
        return await self.call("GET", f"{path}?{urlencode(query, quote_via=quote)}" if query else path)

    async def every(self, path: str, **query: str) -> list[dict[str, Any]]:
        """All pages of a list. Raises Refused."""
        page = await self.get(path, **query)
        found = list(page.get("value", ()))
        while (link := page.get("@odata.nextLink", "")) and str(link).startswith(f"{self.root}/"):
            page = await self.call("GET", str(link).removeprefix(self.root))
            found += page.get("value", ())
        return found

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Once more where Microsoft is busy, or for what changes nothing no answer came. Raises Refused."""
        what = f"{method} {path.partition('?')[0]}"
        pause = _FIRST
        for left in reversed(range(_TRIES)):
            try:
                answer = await self._once(method, path, body)
            except (NotSent, Lost) as error:
                if not left or (isinstance(error, Lost) and method == "POST"):
                    raise Refused(what, 0, "", str(error)) from None
            else:
                if answer.status < 300:
                    return lenient_json(answer.body)
                if method == "POST" and answer.status in (502, 504):  # as a lost answer: it may have been done
                    raise Refused(what, 0, "", f"HTTP {answer.status} of a server in between")
                if not left or (answer.status not in (429, 502, 503, 504)):
                    raise _refused(what, answer)
            await self.clock.sleep(pause)
            pause *= 2
        raise AssertionError

    async def lagging(self, method: str, path: str, body: Mapping[str, Any], words: tuple[str, ...]) -> dict[str, Any]:
        """As ``call``; 400 or 404 with one of ``words``: its servers do not all know yet what was just made."""
        began, pause = self.clock.monotonic(), _FIRST
        while True:
            try:
                return await self.call(method, path, body)
            except Refused as error:
                late = error.status in (400, 404) and any(word in error.words.lower() for word in words)
                if not late or self.clock.monotonic() - began + pause > _LAG:
                    raise
            await self.clock.sleep(pause)
            pause = min(pause * 2, 60.0)

    async def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
        headers = {"authorization": f"Bearer {self.token}", "accept": "application/json"}
        content = None
        if body is not None:
            headers["content-type"] = "application/json"
            content = json.dumps(body).encode()
        return await self.fetch.request(method, self.root + path, headers=headers, content=content, deadline=_DEADLINE)


def _refused(what: str, answer: Answer) -> Refused:
    error = lenient_json(answer.body).get("error")
    found: Mapping[str, Any] = error if isinstance(error, dict) else {}
    code, words = str(found.get("code") or "without a code"), str(found.get("message") or "without words")
    return Refused(what, answer.status, visible(code)[:100], visible(words)[:_SAID])
