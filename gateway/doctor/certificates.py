"""Certificates of listeners: what clients that look at them will find, and the TLS that they really get."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from gateway.config.models import ListenerSettings
from gateway.config.values import parse_bind
from gateway.doctor import chain
from gateway.doctor.finding import Finding, finding
from gateway.doctor.host import reached
from gateway.doctor.subject import Subject
from gateway.doctor.talk import NoSmtp, Talk, any_tls
from gateway.pools import read_files
from gateway.trust import VERSIONS

_OLD = ("1.0", "1.1")  # deprecated by RFC 8996
_POLICY = "see MinProtocol and CipherString in /etc/ssl/openssl.cnf, and update-crypto-policies"


async def look(subject: Subject, tell: Callable[[Finding], None]) -> None:
    settings, now = subject.settings, subject.clock.now()
    secure = {name: one for name, one in settings.listeners.items() if one.tls != "none"}
    if not secure:
        return

    async def one(name: str, section: ListenerSettings) -> None:
        for found in await read_files(partial(chain.examine, name, section, settings.hostname, now)):
            tell(found)
        if subject.runs and name in subject.ports:
            await _offered(name, section, subject.ports[name], await read_files(subject.host.addresses), tell)

    await asyncio.gather(*(one(name, section) for name, section in secure.items()))
    if not subject.runs:
        what = "which versions of TLS clients really get is seen only while the service runs"
        tell(
            Finding(
                key="needs_service",
                area="certificates",
                level="unknown",
                what=what,
                fix="start it, then run the doctor again",
                paste="gateway doctor --area certificates",
            )
        )


async def _offered(
    name: str, section: ListenerSettings, port: int, addresses: list[str], tell: Callable[[Finding], None]
) -> None:
    """Tries each version that the settings allow, so that the log holds no handshake that was meant to fail."""
    about, where = f"listeners.{name}", next(iter(reached(parse_bind(section.bind)[0], addresses)), "")
    allowed = [version for version in VERSIONS if version >= section.min_tls]
    tried = await asyncio.gather(*(_handshake(where, port, section, version) for version in allowed))
    found = [version for version, good in zip(allowed, tried, strict=True) if good]
    if not found:
        return  # area listeners tells of that
    shown = ", ".join(found)
    tell(finding("tls_offered", "good", f"{about} offers TLS {shown}", about=about))
    if missing := [version for version in allowed if version in _OLD and version not in found]:
        what = f"min_tls allows TLS {section.min_tls}, but {', '.join(missing)} does not work on this machine"
        fix = "the system's policy for OpenSSL forbids it: devices that know nothing newer cannot connect"
        tell(finding("tls_old_refused", "warn", what, fix, paste=_POLICY, about=about))
    if old := [version for version in found if version in _OLD]:
        what = f"TLS {', '.join(old)} is offered, as min_tls says; who listens in can break it"
        fix = "let only devices that know nothing better reach this listener; for all others have one with min_tls 1.2"
        tell(finding("tls_old_offered", "note", what, fix, paste=f'{about}.min_tls: "1.2"', about=about))


async def _handshake(host: str, port: int, section: ListenerSettings, version: str) -> bool:
    context = any_tls(version)
    try:
        talk = await Talk.open(host, port, section, tls=context)
    except (OSError, NoSmtp):
        return False
    try:
        if section.tls == "starttls":
            await talk.say("EHLO gateway-doctor.invalid")
            await talk.secure(context)
        return True
    except (OSError, NoSmtp):
        return False
    finally:
        await talk.goodbye()
