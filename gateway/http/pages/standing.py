"""How a backend, or what has an end, stands: icon, word and colour, and the line beside it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from gateway.health.records import BackendNow, Ends
from gateway.health.words import lasting, state_word
from gateway.http.pages.text import Times
from gateway.http.problem import fields_of

_TAGS = {  # a backend's state -> tone and icon; the shape tells them apart without the colour
    "working": ("ok", "tick"), "slowed_down": ("warn", "clock"), "paused": ("warn", "bars"),
    "stopped": ("bad", "octagon"), "": ("quiet", "clock"),
}  # fmt: skip
_WARN = timedelta(days=14)


def tag(state: str, who: str = "") -> dict[str, str]:
    tone, icon = _TAGS[state]
    return {"tone": tone, "icon": icon, "word": state_word(state, who)}


def ending(one: Ends, now: datetime) -> dict[str, Any]:
    return {**fields_of(one), "tag": _ending_tag(one.ends_at, now)}


def _ending_tag(ends_at: datetime, now: datetime) -> dict[str, str]:
    left = ends_at - now
    if left <= timedelta(0):
        return {"tone": "bad", "icon": "octagon", "word": "Ended"}
    tone, icon = ("warn", "warn") if left <= _WARN else ("quiet", "clock")
    return {"tone": tone, "icon": icon, "word": lasting(left)}


def note(one: BackendNow, times: Times) -> str:
    """What an operator would ask next."""
    until = times.text(one.until) if one.until else ""
    if one.state == "paused":
        return f"until {until}" if until else "until you resume it"
    if one.state == "slowed_down":
        return f"asked to wait until {until}" if until else "one message at a time"
    if one.state == "stopped":
        cause = "refuses us" if one.by == "misconfigured" else "not reached"
        return f"{cause}, tried again at {until}" if until else f"{cause}, tried again now"
    if one.last_success is None:
        return "nothing sent yet"
    return f"last sent {lasting(times.now - one.last_success)} ago"
