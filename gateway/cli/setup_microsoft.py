"""``gateway setup microsoft``: an administrator signs in; application, certificate and rights are made."""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import shlex
import socket
import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from gateway.cli.errors import Failed
from gateway.cli.landing import pasted, serve
from gateway.cli.plain import say
from gateway.cli.setup_ask import Asker, address
from gateway.cli.setup_flow import carry_out
from gateway.cli.setup_given import Given, target
from gateway.clock import SystemClock
from gateway.fetch import Fetch
from gateway.setup import certificate, sign_in, state, storing
from gateway.setup.application import Maker, Stopped, Wish
from gateway.setup.graph import Graph
from gateway.setup.state import State
from gateway.setup.steps import calls

_PATIENCE = 600.0  # seconds for the person at the browser
_PEM = "graph.pem"
_EXCHANGE = "Exchange takes from half an hour to two hours until it lets the application send (HTTP 403 until then)"
_CONSENT = (
    "your consent is left in the tenant, on Microsoft Graph Command Line Tools; to take it away: entra.microsoft.com > "
    "Enterprise applications > Microsoft Graph Command Line Tools > Permissions > Revoke"
)


def microsoft(given: Given) -> None:
    """Raises Failed, UsageError, Abort; what was made so far stands in the state file."""
    if given.resume and given.remove:
        raise click.UsageError("give --resume or --remove, not both")
    file, asker = target(), Asker(sys.stdin.isatty())
    kept = file.parent / state.NAME
    try:
        known = state.read(kept)
    except (state.Damaged, OSError) as error:
        raise Failed(str(error)) from None
    if given.remove:
        return _remove(given, file, known, asker)
    if known is not None and not given.resume and not given.dry_run:
        raise Failed(f"{kept} says that this was begun already: --resume goes on with it, --remove undoes it")
    if known is None and given.resume:
        raise Failed(f"there is nothing to go on with: no {kept}")
    mailboxes = _mailboxes(given, asker)
    wish = Wish(mailboxes, given.tenant_wide)
    begun = known or State(f"SMTP gateway ({socket.gethostname()})", given.answers.get("certificate_file") or _PEM)
    _explain(given, wish, begun, kept)
    if given.dry_run:
        return say("\n".join(calls(begun, wish)))
    asker.agree("Go on, and sign in?", yes=given.yes)
    pem = _certificate(file, given, begun)
    made = asyncio.run(_make(given, wish, begun, kept, file, pem))
    _settings(given, file, wish, made[0], pem, stopped=made[1])
    return None


def _mailboxes(given: Given, asker: Asker) -> tuple[str, ...]:
    first = given.mailboxes or ((given.sender,) if given.sender else ())
    text = asker.take(
        "--mailbox",
        " ".join(first) if first else None,
        "Mailboxes that it may send as (a shared mailbox will do)",
        _each,
    )
    return tuple(text.split())


def _each(answer: str) -> str:
    found = [address(one) for one in answer.replace(",", " ").split()]
    if odd := next((one for one in found if not re.fullmatch(r"[\w.+'-]+@[\w.-]+", one)), None):
        raise ValueError(f"{odd} has a character that no mailbox of Exchange should have: do this one by hand")
    if not found:
        raise ValueError("give at least one mailbox")
    return " ".join(dict.fromkeys(found))


def _explain(given: Given, wish: Wish, begun: State, kept: Path) -> None:
    whose = "every mailbox of the tenant" if wish.wide else ", ".join(wish.mailboxes)
    role = "Privileged Role Administrator" if wish.wide else "Exchange Administrator"
    application = "your own application" if _own(given) else "Microsoft Graph Command Line Tools"
    lines = [
        "",
        f"In your tenant this makes the application {begun.display_name}, with a certificate,",
        f"and lets it send as {whose}.",
        f"It takes an Application Administrator and {role}; a Global Administrator is both, and can",
        "consent. Two people: the first begins, the other goes on with --resume.",
        f"You sign in to {application}, which asks for:",
        *(f"  {one.rpartition('/')[2]}" for one in wish.scopes),
        'Do not tick "Consent on behalf of your organization". The sign-in is kept in memory only.',
        "The audit log of the tenant has it under your name: Add application, Add service principal.",
        f"What was made is kept in {kept} after every step. --resume goes on, --remove undoes it.",
        "",
    ]
    say("\n".join(lines), err=True)


def _own(given: Given) -> str:
    return given.answers.get("client_id", "")


def _certificate(file: Path, given: Given, begun: State) -> bytes:
    """On disk before Microsoft hears of it. Raises Failed."""
    if own := given.answers.get("certificate_file"):
        return Path(own).read_bytes()
    path = file.parent / begun.certificate
    try:
        if path.exists():
            pem = path.read_bytes()
            certificate.credential(pem)
            return pem
        pem = certificate.make(SystemClock().now())
        with storing.stored(file.parent, {begun.certificate: pem}, storing.service_owner(file, os.environ)):
            return pem
    except ValueError:
        raise Failed(f"{path} is there, and holds no certificate: move it away, or give --certificate-file") from None
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}") from None


async def _make(
    given: Given, wish: Wish, begun: State, kept: Path, file: Path, pem: bytes
) -> tuple[State, Stopped | None]:
    """What was made, and what stopped it. Raises Failed where there is no application."""
    fetch = Fetch()
    try:
        access = await _sign_in(given, wish, fetch)
        if begun.tenant and begun.tenant != access.tenant:
            raise Failed(f"this was begun in tenant {begun.tenant}; {access.who} is of {access.tenant}")
        maker = _maker(given, fetch, access, replace(begun, tenant=access.tenant), kept, pem)
        maker.keep(maker.state)
        try:
            return await maker.make(wish), None
        except Stopped as error:
            if not maker.state.principal_id:
                raise Failed(f"{error}\nto do: {error.fix}") from None
            return maker.state, error
    finally:
        await fetch.aclose()


def _maker(given: Given, fetch: Fetch, access: sign_in.Access, begun: State, kept: Path, pem: bytes) -> Maker:
    graph = Graph(fetch, SystemClock(), access.token, given.graph_url)
    return Maker(graph, begun, pem, partial(_keep, kept), partial(say, err=True))


def _keep(kept: Path, made: State) -> None:
    try:
        state.write(kept, made)
    except OSError as error:
        raise Failed(f"{kept}: {error.strerror}") from None


async def _sign_in(given: Given, wish: Wish, fetch: Fetch) -> sign_in.Access:
    own, tenant = _own(given), given.answers.get("tenant") or "organizations"
    one = sign_in.SignIn(
        fetch, SystemClock(), own or sign_in.COMMAND_LINE_TOOLS, tenant, wish.scopes, given.login_url
    )  # fmt: skip
    try:
        access = await (_by_browser(one) if given.browser else one.by_device(partial(say, err=True)))
    except sign_in.NotSignedIn as error:
        raise Failed(f"{error}\nto do: {error.fix}" if error.fix else str(error)) from None
    say(f"{access.who} has signed in, tenant {access.tenant}", err=True)
    return access


async def _by_browser(one: sign_in.SignIn) -> sign_in.Access:
    landed: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
    try:
        server = await asyncio.start_server(partial(serve, landed), "127.0.0.1", 0)
    except OSError as error:
        raise Failed(f"cannot listen on 127.0.0.1: {error.strerror}") from None
    try:
        redirect = f"http://localhost:{server.sockets[0].getsockname()[1]}/"
        url, proof, verifier = one.page(redirect)
        say(f"Open this address in a browser and sign in as administrator:\n\n{url}\n", err=True)
        say(
            "If the browser runs on another machine, its last page cannot be shown: copy the whole address of that",
            err=True,
        )
        say(f"page ({redirect}?code=...) and paste it here, then press Enter.", err=True)
        with pasted(landed):
            try:
                query = await asyncio.wait_for(landed, _PATIENCE)
            except TimeoutError:
                raise Failed("nobody has signed in for 10 minutes: run the command again") from None
    finally:
        server.close()
    if not hmac.compare_digest(query.get("state", "").encode(), proof.encode()):
        raise Failed("this answer belongs to another sign-in (state): run the command again, use the newest address")
    return await one.redeem(query, verifier, redirect)


def _settings(given: Given, file: Path, wish: Wish, made: State, pem: bytes, *, stopped: Stopped | None) -> None:
    if stopped is not None:
        say(
            "\n".join([f"\nrefused: {stopped}", f"to do: {stopped.fix}", *(f"  {one}" for one in stopped.by_hand)]),
            err=True,
        )
    answers = {"tenant": made.tenant, "client_id": made.client_id, "certificate_file": made.certificate}
    files = {} if given.answers.get("certificate_file") else {made.certificate: pem}
    sender = given.sender or wish.mailboxes[0]
    renews: dict[str, str | bool] = {
        "certificate_renew": True,
        "object_id": made.object_id,
        "certificate_id": made.key_id,
    }
    notes = (*(() if _own(given) else (_CONSENT,)), *(() if wish.wide else (_EXCHANGE,)))
    more = replace(
        given, kind="microsoft365", sender=sender, answers=answers, files=files, mailboxes=wish.mailboxes, notes=notes,
        more={key: one for key, one in renews.items() if one} if files else {},
        test_to=given.test_to or "", yes=True,
    )  # fmt: skip
    if _in_settings(file, made.client_id):
        return say("the settings have it already; try it: gateway backend check", err=True)
    carry_out(more)
    if stopped is not None:
        raise SystemExit(1)
    return None


def _in_settings(file: Path, client_id: str) -> bool:
    with suppress(OSError):
        return client_id in file.read_text()
    return False


def _remove(given: Given, file: Path, known: State | None, asker: Asker) -> None:
    kept = file.parent / state.NAME
    if known is None:
        raise Failed(f"there is nothing to remove: no {kept}; see Entra > App registrations")
    wish = Wish(tuple(one for one in known.assignments if one), wide="" in known.assignments)
    say(f"This removes application {known.display_name} (client id {known.client_id}) and its rights.", err=True)
    if given.dry_run:
        return say("\n".join(calls(known, wish, remove=True)))
    asker.agree("Go on, and sign in?", yes=given.yes)
    asyncio.run(_unmake(given, wish, known, kept))
    kept.unlink(missing_ok=True)
    config = f" --config {shlex.quote(str(file))}"
    say(
        f"left to do: take its backend out of {file}, then gateway reload{config}; delete {known.certificate}", err=True
    )
    return say(_CONSENT if not _own(given) else "", err=True)


async def _unmake(given: Given, wish: Wish, known: State, kept: Path) -> None:
    fetch = Fetch()
    try:
        access = await _sign_in(given, wish, fetch)
        if known.tenant != access.tenant:
            raise Failed(f"this was made in tenant {known.tenant}; {access.who} is of {access.tenant}")
        await _maker(given, fetch, access, known, kept, b"").remove()
    except Stopped as error:
        raise Failed(f"{error}\nto do: {error.fix}") from None
    finally:
        await fetch.aclose()
