"""The reader of DATA: chunks in, one message out. Pure: no I/O, no clock, the same result for any segmentation."""

from __future__ import annotations

import re
from io import BytesIO

from gateway.message import normalise_newlines, repaired
from gateway.model import Refusal
from gateway.smtp.replies import BARE_NEWLINES

LINE = 998  # RFC 5322 2.1.1, octets without CRLF
LONG_LINE = 65536
DRAIN = 1_000_000  # octets read on top of twice the limit before a refused sender is cut off
_END = b"\r\n.\r\n"
_LF_END = b"\n.\n"
_FALSE_END = re.compile(rb"[\r\n]\.\r?\n\Z|(?:\r|(?<!\r)\n)\.\r\Z")  # CRLF.CR may go on


class DataReader:
    """Collects a message until CRLF.CRLF and nothing else (RFC 5321 4.1.1.4), dots unstuffed (4.5.2).

    ``lf_only`` says that its sender ends every line with LF alone: then LF.LF is the end too, until a CR comes. Who
    sends both kinds of line ends could be passing on somebody's smuggled end (CVE-2023-51764).
    ``limit`` counts the message's octets as stored, ``too_big`` answers more. The first fault is kept in ``refusal``:
    from then on nothing is stored, but the end is still looked for, so that no line of a refused message is taken for
    a command.
    ``odd`` says that line ends are to be repaired, once all of them are there; of much ``message`` takes a while then.
    ``done`` says that the end was seen, ``overrun`` that a refused sender went on for too long and must be cut off.
    """

    def __init__(
        self,
        limit: int,
        too_big: Refusal,
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
        self._tail = self._end[: self._end.index(b".")]  # what may begin the end; at first the end of the DATA command
        self._skip = len(self._tail)  # ... which is no part of the message
        self._fresh = True  # the next octet to be stored begins a line
        self._last = _END[:2]  # of what has come
        self._body = BytesIO()  # getvalue() gives its buffer away without a copy

    @property
    def false_end(self) -> bool:
        """Whether the sender may think that this was the end: a dot alone between line ends of which one is bare."""
        return not self.done and _FALSE_END.search(self._last) is not None

    def feed(self, chunk: bytes) -> bytes:
        """Take the next octets from the wire; returns those behind the end of the message."""
        self.received += len(chunk)
        self._last = (self._last + chunk[-4:])[-4:]
        data = self._tail + chunk
        end = self._find_end(data)
        if end >= 0:
            self.done = True
            segment, rest = data[: end + self._end.index(b".")], data[end + len(self._end) :]
        else:
            held = next((n for n in range(len(self._end) - 1, 0, -1) if data.endswith(self._end[:n])), 0)
            cut = len(data) - held
            cut -= data[cut - 1 : cut] == b"\r"  # CR CR LF
            segment, self._tail, rest = data[:cut], data[cut:], b""
            self.overrun = self.refusal is not None and self.received > 2 * self._limit + DRAIN
        # A segment never ends inside a line end or CRLF-dot: what could become either is held back above.
        if self._skip and len(segment) >= self._skip:
            segment, self._skip = segment[self._skip :], 0
        if self.refusal is None and segment:
            # A dot is taken off behind a bare LF, too, as Postfix does.
            stuffed, self._fresh = self._fresh and segment.startswith(b"."), segment.endswith(b"\n")
            self._store((segment[1:] if stuffed else segment).replace(b"\n.", b"\n"))
        return rest

    def _find_end(self, data: bytes) -> int:
        if self._end is _LF_END and (cr := data.find(b"\r")) >= 0:
            if (end := data.find(_LF_END, 0, cr)) >= 0:
                return end
            self._end = _END
        return data.find(self._end)

    def fail(self, refusal: Refusal) -> None:
        """Refuse the message for the first reason only, and forget what was stored."""
        self.refusal = self.refusal or refusal
        self._body = BytesIO()
        self.size = 0

    def message(self) -> bytes:
        """Give the message away, once ``done``: nothing of it is kept. Raises its Refusal."""
        if self.refusal is not None:
            raise self.refusal
        body, self._body = self._body, BytesIO()
        return repaired(body.getvalue()) if self.odd else body.getvalue()

    def _store(self, segment: bytes) -> None:
        ended, lines = segment, segment.count(b"\r\n")
        if segment.count(b"\n") != lines or segment.count(b"\r") != lines:
            if not self._bare_newlines:
                self.fail(BARE_NEWLINES())
                return
            self.odd = True
            ended = normalise_newlines(segment.replace(b"\r\r\n", b"\r\n"))  # about as it will be, for the limits
        self.size += len(ended)
        if self.size > self._limit:
            self.fail(self._too_big)
        elif self._has_long_line(ended):
            hint = "" if self._max_line > LINE else "; for a sender that cannot, set tolerate: [long_lines]"
            text = f"A line is longer than {self._max_line} octets{hint}"
            self.fail(Refusal(554, "5.6.0", text, "line_too_long"))
        else:
            self._body.write(segment)

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
