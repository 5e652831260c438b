"""What there is to know of the machine that a gateway runs on: gathered here, judged in machine.py. Blocks."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.config.models import Settings
from gateway.doctor.host import Host

_UNSYNCHRONISED = 0x40  # STA_UNSYNC of struct timex
_TIMEX = 256  # octets: more than any struct timex has
_STATUS = {4: 16, 8: 40}  # offset of its field status, by the size of a long
_NOT_SECRET = (".db-shm",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """``synchronised``: whether somebody keeps the clock right, None where that is not seen; ``clock_by`` says how it
    was asked. Bytes of the disk of ``state_dir``; ``kind`` is its filesystem. ``descriptors`` may be open, 0: any
    number. ``opened``: files with a secret that others than their owner can read. ``socket_mode`` is that of the admin
    socket, None where there is none. ``unit``: started by systemd; ``watchdog``: and watched. ``loop`` is the event
    loop that the service runs on.
    """

    synchronised: bool | None = None
    clock_by: str = ""
    state_dir: Path
    free: int = 0
    total: int = 0
    inodes: int = 1  # free ones
    kind: str = ""
    mount: str = ""
    descriptors: int = 0
    opened: tuple[str, ...] = ()
    socket: Path
    socket_mode: int | None = None
    root: bool = False
    unit: bool = False
    watchdog: bool = False
    container: bool = False
    loop: str = "asyncio"


def gather(settings: Settings, host: Host, loop: str) -> Facts:
    """``loop`` is that of the service. Raises OSError where ``state_dir`` cannot be looked at."""
    state, socket = settings.state_dir, settings.http.socket
    there = next(one for one in (state, *state.parents) if one.exists())
    disk = os.statvfs(there)
    synchronised, how = _clock(host)
    kind, mount = _filesystem(host, there.resolve())
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    mode = None
    with suppress(OSError):
        mode = stat.S_IMODE(socket.stat().st_mode)
    environ = host.environ
    return Facts(
        synchronised=synchronised,
        clock_by=how,
        state_dir=state,
        free=disk.f_bavail * disk.f_frsize,
        total=disk.f_blocks * disk.f_frsize,
        inodes=disk.f_favail if disk.f_files else 1,
        kind=kind,
        mount=mount,
        descriptors=0 if limit == resource.RLIM_INFINITY else limit,
        opened=tuple(_opened(state)),
        socket=socket,
        socket_mode=mode,
        root=os.geteuid() == 0,
        unit="INVOCATION_ID" in environ,
        watchdog="WATCHDOG_USEC" in environ,
        loop=loop,
        container=(host.root / ".dockerenv").exists() or "container" in environ,
    )


def _clock(host: Host) -> tuple[bool | None, str]:
    """The kernel's own word; where that is not to be had (a sandbox), systemd's."""
    status = _adjtimex()
    if status is not None:
        return not status & _UNSYNCHRONISED, "adjtimex"
    said = host.ask("timedatectl", "show", "--property=NTPSynchronized", "--value").strip()
    if said in ("yes", "no"):
        return said == "yes", "timedatectl"
    return (True, "systemd-timesyncd") if (host.root / "run/systemd/timesync/synchronized").exists() else (None, "")


def _adjtimex() -> int | None:
    """The field status of adjtimex(2), asked for without a change."""
    try:
        library = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
        timex = ctypes.create_string_buffer(_TIMEX)  # modes = 0: change nothing
        if library.adjtimex(timex) < 0:
            return None
        offset = _STATUS[ctypes.sizeof(ctypes.c_long)]
        return int.from_bytes(timex.raw[offset : offset + 4], "little")
    except (OSError, AttributeError, KeyError, TypeError):
        return None


def _filesystem(host: Host, path: Path) -> tuple[str, str]:
    """Kind and place of what is mounted there (proc_pid_mountinfo(5)); the last one of a place counts."""
    best, kind = "", ""
    for line in host.read("proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        place = fields[4].encode().decode("unicode_escape", "replace")
        inside = path == Path(place) or Path(place) in path.parents
        if inside and len(place) >= len(best):
            best, kind = place, right.split()[0]
    return kind, best


def _opened(state: Path) -> Iterator[str]:
    """What in the folder of the state its group or others can read. The folder itself may be passed through."""
    with suppress(OSError):
        mode = state.stat().st_mode
        if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
            yield str(state)
        for entry in sorted(os.scandir(state), key=lambda one: one.name):
            inside = entry.is_file(follow_symlinks=False) and not entry.name.endswith(_NOT_SECRET)
            if inside and mode & 0o011 and entry.stat(follow_symlinks=False).st_mode & 0o044:
                yield entry.path
