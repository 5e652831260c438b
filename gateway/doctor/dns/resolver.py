"""Questions to name servers, in the loop itself: no thread waits for strangers. The only importer of dnspython."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver

from gateway.pools import read_files

_PATIENCE = 6.0  # seconds for one question, over all name servers
_AT_ONCE = 20  # questions


class Silent(Exception):
    """No name server gave a usable answer. The text may be shown."""


@dataclass(frozen=True, slots=True)
class Found:
    """``exists`` is False where there is no such name (NXDOMAIN); ``values`` is empty where it has none of the kind."""

    exists: bool
    values: tuple[str, ...] = ()


class Resolver:
    """Asks each question once in its life, however often it comes up. ``servers``: else those of /etc/resolv.conf."""

    def __init__(self, servers: Sequence[str] = (), port: int = 53, seconds: float = _PATIENCE) -> None:
        self._servers, self._port, self._seconds = list(servers), port, seconds
        self._asked: dict[tuple[str, str], asyncio.Task[Found]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._made: asyncio.Task[dns.asyncresolver.Resolver] | None = None

    async def ask(self, name: str, kind: str) -> Found:
        """``kind`` is TXT, MX, CNAME, A or AAAA; values as in a zone file, TXT without quotes. Raises Silent."""
        key = (name.lower().rstrip("."), kind)
        if key not in self._asked:
            self._asked[key] = asyncio.create_task(self._ask(*key), name=f"dns {key[0]}")
        return await asyncio.shield(self._asked[key])

    async def texts(self, name: str) -> tuple[str, ...]:
        return (await self.ask(name, "TXT")).values

    async def addresses(self, name: str) -> tuple[str, ...]:
        """Of both families."""
        found = await asyncio.gather(self.ask(name, "A"), self.ask(name, "AAAA"))
        return tuple(value for one in found for value in one.values)

    async def aclose(self) -> None:
        for task in self._asked.values():
            task.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)

    async def _ask(self, name: str, kind: str) -> Found:
        if self._made is None:
            self._made = asyncio.create_task(self._make())
        resolver = await asyncio.shield(self._made)
        try:
            absolute = dns.name.from_text(f"{name}.")
            async with self._slots:
                answer = await resolver.resolve(absolute, kind, raise_on_no_answer=False, lifetime=self._seconds)
        except dns.resolver.NXDOMAIN:
            return Found(False)
        except dns.resolver.LifetimeTimeout:
            raise Silent(f"no name server answers for {name} within {self._seconds:g} s") from None
        except (dns.resolver.NoNameservers, dns.resolver.YXDOMAIN, OSError) as error:
            raise Silent(f"the name servers cannot tell of {name}: {_short(error)}") from None
        except dns.exception.DNSException:  # no name at all: nobody can have it
            return Found(False)
        records = answer.rrset or ()
        return Found(True, tuple(sorted(_text(record, kind) for record in records)))  # servers turn them about

    async def _make(self) -> dns.asyncresolver.Resolver:
        try:
            made = await read_files(partial(dns.asyncresolver.Resolver, configure=not self._servers))
        except dns.resolver.NoResolverConfiguration:
            raise Silent("/etc/resolv.conf names no name server") from None
        if self._servers:
            made.nameservers, made.port = list(self._servers), self._port
        made.cache = None
        return made


def _text(record: object, kind: str) -> str:
    if kind == "TXT":  # RFC 7208, 3.3: several strings are one, without spaces
        return b"".join(record.strings).decode("utf-8", "replace")  # type: ignore[attr-defined]
    return str(record.to_text()).lower()  # type: ignore[attr-defined]


def _short(error: BaseException) -> str:
    if isinstance(error, dns.resolver.NoNameservers):
        codes = {str(one[4]) for one in error.kwargs.get("errors", ())}
        return ", ".join(sorted(codes))[:200] or "SERVFAIL"
    return str(error)[:200]
