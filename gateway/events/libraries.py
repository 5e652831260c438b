"""What the libraries report with the standard library's logging, brought into our log."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from gateway.clock import Clock


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
        if record.exc_info and record.exc_info[1] is not None:
            self._bug(f"{record.name}: {record.getMessage()}", record.exc_info[1])
        elif not record.name.startswith("mail."):
            self._warning("library", logger=record.name, text=record.getMessage())
