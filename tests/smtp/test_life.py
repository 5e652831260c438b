"""A connection's limits and its end: floods, silence, slowness, half-closing, resets, and the stop of the service."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config.models import LimitSettings
from gateway.message import repaired
from gateway.model import CannotCarry, CannotTell, Capabilities, HookRefused, NewMessage, SpoolTrouble
from gateway.refusals import FAULTS
from gateway.smtp.limits import Shared
from tests.fakes import until
from tests.smtp.kit import MESSAGE, Peer, Rig, reset, rig

LINES_15K = (b"y" * 76 + b"\r\n") * 200
BODY = b"From: a@b.c\r\n\r\n" + (b"x" * 76 + b"\r\n") * 1000


def later(made: Rig, seconds: float) -> None:
    """Time passes and the listener looks at its sessions."""
    made.clock.advance(seconds)
    made.listener.sweep()


async def turned(made: Rig) -> None:
    """What was sent until now has been read: a connection made later has been served."""
    peer = await made.connect()
    await peer.talk(("QUIT", "221"))


class Commit:
    """A spool whose commit waits until it is let go."""

    def __init__(self, made: Rig) -> None:
        self.made = made
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        made.put = self

    async def begin(self, peer: Peer) -> None:
        """A message of this client waits for its commit."""
        await peer.envelope()
        peer.send(MESSAGE + b".\r\n")
        await self.started.wait()

    async def __call__(self, message: NewMessage) -> None:
        self.started.set()
        await self.go.wait()
        await self.made.store(message)


# -- connections


async def test_too_many_connections() -> None:
    """421 instead of the greeting; one that leaves makes room; the listener lives."""
    async with rig(limits={"connections": 3, "connections_per_ip": 2}) as made:
        first, _ = await made.connect(), await made.connect()
        assert (await made.connect()).greeting.startswith("421 4.7.0")
        await made.connect(address="127.0.0.2")
        last = await made.connect(address="127.0.0.3")
        assert last.greeting.startswith("421 4.3.2")
        assert await last.rest() == b""
        await first.talk(("QUIT", "221"))
        await until(lambda: made.metric("smtp_connections_open") == 2)
        assert (await made.connect()).greeting.startswith("220")
        assert made.metric("smtp_rejected_total", stage="connect", reason="too_many_connections") == 2


def test_connections_of_ipv6_are_counted_by_network() -> None:
    """A host there has 2**64 addresses; an IPv4 address counts alone, however it is written."""
    shared, limits = Shared(), LimitSettings(connections_per_ip=2)
    for first, second, third in (
        ("2001:db8::1", "2001:db8::2:3", "2001:db8::ffff"),
        ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"),
    ):
        assert shared.connect(first, limits) is None
        assert shared.connect(second, limits) is None
        refusal = shared.connect(third, limits)
        assert refusal is not None
        assert (refusal.code, refusal.reason) == (421, "too_many_connections")
        shared.disconnect(second)
        assert shared.connect(third, limits) is None
    assert shared.connect("2001:db8:0:1::1", limits) is None
    assert shared.connect("192.0.2.2", limits) is None


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_the_listener_survives_a_lack_of_descriptors(caplog: pytest.LogCaptureFixture) -> None:
    """EMFILE in accept: the client waits, and is served when there are descriptors again."""
    async with rig() as made:
        waiting = [socket.socket() for _ in range(3)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (waiting[-1].fileno() + 1, hard))
        try:
            for sock in waiting:
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", made.listener.port))
            await until(lambda: any("out of system resource" in record.message for record in caplog.records))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        greetings = [await asyncio.get_running_loop().sock_recv(sock, 100) for sock in waiting]
        assert [greeting[:3] for greeting in greetings] == [b"220"] * 3
        for sock in waiting:
            sock.close()


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_uvloop_hangs_up_where_descriptors_are_lacking() -> None:
    """EMFILE in accept: libuv closes what waits (uv__emfile_trick). Who comes later is served."""
    async with rig() as made:
        place = ("127.0.0.1", made.listener.port)
        await (await made.connect()).talk(("QUIT", "221"))  # all is loaded that a connection needs
        waiting = [socket.socket() for _ in range(3)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for sock in waiting:
            sock.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (waiting[-1].fileno() + 1, hard))
        try:
            for sock in waiting:
                await asyncio.get_running_loop().sock_connect(sock, place)
            heard = [await asyncio.get_running_loop().sock_recv(sock, 100) for sock in waiting]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert heard == [b""] * 3
        await (await made.connect()).talk(("QUIT", "221"))
        for sock in waiting:
            sock.close()


async def test_mapped_addresses_are_ipv4() -> None:
    """::ffff:127.0.0.1 is a client of 127.0.0.1/32."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    async with rig(listener={"bind": "[::]:0"}) as made:
        both = socket.create_server(("::", 0), dualstack_ipv6=True, family=socket.AF_INET6)
        peer, _ = await made.connect_through(both)
        assert (await peer.deliver()).startswith("250")
        assert made.messages[0].peer == "127.0.0.1"


# -- time


async def greeted(peer: Peer) -> None:
    pass


async def in_a_line(peer: Peer) -> None:
    peer.send(b"EH")


async def in_a_login(peer: Peer) -> None:
    await peer.talk(("EHLO c", "250"), ("AUTH LOGIN", "334"))


async def in_a_transaction(peer: Peer) -> None:
    await peer.talk(("EHLO c", "250"), ("MAIL FROM:<a@b.c>", "250"))


async def before_a_message(peer: Peer) -> None:
    await peer.envelope()


async def in_a_message(peer: Peer) -> None:
    await peer.envelope()
    peer.send(b"Subject: x\r\n\r\nhel")


async def after_a_message(peer: Peer) -> None:
    assert (await peer.deliver()).startswith("250")


STATES = [greeted, in_a_line, in_a_login, in_a_transaction, before_a_message, in_a_message, after_a_message]


@pytest.mark.parametrize("state", STATES)
async def test_silence(state: Callable[[Peer], Awaitable[None]]) -> None:
    """421 4.4.2 after limits.idle of it in every state, by default the 5 minutes of RFC 5321 4.5.3.2, no sooner."""
    async with rig() as made:
        peer = await made.connect()
        await state(peer)
        await turned(made)
        later(made, 299)
        await turned(made)
        assert "rejected" not in [line["event"] for line in made.logged()]
        later(made, 2)
        assert (await peer.reply()).startswith("421 4.4.2 Timeout")
        assert await peer.rest() == b""
        assert [line["reason"] for line in made.logged() if line["event"] == "rejected"] == ["idle"]


async def test_slow_clients_are_waited_for() -> None:
    """A printer at one octet now and then is not silent, be it in a command, in a login or in a message."""
    async with rig(limits={"idle": "60s"}) as made:
        peer = await made.connect()
        for line, reply in (
            (b"EHLO c\r\n", "250"),
            (b"AUTH PLAIN\r\n", "334"),
            (b"*\r\n", "501"),
            (b"MAIL FROM:<a@b.c>\r\n", "250"),
            (b"RCPT TO:<b@c.d>\r\n", "250"),
            (b"DATA\r\n", "354"),
            (MESSAGE + b".\r\n", "250"),
        ):
            for octet in line:
                later(made, 59)
                await turned(made)
                peer.send(bytes([octet]))
                await turned(made)
            assert (await peer.reply(plain=True)).startswith(reply)
        assert len(made.messages) == 1


@pytest.mark.parametrize("state", STATES[:4])
async def test_where_connections_run_out_a_command_must_come_at_once(state: Callable[[Peer], Awaitable[None]]) -> None:
    """As Postfix under stress: ten seconds for all of it, when nine tenths of limits.connections are taken."""
    async with rig(limits={"connections": 10, "connections_per_ip": 10}) as made:
        peer, *others = [await made.connect() for _ in range(9)]
        await state(peer)
        for _ in range(3):
            later(made, 3)
            peer.send(b"x")
            for other in others:
                await other.talk(("NOOP", "250"))
        assert made.metric("smtp_connections_open") == 9
        later(made, 2)
        assert (await peer.reply()).startswith("421 4.4.2")
        await until(lambda: made.metric("smtp_connections_open") == 8)
        later(made, 100)
        await others[0].talk(("NOOP", "250"))


@pytest.mark.parametrize(
    ("others", "ahead", "room"), [(0, 0, 2_000_000), (7, 0, 2_000_000), (0, 18, 2_000_000), (0, 0, 900_000)]
)
async def test_where_room_runs_out_a_message_must_come_at_500_octets_a_second(
    others: int, ahead: int, room: int
) -> None:
    """Of connections, of memory for that network, or of the spool's. Only the slow one is cut off, and only then."""
    async with rig(limits={"connections": 10, "memory": 400_000, "max_size": 300_000}) as made:
        slow, steady = await made.connect(), await made.connect()
        await slow.envelope()
        await steady.envelope()
        slow.send(LINES_15K * ahead)
        steady.send(b"Subject: x\r\n\r\n" + b"y" * 5000 + b"\r\n")
        await until(lambda: made.shared.memory.total > len(LINES_15K) * ahead + 5000)
        later(made, 10)
        for _ in range(others):
            await made.connect(address="127.0.0.2")
        made.room.octets = room
        slow.send(b"x" * 4990)
        steady.send(b"y" * 4998 + b"\r\n")
        await turned(made)
        later(made, 10)
        if others or ahead or room < 1_000_000:
            assert (await slow.reply()).startswith("421 4.4.2 Message arrives too slowly")
            assert made.metric("smtp_rejected_total", stage="data", reason="idle") == 1
        else:
            assert (await slow.say(b"\r\n.\r\n")).startswith("554 5.6.0")
        assert (await steady.say(b".\r\n")).startswith("250")


LF_MESSAGE = MESSAGE.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("end", [b".\n", b".\r\n", b"\r\n.\n", b"\r.\r"])
async def test_who_ends_a_message_with_bare_newlines_hears_so_at_once(end: bytes) -> None:
    """Where they are not tolerated, nobody waits for an end that cannot come: 550, counted, and closed."""
    async with rig() as made:
        peer = await made.connect()
        await peer.envelope()
        assert (await peer.say(LF_MESSAGE + end)).startswith("550 5.5.2 Lines must end with CR LF")
        assert await peer.rest() == b""
        assert made.metric("smtp_rejected_total", stage="data", reason="bad_newlines") == 1
        assert made.messages == []


async def test_who_does_not_stop_at_a_false_end_hears_so_soon() -> None:
    """A script sends QUIT with it and then waits."""
    async with rig() as made:
        peer = await made.connect()
        await peer.envelope()
        peer.send(LF_MESSAGE + b".\nQUIT\n")
        await turned(made)
        later(made, 6)
        assert (await peer.reply()).startswith("550 5.5.2 Lines must end with CR LF")
        assert await peer.rest() == b""


@pytest.mark.parametrize("end", [b".\n", b".\r\n", b"\r\n.\n"])
async def test_where_bare_newlines_are_tolerated_a_false_end_is_named_too(end: bytes) -> None:
    """Who ends commands with CR LF must end the message so; what looks like an end is not waited behind for long."""
    async with rig(listener={"tolerate": ["bare_newlines"]}) as made:
        peer = await made.connect()
        await peer.envelope()
        peer.send(LF_MESSAGE + end)
        await turned(made)
        later(made, 11)
        assert (await peer.reply()).startswith("550 5.5.2 The dot at the end stands between bare newlines")
        assert await peer.rest() == b""
        assert made.metric("smtp_rejected_total", stage="data", reason="bad_newlines") == 1


async def test_lines_that_end_in_cr_alone_are_called_so() -> None:
    """No line comes of them, so nothing can be said before the time is up."""
    async with rig() as made:
        peer = await made.connect()
        peer.send(b"HELO plc\rMAIL FROM:<a@b.c>\r")
        await turned(made)
        later(made, 301)
        assert (await peer.reply()).startswith("500 5.5.2 Lines must end with CR LF, not with CR alone")
        assert made.metric("smtp_rejected_total", stage="command", reason="bad_newlines") == 1


async def test_a_commit_under_way_has_no_deadline() -> None:
    async with rig(limits={"idle": "60s"}) as made:
        commit = Commit(made)
        peer = await made.connect()
        await commit.begin(peer)
        later(made, 10_000)
        commit.go.set()
        assert (await peer.reply()).startswith("250")


async def test_who_does_not_read_is_cut_off() -> None:
    """A last reply that nobody takes is not waited for without end, nor is more read meanwhile."""
    async with rig(limits={"idle": "60s", "max_recipients": 1_000_000}) as made:
        small = socket.create_server(("127.0.0.1", 0))
        small.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer, wire = await made.connect_through(small)
        for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, buffer, 4096)
        peer.writer.transport.pause_reading()
        peer.send(b"EHLO c\r\nMAIL FROM:<a@b.c>\r\n" + b"".join(b"RCPT TO:<%d@x.y>\r\n" % n for n in range(100_000)))
        line: asyncio.Transport = wire.transport
        low, _ = line.get_write_buffer_limits()  # between the two it is as full as it was before
        await until(lambda: line.get_write_buffer_size() > low and not line.is_reading())
        same, left = 0, 0
        while same < 20:  # until nothing more is taken from the client for a while
            await turned(made)
            before, left = left, peer.writer.transport.get_write_buffer_size()
            same = same + 1 if left == before else 0
        assert left > 1_000_000
        later(made, 61)
        later(made, 11)
        await until(lambda: made.metric("smtp_connections_open") == 0)


# -- half-closing and resets


async def test_half_closed_client_gets_its_replies() -> None:
    """printf | nc -N: everything is obeyed and answered after the client stopped sending."""
    async with rig() as made:
        peer = await made.connect()
        peer.send(b"EHLO c\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<b@c.d>\r\nDATA\r\n" + MESSAGE + b".\r\nQUIT\r\n")
        peer.writer.write_eof()
        text = (await peer.rest()).decode()
        assert "250 2.0.0 Ok: queued as" in text
        assert text.endswith("221 2.0.0 Bye\r\n")
        assert len(made.messages) == 1


@pytest.mark.parametrize("how", ["half-close", "close", "reset"])
async def test_a_client_that_leaves_does_not_cancel_the_commit(how: str) -> None:
    """The message is stored, whole, and the next one is no worse off (RFC 5321 6.1)."""
    async with rig() as made:
        commit = Commit(made)
        peer = await made.connect()
        await commit.begin(peer)
        if how == "half-close":
            peer.writer.write_eof()
        elif how == "close":
            peer.writer.close()
        else:
            reset(peer)
        await turned(made)
        commit.go.set()
        if how == "half-close":
            assert (await peer.reply()).startswith("250")
        await until(lambda: made.metric("messages_received_total", client="localhost") == 1)
        await until(lambda: made.metric("smtp_connections_open") == 0)
        assert len(made.messages) == 1
        assert (await (await made.connect()).deliver()).startswith("250")


@pytest.mark.parametrize("step", range(7))
@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_leaving_at_every_step(step: int, how: str) -> None:
    """Nothing is stored without the final dot, nothing is left behind."""
    steps = [b"EHLO c\r\n", b"MAIL FROM:<a@b.c>\r\n", b"RCPT TO:<b@c.d>\r\n", b"DATA\r\n", MESSAGE, b".", b"\r\nQU"]
    async with rig() as made:
        peer = await made.connect()
        for number, line in enumerate(steps[:step]):
            peer.send(line)
            if number < 4:
                await peer.reply(plain=True)
        if how == "half-close":
            peer.writer.write_eof()
            await peer.rest()
        elif how == "close":
            await peer.close()
        else:
            reset(peer)
        await until(lambda: made.metric("smtp_connections_open") == 0)
        await until(lambda: not made.listener.tasks)
        assert len(made.messages) == 0
        assert made.shared.memory.total == 0
        assert made.registry.get_sample_value("gateway_bugs_total") in (None, 0.0)


# -- memory


async def test_memory_budget() -> None:
    """What does not fit into limits.memory is 452 4.3.1, declared or not; what was begun ends well; all comes back."""
    async with rig(limits={"memory": 200_000, "max_size": 160_000}) as made:
        first, second, third = [await made.connect() for _ in range(3)]
        await first.envelope("<a@b.c> SIZE=120000")
        first.send(BODY)
        await until(lambda: made.shared.memory.total > len(BODY) - 100)
        assert made.shared.memory.total <= len(BODY)
        await second.envelope()
        await third.talk(("EHLO c", "250"), ("MAIL FROM:<a@b.c> SIZE=90000", "250"), ("RCPT TO:<b@c.d>", "250"))
        await third.talk(("DATA", "452 4.3.1"), ("NOOP", "250"))
        second.send(BODY + BODY)
        assert (await second.say(b".\r\n")).startswith("452 4.3.1")
        await second.talk(("NOOP", "250"))
        assert (await first.say(b".\r\n")).startswith("250")
        assert made.shared.memory.total == 0
        assert not made.shared.memory
        assert (await second.deliver(BODY)).startswith("250")


async def test_no_room_in_the_spool_is_told_before_the_upload() -> None:
    """452 4.3.1 at MAIL (RFC 1870 6.1); declared octets are kept from DATA on, so that many at once do not overshoot.

    Without SIZE it is told at the end, when there is no room for what has come; all that was kept comes back.
    """
    async with rig() as made:
        made.room.octets = 100_000
        first, second, third = await made.connect(), await made.connect(), await made.connect()
        await first.talk(("EHLO c", "250"), ("MAIL FROM:<a@example.com> SIZE=100001", "452 4.3.1"))
        await first.talk(("MAIL FROM:<a@example.com> SIZE=60000", "250"), ("RCPT TO:<b@example.org>", "250"))
        await second.talk(("EHLO c", "250"), ("MAIL FROM:<a@example.com> SIZE=60000", "250"))
        await first.talk(("DATA", "354"))
        assert made.room.held == 60_000
        await second.talk(("RCPT TO:<b@example.org>", "250"), ("DATA", "452 4.3.1"))
        await second.talk(("MAIL FROM:<a@example.com> SIZE=40001", "452 4.3.1"))
        await third.talk(("EHLO c", "250"), ("MAIL FROM:<a@example.com>", "250"), ("RCPT TO:<b@example.org>", "250"))
        await third.talk(("DATA", "354"))
        assert (await third.say(b"x" * 60 + b"\r\n" + BODY[:50_000] + b"\r\n.\r\n")).startswith("452 4.3.1")
        assert (await first.say(MESSAGE + b".\r\n")).startswith("250")
        assert made.room.held == 0
        made.room.octets = -1
        await first.talk(("MAIL FROM:<a@example.com>", "452 4.3.1"))
        assert {line["reason"] for line in made.logged() if line["event"] == "rejected"} == {"spool_full"}


async def test_room_kept_for_a_client_that_vanishes_comes_back() -> None:
    """In mid-upload."""
    async with rig() as made:
        peer = await made.connect()
        await peer.talk(("EHLO c", "250"), ("MAIL FROM:<a@example.com> SIZE=60000", "250"))
        await peer.talk(("RCPT TO:<b@example.org>", "250"), ("DATA", "354"))
        await until(lambda: made.room.held == 60_000)
        await peer.close()
        await until(lambda: made.room.held == 0)


async def test_memory_is_not_reserved_by_words() -> None:
    """SIZE= alone takes nothing from anybody; only octets that have arrived count."""
    async with rig(limits={"memory": 200_000, "max_size": 160_000}) as made:
        for _ in range(5):
            await (await made.connect()).envelope("<a@b.c> SIZE=150000")
        assert made.shared.memory.total == 0
        assert (await (await made.connect()).deliver(BODY)).startswith("250")


async def test_one_address_gets_half_of_the_memory() -> None:
    """A sender with many connections leaves the other half to the others."""
    clients = {"all": {"networks": ["127.0.0.0/8"]}}
    async with rig(clients=clients, limits={"memory": 400_000, "max_size": 160_000}) as made:
        greedy = [await made.connect() for _ in range(3)]
        for peer in greedy:
            await peer.envelope()
            peer.send(BODY)
        assert (await greedy[2].say(b".\r\n")).startswith("452 4.3.1")
        assert (await (await made.connect(address="127.0.0.2")).deliver(BODY)).startswith("250")
        for peer in greedy[:2]:
            assert (await peer.say(b".\r\n")).startswith("250")
        assert not made.shared.memory


def test_an_ipv6_network_is_one_address_and_one_message_always_fits() -> None:
    """Its hosts share the half; a budget smaller than two of the largest messages still takes one."""
    limits, shared = LimitSettings(memory=1_000_000, max_size=700_000), Shared()
    assert shared.has_room("2001:db8::1", 700_000, limits)
    assert shared.reserve("2001:db8::1", 600_000, limits)
    assert not shared.has_room("2001:db8::2", 200_000, limits)
    assert shared.has_room("2001:db8:0:1::2", 200_000, limits)


@pytest.mark.parametrize("flood", [b"x" * 65536, b"\r\n" * 32768, b"..\r\n" * 16384])
async def test_endless_message_is_cut_off(flood: bytes) -> None:
    """552 once, then the connection is closed; nothing of it is taken for a command."""
    async with rig(limits={"max_size": 100_000}) as made:
        peer = await made.connect()
        await peer.envelope()
        reading = asyncio.ensure_future(peer.rest())
        with suppress(ConnectionError):
            for _ in range(100):
                peer.send(flood)
                await peer.writer.drain()
        with suppress(ConnectionError):
            text = await reading
            assert text.count(b"\r\n") <= 1
            assert text[:9] in (b"552 5.3.4", b"554 5.6.0", b"")
        await until(lambda: made.metric("smtp_connections_open") == 0)
        assert made.messages == []
        assert made.shared.memory.total == 0
        refused = [line for line in made.logged() if line["event"] == "rejected"]
        assert [line["stage"] for line in refused] == ["data"]


async def test_oversize_is_drained_and_the_session_goes_on() -> None:
    async with rig(limits={"max_size": 100_000}) as made:
        peer = await made.connect()
        reply = await peer.deliver(BODY + BODY + b"HELP\r\n..\r\nHELP\r\n")
        assert reply.startswith("552 5.3.4")
        await peer.talk(("NOOP", "250"))
        assert (await peer.deliver()).startswith("250")


# -- the stop


async def test_drain() -> None:
    """Idle sessions hear 421 4.3.2, one in DATA and one in its commit finish first; nobody new gets in."""
    async with rig() as made:
        commit = Commit(made)
        idle, sending, committing = [await made.connect() for _ in range(3)]
        await idle.talk(("EHLO c", "250"), ("MAIL FROM:<a@b.c>", "250"))
        await sending.envelope()
        await commit.begin(committing)
        draining = asyncio.ensure_future(made.listener.drain(20))
        assert (await idle.reply()).startswith("421 4.3.2")
        assert await idle.rest() == b""
        assert not made.listener.accepting
        with pytest.raises(ConnectionError):
            await made.connect()
        sending.send(MESSAGE + b".\r\n")
        commit.go.set()
        for peer in (sending, committing):
            assert (await peer.reply()).startswith("250")
            assert (await peer.reply()).startswith("421 4.3.2")
            assert await peer.rest() == b""
        await draining
        assert len(made.messages) == 2
        assert made.metric("smtp_connections_open") == 0


async def test_drain_has_an_end() -> None:
    """Who is not ready in time is cut off; a commit under way still ends."""
    async with rig() as made:
        commit = Commit(made)
        sending, committing = await made.connect(), await made.connect()
        await sending.envelope()
        await commit.begin(committing)
        draining = asyncio.ensure_future(made.listener.drain(0.01))
        await until(lambda: made.metric("smtp_connections_open") == 0)
        assert not draining.done()
        commit.go.set()
        await draining
        assert len(made.messages) == 1


async def test_a_listener_that_never_opened_can_be_drained() -> None:
    async with rig() as made:
        closed = made.new_listener()
        await closed.drain(1)
        assert not closed.accepting


async def test_the_sweeper_outlives_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in it is reported, and the next round comes."""
    async with rig(limits={"idle": "60s"}) as made:
        peer = await made.connect()
        with monkeypatch.context() as patch:
            patch.setattr(made.listener, "sweep", broken)
            await until(lambda: made.clock.sleepers > 0)
            made.clock.advance(3)
            await until(lambda: made.registry.get_sample_value("gateway_bugs_total") == 1)
        await until(lambda: made.clock.sleepers > 0)
        made.clock.advance(100)
        assert (await peer.reply()).startswith("421 4.4.2")


def broken() -> None:
    raise RuntimeError("no luck")


# -- fuzz

COMMANDS = st.sampled_from([
    b"EHLO x", b"HELO", b"MAIL FROM:<a@b.c>", b"MAIL FROM:<> SIZE=", b"RCPT TO:<b@c.d>", b"RCPT TO:", b"DATA", b".",
    b"RSET", b"AUTH PLAIN", b"AUTH LOGIN YQ==", b"AUTH XOAUTH2 =", b"*", b"STARTTLS", b"VRFY \xff", b"NOOP", b"..",
    b"X" * 3000,
])  # fmt: skip
LINES = st.lists(
    st.tuples(
        st.one_of(COMMANDS, st.binary(max_size=60)), st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b""])
    ),
    max_size=30,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=LINES, size=st.integers(1, 2000))
def test_command_fuzz(script: list[tuple[bytes, bytes]], size: int) -> None:
    """Any octets in any segmentation: replies of the right shape, then the end; no exception, nothing left."""
    asyncio.run(fuzz(b"".join(line + end for line, end in script), size))


async def fuzz(wire: bytes, size: int) -> None:
    async with rig() as made:
        peer = await made.connect()
        with suppress(ConnectionError):
            for at in range(0, len(wire), size):
                peer.send(wire[at : at + size])
            peer.writer.write_eof()
            while reply := await peer.reply(plain=True):
                assert reply[:1] in "2345"
        await until(lambda: made.metric("smtp_connections_open") == 0)
        assert made.registry.get_sample_value("gateway_bugs_total") in (None, 0.0)
        assert made.shared.memory.total == 0


# -- trouble below


@pytest.mark.parametrize(("kind", "name"), sorted((kind.__name__, name) for kind, name in FAULTS))
async def test_trouble_below_leaves_the_session_usable(kind: str, name: str) -> None:
    """Every Fault has its reply and its log line, and the next message of the same connection is taken."""
    cls = next(one for one, _ in FAULTS if one.__name__ == kind)
    fault = CannotCarry(name, "5.0.0", "so it is") if cls is CannotCarry else cls("so it is", name)
    async with rig() as made:
        peer = await made.connect()
        made.fail(fault)
        code, enhanced, reason = FAULTS[cls, name]
        assert (await peer.deliver()) == f"{code} {enhanced} so it is"
        made.put = made.store
        assert (await peer.deliver()).startswith("250")
        logged = [line for line in made.logged() if line["event"] == "rejected"]
        assert [(line["code"], line["reason"], line["stage"]) for line in logged] == [(code, reason, "data")]


@pytest.mark.parametrize(
    "error",
    [
        CannotTell("secret"),
        HookRefused("secret", "unsigned"),
        SpoolTrouble("secret"),
        CannotCarry("unheard", "5.0.0", "secret"),
        OSError("secret"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_no_table_knows_is_our_bug(error: Exception) -> None:
    """451 4.3.0 in our own words and a line "bug"; the connection and its next message are none the worse."""
    async with rig() as made:
        peer = await made.connect()
        made.fail(error)
        assert (await peer.deliver()) == "451 4.3.0 Temporary failure on our side, try again later"
        assert made.registry.get_sample_value("gateway_bugs_total") == 1
        made.put = made.store
        assert (await peer.deliver()).startswith("250")
        logged = {line["event"]: line for line in made.logged()}
        assert (logged["rejected"]["reason"], logged["rejected"]["stage"]) == ("internal", "data")
        assert logged["bug"]["error"] == type(error).__name__


async def test_nobody_waits_while_line_ends_are_repaired() -> None:
    """The loop spends next to nothing of what it costs to repair a large message."""
    odd = MESSAGE + b"a\n\rb\n\r\r" * 250_000  # counted as 12 octets each while it comes
    begun = time.thread_time()
    repaired(odd)
    cost = time.thread_time() - begun
    async with rig(listener={"tolerate": ["bare_newlines"]}) as made:
        peer = await made.connect()
        await peer.envelope()
        peer.send(odd)
        await until(lambda: made.shared.memory.total >= 12 * 250_000)
        begun = time.thread_time()
        assert (await peer.say(b"\r\n.\r\n")).startswith("250")
        assert time.thread_time() - begun < cost / 2


async def test_a_large_message_does_not_wait_behind_names() -> None:
    """A name server that hangs fills the loop's own threads; looking through mail has others."""
    free = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    particular = Capabilities(max_bytes=1_000_000, lacks=frozenset(("signed",)))
    async with rig(capabilities={"box": particular}) as made:
        peer = await made.connect()
        stuck = loop.run_in_executor(None, free.wait)
        try:
            async with asyncio.timeout(30):
                assert (await peer.deliver(BODY)).startswith("250")
            assert not stuck.done()
        finally:
            free.set()
            await stuck
