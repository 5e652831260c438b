"""Log-ins by token at Dovecot's submission server, an implementation of XOAUTH2 and OAUTHBEARER that is not ours.

It asks an introspection endpoint (RFC 7662) about each token, and passes mail on to a server that it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from gateway.model import Verdict
from tests.backends import kit
from tests.backends.kit import RAW, Request, SmtpFake, Web, http, spooled
from tests.backends.test_smtp import backend
from tests.flow.kit import free_port

DOVECOT = shutil.which("dovecot") or "/usr/sbin/dovecot"
MAILBOX, TOKEN = "a@corp.example", "eyJ0eXAiOiJKV1QifQ." + "t" * 1800 + ".c2ln"
CONFIG = """
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/dovecot.log
auth_verbose = yes
protocols = submission
hostname = dovecot.example
ssl = required
ssl_cert = <{folder}/tls.pem
ssl_key = <{folder}/tls.pem
default_internal_user = nobody
default_login_user = nobody
default_internal_group = nogroup
auth_mechanisms = xoauth2 oauthbearer
auth_failure_delay = 0
first_valid_uid = 1
service submission-login {{
  chroot =
  inet_listener submission {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service anvil {{
  chroot =
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {folder}/oauth2.conf
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}/home
}}
mail_location = maildir:{folder}/home/mail
submission_relay_host = 127.0.0.1
submission_relay_port = {relay}
submission_relay_trusted = yes
"""
OAUTH = """
introspection_mode = post
introspection_url = {url}/introspect
username_attribute = username
active_attribute = active
active_value = true
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(DOVECOT, os.X_OK), reason="Dovecot is not installed: dovecot-submissiond"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Dovecot's master runs as root"),
]


@dataclass
class Peer:
    port: int
    relay: SmtpFake
    asked: list[str]
    log: Path


def introspect(asked: list[str], request: Request) -> bytes:
    token = parse_qs(request.body.decode()).get("token", [""])[0]
    asked.append(token)
    if token == TOKEN:
        return http(200, {"active": True, "username": MAILBOX, "scope": "mail"})
    return http(200, {"active": False})


@pytest.fixture
async def dovecot(tmp_path: Path, certificates: kit.Certificates) -> AsyncIterator[Peer]:
    folder = tmp_path / "dovecot"
    for each in (folder, folder / "home"):
        each.mkdir()
        each.chmod(0o777)
    for parent in [*folder.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    cert = certificates.ca.issue_cert("127.0.0.1", "localhost")
    cert.private_key_and_cert_chain_pem.write_to_path(str(folder / "tls.pem"))
    asked: list[str] = []
    async with Web(lambda request: introspect(asked, request)) as web, SmtpFake() as relay:
        port = free_port()
        (folder / "oauth2.conf").write_text(OAUTH.format(url=web.url))
        (folder / "dovecot.conf").write_text(CONFIG.format(folder=folder, port=port, relay=relay.port))
        run = await asyncio.create_subprocess_exec(DOVECOT, "-F", "-c", str(folder / "dovecot.conf"))
        try:
            async with asyncio.timeout(20):
                while not reachable(port):
                    assert run.returncode is None, (folder / "dovecot.log").read_text()
                    await asyncio.sleep(0.05)
            yield Peer(port, relay, asked, folder / "dovecot.log")
        finally:
            with contextlib.suppress(ProcessLookupError):
                run.terminate()
            await run.wait()


def reachable(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.mark.parametrize("auth", ["xoauth2", "oauthbearer"])
@pytest.mark.parametrize("good", [True, False])
async def test_dovecot_lets_in_whose_token_is_good(
    tmp_path: Path, certificates: kit.Certificates, dovecot: Peer, auth: str, good: bool
) -> None:
    """A whole mail through it with a good token; with another its JSON is read into words, and no token is shown."""
    file = tmp_path / "token"
    file.write_text(TOKEN if good else "x" + TOKEN)
    settings = {"tls": "starttls", "ca_file": certificates.ca_file, "port": dovecot.port, "timeout": "20s"}
    settings |= {"username": MAILBOX, "token_file": file, "auth": auth}
    async with backend(None, tmp_path, **settings) as way:
        outcome = (await way.send(spooled(), RAW))["b@x.example"]
    if good:
        assert outcome.verdict is Verdict.SENT, (outcome, dovecot.log.read_text())
        assert RAW.partition(b"\r\n\r\n")[2] in dovecot.relay.done[0].body
        assert TOKEN in dovecot.asked
    else:
        assert (outcome.verdict, outcome.code) == (Verdict.MISCONFIGURED, 535), (outcome, dovecot.log.read_text())
        assert "status" in outcome.detail
        assert TOKEN not in outcome.detail
