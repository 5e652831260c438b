"""Why an address cannot be listened at: whose it is, and what to do about it."""

from __future__ import annotations

import errno
import os
import pwd
import socket
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"
_REASONS = {
    errno.EADDRNOTAVAIL: "no interface of this machine has that address (ip address shows them), or has it not yet",
    errno.EAFNOSUPPORT: "this machine does not speak that kind of IP",
}


class BindError(OSError):
    """An address or socket file that cannot be had. The text is for the operator and names the setting."""


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
