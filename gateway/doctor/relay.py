"""Whether strangers can send mail through here: tried as one of them, by every spelling that ever fooled a server.

No DATA is ever said, so there is no mail, and no password is tried, so nobody is locked out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from ipaddress import ip_network

from gateway.config.models import ClientSettings, ListenerSettings
from gateway.config.values import parse_bind
from gateway.doctor.finding import Finding, finding
from gateway.doctor.host import reached
from gateway.doctor.subject import Subject
from gateway.doctor.talk import NoSmtp, Talk, any_tls, why
from gateway.networks import prefix_length
from gateway.pools import read_files
from gateway.url import is_loopback

NAME = "gateway-doctor.invalid"  # by which its refusals are known in the log
MAILBOX, DOMAIN = "gateway-doctor", "open-relay-test.invalid"  # RFC 2606: nobody has it
_CLOSE = "take that network out of the setting clients, or set auth: required on this listener; now"


async def look(subject: Subject, tell: Callable[[Finding], None]) -> None:
    settings = subject.settings
    for name, client in settings.clients.items():
        if client.open_relay:
            what = f"clients.{name} has open_relay: true: its networks may send to anybody, whoever is in them"
            fix = "see that only those you mean can reach this gateway from there"
            tell(finding("relay_meant", "warn", what, fix, about=f"clients.{name}"))
    if not subject.runs:
        what = "whether strangers are refused is seen only while the service runs"
        fix = "start it, then run the doctor again"
        tell(
            Finding(
                key="needs_service",
                area="relay",
                level="unknown",
                what=what,
                fix=fix,
                paste="gateway doctor --area relay",
            )
        )
        return
    addresses = await read_files(subject.host.addresses)
    anonymous = [one for one in settings.clients.values() if not one.logs_in]
    await asyncio.gather(
        *(
            _listener(name, one, subject.ports[name], addresses, anonymous, settings.hostname, tell)
            for name, one in settings.listeners.items()
            if name in subject.ports
        )
    )


async def _listener(
    name: str, section: ListenerSettings, port: int, addresses: Sequence[str], anonymous: Sequence[ClientSettings],
    hostname: str, tell: Callable[[Finding], None],
) -> None:  # fmt: skip
    about = f"listeners.{name}"
    outer = [one for one in reached(parse_bind(section.bind)[0], addresses) if not is_loopback(one)]
    if not outer:
        what = f"{about} is reached from this machine only" if is_loopback(parse_bind(section.bind)[0]) else ""
        if what:
            tell(finding("relay_local", "good", what, about=about))
        else:
            tell(_unseen(about, port, "this machine has no address but loopback ones"))
        return
    networks = [ip_network(text) for one in anonymous for text in one.networks]
    strangers = [one for one in outer if section.auth == "required" or prefix_length(networks, one) < 0]
    if not strangers:
        tell(_unseen(about, port, f"clients holds every address of this machine ({', '.join(outer[:3])})"))
        return
    where = strangers[0]
    try:
        taken, tried = await _try(where, port, section, hostname)
    except (OSError, NoSmtp) as error:
        tell(_unseen(about, port, f"no conversation at {where}: {why(error)}"))
        return
    if taken:
        what = f"a stranger may send to others by it: {len(taken)} of {tried} spellings were taken"
        paste = f"{about}.auth: required"
        tell(finding("relay_open", "bad", what, _CLOSE, said=taken[0], paste=paste, about=about))
    else:
        what = f"{about} refused a stranger ({where}) all {tried} spellings of an address elsewhere"
        tell(finding("relay_refused", "good", what, about=about))


def _unseen(about: str, port: int, reason: str) -> Finding:
    what = f"whether it refuses strangers cannot be tried from here: {reason}"
    fix = "on a machine outside your networks type these; both MAIL and RCPT must be answered with 5"
    lines = f"nc THIS-MACHINE {port}\nEHLO {NAME}\nMAIL FROM:<{MAILBOX}@{DOMAIN}>\nRCPT TO:<{MAILBOX}@{DOMAIN}>\nQUIT"
    return finding("relay_unseen", "unknown", what, fix, paste=lines, about=about)


def senders(hostname: str) -> tuple[str, ...]:
    """A stranger's own, none at all, and ours, which some servers trust."""
    return f"{MAILBOX}@{DOMAIN}", "", f"postmaster@{hostname}"


def spellings(hostname: str, address: str) -> tuple[str, ...]:
    """Of one mailbox elsewhere: plain, and with a request to pass it on (RFC 5321 C and F.2, RFC 976)."""
    literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
    return (
        f"{MAILBOX}@{DOMAIN}",
        f"{MAILBOX}%{DOMAIN}@{hostname}",
        f"{MAILBOX}%{DOMAIN}@{literal}",
        f"{DOMAIN}!{MAILBOX}@{hostname}",
        f'"{MAILBOX}@{DOMAIN}"@{hostname}',
        f'"{MAILBOX}@{DOMAIN}"',
        f"@{hostname}:{MAILBOX}@{DOMAIN}",
        f"{MAILBOX}@{DOMAIN}@{hostname}",
    )


async def _try(host: str, port: int, section: ListenerSettings, hostname: str) -> tuple[list[str], int]:
    """What was taken, with the reply, and how much was tried. Raises OSError and NoSmtp before anything was."""
    taken: list[str] = []
    tried = 0
    for number, sender in enumerate(senders(hostname)):
        talk = await Talk.open(host, port, section, source=host)
        try:
            hello = await talk.say(f"EHLO {NAME}")
            if section.tls == "starttls" and "STARTTLS" in hello.lines:
                await talk.secure(any_tls())
                await talk.say(f"EHLO {NAME}")
            mail = await talk.say(f"MAIL FROM:<{sender}>")
            # Where MAIL is refused RCPT can only be refused, too: all spellings once, then one.
            for one in spellings(hostname, host)[: None if mail.ok or not number else 1]:
                reply = await talk.say(f"RCPT TO:<{one}>")
                tried += 1
                if reply.ok:
                    taken.append(f"MAIL FROM:<{sender}> {mail}; RCPT TO:<{one}> {reply}")
                if reply.code == 421:
                    break
        finally:
            await talk.goodbye()
    return taken, tried
