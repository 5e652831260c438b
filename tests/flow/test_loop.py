"""The service on each event loop that can be set: mail in over kept connections, out with TLS and a login."""

from __future__ import annotations

import smtplib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.flow.kit import Gateway, free_port

_CLIENTS = 10
_MOST = 7  # messages of one connection, as Exchange and others have it


class Smarthost:
    """Takes few messages of a connection and counts them; ``logins``: how often somebody has come."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        self.logins = 0

    def authenticate(self, _server: SMTP, _session: Session, _: Envelope, _mechanism: str, data: object) -> AuthResult:
        self.logins += 1
        return AuthResult(success=isinstance(data, LoginPassword) and data.password == b"secret")

    async def handle_MAIL(  # noqa: N802
        self, _: SMTP, session: Session, envelope: Envelope, sender: str, options: list[str]
    ) -> str:
        count = session.count = getattr(session, "count", 0) + 1
        if count > _MOST:
            return "421 4.7.0 Too many messages in this connection"
        envelope.mail_from, envelope.mail_options = sender, options
        return "250 2.1.0 Ok"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.taken[envelope.rcpt_tos[0]] += 1
        return "250 2.0.0 Ok"


def hand_in(port: int, who: int, count: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        for number in range(count):
            client.sendmail("a@example.com", [f"{who}.{number}@example.org"], "Subject: x\r\n\r\nhello\r\n")


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_reply_of_a_smarthost_is_missed(tmp_path: Path, loop: str, count: int) -> None:
    """aiosmtplib connects, does TLS and AUTH, and drops a reply that comes before it is asked for: all is delivered
    once and at the first attempt, over hundreds of connections."""
    pytest.importorskip(loop, reason=f"{loop} is not installed")
    authority, smarthost, port = trustme.CA(), Smarthost(), free_port()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = SSLContext(PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    upstream = Controller(
        smarthost, "127.0.0.1", port, tls_context=context, require_starttls=True,
        authenticator=smarthost.authenticate, auth_required=True,
    )  # fmt: skip
    service = Gateway(
        tmp_path,
        f"""
        event_loop: {loop}
        backends:
          smart:
            {{type: smtp, host: 127.0.0.1, port: {port}, tls: starttls, server_name: localhost, ca_file: ca.pem,
              username: relay, password: secret}}
        """,
    )
    upstream.start()
    try:
        service.start()
        with ThreadPoolExecutor(_CLIENTS) as clients:
            for done in [clients.submit(hand_in, service.port, who, count // _CLIENTS) for who in range(_CLIENTS)]:
                done.result()
        service.wait(lambda: sum(smarthost.taken.values()) >= count, seconds=300)
        service.wait(lambda: not service.messages("state=queued"))
        assert service.stop() == 0
    finally:
        service.kill()
        upstream.stop()
    assert set(smarthost.taken.values()) == {1}
    assert len(smarthost.taken) == count
    assert smarthost.logins >= count // _MOST
    log = service.log.read_text()
    assert f'"loop":"{loop}' in log
    assert ("in_doubt" in log, '"event":"deferred"' in log) == (False, False)
