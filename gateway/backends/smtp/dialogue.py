"""What an upstream server replies, read so that none is dropped, however early it comes.

aiosmtplib connects, does TLS and AUTH; it reads one reply to one command, and drops what comes before it is asked for.
"""

from __future__ import annotations

import asyncio
from collections import deque

import aiosmtplib

_LONGEST_LINE, _LONGEST = 8192, 32768  # bytes: a server that streams without an end costs us no more


class Dialogue(asyncio.Protocol):
    """Takes a connection over from aiosmtplib. What is lost or makes no sense ends it: then only the replies that came
    before can still be read."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._buffer = bytearray()
        self._lines: list[bytes] = []  # of a reply that is not whole
        self._size = 0  # of these, with their codes
        self._replies: deque[aiosmtplib.SMTPResponse] = deque()
        self._owed = 0  # replies that are still to come
        self._paused = False
        self._lost: aiosmtplib.SMTPException | None = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._until = 0.0  # when whoever waits has waited long enough, by the loop's time
        self._timer: asyncio.TimerHandle | None = None  # goes off then or earlier, for waits are many and short
        self._rings = 0.0
        transport.set_protocol(self)

    @property
    def heard(self) -> bool:
        """There is a reply to read."""
        return bool(self._replies)

    def write(self, data: bytes, replies: int = 0) -> None:
        """``replies``: how many the server will give to it. Raises SMTPServerDisconnected."""
        if self._lost is not None or self._transport.is_closing():
            raise self._lost or aiosmtplib.SMTPServerDisconnected("Connection lost")
        self._owed += replies
        self._transport.write(data)

    async def drained(self, seconds: float) -> None:
        """Wait until more may be written, or there is a reply. Raises SMTPException."""
        while self._paused and not self._replies:
            await self._changed(seconds)

    async def reply(self, seconds: float) -> aiosmtplib.SMTPResponse:
        """The next one. Raises SMTPException: none has come in time, or none that makes sense."""
        while not self._replies:
            await self._changed(seconds)
        return self._replies.popleft()

    async def _changed(self, seconds: float) -> None:
        if self._lost is not None:
            raise self._lost
        self._waiter = self._loop.create_future()
        self._until = self._loop.time() + seconds
        if self._timer is None or self._rings > self._until:
            self._look_at_time()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _look_at_time(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if self._loop.time() < self._until:
            self._rings = self._until
            self._timer = self._loop.call_at(self._rings, self._look_at_time)
        else:
            late = aiosmtplib.SMTPReadTimeoutError("Timed out waiting for server response")
            self._waiter.set_exception(late)

    def abort(self) -> None:
        """What is written and not yet gone never goes."""
        self._transport.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self, cause: aiosmtplib.SMTPException) -> None:
        self._lost = self._lost or cause
        self._transport.close()
        self._wake()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- called by the transport -------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._lost is not None:  # TLS still hands out what came before it was closed
            return
        self._buffer += data
        while self._lost is None and (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[: end + 1])
            del self._buffer[: end + 1]
            self._line(line)
        if len(self._buffer) > _LONGEST_LINE:
            self._end(aiosmtplib.SMTPResponseException(-1, "Response too long"))

    def _line(self, line: bytes) -> None:
        """RFC 5321 4.2.1: a hyphen behind the code says that there is more."""
        self._lines.append(line[4:].strip(b" \t\r\n"))
        self._size += len(line)
        if not line[:3].isdigit():
            shown = line.decode(errors="ignore")
            self._end(aiosmtplib.SMTPResponseException(-1, f"Malformed SMTP response line: {shown}"))
        elif len(line) > _LONGEST_LINE or self._size > _LONGEST:
            self._end(aiosmtplib.SMTPResponseException(-1, "Response too long"))
        elif line[3:4] != b"-":
            text, self._lines, self._size = b"\n".join(self._lines), [], 0
            self._take(aiosmtplib.SMTPResponse(int(line[:3]), text.decode("utf-8", "surrogateescape")))

    def _take(self, reply: aiosmtplib.SMTPResponse) -> None:
        if not self._owed:  # it says goodbye, or is out of step: its next reply would be taken for another's
            self._end(aiosmtplib.SMTPServerDisconnected(f"the server said {reply.code} unasked: {reply.message}"))
            return
        self._owed -= 1
        self._replies.append(reply)
        self._wake()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()

    def eof_received(self) -> bool:
        self._end(aiosmtplib.SMTPServerDisconnected("Unexpected EOF received"))
        return False

    def connection_lost(self, error: Exception | None) -> None:
        lost = aiosmtplib.SMTPServerDisconnected("Connection lost")
        lost.__cause__ = error
        self._end(lost)
