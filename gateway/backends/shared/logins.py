"""The seam between an SMTP login and whoever gives tokens for it: each provider's room has its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.backends.shared.table import Row


class TokenLogin(Protocol):
    """Access tokens with which mailboxes of one provider log in."""

    @property
    def rows(self) -> Sequence[Row]:
        """What a refused login means; searched before what is known of any server's."""

    @property
    def known(self) -> Mapping[str, str]:
        """What braces in the fixes stand for, beside name and mailbox."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Who is asked for tokens."""

    async def account(self) -> str:
        """Who has signed in. Raises NoAnswer: nobody, or it is not known."""

    async def token(self, mailbox: str) -> str:
        """Raises NoAnswer."""

    async def instead(self, mailbox: str, refused: str) -> str | None:
        """Another token than the one that was refused, None where another would be like it. Raises NoAnswer."""

    async def facts(self, mailbox: str) -> dict[str, str]:
        """What is known of the token that is held for a mailbox: for people."""

    def forget(self) -> None:
        """Ask for tokens anew, whatever came last."""

    async def aclose(self) -> None: ...
