"""``gateway backend check NAME --wait``: until a test mail to the mailbox itself has left, with growing pauses.

Rights in Exchange count after half an hour to two hours, and stand in no token: only a message shows them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from gateway.cli.errors import Failed, TryAgain
from gateway.cli.plain import say, span

_FIRST, _LONGEST = 60.0, 600.0  # seconds between two tries


class Asked(Protocol):
    """The part of the service that is needed."""

    def get(self, path: str, **query: Any) -> Any: ...
    def post(self, path: str, body: Any = None) -> Any: ...


def wait(api: Asked, name: str, seconds: float, look: Callable[[str], Any], pause: Callable[[float], None]) -> None:
    """``look`` gives the life of a message once there is an answer.

    Raises Failed where no mailbox is known, TryAgain when the time is over.
    """
    address = _mailbox(api, name)
    queue_id, waited, rest = _send(api, name, address), 0.0, _FIRST
    while True:
        (row,) = look(queue_id)["recipients"]
        if row["state"] == "sent":
            say(f"{name}: test mail {queue_id} to {address} has left")
            return
        said = " ".join(str(row["detail"] or row["state"]).split())
        if waited + rest > seconds:
            raise TryAgain(f"{name}: not yet, after {span(waited)}: {said}\nits life: gateway trace {queue_id}")
        say(f"{name}: not yet: {said}; trying again in {span(rest)}")
        pause(rest)
        waited, rest = waited + rest, min(rest * 2, _LONGEST)
        if api.get("backends")[name]["paused_by"]:
            api.post(f"backends/{name}/resume", {})
        if row["state"] == "failed":
            queue_id = _send(api, name, address)
        else:
            api.post("messages/retry", {"ids": [queue_id]})


def _send(api: Asked, name: str, address: str) -> str:
    return str(api.post("send", {"to": [address], "from": address, "backend": name})["id"])


def _mailbox(api: Asked, name: str) -> str:
    """The one that it sends as, which a test mail annoys least."""
    rows = api.get("settings", all="1", q=f"backends.{name}")["settings"]
    values = {row["key"]: row["value"] for row in rows}
    senders = values.get(f"backends.{name}.senders") or []
    known = (values.get(f"backends.{name}.mailbox"), *(senders if isinstance(senders, list) else [senders]))
    address = next((str(one) for one in known if "@" in str(one) and "*" not in str(one)), "")
    if not address:
        raise Failed(f"{name} has no mailbox that a test mail could go to: gateway send-test --to you@example.com")
    return address
