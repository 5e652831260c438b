"""Secrets and other files that the configuration names: where they are looked for, and how they are read."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway.config.document import Document, Keys, Line, Place, dotted
from gateway.config.finding import Finding
from gateway.config.models import Settings
from gateway.files import unwritable

RUN_SECRETS = Path("/run/secrets")
OWN_KEY: Keys = ("auth", "keys", "own", "private_key_file")  # made at first start, so it may be missing
_MAX_FILE = 1_000_000
_SECRET = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[^/\s]{20,}")  # what a key, password or token may be, and hardly a file
LONGEST_SOCKET = 107  # bytes of sockaddr_un.sun_path on Linux, less the final NUL
_PRIVATE = {"private_key", "private_key_file", "service_account_file", "authorized_user_file", "certificate_file"}
_PRIVATE |= {"token_file", "federated_token_file"}


def group_id(name: str) -> int:
    """Raises ValueError for a group that does not exist, or that this user may not give a file to (chown(2))."""
    try:
        gid = grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise ValueError(f'there is no group "{name}"; make it: groupadd --system {name}') from None
    if os.geteuid() != 0 and gid not in {os.getegid(), *os.getgroups()}:
        me = _me()
        raise ValueError(f'{me} is not in the group "{name}": usermod -aG {name} {me}, then restart the service')
    return gid


def _me() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user id {os.geteuid()}"


def unusable_places(settings: Settings) -> Iterator[Finding]:
    """Where the service must write and this user cannot. A state_dir that does not exist yet will be made."""
    state, socket = settings.state_dir, settings.http.socket
    if why := unwritable(state, made=True):
        yield Finding(("state_dir",), why)
    if socket.parent != state and (why := unwritable(socket.parent)):
        yield Finding(("http", "socket"), why)
    elif len(bytes(socket)) > LONGEST_SOCKET:
        yield Finding(("http", "socket"), f"{socket} is longer than the {LONGEST_SOCKET} bytes of a socket's path")
    elif os.path.lexists(socket) and not socket.is_socket():
        yield Finding(("http", "socket"), f"{socket} is there and is no socket")
    if (group := settings.http.socket_group) is not None:
        try:
            gid = group_id(group)
            if why := _closed_to(socket.parent, gid):
                yield Finding(("http", "socket_group"), why, fatal=False)
        except ValueError as error:
            yield Finding(("http", "socket_group"), str(error))
    for name, section in settings.pickup.items():  # a share may come later, and other mail must not wait for it
        if why := unwritable(section.directory):
            yield Finding(("pickup", name, "directory"), why, fatal=False)


def _closed_to(folder: Path, gid: int) -> str:
    """Why a group cannot go through a folder that is there, "" where it can."""
    with suppress(OSError):
        found = folder.stat()
        if not found.st_mode & (0o010 if found.st_gid == gid else 0o001):
            return f"the folder of the socket lets that group not through: chmod 711 {folder}"
    return ""


class Files:
    """Relative names are looked for in $CREDENTIALS_DIRECTORY, /run/secrets and beside the configuration file."""

    def __init__(
        self, document: Document, path: Path | None, environ: Mapping[str, str], state_dir: Path,
        spared: Collection[str] = (),
    ) -> None:  # fmt: skip
        self.warnings: list[str] = []
        self._spared = spared
        self._document = document
        self._path = path
        self._state_dir = state_dir
        self.named: dict[Keys, str] = {}  # for each secret that stands in a file, the name as it was given
        self._inline: list[Keys] = []
        credentials = environ.get("CREDENTIALS_DIRECTORY", "")
        self._managed = [*([Path(credentials)] if credentials else []), RUN_SECRETS]
        self._folders = [*self._managed, *([path.absolute().parent] if path else [])]

    def secret(self, section: dict[str, Any], key: str, keys: Keys, open_words: Collection[str] = ()) -> None:
        """Put the text of the file named by ``key_file`` in the place of ``key``; ``open_words`` are no secrets."""
        given = section.pop(f"{key}_file", None)
        from_file: Keys = (*keys[:-1], f"{key}_file")
        if given is None:
            told = key in section and str(section[key]) not in open_words
            self._inline += [keys] if told and self._document.place(keys).line else []
        elif key in section:
            self._document.fail(from_file, f"give {key} or {key}_file, not both")
        else:
            path, data = self._read(from_file, given, private=True)
            self.named[keys] = str(given)
            try:
                text = data.decode("utf-8-sig")
            except ValueError:
                text = "?"
                self._document.fail(from_file, f"{path}: not a text file")
            section[key] = text.rstrip("\r\n") or "?"  # as of a file that is not there: this is said once
            if not text.rstrip("\r\n"):
                self._document.fail(from_file, f'"{given}" is empty')
            if from_file in self._document.bad:
                self._document.bad.add(keys)

    def locate(self, section: dict[str, Any], key: str, keys: Keys) -> None:
        """Make the name of a file (certificate, key) an absolute path, and see that it can be read."""
        if key in section:
            section[key], _ = self._read(keys, section[key], private=key in _PRIVATE)

    def _read(self, keys: Keys, given: object, *, private: bool) -> tuple[Path, bytes]:
        """Where it is, and what is in it. ``private``: nobody else should see it, but a certificate without its key."""
        if not isinstance(given, str):
            self._document.fail(keys, "must be text")
            return Path("?"), b"?"
        folders = [*self._folders, self._state_dir] if keys == OWN_KEY else self._folders
        candidates = [folder / given for folder in folders]  # an absolute name stays itself
        for candidate in candidates:
            try:
                with candidate.open("rb") as file:
                    mode, data = os.fstat(file.fileno()).st_mode, file.read(_MAX_FILE)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except PermissionError as error:
                self._miss(keys, f"{candidate}: {_closed(candidate)}: {error.strerror}")
            except (OSError, ValueError) as error:
                self._miss(keys, f"{candidate}: {getattr(error, 'strerror', '') or 'not the name of a file'}")
            else:
                public = keys[-1] == "certificate_file" and b"BEGIN " in data and b"PRIVATE KEY" not in data
                if private and not public and mode & 0o007 and candidate.parent not in self._managed:
                    self.warnings.append(
                        Line(Place(str(candidate)), (), "every user of this machine can read it, chmod 600 it")
                    )
                return candidate, data
            return candidate, b"?"
        if keys != OWN_KEY:
            if _SECRET.fullmatch(given) and not Path(given).suffix:
                key = str(keys[-1]).removesuffix("_file")
                self._miss(keys, f"names no file; it looks like the secret itself: write it into a file, or as {key}")
                return candidates[0] if candidates else Path("?"), b"?"
            tried = " or ".join(dict.fromkeys(str(candidate) for candidate in candidates)) or given
            self._miss(keys, f"no such file: {tried}")
        return candidates[-1] if candidates else Path(given), b"?"

    def _miss(self, keys: Keys, text: str) -> None:
        if keys[0] in self._spared:
            self._document.bad.add(keys)  # nor does anybody judge what stands there instead
        else:
            self._document.fail(keys, text)

    def warn_of_open_file(self) -> None:
        """A secret that stands in a configuration file which everybody can read."""
        if self._path and self._inline and self._path.stat().st_mode & 0o007:
            names = ", ".join(map(dotted, self._inline))
            text = f"every user of this machine can read {names}; chmod 640 it or use a _file"
            self.warnings.append(Line(Place(str(self._path)), (), text))


def _closed(file: Path) -> str:
    """Who may not read it, and what lets him. Root may, so a check by root finds nothing."""
    user = str(os.geteuid())
    with suppress(KeyError):
        user = pwd.getpwuid(os.geteuid()).pw_name
    if not os.access(file.parent, os.X_OK):
        return f"user {user} may not enter its folder; let him, or let systemd hand the file over (LoadCredential)"
    paste = shlex.join(["chown", user, str(file)])
    return f"user {user} may not read it; {paste}, or let systemd hand it over (LoadCredential)"
