"""Their files as text with names: what a reader gets, also from standard input."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.migrate.found import BadSource

_LARGEST = 2_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """``folder`` is where files that it names without a path, or that were copied with it, are looked for."""

    name: str
    text: str
    folder: Path | None = None

    def lines(self) -> list[str]:
        return self.text.splitlines()

    def beside(self, name: str) -> Source | None:
        """A file of that path, or else of that last name beside this one; None where there is none to be read."""
        wanted = Path(name)
        given = wanted if self.folder is None or wanted.is_absolute() else self.folder / wanted
        for path in (given, self.folder / wanted.name) if self.folder else [given] * wanted.is_absolute():
            with suppress(BadSource):
                return read_source(path)
        return None


def read_source(path: Path) -> Source:
    """Raises BadSource for what is no text that can be read."""
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except OSError as error:
        raise BadSource(f"{path}: {error.strerror}") from None
    except ValueError:
        raise BadSource(f"{path}: not the name of a file") from None
    return Source(str(path), decode(raw, str(path)), path.parent)


def decode(raw: bytes, name: str) -> str:
    """UTF-8, or UTF-16 with its mark as Windows writes it. Raises BadSource."""
    if len(raw) > _LARGEST:
        raise BadSource(f"{name}: larger than 2 MB, these are hardly settings")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "replace")
    if b"\0" in raw:
        line = raw.count(b"\n", 0, raw.index(b"\0")) + 1
        raise BadSource(f"{name}:{line}: not a text file")
    return raw.decode("utf-8-sig", "replace")
