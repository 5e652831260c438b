"""Listeners: whether their ports can be had before a start, and whether they answer while the service runs."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from functools import partial

from gateway.config.models import ListenerSettings
from gateway.config.values import parse_bind
from gateway.doctor.finding import Finding, finding
from gateway.doctor.host import Host, reached
from gateway.doctor.subject import Subject
from gateway.doctor.talk import NoSmtp, Talk, any_tls, why
from gateway.pools import read_files
from gateway.ports import cannot_listen, holder
from gateway.url import is_loopback

_MANY = 8  # addresses of one listener that are tried
_NAME = "gateway-doctor.invalid"
# What listens on port 25 calls itself in /proc -> the unit to stop.
_MTAS = {"master": "postfix", "exim4": "exim4", "exim": "exim4", "sendmail": "sendmail", "opensmtpd": "opensmtpd"}
_CAPABLE = "[Service]\nAmbientCapabilities=CAP_NET_BIND_SERVICE"


async def look(subject: Subject, tell: Callable[[Finding], None]) -> None:
    settings, host = subject.settings, subject.host
    binds = {f"listeners.{name}.bind": one.bind for name, one in settings.listeners.items()}
    if not subject.runs:
        if settings.http.bind:
            binds["http.bind"] = settings.http.bind
        for found in await read_files(lambda: [_free(key, bind, host) for key, bind in binds.items()]):
            tell(found)
        tell(_needs_service())
    else:
        addresses = await read_files(host.addresses)
        sections = settings.listeners.items()
        await asyncio.gather(
            *(
                _answers(name, one, subject.ports[name], addresses, tell)
                for name, one in sections
                if name in subject.ports
            )
        )
    for found in await read_files(partial(_around, dict(settings.listeners), host)):
        tell(found)


def _needs_service() -> Finding:
    what = "whether the listeners answer, and with which TLS, is seen only while the service runs"
    fix = "start it, then run the doctor again"
    return Finding(
        key="needs_service",
        area="listeners",
        level="unknown",
        what=what,
        fix=fix,
        paste="systemctl start gateway\ngateway doctor",
    )


# -- before a start ---------------------------------------------------------------------------------------------------


def _free(key: str, bind: str, host: Host) -> Finding:
    """Binds, and lets go at once: nobody can connect meanwhile."""
    name, port = parse_bind(bind)
    try:
        if not port:
            return finding("port_free", "good", f"{key} takes any free port", about=key)
        with socket.socket(socket.AF_INET6 if ":" in name else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if ":" in name:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((name, port))
            probe.listen(1)
    except OSError as error:
        return _cannot(key, bind, port, error, host)
    if not host.may_bind(port):  # root who asks for somebody else
        return finding("port_privileged", "bad", f"{bind} needs a right that this user has not", about=key)
    return finding("port_free", "good", f"{bind} is free", about=key)


def _cannot(key: str, bind: str, port: int, error: OSError, host: Host) -> Finding:
    text = str(cannot_listen(key, bind, error)).partition(": ")[2]
    if error.errno == errno.EADDRINUSE:
        unit = _unit(holder(port))
        paste = f"systemctl disable --now {unit}" if unit else f"ss -ltnp 'sport = :{port}'"
        return finding("port_taken", "bad", f"{bind} cannot be had", text, paste=paste, about=key)
    if error.errno in (errno.EACCES, errno.EPERM) and port < 1024:
        return _low(key, bind, port, text, host)
    return finding("port_other", "bad", f"{bind} cannot be had", text, about=key)


def _low(key: str, bind: str, port: int, text: str, host: Host) -> Finding:
    """A port below 1024, seen by a user who may not have it; the service may, by its unit."""
    granted = host.ask("systemctl", "show", "gateway", "--property=AmbientCapabilities", "--value")
    if "cap_net_bind_service" not in granted.lower():
        paste = f"systemctl edit gateway\n{_CAPABLE}"
        return finding("port_privileged", "bad", f"{bind} cannot be had by this user", text, paste=paste, about=key)
    if other := holder(port):
        paste = f"systemctl disable --now {_unit(other)}" if _unit(other) else f"ss -ltnp 'sport = :{port}'"
        what = f"{bind} cannot be had: {other} has it"
        return finding("port_taken", "bad", what, "stop that, or write another port", paste=paste, about=key)
    return finding("port_free", "good", f"{bind} is free, and the unit may have it", about=key)


def _unit(program: str) -> str:
    return _MTAS.get(program.partition(" ")[0], "")


# -- while it runs ----------------------------------------------------------------------------------------------------


async def _answers(
    name: str, section: ListenerSettings, port: int, addresses: list[str], tell: Callable[[Finding], None]
) -> None:
    about, tried = f"listeners.{name}", reached(parse_bind(section.bind)[0], addresses)[:_MANY]
    bad: list[Finding] = []
    found = await asyncio.gather(*(_talk(address, port, section) for address in tried))
    for address, (key, said) in zip(tried, found, strict=True):
        if not key:
            continue
        what = f"it listens, but at {_shown(address, port)} " + ("TLS fails" if "tls" in key else "nobody answers")
        fix = "look for its line event=tls_failed in the log, and at area certificates" if "tls" in key else ""
        fix = fix or "look for a firewall on this machine, and for this listener's lines in the log"
        paste = f"openssl s_client -connect {_shown(address, port)}"
        paste += " -starttls smtp" if section.tls == "starttls" else ""
        bad.append(finding(key, "bad", what, fix, said=said, paste=paste, about=about))
    for one in bad:
        tell(one)
    if not bad:
        shown = ", ".join(_shown(address, port) for address in tried)
        secure = {"none": "", "starttls": " with STARTTLS", "implicit": " with TLS"}[section.tls]
        tell(finding("listener_good", "good", f"{about} answers{secure} at {shown}", about=about))


async def _talk(address: str, port: int, section: ListenerSettings) -> tuple[str, str]:
    """What is wrong, as a key, and in whose words; ("", "") for nothing."""
    key = "listener_tls" if section.tls == "implicit" else "listener_silent"
    try:
        talk = await Talk.open(address, port, section)
    except (OSError, NoSmtp) as error:
        return key, why(error)
    try:
        if not talk.greeting.ok:
            return "listener_silent", str(talk.greeting)
        hello = await talk.say(f"EHLO {_NAME}")
        if section.tls == "starttls":
            key = "listener_tls"
            if "STARTTLS" not in hello.lines:
                return key, "STARTTLS is not offered"
            await talk.secure(any_tls())
            hello = await talk.say(f"EHLO {_NAME}")
        return ("", "") if hello.ok else ("listener_silent", str(hello))
    except (OSError, NoSmtp) as error:
        return key, why(error)
    finally:
        await talk.goodbye()


def _shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


# -- around it --------------------------------------------------------------------------------------------------------


def _around(listeners: dict[str, ListenerSettings], host: Host) -> list[Finding]:
    """Another mail server here, and what a firewall may keep away."""
    found = []
    ports = {parse_bind(one.bind)[1] for one in listeners.values()}
    if 25 not in ports and (other := holder(25)):
        what = f"port 25 of this machine belongs to {other}: programs that send to localhost reach that one"
        unit = _unit(other)
        fix = "leave it if you mean it; else stop it, and give a listener bind: 127.0.0.1:25"
        paste = f"systemctl disable --now {unit}" if unit else ""
        found.append(finding("other_mta", "note", what, fix, paste=paste))
    wall = host.firewall()
    for name, one in listeners.items():
        address, port = parse_bind(one.bind)
        if is_loopback(address) or not port:
            continue
        what = f"whether a firewall lets others through to port {port} is not seen from this machine"
        opens = {
            "ufw": f"ufw allow {port}/tcp",
            "firewalld": f"firewall-cmd --permanent --add-port={port}/tcp && firewall-cmd --reload",
        }.get(wall, "")
        fix = "on another machine try the last line" + (
            f"; {wall} is on here, the first line opens the port" if wall else ""
        )
        lines = [opens, f"nc -vz {_name_or_address(address)} {port}"]
        paste = "\n".join(filter(None, lines))
        found.append(finding("listener_firewall", "note", what, fix, paste=paste, about=f"listeners.{name}"))
    return found


def _name_or_address(address: str) -> str:
    return "THIS-MACHINE" if address in ("0.0.0.0", "::") else address  # noqa: S104 - compared, not bound
