"""smtp's log-ins by tokens of Microsoft and Google, against strict fakes of their servers and identity providers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.backends import settings_types
from gateway.backends.smtp.smarthost import Smtp, SmtpSettings
from gateway.config.document import ConfigError
from gateway.config.finding import Ending, Finding
from gateway.config.loading import load
from gateway.config.renewal import renewed
from gateway.model import Outcome, Scope, Verdict
from tests.backends import kit
from tests.backends.gmail_fake import GoogleFake, Recorder, authorized_user_info, service_account_info, stored
from tests.backends.graph_fake import CLIENT, MAILBOX, SECRET, TENANT, GraphFake, QuickClock, refusal
from tests.backends.kit import Web, spooled
from tests.backends.submission_fake import GmailSubmission, Submission
from tests.backends.test_microsoft import CERTIFICATE, foreign, pem
from tests.builders import START
from tests.fakes import until

OUTLOOK = "https://outlook.office365.com"
FULL = "https://mail.google.com/"
SECOND = "second@corp.example"
APPLICATION = {"tenant": TENANT, "client_id": CLIENT, "client_secret": SECRET}
PERSON = {"tenant": "consumers", "client_id": CLIENT, "device_login": True}


def message(sender: str = MAILBOX, size: int = 0) -> bytes:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = sender, "b@x.example", "hello"
    made.set_content("line\n" if not size else "x" * 75 + "\n")
    raw = made.as_bytes().replace(b"\n", b"\r\n")
    return raw + (b"y" * 74 + b"\r\n") * (size // 76)


@dataclass
class Bench:
    """The backend before the server and the identity provider of its mailboxes."""

    way: Smtp
    settings: SmtpSettings
    server: Submission
    entra: Any  # GraphFake or GoogleFake
    clock: QuickClock
    signals: Recorder

    async def send(self, sender: str = MAILBOX, queue_id: str = "Q1", raw: bytes = b"", **more: Any) -> Outcome:
        given = replace(spooled(sender=sender, queue_id=queue_id), header_from=sender, **more)
        return (await self.way.send(given, raw or message(given.header_from)))["b@x.example"]

    @property
    def issued(self) -> list[str]:
        return list(self.entra.tokens)


@contextlib.asynccontextmanager
async def exchange(
    tmp_path: Path,
    certificates: kit.Certificates,
    right: dict[str, Any] | None = None,
    kind: type[Submission] = Submission,
    **settings: Any,
) -> AsyncIterator[Bench]:
    clock, signals = QuickClock(), Recorder()
    entra = GraphFake(clock, resource=OUTLOOK, rbac=True, delegated="https://outlook.office.com/SMTP.Send")
    entra.refresh_tokens, entra.certificate = {"rt-0"}, CERTIFICATE

    def whose(token: str) -> str | None:
        return "*" if entra.tokens.get(token, -1) > clock.monotonic() else None

    server = kind(certificates.server(), whose, {MAILBOX, SECOND})
    async with Web(entra) as web, server, kit.context(tmp_path, clock) as silent:
        entra.url = web.url
        given = {"host": "127.0.0.1", "port": server.port, "ca_file": certificates.ca_file, "timeout": "5s"}
        given |= {
            "preset": "office365",
            "mailbox": MAILBOX,
            "microsoft": (right or APPLICATION) | {"authority": web.url},
        }
        found = SmtpSettings.model_validate({k: v for k, v in (given | settings).items() if v is not None})
        way = Smtp("office", found, replace(silent, signals=signals))
        try:
            yield Bench(way, found, server, entra, clock, signals)
        finally:
            await way.aclose()


@contextlib.asynccontextmanager
async def gmail(
    tmp_path: Path, certificates: kit.Certificates, google: dict[str, Any], fake: GoogleFake | None = None, **more: Any
) -> AsyncIterator[Bench]:
    clock, signals = QuickClock(), Recorder()
    fake = fake or GoogleFake(clock, granted=FULL, asked=FULL)
    fake.clock = clock

    def whose(token: str) -> str | None:
        mailbox, ends = fake.tokens.get(token, ("", clock.now()))
        return mailbox if ends > clock.now() and FULL in fake.granted else None

    server = GmailSubmission(certificates.server(), whose, {MAILBOX, "c@corp.example"})
    async with Web(fake) as web, server, kit.context(tmp_path, clock) as silent:
        given = {"host": "127.0.0.1", "port": server.port, "ca_file": certificates.ca_file, "timeout": "5s"}
        given |= {"preset": "gmail", "mailbox": MAILBOX, "google": {"token_url": f"{web.url}/token", **google}}
        found = SmtpSettings.model_validate(given | more)
        way = Smtp("google", found, replace(silent, signals=signals))
        try:
            yield Bench(way, found, server, fake, clock, signals)
        finally:
            await way.aclose()


def hidden(bench: Bench, *texts: object) -> bool:
    """No token, and nothing that a token can be read from, stands in any of these."""
    said = [f"user={MAILBOX}\1auth=Bearer {token}\1\1".encode() for token in bench.issued]
    pieces = [*(token[-20:] for token in bench.issued), *(base64.b64encode(one)[60:80].decode() for one in said)]
    return not any(piece in str(text) for piece in (*pieces, SECRET) for text in texts)


# -- Exchange --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("right", ["secret", "certificate", "federated", "managed"])
async def test_an_application_logs_in_as_the_mailbox(
    tmp_path: Path, certificates: kit.Certificates, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Microsoft's page: XOAUTH2 with a token for Exchange, not for Graph; user= is the mailbox of MAIL FROM."""
    (tmp_path / "app.pem").write_text("".join(pem()))
    (tmp_path / "token").write_bytes(foreign(START + timedelta(hours=1)))
    by = {"certificate": {"certificate_file": tmp_path / "app.pem"}, "secret": {"client_secret": SECRET}}
    by["federated"] = {"federated_token_file": tmp_path / "token"}
    given: dict[str, Any] = {"tenant": TENANT, "client_id": CLIENT, **by.get(right, {})}
    async with exchange(tmp_path, certificates, {"managed_identity": True} if right == "managed" else given) as bench:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", bench.entra.url)
        if right == "federated":
            bench.entra.federated = (tmp_path / "token").read_text()
        outcome = await bench.send()
        assert outcome.verdict is Verdict.SENT, outcome
        assert {form["scope"] for form in bench.entra.forms} == (
            {f"{OUTLOOK}/.default"} if right != "managed" else set()
        )
        assert bench.server.logins == [("XOAUTH2", MAILBOX, True)]
        (taken,) = bench.server.taken
        assert (taken.user, taken.mail, taken.rcpt, taken.body) == (MAILBOX, MAILBOX, ["b@x.example"], message())
        assert hidden(bench, outcome, bench.signals.__dict__)


async def test_a_person_logs_in_with_what_he_signed_in_for(tmp_path: Path, certificates: kit.Certificates) -> None:
    """``mailbox: me`` is whoever has signed in; until somebody has, that is told and nobody is called."""
    from gateway.backends.microsoft.tokens import DeviceLogin
    from gateway.backends.shared.oauth import BlockingHttp

    async with exchange(tmp_path, certificates, PERSON, mailbox="me", senders=[MAILBOX]) as bench:
        outcome = await bench.send()
        assert (outcome.verdict, bench.server.connections) == (Verdict.MISCONFIGURED, 0)
        assert "gateway auth microsoft --backend office" in outcome.fix
        assert bench.settings.microsoft is not None
        bench.entra.signed_in = True
        async with kit.context(tmp_path) as context:
            asked = BlockingHttp(context.fetch, asyncio.get_running_loop())
            login = DeviceLogin(bench.settings.microsoft.identity("office", tmp_path), asked)
            await asyncio.to_thread(login.start)
            assert await asyncio.to_thread(login.finish) == MAILBOX
        bench.clock.advance(10)
        assert (await bench.send()).verdict is Verdict.SENT
        assert bench.server.logins == [("XOAUTH2", MAILBOX, True)]
        assert "https://outlook.office.com/SMTP.Send" in bench.entra.forms[-1]["scope"]


async def test_each_sender_logs_in_as_himself_and_keeps_his_connection(
    tmp_path: Path, certificates: kit.Certificates
) -> None:
    async with exchange(tmp_path, certificates, mailbox="sender", senders=["*@corp.example"]) as bench:
        for number, sender in enumerate((MAILBOX, SECOND, MAILBOX.upper(), SECOND)):
            assert (await bench.send(sender, f"Q{number}")).verdict is Verdict.SENT
        assert [user for _, user, _ in bench.server.logins] == [MAILBOX, SECOND]
        assert [one.user for one in bench.server.taken] == [MAILBOX, SECOND] * 2
        assert len(bench.issued) == 1  # the application's, for all of them


async def test_the_envelope_sender_is_the_mailbox_and_that_is_told(
    tmp_path: Path, certificates: kit.Certificates
) -> None:
    """Exchange takes no other, and the null sender not at all, so that is refused at the door."""
    async with exchange(tmp_path, certificates) as bench:
        given = replace(spooled(sender="root@printer.local"), header_from=MAILBOX)
        outcome = (await bench.way.send(given, message()))["b@x.example"]
        assert (outcome.verdict, bench.server.taken[0].mail) == (Verdict.SENT, MAILBOX)
        assert outcome.detail.endswith(f"; sent as {MAILBOX} in place of root@printer.local")
        able = bench.way.capabilities
        assert (able.null_sender, able.senders, able.max_bytes) == (False, (MAILBOX,), 36_700_160)


async def test_a_mailbox_has_three_connections_and_no_fourth(tmp_path: Path, certificates: kit.Certificates) -> None:
    """Neither many messages at once nor a check beside them opens another; the other mailbox has three of its own."""
    async with exchange(
        tmp_path, certificates, mailbox="sender", senders=[MAILBOX, "*@corp.example"], mailbox_rate="1000/minute"
    ) as bench:
        bench.server.holds = asyncio.Event()
        sends = [
            asyncio.create_task(bench.send(sender, f"Q{number}")) for number in range(6) for sender in (MAILBOX, SECOND)
        ]
        await until(lambda: bench.server.open == {MAILBOX: 3, SECOND: 3})
        check = asyncio.create_task(bench.way.check())
        bench.server.holds.set()
        assert {one.verdict for one in await asyncio.gather(*sends)} == {Verdict.SENT}
        assert (await check).ok
        assert (await bench.way.check()).ok  # three may wait for the next message: they make room
        assert bench.server.busiest == {MAILBOX: 3, SECOND: 3}


async def test_another_program_with_the_same_mailbox_makes_us_wait(
    tmp_path: Path, certificates: kit.Certificates
) -> None:
    async with exchange(tmp_path, certificates) as bench:
        bench.server.open[MAILBOX] = 3
        outcome = await bench.send()
        assert (outcome.verdict, outcome.code, outcome.scope) == (Verdict.THROTTLED, 432, Scope.BACKEND)
        assert "mailbox_concurrency: 3" in outcome.fix


async def test_thirty_messages_a_minute(tmp_path: Path, certificates: kit.Certificates) -> None:
    async with exchange(tmp_path, certificates) as bench:
        began = bench.clock.monotonic()
        for number in range(31):
            assert (await bench.send(queue_id=f"Q{number}")).verdict is Verdict.SENT
        assert bench.clock.monotonic() - began >= 60
        assert len(bench.server.logins) == 1
        (use,) = bench.way.uses()
        assert (use.most, use.seconds) == (30, 60)


async def test_a_mailbox_outside_the_scope_holds_up_nobody_else(tmp_path: Path, certificates: kit.Certificates) -> None:
    """RBAC refuses it at AUTH; when three in a row are refused, it is all of them."""
    async with exchange(tmp_path, certificates, mailbox="sender", senders=["*@corp.example"]) as bench:
        outcome = await bench.send("third@corp.example")
        assert (outcome.verdict, outcome.code, outcome.scope) == (Verdict.DEFERRED, 535, Scope.MESSAGE)
        assert "Test-ServicePrincipalAuthorization" in outcome.fix
        assert f"-Identity {CLIENT} -Resource third@corp.example" in outcome.fix
        assert (await bench.send()).verdict is Verdict.SENT
        for number in range(3):
            outcome = await bench.send(f"{number}@corp.example")
        assert (outcome.verdict, outcome.scope) == (Verdict.MISCONFIGURED, Scope.BACKEND)


async def test_a_token_for_somebody_else_is_renewed_once_and_then_it_is_the_settings(
    tmp_path: Path, certificates: kit.Certificates
) -> None:
    async with exchange(tmp_path, certificates) as bench:
        assert (await bench.way.check()).ok
        bench.entra.expire()
        bench.clock.advance(300)
        assert (await bench.send()).verdict is Verdict.SENT  # the next one was good
        assert [good for *_, good in bench.server.logins] == [True, False, True]
        bench.server.mailboxes.clear()
        await bench.way.aclose()
        bench.clock.advance(300)
        before = len(bench.issued)
        outcome = await bench.send()
        assert (outcome.verdict, outcome.code, outcome.scope) == (Verdict.MISCONFIGURED, 535, Scope.BACKEND)
        assert len(bench.issued) == before + 1
        await bench.send()  # that token is young: it is not asked for again
        assert len(bench.issued) == before + 1
        assert hidden(bench, outcome)


async def test_a_server_that_hangs_up_over_an_old_token_is_called_again_with_the_new_one(
    tmp_path: Path, certificates: kit.Certificates
) -> None:
    async with exchange(tmp_path, certificates) as bench:
        assert (await bench.way.check()).ok
        bench.entra.expire()
        bench.server.hangs_up_after_refusal = True
        bench.clock.advance(300)
        assert (await bench.send()).verdict is Verdict.SENT
        assert bench.server.connections == 3


async def test_without_a_token_nobody_is_called(tmp_path: Path, certificates: kit.Certificates) -> None:
    async with exchange(tmp_path, certificates) as bench:
        bench.entra.answers["token"] = [refusal(401, "invalid_client", 7000222)] * 2
        outcome = await bench.send()
        assert (outcome.verdict, bench.server.connections) == (Verdict.MISCONFIGURED, 0)
        assert "new client secret" in outcome.fix
        first, *rest = (await bench.way.check()).steps
        assert (first.result, first.text) == ("wrong", "Microsoft gives no token to log in with.")
        assert [step.result for step in rest] == ["untried"]


@pytest.mark.parametrize(
    ("reply", "fix"),
    [
        ("535 5.7.3 Authentication unsuccessful", "New-ServicePrincipal.*Application SMTP.SendAsApp"),
        (
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit x",
            f"Set-CASMailbox -Identity {MAILBOX} -SmtpClientAuthenticationDisabled .false",
        ),
        (
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit x",
            f"Set-CASMailbox -Identity {MAILBOX} -SmtpClientAuthenticationDisabled .false",
        ),
        (
            "535 5.7.139 Authentication unsuccessful, the user credentials were locked by your organization's security "
            "defaults policy. Contact your administrator.",
            "security defaults off",
        ),
        (
            "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated "
            "successfully. Contact your administrator.",
            "Conditional Access",
        ),
    ],
)
async def test_why_exchange_refuses_a_login(
    tmp_path: Path, certificates: kit.Certificates, reply: str, fix: str
) -> None:
    async with exchange(tmp_path, certificates) as bench:
        bench.server.scripted["AUTH"] = [reply] * 2
        outcome = await bench.send()
        assert (outcome.verdict, outcome.code, outcome.scope) == (Verdict.MISCONFIGURED, 535, Scope.BACKEND)
        assert re.search(fix, outcome.fix), outcome.fix


@pytest.mark.parametrize("code", [421, 432, 454, 501, 535, 554])
async def test_a_server_that_repeats_the_token_makes_it_known_to_nobody(
    tmp_path: Path, certificates: kit.Certificates, code: int
) -> None:
    """Bare, in base64, and in pieces of lines; neither an outcome nor a check nor a signal has any of it."""

    class Echo(Submission):
        async def _command(self, verb: str, rest: str, session: Any, reader: Any, writer: Any) -> bool:
            if verb != "AUTH":
                return await super()._command(verb, rest, session, reader, writer)
            writer.write(b"334 \r\n")
            blob = (await reader.readuntil(b"\r\n")).strip()
            token = base64.b64decode(blob).split(b"Bearer ")[1].strip(b"\1")
            writer.write(
                b"%d-5.7.3 %b\r\n%d-5.7.3 %b\r\n%d 5.7.3 user=x\x01%b\r\n" % (code, blob, code, token, code, token)
            )
            await writer.drain()
            return True

    async with exchange(tmp_path, certificates, kind=Echo) as bench:
        outcome, check = await bench.send(), await bench.way.check()
        assert (outcome.code, check.ok) == (code, False)
        assert hidden(bench, outcome, check, bench.signals)


async def test_a_check_logs_in_and_says_what_it_did_not_try(tmp_path: Path, certificates: kit.Certificates) -> None:
    async with exchange(tmp_path, certificates) as bench:
        check = await bench.way.check()
        where = bench.settings.where
        assert (check.ok, check.summary) == (True, f"{where} is ready, login accepted")
        assert [(step.result, step.text.partition(":")[0]) for step in check.steps] == [
            ("good", f"Microsoft gives a token to log in as {MAILBOX}."),
            ("good", "127.0.0.1"),
            ("good", "TLSv1.3"),
            ("good", f"The login is accepted as {MAILBOX}."),
            ("untried", "Whether it takes mail from this mailbox, and to anywhere"),
        ]
        assert (check.facts["mailbox"], check.facts["permissions"].partition(";")[0]) == (MAILBOX, "none in the token")
        assert hidden(bench, check)
        assert (bench.server.logins, bench.server.taken) == ([("XOAUTH2", MAILBOX, True)], [])


async def test_a_check_of_many_senders_needs_one_of_them(tmp_path: Path, certificates: kit.Certificates) -> None:
    async with exchange(tmp_path, certificates, mailbox="sender", senders=["*@corp.example"]) as bench:
        check = await bench.way.check()
        assert (check.ok, check.summary, bench.server.connections) == (True, "a token is given; no login was tried", 0)
        assert "one whole address to senders" in check.fix


@pytest.mark.parametrize(
    ("scripted", "verdict", "words"),
    [
        # A server without the mechanism, or without TLS before it: said in words, and nothing of the token gets there.
        (
            {"EHLO": ["250-fake\r\n250 STARTTLS", "250-fake\r\n250 AUTH LOGIN"]},
            "MISCONFIGURED",
            "offers no AUTH XOAUTH2",
        ),
        ({"EHLO": ["250-fake\r\n250 AUTH XOAUTH2"]}, "MISCONFIGURED", "offers no STARTTLS"),
        ({"AUTH": ["454 4.7.0 Temporary authentication failure"]}, "THROTTLED", "454 4.7.0"),
        ({"AUTH": ["432 4.3.2 Concurrent connections limit exceeded"]}, "THROTTLED", "432 4.3.2"),
        ({"MAIL": ["451 4.7.0 Temporary server error. Please try again later. PRX4"]}, "DEFERRED", "451 4.7.0"),
        ({"MAIL": ["530 5.7.57 Client not authenticated to send mail."]}, "MISCONFIGURED", "530 5.7.57"),
        (
            {".": ["554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException"]},
            "MISCONFIGURED",
            "5.2.2",
        ),
        ({".": ["550 5.7.60 SMTP; Client does not have permissions to send as this sender"]}, "REJECTED", "5.7.60"),
        (
            {".": ["554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied"]},
            "REJECTED",
            "SendAsDenied",
        ),
        ({".": ["550 5.7.233 Tenant has exceeded its external recipient rate limit"]}, "THROTTLED", "5.7.233"),
        ({".": ["554 5.2.270 plain text too large"]}, "REJECTED", "5.2.270"),
    ],
)
async def test_what_exchange_says_otherwise(
    tmp_path: Path, certificates: kit.Certificates, scripted: dict[str, list[str]], verdict: str, words: str
) -> None:
    async with exchange(tmp_path, certificates) as bench:
        bench.server.scripted = scripted
        outcome = await bench.send()
        assert (outcome.verdict.name, words in outcome.detail) == (verdict, True), outcome
        assert hidden(bench, outcome)
        if "EHLO" in words or "offers" in words:
            assert not any(line.startswith((b"AUTH", b"MAIL")) for line in bench.server.lines)
        if verdict == "REJECTED" and "270" not in words:
            assert f"Add-RecipientPermission FROM -AccessRights SendAs -Trustee {MAILBOX}" in outcome.fix


@pytest.mark.slow
async def test_thirty_megabytes_leave_whole(tmp_path: Path, certificates: kit.Certificates) -> None:
    """What Graph takes only rebuilt, and with Mail.ReadWrite."""
    async with exchange(tmp_path, certificates) as bench:
        raw = message(size=30_000_000)
        assert (await bench.send(raw=raw)).verdict is Verdict.SENT
        assert bench.server.taken[0].body == raw


async def test_the_files_of_the_login_are_looked_at(tmp_path: Path) -> None:
    """What ends soon knows them; a sign-in that is missing keeps nobody from starting."""
    (tmp_path / "app.pem").write_text("".join(pem()))
    certificate = {"tenant": TENANT, "client_id": CLIENT, "certificate_file": tmp_path / "app.pem"}
    secret = APPLICATION | {"client_secret_expires": "2027-06-30"}
    for right, mailbox, key, ends in (
        (certificate, MAILBOX, "certificate_file", datetime(2036, 5, 1, tzinfo=UTC)),
        (secret, MAILBOX, "client_secret_expires", datetime(2027, 6, 30, tzinfo=UTC)),
        (PERSON, "me", "device_login", None),
    ):
        given = {"preset": "office365", "mailbox": mailbox, "senders": [MAILBOX], "microsoft": right}
        (found,) = SmtpSettings.model_validate(given).examine("office", tmp_path)
        assert found.keys == ("microsoft", key)
        assert found.ends == ends if isinstance(found, Ending) else not found.fatal
    (tmp_path / "google.json").write_text("{}")
    google = {"preset": "gmail", "mailbox": MAILBOX, "google": {"service_account_file": tmp_path / "google.json"}}
    (finding,) = SmtpSettings.model_validate(google).examine("google", tmp_path)
    assert isinstance(finding, Finding)
    assert (finding.keys, finding.fatal) == (("google", "service_account_file"), True)


# -- Google ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", ["auto", "oauthbearer"])
async def test_a_service_account_logs_in_for_each_mailbox(
    tmp_path: Path, certificates: kit.Certificates, auth: str
) -> None:
    """The scope of the API is not enough for SMTP; each mailbox has a token in its own name."""
    file = stored(tmp_path, service_account_info())
    senders = {"mailbox": "sender", "senders": ["*@corp.example"], "auth": auth}
    async with gmail(tmp_path, certificates, {"service_account_file": file}, **senders) as bench:
        for sender in (MAILBOX, "c@corp.example"):
            assert (await bench.send(sender)).verdict is Verdict.SENT
        name = "XOAUTH2" if auth == "auto" else "OAUTHBEARER"
        assert bench.server.logins == [(name, MAILBOX, True), (name, "c@corp.example", True)]
        outcome = await bench.send("nobody@corp.example")
        assert (outcome.verdict, outcome.enhanced) == (Verdict.REJECTED, "5.1.8")


@pytest.mark.parametrize("auth", ["xoauth2", "oauthbearer"])
async def test_what_google_says_of_a_refused_token_is_read(
    tmp_path: Path, certificates: kit.Certificates, auth: str
) -> None:
    """A JSON challenge, which each mechanism acknowledges in its own way, before the 535."""
    file = stored(tmp_path, service_account_info())
    async with gmail(tmp_path, certificates, {"service_account_file": file}, auth=auth) as bench:
        bench.server.mailboxes.clear()
        outcome = await bench.send()
        assert (outcome.verdict, outcome.code, outcome.scope) == (Verdict.MISCONFIGURED, 535, Scope.BACKEND)
        assert "status 400: it cannot read the token, or it is not this mailbox's" in outcome.detail
        assert f"it wants the scope {FULL}" in outcome.detail
        assert "delegation of the service account names the scope" in outcome.fix
        assert hidden(bench, outcome)


async def test_a_sign_in_for_the_api_alone_is_told_apart(tmp_path: Path, certificates: kit.Certificates) -> None:
    file = stored(tmp_path, authorized_user_info())
    own = {"mailbox": "me", "senders": [MAILBOX]}
    for granted, verdict in ((FULL, Verdict.SENT), (kit_scope := "https://www.googleapis.com/auth/gmail.send", None)):
        fake = GoogleFake(QuickClock(), granted=granted, asked=FULL)
        async with gmail(tmp_path, certificates, {"authorized_user_file": file}, fake, **own) as bench:
            outcome = await bench.send()
            if verdict is None:
                assert (outcome.verdict, bench.server.connections) == (Verdict.MISCONFIGURED, 0)
                assert kit_scope in outcome.detail
                assert "gateway auth google --backend google" in outcome.fix
            else:
                assert (outcome.verdict, bench.server.logins) == (verdict, [("XOAUTH2", MAILBOX, True)])


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"preset": "office365"}, "preset office365 needs a login: microsoft with mailbox"),
        ({"preset": "acs", "username": "u"}, "username and password go together"),
        ({"microsoft": APPLICATION}, "mailbox is missing"),
        ({"microsoft": APPLICATION, "mailbox": "me"}, "mailbox me needs device_login in microsoft"),
        ({"microsoft": PERSON, "mailbox": "me"}, "mailbox me needs, in senders, the address"),
        ({"microsoft": APPLICATION, "mailbox": "sender"}, 'mailbox "sender" needs senders'),
        ({"microsoft": APPLICATION, "mailbox": MAILBOX, "username": "u"}, "username is not used with microsoft"),
        ({"microsoft": APPLICATION, "mailbox": MAILBOX, "password": "p"}, "password is not used with microsoft"),
        ({"microsoft": APPLICATION, "mailbox": MAILBOX, "auth": "login"}, "auth login takes a password"),
        ({"microsoft": APPLICATION, "mailbox": MAILBOX, "tls": "none"}, "is not sent unencrypted"),
        ({"microsoft": {"tenant": TENANT, "client_id": CLIENT}, "mailbox": MAILBOX}, "needs exactly one of"),
        ({"microsoft": APPLICATION, "google": {"service_account_file": "x"}, "mailbox": MAILBOX}, "one of them"),
        ({"google": {}, "mailbox": MAILBOX}, "give service_account_file or authorized_user_file"),
        ({"google": {"service_account_file": "x"}, "mailbox": "me"}, "needs an authorized_user_file"),
        (
            {"google": {"authorized_user_file": "x"}, "mailbox": "sender", "senders": ["*"]},
            "needs a service_account_file",
        ),
        ({"mailbox": MAILBOX}, "mailbox needs microsoft or google"),
        ({"senders": [MAILBOX]}, "senders needs microsoft or google"),
        ({"auth": "oauthbearer"}, "unless microsoft or google gives tokens"),
    ],
)
def test_what_does_not_go_together(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SmtpSettings.model_validate({"host": "smtp.example.net"} | given)
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (
            {"preset": "office365", "microsoft": APPLICATION, "mailbox": MAILBOX},
            {
                "host": "smtp.office365.com",
                "actual_port": 587,
                "tls": "starttls",
                "concurrency": 3,
                "max_recipients": 500,
            },
        ),
        (
            {"preset": "office365", "microsoft": APPLICATION, "mailbox": "sender", "senders": ["*@corp.example"]},
            {"concurrency": 20, "mailbox_concurrency": 3, "max_size": 36_700_160},
        ),
        (
            {"preset": "office365", "microsoft": PERSON, "mailbox": MAILBOX, "host": "smtp-mail.outlook.com"},
            {"host": "smtp-mail.outlook.com", "oauth": True},
        ),
        (
            {"preset": "gmail", "username": "u", "password": "p", "max_size": "1MB", "concurrency": 2},
            {"host": "smtp.gmail.com", "max_recipients": 100, "max_size": 1_000_000, "concurrency": 2, "oauth": False},
        ),
        (
            {"preset": "hve", "microsoft": APPLICATION, "mailbox": MAILBOX},
            {"host": "smtp-hve.office365.com", "max_recipients": 50, "concurrency": 20, "mailbox_rate": None},
        ),
        (
            {"preset": "acs", "username": "u", "password": "p"},
            {"host": "smtp.azurecomm.net", "max_recipients": 50, "concurrency": 10, "oauth": False},
        ),
    ],
)
def test_a_preset_fills_in_what_is_left_out(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    found = SmtpSettings.model_validate(given)
    assert {name: getattr(found, name) for name in wanted} == wanted
    assert found.filled_by("max_recipients") == f"preset {given['preset']}"
    assert found.filled_by("timeout") == ""


def test_who_has_a_password_at_exchange_is_told_that_it_ends(tmp_path: Path) -> None:
    given = {"preset": "office365", "username": "u", "password": "p"}
    (found,) = SmtpSettings.model_validate(given).examine("smart", tmp_path)
    assert isinstance(found, Finding)
    assert (found.keys, found.fatal, "December 2026" in found.text) == (("username",), False, True)


def test_a_secret_within_a_section_can_be_taken_alone() -> None:
    """gateway backend fix: a new client secret counts, whatever else is different on disk waits for a reload."""
    given = {"preset": "office365", "mailbox": MAILBOX, "microsoft": APPLICATION}
    before = SmtpSettings.model_validate(given)
    new = {**APPLICATION, "client_secret": "another-secret", "tenant": "other.example"}
    there = SmtpSettings.model_validate(given | {"microsoft": new, "timeout": "5s"})
    taken, renewal = renewed(before, there)
    assert isinstance(taken, SmtpSettings)
    assert taken.microsoft is not None
    assert taken.microsoft.client_secret == there.microsoft.client_secret  # type: ignore[union-attr]
    assert taken.microsoft.tenant == TENANT
    assert (renewal.taken, renewal.differs) == (("microsoft.client_secret",), ("timeout", "microsoft.tenant"))


def test_a_key_of_the_token_in_the_wrong_place_is_told_its_own(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    section = {"type": "smtp", "preset": "office365", "tenant": TENANT, "client_secret_file": "x", "mailbox": MAILBOX}
    file.write_text(json.dumps({"state_dir": str(tmp_path), "backends": {"office": section}}))
    with pytest.raises(ConfigError) as caught:
        load(file, {}, settings_types())
    for key in ("tenant", "client_secret_file"):
        assert f'office.{key}: unknown key here; it belongs, indented, below "microsoft:"' in str(caught.value)
