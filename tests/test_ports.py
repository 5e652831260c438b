"""Where nothing can be listened at: the setting, the address, whose it is and the way out stand in one line."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys

import pytest

from gateway.ports import BindError, cannot_listen, holder, listen

HERE = "cannot listen on listeners.mail.bind "


@pytest.mark.parametrize(
    ("bind", "error", "words"),
    [
        (
            "0.0.0.0:25",
            PermissionError(errno.EACCES, "Permission denied"),
            "port 25 is below 1024: .*CAP_NET_BIND_SERVICE",
        ),
        ("0.0.0.0:2525", PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        ("192.0.2.1:25", OSError(errno.EADDRNOTAVAIL, "x"), "no interface of this machine has that address"),
        ("[::1]:25", OSError(errno.EAFNOSUPPORT, "x"), "does not speak that kind of IP"),
        ("mail:25", socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "the name cannot be looked up"),
        (
            "127.0.0.1:1",
            OSError(errno.EADDRINUSE, "x"),
            r"taken by another program \(ss -ltnp sport = :1\): stop that, or",
        ),
    ],
)
def test_why(bind: str, error: OSError, words: str) -> None:
    with pytest.raises(OSError, match=words) as told:
        raise cannot_listen("listeners.mail.bind", bind, error)
    assert str(told.value).startswith(HERE + bind + ": ")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_who() -> None:
    """Another program by its name and process, ourselves as ourselves, nobody as nobody."""
    script = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin
        assert other.stdout
        port = int(other.stdout.readline())
        assert f"(process {other.pid})" in holder(port)
        other.stdin.close()
    assert holder(port) == ""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as own:
        assert holder(own.getsockname()[1]) == "this gateway itself, for another listener or http"


async def test_listening_beside_what_is_given_up() -> None:
    """The same address goes on with who waits in its queue; another with that port is had too; others' is not."""
    (first,) = await listen("listeners.a.bind", "127.0.0.1:0", ("127.0.0.1", 0), 5)
    port = first.getsockname()[1]
    with first, socket.create_connection(("127.0.0.1", port)) as waiting:
        with pytest.raises(BindError, match=r"listeners\.b\.bind x:\d+: port \d+ is taken by this gateway"):
            await listen("listeners.b.bind", f"x:{port}", ("0.0.0.0", port), 5)
        (same,) = await listen("listeners.a.bind", "x", ("127.0.0.1", port), 5, [first])
        (wide,) = await listen("listeners.b.bind", "x", ("0.0.0.0", port), 5, [first])
        with same, wide:
            first.close()
            accepted, peer = same.accept()
            accepted.close()
            assert peer == waiting.getsockname()
            same.close()
            with socket.create_connection(("127.0.0.1", port)) as later:
                accepted, peer = wide.accept()
                accepted.close()
                assert peer == later.getsockname()
            with pytest.raises(OSError, match="in use"):  # nobody shares it afterwards
                socket.create_server(("127.0.0.1", port))
