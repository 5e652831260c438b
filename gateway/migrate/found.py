"""What was found in another relay's settings, in our words: the record that readers fill and a writer prints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Scalar = str | int
Value = Scalar | tuple[Scalar, ...] | Mapping[str, Scalar]
Keys = tuple[str, ...]


class BadSource(ValueError):
    """A file that cannot be read as what it is said to be. The text begins with its name and line."""


@dataclass(frozen=True, slots=True)
class Where:
    """A place in their settings: file, line (0: none), and the name of the setting; never its value."""

    file: str
    line: int = 0
    said: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def whole(self) -> str:
        return f"{self}: {self.said}" if self.said else str(self)

    def bad(self, text: str) -> BadSource:
        return BadSource(f"{self}: {text}")


@dataclass(frozen=True, slots=True)
class Entry:
    value: Value
    where: Where | None = None
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    backends: tuple[str, ...]
    senders: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    where: Where | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """Something of theirs that has no equivalent: what it did, and what to do instead."""

    where: Where | None
    what: str
    instead: str


@dataclass(frozen=True, slots=True)
class Secret:
    """What belongs into ``file`` beside the settings; ``text`` is None where theirs does not tell it."""

    file: str
    text: str | None
    what: str
    where: Where | None = None


@dataclass(slots=True)
class Found:
    """Filled by a reader. ``off`` are sections that are written switched off, by their keys, with the reason."""

    product: str
    entries: dict[Keys, Entry] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    notes: dict[str, list[Note]] = field(default_factory=dict)
    secrets: dict[str, Secret] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    off: dict[Keys, str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    def put(self, keys: str, value: Value, where: Where | None = None, remark: str = "") -> None:
        """A setting by its dotted name. What was put there before is replaced."""
        self.entries[tuple(keys.split("."))] = Entry(value, where, remark)

    def get(self, keys: str) -> Value | None:
        entry = self.entries.get(tuple(keys.split(".")))
        return None if entry is None else entry.value

    def note(self, section: str, where: Where | None, what: str, instead: str) -> None:
        one = Note(where, what, instead)
        if one not in (notes := self.notes.setdefault(section, [])):
            notes.append(one)

    def todo(self, text: str) -> None:
        if text not in self.left:
            self.left.append(text)

    def secret(self, file: str, text: str | None, what: str, where: Where | None = None) -> None:
        self.secrets[file] = Secret(file, text, what, where)

    def names(self, section: str) -> list[str]:
        return list(dict.fromkeys(keys[1] for keys in self.entries if keys[0] == section and len(keys) > 2))

    def drop(self, keys: Keys) -> None:
        self.entries = {key: entry for key, entry in self.entries.items() if key[: len(keys)] != keys}

    def name(self, section: str, wanted: str) -> str:
        """A name that may stand in the settings and that nothing there has yet."""
        base = re.sub(r"[^a-z0-9]+", "_", wanted.lower()).strip("_")[:34].strip("_")
        base = base if base[:1].isalpha() else f"{section[0]}_{base}".rstrip("_")
        taken, name, number = self.names(section), base, 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        return name


def words(text: str, separators: str = ", \t\r\n") -> list[str]:
    """The parts of a list."""
    return [part for part in re.split(f"[{re.escape(separators)}]+", text) if part]


def first_of(given: Iterable[str]) -> str:
    return next(iter(given), "")
