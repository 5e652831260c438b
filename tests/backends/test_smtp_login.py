"""smtp's log-in against servers that ask in every way: a secret goes only where it was asked for, and how often."""

from __future__ import annotations

import asyncio
import base64
import hmac
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.smtp.mechanisms import asks_for
from gateway.model import Outcome, Verdict
from tests.backends import kit
from tests.backends.kit import ALL, DROP, RAW, SmtpFake, spooled
from tests.backends.test_smtp import backend, both

NAME, WORD = "üser", "pä ss"


def b64(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


USER, PASSWORD, PLAIN = b64(NAME), b64(WORD), b64(f"\0{NAME}\0{WORD}")
LOGIN = {"username": NAME, "password": WORD}
WANTS_USER, WANTS_PASSWORD = "334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"
CHALLENGE = "<1896.697170952@postoffice.example.net>"
DIGEST = b64(f"{NAME} {hmac.new(WORD.encode(), CHALLENGE.encode(), 'md5').hexdigest()}")
CANCELLED = ("*", "501 5.7.0 cancelled")
IN, WRONG = "235 2.7.0 in", "535 5.7.8 wrong"
P, L, C = f"AUTH PLAIN {PLAIN}", "AUTH LOGIN", "AUTH CRAM-MD5"
TOKEN = "tok." + "t" * 1500
BEARER = b64(f"user={NAME}\1auth=Bearer {TOKEN}\1\1")
SHORT = b64(f"user={NAME}\1auth=Bearer t0k\1\1")
DENIED = "334 " + b64('{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}')


class Strict(SmtpFake):
    """Says what stands in ``script`` for exactly the line that stands there; any other ends the connection."""

    def __init__(self, script: list[tuple[str, str]], offers: str) -> None:
        super().__init__({"AUTH": "as in the script"}, (*ALL, f"AUTH {offers}"))
        self.script = list(script)
        self.strange: list[str] = []

    def scripted(self, command: str) -> str:
        if command.partition(" ")[0] in ("MAIL", "RCPT", "DATA", ".", "QUIT", "RSET"):
            return super().scripted(command)
        wanted, reply = self.script.pop(0) if self.script else ("nothing", "")
        if command == wanted:
            return reply
        self.strange.append(f"{command} instead of {wanted}")
        return DROP


@pytest.mark.parametrize(
    ("auth", "offers", "script"),
    [
        ("auto", "PLAIN LOGIN CRAM-MD5", [(P, IN)]),
        ("plain", "LOGIN PLAIN", [(P, IN)]),
        # It asks although it has been told: an old server, or one that wants its own line.
        ("auto", "PLAIN", [(P, "334 "), (PLAIN, IN)]),
        ("auto", "PLAIN", [(P, "334 ok. go on"), (PLAIN, IN)]),
        ("auto", "LOGIN", [(L, WANTS_USER), (USER, WANTS_PASSWORD), (PASSWORD, IN)]),
        ("login", "PLAIN LOGIN", [(L, WANTS_USER), (USER, WANTS_PASSWORD), (PASSWORD, IN)]),
        ("auto", "LOGIN", [(L, "334 " + b64("User Name\0")), (USER, "334 " + b64("Password\0")), (PASSWORD, IN)]),
        ("auto", "LOGIN", [(L, "334 "), (USER, "334 "), (PASSWORD, IN)]),
        ("auto", "LOGIN", [(L, "334 dXNlcm5hbWU6"), (USER, "334 cGFzc3dvcmQ6"), (PASSWORD, IN)]),
        ("auto", "LOGIN", [(L, "334 Username:"), (USER, "334 Password:"), (PASSWORD, IN)]),
        ("auto", "LOGIN", [(L, "334 " + b64("用户名")), (USER, "334 " + b64("密码")), (PASSWORD, IN)]),
        ("auto", "LOGIN", [(L, "334 " + b64("?")), (USER, "334 " + b64("!")), (PASSWORD, IN)]),
        ("auto", "LOGIN", [(L, WANTS_PASSWORD), (PASSWORD, WANTS_USER), (USER, IN)]),
        ("auto", "LOGIN", [(L, WANTS_USER), (USER, IN)]),
        ("auto", "LOGIN", [(L, IN)]),
        ("auto", "CRAM-MD5 DIGEST-MD5", [(C, "334 " + b64(CHALLENGE)), (DIGEST, IN)]),
        ("cram-md5", "PLAIN CRAM-MD5", [(C, "334 " + b64(CHALLENGE)), (DIGEST, IN)]),
        ("auto", "PLAIN", [(P, "503 5.5.1 Error: already authenticated")]),
        # What is refused is the mechanism.
        *(
            ("auto", "PLAIN LOGIN", [(P, code), (L, WANTS_USER), (USER, WANTS_PASSWORD), (PASSWORD, IN)])
            for code in ("504 5.5.4 no", "500 5.5.6 too long", "502 5.5.1 no", "501 5.5.2 no", WRONG)
        ),
        ("auto", "PLAIN CRAM-MD5", [(P, "504 5.7.4 no"), (C, "334 " + b64(CHALLENGE)), (DIGEST, IN)]),
        # A server that offers PLAIN and does LOGIN.
        (
            "auto",
            "PLAIN LOGIN",
            [(P, WANTS_USER), CANCELLED, (L, WANTS_USER), (USER, WANTS_PASSWORD), (PASSWORD, IN)],
        ),
    ],
)
async def test_a_server_is_told_what_it_asks_for(
    tmp_path: Path, auth: str, offers: str, script: list[tuple[str, str]]
) -> None:
    """RFC 4954, 4: a 334 is a question. Which one it is, is read."""
    async with Strict(script, offers) as server, backend(server, tmp_path, auth=auth, **LOGIN) as way:
        outcome = (await way.send(spooled(), RAW))["b@x.example"]
        assert server.strange == []
        assert (outcome.verdict, server.script) == (Verdict.SENT, []), outcome


@pytest.mark.parametrize(
    ("auth", "offers", "script", "code", "words"),
    [
        ("plain", "PLAIN", [(P, WANTS_USER), CANCELLED], None, "asks for the user name within AUTH PLAIN"),
        ("plain", "PLAIN", [(P, WANTS_PASSWORD), CANCELLED], None, "asks for the password within AUTH PLAIN"),
        ("plain", "PLAIN", [(P, "334 "), (PLAIN, "334 "), CANCELLED], None, "asks for more within AUTH PLAIN"),
        (
            "login",
            "LOGIN",
            [(L, WANTS_USER), (USER, WANTS_USER), CANCELLED],
            None,
            "asks for the user name once more within AUTH LOGIN",
        ),
        (
            "login",
            "LOGIN",
            [(L, "334 "), (USER, "334 "), (PASSWORD, WANTS_PASSWORD), CANCELLED],
            None,
            "asks for the password once more within AUTH LOGIN",
        ),
        ("cram-md5", "CRAM-MD5", [(C, WANTS_USER), CANCELLED], None, "sends a prompt within AUTH CRAM-MD5"),
        ("cram-md5", "CRAM-MD5", [(C, "334 "), CANCELLED], None, "sends no challenge within AUTH CRAM-MD5"),
        ("login", "LOGIN", [(L, WANTS_USER), (USER, "354 go")], None, "unexpected reply: 354 go"),
        # A wrong password is one guess; with LOGIN as well it is two, and never again.
        ("plain", "PLAIN LOGIN", [(P, WRONG)], 535, "wrong"),
        ("auto", "PLAIN", [(P, WRONG)], 535, "wrong"),
        ("auto", "PLAIN CRAM-MD5", [(P, WRONG)], 535, "wrong"),
        ("auto", "PLAIN LOGIN", [(P, "534 5.7.9 Application-specific password required")], 534, "Application"),
        ("auto", "PLAIN LOGIN", [(P, "454 4.7.0 later")], 454, "later"),
        ("auto", "PLAIN LOGIN", [(P, "421 4.7.0 too many")], 421, "too many"),
        ("auto", "PLAIN LOGIN", [(P, WRONG), (L, "504 5.5.4 unknown")], 535, "wrong"),
        ("auto", "PLAIN LOGIN", [(P, "504 5.5.4 unknown"), (L, WANTS_USER), (USER, WRONG)], 535, "wrong"),
        ("auto", "PLAIN LOGIN", [(P, WRONG), (L, DROP)], 535, "wrong"),
        ("auto", "PLAIN LOGIN", [(P, WRONG), (L, "421 4.7.0 too many errors")], 535, "wrong"),
        ("auto", "PLAIN", [(P, "503 5.5.1 Error: authentication not enabled")], 503, "not enabled"),
    ],
)
async def test_what_does_not_fit_is_broken_off_and_told(
    tmp_path: Path, auth: str, offers: str, script: list[tuple[str, str]], code: int | None, words: str
) -> None:
    """``*`` cancels an exchange (RFC 4954, 4). No secret is said where another was asked for."""
    async with Strict(script, offers) as server, backend(server, tmp_path, auth=auth, **LOGIN) as way:
        outcome = (await way.send(spooled(), RAW))["b@x.example"]
        assert server.strange == []
        assert (outcome.code, server.script) == (code, []), outcome
        assert words in outcome.detail
        temporary = "unexpected" in words or (code is not None and code < 500)
        assert outcome.verdict in ((Verdict.THROTTLED, Verdict.DEFERRED) if temporary else (Verdict.MISCONFIGURED,))
        assert "backends.smart" in outcome.fix or code in (421, 454)
        assert not any(secret in f"{outcome}" for secret in (WORD, PASSWORD, PLAIN))


async def test_what_worked_is_remembered_and_what_did_not_is_not_tried_again(tmp_path: Path) -> None:
    by_login = [(L, WANTS_USER), (USER, WANTS_PASSWORD), (PASSWORD, IN)]
    script = [(P, WRONG), *by_login, *by_login, (L, WANTS_USER), (USER, WANTS_PASSWORD), (PASSWORD, WRONG)]
    async with Strict(script, "PLAIN LOGIN") as server, backend(server, tmp_path, **LOGIN) as way:
        assert (await way.check()).ok
        assert (await way.check()).ok
        assert not (await way.check()).ok  # changed over there meanwhile: that is one guess
        assert (server.strange, server.script) == ([], [])


async def test_two_refusals_are_the_last_word_on_mechanisms(tmp_path: Path) -> None:
    """Accounts are locked after a few wrong guesses: from then on each probe is one."""
    script = [(P, WRONG), (L, WANTS_USER), (USER, WANTS_PASSWORD), (PASSWORD, WRONG), (P, WRONG), (P, WRONG)]
    async with Strict(script, "PLAIN LOGIN") as server, backend(server, tmp_path, **LOGIN) as way:
        for _ in range(3):
            assert not (await way.check()).ok
        assert (server.strange, server.script) == ([], [])


async def test_a_server_that_hangs_up_after_the_first_refusal_gets_the_second_on_the_next_connection(
    tmp_path: Path,
) -> None:
    class Rude(Strict):
        async def say(self, writer: Any, reader: Any, reply: str) -> None:
            await super().say(writer, reader, reply)
            if reply == WRONG:
                raise EOFError

    script = [(P, WRONG), (L, WANTS_USER), (USER, WANTS_PASSWORD), (PASSWORD, IN)]
    async with Rude(script, "PLAIN LOGIN") as server, backend(server, tmp_path, **LOGIN) as way:
        check = await way.check()
        assert (check.ok, check.summary) == (False, WRONG)
        server.script = server.script[-3:]  # where the line broke is a matter of timing
        assert (await way.check()).ok
        assert (server.strange, server.script) == ([], [])


async def test_many_connections_make_one_guess(tmp_path: Path) -> None:
    """Ten workers with a wrong password are not ten failed log-ins."""
    async with both(tmp_path, {"AUTH": WRONG}, offers=("AUTH PLAIN",), **LOGIN) as (way, server):
        results = await asyncio.gather(*(way.send(spooled(queue_id=f"Q{number}"), RAW) for number in range(10)))
        assert {result["b@x.example"].code for result in results} == {535}
        assert sum(command.startswith("AUTH") for command in server.commands) == 1


async def test_once_a_login_has_worked_they_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async with both(tmp_path, offers=("AUTH PLAIN",), **LOGIN) as (way, server):
        outcomes = await asyncio.gather(*(way.send(spooled(queue_id=f"Q{number}"), RAW) for number in range(10)))
        assert all(one["b@x.example"].verdict is Verdict.SENT for one in outcomes)
        assert len(server.done) == 10


@pytest.mark.parametrize(
    ("token", "script", "sent"),
    [
        # The form of the line is refused: the other one is tried.
        ("t0k", [(f"AUTH XOAUTH2 {SHORT}", "501 5.5.4 no"), ("AUTH XOAUTH2", "334 "), (SHORT, IN)], True),
        (TOKEN, [("AUTH XOAUTH2", "501 5.5.4 initial response needed"), (f"AUTH XOAUTH2 {BEARER}", IN)], True),
        (TOKEN, [("AUTH XOAUTH2", "500 5.5.1 no"), (f"AUTH XOAUTH2 {BEARER}", "500 5.5.6 too long")], False),
        ("t0k", [(f"AUTH XOAUTH2 {SHORT}", IN)], True),
        # RFC 4954, 4: the line of AUTH may not be longer than 512 octets.
        (TOKEN, [("AUTH XOAUTH2", "334 "), (BEARER, IN)], True),
        ("t0k", [(f"AUTH XOAUTH2 {SHORT}", DENIED), ("", WRONG)], False),
        (TOKEN, [("AUTH XOAUTH2", "334 "), (BEARER, DENIED), ("", WRONG)], False),
        (TOKEN, [("AUTH XOAUTH2", WANTS_PASSWORD), CANCELLED], False),
        ("t0k", [(f"AUTH XOAUTH2 {SHORT}", DENIED), ("", DENIED), CANCELLED], False),
        ("t0k", [(f"AUTH XOAUTH2 {SHORT}", WRONG)], False),
        (
            "t0k",
            [(f"AUTH XOAUTH2 {SHORT}", "334 " + b64('{"a":' + "[" * 5000)), ("", "535 5.7.8 no")],
            False,
        ),
    ],
)
async def test_xoauth2_with_the_token_that_is_in_the_file_now(
    tmp_path: Path, token: str, script: list[tuple[str, str]], sent: bool
) -> None:
    """A refusal comes as JSON first; an empty line gets the reply, and both are told."""
    file = tmp_path / "token"
    file.write_text("old")
    settings = {"auth": "xoauth2", "username": NAME, "token_file": file}
    async with Strict(script, "LOGIN XOAUTH2") as server, backend(server, tmp_path, **settings) as way:
        file.write_text(f"{token}\n")
        outcome = (await way.send(spooled(), RAW))["b@x.example"]
        assert (server.strange, server.script) == ([], [])
        assert (outcome.verdict is Verdict.SENT) is sent, outcome
        if len(script) > 1 and script[-1] == ("", WRONG):
            assert outcome.detail == (
                f"{WRONG} (status 400: it cannot read the token, or it is not this mailbox's; "
                "it wants the scope https://mail.google.com/)"
            )
        assert not any(secret in outcome.detail for secret in (TOKEN, BEARER, SHORT))


@pytest.mark.parametrize("content", [None, b"", b"two words", b"\xff\xfe", b"a\nb"])
async def test_a_token_file_without_a_token_is_called_so(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    settings = {"auth": "xoauth2", "username": NAME, "token_file": file}
    async with Strict([], "XOAUTH2") as server, backend(server, tmp_path, **settings) as way:
        outcome = (await way.send(spooled(), RAW))["b@x.example"]
        assert (outcome.verdict, server.strange) == (Verdict.MISCONFIGURED, [])
        assert f"{file}" in outcome.detail
        assert "token_file" in outcome.fix


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        *((b64(text), "the user name") for text in ("Username:", "USERNAME", "User Name\0", "login:", "Benutzername:")),
        *((b64(text), "the user name") for text in ("Nom d'utilisateur", "Nombre de usuario:", "用户名:", "E-mail")),
        *((b64(text), "the password") for text in ("Password:", "PASSWORD\0", "Passwort:", "Mot de passe:", "口令")),
        *((b64(text), "the password") for text in ("Contraseña:", "Пароль:", "Enter the password of user x", "Senha")),
        ("Username:", "the user name"),
        ("Password", "the password"),
        *((text, "") for text in ("", "=", "ok", "go on", b64("?"), b64(b"\xff\xfe"), b64(CHALLENGE), "!!!!")),
    ],
)
def test_what_a_prompt_asks_for(prompt: str, wanted: str) -> None:
    assert asks_for(prompt) == wanted


@pytest.mark.parametrize(
    ("auth", "offers"),
    [("auto", ()), ("auto", ("AUTH DIGEST-MD5 XOAUTH2",)), ("plain", ("AUTH LOGIN",)), ("login", ("AUTH PLAIN",))],
)
async def test_without_a_usable_mechanism_the_setting_is_wrong(
    tmp_path: Path, auth: str, offers: tuple[str, ...]
) -> None:
    async with both(tmp_path, offers=offers, auth=auth, **LOGIN) as (way, server):
        outcome = (await way.send(spooled(), RAW))["b@x.example"]
        assert (outcome.verdict, outcome.code, outcome.enhanced) == (Verdict.MISCONFIGURED, None, "4.7.4")
        assert not any(command.startswith(("AUTH", "MAIL")) for command in server.commands)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("535 5.7.8 wrong", "MISCONFIGURED"),
        ("534 5.7.9 too weak", "MISCONFIGURED"),
        ("538 5.7.11 encrypt", "MISCONFIGURED"),
        ("530 5.7.0 first", "MISCONFIGURED"),
        ("500 5.5.6 too long", "MISCONFIGURED"),
        ("432 4.7.12 change it first", "MISCONFIGURED"),
        ("432 4.3.2 Concurrent connections limit exceeded", "THROTTLED"),
        ("454 4.7.0 not now", "THROTTLED"),
        ("451 4.3.0 not now", "THROTTLED"),
        ("421 4.7.0 too many logins", "THROTTLED"),
        (f"535 5.7.8 {PASSWORD} and {PLAIN} and {WORD}", "MISCONFIGURED"),
    ],
)
async def test_a_refused_login_blames_the_backend_and_shows_no_password(
    tmp_path: Path, reply: str, verdict: str
) -> None:
    async with both(tmp_path, {"AUTH": reply}, offers=("AUTH PLAIN",), **LOGIN) as (way, _):
        outcome: Outcome = (await way.send(spooled(), RAW))["b@x.example"]
        assert (outcome.verdict.name, outcome.code) == (verdict, int(reply[:3]))
        assert not any(secret in outcome.detail for secret in (PASSWORD, PLAIN, WORD))
        check = await way.check()
        assert not check.ok
        assert PLAIN not in f"{check}"


# -- what comes before it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replies", "code", "fix"),
    [
        ({"connect": "554 5.7.1 blocked"}, 554, "whether this machine's address is refused there"),
        ({"EHLO": "501 5.5.2 bad name"}, 501, "backends.smart.local_hostname"),
        ({"EHLO": "550 5.7.1 who?"}, 550, "backends.smart.local_hostname"),
        ({"EHLO": "502 5.5.1 what?"}, None, "check host, port and tls"),
        ({"EHLO": "500 5.5.1 what?"}, None, "check host, port and tls"),
        ({"EHLO": DROP}, None, "backends.smart.local_hostname"),
    ],
)
async def test_a_refusal_before_the_login_names_the_setting_that_it_is_about(
    tmp_path: Path, replies: dict[str, str], code: int | None, fix: str
) -> None:
    """No AUTH without EHLO: trying HELO would end in "offers no AUTH", which is not what is wrong."""
    async with both(tmp_path, replies, **LOGIN) as (way, server):
        outcome = (await way.send(spooled(), RAW))["b@x.example"]
        assert (outcome.code, fix in outcome.fix) == (code, True), outcome
        assert not any(command.startswith(("HELO", "AUTH")) for command in server.commands)


@pytest.mark.parametrize("refusal", ["500 5.5.1 what?", "502 5.5.1 what?", "501 5.5.2 bad name", "550 5.7.1 no"])
async def test_where_nothing_else_is_needed_helo_is_tried_and_the_reply_to_ehlo_told(
    tmp_path: Path, refusal: str
) -> None:
    """RFC 5321, 3.2. Postfix tries HELO after every refusal but 421."""
    async with both(tmp_path, {"EHLO": refusal}) as (way, server):
        assert (await way.send(spooled(), RAW))["b@x.example"].verdict is Verdict.SENT
    async with both(tmp_path, {"EHLO": refusal, "HELO": "501 5.5.2 neither"}) as (way, server):
        outcome = (await way.send(spooled(), RAW))["b@x.example"]
        assert (outcome.verdict, outcome.detail) == (Verdict.MISCONFIGURED, refusal)
        assert "backends.smart.local_hostname" in outcome.fix
        assert "relay.example" in outcome.fix
        assert server.commands == ["EHLO relay.example", "HELO relay.example"]


async def test_names_that_are_not_ascii_are_said_in_a_labels(tmp_path: Path) -> None:
    """RFC 5891, 5: what stands on the wire and what the certificate names."""
    async with both(tmp_path, local_hostname="büro.example") as (way, server):
        await way.send(spooled(), RAW)
        assert server.commands[0] == "EHLO xn--bro-hoa.example"
    assert kit
