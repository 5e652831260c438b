"""Which service a command means, whether it runs, and what to type where it cannot be had. Light: every command asks.

A command makes no state: only ``serve`` and ``demo`` do. So what is not there is said, never made.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shlex
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from gateway.cli.errors import TYPED, BadConfig, Failed, NoService, Starting
from gateway.config import ConfigError, locate

_SPOOL, _LOCK = "spool.db", "spool.lock"  # as gateway.spool has them, which is not loaded for that


@dataclass(frozen=True, slots=True)
class Meant:
    """The service of settings ``file`` (None: there are none); where it may listen, and where its state is."""

    sockets: tuple[Path, ...]
    file: Path | None = None
    named: bool = False  # by --config or $GATEWAY_CONFIG
    state: Path | None = None  # None: the settings leave a doubt
    unit: str = ""  # of systemd; "" where none is seen
    guessed: bool = False  # the state depends on whose command it is
    database: bool = False  # its queue is in one, and no command opens that beside its instances

    @property
    def name(self) -> str:
        return f"the service {self.unit}" if self.unit else "the service"

    @property
    def readable(self) -> bool:
        """Whether the settings can be read from here."""
        return self.file is None or os.access(self.file, os.R_OK)

    @property
    def owner(self) -> int | None:
        """The user id that its state belongs to; None where there is none, or it is out of sight."""
        with suppress(OSError):
            return self.state.stat().st_uid if self.state else None
        return None

    @property
    def foreign(self) -> bool:
        """Whether it is another user's, so that what this one makes in its state would be in its way."""
        return self.owner not in (None, os.geteuid())

    @property
    def has_spool(self) -> bool:
        with suppress(OSError):
            return self.state is not None and not self.database and (self.state / _SPOOL).exists()
        return False

    def listening(self) -> Path | None:
        """The first of its sockets that somebody listens at. Raises Failed where this user may not use it."""
        for path in self.sockets:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.setblocking(False)  # where as many wait as can, it says EAGAIN and does not wait too
                try:
                    error = probe.connect_ex(bytes(path))
                except OSError:
                    continue  # longer than the path of a socket can be
            if error in (errno.EACCES, errno.EPERM):
                raise Failed(f"{_closed(path)}\n{self._to_type(path)}")
            if error in (0, errno.EAGAIN):
                return path
        return None

    def start(self) -> str:
        """What starts it."""
        if self.unit:
            return f"{_sudo()}systemctl start {self.unit}"
        return _as_user(self.owner, f"gateway serve{self._config()}")

    def refuse_root(self) -> None:
        """Raises Failed where a service that root runs by hand would make files that its own user could not use."""
        if os.geteuid() == 0 and self.foreign and self.has_spool:
            raise Failed(f"{self.state} belongs to user {user(self.owner)}, not to root; start it with: {self.start()}")

    def deaf(self) -> int:
        """The process of a service that has its spool and does not listen yet, or no more; 0 for none. Linux.

        The lock is only looked at: who took it for a moment would be in the way of a service that starts.
        """
        with suppress(OSError):
            inode = (self.state / _LOCK).stat().st_ino if self.state else 0
            for line in Path("/proc/locks").read_text().splitlines():
                _, kind, _, _, pid, file, *_ = line.split()
                if kind == "FLOCK" and file.endswith(f":{inode}") and _serves(pid):
                    return int(pid)
        return 0

    def absent(self, *, offline: bool = True) -> Failed:
        """Nobody listens. ``offline``: what was asked for can be done without a service, too."""
        where = " or ".join(map(str, self.sockets)) or "a place that the settings leave in doubt"
        if self.file is not None and self.named and not os.path.lexists(self.file):
            return BadConfig(f"there is no {self.file}; --config or $GATEWAY_CONFIG names it")
        if pid := self.deaf():
            more = f"\nIf it stays so: {_sudo()}journalctl -u {self.unit} -n 20" if self.unit else ""
            text = f"{self.name} is starting, or stopping (process {pid}): nothing listens at {where}"
            return Starting(f"{text}; try again in a moment{more}")
        lines = [f"no service is running at {where}; start it with: {self.start()}"]
        if not self.readable:
            lines.append(f"{user()} may not read {self.file}, which may say another place. Type: {self.again('sudo ')}")
        elif offline and self.foreign and self.has_spool:
            lines.append(f"To do this while it stands still: {_as_user(self.owner, self.again())}")
        elif self.database:
            lines.append(
                "Its queue is in a database: ask where another instance runs. What is there: gateway spool info"
            )
        elif not self.has_spool and self.state:
            lines.append(f"There is no spool in {self.state} yet: the service makes it when it starts.")
        if self.guessed:
            lines.append(f"{self.file} names no state_dir, so it depends on who asks. Write state_dir: /... into it.")
        if self.unit:
            lines.append(f"Why it does not run: {_sudo()}journalctl -u {self.unit} -n 20")
        elif not self.foreign and self.readable:
            lines.append("One that started before state_dir or http.socket was changed may still run: then restart it.")
        return NoService("\n".join(lines))

    def again(self, before: str = "") -> str:
        """This command as it was typed, so that it can be pasted; without a token that was given to it."""
        context = click.get_current_context(silent=True)
        path = context.command_path if context else "gateway"
        given = context.find_root().meta.get(TYPED) if context else None
        if given is None or path.endswith("token inspect"):
            return f"{before}{path}{self._config()}"
        named = any(one.partition("=")[0] == "--config" for one in given)
        return f"{before}{shlex.join(['gateway', *given])}{'' if named else self._config()}"

    def as_root(self) -> str:
        """This command by root; but what runs the service is its unit, if it has one."""
        context = click.get_current_context(silent=True)
        serves = context is not None and context.info_name == "serve"
        return self.start() if serves and self.unit else self.again("sudo ")

    def _config(self) -> str:
        return f" --config {shlex.quote(str(self.file))}" if self.named else ""

    def _to_type(self, path: Path) -> str:
        text = f"Type: {_as_user(0, self.again())}"
        with suppress(OSError, KeyError):
            found = path.stat()
            if found.st_mode & 0o060 == 0o060:
                group = _group(found.st_gid)
                text += f"\nOr join the group {group}: sudo usermod -aG {group} {user()}, then sign in anew"
            elif os.geteuid() != 0:
                text += "\nA group of people may do without: http.socket_group in the settings names it"
        return text


def meant(chosen: Path | None, environ: Mapping[str, str] = os.environ) -> Meant:
    """By ``chosen`` (--config), else as everybody finds it. A machine's service is the same one for all its users.

    Where its settings cannot be read or used from here, it is looked for in its usual place; never where a file was
    named that is not the machine's own.
    """
    file = locate.find_file(chosen, environ)
    named = bool(chosen or environ.get("GATEWAY_CONFIG"))
    sockets: list[Path] = []
    with suppress(ConfigError):
        sockets.append(locate.admin_socket(file, environ))
    machine = locate.machine_state_dir(file)
    if machine is not None:  # systemd's environment is its own, and STATE_DIRECTORY here may be another's
        sockets.append(machine / (sockets[0].name if sockets else locate.SOCKET))
    state = None
    with suppress(ConfigError):
        state = locate.state_dir(file, environ)
    guessed = named and machine is None and state == Path(locate.default_state_dir(file, environ))
    database = locate.in_database(file, environ)
    return Meant(tuple(dict.fromkeys(sockets)), file, named, state or machine, locate.unit(file), guessed, database)


def _serves(pid: str) -> bool:
    """Whether that process is a service, and no command that looks into the spool meanwhile."""
    return not {b"serve", b"demo"}.isdisjoint(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))


def user(uid: int | None = None) -> str:
    """The name of a user id, by default of who runs this; "#123" (sudo's way) for one without a name."""
    uid = os.geteuid() if uid is None else uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _group(gid: int) -> str:
    return grp.getgrgid(gid).gr_name


def _sudo() -> str:
    return "" if os.geteuid() == 0 else "sudo "


def _as_user(uid: int | None, command: str) -> str:
    """How this user runs it as that one."""
    if uid in (None, os.geteuid()):
        return command
    return f"sudo {command}" if uid == 0 else f"sudo -u {shlex.quote(user(uid))} {command}"


def _closed(path: Path) -> str:
    """Why the socket cannot be used, in words about people."""
    try:
        found = path.stat()
    except OSError:
        return f"{user()} may not operate this gateway: its folder {path.parent} is closed to you"
    people = ["root", *([user(found.st_uid)] if found.st_uid else [])]
    with suppress(KeyError):
        people += [f"the group {_group(found.st_gid)}"] if found.st_mode & 0o060 == 0o060 else []
    said = " and ".join(filter(None, (", ".join(people[:-1]), people[-1])))
    return f"{user()} may not operate this gateway: {path} is for {said}"
