"""How one user logs in to one server: by what the settings want, what the server offers, and what has worked before."""

from __future__ import annotations

import asyncio
import base64
import re
from contextlib import nullcontext
from typing import Protocol

import aiosmtplib

from gateway.backends.shared.base import refused
from gateway.backends.shared.logins import TokenLogin
from gateway.backends.shared.oauth import in_token_thread
from gateway.backends.smtp.connection import BROKEN
from gateway.backends.smtp.mechanisms import MECHANISMS, Unexpected, authenticate
from gateway.backends.smtp.settings import SmtpSettings

_BY_PASSWORD = ("plain", "login", "cram-md5")
_BY_TOKEN = ("xoauth2", "oauthbearer")  # Exchange knows the first alone, and some others the second
_SHOWN = 4  # secrets that a server may have seen and repeat


class Again(Exception):
    """The server hung up over a token, and there is another one: connect once more."""


class Credential(Protocol):
    """What a user shows."""

    username: str
    mechanisms: tuple[str, ...]

    async def secret(self) -> str:
        """Raises NoAnswer."""

    async def instead(self, refused: str) -> str | None:
        """Another secret than the one that was refused, None where there is none. Raises NoAnswer."""


class Password:
    """From the settings."""

    mechanisms: tuple[str, ...] = _BY_PASSWORD

    def __init__(self, settings: SmtpSettings) -> None:
        self.username = settings.username or ""
        self._secret = settings.password.get_secret_value() if settings.password else ""

    async def secret(self) -> str:
        return self._secret

    async def instead(self, refused: str) -> str | None:
        return None


class TokenFile:
    """The access token that is in its file at this moment: another program puts it there."""

    mechanisms: tuple[str, ...] = _BY_TOKEN

    def __init__(self, name: str, settings: SmtpSettings) -> None:
        self.username = settings.username or ""
        self._name = name
        self._file = settings.token_file

    async def secret(self) -> str:
        fix = f"put an access token, and nothing else, into backends.{self._name}.token_file"
        assert self._file is not None
        try:
            token = (await in_token_thread(self._file.read_text)).strip()
        except (OSError, ValueError) as error:
            raise refused(f"{self._file}: {getattr(error, 'strerror', None) or 'not a text file'}", fix) from None
        if not re.fullmatch(r"[!-~]+", token):
            raise refused(f"{self._file} holds no access token", fix)
        return token

    async def instead(self, refused: str) -> str | None:
        return None


class MailboxToken:
    """An access token of the mailbox's provider."""

    mechanisms: tuple[str, ...] = _BY_TOKEN

    def __init__(self, mailbox: str, tokens: TokenLogin) -> None:
        self.username = mailbox
        self._tokens = tokens

    async def secret(self) -> str:
        return await self._tokens.token(self.username)

    async def instead(self, refused: str) -> str | None:
        return await self._tokens.instead(self.username, refused)


class Logins:
    """The logins of one user."""

    def __init__(self, name: str, settings: SmtpSettings, credential: Credential) -> None:
        self._settings = settings
        self._credential = credential
        self._name = name
        self._first = ""  # begins: it worked, or it is what remains to be tried
        self._proven = False
        self._second = True  # another one may be tried where the first is refused
        self._works = False
        self._turn = asyncio.Lock()
        self._failures: list[Exception] = []  # the last one
        self._shown: list[str] = []  # secrets, the newest last

    def secrets(self) -> tuple[str, ...]:
        """What must not be shown, in every spelling in which a server might repeat it."""
        name, found = self._credential.username, []
        for secret in filter(None, self._shown):
            begun = (mechanism(name, secret).initial for mechanism in MECHANISMS.values())
            blobs = (secret.encode(), *filter(None, begun))
            found += [secret, *(base64.b64encode(blob).decode() for blob in blobs)]
        return tuple(found)

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
            except Again:
                raise
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
        username, secret = self._credential.username, self._seen(await self._credential.secret())
        first, *others = self._choices(client.server_auth_methods)
        try:
            await authenticate(client, first, username, secret)
        except (aiosmtplib.SMTPAuthenticationError, Unexpected) as error:
            if await self._renewed(client, first, secret, error):
                pass
            elif (second := self._instead(first, others, error)) is None:
                raise
            else:
                # Should the connection end over it, the next one begins here; and there is no third try.
                self._first, self._second = second, False
                await self._try_instead(client, second, username, secret, error)
                first = second
        self._first, self._proven, self._second = first, True, True

    def _seen(self, secret: str) -> str:
        if secret not in self._shown:
            self._shown = [*self._shown, secret][-_SHOWN:]
        return secret

    async def _renewed(self, client: aiosmtplib.SMTP, name: str, secret: str, error: Exception) -> bool:
        """Whether another token is good where one was refused. Raises Again, SMTPAuthenticationError, NoAnswer."""
        if _code(error) != 535 or (other := await self._credential.instead(secret)) is None:
            return False
        try:
            await authenticate(client, name, self._credential.username, self._seen(other))
        except aiosmtplib.SMTPAuthenticationError:
            raise
        except BROKEN:
            raise Again(str(error)) from error
        return True

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

    def _choices(self, offered: list[str]) -> list[str]:
        """What may be tried, in order. Raises NoAnswer when the server offers none of it."""
        settings = self._settings
        wanted = self._credential.mechanisms if settings.auth == "auto" else (settings.auth,)
        usable = [one for one in wanted if one in offered]
        if not usable:
            names = " or ".join(wanted).upper()
            detail = f"{settings.where} offers no AUTH {names} (but: {' '.join(offered) or 'none'})"
            raise refused(detail, f"check host, tls, port and auth of backends.{self._name}", "4.7.4")
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
