"""gateway backend check --wait: until Exchange lets a test mail through, with growing pauses, and not for ever."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.cli.errors import Failed, TryAgain
from gateway.cli.waiting import wait


@dataclass
class Service:
    """``answers``: the state of the message at each look; each pauses the backend, as a refusal does."""

    answers: list[str]
    mailbox: str = "sender"
    senders: list[str] = field(default_factory=lambda: ["*@example.com", "relay@example.com"])
    orders: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def get(self, path: str, **_: Any) -> Any:
        if path == "settings":
            found = {"mailbox": self.mailbox, "senders": self.senders}
            return {"settings": [{"key": f"backends.office.{key}", "value": one} for key, one in found.items()]}
        return {"office": {"paused_by": "breaker"}}

    def post(self, path: str, body: Any = None) -> Any:
        self.orders.append(path)
        assert path != "send" or body == {"to": ["relay@example.com"], "from": "relay@example.com", "backend": "office"}
        return {"id": "1K1"}

    def look(self, _: str) -> Any:
        return {"recipients": [{"state": self.answers.pop(0), "detail": "ErrorAccessDenied"}]}


def test_until_one_leaves() -> None:
    """The same message where it waits; another where it has failed."""
    service = Service(["queued", "queued", "failed", "sent"])
    wait(service, "office", 7200, service.look, service.pauses.append)
    assert service.pauses == [60, 120, 240]
    resume, retry = "backends/office/resume", "messages/retry"
    assert service.orders == ["send", resume, retry, resume, retry, resume, "send"]


def test_not_for_ever() -> None:
    service = Service(["queued"] * 99)
    with pytest.raises(TryAgain, match="ErrorAccessDenied"):
        wait(service, "office", 7200, service.look, service.pauses.append)
    assert max(service.pauses) == 600
    assert 6600 <= sum(service.pauses) <= 7200


def test_without_a_mailbox_there_is_nobody_to_send_to() -> None:
    service = Service(["sent"], mailbox="me", senders=["*@example.com"])
    with pytest.raises(Failed, match="send-test"):
        wait(service, "office", 7200, service.look, service.pauses.append)
    assert service.orders == []
