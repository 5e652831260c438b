"""MAIL, RCPT and DATA in one write where the server takes that (RFC 2920), and replies that come when they like."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Verdict
from tests.backends import kit
from tests.backends.kit import ALL, RAW, SmtpFake, spooled
from tests.backends.test_smtp import SOON, both, verdicts
from tests.fakes import until

PLAIN = tuple(name for name in ALL if name != "PIPELINING")


class Mute(SmtpFake):
    """Says nothing to MAIL, and keeps what else it is sent."""

    heard = b""

    async def say(self, writer: asyncio.StreamWriter, reader: asyncio.StreamReader, reply: str) -> None:
        if self.commands[-1:] and self.commands[-1].startswith("MAIL"):
            self.heard = await reader.read()
            raise EOFError
        await super().say(writer, reader, reply)


@pytest.mark.parametrize(
    ("offers", "ahead"), [(ALL, b"RCPT TO:<b@x.example>\r\nRCPT TO:<c@x.example>\r\nDATA\r\n"), (PLAIN, b"")]
)
async def test_only_who_offers_it_is_spoken_to_ahead(tmp_path: Path, offers: tuple[str, ...], ahead: bytes) -> None:
    async with both(tmp_path, offers=offers, kind=Mute, timeout=SOON) as (way, server):
        outcomes = await way.send(spooled("b@x.example", "c@x.example"), RAW)
        assert {one.verdict for one in kit.kept(outcomes).values()} == {Verdict.DEFERRED}
        await until(server.closed.is_set)
        assert server.heard == ahead


class Hoarder(SmtpFake):
    """Keeps its replies back until DATA, and then gives all of them at once; ``extra`` behind the last of all."""

    extra = ""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.hoard: list[str] = []

    async def say(self, writer: asyncio.StreamWriter, reader: asyncio.StreamReader, reply: str) -> None:
        command = self.commands[-1] if self.commands else ""
        if command.startswith(("MAIL", "RCPT")):
            self.hoard.append(reply)
            return
        if reply == "250 2.0.0 Ok: queued as ABC123" and self.extra:
            reply = f"{reply}\r\n{self.extra}"
        hoard, self.hoard = self.hoard, []
        await super().say(writer, reader, "\r\n".join([*hoard, reply]))


async def test_no_reply_is_dropped_and_each_is_whose_it_is(tmp_path: Path) -> None:
    """Four replies in one packet, of which the second refuses."""
    replies = {"RCPT TO:<c@x.example>": "550 5.1.1 who?"}
    async with both(tmp_path, replies, kind=Hoarder) as (way, server):
        outcomes = await way.send(spooled("b@x.example", "c@x.example", "d@x.example"), RAW)
        assert verdicts(outcomes) == {
            "b@x.example": ("SENT", 250, "2.0.0"),
            "c@x.example": ("REJECTED", 550, "5.1.1"),
            "d@x.example": ("SENT", 250, "2.0.0"),
        }
        assert len(server.done[0].rcpt) == 2


@pytest.mark.parametrize("extra", ["421 4.3.2 going down", "250 2.0.0 what you said before"])
async def test_who_speaks_unasked_is_not_spoken_to_again(tmp_path: Path, extra: str) -> None:
    """Its next reply would be taken for that to another command; what it took it has taken."""
    async with both(tmp_path, kind=Hoarder) as (way, server):
        server.extra = extra
        for _ in range(2):
            assert verdicts(await way.send(spooled("b@x.example"), RAW)) == {"b@x.example": ("SENT", 250, "2.0.0")}
            await until(server.closed.is_set)
            server.closed.clear()
        assert (server.connections, len(server.done)) == (2, 2)


REFUSED = [
    ({"MAIL": ["550 5.7.1 not you", "250 ok"], "RCPT": ["503 5.5.1 MAIL first", "250 ok"]}, "REJECTED"),
    ({"RCPT": ["550 5.1.1 who?", "250 ok"]}, "REJECTED"),
    ({"RCPT": ["550 5.1.1 who?", "250 ok"], "DATA": "354 go"}, "REJECTED"),  # RFC 2920 3.1: a dot ends it
    ({"RCPT": ["450 4.2.1 later", "250 ok"], "DATA": ["503 5.5.1 RCPT first", "354 go"]}, "DEFERRED"),
]


@pytest.mark.parametrize(("replies", "verdict"), REFUSED)
async def test_what_was_said_ahead_is_heard_out(tmp_path: Path, replies: dict[str, Any], verdict: str) -> None:
    """Whoever is refused, the connection stays in step and serves the next; nobody gets the empty message."""
    async with both(tmp_path, replies) as (way, server):
        (outcome,) = kit.kept(await way.send(spooled("b@x.example"), RAW)).values()
        assert outcome.verdict.name == verdict
        assert verdicts(await way.send(spooled("d@x.example"), RAW)) == {"d@x.example": ("SENT", 250, "2.0.0")}
        assert server.connections == 1
        assert [(len(one.rcpt), one.wire == b".\r\n") for one in server.done if one.rcpt] == [(1, False)]


async def test_a_thousand_recipients_at_once(tmp_path: Path) -> None:
    """More than the buffers on the way hold, in both directions."""
    many = [f"{'r' * 50}{n}@x.example" for n in range(1000)]
    replies = {"RCPT": f"250 2.1.5 {'fine ' * 80}"}
    async with both(tmp_path, replies, max_recipients=1000) as (way, server):
        outcomes = await way.send(spooled(*many), RAW)
        assert {one.verdict for one in outcomes.values()} == {Verdict.SENT}
        assert [len(one.rcpt) for one in server.done] == [1000]


OUT_OF_STEP: list[dict[str, Any]] = [
    {"MAIL": ["550 5.7.1 not you", "250 ok"], "DATA": "354 go"},  # and yet it takes the recipients
    {"MAIL": ["354 what?", "250 ok"], "DATA": "354 go"},
    {"RCPT": ["250 ok", "354 what?", "250 ok"], "DATA": "354 go"},
    {"RCPT": ["550 5.1.1 who?", "354 what?", "250 ok"], "DATA": ["250 ok", "354 go"]},
    # What is refused to be undone is still there.
    {
        "RSET": "502 5.5.1 what?",
        "MAIL": ["250 ok", "503 5.5.1 nested MAIL", "250 ok"],
        "RCPT": ["550 5.1.1 who?", "550 5.1.1 who?", "250 ok"],
        "DATA": ["503 5.5.1 RCPT first", "354 go"],
    },
]


@pytest.mark.parametrize("replies", OUT_OF_STEP)
async def test_nobody_who_was_taken_gets_an_empty_message(tmp_path: Path, replies: dict[str, Any]) -> None:
    """DATA is said before it is known who is refused: where a dot would send something, the connection ends instead."""
    async with both(tmp_path, replies) as (way, server):
        outcomes = kit.kept(await way.send(spooled("b@x.example", "c@x.example"), RAW))
        assert Verdict.SENT not in {one.verdict for one in outcomes.values()}
        outcomes = await way.send(spooled("d@x.example"), RAW)
        assert verdicts(outcomes) == {"d@x.example": ("SENT", 250, "2.0.0")}
        assert [(one.rcpt, one.body) for one in server.done] == [(["RCPT TO:<d@x.example>"], RAW)]
        assert server.connections == 2


class Stuck(SmtpFake):
    """Says 354 and reads nothing of what it asked for."""

    async def _data(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, transaction: Any) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()


def _sockets() -> int:
    return sum(path.is_socket() for path in Path("/proc/self/fd").iterdir())


async def test_what_nobody_reads_is_not_kept(tmp_path: Path) -> None:
    """A connection whose server has stopped reading would wait for ever to write the rest, and write it at last."""
    async with both(tmp_path, kind=Stuck, timeout=SOON) as (way, server):
        before = _sockets()
        for _ in range(2):
            outcomes = await way.send(spooled("b@x.example"), RAW + b"x" * 20_000_000)
            assert {one.verdict for one in kit.kept(outcomes).values()} == {Verdict.DEFERRED}
        await until(lambda: _sockets() == before + server.connections)  # the server's own
