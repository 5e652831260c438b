"""The reader of DATA: chunks in, one message out. Pure: no I/O, no clock, the same result for any segmentation."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO

from gateway.message import has_bare_newlines, normalise_newlines, repaired
from gateway.model import Refusal
from gateway.smtp.replies import BARE_NEWLINES

LINE = 998  # RFC 5322 2.1.1, octets without CRLF
LONG_LINE = 65536
DRAIN = 1_000_000  # octets read on top of twice the limit before a refused sender is cut off
_COMPANY = 16_384  # octets: less waits for more to come, for looking at it costs nearly as much as at a lot
_END = b"\r\n.\r\n"
_LF_END = b"\n.\n"
_DOT = b"\r\n."
_FALSE_END = re.compile(rb"[\r\n]\.\r?\n\Z|(?:\r|(?<!\r)\n)\.\r\Z")  # CRLF.CR may go on


class DataReader:
    """Collects a message until CRLF.CRLF and nothing else (RFC 5321 4.1.1.4), dots unstuffed (4.5.2).

    ``lf_only`` says that its sender ends every line with LF alone: then LF.LF is the end too, until a CR comes. Who
    sends both kinds of line ends could be passing on somebody's smuggled end (CVE-2023-51764).
    ``limit`` counts the message's octets as stored, ``too_big`` makes the answer to more. The first fault is kept in
    ``refusal``: from then on nothing is stored, but the end is still looked for, so that no line of a refused message
    is taken for a command. What came last may still wait to be looked at: ``look`` does that at once.
    ``odd`` says that line ends are to be repaired, once all of them are there; of much ``message`` takes a while then.
    ``done`` says that the end was seen, ``overrun`` that a refused sender went on for too long and must be cut off.
    """

    def __init__(
        self,
        limit: int,
        too_big: Callable[[], Refusal],
        *,
        max_line: int = LONG_LINE,
        bare_newlines: bool = False,
        lf_only: bool = False,
    ) -> None:
        self.refusal: Refusal | None = None
        self.done = False
        self.overrun = False
        self.odd = False
        self.received = 0
        self.size = 0
        self._limit = limit
        self._too_big = too_big
        self._max_line = max_line
        self._bare_newlines = bare_newlines
        self._column = 0  # octets of the unfinished line already stored
        self._end = _LF_END if lf_only else _END
        self._skip = len(self._end) // 2  # octets of the end of the DATA command, which may begin the end
        self._raw = bytearray(self._end[: self._skip])  # as it came, and not looked at yet
        self._gone = b""  # the last octets in front of that
        self._dotted = bare_newlines  # whether a dot may stand at the beginning of a line
        self._fresh = True  # the next octet to be stored begins a line
        self._only = b""  # what is stored, as long as it is one piece
        self._body = BytesIO()  # else; getvalue() gives its buffer away without a copy

    @property
    def false_end(self) -> bool:
        """Whether the sender may think that this was the end: a dot alone between line ends of which one is bare."""
        last = (self._gone + bytes(self._raw[-4:]))[-4:]
        return not self.done and b"." in last and _FALSE_END.search(last) is not None

    @property
    def kept(self) -> int:
        """Octets in memory."""
        return self.size + len(self._raw) - self._skip

    def feed(self, chunk: bytes) -> bytes:
        """Take the next octets from the wire; returns those behind the end of the message."""
        self.received += len(chunk)
        raw, start = self._raw, max(len(self._raw) - len(_END) + 1, 0)
        raw += chunk
        if (end := self._find_end(start)) >= 0:
            self.done = True
            rest = bytes(raw[end + len(self._end) :])
            self._take(end + len(self._end) // 2)
            self._raw.clear()
            return rest
        if len(raw) > _COMPANY or self.size + len(raw) > self._limit:
            self.look()
            self.overrun = self.refusal is not None and self.received > 2 * self._limit + DRAIN
        return b""

    def look(self) -> None:
        """See what has come so far, but for the last octets if they may begin a line end or the end."""
        raw, end = self._raw, self._end
        cut = len(raw) - next((n for n in range(len(end) - 1, 0, -1) if raw.endswith(end[:n])), 0)
        cut -= raw[cut - 1 : cut] == b"\r"  # CR CR LF
        if cut > self._skip:
            self._take(cut)

    def _find_end(self, start: int) -> int:
        """Where it begins in what has come; nothing is there that begins before ``start``."""
        raw = self._raw
        if self._end is _LF_END:
            cr = raw.find(b"\r", start)
            if (end := raw.find(_LF_END, start, cr if cr >= 0 else len(raw))) >= 0 or cr < 0:
                return end
            self._end = _END
        if (dot := raw.find(_DOT, start)) < 0:
            return -1
        self._dotted = True
        return raw.find(_END, dot)

    def fail(self, refusal: Refusal) -> None:
        """Refuse the message for the first reason only, and forget what was stored."""
        self.refusal = self.refusal or refusal
        self._only, self._body = b"", BytesIO()
        self.size = 0

    def head(self, octets: int) -> bytes:
        """The first so many of the message as it was stored. Nothing is given away."""
        return self._only[:octets] or bytes(self._body.getbuffer()[:octets])

    def message(self) -> bytes:
        """Give the message away, once ``done``: nothing of it is kept. Raises its Refusal."""
        if self.refusal is not None:
            raise self.refusal
        body = self._only or self._body.getvalue()
        self._only, self._body = b"", BytesIO()
        return repaired(body) if self.odd else body

    def _take(self, cut: int) -> None:
        """Store what came up to there, which is not within a line end or between one and a dot."""
        segment = bytes(memoryview(self._raw)[self._skip : cut])
        self._gone = (self._gone + bytes(self._raw[max(cut - 4, 0) : cut]))[-4:]
        del self._raw[:cut]
        self._skip = 0
        if self.refusal is None and segment:
            stuffed, self._fresh = self._fresh and segment.startswith(b"."), segment.endswith(b"\n")
            segment = segment[1:] if stuffed else segment
            # A dot is taken off behind a bare LF, too, as Postfix does.
            self._store(segment.replace(b"\n.", b"\n") if self._dotted else segment)

    def _store(self, segment: bytes) -> None:
        ended = segment
        if has_bare_newlines(segment):
            if not self._bare_newlines:
                self.fail(BARE_NEWLINES())
                return
            self.odd = True
            ended = normalise_newlines(segment.replace(b"\r\r\n", b"\r\n"))  # about as it will be, for the limits
        self.size += len(ended)
        if self.size > self._limit:
            self.fail(self._too_big())
        elif self._has_long_line(ended):
            hint = "" if self._max_line > LINE else "; for a sender that cannot, set tolerate: [long_lines]"
            text = f"A line is longer than {self._max_line} octets{hint}"
            self.fail(Refusal(554, "5.6.0", text, "line_too_long"))
        elif self.size == len(ended):
            self._only = segment
        else:
            self._body.write(self._only)
            self._body.write(segment)
            self._only = b""

    def _has_long_line(self, segment: bytes) -> bool:
        """Hop from line end to line end, each time as far as one line may reach."""
        start, size = -self._column, len(segment)
        while size - start > self._max_line:
            end = segment.rfind(b"\r\n", max(start, 0), start + self._max_line + 2)
            if end < 0:
                return True
            start = end + 2
        last = segment.rfind(b"\r\n", max(start, 0))
        self._column = size - (last + 2 if last >= 0 else start)
        return False
