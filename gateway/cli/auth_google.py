"""``gateway auth google``: sign in to a Gmail mailbox in a browser, here or on another machine (RFC 8252, RFC 7636)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import sys
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from gateway.cli.common import chosen_file, config_option, example, named
from gateway.cli.errors import Failed
from gateway.cli.landing import pasted, serve
from gateway.cli.plain import now, say

if TYPE_CHECKING:
    from gateway.backends.google.gmail import GmailSettings
    from gateway.backends.google.over_smtp import GoogleLoginSettings

_AUTH_URL = "https://accounts.google.com/o/oauth2/v2/auth"
_PATIENCE = 600.0  # seconds for the human
_DEADLINE = 30.0
_AUDIENCE = "console.cloud.google.com > Google Auth Platform > Audience > Publish app"
_DESKTOP = "console.cloud.google.com > Google Auth Platform > Clients > Create client > Desktop app, then download it"
_DENIALS = {
    "access_denied": "Google was told not to allow it, or this account may not use the app while it is in testing: "
    f"{_AUDIENCE}, or add the account as a test user there",
    "invalid_grant": "the code has expired or was used before: run the command again",
    "redirect_uri_mismatch": f"the client is not of type Desktop: {_DESKTOP}",
    "invalid_client": f"the client is gone, or its secret is another: {_DESKTOP}",
    "unauthorized_client": f"the client may not do this: {_DESKTOP}",
}


@dataclass(frozen=True, slots=True)
class _Plan:
    """Who signs in, where, and into which file the answer goes. ``account``: only this one will do, "" is anybody.

    ``smtp``: for a login over SMTP, which needs another scope than the API. ``later_bounces`` as in the settings.
    """

    client_id: str
    client_secret: str
    out: Path
    backend: str
    account: str
    auth_url: str
    token_url: str
    settings: GmailSettings | GoogleLoginSettings | None = None
    smtp: bool = False
    later_bounces: str = "off"

    @property
    def reading(self) -> str:
        """The scope for later_bounces, or ""."""
        from gateway.backends.google.returns import scope_of

        return scope_of(self.later_bounces)

    @property
    def scope(self) -> str:
        from gateway.backends.google.tokens import FULL, SCOPE

        return FULL if self.smtp else SCOPE


@click.command(epilog=example("gateway auth google --client-file client.json --out google.json"))
@click.option("--client-file", metavar="FILE", type=click.Path(path_type=Path), help="The downloaded Desktop client.")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Where the sign-in is to be stored.")
@click.option(
    "--backend",
    "name",
    metavar="NAME",
    shell_complete=named("backends"),
    help="Sign in again for this backend, with its client and file.",
)
@click.option(
    "--smtp", is_flag=True, help="For a backend of type smtp, which needs the scope https://mail.google.com/."
)
@click.option(
    "--later-bounces",
    metavar="HOW",
    type=click.Choice(["metadata", "full"]),
    help="Allow it to look for mail that came back, too: as later_bounces of the backend says.",
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option("--auth-url", hidden=True, default=_AUTH_URL)
@click.option("--token-url", hidden=True)
@config_option
def google(
    client_file: Path | None, out: Path | None, name: str | None, smtp: bool, later_bounces: str | None,
    no_browser: bool, auth_url: str, token_url: str | None,
) -> None:  # fmt: skip
    """Sign in to a Gmail mailbox. Works on a machine without a browser, too."""
    if name and not client_file and not out:
        plan = _again(name, auth_url, token_url)
    elif client_file and out and not name:
        plan = _first(client_file, out, auth_url, token_url, smtp=smtp, later_bounces=later_bounces or "off")
    else:
        raise click.UsageError("give --client-file FILE and --out FILE, or --backend NAME to sign in again")
    if plan.out.is_dir() or not os.access(plan.out.parent, os.W_OK):
        raise Failed(f"{plan.out} cannot be written: not a file, or no such folder, or it is not yours")
    _say_what_next(plan, *_store(plan, asyncio.run(_sign_in(plan, browser=not no_browser))))


def sign_in_anew(client_file: Path, out: Path) -> None:
    """For the API, with a client that was downloaded; stored in ``out``. Raises Failed."""
    plan = _first(client_file, out, _AUTH_URL, None, smtp=False)
    account, _ = _store(plan, asyncio.run(_sign_in(plan, browser=True)))
    say(f"{account or 'somebody'} has signed in", err=True)


def _first(
    client_file: Path, out: Path, auth_url: str, token_url: str | None, *, smtp: bool, later_bounces: str = "off"
) -> _Plan:
    from gateway.backends.google.tokens import TOKEN_URL
    from gateway.strangers import lenient_json

    try:
        found = lenient_json(client_file.read_bytes())
    except OSError as error:
        raise Failed(f"{client_file}: {error.strerror}") from None
    client = found.get("installed")
    if "web" in found:
        raise Failed(f"{client_file} is a client of type Web, which cannot sign in here: {_DESKTOP}")
    if not isinstance(client, dict) or not client.get("client_id") or not client.get("client_secret"):
        raise Failed(f"{client_file} is no OAuth client: {_DESKTOP}")
    own = str(client["client_id"]), str(client["client_secret"])
    return _Plan(*own, out.absolute(), "", "", auth_url, token_url or TOKEN_URL, smtp=smtp, later_bounces=later_bounces)


def _again(name: str, auth_url: str, token_url: str | None) -> _Plan:
    from gateway.backends.google.gmail import GmailSettings
    from gateway.backends.google.tokens import TOKEN_URL, read_file
    from gateway.backends.shared.base import NoAnswer
    from gateway.backends.smtp.settings import SmtpSettings
    from gateway.cli import local

    section = local.settings(chosen_file()).settings.backends.get(name)
    found = section.google if isinstance(section, SmtpSettings) else section
    if not isinstance(section, GmailSettings | SmtpSettings) or found is None or isinstance(found, SmtpSettings):
        raise Failed(f"there is no backend {name} of type gmail, or smtp with google")
    file = getattr(found, "authorized_user_file", None)
    if not isinstance(file, Path):
        raise Failed(f"backend {name} has no authorized_user_file: a service account needs no sign-in")
    try:
        info = read_file(file)
    except NoAnswer as error:
        raise Failed(f"{error}\nto do: {error.outcome.fix}") from None
    if not info.get("client_id") or not info.get("client_secret"):
        raise Failed(f"{file} names no client: use --client-file and --out")
    mailbox = section.mailbox or "me"
    account = str(info.get("account") or "") if mailbox == "me" else mailbox
    url = token_url or found.token_url or str(info.get("token_uri") or TOKEN_URL)
    own = str(info["client_id"]), str(info["client_secret"])
    smtp = isinstance(section, SmtpSettings)
    later = getattr(found, "later_bounces", "off")
    return _Plan(*own, file, name, account, auth_url, url, found, smtp=smtp, later_bounces=later)


async def _sign_in(plan: _Plan, *, browser: bool) -> dict[str, Any]:
    """Google's answer with the tokens."""
    landed: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(64)
    try:
        server = await asyncio.start_server(partial(serve, landed), "127.0.0.1", 0)
    except OSError as error:
        raise Failed(f"cannot listen on 127.0.0.1: {error.strerror}") from None
    try:
        redirect_uri = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        asked = {
            "response_type": "code",
            "client_id": plan.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(filter(None, (plan.scope, plan.reading, "openid email"))),
            "access_type": "offline",
            "prompt": "consent",
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **({"login_hint": plan.account} if plan.account else {}),
        }
        url = f"{plan.auth_url}?{urlencode(asked)}"
        say(f"Open this address in a browser and allow sending mail:\n\n{url}\n")
        say("If the browser runs on another machine, its last page cannot be shown: copy the whole address of that")
        say(f"page ({redirect_uri}?state=...) and paste it here, then press Enter.")
        # A browser for the terminal would take it over.
        if browser and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"):
            await asyncio.to_thread(webbrowser.open, url)
        with pasted(landed):
            try:
                query = await asyncio.wait_for(landed, _PATIENCE)
            except TimeoutError:
                raise Failed("nobody has signed in for 10 minutes: run the command again") from None
    finally:
        server.close()  # not waited for: browsers keep connections open that they never use
    if not hmac.compare_digest(query.get("state", "").encode(), state.encode()):
        raise Failed("this answer belongs to another sign-in (state): run the command again, use the newest address")
    if "error" in query:
        raise _denied(query)
    return await _exchange(plan, query["code"], verifier, redirect_uri)


def _denied(answer: Mapping[str, Any]) -> Failed:
    from gateway.backends.shared.base import safe

    error = safe(str(answer.get("error")))
    words = safe(str(answer.get("error_description") or ""))
    return Failed(f"Google refuses: {error} {words}".rstrip() + f"\nto do: {_DENIALS.get(error, 'run it again')}")


async def _exchange(plan: _Plan, code: str, verifier: str, redirect_uri: str) -> dict[str, Any]:
    from gateway.fetch import Fetch, Lost, NotSent
    from gateway.strangers import lenient_json

    form = {
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": verifier,
        "redirect_uri": redirect_uri,
        "client_id": plan.client_id,
        "client_secret": plan.client_secret,
    }
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    fetch = Fetch()
    try:
        content = urlencode(form).encode()
        way = plan.settings.way(fetch) if plan.settings else fetch
        answer = await way.request("POST", plan.token_url, headers=headers, content=content, deadline=_DEADLINE)
    except (NotSent, Lost) as error:
        raise Failed(f"{error}: run the command again") from None
    finally:
        await fetch.aclose()
    body = lenient_json(answer.body)
    if answer.status != 200:
        raise _denied(body if body.get("error") else {"error": f"HTTP {answer.status}"})
    return body


def _store(plan: _Plan, answer: Mapping[str, Any]) -> tuple[str, str]:
    """Whose sign-in it is, and when it ends, "" never. Raises Failed."""
    from gateway.backends.google.tokens import TOKEN_URL
    from gateway.backends.shared.oauth import claims
    from gateway.files import write_whole

    # Straight from Google over TLS: the signature needs no check (OpenID Connect Core 3.1.3.7).
    account = str(claims(str(answer.get("id_token"))).get("email") or "")
    if not (token := answer.get("refresh_token")):
        fix = "take the app's access away at myaccount.google.com/connections, then run the command again"
        raise Failed(f"Google gave no refresh token, so nothing was stored: {fix}")
    if plan.scope not in str(answer.get("scope", plan.scope)).split():
        raise Failed("sending mail was not allowed, so nothing was stored: run it again and tick that box")
    if plan.reading not in str(answer.get("scope", plan.reading)).split() and plan.reading:
        say("Looking at mail that came back was not allowed: later_bounces will not work until you allow it.")
    if plan.account and account.lower() != plan.account.lower():
        whom = account or "an account without a name"
        raise Failed(f"that was the sign-in of {whom}, nothing was stored: it must be {plan.account}")
    stored = {"type": "authorized_user", "client_id": plan.client_id, "client_secret": plan.client_secret}
    stored |= {"refresh_token": token, "account": account}
    if plan.token_url != TOKEN_URL:
        stored["token_uri"] = plan.token_url
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if (seconds := int(answer.get("refresh_token_expires_in") or 0)) > 0:
            ends = now() + timedelta(seconds=seconds)
            stored["refresh_token_expires_at"] = ends.isoformat(timespec="seconds")
    try:
        write_whole(plan.out, json.dumps(stored, indent=1).encode() + b"\n")
    except OSError as error:
        raise Failed(f"{plan.out}: {error.strerror}") from None
    return account, stored.get("refresh_token_expires_at", "")


def _say_what_next(plan: _Plan, account: str, ends: str) -> None:
    say(f"\n{account or 'somebody'} has signed in; stored in {plan.out}")
    if ends:
        say(f"warning: this sign-in ends at {ends}, because the app is in testing: {_AUDIENCE}, then sign in again")
    if plan.backend:
        say(f"now try: gateway backend check {plan.backend}; if it is paused: gateway backend resume {plan.backend}")
        return
    say("Put this into the configuration:\n\nbackends:\n  gmail:")
    mailbox, file = f"    mailbox: {account or 'ADDRESS'}", f"authorized_user_file: {plan.out}"
    if plan.smtp:
        say(f"    type: smtp\n    preset: gmail\n{mailbox}\n    google: {{{file}}}\n")
    else:
        say(f"    type: gmail\n{mailbox}\n    {file}\n")
    say("then try: gateway backend check gmail")
