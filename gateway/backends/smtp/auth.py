"""Logging in by AUTH (RFC 4954). What the server asks is read, so that a secret goes only where it was asked for."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress

import aiosmtplib

from gateway.backends.shared.base import refused
from gateway.backends.shared.oauth import in_token_thread
from gateway.backends.smtp.connection import BROKEN
from gateway.backends.smtp.settings import SmtpSettings
from gateway.strangers import lenient_json

_LINE = 512  # octets of a command with its CRLF, of AUTH with an initial response too (RFC 4954, 4)
_USER = re.compile(
    r"user|login|name|benutzer|anmelde|kennung|utilisateur|identifiant|usuario|usuário|utente|gebruiker|"
    r"użytkownik|uživatel|имя|логин|用户|用戶|账号|帳號|ユーザ|사용자|account|e-?mail"
)
_PASSWORD = re.compile(
    r"pass|pwd|kennwort|contrase|senha|wachtwoord|hasło|heslo|парол|lösenord|adgangskode|salasana|jelszó|"
    r"şifre|parola|密码|密碼|口令|パスワード|비밀번호|암호"
)


class Unexpected(Exception):
    """The server asks for what is not next in this mechanism. The text may be shown."""


class Mechanism(ABC):
    """One exchange. ``initial`` may stand in the AUTH line; ``reason`` is what the server said beside its refusal."""

    initial: bytes | None = None
    reason = ""

    @abstractmethod
    def answer(self, prompt: str) -> bytes:
        """What to say to a 334. Raises Unexpected, and does so sooner or later however often it is asked."""


class Plain(Mechanism):
    """RFC 4616. Who asks in spite of the initial response has overlooked it, or got none: it is said once more."""

    def __init__(self, username: str, secret: str) -> None:
        self.initial = f"\0{username}\0{secret}".encode()
        self._left = [self.initial]

    def answer(self, prompt: str) -> bytes:
        if (asked := asks_for(prompt)) or not self._left:
            raise Unexpected(f"asks for {asked or 'more'} within AUTH PLAIN")
        return self._left.pop()


class Login(Mechanism):
    """No standard (draft-murchison-sasl-login): prompts are any text. Without any, the user name comes first."""

    def __init__(self, username: str, secret: str) -> None:
        self._left = {"the user name": username.encode(), "the password": secret.encode()}

    def answer(self, prompt: str) -> bytes:
        asked = asks_for(prompt) or next(iter(self._left), "more")
        if asked not in self._left:
            raise Unexpected(f"asks for {asked} once more within AUTH LOGIN")
        return self._left.pop(asked)


class CramMd5(Mechanism):
    """RFC 2195: the challenge has the form of a Message-ID, and only its digest is answered."""

    def __init__(self, username: str, secret: str) -> None:
        self._username = username
        self._secrets = [secret.encode()]

    def answer(self, prompt: str) -> bytes:
        challenge = _decoded(prompt) or ""
        if not (self._secrets and re.fullmatch(r"<[\x21-\x7e]+>", challenge)):
            raise Unexpected(f"sends {(asks_for(prompt) and 'a prompt') or 'no challenge'} within AUTH CRAM-MD5")
        return f"{self._username} {hmac.new(self._secrets.pop(), challenge.encode(), 'md5').hexdigest()}".encode()


class XOAuth2(Mechanism):
    """developers.google.com/workspace/gmail/imap/xoauth2-protocol: a refusal is JSON, which waits for an empty line."""

    def __init__(self, username: str, secret: str) -> None:
        self.initial = f"user={username}\1auth=Bearer {secret}\1\1".encode()
        self._left = [b"", self.initial]

    def answer(self, prompt: str) -> bytes:
        if asks_for(prompt) or not self._left:
            raise Unexpected(f"asks for {asks_for(prompt) or 'more'} within AUTH XOAUTH2")
        if (text := _decoded(prompt) or "").startswith("{"):
            said = lenient_json(text.encode())
            self.reason = ", ".join(f"{key} {said[key]}" for key in ("status", "schemes", "scope") if said.get(key))
            self._left = []
            return b""
        return self._left.pop()


MECHANISMS: Mapping[str, Callable[[str, str], Mechanism]] = {
    "plain": Plain,
    "login": Login,
    "cram-md5": CramMd5,
    "xoauth2": XOAuth2,
}


def asks_for(prompt: str) -> str:
    """ "the user name" or "the password", if that is what a 334 asks for; "" for text that says neither."""
    for text in (_decoded(prompt), prompt):  # a few servers send it as it is, not in base64
        words = (text or "").casefold()
        if _PASSWORD.search(words):
            return "the password"
        if _USER.search(words):
            return "the user name"
    return ""


def _decoded(prompt: str) -> str | None:
    """What stands in base64 there, if that is text."""
    try:
        text = base64.b64decode(prompt.strip(), validate=True).decode().strip("\0 \t\r\n")
    except (binascii.Error, ValueError):
        return None
    return text if text.isprintable() else None


async def authenticate(client: aiosmtplib.SMTP, name: str, username: str, secret: str) -> None:
    """One try with the mechanism called ``name``.

    Raises SMTPAuthenticationError with the server's reply, Unexpected after breaking off, and what aiosmtplib raises
    for a lost connection.
    """
    mechanism = MECHANISMS[name](username, secret)
    line = b"AUTH " + name.upper().encode()
    if mechanism.initial is not None and len(blob := base64.b64encode(mechanism.initial)) + len(line) + 3 <= _LINE:
        line += b" " + blob
    reply = await client.execute_command(line)
    while reply.code == 334:
        try:
            answer = mechanism.answer(reply.message)
        except Unexpected:
            with suppress(*BROKEN):
                await client.execute_command(b"*")  # breaks off; the reply is 501 (RFC 4954, 4)
            raise
        reply = await client.execute_command(base64.b64encode(answer))
    if 200 <= reply.code < 300 or (reply.code == 503 and "already" in reply.message.lower()):
        return
    said = f"{reply.message} ({mechanism.reason})" if mechanism.reason else reply.message
    raise aiosmtplib.SMTPAuthenticationError(reply.code, said)


class Logins:
    """How one backend logs in: by what the settings want, what the server offers, and what has worked before."""

    def __init__(self, name: str, settings: SmtpSettings) -> None:
        self._settings = settings
        self._name = name
        self._first = ""  # begins: it worked, or it is what remains to be tried
        self._proven = False
        self._second = True  # another one may be tried where the first is refused
        self._works = False
        self._turn = asyncio.Lock()
        self._failures: list[Exception] = []  # the last one
        self._secret_now = settings.password.get_secret_value() if settings.password else ""

    def secrets(self) -> tuple[str, ...]:
        """What must not be shown, in every spelling in which a server might repeat it."""
        name, secret = self._settings.username or "", self._secret_now
        begun = (mechanism(name, secret).initial for mechanism in MECHANISMS.values())
        blobs = (secret.encode(), *filter(None, begun))
        return (secret, *(base64.b64encode(blob).decode() for blob in blobs)) if secret else ()

    @property
    def failed(self) -> object:
        """Another object after each refusal."""
        return self._failures

    async def log_in(self, client: aiosmtplib.SMTP, failed: object) -> None:
        """``failed`` as it was when the connection was begun. Raises NoAnswer, SMTPAuthenticationError with the
        server's reply, and what a lost connection does.

        Until a login has worked they go one at a time, and whoever was on his way shares the refusal: accounts get
        locked, and a wrong password is one guess, not one for each connection.
        """
        async with nullcontext() if self._works else self._turn:
            if self._failures is not failed and not self._works:
                raise self._failures[0].with_traceback(None)
            try:
                await self._log_in(client)
            except Exception as error:
                self._works, self._failures = False, [error]
                raise
            self._works = True

    async def _log_in(self, client: aiosmtplib.SMTP) -> None:
        try:
            await self._try(client)
        except Unexpected as error:
            fix = f"set auth of backends.{self._name} to another mechanism"
            raise refused(f"{self._settings.where} {error}; it got no more", fix, "4.7.4") from None

    async def _try(self, client: aiosmtplib.SMTP) -> None:
        username, secret = self._settings.username or "", await self._secret()
        first, *others = self._choices(client.server_auth_methods)
        try:
            await authenticate(client, first, username, secret)
        except (aiosmtplib.SMTPAuthenticationError, Unexpected) as error:
            if (second := self._instead(first, others, error)) is None:
                raise
            # Should the connection end over it, the next one begins here; and there is no third try.
            self._first, self._second = second, False
            await self._try_instead(client, second, username, secret, error)
            first = second
        self._first, self._proven, self._second = first, True, True

    async def _try_instead(
        self, client: aiosmtplib.SMTP, second: str, username: str, secret: str, error: Exception
    ) -> None:
        """Raises the ``error`` of the first try where that was about the password, else what comes of this one."""
        try:
            await authenticate(client, second, username, secret)
        except (aiosmtplib.SMTPException, Unexpected, OSError) as other:
            if _code(error) != 535:
                raise
            if _code(other):
                self._first = ""
            raise error from None

    async def _secret(self) -> str:
        """The password, or the access token that is in its file at this moment."""
        if (file := self._settings.token_file) is None:
            return self._secret_now
        fix = f"put an access token, and nothing else, into backends.{self._name}.token_file"
        try:
            token = (await in_token_thread(file.read_text)).strip()
        except (OSError, ValueError) as error:
            raise refused(f"{file}: {getattr(error, 'strerror', None) or 'not a text file'}", fix) from None
        if not re.fullmatch(r"[!-~]+", token):
            raise refused(f"{file} holds no access token", fix)
        self._secret_now = token
        return token

    def _choices(self, offered: list[str]) -> list[str]:
        """What may be tried, in order. Raises NoAnswer when the server offers none of it."""
        settings = self._settings
        wanted = ["plain", "login", "cram-md5"] if settings.auth == "auto" else [settings.auth]
        usable = [one for one in wanted if one in offered]
        if not usable:
            names = " or ".join(wanted).upper()
            detail = f"{settings.where} offers no AUTH {names} (but: {' '.join(offered) or 'none'})"
            raise refused(detail, f"check tls, port and auth of backends.{self._name}", "4.7.4")
        return sorted(usable, key=lambda one: one != self._first)

    def _instead(self, first: str, others: list[str], error: Exception) -> str | None:
        """What to try once after ``first``: anything where that is refused itself, LOGIN where the log-in is.

        Servers that offer PLAIN and can do only LOGIN call it a wrong password (535). What has worked is not doubted.
        """
        if not self._second or not others:
            return None
        if isinstance(error, Unexpected) or _code(error) in (500, 501, 502, 504):
            return others[0]
        wrong = _code(error) == 535 and first == "plain" and not self._proven
        return "login" if wrong and "login" in others else None


def _code(error: Exception) -> int:
    return error.code if isinstance(error, aiosmtplib.SMTPAuthenticationError) else 0
