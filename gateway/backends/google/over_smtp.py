"""Gmail's logins over SMTP by token: one for each mailbox, and why a login is refused.

developers.google.com/workspace/gmail/imap/xoauth2-protocol
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from pydantic import model_validator

from gateway.backends.google import tokens
from gateway.backends.google.tokens import FULL, GoogleTokens, read_file
from gateway.backends.shared.base import Context, Url, refused
from gateway.backends.shared.logins import TokenLogin
from gateway.backends.shared.oauth import TokenCache, in_token_thread
from gateway.backends.shared.over_http import HttpWay
from gateway.backends.shared.recent import Recent
from gateway.backends.shared.table import Row
from gateway.config.authorities import examine_authorities
from gateway.config.finding import Examined
from gateway.model import Verdict

_CACHES = 1000  # mailboxes whose tokens are kept
_DELEGATED = (
    "see that {mailbox} is a user of the Workspace with Gmail switched on, that the delegation of the service account "
    f"names the scope {FULL} beside any other, and that SMTP is not forbidden there (admin.google.com > Apps > Gmail > "
    "End user access)"
)
_SIGNED_IN = (
    "sign in as {mailbox} itself, with the scope that SMTP needs: gateway auth google --backend {name}; an alias or "
    "a group cannot log in"
)
_ONE = (334, 534, 535)


class GoogleLoginSettings(HttpWay):
    """Tokens of Google, by the files that a ``gmail`` backend has."""

    section: ClassVar[str] = "google"
    service_account_file: Path | None = None
    authorized_user_file: Path | None = None
    token_url: Url | None = None

    @model_validator(mode="after")
    def _one_file(self) -> Self:
        if (self.service_account_file is None) == (self.authorized_user_file is None):
            raise ValueError("give service_account_file or authorized_user_file, one of them")
        return self

    @property
    def file(self) -> Path:
        path = self.service_account_file or self.authorized_user_file
        assert path is not None
        return path

    @property
    def takes_own_sender_only(self) -> bool:
        """Gmail takes any MAIL FROM, and puts its own in the place of those that are not the mailbox's."""
        return False

    def unfit(self, mailbox: str) -> str:
        """Why these tokens cannot log ``mailbox`` in, "" where they can."""
        service = self.service_account_file is not None
        if mailbox == "me" and service:
            return 'mailbox "me" needs an authorized_user_file; a service account needs an address, or sender'
        if mailbox == "sender" and not service:
            return 'mailbox "sender" needs a service_account_file with domain-wide delegation'
        return ""

    def examine(self, name: str, state_dir: Path, mailbox: str) -> Examined:
        yield from examine_authorities(self.ca_file)
        named = "" if mailbox in ("me", "sender") else mailbox
        yield from tokens.examine(name, self.file, named, user=self.authorized_user_file is not None)

    def login(self, name: str, mailbox: str, context: Context) -> TokenLogin:
        return GoogleLogin(name, self, mailbox == "sender", context)


class GoogleLogin:
    """A token for each mailbox, in whose name the service account asks."""

    def __init__(self, name: str, settings: GoogleLoginSettings, many: bool, context: Context) -> None:
        self._name = name
        self._settings = settings
        self._many = many
        self._context = context
        self._user = settings.authorized_user_file is not None
        self._caches: Recent[str, tuple[GoogleTokens, TokenCache]] = Recent(_CACHES)
        fix = _SIGNED_IN if self._user else _DELEGATED
        self.rows: Sequence[Row] = (Row(_ONE, Verdict.MISCONFIGURED, "", fix=fix),)
        self.urls = (settings.token_url or tokens.TOKEN_URL,)
        self.known: Mapping[str, str] = {}

    async def account(self) -> str:
        info = await in_token_thread(lambda: read_file(self._settings.file))
        if account := str(info.get("account") or ""):
            return account
        fix = f"put that address into backends.{self._name}.mailbox"
        raise refused(f"{self._settings.file} does not say whose sign-in it is", fix)

    async def token(self, mailbox: str) -> str:
        return await self._of(mailbox)[1].get()

    async def instead(self, mailbox: str, refused: str) -> str | None:
        return await self._of(mailbox)[1].instead(refused)

    async def facts(self, mailbox: str) -> dict[str, str]:
        source, cache = self._of(mailbox)
        await cache.get()
        return source.facts()

    def forget(self) -> None:
        for _, cache in tuple(self._caches.values()):
            cache.forget_failure()

    async def aclose(self) -> None:
        for _, cache in tuple(self._caches.values()):
            await cache.aclose()

    def _of(self, mailbox: str) -> tuple[GoogleTokens, TokenCache]:
        if found := self._caches.get(mailbox.lower()):
            return found
        source = GoogleTokens(
            self._name,
            self._settings.file,
            mailbox,
            self._context,
            user=self._user,
            many=self._many,
            token_url=self._settings.token_url,
            wanted=FULL,
        )
        return self._caches.put(mailbox.lower(), (source, TokenCache(self._name, source, self._context)))
