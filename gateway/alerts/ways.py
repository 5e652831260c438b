"""How a notice gets out: what each way does with one, and why it could not. Mail is in mail.py."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from gateway.alerts.notice import Notice
from gateway.config.finding import Finding
from gateway.config.models import AlertSettings, WebhookSettings
from gateway.fetch import Fetch, Lost, NotSent
from gateway.trust import Trust

DEADLINE = 30.0  # seconds for a webhook's answer or a command
_SAID = 300  # characters of what a command or a server says that are kept


def outside(settings: AlertSettings, fetch: Fetch) -> tuple[Way, ...]:
    """The ways that need no mail. Raises OSError for a ``ca_file`` that cannot be used."""
    hooks: list[Way] = [Webhook(settings.webhook, fetch)] if settings.webhook else []
    return (*hooks, *([Command(settings.command)] if settings.command else []))


def examine(settings: AlertSettings) -> Iterator[Finding]:
    """What cannot work, as far as it is seen from here. Reads what the settings name; asks nobody."""
    if settings.command and not shutil.which(settings.command[0]):
        text = f"{settings.command[0]}: there is no such program, or this user may not run it"
        yield Finding(("alerts", "command"), text, fatal=False)
    if settings.webhook and (ca_file := settings.webhook.ca_file):
        try:
            Trust(ca_file).load()
        except OSError as error:
            yield Finding(("alerts", "webhook", "ca_file"), f"{ca_file}: {error.strerror or error}")


class Way(Protocol):
    """``name`` is mail, webhook or command."""

    @property
    def name(self) -> str: ...
    async def tell(self, notice: Notice) -> str:
        """ "" when it was handed over, else why not, in words that may be shown. Never raises for what is expected."""


class Webhook:
    """JSON by POST, signed: ``Gateway-Signature: t=SECONDS,v1=HEX``, the HMAC-SHA256 over ``SECONDS.BODY``."""

    name = "webhook"

    def __init__(self, settings: WebhookSettings, fetch: Fetch) -> None:
        """Raises OSError for a ``ca_file`` that cannot be used."""
        self._settings = settings
        self._fetch = fetch.by(settings.ca_file, None)

    async def tell(self, notice: Notice) -> str:
        url, body, at = self._settings.url.get_secret_value(), notice.body(), str(int(notice.at.timestamp()))
        headers = {
            "content-type": "application/json",
            "gateway-signature": f"t={at},v1={signature(self._settings.secret.get_secret_value(), at, body)}",
            "gateway-delivery": notice.id,
        }
        try:
            answer = await self._fetch.request(
                "POST", url, headers=headers, content=body, deadline=DEADLINE, max_bytes=_SAID
            )
        except (NotSent, Lost) as error:
            return str(error)
        said = answer.body.decode("utf-8", "replace").strip()
        return "" if 200 <= answer.status < 300 else f"HTTP {answer.status} {said}".strip()


def signature(secret: str, at: str, body: bytes) -> str:
    """Who knows the secret can make it anew and compare."""
    return hmac.new(secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()


class Command:
    """A program with the JSON of a notice on its standard input, and its subject in ``GATEWAY_ALERT``."""

    name = "command"

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> None:
        self._arguments = arguments
        self._environ = {name: environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in environ}

    async def tell(self, notice: Notice) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._arguments, env={**self._environ, "GATEWAY_ALERT": notice.subject.replace("\0", "")},
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            return f"cannot run {self._arguments[0]}: {getattr(error, 'strerror', None) or error}"
        try:
            async with asyncio.timeout(DEADLINE):
                _, said = await process.communicate(notice.body())
        except TimeoutError:
            return f"{self._arguments[0]} did not end within {DEADLINE:.0f} s"
        finally:
            with suppress(ProcessLookupError):  # it and all that it started, also when nobody waits any more
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        text = said.decode("utf-8", "replace").strip()[-_SAID:]
        return "" if process.returncode == 0 else f"{self._arguments[0]} ended with {process.returncode}: {text}"
