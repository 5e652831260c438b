"""Mail that came back to the mailbox: reports are found by delta queries of its Inbox and Junk, and read as MIME.

https://learn.microsoft.com/graph/api/message-delta and .../message-get (MIME content). It changes nothing there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from gateway.backends.microsoft.api import IMMUTABLE, Api, error_of, unsent
from gateway.backends.microsoft.trace import Trace
from gateway.backends.shared.base import NoAnswer, refused
from gateway.fetch import Answer
from gateway.model import Outcome, Verdict
from gateway.pools import look_through_mail
from gateway.reports import read
from gateway.returned import Look, Returned, Wanted
from gateway.strangers import lenient_json

FOLDERS = ("inbox", "junkemail")
_BEGIN = timedelta(days=5)  # as long as other servers keep trying, by default
_PAGES = 10  # in one look
_READ = 50  # reports; a page that has been begun is read to its end
_PREFER = {"prefer": 'odata.maxpagesize=50, IdType="ImmutableId"'}  # rules of the mailbox may move a report meanwhile
_LONGEST = 4000  # characters of a link that is kept
# Who writes reports: of nobody else is the mail read. Exchange's own sender has a number in its name.
_DAEMON = re.compile(
    r"\A\Z|\A(postmaster|mailer-?daemon|mail-daemon|daemon|microsoftexchange[0-9a-f]*|mdaemon|mmdf|bounces?)[+-]?[^@]*@",
    re.IGNORECASE,
)
_TITLED = re.compile(r"mail delivery|mailer.daemon|postmaster|delivery (system|subsystem|status)", re.IGNORECASE)
_LOST = ("SyncStateNotFound", "SyncStateInvalid", "resyncRequired")
_GRANT = (
    "grant the application Mail.Read for this mailbox, by RBAC for Applications in Exchange (docs/microsoft365.md, "
    "Mail that comes back): Mail.ReadBasic is not enough; or take later_bounces out of backends.{name}"
)
_SIGN_IN = "sign in again, which asks for Mail.Read: gateway auth microsoft --backend {name}"


@dataclass(frozen=True, slots=True)
class Reports:
    """The reports in one mailbox. ``path`` is where that stands in the API, ``whose`` its address or "".

    ``turn`` is that of the mailbox: no more calls at once than it is allowed, those that send among them.
    """

    source: ClassVar[str] = "report"
    api: Api
    path: str
    whose: str
    signed_in: bool
    turn: Callable[[], AbstractAsyncContextManager[None]]

    async def look(self, place: str, wanted: Wanted) -> Look:
        """Raises NoAnswer."""
        kept = _kept(place, self.path)
        found: list[Returned] = []
        others, more, left = 0, False, _Left(_PAGES, _READ)
        with unsent("mail that came back"):
            for folder in FOLDERS:
                try:
                    some, seen, ended = await self._folder(folder, kept, left)
                except _NoFolder:
                    continue
                found += some
                others += seen - len(some)
                more = more or not ended
        return Look(tuple(found), json.dumps({"of": self.path, **kept}), more, others)

    async def _folder(self, folder: str, kept: dict[str, str], left: _Left) -> tuple[list[Returned], int, bool]:
        """What came back, how much was read for that, and whether this was all of it; ``kept`` moves on."""
        found: list[Returned] = []
        seen = 0
        while left.pages > 0 and left.reports > 0:
            left.pages -= 1
            page = await self._page(folder, kept)
            value = page.get("value")
            for entry in value if isinstance(value, list) else ():
                if (name := _candidate(entry)) is None:
                    continue
                left.reports -= 1
                seen += 1
                if (one := await self._read(name)) is not None:
                    found.append(one)
            following, last = page.get("@odata.nextLink"), page.get("@odata.deltaLink")
            link = following or last
            if not isinstance(link, str) or len(link) > _LONGEST:
                raise NoAnswer(Outcome(Verdict.DEFERRED, 200, "4.3.0", "a page without a next one", said_by="http"))
            kept[folder] = link
            if not following:
                return found, seen, True
        return found, seen, False

    async def _page(self, folder: str, kept: dict[str, str]) -> Mapping[str, Any]:
        """The next page; where the server has forgotten how far we were, the first one."""
        answer = await self._get(self._link(folder, kept), _PREFER)
        if folder in kept and (answer.status == 410 or error_of(answer)[0].lower() in map(str.lower, _LOST)):
            del kept[folder]
            answer = await self._get(self._link(folder, kept), _PREFER)
        if answer.status == 404 and folder != FOLDERS[0] and "Folder" in error_of(answer)[0]:
            raise _NoFolder
        if answer.status != 200:
            raise self._refused(answer)
        return lenient_json(answer.body)

    def _link(self, folder: str, kept: Mapping[str, str]) -> str:
        """Relative to our own root whatever a link says: our token goes nowhere else."""
        if link := kept.get(folder):
            parts = urlsplit(link)
            return f"{parts.path.partition('/v1.0')[2]}?{parts.query}"
        since = f"{self.api.context.clock.now() - _BEGIN:%Y-%m-%dT%H:%M:%SZ}"
        asked = f"changeType=created&$select=id,from&$filter={quote(f'receivedDateTime ge {since}', safe='')}"
        return f"{self.path}/mailFolders/{folder}/messages/delta?{asked}"

    async def _read(self, name: str) -> Returned | None:
        """Not below mailFolders, which answers 405. A report that is long is cut off, behind what it tells."""
        path = f"{self.path}/messages/{quote(name, safe='')}/$value"
        answer = await self._get(path, {"accept": "*/*", **IMMUTABLE})
        if answer.status == 404:  # deleted meanwhile
            return None
        if answer.status != 200:
            raise self._refused(answer)
        one = await look_through_mail(lambda: read(answer.body))
        return one and Returned(one.named, one.failed, told=self.whose, subject=one.subject)

    async def _get(self, path: str, headers: Mapping[str, str]) -> Answer:
        async with self.turn():
            return await self.api.call("GET", path, headers=headers)

    def _refused(self, answer: Answer) -> NoAnswer:
        code, words = error_of(answer)
        if answer.status == 403 and "Throttl" not in code:
            fix = (_SIGN_IN if self.signed_in else _GRANT).format(name=self.api.name)
            return refused(f"HTTP 403 {code} {words}", fix)
        return NoAnswer(self.api.judge(answer))


class _NoFolder(Exception):
    """This mailbox has no such folder."""


@dataclass(slots=True)
class _Left:
    """What one look may still ask."""

    pages: int
    reports: int


def _kept(place: str, path: str) -> dict[str, str]:
    """Where each folder goes on; nothing of another mailbox, or of what cannot be read."""
    found = lenient_json(place.encode())
    links = {name: found[name] for name in FOLDERS if isinstance(found.get(name), str)}
    return links if found.get("of") == path else {}


def _candidate(entry: object) -> str | None:
    """The id of what may be a report, by who wrote it."""
    if not isinstance(entry, dict) or "@removed" in entry or not isinstance(entry.get("id"), str):
        return None
    sender = entry.get("from")
    box = sender.get("emailAddress") if isinstance(sender, dict) else None
    address, name = (str((box or {}).get(key) or "") for key in ("address", "name"))
    return str(entry["id"]) if _DAEMON.search(address) or _TITLED.search(name) else None


def returns_of(
    where: str,
    api: Api,
    path: str,
    *,
    mailbox: str,
    senders: Sequence[str],
    signed_in: bool,
    turn: Callable[[], AbstractAsyncContextManager[None]],
) -> Reports | Trace | None:
    """What looks for mail that came back, as later_bounces says; None for nothing."""
    whose = mailbox if "@" in mailbox else next((one for one in senders if "*" not in one), "")
    if where == "mailbox":
        return Reports(api, path, whose, signed_in, turn)
    return Trace(api, "" if senders or "@" not in mailbox else mailbox, signed_in) if where == "trace" else None
