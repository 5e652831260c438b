"""What stands between a client and PostgreSQL: lets all pass, until it is told to break something."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path


class Proxy:
    """A socket in ``folder`` that leads to that in ``server``, and breaks the first connection on which it sees
    ``word`` from the client: ``after`` the server has carried that out, or else before it has seen it."""

    def __init__(self, folder: Path, server: Path) -> None:
        self.folder = folder
        self.broken = 0
        self.swallows = False  # what is sent, both ways, and whoever comes anew hears nothing either
        self._server = str(server / ".s.PGSQL.5432")
        self._word, self._after = b"", False
        self._clients: list[socket.socket] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / ".s.PGSQL.5432"))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def break_at(self, word: bytes, *, after: bool) -> None:
        self._word, self._after = word, after

    def swallow_for(self, seconds: float, gone: float) -> None:
        """As a network that is cut: after ``gone`` seconds the kernel of a client gives up (tcp_user_timeout), and
        that of the server hears nothing of it."""
        self.swallows = True
        for client in self._clients:
            threading.Timer(gone, _hang_up, [client]).start()
        time.sleep(seconds)
        self.swallows = False

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._clients.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        with closing(client), closing(server), suppress(OSError):
            server.connect(self._server)
            threading.Thread(target=self._pass, args=(server, client), daemon=True).start()
            while data := client.recv(65536):
                if self._word and self._word in data:
                    self._word = b""
                    self.broken += 1
                    client.shutdown(socket.SHUT_RDWR)
                    if self._after:
                        server.sendall(data)
                        server.shutdown(socket.SHUT_WR)
                    return
                if not self.swallows:
                    server.sendall(data)
            while self.swallows:
                time.sleep(0.05)

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if not self.swallows:
                    other.sendall(data)
            if not self.swallows:  # nor does a FIN arrive
                other.shutdown(socket.SHUT_RDWR)


def _hang_up(client: socket.socket) -> None:
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy(folder: Path, server: Path) -> Iterator[Proxy]:
    made = Proxy(folder, server)
    try:
        yield made
    finally:
        made.close()
