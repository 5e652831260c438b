"""Settings, messages and outcomes for tests: whole and valid, each with only what matters changed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.config.models import BackendSettings, Settings
from gateway.model import Capabilities, Envelope, NewMessage, Outcome, Recipient, Scope, SpooledMessage, Verdict
from gateway.routing import Routing

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
RAW = b"From: s@example.com\r\nSubject: test\r\n\r\nhello\r\n"
LIFETIME = timedelta(days=5)

SENT = Outcome(Verdict.SENT, code=250, enhanced="2.0.0", detail="ok", remote_id="r1", said_by="smtp")
GREYLISTED = Outcome(Verdict.DEFERRED, code=451, enhanced="4.7.1", detail="greylisted", said_by="smtp")
NO_USER = Outcome(
    Verdict.REJECTED, code=550, enhanced="5.1.1", detail="no such user", said_by="smtp", scope=Scope.RECIPIENT
)
IN_DOUBT = Outcome(Verdict.IN_DOUBT, detail="lost after the dot")
AWAY = Outcome(Verdict.DEFERRED, enhanced="4.4.1", detail="cannot connect: Connection refused", scope=Scope.BACKEND)
THROTTLED = Outcome(
    Verdict.THROTTLED, code=421, enhanced="4.7.0", detail="slow down", said_by="smtp", scope=Scope.BACKEND
)
BAD_LOGIN = Outcome(
    Verdict.MISCONFIGURED, code=535, enhanced="5.7.8", detail="wrong password", said_by="smtp",
    scope=Scope.BACKEND, fix="correct the password",
)  # fmt: skip

_numbers = itertools.count(1)


def envelope(*addresses: str, sender: str = "s@example.com", **more: Any) -> Envelope:
    """To a@example.org unless told otherwise."""
    return Envelope(sender, tuple(map(Recipient, addresses or ("a@example.org",))), **more)


def new_message(*addresses: str, backend: str = "b", ident: str = "", **more: Any) -> NewMessage:
    """An accepted message for one backend (or ``deliveries``), received at START; each has an id of its own."""
    addresses = addresses or ("a@example.org",)
    given = {
        "id": ident or f"M{next(_numbers):012d}",
        "envelope": envelope(*addresses, sender=more.pop("sender", "s@example.com")),
        "raw": RAW,
        "deliveries": {backend: addresses},
        "received_at": START,
        "expires_at": more.get("received_at", START) + LIFETIME,
        "client": "c",
    }
    return NewMessage(**{**given, **more})


def spooled_message(*addresses: str, **more: Any) -> SpooledMessage:
    """What delivery and a backend see of such a message."""
    given = {
        "id": f"M{next(_numbers):012d}",
        "envelope": envelope(*addresses, sender=more.pop("sender", "s@example.com")),
        "size": len(RAW),
        "received_at": START,
        "queued_at": more.get("received_at", START),
        "expires_at": more.get("received_at", START) + LIFETIME,
        "client": "c",
    }
    return SpooledMessage(**{**given, **more})


def settings(*backends: str | BackendSettings, state_dir: Path = Path("/nonexistent"), **sections: Any) -> Settings:
    """Settings as config.load makes them, in the file's own form: by default one route over all ``backends``.

    A backend given by its name is one of type capture.
    """
    named = {each if isinstance(each, str) else each.type: each for each in backends or ("box",)}
    given: dict[str, Any] = {
        "hostname": "relay.example.com",
        "state_dir": state_dir,
        "listeners": {},
        "auth": {},
        "clients": {},
        "backends": {
            name: BackendSettings(type="capture") if isinstance(each, str) else each for name, each in named.items()
        },
        "routes": [{"backend": list(named)}],
    }
    return Settings.model_validate(given | sections)


def routing(settings: Settings, capabilities: Mapping[str, Capabilities] | None = None) -> Routing:
    """The routes of these settings over backends that carry everything, or over those given."""
    return Routing(settings.routes, capabilities or dict.fromkeys(settings.backends, Capabilities(35_000_000)))
