"""gateway auth google: PKCE and state as Google checks them, both ways back, the file, and every way it can fail."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from click.testing import CliRunner, Result

from gateway.cli import auth_google
from gateway.cli.auth_google import google
from gateway.config.loading import load
from tests.backends.gmail_fake import CLIENT_SECRET, REFRESH, SCOPE, authorized_user_info, stored

CLIENT = "client-1.apps.googleusercontent.com"
ACCOUNT = "me@corp.example"
FULL = "https://mail.google.com/"
Browser = Callable[[str], None]


def id_token(**claims: Any) -> str:
    parts = ({"alg": "RS256"}, {"email": ACCOUNT, **claims})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2ln"])


@dataclass
class Consent:
    """Google's consent page and token endpoint. ``changes`` go into its answer; None takes a field out."""

    changes: dict[str, Any] = field(default_factory=dict)
    refuse: dict[str, str] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    seen: list[dict[str, str]] = field(default_factory=list)
    scope: str = SCOPE

    def allow(self, url: str) -> str:
        """What the consent page redirects to."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query, strict_parsing=True).items()}
        self.seen.append(asked)
        assert asked.pop("login_hint", ACCOUNT) == ACCOUNT
        assert {name: asked[name] for name in asked.keys() - {"redirect_uri", "state", "code_challenge"}} == {
            "response_type": "code",
            "client_id": CLIENT,
            "scope": f"{self.scope} openid email",
            "access_type": "offline",
            "prompt": "consent",
            "code_challenge_method": "S256",
        }
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", asked["redirect_uri"])
        assert re.fullmatch(r"[\w-]{43}", asked["code_challenge"])
        assert len(asked["state"]) >= 32
        code = f"4/code{len(self.codes)}"
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'state': asked['state'], 'code': code, 'scope': SCOPE})}"

    def token(self, form: dict[str, str]) -> tuple[int, Any]:
        if self.refuse:
            return 400, self.refuse
        asked = self.codes.pop(form.pop("code"), None)
        if asked is None:
            return 400, {"error": "invalid_grant", "error_description": "Malformed auth code."}
        verifier = form.pop("code_verifier")
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        assert challenge == asked["code_challenge"]
        assert re.fullmatch(r"[\w.~-]{43,128}", verifier)
        assert form == {
            "grant_type": "authorization_code",
            "redirect_uri": asked["redirect_uri"],
            "client_id": CLIENT,
            "client_secret": CLIENT_SECRET,
        }
        answer = {
            "access_token": "ya29.x",
            "expires_in": 3599,
            "refresh_token": REFRESH,
            "scope": f"openid {self.scope}",
            "token_type": "Bearer",
            "id_token": id_token(),
        } | self.changes
        return 200, {name: value for name, value in answer.items() if value is not None}


@dataclass
class Bench:
    """The command before the fake."""

    folder: Path
    consent: Consent
    port: int
    monkeypatch: pytest.MonkeyPatch

    @property
    def out(self) -> Path:
        return self.folder / "gmail.json"

    @property
    def token_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"

    def client(self, kind: str = "installed", **changes: Any) -> Path:
        client = {"client_id": CLIENT, "client_secret": CLIENT_SECRET, "redirect_uris": ["http://localhost"]} | changes
        return stored(self.folder, {kind: client}, "client_secret.json")

    def first(self, *more: str) -> list[str]:
        files = ["--client-file", str(self.client()), "--out", str(self.out)]
        return [*files, "--token-url", self.token_url, *more]

    def again(self, info: dict[str, Any], mailbox: str = "me", *, smtp: bool = False) -> list[str]:
        path = stored(self.folder, info, "gmail.json")
        config = self.folder / "config.yaml"
        backend: dict[str, Any] = {"type": "gmail", "mailbox": mailbox, "authorized_user_file": str(path)}
        if smtp:
            google = {"authorized_user_file": str(path)}
            backend = {"type": "smtp", "preset": "gmail", "mailbox": mailbox, "senders": [ACCOUNT], "google": google}
        box = {"type": "capture", "directory": "x"}
        settings = {"backends": {"work": backend, "box": box}, "routes": [{"backend": "work"}]}
        config.write_text(json.dumps({**settings, "state_dir": str(self.folder)}))
        return ["--config", str(config), "--backend", "work", "--token-url", self.token_url]

    def run(self, arguments: list[str], browser: Browser | None = None) -> Result:
        """With a browser on the same machine."""
        self.monkeypatch.setenv("DISPLAY", ":0")
        self.monkeypatch.setattr(auth_google.webbrowser, "open", browser or self.browse)
        return CliRunner().invoke(google, arguments)

    def browse(self, url: str) -> None:
        assert b"You may close this page" in get(self.consent.allow(url))


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    consent = Consent()

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/token"
            assert self.headers["content-type"] == "application/x-www-form-urlencoded"
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body, strict_parsing=True).items()}
            status, answer = consent.token(form)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Bench(tmp_path, consent, server.server_address[1], monkeypatch)
        server.shutdown()
        thread.join()


# -- it works --------------------------------------------------------------------------------------------------------


def test_the_first_sign_in_makes_the_file_and_says_what_to_configure(bench: Bench) -> None:
    done = bench.run(bench.first())
    assert done.exit_code == 0, done.output
    expected = authorized_user_info(account=ACCOUNT, token_uri=bench.token_url)
    assert json.loads(bench.out.read_text()) == expected
    assert stat.S_IMODE(bench.out.stat().st_mode) == 0o600
    assert "gateway backend check gmail" in done.output
    assert "7 days" not in done.output
    assert not any(secret in done.output for secret in (REFRESH, CLIENT_SECRET, "ya29", "4/code"))


@pytest.mark.parametrize("smtp", [False, True])
def test_what_it_says_to_configure_is_a_configuration(bench: Bench, smtp: bool) -> None:
    from gateway.backends import settings_types

    bench.consent.scope = FULL if smtp else SCOPE
    output = bench.run(bench.first(*["--smtp"] * smtp)).output
    block = output[output.index("backends:") : output.index("then try")]
    config = bench.folder / "config.yaml"
    config.write_text(f"{block}\nroutes: [{{backend: gmail}}]\nstate_dir: {bench.folder}\n")
    found = load(config, {}, settings_types()).settings.backends["gmail"]
    own = found.google if smtp else found
    assert (found.mailbox, own.authorized_user_file) == (ACCOUNT, bench.out)


def test_signing_in_again_for_smtp_asks_for_what_smtp_needs(bench: Bench) -> None:
    bench.consent.scope = FULL
    done = bench.run(bench.again(authorized_user_info(account=ACCOUNT), smtp=True))
    assert done.exit_code == 0, done.output
    assert bench.consent.seen[0]["scope"].startswith(FULL)


def test_googles_own_token_endpoint_is_not_written_down(bench: Bench) -> None:
    bench.monkeypatch.setattr("gateway.backends.google.tokens.TOKEN_URL", bench.token_url)
    assert bench.run(bench.first()[:4]).exit_code == 0
    assert json.loads(bench.out.read_text()) == authorized_user_info(account=ACCOUNT)


def test_on_another_machine_the_address_of_the_last_page_is_pasted(bench: Bench) -> None:
    """Rubbish before it is told and does no harm."""
    code = "from gateway.cli.auth_google import google; google()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *bench.first("--no-browser")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    with process:
        assert process.stdin
        assert process.stdout
        url = next(line for line in process.stdout if line.startswith("https://accounts.google.com/o/oauth2/v2/auth?"))
        process.stdin.write(f"\nhttps://example.com/?x=1\n{bench.consent.allow(url.strip())}\n")
        output = process.stdout.read()
    assert process.returncode == 0, output
    assert output.count("That is not the address of the last page") == 1
    assert json.loads(bench.out.read_text())["account"] == ACCOUNT


def test_signing_in_again_uses_the_backends_own_client_and_file(bench: Bench) -> None:
    arguments = bench.again(authorized_user_info(refresh_token="1//old", account=ACCOUNT, note="lost"))
    done = bench.run(arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(bench.out.read_text())["refresh_token"] == REFRESH
    assert "gateway backend check work" in done.output
    assert "gateway backend resume work" in done.output


def test_a_sign_in_that_ends_says_when_and_why(bench: Bench) -> None:
    bench.consent.changes = {"refresh_token_expires_in": 604799}
    done = bench.run(bench.first())
    ends = json.loads(bench.out.read_text())["refresh_token_expires_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", ends)
    assert ends in done.output
    assert "Publish app" in done.output


def test_a_browser_that_asks_for_other_things_first_does_no_harm(bench: Bench) -> None:
    def browse(url: str) -> None:
        target = bench.consent.allow(url)
        port = int(urlsplit(target).port or 0)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"http://127.0.0.1:{port}/favicon.ico")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"http://127.0.0.1:{port}/")
        with socket.create_connection(("127.0.0.1", port)) as line:
            line.sendall(b"\x16\x03\x01 not HTTP\r\n\r\n")
        with socket.create_connection(("127.0.0.1", port)):  # opened in advance and never used
            get(target)

    assert bench.run(bench.first(), browse).exit_code == 0


def test_without_an_address_in_the_answer_somebody_has_to_fill_it_in(bench: Bench) -> None:
    for odd in (None, "nonsense", "a.b.c", id_token(email=None)):
        bench.consent.changes = {"id_token": odd}
        done = bench.run(bench.first())
        assert done.exit_code == 0, done.output
        assert "mailbox: ADDRESS" in done.output


# -- it fails --------------------------------------------------------------------------------------------------------


def denied(error: str) -> Callable[[Bench], Browser]:
    def make(bench: Bench) -> Browser:
        def browse(url: str) -> None:
            asked = parse_qs(urlsplit(url).query)
            get(f"{asked['redirect_uri'][0]}?{urlencode({'state': asked['state'][0], 'error': error})}")

        return browse

    return make


def forged(bench: Bench) -> Browser:
    def browse(url: str) -> None:
        get(re.sub("state=[^&]+", "state=forged", bench.consent.allow(url)))

    return browse


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (denied("access_denied"), ["Google refuses: access_denied", "test user"]),
        (denied("something_new"), ["Google refuses: something_new", "run it again"]),
        (forged, ["another sign-in"]),
    ],
)
def test_a_sign_in_that_is_refused_or_forged_stores_nothing(
    bench: Bench, make: Callable[[Bench], Browser], words: list[str]
) -> None:
    done = bench.run(bench.first(), make(bench))
    assert done.exit_code == 1
    assert [word for word in words if word not in done.output] == []
    assert not bench.out.exists()


@pytest.mark.parametrize(
    ("refuse", "changes", "words"),
    [
        ({"error": "invalid_grant", "error_description": "Malformed auth code."}, {}, "expired or was used"),
        ({"error": "redirect_uri_mismatch"}, {}, "Desktop"),
        ({"error": "invalid_client"}, {}, "Desktop"),
        ({"unintelligible": "x"}, {}, "HTTP 400"),
        ({}, {"refresh_token": None}, "no refresh token"),
        ({}, {"scope": "openid https://www.googleapis.com/auth/userinfo.email"}, "tick that box"),
    ],
)
def test_an_answer_without_what_is_needed_stores_nothing(
    bench: Bench, refuse: dict[str, str], changes: dict[str, Any], words: str
) -> None:
    bench.consent.refuse, bench.consent.changes = refuse, changes
    done = bench.run(bench.first())
    assert done.exit_code == 1
    assert words in done.output
    assert not bench.out.exists()
    assert CLIENT_SECRET not in done.output


def test_a_token_endpoint_out_of_reach_is_told(bench: Bench) -> None:
    done = bench.run([*bench.first()[:4], "--token-url", "http://127.0.0.1:1/token"])
    assert done.exit_code == 1
    assert "cannot connect" in done.output


def test_the_sign_in_of_somebody_else_leaves_the_file_alone(bench: Bench) -> None:
    for info, mailbox in ((authorized_user_info(account=ACCOUNT), "me"), (authorized_user_info(account=None), ACCOUNT)):
        bench.consent.changes = {"id_token": id_token(email="other@corp.example")}
        arguments = bench.again(info, mailbox)
        before = bench.out.read_bytes()
        done = bench.run(arguments)
        assert done.exit_code == 1
        assert f"it must be {ACCOUNT}" in done.output
        assert bench.out.read_bytes() == before


def test_nobody_comes(bench: Bench) -> None:
    bench.monkeypatch.setattr(auth_google, "_PATIENCE", 0.05)
    done = bench.run(bench.first("--no-browser"))
    assert done.exit_code == 1
    assert "nobody has signed in" in done.output


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("web", {}, "client of type Web"),
        ("other", {}, "no OAuth client"),
        ("installed", {"client_secret": ""}, "no OAuth client"),
    ],
)
def test_another_client_is_refused_before_anything_is_asked(
    bench: Bench, kind: str, changes: dict[str, Any], words: str
) -> None:
    arguments = bench.first()
    bench.client(kind, **changes)
    done = bench.run(arguments)
    assert done.exit_code == 1
    assert words in done.output
    assert "Desktop app" in done.output
    assert bench.consent.seen == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "--backend NAME"),
        (["--client-file", "x"], 2, "--backend NAME"),
        (["--client-file", "x", "--out", "y", "--backend", "z"], 2, "--backend NAME"),
        (["--client-file", "/nowhere/x", "--out", "y"], 1, "No such file"),
    ],
)
def test_wrong_use_is_told(bench: Bench, arguments: list[str], code: int, words: str) -> None:
    done = bench.run(arguments)
    assert done.exit_code == code
    assert words in done.output


def test_a_place_that_cannot_be_written_is_told_before_signing_in(bench: Bench) -> None:
    for out in (bench.folder, bench.folder / "none" / "x.json"):
        done = bench.run(["--client-file", str(bench.client()), "--out", str(out)])
        assert done.exit_code == 1
        assert "cannot be written" in done.output
    assert bench.consent.seen == []


@pytest.mark.parametrize(
    ("name", "info", "words"),
    [
        ("box", authorized_user_info(), "no backend box of type gmail"),
        ("nobody", authorized_user_info(), "no backend nobody of type gmail"),
        ("work", {"x": 1}, "no JSON file of Google credentials"),
        ("work", {"type": "authorized_user"}, "names no client"),
    ],
)
def test_a_backend_that_cannot_be_signed_in_again_is_told(
    bench: Bench, name: str, info: dict[str, Any], words: str
) -> None:
    arguments = bench.again(info)
    arguments[arguments.index("work")] = name
    done = bench.run(arguments)
    assert done.exit_code == 1
    assert words in done.output
