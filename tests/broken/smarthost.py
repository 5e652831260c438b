"""An upstream SMTP server, broken in each way that administrators write about."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

from tests.backends.graph_fake import CLIENT, SECRET, TENANT, GraphFake
from tests.backends.kit import HANG, SmtpFake
from tests.broken.kit import SENDER, Case, Ends, Lab, Settings
from tests.broken.ways import ca_file, tls
from tests.flow.kit import free_port

HOST = "smtp.provider.com"
LOGIN = ("AUTH PLAIN LOGIN", "SIZE 50000000", "ENHANCEDSTATUSCODES")


async def server(
    lab: Lab, *, offers: tuple[str, ...] = LOGIN, login: bool = True, timeout: str = "60s", **replies: str
) -> Settings:
    said = {{"RCPT_TO": "RCPT", "end": "."}.get(verb, verb): reply for verb, reply in replies.items()}
    there = await lab.server(SmtpFake(said, offers), HOST)
    own = (
        {"username": "app@corp.example", "password_file": lab.file("smtp.password", "hunter2-hunter2")} if login else {}
    )
    return {"type": "smtp", "host": "127.0.0.1", "port": there.port, "tls": "none", "timeout": timeout, **own}


async def secured(
    lab: Lab, kind: str, *, names: tuple[str, ...] = (HOST,), trusted: bool = True, **times: Any
) -> Settings:
    context = tls(lab, *names, authority=kind, **times)
    there = await lab.server(SmtpFake(starttls=context), HOST)
    own = {"ca_file": ca_file(lab, names[0], kind, len(times))} if trusted else {}
    return {"type": "smtp", "host": HOST, "port": there.port, **own}


async def exchange(lab: Lab, refusal: str) -> Settings:
    """Exchange Online, logged in to with a token of Entra ID."""
    fake = GraphFake(lab.clock, resource="https://outlook.office365.com", rbac=True)
    entra = await lab.web(fake, "login.microsoftonline.com")
    there = await server(lab, offers=("AUTH LOGIN XOAUTH2", "SIZE 157286400"), login=False, AUTH=refusal)
    lab.known |= {f"127.0.0.1:{there['port']}": "smtp.office365.com"}
    own = {"tenant": TENANT, "client_id": CLIENT, "client_secret_file": lab.file("entra.secret", SECRET)}
    return {**there, "mailbox": SENDER, "microsoft": {**own, "authority": entra.url}}


async def plain(lab: Lab) -> Settings:
    there = await lab.server(SmtpFake(), HOST)
    return {"type": "smtp", "host": HOST, "port": there.port}


async def misspelled(lab: Lab) -> Settings:
    return {"type": "smtp", "host": f"wrong.{HOST}"}


async def nobody(lab: Lab) -> Settings:
    port = free_port()
    lab.known |= {f"{HOST}:{port}": f"{HOST}:587", f"{HOST} {port}": f"{HOST} 587"}
    return {"type": "smtp", "host": HOST, "port": port}


def case(key: str, cause: str, set_up: Any, named: str, cure: str, **more: Any) -> Case:
    given = {"never": "clock", **more}
    return Case(provider="smtp", key=key, cause=cause, set_up=set_up, named=named, cure=cure, **given)


_PAST = {"not_before": datetime(2020, 1, 1, tzinfo=UTC), "not_after": datetime(2021, 1, 1, tzinfo=UTC)}
_AHEAD = {"not_before": datetime(2090, 1, 1, tzinfo=UTC), "not_after": datetime(2091, 1, 1, tzinfo=UTC)}
CASES: tuple[Case, ...] = (
    case(
        "password",
        "the user name or password is wrong",
        partial(server, AUTH="535 5.7.8 Error: authentication failed: invalid user or password"),
        "535 5.7.8.*authentication failed",
        "check username and password",
    ),
    case(
        "disabled",
        "log-ins by password are switched off there (Microsoft 365)",
        partial(
            server, AUTH="535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant."
        ),
        "SmtpClientAuthentication is disabled",
        "type: graph.*SMTP AUTH",
    ),
    case(
        "token",
        "Exchange Online does not let the application log in as this mailbox (token)",
        partial(
            exchange, refusal="535 5.7.3 Authentication unsuccessful [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]"
        ),
        "535 5.7.3",
        "New-ServicePrincipal.*Application SMTP.SendAsApp.*Test-ServicePrincipalAuthorization",
    ),
    case(
        "switch",
        "SMTP AUTH is off for this mailbox of Exchange Online (token)",
        partial(
            exchange,
            refusal="535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.",
        ),
        "SmtpClientAuthentication is disabled for the Mailbox",
        "Set-CASMailbox -Identity a@corp.example",
    ),
    case(
        "access",
        "a Conditional Access policy stops the log-in (Exchange Online)",
        partial(
            exchange,
            refusal="535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated"
            " successfully. Contact your administrator.",
        ),
        "did not meet the criteria",
        "Conditional Access",
    ),
    case(
        "login",
        "it wants a log-in, and none is set",
        partial(server, login=False, MAIL="530 5.7.0 Authentication Required"),
        "530 5.7.0",
        "username and password",
    ),
    case(
        "address",
        "it refuses this machine's address",
        partial(server, login=False, connect="554 5.7.1 Service unavailable; Client host [203.0.113.9] blocked"),
        "554 5.7.1.*blocked",
        "address is refused",
    ),
    case(
        "relay",
        "it does not relay for us",
        partial(server, login=False, RCPT="554 5.7.1 <max@example.net>: Relay access denied"),
        "Relay access denied",
        "log in|username|relay",
        ends=Ends.WAITS,
        doctor="",
    ),
    case(
        "sender",
        "the sender is not verified there",
        partial(
            server,
            **{
                "end": "554 Message rejected: Email address is not verified. The following identities failed the check"
                " in region EU-WEST-1: a@corp.example"
            },
        ),
        "not verified",
        "verify this sender",
        ends=Ends.WAITS,
        doctor="",
    ),
    case(
        "owner",
        "the account may not send as this From",
        partial(server, MAIL="553 5.7.1 <a@corp.example>: Sender address rejected: not owned by user app@corp.example"),
        "not owned by user",
        "senders|rewrite_sender",
        ends=Ends.REFUSED,
        doctor="",
    ),
    case(
        "quota",
        "the day's limit of the account is spent",
        partial(
            server,
            **{
                "end": "550 5.4.5 Daily user sending limit exceeded. For more information on Gmail sending limits"
                " go to https://support.google.com/a/answer/166852"
            },
        ),
        "5.4.5 Daily user sending limit",
        "sending limit is used up",
        ends=Ends.SLOWED,
        doctor="",
    ),
    case(
        "blocked",
        "the provider has blocked the account",
        partial(
            server, **{"end": "550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP."}
        ),
        "5.7.708",
        "has blocked the account",
        doctor="",
    ),
    case(
        "silent",
        "it says nothing to the log-in",
        partial(server, AUTH=HANG, timeout="1s"),
        r"[Tt]imed out.*AUTH|AUTH.*[Tt]imed out|no answer",
        "ask its operator why",
        never="check username|clock",
    ),
    case(
        "busy",
        "it takes no more connections now",
        partial(server, connect="421 4.7.0 Too many connections, try again later"),
        "421 4.7.0",
        "",
        ends=Ends.SLOWED,
    ),
    case(
        "large",
        "the message is too large",
        partial(server, **{"end": "552 5.3.4 Message size exceeds fixed limit"}),
        "5.3.4 Message size",
        "smaller|max_size",
        ends=Ends.REFUSED,
        doctor="",
    ),
    case(
        "starttls",
        "it offers no STARTTLS (or a firewall takes it away)",
        plain,
        "offers no STARTTLS",
        "check host, port and tls",
    ),
    case(
        "inspected",
        "a proxy or firewall opens TLS, or its authority is not known here",
        partial(secured, kind="Corp Firewall", trusted=False),
        "not trusted: unable to get local issuer",
        "ca_file",
    ),
    case(
        "mismatch",
        "its certificate is for another name",
        partial(secured, kind="other", names=("mail.other.example",)),
        "[Hh]ostname mismatch",
        "server_name",
    ),
    case(
        "ended",
        "its certificate has ended",
        partial(secured, kind="past", **_PAST),
        "certificate has expired",
        "needs a new certificate",
        never="password",
    ),
    case(
        "early",
        "the clock of this machine is years behind",
        partial(secured, kind="ahead", **_AHEAD),
        "not yet valid",
        "clock of this machine",
        never="password|ca_file",
    ),
    case(
        "name",
        "the name of the server is not found",
        misspelled,
        "cannot find wrong",
        "check host|name",
        never="password|clock",
    ),
    case(
        "nobody",
        "nothing answers there (firewall, wrong port)",
        nobody,
        "Connection refused",
        "host and port|firewall",
        never="password|clock",
    ),
)
