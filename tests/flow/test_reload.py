"""A reload takes listeners, HTTP and the log: new addresses are open before old ones go, and all of it or nothing."""

from __future__ import annotations

import json
import signal
import smtplib
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from gateway.http.client import AdminClient, SocketWay
from tests.flow.kit import Gateway, free_port

BODY = b"Subject: x\r\n\r\nhello\r\n"


class Running(Gateway):
    """A gateway whose settings a test writes whole, with the lines that are always there."""

    def write(self, **sections: str) -> None:
        """Each section as YAML on one line; ``listeners`` and ``http`` have something of their own otherwise."""
        given = {
            "hostname": "relay.test",
            "state_dir": str(self.directory / "state"),
            "listeners": f'{{local: {{bind: "127.0.0.1:{self.port}"}}}}',
            "http": f'{{bind: "127.0.0.1:{self.http_port}"}}',
            "limits": "{connections_per_ip: 200}",
            "spool": self.spool,
            **sections,
        }
        self.file.write_text("".join(f"{name}: {text}\n" for name, text in given.items() if text))

    def reload(self, path: str = "state/admin.sock", **sections: str) -> list[str]:
        """What changed, or the errors."""
        self.write(**sections)
        _, answer = AdminClient(SocketWay(self.directory / path)).call("POST", "/api/v1/reload", {})
        found: list[str] = answer.get("changes", answer.get("errors"))
        return found

    def get_at(self, port: int, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    def lines(self, event: str) -> list[dict[str, Any]]:
        every = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in every if line["event"] == event]


@pytest.fixture(scope="module")
def shared(engine: str) -> Iterator[Running]:
    with TemporaryDirectory(prefix="gw-") as folder, Running(Path(folder)) as one:
        yield one


@pytest.fixture
def running(shared: Running) -> Iterator[Running]:
    """With the settings of before, again and again."""
    shared.reload()
    yield shared
    shared.reload()


def begin(port: int, host: str = "127.0.0.1") -> smtplib.SMTP:
    """In the middle of a message."""
    smtp = smtplib.SMTP(host, port)
    smtp.ehlo()
    smtp.mail("a@example.com")
    smtp.rcpt("b@example.com")
    assert smtp.docmd("DATA")[0] == 354
    return smtp


def finish(smtp: smtplib.SMTP) -> str:
    """The id of a message that was in the middle."""
    smtp.send(BODY + b".\r\n")
    code, words = smtp.getreply()
    if code != 250:
        raise smtplib.SMTPDataError(code, words)
    return words.decode().split()[-1]


def hung_up(smtp: smtplib.SMTP) -> bool:
    with smtp.sock:  # type: ignore[union-attr]
        return smtp.getreply()[0] == 421


def send(port: int, host: str = "127.0.0.1") -> str:
    with smtplib.SMTP(host, port) as smtp:
        smtp.ehlo()
        smtp.mail("a@example.com")
        smtp.rcpt("b@example.com")
        code, words = smtp.data(BODY)
        if code != 250:
            raise smtplib.SMTPDataError(code, words)
        return words.decode().split()[-1]


def deaf(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) != 0


def test_listeners_come_and_go(running: Running) -> None:
    """A new one takes mail at once. One that is removed ends what is under way, then hangs up; its states are gone."""
    more, own = free_port(), running.port
    both = f'{{local: {{bind: "127.0.0.1:{own}"}}, more: {{bind: "127.0.0.1:{more}"}}}}'
    assert running.reload(listeners=both) == ["listeners.more: added"]
    send(more)
    found = json.loads(running.get("/api/v1/status")[1])["listeners"]["more"]
    assert (found["port"], found["accepting"]) == (more, True)
    idle, busy, other = smtplib.SMTP("127.0.0.1", more), begin(more), begin(own)
    assert running.reload() == ["listeners.more: removed"]
    assert hung_up(idle)
    assert deaf(more)
    ident = finish(busy)
    assert hung_up(busy)
    finish(other)
    other.quit()  # of a listener that stays: nobody hung up
    assert running.json("queue", "show", ident)["listener"] == "more"
    running.wait(lambda: 'smtp_connections_open{listener="more"}' not in running.get("/metrics")[1])
    assert 'gateway_smtp_connections_total{listener="more"} 3.0' in running.get("/metrics")[1]
    assert [check["ok"] for check in json.loads(running.get("/readyz")[1])["checks"]] == [True] * 4


@pytest.mark.parametrize("there", ["0.0.0.0:{port}", "localhost:{port}", "127.0.0.2:{port}", "127.0.0.1:{other}"])
def test_another_address(running: Running, there: str) -> None:
    """Also where the old one's port is the same; and back."""
    port, other = running.port, free_port()
    bind = there.format(port=port, other=other)
    busy = begin(port)
    assert running.reload(listeners=f'{{local: {{bind: "{bind}"}}}}') == ["listeners.local.bind: changed"]
    finish(busy)
    assert hung_up(busy)
    host, _, new = bind.rpartition(":")
    send(int(new), host)
    assert deaf(port) == (there not in ("0.0.0.0:{port}", "localhost:{port}"))
    assert running.reload() == ["listeners.local.bind: changed"]
    send(port)
    assert deaf(int(new), "127.0.0.2")


def test_what_cannot_be_had(running: Running) -> None:
    """Nothing of such a reload is taken, neither what could be had nor the rest of the settings."""
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        taken = foreign.getsockname()[1]
        listeners = f'{{local: {{bind: "127.0.0.1:{free}"}}, more: {{bind: "127.0.0.1:{taken}"}}}}'
        socket_before = (running.directory / "state" / "admin.sock").stat().st_ino
        (said,) = running.reload(listeners=listeners, http="{bind: '', socket: other.sock}", hostname="other.test")
    assert said.startswith(f"cannot listen on listeners.more.bind 127.0.0.1:{taken}: port {taken} is taken by ")
    assert deaf(free)
    assert not (running.directory / "state" / "other.sock").exists()
    assert (running.directory / "state" / "admin.sock").stat().st_ino == socket_before
    assert json.loads(running.get("/api/v1/status")[1])["hostname"] == "relay.test"
    send(running.port)
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        (said,) = running.reload(http=f'{{bind: "127.0.0.1:{foreign.getsockname()[1]}"}}')
    assert said.startswith("cannot listen on http.bind ")
    assert running.get("/readyz")[0] == 200


def test_addresses_change_hands(running: Running) -> None:
    """Two listeners and HTTP swap their ports in one reload: each address is taken from who gives it up."""
    a, b, c = running.port, free_port(), running.http_port
    two = '{{local: {{bind: "127.0.0.1:{}"}}, more: {{bind: "127.0.0.1:{}"}}}}'
    running.reload(listeners=two.format(a, b))
    assert running.reload(listeners=two.format(b, c), http=f'{{bind: "127.0.0.1:{a}"}}') == [
        "listeners.local.bind: changed",
        "listeners.more.bind: changed",
        "http.bind: changed",
    ]
    for port, name in ((b, "local"), (c, "more")):
        assert running.json("queue", "show", send(port))["listener"] == name
    found = json.loads(running.get_at(a, "/api/v1/status"))["listeners"]
    assert {name: one["port"] for name, one in found.items()} == {"local": b, "more": c}


def test_tls(running: Running, tmp_path: Path) -> None:
    """``tls`` at the same address, there and back."""
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=relay.test", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    tls = f'tls: starttls, certificate: "{certificate}", private_key: "{key}"'
    listeners = f'{{local: {{bind: "127.0.0.1:{running.port}", {tls}}}}}'
    running.reload(listeners=listeners)
    with smtplib.SMTP("127.0.0.1", running.port) as smtp:
        smtp.ehlo()
        assert smtp.has_extn("starttls")
    assert "gateway_tls_certificate_not_after_timestamp_seconds{" in running.get("/metrics")[1]
    running.reload()
    with smtplib.SMTP("127.0.0.1", running.port) as smtp:
        smtp.ehlo()
        assert not smtp.has_extn("starttls")


def test_http_moves(running: Running) -> None:
    """The order comes by the socket that goes, and is answered there; commands find the new one, the old is gone."""
    new = free_port()
    moved = f'{{bind: "127.0.0.1:{new}", socket: moved.sock}}'
    assert running.reload(http=moved) == ["http.bind: changed", "http.socket: changed"]
    assert running.get_at(new, "/healthz")
    assert running.run("healthcheck").returncode == 0
    running.wait(lambda: not (running.directory / "state" / "admin.sock").exists())
    running.wait(lambda: deaf(running.http_port))
    assert running.reload("state/moved.sock", http="{bind: '', socket: moved.sock}") == ["http.bind: changed"]
    running.wait(lambda: deaf(new))
    assert running.reload("state/moved.sock") == ["http.bind: changed", "http.socket: changed"]
    assert running.get("/healthz")[0] == 200


def test_http_moves_there_and_back_at_once(running: Running) -> None:
    """An address that it is just giving up is still its own."""
    there = f'{{bind: "127.0.0.1:{free_port()}"}}'
    for _ in range(3):
        assert running.reload(http=there) == ["http.bind: changed"]
        assert running.reload() == ["http.bind: changed"]
    assert running.get("/healthz")[0] == 200


def test_the_log(running: Running) -> None:
    """Form and level from the next line on, from every part."""
    assert set(running.reload(log="{format: console, level: warning}")) == {"log.format: changed", "log.level: changed"}
    before = len(running.log.read_text())
    for count in (1, 2):
        running.reload(log="{format: console, level: warning}", hostname="'-'")
        running.wait(lambda count=count: running.log.read_text()[before:].count("error   reloaded   ok=False") == count)
        send(running.port)
    assert "accepted" not in running.log.read_text()[before:]
    running.reload()
    send(running.port)
    running.wait(lambda: running.lines("accepted"))


@pytest.mark.slow
def test_limits(running: Running) -> None:
    """Those of the spool, too: a smaller spool shuts the door, and a larger one opens it again."""
    assert running.reload(limits="{spool_free: 1000TB}")[0].startswith(str(running.file))  # no such size
    assert running.reload(limits="{spool_free: 999999GB}") == [
        "limits.connections_per_ip: changed",
        "limits.spool_free: changed",
    ]
    running.wait(lambda: running.get("/readyz")[0] == 503)
    running.reload()
    running.wait(lambda: running.get("/readyz")[0] == 200)


def test_the_spool_stays(running: Running) -> None:
    """Another ``state_dir`` waits for a restart, is named at each reload, and takes no socket away."""
    elsewhere = str(running.directory / "elsewhere")
    for more, said in (("", {"limits.idle: changed"}), ("", set())):
        found = running.reload(state_dir=elsewhere, limits="{connections_per_ip: 200, idle: 7m}" + more)
        assert set(found) == said | {"state_dir: needs a restart"}
    assert running.get("/readyz")[0] == 200
    assert not (running.directory / "elsewhere").exists()


@pytest.mark.parametrize("hangups", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_hangups_under_load(running: Running, hangups: int) -> None:
    """The address changes all the time: nobody finds the door shut, and what heard 250 is here, each once."""
    taken: list[str] = []
    shut: list[str] = []
    over = threading.Event()

    def client() -> None:
        while not over.is_set():
            try:
                taken.append(send(running.port))
            except ConnectionRefusedError as error:
                shut.append(str(error))
            except smtplib.SMTPException:
                pass  # 421, or a 4xx: a client tries again

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(hangups):
            host = ("127.0.0.1", "0.0.0.0")[number % 2]
            running.write(listeners=f'{{local: {{bind: "{host}:{running.port}"}}}}')
            running.signal(signal.SIGHUP)
            count = len(taken)
            running.wait(lambda count=count: len(taken) > count)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert shut == []
    assert len(taken) == len(set(taken)) >= hangups
    known = {row["id"] for row in running.json("queue", "list", "--state", "all", "--limit", "100000")}
    assert set(taken) <= known
    assert running.lines("bug") == []
