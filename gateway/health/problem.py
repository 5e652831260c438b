"""A thing that needs somebody, and what kinds there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

# Each kind, and in a word what it is; docs/operations.md says of each what to do.
KINDS: Mapping[str, str] = {
    "backend_stopped": "a backend cannot send",
    "delivery_dead": "nobody works off mail",
    "spool_unwritable": "the spool takes no writes",
    "door_shut": "no new mail is taken",
    "listener_deaf": "a listener does not listen",
    "no_backend": "mail waits for a backend that is not configured",
    "in_doubt": "mail is held because nobody knows whether it arrived",
    "damaged": "mail is damaged on disk",
    "ends": "a secret, certificate, sign-in or token has ended or ends within 7 days",
    "queue_stuck": "mail waits longer than 30 minutes though its backend works",
    "disk_low": "the disk is nearly full",
    "reload_refused": "the settings on disk are wrong",
    "pickup_unreadable": "a folder that mail is taken from cannot be read",
    "over_quota": "a client sends more than its quota",
    "log_in_attack": "many log-ins are refused",
    "clock_stepped": "the machine's clock was set",
    "settings_differ": "instances on one database have different settings",
    "few_descriptors": "this process may open too few files",
    "returns_unread": "mail that came back cannot be looked for",
    "address_dead": "mail to one address keeps coming back",
    "bug": "something unexpected happened, and the log has it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """``key`` stays the same as long as the event lasts; ``kind`` is one of KINDS. ``what`` is the heading, ``cost``
    what it costs and what is not lost, ``fix`` what to do, ``said`` the other side's words. ``action`` is what one
    button does: fix, check, messages, or "". ``since`` None: it is not known.
    """

    key: str
    kind: str
    severity: Literal["bad", "warn"]
    what: str
    since: datetime | None
    cost: str
    fix: str
    said: str = ""
    backend: str = ""
    action: Literal["fix", "check", "messages", ""] = ""
