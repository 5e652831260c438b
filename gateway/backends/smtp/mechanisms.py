"""The exchanges of AUTH (RFC 4954). What the server asks is read, so that a secret goes only where it was asked for."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import ClassVar

import aiosmtplib

from gateway.backends.smtp.connection import BROKEN
from gateway.strangers import lenient_json

_LINE = 512  # octets of a command with its CRLF, of AUTH with an initial response too (RFC 4954, 4)
_LONGEST = 12288  # ... that a server of such mechanisms has to take (RFC 4954, 4)
_USER = re.compile(
    r"user|login|name|benutzer|anmelde|kennung|utilisateur|identifiant|usuario|usuário|utente|gebruiker|"
    r"użytkownik|uživatel|имя|логин|用户|用戶|账号|帳號|ユーザ|사용자|account|e-?mail"
)
_PASSWORD = re.compile(
    r"pass|pwd|kennwort|contrase|senha|wachtwoord|hasło|heslo|парол|lösenord|adgangskode|salasana|jelszó|"
    r"şifre|parola|密码|密碼|口令|パスワード|비밀번호|암호"
)
# What a refused token is told as (RFC 6750 3.1; Google gives the HTTP status in its place).
_STATUS = {
    "invalid_token": "the token has ended, was withdrawn, or is for somebody else",
    "401": "the token has ended, was withdrawn, or is for somebody else",
    "insufficient_scope": "the token does not allow it",
    "403": "the token does not allow it",
    "invalid_request": "it cannot read the token",
    "400": "it cannot read the token, or it is not this mailbox's",
}


class Unexpected(Exception):
    """The server asks for what is not next in this mechanism. The text may be shown."""


class Mechanism(ABC):
    """One exchange. ``initial`` may stand in the AUTH line; ``reason`` is what the server said beside its refusal.

    ``either_way``: where a line with the initial response is refused, it is tried without, and the other way round.
    """

    initial: bytes | None = None
    reason = ""
    either_way: ClassVar[bool] = False

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


class ByToken(Mechanism):
    """An access token. A refusal is JSON in a 334, which waits for ``acknowledged`` before it says 535."""

    either_way: ClassVar[bool] = True
    name: ClassVar[str]
    acknowledged: ClassVar[bytes]

    def __init__(self, initial: bytes) -> None:
        self.initial = initial
        self._left = [self.acknowledged, initial]

    def answer(self, prompt: str) -> bytes:
        told = (text := _decoded(prompt) or "").startswith("{")
        asked = "" if told else asks_for(prompt)
        if asked or not self._left:
            raise Unexpected(f"asks for {asked or 'more'} within AUTH {self.name}")
        if told:
            self.reason = _in_words(lenient_json(text.encode()))
            self._left = []
            return self.acknowledged
        return self._left.pop()


class XOAuth2(ByToken):
    """developers.google.com/workspace/gmail/imap/xoauth2-protocol"""

    name: ClassVar[str] = "XOAUTH2"
    acknowledged: ClassVar[bytes] = b""

    def __init__(self, username: str, secret: str) -> None:
        super().__init__(f"user={username}\1auth=Bearer {secret}\1\1".encode())


class OAuthBearer(ByToken):
    """RFC 7628. Host and port may be left out (3.1)."""

    name: ClassVar[str] = "OAUTHBEARER"
    acknowledged: ClassVar[bytes] = b"\1"

    def __init__(self, username: str, secret: str) -> None:
        who = username.replace("=", "=3D").replace(",", "=2C")  # saslname, RFC 5801 4
        super().__init__(f"n,a={who},\1auth=Bearer {secret}\1\1".encode())


MECHANISMS: Mapping[str, type[Plain | Login | CramMd5 | XOAuth2 | OAuthBearer]] = {
    "plain": Plain,
    "login": Login,
    "cram-md5": CramMd5,
    "xoauth2": XOAuth2,
    "oauthbearer": OAuthBearer,
}


def _in_words(said: Mapping[str, object]) -> str:
    """A refused token's JSON (RFC 7628 3.2.2), for people."""
    status = str(said.get("status") or "")
    words = [f"status {status}: {_STATUS[status]}" if status in _STATUS else f"status {status}" if status else ""]
    words += [f"it wants the scope {said['scope']}" if said.get("scope") else ""]
    return "; ".join(filter(None, words))


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
    return " ".join(text.split()) if text.replace("\n", " ").replace("\r", " ").isprintable() else None


async def authenticate(client: aiosmtplib.SMTP, name: str, username: str, secret: str) -> None:
    """One try with the mechanism called ``name``.

    Raises SMTPAuthenticationError with the server's reply, Unexpected after breaking off, and what aiosmtplib raises
    for a lost connection.
    """
    mechanism = MECHANISMS[name](username, secret)
    verb = b"AUTH " + name.upper().encode()
    blob = base64.b64encode(mechanism.initial) if mechanism.initial is not None else None
    in_one = blob is not None and len(blob) + len(verb) + 3 <= _LINE
    short, whole = verb, verb + b" " + (blob or b"")
    reply = await client.execute_command(whole if in_one else short)
    if mechanism.either_way and reply.code in (500, 501) and client.is_connected and len(whole) + 2 <= _LONGEST:
        reply = await client.execute_command(short if in_one else whole)
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
