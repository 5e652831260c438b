"""Ports before a start; answers, TLS and refusals of real listeners while the service runs."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.doctor import Finding, Subject
from gateway.doctor.host import Host, reached
from gateway.doctor.relay import DOMAIN, senders, spellings
from gateway.url import is_loopback
from tests.doctor.kit import found, levels, of, settings, subject
from tests.flow.kit import free_port
from tests.smtp.kit import Rig, rig

OUTER = next((one for one in Host().addresses() if not is_loopback(one) and ":" not in one), "")
needs_address = pytest.mark.skipif(not OUTER, reason="this machine has no address but loopback ones")
FIB = """\
Main:
  +-- 0.0.0.0/0 3 0 5
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 192.0.2.0
           /24 link UNICAST
           |-- 192.0.2.17
              /32 host LOCAL
           |-- 192.0.2.255
              /32 link BROADCAST
Local:
           |-- 192.0.2.17
              /32 host LOCAL
"""
IF6 = """\
00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000007 02 40 00 80     eth0
fe8000000000000000fc00fffe000001 02 40 20 80     eth0
"""


def host(folder: Path, files: Mapping[str, str]) -> Host:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return Host(folder, {})


def test_addresses_of_this_machine(tmp_path: Path) -> None:
    """Its own ones only, loopback first; those of a link need an interface beside them and are left out."""
    made = host(tmp_path, {"proc/net/fib_trie": FIB, "proc/net/if_inet6": IF6})
    assert made.addresses() == ["127.0.0.1", "::1", "192.0.2.17", "2001:db8::7"]
    assert reached("0.0.0.0", made.addresses()) == ["127.0.0.1", "192.0.2.17"]
    assert reached("::", made.addresses()) == ["::1", "2001:db8::7"]
    assert reached("198.51.100.1", made.addresses()) == ["198.51.100.1"]
    assert host(tmp_path / "none", {}).addresses() == []


@pytest.mark.parametrize(
    ("low", "capable", "port", "may"),
    [
        ("1024", "0", 25, False),
        ("1024", "400", 25, True),
        ("0", "0", 25, True),
        ("", "0", 25, False),
        ("1024", "0", 1024, True),
    ],
)
def test_low_ports(tmp_path: Path, low: str, capable: str, port: int, may: bool) -> None:
    """The right comes with the capability (bit 10), or where the machine needs none."""
    files = {"proc/sys/net/ipv4/ip_unprivileged_port_start": low, "proc/self/status": f"CapEff:\t{capable}\n"}
    assert host(tmp_path, files).may_bind(port) is may


async def test_ports_before_a_start(tmp_path: Path) -> None:
    """One that another program has is named with that program; what is seen only later is said to be."""
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        listeners = (
            f"listeners: {{a: {{bind: '127.0.0.1:{port}'}}, b: {{bind: '127.0.0.1:{free}'}}}}\nhttp: {{bind: ''}}\n"
        )
        result = await found(subject(settings(tmp_path, listeners), host=host(tmp_path, {})), "listeners")
    assert levels(result) == {
        "port_taken listeners.a.bind": "bad",
        "port_free listeners.b.bind": "good",
        "needs_service": "unknown",
    }
    assert f"port {port} is taken by" in of(result, "port_taken").fix


@pytest.mark.parametrize(
    ("files", "paste"),
    [
        ({"etc/ufw/ufw.conf": "ENABLED=yes\n"}, "ufw allow 2525/tcp\nnc -vz THIS-MACHINE 2525"),
        (
            {"run/firewalld.pid": "1"},
            "firewall-cmd --permanent --add-port=2525/tcp && firewall-cmd --reload\nnc -vz THIS-MACHINE 2525",
        ),
        ({}, "nc -vz THIS-MACHINE 2525"),
    ],
)  # fmt: skip
async def test_a_firewall_is_only_hinted_at(tmp_path: Path, files: Mapping[str, str], paste: str) -> None:
    """Nobody sees from inside what gets through; for a firewall that is known the line that opens the port."""
    read = settings(tmp_path, "listeners: {a: {bind: '0.0.0.0:2525'}}\n")
    result = await found(subject(read, host=host(tmp_path, files)), "listeners")
    assert of(result, "listener_firewall").paste == paste


def looked_at(made: Rig, tmp_path: Path, **more: Any) -> Subject:
    ports = {"local": made.listener.port}
    return subject(settings(tmp_path), settings=made.settings, at_start=made.settings, ports=ports, **more)


@asynccontextmanager
async def serving(**given: Any) -> AsyncIterator[Rig]:
    async with rig(**given) as made:
        yield made


def of_this(result: Sequence[Finding]) -> Mapping[str, str]:
    """Without what other programs of this machine have to do with."""
    return {key: level for key, level in levels(result).items() if key != "other_mta"}


async def test_a_listener_that_answers(tmp_path: Path) -> None:
    """It is tried at its address, and found good."""
    async with serving() as made:
        assert of_this(await found(looked_at(made, tmp_path), "listeners")) == {"listener_good listeners.local": "good"}


@pytest.mark.parametrize(("tls", "min_tls", "offered"), [("starttls", "1.2", "1.2, 1.3"), ("implicit", "1.3", "1.3")])
async def test_a_listener_with_tls(tmp_path: Path, tls: str, min_tls: str, offered: str) -> None:
    """What the settings say is what a client gets: real handshakes, one for each version that is allowed."""
    file, issued = tmp_path / "pair.pem", trustme.CA().issue_cert("relay.example.com")
    file.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
    pair = {"certificate": file, "private_key": file}
    async with serving(listener={"tls": tls, "min_tls": min_tls, **pair}) as made:
        looked = looked_at(made, tmp_path)
        assert of_this(await found(looked, "listeners")) == {"listener_good listeners.local": "good"}
        result = await found(looked, "certificates")
        assert of(result, "tls_offered").what == f"listeners.local offers TLS {offered}"
        assert "tls_failed" not in made.log.getvalue()


@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
async def test_a_listener_behind_a_load_balancer(tmp_path: Path, tls: str) -> None:
    """That lists loopback: the doctor asks as a balancer does that looks, and leaves no line."""
    file, issued = tmp_path / "pair.pem", trustme.CA().issue_cert("relay.example.com")
    file.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
    pair = {} if tls == "none" else {"certificate": file, "private_key": file}
    async with serving(listener={"tls": tls, "proxy_protocol_from": ["127.0.0.1"], **pair}) as made:
        looked = looked_at(made, tmp_path)
        assert of_this(await found(looked, "listeners")) == {"listener_good listeners.local": "good"}
        if tls != "none":
            result = await found(looked, "certificates")
            assert of(result, "tls_offered").what == "listeners.local offers TLS 1.2, 1.3"
        assert "rejected" not in made.log.getvalue()


async def test_a_listener_that_is_another(tmp_path: Path) -> None:
    """What answers there does not speak SMTP: its words are shown."""

    async def other(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n")
        await writer.drain()
        writer.close()

    async with serving() as made:
        server = await asyncio.start_server(other, "127.0.0.1", 0)
        ports = {"local": server.sockets[0].getsockname()[1]}
        looked = subject(settings(tmp_path), settings=made.settings, at_start=made.settings, ports=ports)
        result = await found(looked, "listeners")
        server.close()
    assert of_this(result) == {"listener_silent listeners.local": "bad"}
    assert "SSH-2.0-x" in of(result, "listener_silent").said


async def test_nobody_listens(tmp_path: Path) -> None:
    """Although the service thinks so."""
    async with serving() as made:
        looked = subject(
            settings(tmp_path), settings=made.settings, at_start=made.settings, ports={"local": free_port()}
        )
        assert of_this(await found(looked, "listeners")) == {"listener_silent listeners.local": "bad"}


# -- the relay test ----------------------------------------------------------------------------------------------------

STRANGERS = {"clients": {"localhost": {"networks": ["127.0.0.1/32"]}}}


@needs_address
async def test_a_load_balancer_is_refused_too(tmp_path: Path) -> None:
    """This machine's outer address is one: it is spoken to as that, and whom it does not name is nobody."""
    async with serving(listener={"bind": "0.0.0.0:0", "proxy_protocol_from": [OUTER]}, **STRANGERS) as made:
        result = await found(looked_at(made, tmp_path), "relay")
        assert levels(result) == {"relay_refused listeners.local": "good"}


@needs_address
@pytest.mark.parametrize("auth", ["off", "optional", "required"])
async def test_strangers_are_refused(tmp_path: Path, auth: str) -> None:
    """From an address that is no client's; every spelling, no mail, nobody locked out, and the log says who it was."""
    clients = {**STRANGERS["clients"], "tokens": {"token": "*"}}
    async with serving(listener={"bind": "0.0.0.0:0", "auth": auth}, clients=clients) as made:
        result = await found(looked_at(made, tmp_path), "relay")
        assert levels(result) == {"relay_refused listeners.local": "good"}
        tried = len(spellings("h", OUTER)) + len(senders("h")) - 1
        assert f"({OUTER}) all {tried} spellings" in result[0].what
        assert made.messages == []
        lines = [json.loads(line) for line in made.log.getvalue().splitlines()]
        assert not [one for one in lines if one.get("event") == "auth"]
        assert (await made.connect()).greeting.startswith("220")


@needs_address
async def test_an_open_relay_is_found(tmp_path: Path) -> None:
    """A server that takes what it should not: which spelling, in its own words. It never gets any DATA."""
    said: list[str] = []

    async def open_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 open\r\n")
        while line := (await reader.readline()).decode().strip():
            said.append(line)
            taken = not line.startswith("RCPT") or f"%{DOMAIN}@relay.example.com" in line
            writer.write(b"250 ok\r\n" if taken else b"550 no\r\n")
            if line == "QUIT":
                break
        writer.close()

    server = await asyncio.start_server(open_one, OUTER, 0)
    port = server.sockets[0].getsockname()[1]
    async with serving(listener={"bind": "0.0.0.0:0"}, **STRANGERS) as made:
        looked = subject(settings(tmp_path), settings=made.settings, at_start=made.settings, ports={"local": port})
        result = await found(looked, "relay")
    server.close()
    assert levels(result) == {"relay_open listeners.local": "bad"}
    assert f"%{DOMAIN}@relay.example.com" in result[0].said
    assert {line.split()[0] for line in said} == {"EHLO", "MAIL", "RCPT", "QUIT"}


@pytest.mark.parametrize(
    ("bind", "networks", "key"),
    [
        ("127.0.0.1:0", ["127.0.0.1/32"], "relay_local"),
        pytest.param("0.0.0.0:0", ["127.0.0.0/8", f"{OUTER or '192.0.2.1'}/32"], "relay_unseen", marks=needs_address),
    ],
)
async def test_where_no_address_is_a_strangers(tmp_path: Path, bind: str, networks: list[str], key: str) -> None:
    """It is not pretended that it was tried: either nobody else comes there, or it is said how to try it."""
    made_host = (
        Host()
        if key == "relay_local"
        else host(tmp_path / "root", {"proc/net/fib_trie": f"|-- {OUTER}\n/32 host LOCAL\n"})
    )
    async with serving(listener={"bind": bind}, clients={"localhost": {"networks": networks}}) as made:
        result = await found(looked_at(made, tmp_path, host=made_host), "relay")
    assert [one.key for one in result] == [key]
    assert (f"RCPT TO:<gateway-doctor@{DOMAIN}>" in result[0].paste) is (key == "relay_unseen")


async def test_an_open_relay_that_is_meant(tmp_path: Path) -> None:
    """It stands in the report at each run, so that nobody forgets it."""
    read = settings(tmp_path, "clients: {world: {networks: ['0.0.0.0/0'], open_relay: true}}\n")
    assert levels(await found(subject(read), "relay")) == {
        "relay_meant clients.world": "warn",
        "needs_service": "unknown",
    }
