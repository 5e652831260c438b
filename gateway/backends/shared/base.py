"""What every backend is built with and uses: its context, its capabilities, safe text, bytes made ready to go out."""

from __future__ import annotations

import binascii
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

from pydantic import AfterValidator

from gateway.backends.shared.stores import Shared
from gateway.clock import Clock
from gateway.config.models import BackendSettings
from gateway.message import has_bare_newlines, normalise_newlines
from gateway.message.charset import codec_for, is_named
from gateway.model import Capabilities, Outcome, Scope, Verdict
from gateway.names import Names
from gateway.pools import look_through_mail
from gateway.url import check_url

if TYPE_CHECKING:  # its libraries are the slowest to load, and settings need none of them
    from gateway.fetch import Fetch


def parse_charset(text: str) -> str:
    if text and not codec_for(text):
        why = "is no known character set" if is_named(text) else "says nothing about 8-bit text"
        raise ValueError(f'"{text}" {why}, write for example windows-1252 or iso-8859-15')
    return text


T = TypeVar("T")
Url = Annotated[str, AfterValidator(check_url)]
Charset = Annotated[str, AfterValidator(parse_charset)]
CHARSETS = {  # what helps where text cannot be made out (Capabilities.remedies)
    "no_charset": (
        "let the program name it, or set default_charset on backends.{name} to what it is, for example windows-1252"
    ),
    "charset": (
        "let the program write the character set that it names, each byte of it;"
        " or route this client to a backend that carries mail unchanged: smtp, gmail, smtp2go"
    ),
}
UNBOUNDED = 1_000_000_000  # bytes; a backend with no limit of its own
PIECE = 3 * 64 * 1024  # bytes worked on at a time: a thread that works in small steps does not hold up the loop either
LARGE = 1_000_000  # bytes that are worked on in a thread
_HEADER = 20_000
_DETAIL = 300
_SECRETS = re.compile(
    r"\b(bearer|basic|plain|login)\s+[\w+/=.~-]{20,}|\bapi-\w{16,}|\beyJ[\w-]{8,}[\w.-]*|[A-Za-z0-9+/_-]{80,}=*",
    re.IGNORECASE,
)


class Signals(Protocol):
    """The part of events.Events that a backend may use."""

    def warning(self, event: str, **fields: object) -> None: ...
    def token_refreshed(self, backend: str, result: str, ends: float = 0.0, detail: str = "") -> None: ...
    def credential_ends(self, backend: str, timestamp: float) -> None: ...


def tells_of_trust(signals: Signals, backend: str) -> Callable[[str, str], None]:
    """For trust.Trust: a line in the log where a changed file cannot be used, so that the old one still counts."""
    return lambda files, why: signals.warning("trust_kept", backend=backend, file=files, detail=why)


class Silent(Signals):
    """Nobody listens: for commands that only look."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the house gives to every backend. ``shared``: what all instances on a spool keep, None for one alone."""

    hostname: str
    state_dir: Path
    clock: Clock
    fetch: Fetch
    rng: random.Random
    signals: Signals = field(default_factory=Silent)
    names: Names = field(default_factory=Names)
    shared: Shared | None = None


async def unrecorded(sent: Mapping[str, Outcome]) -> bool:
    """A Progress for those who need not know before the end."""
    return True


class NoAnswer(Exception):
    """A call did not come to an answer that can be used; ``outcome`` says what that means for whom it was made."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


def away(detail: str, fix: str = "", enhanced: str = "4.4.1") -> NoAnswer:
    """Nobody was reached and nothing was sent: the backend's trouble, and no message's."""
    return NoAnswer(Outcome(Verdict.DEFERRED, enhanced=enhanced, detail=safe(detail), scope=Scope.BACKEND, fix=fix))


def refused(detail: str, fix: str, enhanced: str = "4.7.0") -> NoAnswer:
    """Somebody was reached and does not take us as we are: the backend pauses, nothing is bounced."""
    outcome = Outcome(Verdict.MISCONFIGURED, enhanced=enhanced, detail=safe(detail), scope=Scope.BACKEND, fix=fix)
    return NoAnswer(outcome)


def limited(own: Capabilities, settings: BackendSettings) -> Capabilities:
    """The backend's own capabilities, with ``max_bytes`` lowered by the setting ``max_size``."""
    return replace(own, max_bytes=min(own.max_bytes, settings.max_size or own.max_bytes))


def safe(text: str, *secrets: str) -> str:
    """A provider's words as one printable line of at most 300 characters, without credentials."""
    for secret in secrets:
        text = text.replace(secret, "***") if secret else text
    text = text[: 10 * _DETAIL]
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    line = " ".join(text.split())
    line = _SECRETS.sub("***", line)
    return line if len(line) <= _DETAIL else line[: _DETAIL - 1] + "…"


def canonical(raw: bytes) -> bytes:
    """``raw`` itself where every line ends in CRLF, else a copy where it does: no bare CR or LF leaves the house."""
    start = 0
    while start < len(raw):
        end = start + PIECE
        end += raw.startswith(b"\n", end)  # which may belong to a CR in front of it
        if has_bare_newlines(raw[start:end]):
            return normalise_newlines(raw)
        start = end
    return raw


def base64_of(raw: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    """Unwrapped, between ``before`` and ``after``; and in pieces: a thread that does this lets the others run."""
    view = memoryview(raw)
    pieces = (binascii.b2a_base64(view[start : start + PIECE], newline=False) for start in range(0, len(raw), PIECE))
    return b"".join((before, *pieces, after))


def effort(raw: bytes) -> int:
    """The size of a message for ``aside``. A large header is as much work as a large body: addresses stand in it."""
    small = len(raw) <= _HEADER or raw.find(b"\n\r\n", 0, _HEADER) >= 0
    return len(raw) if small else max(len(raw), LARGE)


async def aside(size: int, work: Callable[[], T]) -> T:
    """What ``work`` returns; in a thread where a message of ``size`` bytes would hold up the loop."""
    return work() if size < LARGE else await look_through_mail(work)
