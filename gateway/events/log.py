"""Log lines: made safe, rendered for a terminal, a file or journald, written by a thread. Imports structlog.

A blocked or closed output never stops the event loop: the queue is bounded, and lines that had to go are counted.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import queue
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from json import JSONEncoder
from typing import Any, Protocol, TextIO

import structlog

from gateway.clock import Clock

_LEVEL = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3}  # syslog(3)
_SECRET = re.compile(r"eyJ[\w.+/=-]+|(?<=bearer )\S+", re.IGNORECASE)
_FIELD_LIMIT = 1024
_TRACE_LIMIT = 16_384
_LINES_LIMIT = 10_000
_FEW = 20  # values in a field that waits as it is
_GATHER = 0.05  # seconds: waking the thread for each line would cost the event loop more than the line itself
_encode = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@lru_cache(1000)
def _is_secret(key: str) -> bool:
    return re.search("password|token|secret|authorization|api_key", key, re.IGNORECASE) is not None


def masked(text: str) -> str:
    """Without anything that looks like a token."""
    return _SECRET.sub("[redacted]", text) if "eyJ" in text or "earer " in text or "EARER " in text else text


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _clean(value: Any) -> Any:
    """A log value made safe: printable, about 1 kB at most, no secrets. Whole numbers and flags pass."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, list | tuple):
        items: list[str] = []
        for item in value:
            if sum(map(len, items)) > _FIELD_LIMIT:
                return [*items, f"and {len(value) - len(items)} more"]
            items.append(_clean(str(item)))
        return items
    text = value if isinstance(value, str) else str(value)
    return _printable(masked(text if len(text) <= _FIELD_LIMIT else text[:_FIELD_LIMIT] + "..."))


def _is_small(value: Any) -> bool:
    """It may wait in the queue as it is, and changes no more."""
    if isinstance(value, str):
        return len(value) <= _FIELD_LIMIT
    if isinstance(value, list | tuple):
        for item in value[: _FEW + 1]:
            if not isinstance(item, str) or len(item) > _FIELD_LIMIT:
                return False
        return len(value) <= _FEW
    return value is None or isinstance(value, int)


@dataclass(frozen=True, slots=True)
class _Clean:
    """A value that was made safe already, since it was large."""

    value: Any


class Renderer:
    """One line from what was said, harmless whatever a client or provider wrote."""

    def __init__(self, *, console: bool, journal: bool) -> None:
        self._console = console
        self._journal = journal

    def __call__(self, level: str, fields: Mapping[str, Any], at: datetime) -> str:
        safe = {
            key: "[redacted]" if _is_secret(key) else value.value if isinstance(value, _Clean) else _clean(value)
            for key, value in fields.items()
            if value not in ("", None, ()) and key not in ("event", "exception")
        }
        trace = masked(fields.get("exception", "")[-_TRACE_LIMIT:])
        # journald stamps the time itself and reads the level from the prefix (sd-daemon(3)).
        stamp = "" if self._journal else at.isoformat(timespec="milliseconds")
        prefix = f"<{_PRIORITY[level]}>" if self._journal else ""
        if self._console:
            pairs = (f"{key}={','.join(v) if isinstance(v, list) else v}" for key, v in safe.items())
            # Indented, so that no line of a traceback can pass for a line of ours.
            indented = "".join(f"    {_printable(line)}\n" for line in trace.splitlines())
            return f"{prefix}{stamp[11:19]} {level:7} {fields['event']:10} {' '.join(pairs)}\n{indented}"
        head = {"timestamp": stamp} if stamp else {}
        tail = {"exception": trace} if trace else {}
        return prefix + _encode({**head, "level": level, "event": fields["event"], **safe, **tail}) + "\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened, as it was said. ``fields`` hold nothing large, and nothing that changes any more."""

    renderer: Renderer
    level: str
    fields: Mapping[str, Any]
    at: datetime

    def line(self) -> str:
        return self.renderer(self.level, self.fields, self.at)


class Gathering:
    """The last structlog processor: takes down what was said, and when. It becomes a line in the log's own thread."""

    def __init__(self, clock: Clock, renderer: Renderer) -> None:
        self._clock = clock
        self._renderer = renderer

    def __call__(self, _logger: object, level: str, fields: Mapping[str, Any]) -> tuple[tuple[Entry], dict[str, Any]]:
        kept = {
            name: value  # most are short text: asking that here costs a third of a call
            if (type(value) is str and len(value) <= _FIELD_LIMIT) or _is_small(value)
            else _Clean(_clean(value))
            for name, value in fields.items()
        }
        if trace := fields.get("exception"):
            kept["exception"] = trace[-_TRACE_LIMIT:]
        return (Entry(self._renderer, level, kept, self._clock.now()),), {}


class Libraries(logging.Handler):
    """Warnings of the libraries, through our renderer. aiosmtpd's own log stays out: it quotes AUTH lines."""

    def __init__(self, clock: Clock, warning: Callable[..., None], bug: Callable[[str, BaseException], None]) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._warning = warning
        self._bug = bug
        self._quiet_until = -math.inf

    def emit(self, record: logging.LogRecord) -> None:
        if "socket.accept() out of system resource" in record.getMessage():  # asyncio: each second, for each listener
            if (now := self._clock.monotonic()) < self._quiet_until:
                return
            self._quiet_until = now + 60
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, asyncio.CancelledError):
            return  # a request that was cut off at the stop: uvicorn has said how many
        if error is not None:
            self._bug(f"{record.name}: {record.getMessage()}", error)
        elif not record.name.startswith("mail."):
            self._warning("library", logger=record.name, text=record.getMessage())


class Said(Protocol):
    def line(self) -> str: ...


class Writer:
    """Lines to a stream from a thread of its own; ``dropped`` is told how many were lost."""

    def __init__(self, stream: TextIO, dropped: Callable[[int], None]) -> None:
        self._stream = stream
        self._dropped = dropped
        self._items: queue.SimpleQueue[Said | threading.Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._flushing = threading.Event()

    def write(self, said: Said) -> None:
        if self._items.qsize() >= _LINES_LIMIT:
            self._dropped(1)
            return
        self._items.put(said)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()

    debug = info = warning = error = write

    def flush(self, seconds: float, *, stop: bool = False) -> None:
        """Wait until what was written so far is out, at most ``seconds``."""
        if self._thread is not None:
            done = threading.Event()
            self._items.put(done)
            if stop:
                self._items.put(None)
                self._thread = None
            self._flushing.set()
            done.wait(seconds)

    def _run(self) -> None:
        items: list[Said | threading.Event | None] = []
        while None not in items:
            items = [self._items.get()]
            self._flushing.wait(_GATHER)
            while not self._items.empty() and items[-1] is not None:
                items.append(self._items.get())
            if self._items.empty():
                self._flushing.clear()
            self._put_out([item.line() for item in items if item is not None and not isinstance(item, threading.Event)])
            for item in items:
                if isinstance(item, threading.Event):
                    item.set()

    def _put_out(self, lines: list[str]) -> None:
        text = "".join(lines)
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:  # a terminal that is not UTF-8
                self._stream.write(text.encode("ascii", "backslashreplace").decode())
            self._stream.flush()
        except (OSError, ValueError):  # closed pipe, full disk: the mail goes on
            self._dropped(len(lines))


def in_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream leads to journald (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def make_logger(writer: Writer, gathering: Gathering, level: str) -> structlog.typing.FilteringBoundLogger:
    """A logger of its own, not touched by structlog's global configuration."""
    wrapper = structlog.make_filtering_bound_logger(_LEVEL[level])
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(writer, [gathering], wrapper, dict).bind()
    return logger
