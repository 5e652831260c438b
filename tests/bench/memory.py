"""Row 9, and what a connection holds: resident memory of a real process, read from /proc."""

from __future__ import annotations

import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import trustme

from tests.bench.kit import Effort, gateway, paused, pid, scratch, smtp_source, stored, wait_until
from tests.bench.table import Row
from tests.flow.kit import Gateway, free_port

NAMES = ("rss-large", "rss-through", "rss-idle", "rss-tls", "rss-data")
_GOAL = 1.2
_FEW, _MANY = 500, 1500  # connections
_LARGE, _PARALLEL = 25 << 20, 20  # octets of a message, and how many at once
_LIMITS = "limits: {memory: 2GB, connections: 2000, connections_per_ip: 2000}\n"
_DATA = 100_000  # octets of a message that is not ended
_ENVELOPE = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"


def run(wanted: set[str], _: Effort) -> Iterator[Row]:
    """Each in a process of its own: what one has freed the next would fill."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        disk, tls = stack.enter_context(scratch()), free_port()
        authority = trustme.CA()
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(disk / "tls.pem")
        (disk / "tls.pem").chmod(0o600)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        pair = f"certificate: {disk}/tls.pem, private_key: {disk}/tls.pem"
        with_tls = f'listeners: {{tls: {{bind: "127.0.0.1:{tls}", tls: implicit, {pair}}}}}\n'
        kinds: dict[str, tuple[str, str, Callable[[Gateway], socket.socket]]] = {
            "rss-idle": ("an idle connection holds", "", lambda service: _greeted(service.port)),
            "rss-tls": ("with TLS it holds", with_tls, lambda _: _greeted(tls, trusting)),
            "rss-data": (f"in DATA, {_DATA // 1000} kB received, it holds", "", lambda service: _in_data(service.port)),
        }
        for name, (what, listeners, connect) in kinds.items():
            if name in wanted:
                with gateway(disk / name, listeners + _LIMITS) as service:
                    yield Row(name, what, f"{_each(service, connect) / 1024:.1f} KiB")
        for name, what, goal in (("rss-large", "accepted", _GOAL), ("rss-through", "and sent on", None)):
            if name in wanted:
                with gateway(disk / name, _LIMITS) as service:
                    if goal:
                        paused(service, "box")
                    yield _large(service, name, what, goal)


def _large(service: Gateway, name: str, what: str, goal: float | None) -> Row:
    smtp_source(service.port, 500, 1024)
    before, there = resident(service), stored(service)
    Path(f"/proc/{pid(service)}/clear_refs").write_text("5")  # proc_pid_clear_refs(5): the peak begins anew
    smtp_source(service.port, _PARALLEL, _LARGE, sessions=_PARALLEL)
    if stored(service) - there != _PARALLEL:
        raise AssertionError("not all are stored")
    wait_until(lambda: quiet(service), "the end of work")
    growth, later = (resident(service, each) - before for each in ("VmHWM", "VmRSS"))
    what = f"peak growth of memory : 20 x 25 MiB at once, {what} (then {later / 1e6:.0f} MB)"
    payload = _PARALLEL * _LARGE
    ours, theirs = f"{growth / 1e6:.0f} MB", f"{payload / 1e6:.0f} MB"
    return Row(name, what, ours, theirs, growth / payload, goal, at_least=False)


def _each(service: Gateway, connect: Callable[[Gateway], socket.socket]) -> float:
    """The first ones fill what was free."""
    with ExitStack() as stack:
        held = []
        for count in (_FEW, _MANY - _FEW):
            for _ in range(count):
                stack.enter_context(connect(service))
            wait_until(lambda: quiet(service), "the end of work")
            held.append(resident(service))
        return (held[1] - held[0]) / (_MANY - _FEW)


def quiet(service: Gateway) -> bool:
    """It does nothing for half a second."""
    before = _burnt(service)
    time.sleep(0.5)
    return _burnt(service) - before < 2  # hundredths of a second


def _burnt(service: Gateway) -> int:
    return sum(map(int, Path(f"/proc/{pid(service)}/stat").read_text().rpartition(")")[2].split()[11:13]))


def _greeted(port: int, context: ssl.SSLContext | None = None) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=30)
    if context is not None:
        made = context.wrap_socket(made, server_hostname="localhost")
    _said(made, 220)
    made.sendall(b"EHLO client.example\r\n")
    _said(made, 250)
    return made


def _in_data(port: int) -> socket.socket:
    made = _greeted(port)
    for command in _ENVELOPE.splitlines(keepends=True):
        made.sendall(command)
        _said(made, 354 if command.startswith(b"DATA") else 250)
    made.sendall(b"Subject: x\r\n\r\n" + (b"y" * 76 + b"\r\n") * (_DATA // 78))
    return made


def _said(connection: socket.socket, code: int) -> None:
    heard = b""
    while not heard.endswith(b"\n") or b"%d " % code not in heard:
        piece = connection.recv(4096)
        heard += piece
        if not piece or heard[:1] in (b"4", b"5"):
            raise AssertionError(heard)


def resident(service: Gateway, what: str = "VmRSS") -> int:
    """Bytes."""
    lines = Path(f"/proc/{pid(service)}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))
