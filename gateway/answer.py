"""How a request over HTTP ends: in an Answer, NotSent or Lost, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class NotSent(Exception):
    """Nothing can have been processed: no name, no connection, no TLS. The text may be shown.

    ``fix`` says what to do, where that is known.
    """

    def __init__(self, text: str, fix: str = "") -> None:
        super().__init__(text)
        self.fix = fix


class Lost(Exception):
    """The request may have been processed, but no usable answer came. The text may be shown.

    ``stale``: the connection was kept from an earlier request and ended without a byte of an answer. Most likely it
    had been given up over there before.
    """

    def __init__(self, text: str, *, stale: bool = False) -> None:
        super().__init__(text)
        self.stale = stale


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer. Header names are lower case; a body over the caller's cap is cut off there."""

    status: int
    headers: Mapping[str, str]
    body: bytes
