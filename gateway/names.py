"""From a host's name to a connection. Look-ups have threads of their own, so that a name server that hangs delays
nobody but those who need that name."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

from aiohappyeyeballs import start_connection

PATIENCE = 20.0  # seconds that one who asks waits for an answer
_NEXT = 0.25  # seconds until the next address is tried beside one that is silent (RFC 8305, section 5)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a host can be reached: ``host`` is numeric, with the interface where it is one of a link (fe80::1%2)."""

    family: socket.AddressFamily
    host: str


def in_words(error: BaseException) -> str:
    """What kept a connection from coming about, as the system calls it: asyncio puts words of its own in its place."""
    number = getattr(error, "errno", None)
    if number and number > 0 and isinstance(error, OSError) and not isinstance(error, socket.gaierror):
        return os.strerror(number)
    return getattr(error, "strerror", None) or str(error)


Resolve = Callable[[str], Sequence[Address]]
_Found = tuple[Address, ...] | socket.gaierror


def ask_system(host: str) -> list[Address]:
    """What this machine knows or finds out about ``host``, best first. Blocks; raises OSError and UnicodeError.

    Only families that this machine has an address of (AI_ADDRCONFIG: RFC 3493, section 6.1).
    """
    found = []
    for family, *_, place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG):
        link = f"%{place[3]}" if len(place) == 4 and place[3] else ""
        found.append(Address(family, f"{place[0]}{link}"))
    return found


class Names:
    """Looks names up for one event loop: one thread for each name being asked about, however many wait for it. At most
    as many as there are hosts in the settings: with fewer, names that hang would delay others.

    Nothing is remembered once it has been answered. The threads never hold up the end of the process.
    """

    def __init__(self, resolve: Resolve = ask_system) -> None:
        self._resolve = resolve
        self._asked: dict[str, asyncio.Future[_Found]] = {}

    async def find(self, host: str, *, seconds: float = PATIENCE) -> tuple[Address, ...]:
        """The addresses of ``host``, best first. Raises socket.gaierror, its ``strerror`` is for the operator."""
        with suppress(ValueError):
            family = socket.AF_INET if ip_address(host).version == 4 else socket.AF_INET6
            return (Address(family, host),)
        if (answer := self._asked.get(host)) is None:
            answer = self._asked[host] = asyncio.get_running_loop().create_future()
            self._ask(host)
        await asyncio.wait((answer,), timeout=seconds)  # whoever waits may leave, the answer is for everybody
        if not answer.done():
            text = f"the name server gave no answer for {host} within {seconds:g} s; see /etc/resolv.conf"
            raise socket.gaierror(socket.EAI_AGAIN, text)
        found = answer.result()
        if isinstance(found, socket.gaierror):
            raise socket.gaierror(*found.args)  # one of its own for everybody: tracebacks grow with each raise
        return found

    async def connect(self, host: str, port: int, *, seconds: float) -> socket.socket:
        """A connection within ``seconds``, name and all. Raises as ``find`` does, and OSError: with its ``errno`` where
        all addresses failed of the same.

        An address that is silent is not waited for: the next is tried beside it (RFC 8305, "happy eyeballs").
        """
        ends = asyncio.get_running_loop().time() + seconds
        found = await self.find(host, seconds=min(PATIENCE, seconds))
        # The protocol is named because asyncio switches Nagle's algorithm off only where it is.
        places = [(one.family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (one.host, port)) for one in found]
        try:
            async with asyncio.timeout_at(ends):
                return await start_connection(places, happy_eyeballs_delay=_NEXT)
        except TimeoutError:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None

    def _ask(self, host: str) -> None:
        work = partial(self._look_up, host, asyncio.get_running_loop())
        try:
            threading.Thread(target=work, name=f"name {host}", daemon=True).start()
        except RuntimeError as error:  # the system has no thread for us
            self._answered(host, socket.gaierror(socket.EAI_AGAIN, f"cannot find {host}: {error}"))

    def _look_up(self, host: str, loop: asyncio.AbstractEventLoop) -> None:
        found: _Found
        try:
            found = tuple(self._resolve(host)) or socket.gaierror(socket.EAI_NONAME, f"cannot find {host}: no address")
        except Exception as error:  # whatever it is, somebody waits for an answer
            code = error.errno if isinstance(error, socket.gaierror) else socket.EAI_FAIL
            why = "not a host name" if isinstance(error, UnicodeError) else getattr(error, "strerror", None) or error
            found = socket.gaierror(code, f"cannot find {host}: {why}")
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(self._answered, host, found)

    def _answered(self, host: str, found: _Found) -> None:
        self._asked.pop(host).set_result(found)
