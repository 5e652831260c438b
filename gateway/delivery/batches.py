"""Mail in memory a little at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from gateway.model import SpooledMessage

_TOGETHER = 16_000_000  # bytes


class Mail(Protocol):
    @property
    def message(self) -> SpooledMessage: ...


M = TypeVar("M", bound=Mail)


def batches(mail: Sequence[M]) -> Iterator[list[M]]:
    """In their order, each of at least one and at most so many bytes as may be in memory together."""
    some: list[M] = []
    size = 0
    for each in mail:
        if some and size + each.message.size > _TOGETHER:
            yield some
            some, size = [], 0
        some.append(each)
        size += each.message.size
    if some:
        yield some
