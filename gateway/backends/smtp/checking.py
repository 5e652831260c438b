"""Trying an upstream server: connect, TLS, a token where the login is by one, AUTH. No mail is sent."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from gateway.backends.shared.base import NoAnswer
from gateway.backends.shared.logins import TokenLogin
from gateway.backends.smtp.connection import Connection
from gateway.backends.smtp.settings import SmtpSettings
from gateway.checks import Check, Step, good, untried, wrong
from gateway.clock import Clock
from gateway.model import Outcome


async def check(
    settings: SmtpSettings,
    login: TokenLogin | None,
    example: Callable[[], Awaitable[str]],
    opened: Callable[[str], Awaitable[Connection]],
    clock: Clock,
) -> Check:
    """What came of each step, and what was not tried. ``example`` is the mailbox to log in as, "" for none."""
    where, facts = settings.where, {"server": settings.where}
    steps: list[Step] = []
    mailbox = ""
    if login is not None:
        login.forget()
        try:
            mailbox = await example()
            facts |= {"mailbox": mailbox or "sender", **await login.facts(mailbox)}
        except NoAnswer as error:
            failing = wrong(f"{_giver(settings)} gives no token to log in with.", error.outcome.detail)
            return Check(False, error.outcome.detail, error.outcome.fix, facts, (failing, _untried(settings)))
        steps.append(good(f"{_giver(settings)} gives a token to log in{f' as {mailbox}' if mailbox else ''}."))
        if not mailbox:
            fix = "add one whole address to senders: only then can a login be tried"
            return Check(True, "a token is given; no login was tried", fix, facts, (*steps, _untried(settings)))
    try:
        connection = await opened(mailbox)
    except NoAnswer as error:
        outcome, fix = error.outcome, error.outcome.fix or "check host and port, and the way there"
        return Check(False, outcome.detail, fix, facts, (*steps, *_failed(settings, outcome)))
    facts["extensions"] = " ".join(sorted(connection.client.esmtp_extensions)).upper()
    steps.append(good(f"{where} is reached."))
    if tls := connection.client.get_transport_info("ssl_object"):
        ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"]), UTC)
        days = (ends - clock.now()) // timedelta(days=1)
        facts |= {"tls": tls.version(), "certificate_expires": f"{ends:%Y-%m-%d} (in {days} days)"}
        steps.append(good(f"{tls.version()}: its certificate is good until {ends:%Y-%m-%d}."))
    if settings.logs_in:
        steps.append(good(f"The login is accepted{f' as {mailbox}' if mailbox else ''}."))
    connection.bid_farewell()
    summary = f"{where} is ready" + (", login accepted" if settings.logs_in else "")
    return Check(True, summary, facts=facts, steps=(*steps, _untried(settings)))


def _giver(settings: SmtpSettings) -> str:
    return "Microsoft" if settings.microsoft is not None else "Google"


def _untried(settings: SmtpSettings) -> Step:
    if settings.tokens is None:
        return untried("Whether it takes mail from your senders, and to anywhere")
    whose = "your senders" if settings.mailbox == "sender" else "this mailbox"
    return untried(f"Whether it takes mail from {whose}, and to anywhere: no message was begun")


def _failed(settings: SmtpSettings, outcome: Outcome) -> tuple[Step, ...]:
    """What came before the step that failed, as far as its outcome tells."""
    where = settings.where
    if outcome.enhanced in ("4.7.4", "4.7.5"):
        failing = "TLS with it, or a login over it, is not possible."
    elif outcome.said_by == "smtp":
        failing = "It does not accept us."
    else:
        return wrong(f"{where} is not reached.", outcome.detail), _untried(settings)
    return good(f"{where} is reached."), wrong(failing, outcome.detail), _untried(settings)
