"""What a handler takes and gives, beside it in the code; openapi.py makes the published document from it.

A handler's return annotation is the record (a frozen dataclass) that it answers with, so mypy holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, TypeVar

H = TypeVar("H", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Described:
    """``query`` and ``body`` are dataclasses whose fields are what may be given; one without a default must be.

    ``status`` is that of what the handler puts into a response itself (Answer), ``refusals`` are those of failures
    besides the usual ones, ``also`` other statuses that come with a record. ``media`` is the type of an answer that is
    no JSON. Where the path has an ``{action}``, ``actions`` describes each; ``gives`` is then its own record.
    """

    query: type | None = None
    body: type | None = None
    status: int = 200
    refusals: tuple[int, ...] = ()
    also: Mapping[int, Any] = field(default_factory=dict)
    media: str = ""
    says: str = ""
    gives: Any = None
    actions: Mapping[str, Described] = field(default_factory=dict)


def described(**given: Any) -> Callable[[H], H]:
    """For a handler; what may be given are the fields of Described."""
    found = Described(**given)

    def mark(handler: H) -> H:
        handler.described = found  # type: ignore[attr-defined]
        return handler

    return mark


def of(handler: Callable[..., Any]) -> Described:
    found: Described = getattr(handler, "described", Described())
    return found


def given(says: str, default: Any = "") -> Any:
    """A field of what is taken: its meaning, and what holds where it is left out."""
    return field(default=default, metadata={"says": says})


def needed(says: str) -> Any:
    """A field that must be given."""
    return field(default=MISSING, metadata={"says": says})
