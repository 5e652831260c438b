"""Things seen, said as the door says them, and a proposal of them tried at the door's own rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.auth.clients import Clients
from gateway.backends import settings_types
from gateway.config.loading import load
from gateway.config.models import Settings
from gateway.intake import Rules, prepare
from gateway.learn.book import Book
from gateway.learn.ear import Ear
from gateway.message import Arrival
from gateway.model import Capabilities, Envelope, Fault, Refusal
from gateway.refusals import Refused, refusal_of
from gateway.routing import Routing
from gateway.transaction import Transaction
from tests.builders import START
from tests.fakes import FakeClock

CONFIG = """
hostname: relay.example.com
state_dir: STATE
listeners: {lan: {bind: "127.0.0.1:0"}}
backends: {box: {type: capture, directory: captured}}
"""
EVERYTHING = {"box": Capabilities(max_bytes=35_000_000)}


def settings(folder: Path, more: str = "clients: {}\n") -> Settings:
    """As from a file that ``more`` stands in."""
    file = folder / "config.yaml"
    file.write_text(CONFIG.replace("STATE", str(folder)) + more)
    return load(file, {}, settings_types()).settings


def mail(author: str) -> bytes:
    return f"From: {author}\r\nSubject: x\r\n\r\nhello\r\n".encode()


class Door:
    """Whether these settings would let mail in; no socket, the rules are those of every listener."""

    def __init__(self, found: Settings) -> None:
        self._rules = Rules.of(found, Routing(found.routes, EVERYTHING))
        self._clients = Clients(found)

    def refusal(self, peer: str, sender: str, author: str, recipients: Sequence[str]) -> str:
        """The reason, "" for none."""
        client = self._clients.by_network(peer)
        if client is None:
            return "relay_denied"
        arrival = Arrival("ID", START, "lan", peer, "helo", "ESMTP")
        try:
            transaction = Transaction(client, 0, Envelope(sender, ()), self._rules)
            for one in recipients:
                transaction.add(one, "", "")
            prepare(mail(author), transaction.envelope(), client, arrival, self._rules)
        except (Refusal, Fault) as error:
            refusal = refusal_of(error)
            return refusal.reason if refusal else "internal"
        return ""


def stranger(peer: str, sender: str, **more: Any) -> Refused:
    """Who is to be refused at MAIL."""
    given = {
        "listener": "lan", "stage": "mail", "reason": "relay_denied", "code": 550, "enhanced": "5.7.1",
        "text": "Relay access denied", "peer": peer, "helo": "scanner", "sender": sender,
    }  # fmt: skip
    return Refused(**{**given, **more})


def hear(book: Book, peer: str, sender: str, author: str, recipients: Sequence[str], clock: FakeClock) -> None:
    """One mail that is heard out."""
    ear = Ear("lan", book, clock, ())
    ear.heard(stranger(peer, sender or "<>"))
    for one in recipients:
        ear.recipient(peer, one)
    ear.message(peer, mail(author), 1000)
