"""Which backends this instance works, of several that share a queue: each is worked by one at a time."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class Ownership(Protocol):
    """All of it is quick."""

    def owns(self, backend: str) -> bool:
        """Whether it is worked here. Who owns it from now on is told so by ``Dispatcher.gain`` and ``lose``."""

    def owner(self, backend: str) -> str:
        """Which instance works it, as far as is known; "" where there is only one."""

    def valid(self) -> bool:
        """Whether what this instance owns is still its own: asked right before a send."""

    def alive(self) -> bool:
        """Whether anybody still sees to that."""

    def keeps_house(self) -> bool:
        """Whether it does here what is to be done once for all."""

    def declared(self) -> Collection[str]:
        """Backends that other instances have: mail for these is no orphan."""

    def ordered(self, backend: str) -> None:
        """Let the others hear that something was ordered of it."""

    def stir(self) -> None:
        """An order was obeyed here: let them hear soon how it stands."""


class Alone:
    """There are no others."""

    def owns(self, backend: str) -> bool:
        return True

    def owner(self, backend: str) -> str:
        return ""

    def valid(self) -> bool:
        return True

    def alive(self) -> bool:
        return True

    def keeps_house(self) -> bool:
        return True

    def declared(self) -> Collection[str]:
        return ()

    def ordered(self, backend: str) -> None:
        pass

    def stir(self) -> None:
        pass
