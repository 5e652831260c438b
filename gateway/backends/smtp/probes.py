"""What an upstream server tells of itself in reply to EHLO, and how mail that it passes on is known."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from socket import gaierror

from gateway.backends.shared.base import NoAnswer
from gateway.backends.shared.probe import Observed, Probes, Traces, of_google, of_microsoft, of_smtp2go
from gateway.backends.smtp.connection import Connection
from gateway.config.values import format_size
from gateway.names import Names

# Servers of providers that are known by their names.
_KNOWN: tuple[tuple[str, Callable[[str], Traces]], ...] = (
    (r"(^|\.)(office365|outlook)\.com$", of_microsoft),
    (r"^smtp(-relay)?\.(gmail|google)\.com$", of_google),
    (r"^mail(-\w+)?\.smtp2go\.com$", of_smtp2go),
)
# Extension -> what is missed without it (RFC 6531, RFC 3461, RFC 6152).
_MISSED = {
    "smtputf8": "mail to or from addresses with letters beyond ASCII is refused",
    "dsn": "it tells no sender of the delivery where he asks for that",
    "8bitmime": "mail with 8-bit text is recoded before it goes out",
}


@dataclass(frozen=True, kw_only=True)
class SmtpProbes(Probes):
    """``open`` makes a connection that is ready for mail, and raises NoAnswer."""

    name: str
    host: str
    tls: str
    max_size: int | None
    open: Callable[[], Awaitable[Connection]]
    names: Names

    async def permissions(self, largest: int) -> Sequence[Observed]:
        try:
            connection = await self.open()
        except NoAnswer:
            return ()  # the check tells of that
        offered = {name.lower(): text for name, text in connection.client.esmtp_extensions.items()}
        connection.bid_farewell()
        found = [*self._size(offered.get("size", ""), min(largest, self.max_size or largest))]
        lacking = [f"{name.upper()}: {what}" for name, what in _MISSED.items() if name not in offered]
        if lacking:
            what = f"{self.host} lacks {'; '.join(lacking)}"
            fix = "nothing, if you can do without"
            found.append(Observed(key="upstream_extensions", level="note", what=what, fix=fix))
        if self.tls == "none" and "starttls" in offered:
            what = f"{self.host} offers TLS, and mail goes there in the clear"
            paste = f"backends.{self.name}.tls: starttls"
            found.append(Observed(key="upstream_extensions", level="warn", what=what, fix="use it", paste=paste))
        return found

    def _size(self, size: str, largest: int) -> Sequence[Observed]:
        """RFC 1870, 4: 0 or nothing means that no limit is told."""
        limit = int(size) if size.isdigit() else 0
        if not 0 < limit < largest:
            return ()
        what = f"{self.host} takes at most {format_size(limit)}, and {format_size(largest)} is accepted here"
        fix = "tell clients at once, in place of a bounce later"
        paste = f"backends.{self.name}.max_size: {format_size(limit)}"
        return [Observed(key="upstream_size", level="warn", what=what, fix=fix, paste=paste)]

    async def traces(self, domain: str) -> Traces | None:
        """Of other servers only the address is known at which they take mail."""
        for pattern, known in _KNOWN:
            if re.search(pattern, self.host.lower().rstrip(".")):
                return known(domain)
        try:
            found = await self.names.find(self.host, seconds=5)
        except gaierror:
            return None
        return Traces(provider=self.host, addresses=tuple(one.host for one in found))
