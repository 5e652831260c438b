"""A scripted SMTP server, and commands run as an operator types them."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from click.testing import CliRunner, Result

from gateway.cli.root import cli


class Server(socketserver.ThreadingTCPServer):
    """A scripted SMTP server: what it heard, and other replies for chosen commands."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.commands: list[str] = []
        self.content = b""
        self.messages: SimpleQueue[bytes] = SimpleQueue()  # each with all that came before it
        self.replies: dict[str, str] = {}

    @contextmanager
    def running(self) -> Iterator[Server]:
        with self:
            thread = threading.Thread(target=self.serve_forever, args=(0.01,))
            thread.start()
            yield self
            self.shutdown()
            thread.join()


class Session(socketserver.StreamRequestHandler):
    def say(self, verb: str, usual: str) -> str:
        reply = self.server.replies.get(verb, usual)
        self.wfile.write(reply.encode() + b"\r\n")
        return reply

    def handle(self) -> None:
        self.say("connect", "220 test")
        while line := self.rfile.readline():
            verb = line.split()[0].decode().upper()
            self.server.commands.append(line.decode().rstrip("\r\n"))
            if verb == "EHLO":
                self.say(verb, "250-test\r\n250-8BITMIME\r\n250 SMTPUTF8")
            elif verb == "DATA" and self.say(verb, "354 go on").startswith("354"):
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    self.server.content += line
                self.say("content", "250 2.0.0 Ok: queued as X")
                self.server.messages.put(self.server.content)
            elif verb == "QUIT":
                self.say(verb, "221 bye")
                return
            elif verb != "DATA":
                self.say(verb, "250 ok")


@dataclass(frozen=True)
class Commands:
    """``gateway --config FILE ...`` in this process; real processes are in test_process.py."""

    file: Path

    def __call__(self, *arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, ["--config", str(self.file), *arguments], input=stdin)

    def ok(self, *arguments: str, stdin: str | None = None) -> str:
        done = self(*arguments, stdin=stdin)
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    @contextmanager
    def with_more(self, settings: str) -> Iterator[None]:
        """This behind what stands in the file, for a while; a running service has taken over the old afterwards."""
        before = self.file.read_text()
        try:
            self.file.write_text(f"{before}\n{settings}\n")
            yield
        finally:
            self.file.write_text(before)
            self.ok("reload")
