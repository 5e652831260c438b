"""gmail against a Gmail of other people's making: the npm package emulate 0.11.2, as a process of its own.

It takes every access token for that of its first user, so that what a refused one leads to is tested elsewhere.

GATEWAY_NPM names a folder whose node_modules hold it (npm install emulate@0.11.2).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from click.testing import CliRunner

from gateway.backends.google.gmail import Gmail, GmailSettings
from gateway.cli import auth_google
from gateway.model import Verdict
from tests.backends import kit
from tests.backends.gmail_fake import CLIENT_SECRET, stored
from tests.backends.kit import RAW, spooled
from tests.fakes import until
from tests.flow.kit import free_port

PACKAGE = Path(os.environ.get("GATEWAY_NPM", "/nonexistent")) / "node_modules" / "emulate"
NODE = shutil.which("node")
CLIENT = "client-1.apps.googleusercontent.com"
ACCOUNT = "a@corp.example"
# It has no option for the address to listen at.
PRELOAD = """
const { Server } = require("net");
const listen = Server.prototype.listen;
Server.prototype.listen = function (port, ...rest) {
  const done = rest.find((one) => typeof one === "function");
  const given = port !== null && typeof port === "object" ? port : { port };
  return listen.call(this, { ...given, host: "127.0.0.1" }, ...(done ? [done] : []));
};
"""
SEED = {"google": {"users": [{"email": ACCOUNT, "name": "A"}]}}

pytestmark = pytest.mark.skipif(
    not NODE or not PACKAGE.is_dir(), reason="no node, or GATEWAY_NPM names no folder with the npm package emulate"
)


def ask(url: str, form: dict[str, str] | None = None, token: str = "", status: int = 200) -> httpx.Response:
    """Redirects are not followed."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = httpx.request("POST" if form else "GET", url, data=form, headers=headers, timeout=20, verify=False)
    assert answer.status_code == status
    return answer


def kept(running: str, signed_in: Path, remote_id: str, shape: str) -> Any:
    """The mail as it is kept there, by an access token beside the one that the backend holds."""
    held = json.loads(signed_in.read_text())
    form = {name: held[name] for name in ("client_id", "client_secret", "refresh_token")}
    token = ask(f"{running}/oauth2/token", {"grant_type": "refresh_token", **form}).json()["access_token"]
    return ask(f"{running}/gmail/v1/users/me/messages/{remote_id}?format={shape}", token=token).json()


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the emulator; it is killed at the end whatever happens."""
    folder, port = tmp_path_factory.mktemp("emulate"), free_port()
    (folder / "preload.cjs").write_text(PRELOAD)
    seed = stored(folder, SEED, "seed.json")
    command = [str(NODE), "--require", str(folder / "preload.cjs"), str(PACKAGE / "dist" / "index.js"), "start"]
    command += ["--service", "google", "--port", str(port), "--seed", str(seed)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def running(google: str) -> str:
    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return bool(ask(google + "/.well-known/openid-configuration"))
        return False

    await until(answers)
    return google


@pytest.fixture
def signed_in(running: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that ``gateway auth google`` makes there; a click on the one user stands for the human."""

    def browse(url: str) -> None:
        ask(url)
        asked = dict(parse_qsl(urlsplit(url).query))
        names = ("redirect_uri", "scope", "state", "client_id", "code_challenge", "code_challenge_method")
        form = {"email": ACCOUNT, **{name: asked[name] for name in names}}
        ask(ask(f"{running}/o/oauth2/v2/auth/callback", form, status=302).headers["location"])

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(auth_google.webbrowser, "open", browse)
    client = stored(tmp_path, {"installed": {"client_id": CLIENT, "client_secret": CLIENT_SECRET}}, "client.json")
    out = tmp_path / "gmail.json"
    arguments = ["--client-file", str(client), "--out", str(out), "--auth-url", f"{running}/o/oauth2/v2/auth"]
    done = CliRunner().invoke(auth_google.google, [*arguments, "--token-url", f"{running}/oauth2/token"])
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture
async def backend(signed_in: Path, running: str, tmp_path: Path) -> AsyncIterator[Gmail]:
    async with kit.context(tmp_path) as context:
        settings = GmailSettings(mailbox="me", authorized_user_file=signed_in, api_base=running)
        made = Gmail("gm", settings, context)
        yield made
        await made.aclose()


def attachment(size: int) -> bytes:
    encoded = base64.encodebytes(bytes(range(256)) * (size // 256)).replace(b"\n", b"\r\n")
    return (
        b"From: a@corp.example\r\nTo: b@x.example\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="=x"\r\n\r\n--=x\r\nContent-Type: text/plain\r\n\r\nhi\r\n--=x\r\n'
        b'Content-Type: application/pdf; name="x.pdf"\r\nContent-Disposition: attachment; filename="x.pdf"\r\n'
        b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded + b"--=x--\r\n"
    )


# It reads bodies as UTF-8 text, so that other bytes than those do not come back; Gmail's own answers are short.
BODIES = {
    "dots": RAW,
    "eight bits": RAW + "ü € 𝄞 \t\u00a0\r\n".encode(),
    "attachment": attachment(10_000),
    "ten megabytes": attachment(10_000_000),
}


@pytest.mark.parametrize("raw", BODIES.values(), ids=BODIES.keys())
async def test_what_was_sent_is_read_back_byte_for_byte(
    backend: Gmail, signed_in: Path, running: str, raw: bytes
) -> None:
    outcome = (await backend.send(spooled("b@x.example"), raw))["b@x.example"]
    assert outcome.verdict is Verdict.SENT, outcome
    found = kept(running, signed_in, outcome.remote_id, "raw")["raw"]
    assert base64.urlsafe_b64decode(found + "=" * (-len(found) % 4)) == raw


async def test_blind_recipients_stand_in_bcc_only(backend: Gmail, signed_in: Path, running: str) -> None:
    outcomes = await backend.send(spooled("b@x.example", "z@x.example"), RAW)
    (remote_id,) = {outcome.remote_id for outcome in outcomes.values()}
    headers = kept(running, signed_in, remote_id, "full")["payload"]["headers"]
    fields = {field["name"].lower(): field["value"] for field in headers}
    assert (fields["to"], fields["bcc"]) == ("b@x.example", "z@x.example")


async def test_check_names_the_account(backend: Gmail) -> None:
    check = await backend.check()
    assert check.ok, check
    assert check.facts["identity"] == ACCOUNT


async def test_a_bad_refresh_token_is_misconfigured_until_signed_in_again(
    backend: Gmail, signed_in: Path, running: str
) -> None:
    good = signed_in.read_text()
    signed_in.write_text(re.sub(r'"refresh_token": "[^"]*"', '"refresh_token": "gone"', good))
    outcome = (await backend.send(spooled("b@x.example"), RAW))["b@x.example"]
    assert outcome.verdict is Verdict.MISCONFIGURED
    assert "invalid_grant" in outcome.detail
    assert "gateway auth google --backend gm" in outcome.fix
    signed_in.write_text(good)
    assert (await backend.check()).ok
    assert (await backend.send(spooled("b@x.example"), RAW))["b@x.example"].verdict is Verdict.SENT
