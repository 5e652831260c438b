"""A name server in this process that can be silent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence

from gateway.names import Address

HERE = Address(socket.AF_INET, "127.0.0.1")


class NameServer:
    """Knows every name as this machine, and gives no answer for names that begin with "hangs" until ``answer``."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._answering = threading.Event()

    def __call__(self, host: str) -> Sequence[Address]:
        self.asked.append(host)
        if host.startswith("hangs"):
            self._answering.wait()
        return (HERE,)

    @property
    def silent(self) -> bool:
        return not self._answering.is_set()

    def answer(self) -> None:
        self._answering.set()
