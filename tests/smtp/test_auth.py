"""AUTH: each mechanism with and without initial response, its rules and limits, and no secret anywhere (RFC 4954)."""

from __future__ import annotations

import smtplib
from base64 import b64encode
from datetime import timedelta
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any

import anyio.to_thread
import pytest
from pydantic import SecretStr

from gateway.auth import LoginRefused
from gateway.model import CannotTell, Capabilities, Refusal
from tests.smtp.kit import CLIENTS, MESSAGE, PASSWORD, Peer, Rig, rig

WRONG = "535 5.7.8"


def b64(text: str | bytes) -> str:
    return b64encode(text.encode() if isinstance(text, str) else text).decode()


def plain(user: str, password: str, identity: str = "") -> str:
    return b64(f"{identity}\0{user}\0{password}")


def bearer(token: str, user: str = "jwt") -> str:
    return b64(f"user={user}\1auth=Bearer {token}\1\1")


def oauthbearer(token: str, user: str = "jwt") -> str:
    return b64(f"n,a={user},\1host=relay.example.com\1port=25\1auth=Bearer {token}\1\1")


async def greeted(made: Rig, **options: Any) -> Peer:
    peer = await made.connect(**options)
    await peer.ehlo()
    return peer


async def test_every_mechanism_logs_in() -> None:
    """With and without initial response, name in any case, password and token."""
    async with rig() as made:
        token = made.token()
        for steps in (
            [(f"AUTH PLAIN {plain('jwt', token)}", "235")],
            [("auth plain", "334 "), (plain("copier", PASSWORD), "235")],
            [(f"AUTH PLAIN {plain('copier', PASSWORD, 'copier')}", "235")],
            [("AUTH LOGIN", "334 VXNlcm5hbWU6"), (b64("copier"), "334 UGFzc3dvcmQ6"), (b64(PASSWORD), "235")],
            [(f"AUTH Login {b64('jwt')}", "334 UGFzc3dvcmQ6"), (b64(token), "235")],
            [(f"AUTH XOAUTH2 {bearer(token)}", "235")],
            [("AUTH XOAUTH2", "334 "), (bearer(token), "235")],
            [(f"AUTH OAUTHBEARER {oauthbearer(token)}", "235")],
            [(f"AUTH OAUTHBEARER {oauthbearer(token, '')}", "235")],
        ):
            peer = await greeted(made, address="127.0.0.9")
            await peer.talk(*steps, ("MAIL FROM:<a@b.c>", "250"))
        assert made.metric("smtp_auth_total", mechanism="PLAIN", result="ok") == 3
        assert made.metric("smtp_auth_total", mechanism="OAUTHBEARER", result="ok") == 2


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([("AUTH CRAM-MD5", "504 5.5.4"), ("AUTH", "504 5.5.4")], id="unknown mechanism"),
        pytest.param([("AUTH LOGIN", "334"), ("*", "501 5.7.0"), ("NOOP", "250")], id="cancelled"),
        pytest.param([("AUTH PLAIN *", "501 5.7.0"), ("NOOP", "250")], id="cancelled at once"),
        pytest.param([("AUTH PLAIN ?!", "501 5.5.2"), ("AUTH PLAIN", "334"), ("no base64", "501 5.5.2")], id="base64"),
        pytest.param([("AUTH PLAIN =", "501 5.5.2"), ("AUTH PLAIN YQ==", "501 5.5.2")], id="parts"),
        pytest.param([("AUTH PLAIN " + b64(b"\0\xff\0\xff"), "501 5.5.2")], id="utf-8"),
        pytest.param([("AUTH LOGIN =", "334 UGFzc3dvcmQ6"), ("=", WRONG)], id="empty is a value"),
        pytest.param([("AUTH PLAIN " + plain("copier", PASSWORD, "boss"), WRONG)], id="for somebody else"),
        pytest.param([("AUTH PLAIN " + plain("copier", "wrong"), WRONG)], id="wrong password"),
        pytest.param([("AUTH PLAIN " + plain("nobody", PASSWORD), WRONG)], id="unknown user"),
        pytest.param([("AUTH XOAUTH2 " + b64("user=x\1auth=Basic y\1\1"), "501 5.5.2")], id="not bearer"),
        pytest.param([("AUTH XOAUTH2 " + bearer("a.b.c"), "334 "), ("", WRONG)], id="bearer refused"),
        pytest.param([("AUTH OAUTHBEARER " + oauthbearer("a.b.c"), "334 "), ("AQ==", WRONG)], id="oauthbearer refused"),
        pytest.param([("MAIL FROM:<a@b.c>", "250"), ("AUTH PLAIN", "503 5.5.1")], id="inside a transaction"),
        pytest.param([("AUTH PLAIN " + plain("copier", PASSWORD), "235"), ("AUTH PLAIN", "503 5.5.1")], id="twice"),
    ],
)
async def test_rules(steps: list[tuple[str | bytes, str]]) -> None:
    async with rig() as made:
        await (await greeted(made)).talk(*steps)


async def test_before_ehlo_and_switched_off() -> None:
    async with rig() as made:
        await (await made.connect()).talk(("AUTH PLAIN", "503 5.5.1"))
    async with rig(listener={"auth": "off"}) as made:
        peer = await made.connect()
        assert "AUTH" not in await peer.ehlo()
        await peer.talk(("AUTH PLAIN", "502 5.5.1"))


@pytest.mark.parametrize("size", [333, 483, 739, 1592, 4000, 8000, 9000])
async def test_long_passwords(size: int) -> None:
    """Tokens of any usual length through every mechanism."""
    seen = []
    async with rig() as made:
        login = made.auth.login

        async def remember(user: str, password: str, peer: str) -> Any:
            seen.append((user, password))
            return await login("copier", PASSWORD, peer)

        made.auth.login = remember  # type: ignore[method-assign]
        secret = "x" * size
        for steps in (
            [(f"AUTH PLAIN {plain('u', secret)}", "235")],
            [("AUTH PLAIN", "334"), (plain("u", secret), "235")],
            [("AUTH LOGIN", "334"), (b64("u"), "334"), (b64(secret), "235")],
        ):
            await (await greeted(made)).talk(*steps)
        assert seen == [("u", secret)] * 3


async def test_too_long() -> None:
    """Above 12,288 octets: 500 5.5.6, inline and as an answer; the session goes on."""
    blob = b64(b"\0u\0" + b"x" * 9400)
    assert len(blob) > 12320
    async with rig() as made:
        peer = await greeted(made)
        await peer.talk(
            (f"AUTH PLAIN {blob}", "500 5.5.6"), ("AUTH PLAIN", "334"), (blob, "500 5.5.6"), ("NOOP", "250")
        )
        await peer.talk(("AUTH PLAIN", "334"), (blob * 10, "500 5.5.6"), ("NOOP", "250"))


async def test_secrets_never_show() -> None:
    """Pipelined behind a refused AUTH, wrong, malformed or right: no reply and no log line holds them."""
    user, secret = b64("SECRET-USER"), b64("SECRET-WORD")
    async with rig(listener={"auth": "off"}) as off, rig() as made:
        peer = await off.connect()
        peer.send(f"EHLO c\r\nAUTH LOGIN\r\n{user}\r\n{secret}\r\nQUIT\r\n".encode())
        text = (await peer.rest()).decode()
        peer = await greeted(made)
        peer.send(f"AUTH NTLM\r\n{user}\r\n{secret}\r\nAUTH PLAIN {secret}\r\n")
        peer.send(f"AUTH PLAIN {plain('SECRET-USER', 'SECRET-WORD')}\r\nAUTH LOGIN {user}\r\n{secret}\r\nQUIT\r\n")
        text += (await peer.rest()).decode()
        made.events.flush()
        off.events.flush()
        text += made.log.getvalue() + off.log.getvalue()
        assert WRONG in text
        for hidden in ("SECRET-WORD", "SECRET-USER", secret, user, secret.upper()):
            assert hidden not in text


async def test_three_failures_end_the_connection() -> None:
    """Three different ones; the same again, also by another mechanism, is no further guess."""
    async with rig() as made:
        peer = await greeted(made)
        for word in ("wrong", "wrong", "false", "false"):
            await peer.talk((f"AUTH PLAIN {plain('copier', word)}", WRONG))
        await peer.talk((f"AUTH LOGIN {b64('copier')}", "334"), (b64("wrong"), WRONG))
        await peer.talk((f"AUTH PLAIN {plain('copier', 'bad')}", WRONG))
        assert (await peer.reply()).startswith("421 4.7.0")
        assert await peer.rest() == b""
        assert made.metric("smtp_auth_total", mechanism="PLAIN", result="failed") == 5
        assert made.metric("smtp_rejected_total", stage="auth", reason="auth_failed") == 6
        said = [line for line in made.logged() if line["event"] == "auth"]
        assert {(line["user"], line["peer"], line["reason"]) for line in said} == {
            ("copier", "127.0.0.1", "auth_failed")
        }


async def test_a_good_token_that_has_ended_is_no_guess() -> None:
    """A program may say it as often as it likes, until it has said nothing else for too long."""
    async with rig() as made:
        ended = [made.token(jti=str(number), expires_in=timedelta(seconds=1)) for number in range(6)]
        made.clock.advance(100)
        peer = await greeted(made)
        for token in ended:
            await peer.talk((f"AUTH PLAIN {plain('jwt', token)}", WRONG))
        await peer.talk((f"AUTH PLAIN {plain('jwt', made.token())}", "235"))


async def test_the_same_wrong_login_without_end_ends() -> None:
    async with rig() as made:
        peer, command = await greeted(made), f"AUTH PLAIN {plain('copier', 'wrong')}"
        replies = [await peer.say(command) for _ in range(20)]
        assert {reply[:9] for reply in replies[:19]} == {WRONG}
        assert replies[19].startswith("421 4.7.0")


async def test_too_many_failures_are_told_and_the_line_stays_open() -> None:
    """454 4.7.0 (RFC 4954 6); smtplib tells it, where a 421 was hidden by the next mechanism it tried."""
    async with rig() as made:

        async def slowed(*_: str) -> Any:
            refusal = Refusal(454, "4.7.0", "Too many failed logins, try again later", "too_many_failures")
            raise LoginRefused(refusal, "copier")

        made.auth.login = slowed  # type: ignore[method-assign]
        peer = await greeted(made)
        for _ in range(5):
            await peer.talk((f"AUTH PLAIN {plain('copier', PASSWORD)}", "454 4.7.0"))
        await peer.talk(("MAIL FROM:<a@b.c>", "250"))

        def script(port: int) -> None:
            with smtplib.SMTP("127.0.0.1", port) as server:
                server.login("copier", PASSWORD)

        with pytest.raises(smtplib.SMTPAuthenticationError, match="454"):
            await anyio.to_thread.run_sync(script, made.listener.port)
        assert made.metric("smtp_auth_total", mechanism="PLAIN", result="refused") == 6
        assert made.metric("smtp_rejected_total", stage="auth", reason="too_many_failures") == 7
        said = next(line for line in made.logged() if line["event"] == "auth")
        assert (said["result"], said["user"], said["peer"]) == ("refused", "copier", "127.0.0.1")


async def test_revoked_in_an_open_session() -> None:
    """530 at the next MAIL, and the login is gone; a new one is possible."""
    async with rig() as made:
        token = made.token("app", jti="bad")
        peer = await greeted(made, address="127.0.0.9")
        await peer.talk((f"AUTH PLAIN {plain('jwt', token)}", "235"), ("MAIL FROM:<a@b.c>", "250"), ("RSET", "250"))
        made.revocations.revoke_jti("bad")
        await peer.talk(("MAIL FROM:<a@b.c>", "530 5.7.0"), ("MAIL FROM:<a@b.c>", "530 5.7.0"))
        await peer.talk((f"AUTH PLAIN {plain('jwt', token)}", WRONG))
        short = made.token(jti="good", expires_in=timedelta(seconds=60))
        await peer.talk((f"AUTH PLAIN {plain('jwt', short)}", "235"), ("MAIL FROM:<a@b.c>", "250"))
        made.clock.advance(100)
        await peer.talk(("RSET", "250"), ("MAIL FROM:<a@b.c>", "530 5.7.0"))


async def test_a_reload_ends_logins() -> None:
    """What the login was checked against has changed: a temporary goodbye at the next MAIL."""
    async with rig() as made, rig(clients={**CLIENTS, "copier": {**CLIENTS["copier"], "senders": ["me@b.c"]}}) as other:
        peer = await greeted(made, address="127.0.0.9")
        await peer.talk((f"AUTH PLAIN {plain('copier', PASSWORD)}", "235"), ("MAIL FROM:<a@b.c>", "250"))
        made.reload(other)
        await peer.talk(("RSET", "250"), ("MAIL FROM:<me@b.c>", "421 4.3.2"))
        peer = await greeted(made, address="127.0.0.9")
        await peer.talk((f"AUTH PLAIN {plain('copier', PASSWORD)}", "235"))
        await peer.talk(("MAIL FROM:<a@b.c>", "553"), ("MAIL FROM:<me@b.c>", "250"))


async def test_a_key_that_is_replaced_ends_its_sessions() -> None:
    """A leaked secret, replaced under its own name: the session that it opened is told at the next MAIL, and logged."""
    async with rig() as made, rig() as other:
        peer = await greeted(made, address="127.0.0.9")
        await peer.talk((f"AUTH PLAIN {plain('jwt', made.token())}", "235"), ("MAIL FROM:<a@b.c>", "250"))
        made.reload(other)
        await peer.talk(("RSET", "250"), ("MAIL FROM:<a@b.c>", "250"), ("RSET", "250"))
        key = other.settings.auth.keys["app"]
        keys = {"app": key.model_copy(update={"secret": SecretStr("another secret of more than 32 bytes")})}
        settings = other.settings.model_copy(update={"auth": other.settings.auth.model_copy(update={"keys": keys})})
        replaced = Rig(settings, {"box": Capabilities(max_bytes=35_000_000)})
        made.reload(replaced)
        await peer.talk(("MAIL FROM:<a@b.c>", "530 5.7.0"), (f"AUTH PLAIN {plain('jwt', made.token())}", WRONG))
        await peer.talk((f"AUTH PLAIN {plain('jwt', replaced.token())}", "235"), ("MAIL FROM:<a@b.c>", "250"))
        assert [line["stage"] for line in made.logged() if line.get("reason") == "token_expired"] == ["mail"]


async def test_an_issuer_is_asked_before_a_login_of_his_goes_on() -> None:
    """Keys that are five minutes old: MAIL waits for the look at them, and what it finds counts."""
    async with rig() as made:
        peer, asked = await greeted(made, address="127.0.0.9"), []
        await peer.talk((f"AUTH PLAIN {plain('jwt', made.token())}", "235"))

        async def look_again(client: Any) -> None:
            asked.append(client.name)
            made.revocations.revoke_jti("j1")

        made.auth.unsure = lambda client: not asked  # type: ignore[method-assign]
        made.auth.look_again = look_again  # type: ignore[method-assign]
        await peer.talk(("MAIL FROM:<a@b.c>", "530 5.7.0"), ("MAIL FROM:<a@b.c>", "530"))
        assert asked == ["tokens"]

        def cannot_tell(client: Any) -> bool:
            raise CannotTell("the issuer is away")

        made.auth.still_valid = cannot_tell  # type: ignore[method-assign]
        await (await greeted(made)).talk(("MAIL FROM:<a@b.c>", "451 4.7.0"))


async def test_a_last_word_inside_a_login_ends_the_connection() -> None:
    """What may be smuggled is not taken for an answer, not even where any answer would do (RFC 7628 3.2.3)."""
    async with rig() as made:
        for command in ("AUTH LOGIN", f"AUTH XOAUTH2 {bearer('a.b.c')}"):
            peer = await greeted(made, address="127.0.0.9")
            await peer.talk((command, "334 "), (b"AQ==\nNOOP\r\n", "501 5.5.2 The login is cut"))
            assert await peer.rest() == b""


async def test_a_reload_during_a_login_ends_it() -> None:
    """The login was looked at with the old settings."""
    async with rig() as made, rig(clients={"copier": CLIENTS["copier"]}) as other:
        peer, login = await greeted(made, address="127.0.0.9"), made.auth.login

        async def overtaken(*words: str) -> Any:
            client = await login(*words)
            made.reload(other)
            return client

        made.auth.login = overtaken  # type: ignore[method-assign]
        await peer.talk((f"AUTH PLAIN {plain('copier', PASSWORD)}", "235"), ("MAIL FROM:<a@b.c>", "421 4.3.2"))


async def test_a_failed_lookup_is_temporary() -> None:
    """Keys out of reach: 454 4.7.0, which is no failure of the client."""
    async with rig() as made:

        async def unavailable(*_: str) -> Any:
            raise Refusal(454, "4.7.0", "Temporary authentication failure", "auth_unavailable")

        made.auth.login = unavailable  # type: ignore[method-assign]
        peer = await greeted(made)
        for _ in range(12):
            await peer.talk((f"AUTH PLAIN {plain('jwt', 'x')}", "454 4.7.0"))
        assert made.metric("smtp_auth_total", mechanism="PLAIN", result="unavailable") == 12


async def test_trace_of_a_login() -> None:
    """with ESMTPA (RFC 3848); the client and its login are stored with the message."""
    async with rig() as made:
        peer = await greeted(made, address="127.0.0.9")
        await peer.talk((f"AUTH PLAIN {plain('jwt', made.token('billing'))}", "235"))
        await peer.talk(
            ("MAIL FROM:<a@b.c>", "250"), ("RCPT TO:<b@c.d>", "250"), ("DATA", "354"), (MESSAGE + b".\r\n", "250")
        )
        message = made.messages[0]
        assert (message.client, message.login, message.peer) == ("tokens", "billing", "127.0.0.9")
        assert b" with ESMTPA id " in message.raw.replace(b"\r\n\t", b" ")


async def test_the_documented_script_runs_unchanged() -> None:
    """smtplib with login("jwt", token) and an HTML multipart."""
    async with rig() as made:

        def script(port: int, token: str) -> None:
            message = MIMEMultipart()
            message["From"], message["To"], message["Subject"] = "me@example.com", "you@example.org", "Hello"
            message.attach(MIMEText("<p>Hello</p>", "html"))
            with smtplib.SMTP("127.0.0.1", port) as server:
                server.login("jwt", token)
                server.sendmail("me@example.com", ["you@example.org", "blind@example.org"], message.as_string())

        await anyio.to_thread.run_sync(script, made.listener.port, made.token())
        message = made.messages[0]
        assert message.deliveries == {"box": ("you@example.org", "blind@example.org")}
        assert b"blind" not in message.raw
        assert b"<p>Hello</p>" in message.raw


async def test_smtplib_with_a_wrong_password() -> None:
    async with rig() as made:

        def script(port: int) -> None:
            with smtplib.SMTP("127.0.0.1", port) as server:
                server.login("copier", "wrong")

        with pytest.raises(smtplib.SMTPAuthenticationError, match="535"):
            await anyio.to_thread.run_sync(script, made.listener.port)
