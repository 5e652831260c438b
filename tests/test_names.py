"""gateway.names: who hangs delays only those who ask for the same name; every ending says what is the matter."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

from gateway.fetch import Fetch, NotSent
from gateway.names import Address, Names, ask_system
from tests.backends.kit import Server, Web, http
from tests.fakes import until
from tests.names_kit import HERE, NameServer


@pytest.fixture
def server() -> Iterator[NameServer]:
    found = NameServer()
    yield found
    found.answer()


def failing(error: Exception) -> Callable[[str], Sequence[Address]]:
    def resolve(host: str) -> Sequence[Address]:
        raise error

    return resolve


async def test_many_who_wait_for_one_name_ask_once_and_hear_the_same(server: NameServer) -> None:
    """With one thread for each send, ten sends to one dead name would use up what the others need."""
    names = Names(server)
    asking = [asyncio.create_task(names.find("hangs.test")) for _ in range(100)]
    await until(lambda: server.asked == ["hangs.test"])
    assert await names.find("good.test") == (HERE,)
    assert server.asked == ["hangs.test", "good.test"]
    assert not any(task.done() for task in asking)
    server.answer()
    assert await asyncio.gather(*asking) == [(HERE,)] * 100


async def test_each_look_up_is_fresh(server: NameServer) -> None:
    """Whoever moves a server must not wait for us to forget the old address."""
    names = Names(server)
    for _ in range(3):
        await names.find("good.test")
    assert server.asked == ["good.test"] * 3


async def test_who_leaves_takes_nobody_with_him(server: NameServer) -> None:
    names = Names(server)
    leaves, stays = (asyncio.create_task(names.find("hangs.test")) for _ in range(2))
    await until(lambda: server.asked == ["hangs.test"])
    leaves.cancel()
    await asyncio.wait((leaves,))
    server.answer()
    assert await stays == (HERE,)
    assert leaves.cancelled()


async def test_no_answer_in_time_says_where_to_look(server: NameServer) -> None:
    names = Names(server)
    with pytest.raises(socket.gaierror) as error:
        await names.find("hangs.test", seconds=0.05)
    assert error.value.strerror == ("the name server gave no answer for hangs.test within 0.05 s; see /etc/resolv.conf")
    assert server.asked == ["hangs.test"]
    with pytest.raises(socket.gaierror, match="gave no answer"):
        await names.find("hangs.test", seconds=0.05)
    assert server.asked == ["hangs.test"]  # it is still being asked


async def test_however_many_names_hang_others_are_found(server: NameServer) -> None:
    """Who has a hundred hosts behind a name server that is silent still reaches the one that stands in /etc/hosts."""
    names = Names(server)
    hanging = [asyncio.create_task(names.find(f"hangs{number}.test")) for number in range(100)]
    assert await asyncio.wait_for(names.find("good.test"), 5) == (HERE,)
    server.answer()
    assert await asyncio.gather(*hanging) == [(HERE,)] * 100


async def test_an_address_needs_no_name_server(server: NameServer) -> None:
    for numeric in ("127.0.0.1", "::1", "fe80::1%lo"):
        assert [address.host for address in await Names(server).find(numeric)] == [numeric]
    assert server.asked == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "Temporary failure"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (UnicodeError("label empty or too long"), "not a host name"),
        (RuntimeError("a bug"), "a bug"),
    ],
)
async def test_every_failure_is_a_gaierror_that_names_the_host(error: Exception, text: str) -> None:
    """Also for each of those who wait together: an exception raised twice keeps both tracebacks."""
    names = Names(failing(error))
    failed = await asyncio.gather(*(names.find("x.test") for _ in range(2)), return_exceptions=True)
    for one in failed:
        assert isinstance(one, socket.gaierror)
        assert one.strerror == f"cannot find x.test: {text}"
    assert failed[0] is not failed[1]


async def test_a_host_without_addresses_is_not_found() -> None:
    with pytest.raises(socket.gaierror, match=r"cannot find x\.test: no address"):
        await Names(lambda host: ()).find("x.test")


@pytest.mark.parametrize("host", ["", "a..b", "x" * 64 + ".test", "nowhere.invalid", "127.0.0.1:25", "\0"])
async def test_whatever_stands_for_a_name_ends_in_a_gaierror(host: str) -> None:
    with pytest.raises(socket.gaierror, match=f"cannot find {re.escape(host)}: "):
        await Names().find(host)


def test_the_system_knows_this_machine() -> None:
    assert HERE in ask_system("localhost")


def test_a_name_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    """The loop's own threads, and those of a ThreadPoolExecutor, are waited for at the end, for ever."""
    program = (
        "import asyncio, threading\n"
        "from gateway.names import Names\n"
        "async def main():\n"
        "    try: await Names(lambda host: threading.Event().wait()).find('hangs.test', seconds=0.01)\n"
        "    except OSError as error: print(error.strerror)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.startswith("the name server gave no answer")
    assert done.stderr == ""


# -- to a connection -------------------------------------------------------------------------------------------------


class Quiet(Server):
    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port on 127.0.0.2 where connections get no answer: its queue is full, and further SYN packets are dropped."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for filler in fillers:
            filler.close()


def places(*hosts: str) -> Names:
    return Names(lambda _: [Address(socket.AF_INET6 if ":" in host else socket.AF_INET, host) for host in hosts])


async def test_the_next_address_is_tried_when_one_refuses() -> None:
    async with Quiet() as server:
        for hosts in (("127.0.0.9", "127.0.0.1"), ("::1", "127.0.0.1"), ("127.0.0.1", "127.0.0.9")):
            with await places(*hosts).connect("x.test", server.port, seconds=5) as made:
                assert made.getpeername() == ("127.0.0.1", server.port)


async def test_the_next_address_is_tried_beside_one_that_is_silent(silent: int) -> None:
    """A machine whose IPv6 leads nowhere would use up the time for the connection on the first address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", silent))
        listener.listen()
        with await places("127.0.0.2", "127.0.0.1").connect("x.test", silent, seconds=50) as made:
            assert made.getpeername() == ("127.0.0.1", silent)


async def test_a_connection_that_nobody_answers_times_out(silent: int) -> None:
    with pytest.raises(TimeoutError) as error:
        await places("127.0.0.2").connect("x.test", silent, seconds=0.1)
    assert error.value.errno == errno.ETIMEDOUT


async def test_when_all_refuse_the_best_address_is_the_one_told_of() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(ConnectionRefusedError, match=r"127\.0\.0\.3"):
            await places("127.0.0.3", "127.0.0.4").connect("x.test", port, seconds=5)


async def test_small_packets_leave_at_once() -> None:
    """asyncio switches Nagle's algorithm off only where the protocol is named; with it each command may wait 40 ms."""
    async with Quiet() as server:
        made = await Names().connect("127.0.0.1", server.port, seconds=5)
        _, writer = await asyncio.open_connection(sock=made)
        assert writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()


# -- by HTTP ---------------------------------------------------------------------------------------------------------


async def test_http_finds_its_hosts_by_names_and_is_not_held_up(server: NameServer) -> None:
    """Twenty requests to a name that hangs, then one to another host, and one to the same by its address."""
    fetch = Fetch(names=Names(server))
    async with Web(lambda request: http(200, request.headers["host"])) as web:
        hanging = [asyncio.create_task(fetch.request("POST", "https://hangs.test:1/", deadline=50)) for _ in range(20)]
        await until(lambda: server.asked == ["hangs.test"])
        for host in ("localhost", "127.0.0.1"):
            answer = await fetch.request("POST", f"http://{host}:{web.port}/", deadline=50)
            assert answer.body.decode() == f"{host}:{web.port}"
        assert server.asked == ["hangs.test", "localhost"]
        assert not any(task.done() for task in hanging)
        server.answer()
        for error in await asyncio.gather(*hanging, return_exceptions=True):
            assert isinstance(error, NotSent)
            assert str(error).startswith("cannot connect to hangs.test:1: ")
    await fetch.aclose()


async def test_http_says_that_it_is_the_name_server(server: NameServer) -> None:
    fetch = Fetch(names=Names(server))
    with pytest.raises(NotSent, match=r"^the name server gave no answer for hangs\.test within .* s; see /etc/resolv"):
        await fetch.request("POST", "https://hangs.test/", deadline=0.5)
    await fetch.aclose()


async def test_the_name_of_a_proxy_is_found_the_same_way(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://hangs.proxy.test:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    fetch = Fetch(names=Names(server))
    with pytest.raises(NotSent, match=r"^the name server gave no answer for hangs\.proxy\.test within"):
        await fetch.request("POST", "https://api.test/", deadline=0.5)
    assert server.asked == ["hangs.proxy.test"]
    await fetch.aclose()
