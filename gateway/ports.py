"""Listening at an address, also where another socket of ours is at that port; and why it cannot be had, whose it is."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"
_REASONS = {
    errno.EADDRNOTAVAIL: "no interface of this machine has that address (ip address shows them), or has it not yet",
    errno.EAFNOSUPPORT: "this machine does not speak that kind of IP",
}


class BindError(OSError):
    """An address or socket file that cannot be had. The text is for the operator and names the setting."""


async def listen(
    setting: str, bind: str, address: tuple[str, int], backlog: int, held: Collection[socket.socket] = ()
) -> list[socket.socket]:
    """Sockets that listen at every address of a host and port; ``bind`` is that as it was written. Raises BindError.

    ``held`` are sockets that will be given up if all goes well: one that listens at the very address goes on under a
    second descriptor, with who waits in its queue, and none of them stands in the way of another address.
    """
    made: list[socket.socket] = []
    try:
        kind, passive = socket.SOCK_STREAM, socket.AI_PASSIVE
        found = await asyncio.get_running_loop().getaddrinfo(*address, type=kind, flags=passive)
        places = list(dict.fromkeys((family, place) for family, _, _, _, place in found))
        for family, place in places:
            try:
                made.append(_listen(family, place, backlog, held))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) or (
                    (family, place) == places[-1] and not made
                ):
                    raise  # else the name has another address that this machine has
    except OSError as error:
        for one in made:
            one.close()
        raise cannot_listen(setting, bind, error) from None
    return made


def _listen(family: int, place: tuple[object, ...], backlog: int, held: Collection[socket.socket]) -> socket.socket:
    port = place[1]
    there = [one for one in held if one.family == family and one.fileno() >= 0]  # some may be closed by now
    same_port = [one for one in there if port and one.getsockname()[1] == port]
    if same := next((one for one in same_port if one.getsockname() == place), None):
        return same.dup()
    try:
        return _bound(family, place, backlog)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not same_port:
            raise
    with _shared(same_port):
        return _bound(family, place, backlog, shared=True)


def _bound(family: int, place: tuple[object, ...], backlog: int, *, shared: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of before do not matter
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            with _shared([sock]):
                sock.bind(place)
                sock.listen(backlog)
        else:
            sock.bind(place)
            sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


@contextmanager
def _shared(sockets: Collection[socket.socket]) -> Iterator[None]:
    """For a moment another of our sockets may have the same port (socket(7), SO_REUSEPORT); later nobody's may."""
    for one in sockets:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        yield
    finally:
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


def cannot_listen(setting: str, bind: str, error: OSError) -> BindError:
    """What to say of it. ``setting`` is the dotted name that holds ``bind``, an address and port."""
    port = int(bind.rpartition(":")[2])
    if isinstance(error, socket.gaierror):
        why = f"the name cannot be looked up ({error.strerror}): write the address"
    elif error.errno == errno.EADDRINUSE:
        why = f"port {port} is taken by {holder(port) or f'another program (ss -ltnp sport = :{port})'}: stop that"
        why += ", or write another port"
    elif error.errno in (errno.EACCES, errno.EPERM) and port < 1024:
        why = f"port {port} is below 1024: give the service AmbientCapabilities=CAP_NET_BIND_SERVICE (systemd),"
        why += " or write a port from 1024 on"
    else:
        why = _REASONS.get(error.errno or 0, str(error))
    return BindError(f"cannot listen on {setting} {bind}: {why}")


def holder(port: int) -> str:
    """Who listens at a TCP port of this machine: the program, or its user where no more can be seen; else "". Linux."""
    found = [fields for name in ("tcp", "tcp6") for fields in _sockets(name) if _listens(fields, port)]
    for fields in found:
        with suppress(OSError):
            for file in _PROC.glob("[0-9]*/fd/*"):
                with suppress(OSError):  # a process that has ended, or is not ours to look into
                    if str(file.readlink()) == f"socket:[{fields[9]}]":
                        pid = int(file.parts[2])
                        if pid == os.getpid():
                            return "this gateway itself, for another listener or http"
                        return f"{(file.parents[1] / 'comm').read_text().strip()} (process {pid})"
    for fields in found:
        with suppress(KeyError):
            return f"a program of user {pwd.getpwuid(int(fields[7])).pw_name}"
    return ""


def _sockets(name: str) -> list[list[str]]:
    try:
        return [line.split() for line in (_PROC / "net" / name).read_text().splitlines()[1:]]
    except OSError:
        return []


def _listens(fields: list[str], port: int) -> bool:
    return len(fields) > 9 and fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port
