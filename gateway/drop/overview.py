"""What lies in folders that mail is taken from, for a person: read from the disk, so it is true without a service."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.drop import folder, letter
from gateway.drop.folder import File, Places, Unreadable
from gateway.model import BadMessage

_SHOWN = 100  # files of a folder
_HEAD = 16_384  # octets of each that are read: room for 50 recipients and more


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file. Of those of gateway-sendmail it is known who sends to whom; ``owner`` is a user id."""

    file: str
    size: int
    dropped_at: datetime
    owner: int
    sender: str
    recipients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Folder:
    """``files`` are the oldest of those ``waiting``; ``reason`` says why they do, or why nobody can look."""

    name: str
    path: str
    waiting: int
    corrupt: int
    reason: str
    files: tuple[Waiting, ...]


def overview(
    places: Mapping[str, Places], reasons: Mapping[str, str] = {}, hanging: Collection[str] = ()
) -> list[Folder]:
    """Blocks. The disks of those that are ``hanging`` are not asked."""
    return [
        Folder(name, str(there.new), 0, 0, reasons.get(name, ""), ())
        if name in hanging
        else _look(name, there, reasons.get(name, ""))
        for name, there in places.items()
    ]


def _look(name: str, there: Places, reason: str) -> Folder:
    found: list[File] = []
    corrupt = 0
    try:
        with suppress(FileNotFoundError):
            found = folder.waiting(there)
        with suppress(FileNotFoundError):
            found = [*folder.taken(there), *found]
        corrupt = folder.corrupt(there)
    except OSError as error:
        reason = reason or f"{error.filename}: {error.strerror}"
    files = tuple(_waiting(file, enveloped=name == folder.MAILDROP) for file in found[:_SHOWN])
    return Folder(name, str(there.new), len(found), corrupt, reason, files)


def _waiting(file: File, *, enveloped: bool) -> Waiting:
    sender, recipients = "", tuple[str, ...]()
    if enveloped:
        with suppress(BadMessage, Unreadable):
            data, _ = folder.content(file, _HEAD, _HEAD)
            envelope, *_ = letter.read_envelope(data)
            sender, recipients = envelope.sender, tuple(recipient.address for recipient in envelope.recipients)
    return Waiting(file.name, file.size, datetime.fromtimestamp(file.modified, UTC), file.owner, sender, recipients)
